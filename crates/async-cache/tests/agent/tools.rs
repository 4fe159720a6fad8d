//! Tools, their sessions, their files, and the writes that invalidate them.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex};

use super::{Never, in_time, next};
use async_cache::agent::{self, AgentSession, inherit};
use async_cache::{DiskBackend, agent_cache, agent_invalidates};
use tokio::sync::{Notify, Semaphore};

#[tokio::test]
async fn a_global_tool_is_cached_for_everybody_and_counted() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "counted")]
    async fn counted(of: u64) -> Result<u64, Never> {
        Ok(of * 100 + next(&CALLS))
    }

    let session = AgentSession::builder().open();
    assert_eq!(counted(1).await.unwrap(), 101);
    assert_eq!(session.run(counted(1)).await.unwrap(), 101);
    assert_eq!(session.run(session.run(counted(1))).await.unwrap(), 101);
    assert_eq!(counted(2).await.unwrap(), 202);
    let metrics = counted::metrics();
    assert_eq!((metrics.hits, metrics.misses), (2, 2));
    assert!((metrics.hit_rate() - 0.5).abs() < 1e-9);
    assert_eq!((session.metrics().hits, session.metrics().misses), (2, 0));
    assert!(agent::metrics().hits >= 2);
    counted::invalidate(&1);
    assert_eq!(counted(1).await.unwrap(), 103);
    assert_eq!(counted::refresh(1).await.unwrap(), 104);
    counted::clear();
    assert_eq!(counted::metrics().hits, 0);
}

#[tokio::test]
async fn a_session_tool_lives_in_its_session_and_is_uncached_outside() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "own", scope = "session")]
    async fn own(name: &str) -> Result<String, Never> {
        Ok(format!("{name} {}", next(&CALLS)))
    }

    assert_ne!(own("a").await.unwrap(), own("a").await.unwrap());
    let first = {
        let session = AgentSession::builder().id("own").open();
        let first = session.run(own("a")).await.unwrap();
        assert_eq!(session.run(own("a")).await.unwrap(), first);
        let same = AgentSession::builder().id("own").open();
        assert_eq!(same.run(own("a")).await.unwrap(), first, "one id is one session");
        let other = AgentSession::builder().open();
        assert_ne!(other.run(own("a")).await.unwrap(), first);
        assert_ne!(session.run(other.run(own("a"))).await.unwrap(), first, "the innermost counts");
        drop(session);
        assert_eq!(same.run(own("a")).await.unwrap(), first, "it is open still");
        first
    };
    let again = AgentSession::builder().id("own").open();
    assert_ne!(again.run(own("a")).await.unwrap(), first, "ended with the last one");
}

#[tokio::test]
async fn a_spawned_task_is_in_the_session_if_it_inherits() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "spawned", scope = "session")]
    async fn spawned() -> Result<u64, Never> {
        Ok(next(&CALLS))
    }

    let session = AgentSession::builder().open();
    session
        .run(async {
            let here = spawned().await.unwrap();
            assert_eq!(tokio::spawn(inherit(spawned())).await.unwrap().unwrap(), here);
            assert_ne!(tokio::spawn(spawned()).await.unwrap().unwrap(), here);
        })
        .await;
}

#[tokio::test]
async fn tools_of_one_resource_do_not_mix_and_a_write_invalidates_all_of_them() {
    static VALUE: AtomicU64 = AtomicU64::new(1);
    #[agent_cache(resource = "rows")]
    async fn one(key: u64) -> Result<u64, Never> {
        Ok(key + VALUE.load(SeqCst))
    }
    #[agent_cache(resource = "rows", scope = "session")]
    async fn two(key: u64) -> Result<u64, Never> {
        Ok(key + VALUE.load(SeqCst) * 10)
    }
    #[agent_cache(resource = "other rows")]
    async fn unrelated() -> Result<u64, Never> {
        Ok(VALUE.load(SeqCst))
    }
    #[agent_invalidates(resource = "rows")]
    async fn write(value: u64) -> Result<(), &'static str> {
        // Values that a reader caches while the write runs are removed too.
        assert_eq!(one(0).await.unwrap(), VALUE.load(SeqCst));
        VALUE.store(value, SeqCst);
        if value == 3 { Err("no") } else { Ok(()) }
    }

    let session = AgentSession::builder().open();
    session
        .run(async {
            assert_eq!(
                (one(0).await.unwrap(), two(0).await.unwrap(), unrelated().await.unwrap()),
                (1, 10, 1)
            );
            write(2).await.unwrap();
            assert_eq!(
                (one(0).await.unwrap(), two(0).await.unwrap(), unrelated().await.unwrap()),
                (2, 20, 1)
            );
            write(3).await.unwrap_err();
            assert_eq!((one(0).await.unwrap(), two(0).await.unwrap()), (3, 30));
        })
        .await;
    assert_eq!(session.metrics().invalidations, 2);
    assert_eq!(one::metrics().invalidations, 2);
    assert_eq!(one::stats().loads, 5, "an invalidation does not reset what is counted");
}

#[tokio::test]
async fn a_write_with_scope_session_leaves_what_is_for_everybody() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "scoped")]
    async fn shared() -> Result<u64, Never> {
        Ok(next(&CALLS))
    }
    #[agent_cache(resource = "scoped", scope = "session")]
    async fn own() -> Result<u64, Never> {
        Ok(next(&CALLS))
    }
    #[agent_invalidates(resource = "scoped", scope = "session")]
    fn write() {}

    let (mine, other) = (AgentSession::builder().open(), AgentSession::builder().open());
    let everybodys = shared().await.unwrap();
    let others = other.run(own()).await.unwrap();
    mine.run(async {
        let before = own().await.unwrap();
        write();
        assert_ne!(own().await.unwrap(), before);
        assert_eq!(shared().await.unwrap(), everybodys);
    })
    .await;
    assert_eq!(other.run(own()).await.unwrap(), others);
}

#[tokio::test]
async fn a_cancelled_write_invalidates_and_a_read_that_runs_is_fenced() {
    static GO: Semaphore = Semaphore::const_new(0);
    static STARTED: Notify = Notify::const_new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "fenced")]
    async fn read() -> Result<u64, Never> {
        let call = next(&CALLS);
        STARTED.notify_one();
        GO.acquire().await.unwrap().forget();
        Ok(call)
    }
    #[agent_invalidates(resource = "fenced")]
    async fn write() {
        std::future::pending::<()>().await;
    }

    in_time(async {
        let reading = tokio::spawn(read());
        STARTED.notified().await;
        let mut writing = Box::pin(write());
        assert!(futures_poll(&mut writing).await.is_none());
        drop(writing);
        GO.add_permits(1);
        assert_eq!(reading.await.unwrap().unwrap(), 1, "it still answers who waits");
        GO.add_permits(1);
        assert_eq!(read().await.unwrap(), 2, "and stored nothing");
    })
    .await;
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn ending_a_session_waits_for_nothing_and_running_calls_are_answered() {
    static GO: Semaphore = Semaphore::const_new(0);
    static STARTED: Notify = Notify::const_new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "slow", scope = "session")]
    async fn slow() -> Result<u64, Never> {
        let call = next(&CALLS);
        STARTED.notify_one();
        GO.acquire().await.unwrap().forget();
        Ok(call)
    }

    in_time(async {
        let session = AgentSession::builder().id("slow").open();
        let mut call = None;
        session
            .run(async { call = Some(tokio::spawn(inherit(async { (slow().await, slow().await) }))) })
            .await;
        let call = call.expect("the session ran");
        STARTED.notified().await;
        drop(session);
        GO.add_permits(2);
        let (first, second) = call.await.unwrap();
        assert_eq!((first.unwrap(), second.unwrap()), (1, 2), "the session has ended, so nothing is kept");
        let session = AgentSession::builder().id("slow").open();
        GO.add_permits(1);
        assert_eq!(session.run(slow()).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test]
async fn what_a_global_tool_loads_holds_nothing_of_a_session() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[agent_cache(resource = "inner", scope = "session")]
    async fn inner() -> Result<u64, Never> {
        Ok(next(&CALLS))
    }
    #[agent_cache(resource = "outer")]
    async fn outer() -> Result<u64, Never> {
        Ok(inner().await.unwrap())
    }

    let session = AgentSession::builder().open();
    session
        .run(async {
            let own = inner().await.unwrap();
            assert_ne!(outer().await.unwrap(), own);
            assert_eq!(inner().await.unwrap(), own);
        })
        .await;
}

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn file() -> PathBuf {
    FOLDER.path().join("embeddings.cache")
}

#[agent_cache(resource = "embeddings", backup = DiskBackend::new(file()))]
async fn embedding(text: &str) -> Result<Vec<f32>, Never> {
    Ok(vec![f32::from(u8::try_from(text.len()).unwrap()), 0.5])
}

#[tokio::test]
async fn a_global_tool_with_a_backup_comes_back_warm() {
    assert_eq!(embedding("abc").await.unwrap(), [3.0, 0.5]);
    embedding::save_to_backup().unwrap();
    embedding::clear();
    embedding::load_from_backup().unwrap();
    assert_eq!(embedding("abc").await.unwrap(), [3.0, 0.5]);
    assert_eq!((embedding::stats().cold_hits, embedding::metrics().hits), (1, 1));
}

#[tokio::test]
async fn a_tool_that_is_used_first_after_a_write_does_not_serve_its_file() {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| FOLDER.path().join("late.cache"));
    #[agent_cache(resource = "late", backup = DiskBackend::new(&*PATH))]
    async fn late() -> Result<u64, Never> {
        Ok(2)
    }
    #[agent_invalidates(resource = "late")]
    fn write() {}

    {
        let tag = format!("\u{1F}{}::late", module_path!());
        let old: async_cache::AsyncCache<(), u64> =
            async_cache::AsyncCache::builder().backup(DiskBackend::new(&*PATH).version(tag)).build().unwrap();
        old.set((), 1);
        old.save_to_backup().unwrap();
    }
    write();
    assert_eq!(late().await.unwrap(), 2);
}

#[tokio::test]
async fn a_write_does_not_mind_a_tool_whose_cache_cannot_be_opened() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| FOLDER.path().join("one.cache"));
    #[agent_cache(resource = "one file", backup = DiskBackend::new(&*PATH))]
    async fn owner() -> Result<u64, Never> {
        Ok(next(&CALLS))
    }
    #[agent_cache(resource = "one file", backup = DiskBackend::new(&*PATH))]
    async fn latecomer() -> Result<u64, Never> {
        Ok(0)
    }
    #[agent_invalidates(resource = "one file")]
    async fn write() {}

    for round in 1..=3 {
        assert_eq!(owner().await.unwrap(), round);
        assert!(tokio::spawn(latecomer()).await.unwrap_err().is_panic(), "its file is another one's");
        assert_eq!(owner().await.unwrap(), round);
        write().await;
    }
    assert_eq!((owner::metrics().invalidations, latecomer::metrics().invalidations), (3, 0));
}

/// Random tasks in sessions with the same and different ids: a value of one session is never served
/// in another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_value_of_one_session_is_never_served_in_another() {
    static LOADED_IN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    tokio::task_local! {
        static HERE: String;
    }
    /// A load runs in a task of its own, so its session is passed in the argument; the key leaves
    /// the argument out.
    #[agent_cache(resource = "isolated", scope = "session", key = argument)]
    async fn isolated(argument: u64, here: String) -> Result<(u64, String), Never> {
        for _ in 0..argument {
            tokio::task::yield_now().await;
        }
        LOADED_IN.lock().unwrap().push(here.clone());
        Ok((argument, here))
    }
    #[agent_invalidates(resource = "isolated", scope = "session")]
    async fn write() {
        tokio::task::yield_now().await;
    }

    async fn act(mut dice: fastrand::Rng, depth: u32) {
        for _ in 0..dice.u32(3..8) {
            match dice.u32(..10) {
                0..6 => {
                    let (argument, here) = (dice.u64(..4), HERE.try_with(Clone::clone).unwrap_or_default());
                    let value = isolated(argument, here.clone()).await.unwrap();
                    assert_eq!(value, (argument, here), "a value of another session");
                }
                6 => write().await,
                _ if depth < 3 => {
                    let id = ["a", "b", "c"][dice.usize(..3)];
                    let session = AgentSession::builder().id(id).open();
                    // Only time would distinguish sessions with one id here, so one id is one
                    // place.
                    HERE.scope(id.to_owned(), session.run(Box::pin(act(dice.fork(), depth + 1)))).await;
                }
                _ => tokio::task::yield_now().await,
            }
        }
    }

    for seed in 0..40 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(act(dice.fork(), 0))).collect();
        for task in tasks {
            in_time(task).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
    assert!(isolated::metrics().hits > 0);
    assert!(!LOADED_IN.lock().unwrap().is_empty());
}
