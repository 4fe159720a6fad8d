//! The contenders behind one trait: a store of bytes under keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_cache::{AsyncCache, DiskBackend, Journal};
use async_cache_disk::store::{DiskStore, StoreAnswer, StoreLimit, StoreOptions, StoreScratch, StoreWrite};
use async_cache_disk::{CacheFile, RealDisk};
use serde_bytes::ByteBuf;

use crate::peers::{Fjall, Redb, Sqlite};

/// A store of bytes under keys.
pub(crate) trait Store: Send + Sync {
    /// Writes an entry, without a sync.
    fn put(&self, key: &str, value: &[u8]);

    /// [`put`](Self::put), of a store that keeps its entries.
    fn put_owned(&self, key: String, value: Vec<u8>) {
        self.put(&key, &value);
    }

    /// Whether the store keeps its entries.
    fn owns(&self) -> bool {
        false
    }

    /// Writes many entries, in the fastest way.
    fn fill(&self, entries: &mut dyn Iterator<Item = (String, Vec<u8>)>) {
        entries.for_each(|(key, value)| self.put_owned(key, value));
    }

    /// Writes entries, and returns when all are durable.
    fn change(&self, entries: Vec<(String, Vec<u8>)>) {
        self.fill(&mut entries.into_iter());
        self.sync();
    }

    /// Writes an entry, and returns when it is durable.
    fn put_durably(&self, key: &str, value: &[u8]) {
        self.put(key, value);
        self.sync();
    }

    /// Makes every returned write durable.
    fn sync(&self);

    /// The length of the value under a key.
    fn get(&self, key: &str) -> Option<usize>;

    /// Closes the store in order.
    fn close(self: Box<Self>);
}

/// The kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The store of a journal, without a cache.
    DiskStore,
    /// A cache with a journal, whose entries are all in memory once they were read.
    Journal,
    /// A cache with a journal and a limit for the disk, that holds few entries in memory.
    Cold,
    /// A cache with a journal and a limit for the disk of this many MiB.
    Limited(u64),
    /// A cache without a journal: a save writes a snapshot.
    Snapshot,
    Redb,
    Fjall,
    Sqlite,
    /// `synchronous=FULL`: a commit is durable.
    SqliteFull,
}

/// A limit in bytes that no store here reaches.
const NO_LIMIT: u64 = 1 << 40;
/// How many entries [`Kind::Cold`] and [`Kind::Limited`] hold in memory.
pub(crate) const IN_MEMORY: usize = 10_000;

impl Kind {
    /// Kinds that a process is given by name.
    const NAMED: [(Self, &str); 7] = [
        (Self::DiskStore, "store"),
        (Self::Journal, "journal"),
        (Self::Cold, "cold"),
        (Self::Snapshot, "snapshot"),
        (Self::Redb, "redb"),
        (Self::Fjall, "fjall"),
        (Self::Sqlite, "sqlite"),
    ];

    pub(crate) fn name(self) -> &'static str {
        let named = Self::NAMED.into_iter().find(|(kind, _)| *kind == self);
        named.map(|(_, name)| name).expect("only kinds with a name go to another process")
    }

    pub(crate) fn named(name: &str) -> Self {
        let named = Self::NAMED.into_iter().find(|(_, known)| *known == name);
        named.map(|(kind, _)| kind).expect("a name of a kind")
    }

    /// In a table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::DiskStore => "`DiskStore`, without a cache",
            Self::Journal => "`AsyncCache`, journal",
            Self::Cold | Self::Limited(_) => "`AsyncCache`, journal, `disk_bytes`",
            Self::Snapshot => "`AsyncCache`, snapshots",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::Sqlite => "SQLite, WAL, `synchronous=NORMAL`",
            Self::SqliteFull => "SQLite, WAL, `synchronous=FULL`",
        }
    }

    /// Opens the store in a folder.
    pub(crate) fn open(self, folder: &Path) -> Box<dyn Store> {
        let file = folder.join("a.cache");
        let journal = Journal::new();
        match self {
            Self::DiskStore => Box::new(Alone::open(&file, StoreLimit::Live)),
            Self::Journal => Box::new(Cache::open(&file, Some(journal), None)),
            Self::Cold => Box::new(Cache::open(&file, Some(journal.disk_bytes(NO_LIMIT)), Some(IN_MEMORY))),
            Self::Limited(mebibytes) => {
                Box::new(Cache::open(&file, Some(journal.disk_bytes(mebibytes << 20)), Some(IN_MEMORY)))
            }
            Self::Snapshot => Box::new(Cache::open(&file, None, None)),
            Self::Redb => Box::new(Redb::open(folder)),
            Self::Fjall => Box::new(Fjall::open(folder)),
            Self::Sqlite => Box::new(Sqlite::open(folder, "NORMAL")),
            Self::SqliteFull => Box::new(Sqlite::open(folder, "FULL")),
        }
    }
}

/// The bytes of all files of a store, and of those among them that are indexes of a journal.
pub(crate) fn bytes_on_disk(folder: &Path) -> (u64, u64) {
    let mut bytes = (0, 0);
    for entry in std::fs::read_dir(folder).expect("the folder is there").map_while(Result::ok) {
        let metadata = entry.metadata().expect("the file is there");
        if metadata.is_dir() {
            let below = bytes_on_disk(&entry.path());
            bytes = (bytes.0 + below.0, bytes.1 + below.1);
        } else {
            bytes.0 += metadata.len();
            let name = entry.file_name();
            if name.to_str().and_then(|name| name.strip_prefix('i')).is_some_and(|rest| rest.len() == 6) {
                bytes.1 += metadata.len();
            }
        }
    }
    bytes
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    u64::try_from(since.as_nanos()).expect("a year before 2554")
}

/// The key of an entry: 15 characters.
pub(crate) fn key(id: u64) -> String {
    format!("user:{id:010}")
}

/// The value of an entry: bytes that do not compress.
pub(crate) fn value(id: u64, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    fastrand::Rng::with_seed(id).fill(&mut value);
    value
}

/// The bytes of a key in the file: `MessagePack`.
fn file_key(key: &str) -> Vec<u8> {
    let head = 0xA0 | u8::try_from(key.len()).expect("15 characters");
    std::iter::once(head).chain(key.bytes()).collect()
}

/// A `DiskStore`, with the upkeep of a front.
struct Alone {
    store: Arc<DiskStore>,
    stop: Sender<()>,
    upkeep: JoinHandle<()>,
}

impl Alone {
    fn open(path: &PathBuf, limit: StoreLimit) -> Self {
        let file = CacheFile::new(Arc::new(RealDisk), path).version("");
        let options = StoreOptions { limit, ..StoreOptions::default() };
        let store = Arc::new(file.store(options, now()).expect("the folder is ours"));
        let (stop, stopped) = channel();
        let maintained = Arc::clone(&store);
        let upkeep = std::thread::spawn(move || {
            let mut wait = Duration::from_secs(1);
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                maintained.flush().expect("the disk works");
                let has_more = maintained.maintain(now()).expect("the disk works");
                wait = Duration::from_millis(if has_more { 100 } else { 1000 });
            }
        });
        Self { store, stop, upkeep }
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        thread_local! {
            static SCRATCH: std::cell::RefCell<StoreScratch> = std::cell::RefCell::default();
        }
        SCRATCH.with_borrow_mut(|scratch| match self.store.find(key, scratch) {
            StoreAnswer::Entry(entry) => Some(entry.value.len()),
            StoreAnswer::Absent | StoreAnswer::Hidden => None,
        })
    }
}

impl Store for Alone {
    fn put(&self, key: &str, value: &[u8]) {
        let write = StoreWrite { key: key.as_bytes(), value, deadline: None, replaces: None };
        self.store.put(&write, now()).expect("there is room");
    }

    fn sync(&self) {
        self.store.flush().expect("the disk works");
    }

    fn get(&self, key: &str) -> Option<usize> {
        self.find(key.as_bytes())
    }

    fn close(self: Box<Self>) {
        self.stop.send(()).expect("the upkeep runs");
        self.upkeep.join().expect("the upkeep does not panic");
        let store = Arc::into_inner(self.store).expect("the upkeep has ended");
        store.close(now()).expect("the disk works");
    }
}

/// Looks keys of a closed cache up in its store.
pub(crate) struct Finder(Alone);

impl Finder {
    pub(crate) fn open(folder: &Path) -> Self {
        Self(Alone::open(&folder.join("a.cache"), StoreLimit::Bytes(NO_LIMIT)))
    }

    pub(crate) fn find(&self, key: &str) -> Option<usize> {
        self.0.find(&file_key(key))
    }

    pub(crate) fn close(self) {
        Box::new(self.0).close();
    }
}

/// A cache: with a journal, or with snapshots.
struct Cache {
    cache: AsyncCache<String, ByteBuf>,
    has_journal: bool,
}

impl Cache {
    fn open(path: &Path, journal: Option<Journal>, maxsize: Option<usize>) -> Self {
        let has_journal = journal.is_some();
        let backend = DiskBackend::new(path);
        let backend = journal.into_iter().fold(backend, DiskBackend::journal);
        let builder = AsyncCache::builder().backup(backend);
        let builder = maxsize.into_iter().fold(builder, async_cache::Builder::maxsize);
        let cache = builder.build().expect("the path is ours");
        assert!(cache.opening().warning.is_none(), "{:?}", cache.opening());
        Self { cache, has_journal }
    }
}

impl Store for Cache {
    fn put(&self, key: &str, value: &[u8]) {
        self.put_owned(key.to_owned(), value.to_vec());
    }

    fn put_owned(&self, key: String, value: Vec<u8>) {
        self.cache.set(key, ByteBuf::from(value));
    }

    fn owns(&self) -> bool {
        true
    }

    fn sync(&self) {
        if self.has_journal {
            self.cache.flush().expect("the disk works");
        } else {
            self.cache.save_to_backup().expect("there is room");
        }
    }

    fn get(&self, key: &str) -> Option<usize> {
        self.cache.get(key).map(|value| value.len())
    }

    fn close(self: Box<Self>) {
        if !self.has_journal {
            self.sync();
        }
        assert_eq!(self.cache.stats().write_errors, 0);
    }
}
