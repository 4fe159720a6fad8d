//! The macros, as their users see them.
//!
//! Owns the documentation of the macros, where the examples can run. The code behind the expansions
//! is in `function`, the generation in the crate `async-cache-macros`.

/// Caches the results of an async function by its arguments.
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
/// # The decorated function
///
/// - For each set of arguments, a single call runs at a time, and all simultaneous callers wait for
///   it. The call runs on a separate task, so arguments and future are `Send`, and a cancelled
///   caller does not cancel the call while other callers wait; see
///   [`AsyncCache::get_or_load`](crate::AsyncCache::get_or_load).
/// - **A function that returns `Result<T, E>` returns `Result<T, LoadError<E>>`.** Only `Ok` is
///   cached. The error is the function's own error behind an `Arc`, because every waiting caller
///   gets it. The remaining variants of [`LoadError`](crate::LoadError) mean that the function
///   panicked, called itself with the same arguments, or had no tokio runtime. `?` turns the error
///   into `anyhow::Error`, `Box<dyn Error>` and `std::io::Error`. A type whose name ends in
///   `Result` is taken for a `Result`, so aliases work; for other names see `result` below.
/// - A function that returns any other type is cached whatever it returns, and the call **panics**
///   with the message of [`LoadError`](crate::LoadError) where a `Result` would carry the error.
///   `None` is cached, too, unless `cache_none = false`.
/// - Values are returned as clones; put large values into an `Arc`.
/// - Each argument is `Hash + Eq + Clone + Debug`. Borrowed arguments (`&str`, `&[T]`, `&T`) are
///   stored in their `ToOwned` form; a hit looks them up in their borrowed form, and allocates
///   nothing. A `&'static` argument is passed on unchanged. `f64` cannot be a key: take `u64` and
///   call with `to_bits()`, or write `key: u64 = ratio.to_bits()`. An argument may have a `#[cfg]`.
///
/// # Operations: a type with the function's name
///
/// | call | effect |
/// |---|---|
/// | `invalidate(&7)` | removes the result for these arguments, which are given by reference, and fences a running call |
/// | `refresh(7)` | calls the function anew and stores the result; a running call is fenced, and callers that call meanwhile share the new call |
/// | `clear()` | removes all results, and resets the counters |
/// | `metrics()`, `stats()` | the counters |
/// | `init()` | builds the cache and opens its file now; returns an error if that fails |
/// | `save_to_backup()`, `save_to_backup_async()`, `load_from_backup()` | as those of [`AsyncCache`](crate::AsyncCache) |
/// | `cache()` | the [`AsyncCache`](crate::AsyncCache) itself; its keys are the owned argument, or a tuple of the owned arguments |
///
/// # Options
///
/// | option | meaning |
/// |---|---|
/// | `maxsize = 1000` | the maximum number of entries; default 128 (for `async_ttl` 1024); `None` is unlimited |
/// | `eviction = lru` | evicts strictly the least recently used entry; default `adaptive`, with cheaper hits |
/// | `backup = DiskBackend::new(path)` | where entries survive the process: any [`CacheBackend`](crate::CacheBackend); evaluated at the first use of the cache. Arguments and value are then `Serialize + DeserializeOwned`. A file belongs to a single function |
/// | `remote = redis()` | the tier beyond one host, a `remote::Redis` (feature `redis`); evaluated at the first use of the cache. Its namespace is the name of the function, unless another is given |
/// | `clock = Clock::tokio()` | the source of the time; default: the system's clocks, which do not stand still when tokio's time is paused. For tests: [`Clock::tokio`](crate::Clock::tokio) or, from a static, the clock of [`Clock::manual`](crate::Clock::manual) |
/// | `name = "products"` | distinguishes the file of this function from those of other functions; default: the function's path and name, so set `name` if the function may move |
/// | `key = id`, `key = (tenant, id)` | only these arguments make the key; the remaining arguments need not be `Hash` |
/// | `key: String = name.to_lowercase()` | the expression makes the key, from arguments by reference; evaluated twice by a call that loads |
/// | `result`, `result = false` | the return type is a `Result` although its name does not end in `Result`, or is none although it does |
/// | `cache_none = false` | `None` is returned to waiting callers, and not stored |
/// | `skip_self` | for methods; see below |
/// | `associated` | for functions without `self` in an `impl` block that a macro writes; see below |
/// | `crate = path::to::async_cache` | the path of this crate, if the macro cannot find it |
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
/// A single cache serves all instances of a type, so a method says `skip_self`: its receiver is not
/// part of the key. In an `impl` block of a generic type, each type has its own cache:
/// `Repository<User>` never serves a result of `Repository<Order>`. The options may name the type,
/// as in `backup = DiskBackend::new(T::PATH)`; two types with the same file are an error at the
/// first use, as two functions are. Arguments and value cannot have a type that is a parameter of
/// the block: keep an [`AsyncCache`](crate::AsyncCache) as a field for these. `Self` is `Clone`, or
/// the receiver an `Arc<Self>`, because the load runs independently of the caller. An `impl` block
/// cannot contain a type, so instead of a type with the method's name there are two associated
/// functions: `<method>_cache()`, which returns a [`CachedFunction`](crate::CachedFunction), and
/// `<method>_refresh(...)`. A method with a `backup` needs a `name`.
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
/// A function without `self` in an `impl` block is cached like a method, under the same names:
/// `User::name(7)`, `User::name_cache()`, `User::name_refresh(7)`. The attribute sees only the
/// function, so it searches the source file for the function's surroundings. For a function written
/// by a macro of yours, say `associated`.
///
/// # Limitations
///
/// Methods in the `impl` block of a trait: no other functions can be added there. Cache an inherent
/// method, and call it from the trait's method.
///
/// Generic functions and `impl Trait` arguments: a cache is a static, and has a single type.
/// Borrows inside an argument (`Option<&str>`) and in the return type. These are compile errors
/// that say how to write the function instead.
///
/// A function that calls itself must do so through a function that returns `Pin<Box<dyn
/// Future<Output = T> + Send>>`; otherwise, the compiler cannot see that its future is `Send`.
#[doc(inline)]
pub use async_cache_macros::async_lru;

/// [`async_lru`](macro@async_lru) with a time to live: `ttl`, default 60 seconds, and a default
/// `maxsize` of 1024.
///
/// `ttl` is a text (`"250ms"`, `"60s"`, `"1h 30m"`, `"2days"`), a `Duration`, or `None` for no
/// expiry.
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

/// Makes a write invalidate the cached results of a function, before the write runs and after.
///
/// Before the write, so that no caller is served a value that is about to change, and running reads
/// are fenced. After the write, so that a value that was read and cached meanwhile does not stay.
/// Once the write has returned, no caller gets a value that was read before it, even if the write
/// fails, panics or is cancelled half-way.
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
/// - `#[invalidates(price, key = (order.product))]`: for these arguments of `price`, made from the
///   write's own arguments, which are references here.
/// - `#[invalidates(price, clear_all)]`: all results.
/// - `#[invalidates(price, listing, clear_all)]`: several functions; an option belongs to the name
///   before it.
/// - `#[invalidates(Shop::price_cache(), key = (product))]`: the cache of a method; the key is
///   given by reference, for several arguments as `key = (a, b)`. In a generic `impl` block write
///   `Self::row_cache()`, elsewhere `Repository::<User>::row_cache()`.
/// - The write may be an `async fn`, a `fn` or a method. A `fn` that returns `impl Future` or a
///   boxed future (`#[async_trait]` turns `async fn`s into these) ends when the future ends; any
///   other `fn` ends when it returns, even if it has spawned a task.
/// - In another process, the file keeps the old value until this process saves.
#[doc(inline)]
pub use async_cache_macros::invalidates;

/// Caches a tool of an AI agent under the name of the resource that the tool reads; see
/// [`agent`](crate::agent).
///
/// The function returns a `Result`; decorated, it returns [`Result<T,
/// ToolError<E>>`](crate::agent::ToolError). `Ok` is cached. Otherwise, a tool is like a function
/// with [`async_lru`](macro@async_lru): `read_file::invalidate("a")`, `read_file::clear()`,
/// `read_file::metrics()`, `read_file::save_to_backup()`.
///
/// | option | meaning |
/// |---|---|
/// | `resource = "files"` | the resource that the tool reads; `#[agent_invalidates]` uses the same name. Several tools may read the same resource, and their results never mix |
/// | `scope = "session"` | `"global"`, the default: one cache for the process. `"session"`: results live in the active [`AgentSession`](crate::agent::AgentSession) and end with it; outside sessions the tool runs uncached |
/// | `ttl = "60s"` | how long a result is served; without `ttl`, for ever |
/// | `backup = ...` | a [`DiskBackend`](crate::DiskBackend); not for `"session"` |
/// | `maxsize`, `eviction`, `clock`, `name`, `key`, `cache_none`, `crate` | as for `async_lru`; `maxsize` is 1024 |
///
/// The value is `serde::Serialize`, so that loop detection can compare results.
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

/// Makes a write invalidate all cached reads of a resource, before the write runs and after.
///
/// `#[agent_invalidates(resource = "files")]`: invalidates the results cached for all users, and
/// those in the active session. With `scope = "session"`, only the latter. The write may be an
/// `async fn`, a `fn` or a method; it may fail, panic or be cancelled. See [`agent`](crate::agent)
/// for an example.
#[doc(inline)]
pub use async_cache_macros::agent_invalidates;
