//! Runs the tool in this process, on golden files and on deliberately damaged files.
#![allow(clippy::disallowed_methods)] // tests may make files

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use anstream::StripStream;
use async_cache_cli::{Environment, Progress, run_with};

/// A minute after the time of saving in the golden files, in nanoseconds.
pub(crate) const NOW: u64 = 1_700_000_060_000_000_000;

/// The folder of the golden files.
const GOLDEN: &str = "../async-cache-disk/tests/golden";
/// The folder of their copies. The modes of a checkout depend on its maker, and decide whether a
/// file is trusted.
const COPIES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/golden");

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn tool(args: &[&str]) -> Ran {
    tool_reading(args, "")
}

pub(crate) fn tool_reading(args: &[&str], input: &str) -> Ran {
    tool_at(NOW, args, input)
}

pub(crate) fn tool_at(now: u64, args: &[&str], input: &str) -> Ran {
    let (mut out, mut err) = (StripStream::new(Vec::new()), StripStream::new(Vec::new()));
    let args = ["async-cache"].iter().chain(args).map(Into::into);
    let code = run_with(
        args,
        &mut Environment {
            out: &mut out,
            err: &mut err,
            input: &mut input.as_bytes(),
            now,
            secret: None,
            progress: Progress::Never,
            unpickle: None,
        },
    );
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is text");
    Ran { code, out: text(out.into_inner()), err: text(err.into_inner()) }
}

/// The path of a trusted copy of a golden file.
pub(crate) fn golden(name: &str) -> String {
    static COPIED: Once = Once::new();
    COPIED.call_once(|| {
        fs::create_dir_all(COPIES).expect("a folder");
        for entry in fs::read_dir(GOLDEN).expect("golden files") {
            let entry = entry.expect("a golden file");
            if entry.file_type().expect("its type").is_dir() {
                continue; // a store
            }
            let name = entry.file_name().into_string().expect("a name that is text");
            // Every test binary does the same, so a copy must appear as a whole.
            let unfinished = format!("{COPIES}/{name}.{}", std::process::id());
            put_private(&unfinished, &fs::read(format!("{GOLDEN}/{name}")).expect("a golden file"));
            fs::rename(unfinished, format!("{COPIES}/{name}")).expect("a copy");
        }
    });
    format!("{COPIES}/{name}")
}

/// A file to which only its owner can write.
fn put_private(path: &str, bytes: &[u8]) {
    fs::write(path, bytes).expect("a file");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a file of ours");
    }
}

/// A folder with a file of every kind of damage.
#[derive(Debug)]
pub(crate) struct Spoiled {
    folder: tempfile::TempDir,
}

/// Offsets in `v1-eager.acf`, from its header: a record in the middle, a bucket of the index, the
/// second eager record, a page of deadlines, a byte between the sections.
const SPOILED: [(&str, usize); 6] = [
    ("header.acf", 300),
    ("record.acf", 6000),
    ("bucket.acf", 8192 + 600),
    ("deadlines.acf", 9728 + 40),
    ("eager.acf", 10240 + 40),
    ("gap.acf", 8190),
];

impl Spoiled {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spoiled = Self { folder };
        let whole = fs::read(golden("v1-eager.acf")).expect("a golden file");
        for (name, offset) in SPOILED {
            let mut bytes = whole.clone();
            bytes[offset] ^= 0x20;
            spoiled.put(name, &bytes);
        }
        spoiled.put("cut.acf", &whole[..9000]);
        spoiled.put("trailing.acf", &[&whole[..], b"more"].concat());
        spoiled.put("foreign.acf", b"{\"this\": \"is not a cache file\"}\n");
        spoiled.put("empty.acf", b"");
        spoiled
    }

    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        let more = ["cut.acf", "trailing.acf", "foreign.acf", "empty.acf", "missing.acf"];
        SPOILED.into_iter().map(|(name, _)| name).chain(more)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        put_private(&self.path(name), bytes);
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a path that is text").to_owned()
    }

    /// Output without the folder's name, which differs in each run.
    pub(crate) fn plain(&self, text: &str) -> String {
        let folder = self.folder.path().to_str().expect("a path that is text");
        text.replace(folder, "FOLDER").replace(COPIES, "GOLDEN")
    }
}

pub(crate) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

pub(crate) fn read(path: impl Into<PathBuf>) -> Vec<u8> {
    fs::read(path.into()).expect("a file")
}
