//! Writes decorated with `#[invalidates]`: stale entries are removed before the writes run and
//! after them, however they end.
#![cfg(feature = "macros")]
#![allow(clippy::cast_possible_truncation, clippy::print_stdout)] // keys as indices, and the seed

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Poll;

use crate::stage::{self, on_several_threads, poll_once};
use async_cache::{async_lru, invalidates};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// An origin whose reads and writes wait in the middle, until the test lets them continue.
#[derive(Debug, Default)]
struct Origin {
    values: Mutex<BTreeMap<u64, u64>>,
}

impl Origin {
    const fn new() -> Self {
        Self { values: Mutex::new(BTreeMap::new()) }
    }

    fn read(&self, key: u64) -> u64 {
        self.values.lock().get(&key).copied().unwrap_or(0)
    }

    fn write(&self, key: u64, value: u64) {
        self.values.lock().insert(key, value);
    }
}

on_several_threads! {
    async fn a_write_invalidates_for_its_own_first_arguments() {
        static ORIGIN: Origin = Origin::new();
        #[async_lru]
        async fn get(key: u64) -> u64 {
            ORIGIN.read(key)
        }
        #[invalidates(get)]
        async fn set(key: u64, value: u64) -> u64 {
            ORIGIN.write(key, value);
            value
        }

        assert_eq!((get(1).await, get(2).await), (0, 0));
        assert_eq!(set(1, 10).await, 10);
        assert_eq!(get(1).await, 10);
        assert!(get::cache().contains(&2), "others stay");
    }

    async fn a_write_may_own_what_the_read_borrows() {
        #[async_lru]
        async fn get(tenant: &str, ids: &[u64]) -> usize {
            tenant.len() + ids.len()
        }
        #[invalidates(get)]
        fn set(tenant: String, ids: Vec<u64>, (_a, _b): (u8, u8)) -> (String, Vec<u64>) {
            (tenant, ids)
        }

        assert_eq!(get("a", &[1, 2]).await, 3);
        assert_eq!(get("b", &[1, 2]).await, 3);
        assert_eq!(set("a".to_owned(), vec![1, 2], (1, 2)), ("a".to_owned(), vec![1, 2]));
        assert_eq!(get::metrics().size, 1);
    }

    async fn a_key_is_made_of_the_writes_arguments() {
        struct Order {
            product: u64,
        }
        #[async_lru]
        async fn price(product: u64) -> u64 {
            product
        }
        #[async_lru]
        async fn page(tenant: &str, number: u64) -> u64 {
            number + tenant.len() as u64
        }
        #[invalidates(price, key = (order.product), page, key = (tenant, &1))]
        async fn order(order: Order, tenant: &str) -> u64 {
            order.product + tenant.len() as u64
        }
        #[invalidates(price, clear_all, page, clear_all)]
        async fn forget() {}

        assert_eq!((price(1).await, price(2).await, page("a", 1).await, page("a", 2).await), (1, 2, 2, 3));
        assert_eq!(order(Order { product: 1 }, "a").await, 2);
        assert!(!price::cache().contains(&1) && price::cache().contains(&2));
        assert_eq!(page::metrics().size, 1);
        forget().await;
        assert_eq!((price::metrics().size, page::metrics().size), (0, 0));
    }

    async fn a_methods_cache_is_invalidated_by_a_method() {
        #[derive(Clone, Default)]
        struct Shop(Arc<AtomicU64>);
        impl Shop {
            #[async_lru(skip_self)]
            async fn price(&self, tenant: &str, product: u64) -> u64 {
                self.0.load(SeqCst) + product + tenant.len() as u64
            }

            #[invalidates(Shop::price_cache(), key = (tenant, product))]
            async fn set_price(&mut self, tenant: String, product: u64, price: u64) -> Result<(), String> {
                let price = tenant.parse::<u64>().map_or(price, |added| price + added);
                self.0.store(price, SeqCst);
                if product == 9 { Err("no such product".to_owned()) } else { Ok(()) }
            }
        }

        let mut shop = Shop::default();
        assert_eq!(shop.price("a", 1).await, 2);
        shop.set_price("a".to_owned(), 1, 10).await.unwrap();
        assert_eq!(shop.price("a", 1).await, 12);
        shop.set_price("b".to_owned(), 9, 20).await.unwrap_err();
        assert_eq!(shop.price("a", 1).await, 12);
    }

    async fn what_a_reader_cached_during_the_write_is_gone_after_it() {
        static ORIGIN: Origin = Origin::new();
        static LEAVE: Semaphore = Semaphore::const_new(0);
        #[async_lru]
        async fn get(key: u64) -> u64 {
            ORIGIN.read(key)
        }
        #[invalidates(get)]
        async fn set(key: u64, value: u64) {
            LEAVE.acquire().await.unwrap().forget();
            ORIGIN.write(key, value);
        }

        assert_eq!(get(1).await, 0);
        let mut write = Box::pin(set(1, 10));
        assert!(poll_once(&mut write).is_pending());
        assert!(!get::cache().contains(&1), "gone before");
        assert_eq!(get(1).await, 0, "read and cached again, before the write");
        LEAVE.add_permits(1);
        write.await;
        assert_eq!(get(1).await, 10);
    }

    async fn a_read_that_runs_while_the_write_returns_stores_nothing() {
        static ORIGIN: Origin = Origin::new();
        static READ: Semaphore = Semaphore::const_new(0);
        static LEAVE: Semaphore = Semaphore::const_new(0);
        #[async_lru]
        async fn get(key: u64) -> u64 {
            let value = ORIGIN.read(key);
            READ.add_permits(1);
            LEAVE.acquire().await.unwrap().forget();
            value
        }
        #[invalidates(get)]
        async fn set(key: u64, value: u64) {
            // Begins in the middle of the write, and has the old value.
            let _ = READ.acquire().await.unwrap();
            ORIGIN.write(key, value);
        }

        let mut write = Box::pin(set(1, 10));
        assert!(poll_once(&mut write).is_pending());
        let mut old = Box::pin(get(1));
        assert!(poll_once(&mut old).is_pending());
        write.await;
        let mut new = Box::pin(get(1));
        assert!(poll_once(&mut new).is_pending());
        LEAVE.add_permits(2);
        assert_eq!(old.await, 0, "it asked before the write returned");
        assert_eq!(new.await, 10);
        assert_eq!(get(1).await, 10);
    }

    async fn a_write_that_fails_panics_or_is_cancelled_leaves_nothing_stale() {
        static ORIGIN: Origin = Origin::new();
        static LEAVE: Semaphore = Semaphore::const_new(0);
        #[async_lru]
        async fn get(key: u64) -> u64 {
            ORIGIN.read(key)
        }
        #[derive(Clone, Copy)]
        enum End {
            Fails,
            Panics,
            Waits,
        }
        #[invalidates(get)]
        async fn set(key: u64, value: u64, end: End) -> Result<(), String> {
            ORIGIN.write(key, value);
            LEAVE.acquire().await.unwrap().forget();
            match end {
                End::Fails => Err("half done".to_owned())?,
                End::Panics => panic!("half done"),
                End::Waits => std::future::pending().await,
            }
            Ok(())
        }

        for (value, end) in [(1, End::Fails), (2, End::Panics), (3, End::Waits)] {
            let mut write = panics_are_errors(set(1, value, end));
            assert!(poll_once(&mut write).is_pending());
            // A reader caches the half-written value; the test pretends that the read happened
            // before.
            get::cache().set(1, 99);
            if matches!(end, End::Waits) {
                drop(write);
            } else {
                LEAVE.add_permits(1);
                assert!(write.await.is_err());
            }
            assert_eq!(get(1).await, value);
        }
    }

    async fn what_the_write_holds_is_dropped_before_the_last_invalidation() {
        static ORIGIN: Origin = Origin::new();
        #[async_lru]
        async fn get(key: u64) -> u64 {
            ORIGIN.read(key)
        }
        /// Commits when it is dropped, as some transactions do.
        struct Transaction(u64, u64);
        impl Drop for Transaction {
            fn drop(&mut self) {
                // A reader before the commit.
                get::cache().set(self.0, ORIGIN.read(self.0));
                ORIGIN.write(self.0, self.1);
            }
        }
        #[invalidates(get)]
        async fn set(key: u64, transaction: Transaction) {
            tokio::task::yield_now().await;
            assert_eq!(transaction.0, key);
        }
        #[invalidates(get)]
        fn set_at_once(key: u64, transaction: Transaction) -> u64 {
            transaction.1 + key
        }

        set(1, Transaction(1, 10)).await;
        assert_eq!(get(1).await, 10);
        assert_eq!(set_at_once(1, Transaction(1, 20)), 21);
        assert_eq!(get(1).await, 20);
    }

    /// `#[async_trait]` turns every `async fn` into a `fn` that returns a boxed future, before
    /// other attributes see it. Both invalidations happened before the write began: a value cached
    /// by a reader during the write was returned after it.
    async fn a_write_that_returns_a_future_is_over_when_that_is() {
        static ORIGIN: Origin = Origin::new();
        #[async_lru]
        async fn get(key: u64) -> u64 {
            ORIGIN.read(key)
        }
        type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
        trait Writes {
            fn set<'life0, 'async_trait>(
                &'life0 self,
                key: &'async_trait u64,
                value: u64,
            ) -> Pin<Box<dyn Future<Output = u64> + Send + 'async_trait>>
            where
                'life0: 'async_trait,
                Self: 'async_trait;
        }
        struct Table;
        impl Writes for Table {
            // As written by `#[async_trait]`.
            #[invalidates(get, key = (key))]
            fn set<'life0, 'async_trait>(
                &'life0 self,
                key: &'async_trait u64,
                value: u64,
            ) -> ::core::pin::Pin<Box<dyn ::core::future::Future<Output = u64> + ::core::marker::Send + 'async_trait>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async move {
                    tokio::task::yield_now().await;
                    ORIGIN.write(*key, value);
                    value
                })
            }
        }
        #[invalidates(get)]
        fn set_plain(key: u64, value: u64) -> impl Future<Output = u64> + Send {
            async move {
                tokio::task::yield_now().await;
                ORIGIN.write(key, value);
                value
            }
        }
        type BoxFuture<'a, T> = Boxed<'a, T>;
        #[invalidates(get, clear_all)]
        fn set_aliased(key: &u64, value: u64) -> BoxFuture<'_, u64> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                ORIGIN.write(*key, value);
                value
            })
        }
        async fn is_read_anew_after(write: Boxed<'_, u64>) {
            let mut write = write;
            assert_eq!(poll_once(&mut write), Poll::Pending);
            get(1).await;
            let written = write.await;
            assert_eq!(get(1).await, written);
        }

        is_read_anew_after(Table.set(&1, 10)).await;
        is_read_anew_after(Box::pin(set_plain(1, 20))).await;
        is_read_anew_after(set_aliased(&1, 30)).await;
        get(1).await;
        ORIGIN.write(1, 40);
        drop(set_plain(1, 50));
        assert_eq!(get(1).await, 40, "a write that never runs invalidates, too");
    }

    async fn a_write_may_return_what_it_borrows() {
        #[async_lru]
        async fn get(key: u64) -> u64 {
            key
        }
        struct Rows(Vec<u64>);
        impl Rows {
            #[invalidates(get, key = (key))]
            fn row(&mut self, key: u64) -> &mut u64 {
                &mut self.0[key as usize]
            }

            #[invalidates(get, clear_all)]
            fn rows<'a>(&'a mut self, more: &'a mut Vec<u64>) -> impl Iterator<Item = &'a mut u64> {
                self.0.iter_mut().chain(more)
            }

            #[invalidates(get, key = (key))]
            async fn row_later(&mut self, key: u64) -> &mut u64 {
                tokio::task::yield_now().await;
                &mut self.0[key as usize]
            }
        }

        get(0).await;
        let mut rows = Rows(vec![1, 2]);
        *rows.row(0) = 5;
        *rows.row_later(0).await += 1;
        assert!(!get::cache().contains(&0));
        assert_eq!(rows.rows(&mut vec![7]).map(|row| *row).collect::<Vec<_>>(), [6, 2, 7]);
    }

    /// Readers and writers over a slow origin, with all steps interleaved by a seeded script: after
    /// a write has returned, no caller gets a value from before the write.
    async fn no_reader_ever_sees_a_value_from_before_a_write_that_returned() {
        static ORIGIN: Origin = Origin::new();
        #[async_lru(maxsize = 3)]
        async fn get(key: u64) -> u64 {
            let value = ORIGIN.read(key);
            tokio::task::yield_now().await;
            value
        }
        #[invalidates(get)]
        async fn set(key: u64, value: u64) {
            tokio::task::yield_now().await;
            ORIGIN.write(key, value);
            tokio::task::yield_now().await;
        }

        const KEYS: u64 = 4;
        static VERSION: AtomicU64 = AtomicU64::new(0);
        // For each key, the value of the last write that returned.
        static FLOORS: [AtomicU64; KEYS as usize] = [const { AtomicU64::new(0) }; KEYS as usize];
        // One writer of a key at a time, so that versions grow in the origin.
        static WRITERS: [tokio::sync::Mutex<()>; KEYS as usize] =
            [const { tokio::sync::Mutex::const_new(()) }; KEYS as usize];

        let seed = stage::number_from_env("ASYNC_CACHE_SEED", 7);
        let rounds = stage::number_from_env("ASYNC_CACHE_ROUNDS", 400);
        println!("ASYNC_CACHE_SEED={seed}");
        let tasks: Vec<_> = (0..8_u64)
            .map(|task| {
                tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed(seed ^ (task << 32));
                    for _ in 0..rounds {
                        let key = random.u64(..KEYS);
                        let floor = &FLOORS[key as usize];
                        if task < 2 {
                            let _alone = WRITERS[key as usize].lock().await;
                            let version = VERSION.fetch_add(1, SeqCst) + 1;
                            let mut write = Box::pin(set(key, version));
                            if random.u8(..4) == 0 {
                                // Cancelled at its position after a step or two.
                                for _ in 0..random.u8(..3) {
                                    let _ = poll_once(&mut write);
                                }
                                drop(write);
                                floor.store(ORIGIN.read(key), SeqCst);
                            } else {
                                write.await;
                                floor.store(version, SeqCst);
                            }
                        } else {
                            let least = floor.load(SeqCst);
                            let value = get(key).await;
                            assert!(value >= least, "key {key}: {value} was read, and {least} had been written");
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(get::stats().fenced > 0 && get::stats().hits > 0, "they met: {:?}", get::stats());
    }
}

/// A future whose panic becomes its error.
fn panics_are_errors<T: Send + 'static>(
    future: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Result<T, String>> + Send>> {
    let mut future = Box::pin(future);
    Box::pin(poll_fn(move |cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Err("it panicked".to_owned())))
    }))
}
