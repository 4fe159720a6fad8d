//! An N+1 query turned into one query: every post asks for its author separately, and all authors
//! come in one query.
//!
//! ```text
//! batch_loading
//! ```
//!
//! The page is rendered three times: in the obvious way (one query for each post), through a batch
//! loader (one query for all posts, though no line of the rendering knows of batches), and again,
//! from the cache. The table is in memory and prints its queries; a real query takes milliseconds.

#![allow(clippy::print_stdout)] // a program with output

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_cache::{AsyncCache, BatchLoader};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug)]
struct Author {
    name: String,
}

struct Post {
    title: &'static str,
    author_id: u64,
}

const POSTS: [Post; 6] = [
    Post { title: "On the Analytical Engine", author_id: 1 },
    Post { title: "Notes on compilers", author_id: 2 },
    Post { title: "Bugs, and how to find them", author_id: 2 },
    Post { title: "Computable numbers", author_id: 3 },
    Post { title: "Go to, considered", author_id: 4 },
    Post { title: "A letter without a sender", author_id: 99 },
];

/// The database.
struct Database {
    authors: BTreeMap<u64, Author>,
    queries: AtomicUsize,
}

impl Database {
    fn new() -> Arc<Self> {
        let names = [(1, "Ada"), (2, "Grace"), (3, "Alan"), (4, "Edsger")];
        let authors = names.map(|(id, name)| (id, Author { name: name.to_owned() }));
        Arc::new(Self { authors: authors.into(), queries: AtomicUsize::new(0) })
    }

    /// One round trip. As usual, ids without a row are missing from the answer.
    async fn select_authors(&self, ids: &[u64]) -> Result<HashMap<u64, Author>, Error> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        println!("    SELECT id, name FROM authors WHERE id IN {ids:?}");
        tokio::task::yield_now().await;
        Ok(ids.iter().filter_map(|id| Some((*id, self.authors.get(id)?.clone()))).collect())
    }

    fn queries(&self) -> usize {
        self.queries.swap(0, Ordering::Relaxed)
    }
}

// One thread, so that the output is the same on every machine under any load.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let database = Database::new();

    println!("one query for each post:");
    for post in &POSTS {
        let authors = database.select_authors(&[post.author_id]).await?;
        println!("{}", line(post, authors.get(&post.author_id)));
    }
    println!("{} queries\n", database.queries());

    // The batch loader: a cache, and an async function from ids to rows.
    let cache: AsyncCache<u64, Author> = AsyncCache::builder().maxsize(10_000).build()?;
    let asked = Arc::clone(&database);
    let authors =
        BatchLoader::builder(&cache).window(Duration::from_millis(1)).build(move |ids: Vec<u64>| {
            let database = Arc::clone(&asked);
            async move { database.select_authors(&ids).await }
        });

    println!("through a batch loader, each post in a task of its own:");
    let rendering: Vec<_> = POSTS.iter().map(|post| tokio::spawn(render(post, authors.clone()))).collect();
    for line in rendering {
        println!("{}", line.await??);
    }
    println!("{} query\n", database.queries());

    println!("all at once, from the cache but for the one that has no author:");
    let ids = POSTS.each_ref().map(|post| post.author_id);
    for (post, author) in POSTS.iter().zip(authors.get_many(&ids).await?) {
        println!("{}", line(post, author.as_ref()));
    }
    println!("{} query", database.queries());

    let stats = cache.stats();
    println!("{} batches, {} keys, {} hits", stats.batches, stats.batched_keys, stats.hits);
    Ok(())
}

/// Renders one post; sees only the post and its author.
async fn render(post: &'static Post, authors: BatchLoader<u64, Author, Error>) -> Result<String, Error> {
    let author = authors.get(&post.author_id).await?;
    Ok(line(post, author.as_ref()))
}

fn line(post: &Post, author: Option<&Author>) -> String {
    format!("  {} by {}", post.title, author.map_or("nobody we know", |author| &author.name))
}
