//! The cache of a decorated method: one for each type.
//!
//! The story: the cache was a `static` in a function of the `impl` block. In a generic block there
//! is one `static` of that kind for all types, so `Repository<Order>` was served the rows of
//! `Repository<User>`, and one tenant's rows went to another.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use async_cache::{BuildError, CacheBackend, DiskBackend, SavedEntry, async_lru, async_ttl, invalidates};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn file(name: &str) -> PathBuf {
    FOLDER.path().join(name)
}

trait Table: Clone + Send + Sync + 'static {
    const NAME: &'static str;
    const ROWS: usize;
}

#[derive(Clone)]
struct User;

impl Table for User {
    const NAME: &'static str = "users";
    const ROWS: usize = 2;
}

#[derive(Clone)]
struct Order;

impl Table for Order {
    const NAME: &'static str = "orders";
    const ROWS: usize = 3;
}

#[derive(Clone)]
struct Repository<T>(PhantomData<T>);

fn users() -> Repository<User> {
    Repository(PhantomData)
}

fn orders() -> Repository<Order> {
    Repository(PhantomData)
}

impl<T: Table> Repository<T> {
    #[async_lru(skip_self, maxsize = T::ROWS, eviction = lru)]
    async fn row(&self, id: u32) -> String {
        format!("row {id} of {}", T::NAME)
    }

    #[async_ttl(skip_self, ttl = "60s")]
    async fn count(&self) -> Result<usize, String> {
        Ok(T::ROWS)
    }

    #[invalidates(Self::row_cache(), key = (id))]
    async fn write(&self, id: u32) -> u32 {
        id
    }

    #[async_lru(skip_self, name = "Repository::saved", backup = DiskBackend::new(file(T::NAME)))]
    async fn saved(&self, id: u32) -> String {
        format!("row {id} of {}", T::NAME)
    }

    #[async_lru(skip_self, name = "Repository::in_one_file", backup = DiskBackend::new(file("one")))]
    async fn in_one_file(&self, id: u32) -> u32 {
        id
    }
}

#[invalidates(Repository::<User>::row_cache(), clear_all)]
async fn drop_users() {}

#[tokio::test]
async fn types_of_one_block_do_not_share_the_cache_of_a_method() {
    for _ in 0..2 {
        assert_eq!(users().row(7).await, "row 7 of users");
        assert_eq!(orders().row(7).await, "row 7 of orders");
        assert_eq!((users().count().await.unwrap(), orders().count().await.unwrap()), (2, 3));
    }
    assert_eq!(users().row_refresh(7).await, "row 7 of users");
    (1..=5).for_each(|key| Repository::<Order>::row_cache().cache().set(key, String::new()));
    let sizes =
        (Repository::<User>::row_cache().metrics().size, Repository::<Order>::row_cache().metrics().size);
    assert_eq!(sizes, (1, 3), "the options are each type's own, too");

    orders().write(7).await;
    assert_eq!(
        Repository::<User>::row_cache().metrics().size,
        1,
        "a write of another type invalidates nothing"
    );
    drop_users().await;
    assert_eq!(Repository::<User>::row_cache().metrics().size, 0);
    assert_eq!(Repository::<Order>::row_cache().metrics().size, 3);
}

#[derive(Clone)]
struct Matrix<const N: usize>;

impl<const N: usize> Matrix<N> {
    #[async_lru(skip_self)]
    async fn size(&self) -> usize {
        N * N
    }
}

/// Types may differ in a type parameter, in a constant, or in being unsized; and there may be more
/// than two of them.
#[tokio::test]
async fn every_type_has_a_cache_of_its_own_however_they_differ() {
    for _ in 0..2 {
        assert_eq!((Matrix::<1>.size().await, Matrix::<2>.size().await, Matrix::<3>.size().await), (1, 4, 9));
    }
    assert_eq!(Matrix::<2>::size_cache().metrics().hits, 1);
}

/// The first thread makes a type's cache; no thread gets another type's cache in the meantime.
#[test]
fn threads_that_come_at_once_get_the_cache_of_their_type() {
    #[derive(Clone)]
    struct Counter<T>(PhantomData<T>);
    static MADE: AtomicU32 = AtomicU32::new(0);
    fn capacity<T>() -> usize {
        MADE.fetch_add(1, SeqCst);
        size_of::<T>()
    }
    impl<T: Clone + Send + Sync + 'static> Counter<T> {
        #[async_lru(skip_self, maxsize = capacity::<T>())]
        async fn bytes(&self) -> usize {
            size_of::<T>()
        }
    }
    fn ask<T: Clone + Send + Sync + 'static>() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(Counter::<T>(PhantomData).bytes()), size_of::<T>());
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            for ask in [ask::<u8>, ask::<u16>, ask::<u32>, ask::<u64>] {
                scope.spawn(ask);
            }
        }
    });
    assert_eq!(MADE.load(SeqCst), 4, "one cache for each type");
    assert!(Counter::<u8>::bytes_cache().metrics().misses >= 1);
}

/// A file is marked with the type, so the next process does not serve it for another type with the
/// same path.
#[tokio::test]
async fn the_file_of_a_method_belongs_to_one_type() {
    users().saved(1).await;
    orders().saved(1).await;
    Repository::<User>::saved_cache().save_to_backup().unwrap();
    Repository::<Order>::saved_cache().save_to_backup().unwrap();
    let load = |path: &str, owner: &str| -> Result<Vec<SavedEntry<u32, String>>, _> {
        DiskBackend::new(file(path)).version(format!("\u{1F}{owner}")).load()
    };
    let owner = "Repository::saved of suite::method_caches::Repository<suite::method_caches::User>";
    assert_eq!(load("users", owner).unwrap()[0].value, "row 1 of users");
    load("orders", owner).unwrap_err();
    load("users", "Repository::saved").unwrap_err();
}

#[tokio::test]
async fn two_types_with_one_file_are_an_error_that_names_both() {
    Repository::<User>::in_one_file_cache().init().unwrap();
    let error = Repository::<Order>::in_one_file_cache().init().unwrap_err();
    let BuildError::FileInUse { owner, function, .. } = error else { panic!("{error}") };
    assert_eq!(
        owner,
        "Repository::in_one_file of suite::method_caches::Repository<suite::method_caches::User>"
    );
    assert_eq!(
        function,
        "Repository::in_one_file of suite::method_caches::Repository<suite::method_caches::Order>"
    );
}

mod one {
    #[async_cache::async_lru(backup = super::DiskBackend::new(super::file("load")))]
    pub(super) async fn load(id: u32) -> u32 {
        id
    }

    pub(super) fn inner() -> Result<(), super::BuildError> {
        #[async_cache::async_lru(backup = super::DiskBackend::new(super::file("load")))]
        async fn load(id: u32) -> u32 {
            id + 1
        }
        load::init()
    }
}

mod two {
    #[async_cache::async_lru(backup = super::DiskBackend::new(super::file("load")))]
    pub(super) async fn load(id: u32) -> u32 {
        id + 2
    }
}

/// A function in the body of another function had the name of its module's: both files had the same
/// mark.
#[tokio::test]
async fn functions_of_one_name_have_names_of_their_own() {
    assert_eq!(one::load(1).await, 1);
    let error = |error: Result<(), BuildError>| match error.unwrap_err() {
        BuildError::FileInUse { owner, function, .. } => (owner, function),
        other => panic!("{other}"),
    };
    assert_eq!(
        error(two::load::init()),
        ("suite::method_caches::one::load", "suite::method_caches::two::load")
    );
    assert_eq!(
        error(one::inner()),
        ("suite::method_caches::one::load", "suite::method_caches::one::inner::load")
    );
}

/// A save follows a link, so a file has as many names as there are links to it.
#[cfg(unix)]
#[tokio::test]
async fn two_functions_do_not_share_a_file_under_two_names() {
    #[async_lru(backup = DiskBackend::new(file("target")))]
    async fn first(id: u32) -> u32 {
        id
    }
    #[async_lru(backup = DiskBackend::new(file("link")))]
    async fn second(id: u32) -> u32 {
        id
    }
    first(1).await;
    first::save_to_backup().unwrap();
    std::os::unix::fs::symlink(file("target"), file("link")).unwrap();
    assert!(matches!(second::init(), Err(BuildError::FileInUse { .. })));
}

/// A save also follows a link to a missing target, and makes the file there. So one function had
/// the file under the link's name, the other under its own, and each save replaced the other's
/// entries.
#[cfg(unix)]
#[tokio::test]
async fn two_functions_do_not_share_a_file_that_is_not_there_yet() {
    #[async_lru(backup = DiskBackend::new(file("first-link")))]
    async fn first(id: u32) -> u32 {
        id
    }
    #[async_lru(backup = DiskBackend::new(file("later")))]
    async fn second(id: u32) -> u32 {
        id
    }
    std::os::unix::fs::symlink("second-link", file("first-link")).unwrap();
    std::os::unix::fs::symlink(file("later"), file("second-link")).unwrap();
    first::init().unwrap();
    assert!(matches!(second::init(), Err(BuildError::FileInUse { .. })));
}

/// Links that form a circle do not name any file; the backup reports an error.
#[cfg(unix)]
#[tokio::test]
async fn a_circle_of_links_is_no_file() {
    #[async_lru(backup = DiskBackend::new(file("circle")))]
    async fn circle(id: u32) -> u32 {
        id
    }
    std::os::unix::fs::symlink("circle", file("circle")).unwrap();
    circle::init().unwrap();
    assert_eq!(circle(1).await, 1);
    circle::save_to_backup().unwrap_err();
}
