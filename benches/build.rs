//! Passes the measured versions to the reports: reads them from the lock file.

fn main() {
    println!("cargo:rerun-if-changed=../Cargo.lock");
    let lock = std::fs::read_to_string("../Cargo.lock").unwrap_or_default();
    let version = |name: &str| {
        let head = format!("name = \"{name}\"\nversion = \"");
        // A peer may depend on an earlier version of another peer; the latest one is measured.
        let found = lock.split(&head).skip(1).last().and_then(|rest| rest.split('"').next());
        format!("{name} {}", found.unwrap_or("unknown"))
    };
    let mut peers = ["async-cache", "quick_cache", "moka", "cached", "redb", "fjall", "rusqlite", "bitcode"]
        .map(version)
        .join(", ");
    if std::env::var_os("CARGO_FEATURE_FOYER").is_some() {
        peers = format!("{peers}, {}", version("foyer"));
    }
    println!("cargo:rustc-env=BENCH_VERSIONS={peers}");
}
