//! The macros, as their users see them, and what their expansions call.
//!
//! Owns the documentation of the macros, where its examples can run. What they do is in `function`, what they
//! generate in the crate `async-cache-macros`.

/// Caches what an async function returns, for the arguments it is called with.
///
/// ```
/// use async_cache::async_lru;
///
/// #[async_lru(maxsize = 1000)]
/// async fn get_product(id: u64) -> Result<String, std::io::Error> {
///     Ok(format!("product {id}")) // something slow
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), std::io::Error> {
/// assert_eq!(get_product(7).await?, "product 7"); // loads
/// assert_eq!(get_product(7).await?, "product 7"); // a hit
/// assert_eq!(get_product::metrics().hits, 1);
///
/// get_product::invalidate(&7);                    // forgets it
/// get_product::refresh(7).await?;                 // loads anew, and stores
/// # Ok(())
/// # }
/// ```
///
/// # What the function becomes
///
/// - One call per set of arguments runs at a time; everybody who calls meanwhile waits for it. It runs on a task of its
///   own, so arguments and future are `Send`, and a cancelled caller does not cancel it as long as others wait; see
///   [`AsyncCache::get_or_load`](crate::AsyncCache::get_or_load).
/// - **A function that returns `Result<T, E>` returns `Result<T, LoadError<E>>`.** Only `Ok` is cached. The error is the
///   function's own behind an `Arc`, for every caller who waited gets it; the other variants of
///   [`LoadError`](crate::LoadError) say that it panicked, called itself with the same arguments, or had no tokio
///   runtime. `?` turns it into `anyhow::Error`, `Box<dyn Error>` and `std::io::Error`. A type whose name ends in
///   `Result` is taken for one, so aliases work; for others see `result` below.
/// - A function that returns anything else is cached whatever it returns, and the call **panics** with the message of
///   [`LoadError`](crate::LoadError) where a `Result` would carry it. `None` is cached, too, unless `cache_none = false`.
/// - Values are handed out as clones; put big ones into an `Arc`.
/// - Each argument is `Hash + Eq + Clone + Debug`. Borrowed ones (`&str`, `&[T]`, `&T`) are kept as what `ToOwned` makes
///   of them; a hit looks them up as they are, and allocates nothing. A `&'static` one is passed on as it is. `f64` is no
///   key: take `u64` and call with `to_bits()`, or write `key: u64 = ratio.to_bits()`. An argument may have a `#[cfg]`.
///
/// # Beside it: a type of the function's name
///
/// | call | does |
/// |---|---|
/// | `invalidate(&7)` | forgets what was returned for these arguments, which are given by reference, and fences a call that runs |
/// | `refresh(7)` | calls the function anew and stores; a call that runs is fenced, those who call meanwhile share this one |
/// | `clear()` | forgets everything, and resets the counters |
/// | `metrics()`, `stats()` | what was counted |
/// | `init()` | builds the cache and opens its file now, and says if that fails |
/// | `save_to_backup()`, `save_to_backup_async()`, `load_from_backup()` | as those of [`AsyncCache`](crate::AsyncCache) |
/// | `cache()` | the [`AsyncCache`](crate::AsyncCache) itself, whose keys are the owned argument, or a tuple of them |
///
/// # Options
///
/// | option | means |
/// |---|---|
/// | `maxsize = 1000` | the most entries; default 128 (for `async_ttl` 1024); `None` is unlimited |
/// | `eviction = lru` | strictly the least recently used makes room; default `adaptive`, which costs a hit less |
/// | `backup = DiskBackend::new(path)` | where entries survive the process: any [`CacheBackend`](crate::CacheBackend); evaluated when the cache is first used. Arguments and value are then `Serialize + DeserializeOwned`. A file belongs to one function |
/// | `clock = Clock::tokio()` | where the time comes from; default: the system's clocks, which do not stand still when tokio's time is paused. For tests: [`Clock::tokio`](crate::Clock::tokio) or, from a static, the clock of [`Clock::manual`](crate::Clock::manual) |
/// | `name = "products"` | tells the file of this function from those of others; default: its path and name, so set it if the function may move |
/// | `key = id`, `key = (tenant, id)` | only these arguments make the key; the others need not be `Hash` |
/// | `key: String = name.to_lowercase()` | this makes the key, from arguments by reference; evaluated twice by a call that loads |
/// | `result`, `result = false` | the return type is a `Result` although its name does not end so, or is none although it does |
/// | `cache_none = false` | a `None` is returned to those who wait, and not stored |
/// | `skip_self` | for methods; see below |
/// | `associated` | for functions without `self` in an `impl` block that a macro writes; see below |
/// | `crate = path::to::async_cache` | where this crate is, if that is not found by itself |
///
/// # Files
///
/// ```
/// use async_cache::{DiskBackend, async_lru};
///
/// # fn folder() -> std::path::PathBuf { std::env::temp_dir().join("async-cache-doc-async-lru") }
/// #[async_lru(backup = DiskBackend::new(folder().join("words.cache")), name = "words")]
/// async fn count_words(text: &str) -> usize {
///     text.split_whitespace().count()
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// count_words::init()?; // opens the file
/// assert_eq!(count_words("never cold").await, 2);
/// count_words::save_to_backup_async().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Methods
///
/// The cache is one for all instances of a type, so a method says `skip_self`: its receiver is no part of the key. In an
/// `impl` block of a generic type each type has a cache of its own: `Repository<User>` never serves what
/// `Repository<Order>` has loaded. The options may name the type, as in `backup = DiskBackend::new(T::PATH)`; two types
/// with one file are an error on the first use, as two functions are. Arguments and value cannot be of a type that is a
/// parameter of the block: keep an [`AsyncCache`](crate::AsyncCache) as a field for these. `Self` is `Clone`, or the receiver an `Arc<Self>`, for the load runs on its own. In place of a type of its name, which cannot
/// stand in an `impl` block, there are two associated functions: `<method>_cache()`, which returns a
/// [`CachedFunction`](crate::CachedFunction), and `<method>_refresh(...)`. A method with a `backup` needs a `name`.
///
/// ```
/// use async_cache::{async_lru, invalidates};
/// use std::sync::{Arc, Mutex};
///
/// #[derive(Clone)]
/// struct Shop { prices: Arc<Mutex<Vec<u32>>> }
///
/// impl Shop {
///     #[async_lru(skip_self)]
///     async fn price(&self, product: usize) -> u32 {
///         self.prices.lock().unwrap()[product]
///     }
///
///     #[invalidates(Shop::price_cache(), key = (product))]
///     async fn set_price(&self, product: usize, price: u32) {
///         self.prices.lock().unwrap()[product] = price;
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() {
/// let shop = Shop { prices: Arc::new(Mutex::new(vec![10])) };
/// assert_eq!(shop.price(0).await, 10);
/// shop.set_price(0, 12).await;
/// assert_eq!(shop.price(0).await, 12);
///
/// Shop::price_cache().invalidate(&0); // several arguments: a tuple of references
/// assert_eq!(shop.price_refresh(0).await, 12);
/// assert_eq!(Shop::price_cache().metrics().size, 1);
/// # }
/// ```
///
/// A function without `self` in an `impl` block is cached as a method is, under the same names: `User::name(7)`,
/// `User::name_cache()`, `User::name_refresh(7)`. The attribute sees only the function, so it looks into the source file
/// for where that stands; for a function that a macro of yours writes, say `associated`.
///
/// # What does not work
///
/// Methods in the `impl` block of a trait: no other functions may stand beside them. Cache an inherent method, and call it
/// from the trait's.
///
/// Generic functions and `impl Trait` arguments: a cache is a static, and has one type. Borrows inside of an argument
/// (`Option<&str>`) and in the return type. These are compile errors that say what to write.
///
/// A function that calls itself does so through a function that returns `Pin<Box<dyn Future<Output = T> + Send>>`, for
/// the compiler cannot see otherwise that its future is `Send`.
#[doc(inline)]
pub use async_cache_macros::async_lru;

/// [`async_lru`](macro@async_lru) with a time to live: `ttl`, default 60 seconds, and a default `maxsize` of 1024.
///
/// `ttl` is a text (`"250ms"`, `"60s"`, `"1h 30m"`, `"2days"`), a `Duration`, or `None` for never.
///
/// ```
/// use async_cache::async_ttl;
///
/// #[async_ttl(ttl = "60s", maxsize = 10_000)]
/// async fn user_of(token: &str) -> Option<String> {
///     token.strip_prefix("token-of-").map(str::to_owned) // something slow
/// }
///
/// # #[tokio::main]
/// # async fn main() {
/// assert_eq!(user_of("token-of-ada").await.as_deref(), Some("ada"));
/// user_of::invalidate("token-of-ada");
/// # }
/// ```
#[doc(inline)]
pub use async_cache_macros::async_ttl;

/// Makes a write invalidate what a cached function has read, before it runs and after.
///
/// Before, so that nobody is served what is about to change, and reads that run are fenced; after, so that what
/// somebody read and cached meanwhile does not stay. Once the write has returned, nobody gets a value that was read
/// before it. That holds also if the write fails, panics or is cancelled half-way.
///
/// ```
/// use async_cache::{async_lru, invalidates};
/// # use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
/// # static PRICE: AtomicU32 = AtomicU32::new(10);
///
/// #[async_lru]
/// async fn price(product: u64) -> u32 {
///     PRICE.load(SeqCst)
/// }
///
/// #[invalidates(price)] // for its own first arguments: here `product`
/// async fn set_price(product: u64, price: u32) {
///     PRICE.store(price, SeqCst);
/// }
///
/// # #[tokio::main]
/// # async fn main() {
/// assert_eq!(price(7).await, 10);
/// set_price(7, 12).await;
/// assert_eq!(price(7).await, 12);
/// # }
/// ```
///
/// - `#[invalidates(price, key = (order.product))]`: for these arguments of `price`, made of the write's own, which are
///   references here.
/// - `#[invalidates(price, clear_all)]`: all of it.
/// - `#[invalidates(price, listing, clear_all)]`: several; what follows a name belongs to it.
/// - `#[invalidates(Shop::price_cache(), key = (product))]`: the cache of a method; the key is given by reference, for
///   several arguments as `key = (a, b)`. In a generic `impl` block write `Self::row_cache()`, elsewhere
///   `Repository::<User>::row_cache()`.
/// - The write may be an `async fn`, a `fn` or a method. A `fn` that returns `impl Future` or a boxed future (`#[async_trait]`
///   makes such of `async fn`s) is over when the future is; any other one when it returns, also if it has spawned a task.
/// - In another process the file keeps the old value until this one saves.
#[doc(inline)]
pub use async_cache_macros::invalidates;

/// Caches a tool of an AI agent under the name of the resource that it reads; see [`agent`](crate::agent).
///
/// The function returns a `Result`; decorated, it returns [`Result<T, ToolError<E>>`](crate::agent::ToolError). `Ok` is
/// cached. Everything else is as of [`async_lru`](macro@async_lru): `read_file::invalidate("a")`, `read_file::clear()`,
/// `read_file::metrics()`, `read_file::save_to_backup()`.
///
/// | option | |
/// |---|---|
/// | `resource = "files"` | what is read; `#[agent_invalidates]` names it, too. Several tools may read one resource, and their results never mix |
/// | `scope = "session"` | `"global"`, the default: one cache for the process. `"session"`: results live in the active [`AgentSession`](crate::agent::AgentSession) and end with it; outside of sessions the tool runs uncached |
/// | `ttl = "60s"` | how long a result is served; for ever without |
/// | `backup = ...` | a [`DiskBackend`](crate::DiskBackend); not for `"session"` |
/// | `maxsize`, `eviction`, `clock`, `name`, `key`, `cache_none`, `crate` | as of `async_lru`; `maxsize` is 1024 |
///
/// The value is `serde::Serialize`, so that loop detection can tell one result from another.
///
/// ```
/// use async_cache::agent::ToolError;
/// use async_cache::{DiskBackend, agent_cache};
/// use std::convert::Infallible;
///
/// # fn path() -> std::path::PathBuf { std::env::temp_dir().join("async-cache-embeddings-doctest.cache") }
/// #[agent_cache(resource = "embeddings", backup = DiskBackend::new(path()))]
/// async fn embedding(text: String) -> Result<Vec<f32>, Infallible> {
///     Ok(vec![text.len() as f32])
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// assert_eq!(embedding("never cold".to_owned()).await?, [10.0]);
/// embedding::save_to_backup()?; // the next process has it
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use async_cache_macros::agent_cache;

/// Makes a write invalidate all that tools have read of a resource, before it runs and after.
///
/// `#[agent_invalidates(resource = "files")]`: what is cached for everybody, and in the active session. With
/// `scope = "session"` the latter only. The write may be an `async fn`, a `fn` or a method; it may fail, panic or be
/// cancelled. See [`agent`](crate::agent) for an example.
#[doc(inline)]
pub use async_cache_macros::agent_invalidates;
