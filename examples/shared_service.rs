//! A product service with a cache that it shares with every other instance, also those in Python.
//!
//! ```text
//! shared_service [ADDRESS]                    # this one; by default on 127.0.0.1:8002
//! uvicorn shared_service:app --port 8001      # bindings/python/examples/shared_service.py
//! curl -X PUT localhost:8002/products/7 -H 'content-type: application/json' \
//!     -d '{"name": "tea", "price": 3.5}'
//! curl localhost:8001/products/7
//! ```
//!
//! `REDIS_URL` is the server that they share, by default `redis://127.0.0.1:6379`. `PRODUCTS` is
//! the folder that stands for their database, by default `target/products`.

#![allow(clippy::print_stdout)] // a program with output

use std::env;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_cache::remote::Redis;
use async_cache::{AsyncCache, LoadError};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

/// An article for sale. A dict with the same names in Python.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Product {
    name: String,
    price: f64,
}

#[derive(Debug, thiserror::Error)]
enum DatabaseError {
    #[error("there is no product {0}")]
    NoSuchProduct(u64),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Damaged(#[from] serde_json::Error),
}

/// Stands for a slow database, with a file for each product; counts its queries.
#[derive(Debug)]
struct Database {
    folder: PathBuf,
    queries: AtomicU64,
}

impl Database {
    async fn find(&self, id: u64) -> Result<Product, DatabaseError> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
        match tokio::fs::read(self.path(id)).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(DatabaseError::NoSuchProduct(id))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn write(&self, id: u64, product: &Product) -> Result<(), DatabaseError> {
        tokio::fs::create_dir_all(&self.folder).await?;
        let new = self.path(id).with_extension(process::id().to_string());
        tokio::fs::write(&new, serde_json::to_vec(product)?).await?;
        tokio::fs::rename(&new, self.path(id)).await?;
        Ok(())
    }

    fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

#[derive(Clone)]
struct Service {
    database: Arc<Database>,
    cache: AsyncCache<String, Product>,
}

enum Failure {
    Load(LoadError<DatabaseError>),
    Write(DatabaseError),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (error, text) = match &self {
            Self::Load(error) => (error.loader_error(), error.to_string()),
            Self::Write(error) => (Some(error), error.to_string()),
        };
        let status = match error {
            Some(DatabaseError::NoSuchProduct(_)) => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, text).into_response()
    }
}

/// One product: from memory, from the server, or from the database.
async fn read_product(State(service): State<Service>, Path(id): Path<u64>) -> Result<Json<Product>, Failure> {
    let database = service.database;
    let load = move || async move { database.find(id).await };
    service.cache.get_or_load(&id.to_string(), load).await.map(Json).map_err(Failure::Load)
}

/// Changes a product. After the write, no instance keeps the old one.
async fn write_product(
    State(service): State<Service>,
    Path(id): Path<u64>,
    Json(product): Json<Product>,
) -> Result<Json<Product>, Failure> {
    service.database.write(id, &product).await.map_err(Failure::Write)?;
    service.cache.delete(&id.to_string());
    Ok(Json(product))
}

#[derive(Serialize)]
struct Metrics {
    queries: u64,
    hits: u64,
}

/// How many queries this instance made, and how many requests it served from memory.
async fn metrics(State(service): State<Service>) -> Json<Metrics> {
    let queries = service.database.queries.load(Ordering::Relaxed);
    Json(Metrics { queries, hits: service.cache.metrics().hits })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_target(false).init();
    // The namespace, the keys and the values are alike in both languages: keys are texts, values
    // have fields with names.
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    let cache = AsyncCache::builder()
        .maxsize(10_000)
        .default_ttl(Duration::from_secs(600))
        .remote(Redis::builder(&url).namespace("products").build()?)
        .build()?;
    let folder = env::var_os("PRODUCTS").map_or_else(|| PathBuf::from("target/products"), PathBuf::from);
    let database = Arc::new(Database { folder, queries: AtomicU64::new(0) });

    let service = Router::new()
        .route("/products/{id}", get(read_product).put(write_product))
        .route("/metrics", get(metrics))
        .with_state(Service { database, cache });
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8002".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, service).await?;
    Ok(())
}
