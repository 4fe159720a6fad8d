//! Functions decorated with `#[async_lru]` and `#[async_ttl]`.
#![cfg(feature = "macros")]

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::stage::{self, Loads, on_several_threads, poll_once};
use async_cache::{BuildError, DiskBackend, LoadError, async_lru, async_ttl};

/// A folder for this process, removed when the process ends well.
fn folder() -> &'static Path {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    FOLDER.path()
}

fn file(name: &str) -> DiskBackend {
    DiskBackend::new(path(name))
}

fn path(name: &str) -> PathBuf {
    folder().join(name)
}

on_several_threads! {
    async fn a_second_call_is_a_hit() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        #[async_lru]
        async fn double(number: u64) -> u64 {
            CALLS.fetch_add(1, SeqCst);
            number * 2
        }

        double::clear();
        let before = CALLS.load(SeqCst);
        assert_eq!((double(4).await, double(4).await, double(5).await), (8, 8, 10));
        assert_eq!(CALLS.load(SeqCst) - before, 2);
        let metrics = double::metrics();
        assert_eq!((metrics.hits, metrics.misses, metrics.size), (1, 2, 2));
        assert_eq!(double::stats().loads, 2);
        assert_eq!(double::cache().get(&5), Some(10));
    }

    async fn borrowed_arguments_of_several_kinds_make_one_key() {
        #[async_lru]
        async fn join(words: &[String], separator: &str, times: &u8) -> String {
            words.join(separator).repeat(usize::from(*times))
        }

        join::clear();
        let words = ["a".to_owned(), "b".to_owned()];
        assert_eq!(join(&words, "-", &2).await, "a-ba-b");
        let (same, separator) = (words.to_vec(), "-".to_owned());
        assert_eq!(join(&same, &separator, &2).await, "a-ba-b");
        assert_eq!(join(&words, "+", &2).await, "a+ba+b");
        assert_eq!((join::metrics().hits, join::metrics().size), (1, 2));
        join::invalidate(&words, "-", &2);
        assert_eq!(join::metrics().size, 1);
        let key: (Vec<String>, String, u8) = (words.to_vec(), "+".to_owned(), 2);
        assert!(join::cache().contains(&key));
    }

    async fn arguments_may_be_patterns_and_mut() {
        #[async_lru]
        async fn add((left, right): (u8, u8), mut more: u8, _: char) -> u8 {
            more += left;
            more + right
        }

        assert_eq!(add((1, 2), 3, 'x').await, 6);
        add::invalidate(&(1, 2), &3, &'x');
        assert_eq!(add::metrics().size, 0);
    }

    async fn a_function_without_arguments_has_one_value() {
        #[async_ttl(ttl = Duration::from_secs(5), maxsize = None)]
        async fn answer() -> u8 {
            42
        }

        answer::clear();
        assert_eq!((answer().await, answer().await), (42, 42));
        assert_eq!(answer::metrics().hits, 1);
        answer::invalidate();
        assert_eq!(answer::metrics().size, 0);
    }

    async fn named_lifetimes_work() {
        #[async_lru]
        async fn length<'a>(text: &'a str) -> usize
        where
            'static: 'a,
        {
            text.len()
        }

        assert_eq!(length("four").await, 4);
        let same = "four".to_owned();
        assert_eq!(length(&same).await, 4);
        assert!(length::metrics().hits >= 1);
    }

    async fn only_ok_is_cached() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        #[async_lru]
        async fn even(number: u64) -> Result<u64, String> {
            CALLS.fetch_add(1, SeqCst);
            if number.is_multiple_of(2) { Ok(number) } else { Err(format!("{number} is odd")) }
        }

        even::clear();
        let before = CALLS.load(SeqCst);
        assert_eq!(even(2).await.unwrap(), 2);
        for _ in 0..2 {
            let error = even(3).await.unwrap_err();
            assert_eq!(error.loader_error().unwrap(), "3 is odd");
            assert_eq!(error.to_string(), "3 is odd");
        }
        assert_eq!(CALLS.load(SeqCst) - before, 3);
        assert_eq!(even::metrics().size, 1);
    }

    async fn only_ok_is_cached_behind_an_alias() {
        type Fetched = Result<u64, String>;
        #[async_lru]
        async fn missing(name: &str) -> io::Result<u64> {
            Err(io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
        }
        #[async_lru(result)]
        async fn fetched(name: &str) -> Fetched {
            Err(name.to_owned())
        }

        let error: io::Error = missing("a").await.unwrap_err().into();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::NotFound, "a"));
        assert_eq!(missing::metrics().size, 0);
        let LoadError::Failed(error) = fetched("b").await.unwrap_err() else { panic!("another error") };
        assert_eq!(*error, "b");
        assert_eq!(fetched::metrics().size, 0);
    }

    async fn a_type_that_is_named_as_a_result_may_be_none() {
        #[derive(Clone, Debug, PartialEq)]
        struct SearchResult(usize);
        #[async_lru(result = false)]
        async fn search(word: &str) -> SearchResult {
            SearchResult(word.len())
        }

        assert_eq!(search("abc").await, SearchResult(3));
    }

    async fn a_question_mark_takes_the_error_anywhere() {
        #[async_lru]
        async fn refused(number: u8) -> io::Result<u8> {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("no {number}")))
        }
        #[async_lru]
        async fn through_io(number: u8) -> io::Result<u8> {
            Ok(refused(number).await?)
        }
        #[async_lru]
        async fn through_anyhow(number: u8) -> anyhow::Result<u8> {
            Ok(through_io(number).await?)
        }
        async fn boxed(number: u8) -> Result<u8, Box<dyn Error + Send + Sync>> {
            Ok(through_anyhow(number).await?)
        }

        assert_eq!(boxed(7).await.unwrap_err().to_string(), "no 7");
        let error: io::Error = through_io(7).await.unwrap_err().into();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    async fn none_is_cached_unless_told_otherwise() {
        #[async_lru]
        async fn kept(number: u8) -> Option<u8> {
            number.checked_sub(1)
        }
        #[async_lru(cache_none = false)]
        async fn dropped(number: u8) -> Option<u8> {
            number.checked_sub(1)
        }
        #[async_lru(cache_none = false)]
        async fn fallible(number: u8) -> Result<Option<u8>, String> {
            Ok(number.checked_sub(1))
        }

        assert_eq!((kept(0).await, kept(1).await), (None, Some(0)));
        assert_eq!((dropped(0).await, dropped(1).await), (None, Some(0)));
        assert_eq!((fallible(0).await.unwrap(), fallible(1).await.unwrap()), (None, Some(0)));
        assert_eq!((kept::metrics().size, dropped::metrics().size, fallible::metrics().size), (2, 1, 1));
    }

    async fn a_key_may_be_some_of_the_arguments() {
        struct Client(AtomicUsize);
        #[async_lru(key = (tenant, id))]
        async fn fetch(client: Arc<Client>, tenant: &str, id: u8) -> String {
            client.0.fetch_add(1, SeqCst);
            format!("{tenant}/{id}")
        }

        fetch::clear();
        let client = Arc::new(Client(AtomicUsize::new(0)));
        let other = Arc::new(Client(AtomicUsize::new(0)));
        assert_eq!(fetch(Arc::clone(&client), "a", 1).await, "a/1");
        assert_eq!(fetch(Arc::clone(&other), "a", 1).await, "a/1");
        assert_eq!((client.0.load(SeqCst), other.0.load(SeqCst)), (1, 0));
        fetch::invalidate("a", &1);
        assert_eq!(fetch(Arc::clone(&other), "a", 1).await, "a/1");
        assert_eq!(other.0.load(SeqCst), 1);
    }

    async fn a_key_may_be_made_of_the_arguments() {
        #[async_lru(key: String = name.to_lowercase())]
        async fn greet(name: &str, _loud: bool) -> String {
            format!("hello {name}")
        }
        #[async_lru(key: String = format!("{left}-{right}"))]
        async fn pair(left: u8, right: u8) -> u8 {
            left + right
        }

        greet::clear();
        assert_eq!(greet("Ada", true).await, "hello Ada");
        assert_eq!(greet("ADA", false).await, "hello Ada");
        greet::invalidate("aDA");
        assert_eq!(greet::metrics().size, 0);
        assert_eq!(pair(1, 2).await, 3);
        assert_eq!(pair::cache().get("1-2"), Some(3));
        pair::invalidate(&1, &2);
        assert_eq!(pair::metrics().size, 0);
    }

    async fn a_refresh_loads_anew_and_stores() {
        static PRICE: AtomicUsize = AtomicUsize::new(10);
        #[async_lru]
        async fn price(product: usize) -> usize {
            PRICE.load(SeqCst) + product
        }

        PRICE.store(10, SeqCst);
        price::clear();
        assert_eq!(price(1).await, 11);
        PRICE.store(20, SeqCst);
        assert_eq!(price(1).await, 11);
        assert_eq!(price::refresh(1).await, 21);
        assert_eq!(price(1).await, 21);
    }

    async fn callers_during_a_refresh_share_it_and_a_call_that_runs_is_fenced() {
        #[async_lru]
        async fn slow(loads: Loading) -> usize {
            let number = loads.0.started();
            loads.0.load(())().await;
            number
        }

        slow::clear();
        let loads = Loading(Loads::new());
        let mut first = Box::pin(slow(loads.clone()));
        assert!(poll_once(&mut first).is_pending());
        stage::until(|| loads.0.started() == 1).await;
        let mut fresh = Box::pin(slow::refresh(loads.clone()));
        assert!(poll_once(&mut fresh).is_pending());
        stage::until(|| loads.0.started() == 2).await;
        let mut joined = Box::pin(slow(loads.clone()));
        assert!(poll_once(&mut joined).is_pending());
        loads.0.let_end(2);
        assert_eq!((first.await, fresh.await, joined.await), (0, 1, 1));
        assert_eq!(slow(loads.clone()).await, 1);
        assert_eq!((loads.0.started(), slow::stats().fenced), (2, 1));
    }

    async fn a_value_that_cannot_be_had_panics_where_no_result_can_say_so() {
        #[async_lru]
        async fn broken(number: u8) -> u8 {
            assert!(number > 3, "{number} is too small");
            number
        }
        #[async_lru]
        async fn endless(number: u8) -> u8 {
            again(number).await
        }
        fn again(number: u8) -> Pin<Box<dyn Future<Output = u8> + Send>> {
            Box::pin(endless(number))
        }

        let panic = tokio::spawn(broken(2)).await.unwrap_err().into_panic();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.starts_with(module_path!()), "{message}");
        assert!(message.ends_with("::broken: the loader of key 2 panicked: 2 is too small"), "{message}");
        let panic = tokio::spawn(endless(2)).await.unwrap_err().into_panic();
        assert!(panic.downcast_ref::<String>().unwrap().contains("asked for the key that it is loading"));
    }

    async fn methods_share_a_cache_and_skip_self() {
        #[derive(Clone, Default)]
        struct Shop {
            calls: Arc<AtomicUsize>,
        }
        impl Shop {
            #[async_lru(skip_self)]
            async fn price(&self, product: &str, count: u32) -> Result<u32, String> {
                self.calls.fetch_add(1, SeqCst);
                product.len().try_into().map(|length: u32| length * count).map_err(|_| "too long".to_owned())
            }

            #[async_ttl(skip_self, ttl = "1m")]
            async fn name(self: Arc<Self>, product: u32) -> String {
                self.calls.fetch_add(1, SeqCst);
                product.to_string()
            }

            #[async_lru(skip_self)]
            async fn shared(self: &Arc<Self>, product: u32) -> u32 {
                self.calls.fetch_add(1, SeqCst);
                product
            }
        }

        Shop::price_cache().clear();
        let shop = Arc::new(Shop::default());
        assert_eq!(shop.price("abc", 2).await.unwrap(), 6);
        assert_eq!(shop.price("abc", 2).await.unwrap(), 6);
        assert_eq!(shop.calls.load(SeqCst), 1);
        assert_eq!(shop.price_refresh("abc", 2).await.unwrap(), 6);
        assert_eq!(shop.calls.load(SeqCst), 2);
        Shop::price_cache().invalidate(("abc", &2));
        assert_eq!(Shop::price_cache().metrics().size, 0);
        assert_eq!(Arc::clone(&shop).name(7).await, "7");
        assert_eq!(Shop::name_cache().cache().get(&7).as_deref(), Some("7"));
        assert_eq!(shop.shared(8).await, 8);
        Shop::shared_cache().invalidate(&8);
    }
}

/// Loads as an argument: equal only if they are the same object.
#[derive(Clone, Debug)]
struct Loading(Arc<Loads>);

impl PartialEq for Loading {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Loading {}

impl std::hash::Hash for Loading {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

#[test]
fn a_first_call_outside_of_a_runtime_says_so() {
    #[async_lru]
    async fn number(number: u8) -> Result<u8, String> {
        Ok(number)
    }

    stage::within_limit(|| {
        let std::task::Poll::Ready(answer) = poll_once(&mut Box::pin(number(1))) else { panic!("it waits") };
        assert!(matches!(answer, Err(LoadError::NoRuntime)));
    });
}

mod kept {
    use async_cache::async_lru;

    /// A function of another module, by paths to this module.
    #[async_lru(backup = super::file("visible.cache"), maxsize = 10)]
    pub(super) async fn visible(number: Number) -> Number {
        Number(number.0 + 1)
    }

    #[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
    pub(super) struct Number(pub(super) u8);
}

#[tokio::test]
async fn entries_survive_in_the_file_that_is_marked_as_the_functions() {
    use kept::{Number, visible};
    visible::init().unwrap();
    assert_eq!(visible(Number(1)).await, Number(2));
    assert_eq!(visible::save_to_backup().unwrap().entries, 1);
    visible::clear();
    assert_eq!(visible::load_from_backup().unwrap().entries, 1);
    assert_eq!(visible(Number(1)).await, Number(2));
    assert_eq!(visible::stats().cold_hits, 1);
    assert_eq!(visible::save_to_backup_async().await.unwrap().entries, 1);

    let vfs: Arc<dyn async_cache::Vfs> = Arc::new(async_cache::RealDisk);
    let snapshot = async_cache_disk::CacheFile::new(vfs, path("visible.cache")).open().unwrap().unwrap();
    assert_eq!(snapshot.version(), "\u{1F}suite::macros::kept::visible");
}

#[tokio::test]
async fn a_name_and_a_version_mark_the_file() {
    #[async_lru(backup = file("named.cache").version("v2"), name = "squares")]
    async fn square(number: u64) -> u64 {
        number * number
    }

    assert_eq!(square(3).await, 9);
    square::save_to_backup().unwrap();
    let marked = file("named.cache").version("v2\u{1F}squares");
    let reader = async_cache::AsyncCache::<u64, u64>::builder().backup(marked).build().unwrap();
    assert_eq!(reader.get(&3), Some(9));
}

#[test]
fn two_functions_with_one_file_are_refused() {
    #[async_lru(backup = file("shared.cache"))]
    async fn first(number: u8) -> u8 {
        number
    }
    #[async_lru(backup = file("../").version("x"), name = "folder")]
    async fn folder(number: u8) -> u8 {
        number
    }
    #[async_lru(backup = DiskBackend::new(path(".").join("shared.cache")))]
    async fn second(number: u8) -> u8 {
        number
    }

    first::init().unwrap();
    first::init().unwrap();
    let error = second::init().unwrap_err();
    assert!(matches!(
        error,
        BuildError::FileInUse {
            owner: "suite::macros::two_functions_with_one_file_are_refused::first",
            function: "suite::macros::two_functions_with_one_file_are_refused::second",
            ..
        }
    ));
    let message = error.to_string();
    assert!(message.ends_with(
        "shared.cache keeps the cache of the function suite::macros::two_functions_with_one_file_are_refused::first already; \
         give the function suite::macros::two_functions_with_one_file_are_refused::second a file of its own"
    ));
    let panic = std::panic::catch_unwind(second::clear).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("::second cannot be used: "), "{message}");
    // A cache that cannot be built leaves its file to others, and repeats its error.
    assert!(matches!(folder::init().unwrap_err(), BuildError::Backup(_)));
    assert!(matches!(folder::init().unwrap_err(), BuildError::Backup(_)));
}

#[tokio::test]
async fn the_file_of_another_function_is_set_aside_not_replaced() {
    let theirs = file("moved.cache").version("\u{1F}suite::macros::before");
    let cache = async_cache::AsyncCache::builder().backup(theirs).build().unwrap();
    cache.set(1_u8, 1_u8);
    cache.save_to_backup().unwrap();

    #[async_lru(backup = file("moved.cache"), name = "after")]
    async fn after(number: u8) -> u8 {
        number + 10
    }
    assert_eq!(after(1).await, 11);
    let saved = after::save_to_backup().unwrap();
    let aside = saved.set_aside.expect("it is set aside");
    let theirs = DiskBackend::new(aside).version("\u{1F}suite::macros::before");
    let cache = async_cache::AsyncCache::<u8, u8>::builder().backup(theirs).build().unwrap();
    assert_eq!(cache.get(&1), Some(1));
}

#[test]
fn a_name_that_does_not_fit_the_file_is_refused() {
    #[async_lru(backup = file("long.cache").version("v".repeat(240)), name = "a name of twenty char")]
    async fn long(number: u8) -> u8 {
        number
    }

    let error = long::init().unwrap_err();
    assert!(matches!(error, BuildError::NameTooLong { bytes: 7, .. }), "{error}");
}
