//! The permitted forms of a cached function: arguments with any name, with `'static` borrows, or
//! under a condition; functions without `self` in an `impl` block; and a clock for tests.
//!
//! The story: `load` and `asked` collided with variables of the expansion, `r#type` made the macro
//! panic, a `&'static str` was an error at the attribute, and an argument under `#[cfg]` was passed
//! although it did not exist. `User::load(id)` was treated as a free function, and the compiler
//! reported five errors about items not permitted in an `impl` block.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use async_cache::{
    Clock, DiskBackend, ManualClock, agent::ToolError, agent_cache, async_lru, async_ttl, invalidates,
};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn file(name: &str) -> PathBuf {
    FOLDER.path().join(name)
}

// Names

#[async_lru]
async fn sum(load: u32, asked: u32, value: u32, this: u32, builder: u32, function: u32) -> u32 {
    load + asked + value + this + builder + function
}

#[async_ttl(key: String = format!("{key}{cache}"))]
async fn joined(key: &str, cache: String, origin: u8, miss: u8) -> Result<usize, String> {
    Ok(key.len() + cache.len() + usize::from(origin + miss))
}

#[async_lru(key = (guard, written))]
async fn kept(guard: u32, written: &str, guards: u32) -> String {
    format!("{guard}{written}{guards}")
}

#[invalidates(kept)]
async fn write(guard: u32, written: &str) -> usize {
    written.len() + guard as usize
}

#[invalidates(kept, key = (guards, "a"))]
fn write_to(guards: u32, guard: u32) -> u32 {
    // The result has the name of a variable of the expansion.
    let written = [guards, guard];
    written.iter().sum()
}

/// An argument may have the name of its function.
#[async_lru]
async fn price(price: u32) -> u32 {
    price
}

#[tokio::test]
async fn arguments_may_have_any_name() {
    for _ in 0..2 {
        assert_eq!(sum(1, 2, 3, 4, 5, 6).await, 21);
        assert_eq!(joined("ab", "c".to_owned(), 1, 2).await.unwrap(), 6);
        assert_eq!(kept(1, "a", 2).await, "1a2");
        assert_eq!(price(1).await, 1);
    }
    assert_eq!(
        (sum::metrics().hits, joined::metrics().hits, kept::metrics().hits, price::metrics().hits),
        (1, 1, 1, 1)
    );
    sum::invalidate(&1, &2, &3, &4, &5, &6);
    assert_eq!(sum::metrics().size, 0);
    assert_eq!(write(1, "a").await, 2);
    assert_eq!(kept(1, "a", 3).await, "1a3");
    assert_eq!(write_to(1, 2), 3);
    assert_eq!(kept::refresh(1, "a", 4).await, "1a4");
}

#[async_lru(key = (r#type, r#match))]
async fn count(r#type: u32, r#match: &str, r#fn: u32) -> usize {
    r#match.len() + (r#type + r#fn) as usize
}

#[async_lru]
async fn r#move(r#in: u32) -> u32 {
    r#in
}

#[invalidates(r#move)]
async fn r#static(r#in: u32) -> u32 {
    r#in
}

#[tokio::test]
async fn arguments_and_functions_may_have_raw_names() {
    assert_eq!((count(1, "ab", 3).await, count(1, "ab", 4).await), (6, 6));
    count::invalidate(&1, "ab");
    assert_eq!(count(1, "ab", 4).await, 7);
    assert_eq!((r#move(1).await, r#static(1).await, r#move::metrics().size), (1, 1, 0));
}

// For ever

struct Table(&'static str);

static USERS: Table = Table("users");

/// The function gets the caller's argument: the reference itself, with lifetime `'static`.
#[async_lru(key = (name, words))]
async fn lengths(
    name: &'static str,
    words: &'static [&'static str],
    table: &'static Table,
) -> Vec<&'static str> {
    [&[name, table.0], words].concat()
}

#[async_lru(backup = DiskBackend::new(file("static")))]
async fn saved(name: &'static str) -> usize {
    name.len()
}

#[tokio::test]
async fn an_argument_may_be_borrowed_for_ever() {
    const WORDS: &[&str] = &["a", "b"];
    for _ in 0..2 {
        assert_eq!(lengths("x", WORDS, &USERS).await, ["x", "users", "a", "b"]);
    }
    assert_eq!(lengths::metrics().hits, 1);
    lengths::invalidate("x", WORDS);
    assert_eq!(lengths::metrics().size, 0);

    // The key owns its parts, so it can be read from a file, and looked up with shorter-lived
    // references.
    assert_eq!(saved("four").await, 4);
    saved::save_to_backup().unwrap();
    assert!(saved::cache().contains(String::from("four").as_str()));
}

// Under a condition

#[async_lru]
async fn sum_if(left: u32, #[cfg(any())] never: Missing, #[cfg(test)] right: u32) -> u32 {
    left + right
}

#[async_ttl(ttl = "60s", key = (left, right),)]
async fn keyed_if(
    left: u32,
    #[cfg(not(any()))]
    #[cfg(test)]
    right: &str,
    #[cfg(not(test))] right: Missing,
) -> usize {
    left as usize + right.len()
}

#[invalidates(sum_if)]
fn change(left: u32, #[cfg(any())] never: Missing, #[cfg(not(any()))] right: u32) -> u32 {
    left + right
}

struct Shop;

impl Shop {
    #[async_lru]
    async fn stock(product: u32, #[cfg(any())] never: Missing) -> u32 {
        product
    }
}

#[tokio::test]
async fn an_argument_may_depend_on_a_cfg() {
    assert_eq!((sum_if(1, 2).await, keyed_if(1, "ab").await, Shop::stock(3).await), (3, 3, 3));
    sum_if::invalidate(&1, &2);
    assert_eq!(sum_if::metrics().size, 0);
    sum_if(1, 2).await;
    assert_eq!((change(1, 2), sum_if::metrics().size), (3, 0));
    assert_eq!(Shop::stock_cache().metrics().size, 1);
}

// Without self

static LOADS: AtomicU32 = AtomicU32::new(0);

#[derive(Clone)]
struct User;

impl User {
    const PREFIX: &'static str = "user";

    /// Nothing in the function says where it stands; the file does.
    #[async_lru]
    async fn name(id: u32) -> String {
        LOADS.fetch_add(1, SeqCst);
        format!("user {id}")
    }

    #[async_ttl(ttl = "60s", key = id)]
    async fn prefixed(id: u32, times: usize) -> Result<String, String> {
        if id == 0 { Err("nobody".to_owned()) } else { Ok(Self::PREFIX.repeat(times)) }
    }

    #[async_lru(associated)]
    async fn said(id: u32) -> u32 {
        id
    }

    #[invalidates(Self::name_cache(), key = (id))]
    async fn rename(id: u32) -> u32 {
        id
    }
}

/// A free function with the same name and arguments.
#[async_lru]
async fn name(id: u32) -> String {
    format!("free {id}")
}

macro_rules! with_id {
    ($name:ident) => {
        impl $name {
            #[async_lru(associated)]
            async fn made(id: u32) -> u32 {
                id
            }
        }
    };
}

with_id!(User);

struct Kind<T>(std::marker::PhantomData<T>);

impl<T: 'static> Kind<T> {
    #[async_lru]
    async fn bytes(count: usize) -> usize {
        count * size_of::<T>()
    }
}

#[tokio::test]
async fn an_associated_function_can_be_cached() {
    for _ in 0..2 {
        assert_eq!(User::name(7).await, "user 7");
        assert_eq!(name(7).await, "free 7");
        assert_eq!(User::prefixed(1, 2).await.unwrap(), "useruser");
        assert_eq!((User::said(1).await, User::made(2).await), (1, 2));
        assert_eq!((Kind::<u8>::bytes(3).await, Kind::<u32>::bytes(3).await), (3, 12));
    }
    assert_eq!(LOADS.load(SeqCst), 1);
    assert_eq!(User::prefixed(0, 1).await.unwrap_err().to_string(), "nobody");
    assert_eq!(User::rename(7).await, 7);
    assert_eq!((User::name_cache().metrics().size, name::metrics().size), (0, 1));
    assert_eq!(User::name_refresh(7).await, "user 7");
    User::name_cache().invalidate(&7);
    assert_eq!(User::name_cache().metrics().size, 0);
}

// Clocks

static MANUAL: LazyLock<(Clock, ManualClock)> = LazyLock::new(Clock::manual);

#[async_ttl(ttl = "60s", clock = MANUAL.0.clone())]
async fn manual(number: u32) -> u32 {
    number
}

#[async_ttl(ttl = "60s", clock = Clock::tokio())]
async fn paused(number: u32) -> u32 {
    number
}

#[agent_cache(resource = "clocks", ttl = "60s", clock = MANUAL.0.clone())]
async fn tool(number: u32) -> Result<u32, String> {
    Ok(number)
}

#[tokio::test]
async fn a_function_takes_the_time_from_the_clock_that_it_is_given() {
    let read =
        || async { (manual(1).await, tool(1).await.map_err(|error: ToolError<String>| error.to_string())) };
    assert_eq!((read().await, read().await), ((1, Ok(1)), (1, Ok(1))));
    MANUAL.1.advance(Duration::from_secs(60));
    assert_eq!((manual::metrics().hits, tool::metrics().hits), (1, 1));
    assert_eq!(read().await, (1, Ok(1)));
    assert_eq!((manual::metrics().hits, tool::metrics().hits), (1, 1));
    assert_eq!((manual::metrics().misses, tool::metrics().misses), (2, 2));
    // To the end of the clock: a later deadline means never, and the clock does not wrap around.
    MANUAL.1.advance(Duration::MAX);
    assert_eq!(manual::metrics().size, 0);
    assert_eq!(read().await, (1, Ok(1)));
    assert_eq!((manual(1).await, manual::metrics().size), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_function_with_tokios_clock_heeds_its_pause() {
    paused(1).await;
    tokio::time::advance(Duration::from_millis(59_999)).await;
    assert_eq!((paused(1).await, paused::metrics().hits), (1, 1));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!((paused(1).await, paused::metrics().hits, paused::metrics().misses), (1, 1, 2));
}
