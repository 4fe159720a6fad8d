//! A service that is warm after every deploy: it saves its cache before it stops.
//!
//! ```text
//! shutdown_save FILE     # stop with ctrl-c, or as for containers: kill -TERM
//! ```
//!
//! Orchestrators send SIGTERM, wait some seconds, then kill. By then the save is on disk. In case
//! the signal never arrives, or the machine fails, the cache also saves itself every half minute.

#![allow(clippy::print_stdout)] // a program with output

use std::path::PathBuf;
use std::time::Duration;

use async_cache::{AsyncCache, DiskBackend};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let path = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: shutdown_save FILE")?;
    // Registered first, so that no signal ends the process unsaved.
    let stop = stop_signal()?;

    let cache: AsyncCache<u64, String> = AsyncCache::builder()
        .backup(DiskBackend::new(path))
        .autosave(Duration::from_secs(30)) // at worst half a minute is lost
        .build()?;
    println!("{} entries came back", cache.opening().entries);

    // The service: in practice a listener, which stops accepting when `stop` is ready.
    let serving = serve(&cache);
    tokio::select! {
        result = serving => result?,
        signal = stop => println!("{signal}: saving"),
    }

    // No request is running any more, so the cache does not change any more.
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

/// Ready when the process is asked to stop; returns the name of the signal.
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

/// Ready when the process is asked to stop; returns the name of the signal.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // as on Unix
fn stop_signal() -> Result<impl Future<Output = &'static str>, Error> {
    Ok(async {
        // Without a handler ctrl-c ends the process, so no code waits here.
        let _ = tokio::signal::ctrl_c().await;
        "ctrl-c"
    })
}
