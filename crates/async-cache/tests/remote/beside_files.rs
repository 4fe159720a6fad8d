//! Memory, a file and a server: the file of a cache that starts again is asked about, is served
//! while the server is away, and never brings back an entry that was deleted elsewhere.

use std::path::Path;
use std::time::Duration;

use async_cache::{AsyncCache, DiskBackend, Journal};
use servers::Server;
use tracing::Level;

use crate::support::{
    Cache, Origin, cache, each, hears, keep_log, logged, redis, shows, soon, timed, within,
};

const NOW: Duration = Duration::ZERO;

#[derive(Clone, Copy, Debug)]
enum Mode {
    Snapshot,
    Journal,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Snapshot, Self::Journal];

    fn open(self, server: &Server, folder: &Path) -> Cache {
        let path = folder.join(format!("{self:?}.cache"));
        let disk = DiskBackend::new(path);
        let disk = match self {
            Self::Snapshot => disk,
            Self::Journal => disk.journal(Journal::new()),
        };
        let cache =
            AsyncCache::builder().backup(disk).remote(redis(server).build().unwrap()).build().unwrap();
        assert!(cache.opening().warning.is_none(), "{self:?}: {:?}", cache.opening());
        cache
    }

    /// A file with `deleted` and `kept`, the former being deleted elsewhere since.
    async fn file(self, server: &Server, folder: &Path) {
        let one = self.open(server, folder);
        hears(&one).await;
        one.set("deleted".into(), "old".into());
        one.set("kept".into(), "value".into());
        hears(&one).await;
        one.save_to_backup_async().await.unwrap();
        drop(one);
        let other = cache(server).await;
        assert_eq!(other.fetch("deleted").await.as_deref(), Some("old"));
        other.delete("deleted");
        hears(&other).await;
    }
}

#[test]
fn a_cache_that_starts_again_asks_the_server_before_it_serves_its_file() {
    each(async |server| {
        for mode in Mode::ALL {
            let folder = tempfile::tempdir().unwrap();
            mode.file(&server, folder.path()).await;
            let cache = mode.open(&server, folder.path());
            assert_eq!((cache.get("deleted"), cache.get("kept")), (None, None), "{mode:?}: not asked yet");
            // Calls that come while the connection is being made wait for it.
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..50 {
                let cache = cache.clone();
                calls.spawn(async move {
                    tokio::time::sleep(Duration::from_micros(number * 100)).await;
                    (cache.fetch("deleted").await, cache.fetch("kept").await)
                });
            }
            while let Some(values) = calls.join_next().await {
                assert_eq!(values.unwrap(), (None, Some("value".to_owned())), "{mode:?}");
            }
            let origin = Origin::default();
            assert_eq!(origin.get(&cache, "deleted", NOW).await, "0", "{mode:?}");
            assert_eq!(origin.get(&cache, "kept", NOW).await, "value", "{mode:?}");
        }
    });
}

#[test]
fn a_file_is_served_while_the_server_is_away_and_not_afterwards() {
    keep_log();
    each(async |server| {
        for mode in Mode::ALL {
            let folder = tempfile::tempdir().unwrap();
            tokio::task::block_in_place(|| server.restart());
            mode.file(&server, folder.path()).await;
            server.call(&["SAVE"]);
            server.kill();
            let cache = mode.open(&server, folder.path());
            let origin = Origin::default();
            let (value, took) = timed(origin.get(&cache, "kept", NOW)).await;
            assert_eq!(value, "value", "{mode:?}");
            assert!(took < Duration::from_millis(300), "{mode:?}: {took:?}");
            assert_eq!(cache.fetch("kept").await.as_deref(), Some("value"), "{mode:?}");
            assert_eq!(cache.fetch("deleted").await.as_deref(), Some("old"), "{mode:?}: it cannot know");
            assert_eq!(origin.loads(), 0, "{mode:?}");
            let before = logged(server.port(), Level::INFO).len();
            tokio::task::block_in_place(|| server.restart());
            within(Duration::from_secs(6), "it is up", || logged(server.port(), Level::INFO).len() > before)
                .await;
            soon("it is asked about", || cache.get("deleted").is_none()).await;
            assert_eq!(cache.fetch("deleted").await, None, "{mode:?}");
            shows(&cache, "kept", Some("value")).await;
        }
    });
}

#[test]
fn a_change_elsewhere_reaches_the_file() {
    each(async |server| {
        for mode in Mode::ALL {
            let folder = tempfile::tempdir().unwrap();
            let (one, other) = (mode.open(&server, folder.path()), cache(&server).await);
            hears(&one).await;
            one.set("key".into(), "old".into());
            hears(&one).await;
            one.save_to_backup_async().await.unwrap();
            other.set("key".into(), "new".into());
            hears(&other).await;
            hears(&one).await;
            one.save_to_backup_async().await.unwrap();
            drop(one);
            server.kill();
            let again = mode.open(&server, folder.path());
            assert_ne!(again.fetch("key").await.as_deref(), Some("old"), "{mode:?}");
            tokio::task::block_in_place(|| server.restart());
        }
    });
}
