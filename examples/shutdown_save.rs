//! A service that is warm after every deploy: it saves its cache when it is told to stop.
//!
//! ```text
//! shutdown_save FILE     # stop it with ctrl-c, or as containers do: kill -TERM
//! ```
//!
//! Orchestrators send SIGTERM, wait some seconds, then kill. The save is on disk by then; for the case that the signal
//! never comes, or the machine goes, the cache saves itself every half minute, too.

#![allow(clippy::print_stdout)] // a program that talks

use std::path::PathBuf;
use std::time::Duration;

use async_cache::{AsyncCache, DiskBackend};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let path = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: shutdown_save FILE")?;
    // Asked for before anything else, so that no signal ends the process unsaved.
    let stop = stop_signal()?;

    let cache: AsyncCache<u64, String> = AsyncCache::builder()
        .backup(DiskBackend::new(path))
        .autosave(Duration::from_secs(30)) // the worst case costs half a minute
        .build()?;
    println!("{} entries came back", cache.opening().entries);

    // The service: in earnest a listener, which stops accepting when `stop` is ready.
    let serving = serve(&cache);
    tokio::select! {
        result = serving => result?,
        signal = stop => println!("{signal}: saving"),
    }

    // Nobody is served any more, so nothing changes any more.
    let saved = cache.save_to_backup_async().await?;
    println!("{} entries saved", saved.entries);
    Ok(())
}

async fn serve(cache: &AsyncCache<u64, String>) -> Result<(), Error> {
    for number in 1..=3 {
        let answer = cache.get_or_load(&number, move || slow_answer(number)).await?;
        println!("served {answer}");
    }
    println!("ready");
    std::future::pending().await
}

async fn slow_answer(number: u64) -> Result<String, Error> {
    println!("working out {number}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(format!("the square of {number} is {}", number * number))
}

/// Ready when somebody wants the process to stop, with the name of what he sent.
#[cfg(unix)]
fn stop_signal() -> Result<impl Future<Output = &'static str>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Ready when somebody wants the process to stop, with the name of what he sent.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // as on Unix
fn stop_signal() -> Result<impl Future<Output = &'static str>, Error> {
    Ok(async {
        // Without a handler ctrl-c ends the process, and nobody waits here.
        let _ = tokio::signal::ctrl_c().await;
        "ctrl-c"
    })
}
