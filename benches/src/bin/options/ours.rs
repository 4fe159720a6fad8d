//! Our cache with one set of options.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use async_cache::{AsyncCache, Compression, DiskBackend, Secret};

use crate::{Contender, Figures, Value, asked, micros, millis};

/// The content of the path when a cache saves for the first time.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sharing {
    /// No file; the save merges, with nothing.
    #[default]
    Alone,
    /// No file; the save does not check.
    Replaced,
    /// A file of another process, with older entries for the same keys.
    Joined,
}

#[derive(Default)]
pub(crate) struct Ours {
    pub(crate) has_secret: bool,
    pub(crate) compression: Compression,
    pub(crate) sharing: Sharing,
}

impl Ours {
    fn open<V: Value>(&self, path: &Path) -> AsyncCache<u64, V> {
        let mut backend = DiskBackend::new(path).compression(self.compression);
        if self.has_secret {
            backend = backend.secret(Secret::new("a secret for benchmarks").expect("long enough"));
        }
        if self.sharing == Sharing::Replaced {
            backend = backend.without_merging();
        }
        AsyncCache::builder().backup(backend).build().expect("the path is a file")
    }
}

impl<V: Value> Contender<V> for Ours {
    fn round(&mut self, folder: &Path, entries: u64, value: &dyn Fn(u64) -> V, figures: &mut Figures) {
        let path = folder.join("options.cache");
        let cache = self.open::<V>(&path);
        if self.sharing == Sharing::Joined {
            let other = self.open::<V>(&path);
            (0..entries).for_each(|id| other.set(id, value(id)));
            other.save_to_backup().expect("there is room");
        }
        (0..entries).for_each(|id| cache.set(id, value(id)));
        let started = Instant::now();
        figures.bytes = cache.save_to_backup().expect("there is room").bytes;
        figures.save_millis.push(millis(started));
        drop(cache);

        let started = Instant::now();
        let cache = self.open::<V>(&path);
        figures.open_micros.push(micros(started));
        assert!(black_box(cache.get(&(entries / 2))).is_some());
        figures.first_get_micros.push(micros(started));
        let gets = asked(entries).map(|id| {
            let started = Instant::now();
            assert!(black_box(cache.get(&id)).is_some());
            micros(started)
        });
        figures.get_micros.push(async_cache_benches::median(gets.collect()));
        let started = Instant::now();
        cache.save_to_backup().expect("there is room");
        figures.save_again_millis.push(millis(started));
        drop(cache);
        std::fs::remove_file(&path).expect("it was just written");
    }
}
