//! An axum service whose slow part is a decorated function: concurrent requests for one product
//! share one call, a write invalidates, and the cached results survive a restart.
//!
//! ```text
//! axum_service [FILE]     # serves on 127.0.0.1:8000 until Ctrl-C or SIGTERM, then saves
//! curl localhost:8000/products/7
//! curl -X PUT localhost:8000/products/7 -d 'a better name'
//! curl localhost:8000/metrics
//! ```
//!
//! `product` is the decorated function, `Warehouse` the slow part behind it.

#![allow(clippy::print_stdout)] // a program with output

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_cache::{DiskBackend, LoadError, async_ttl, invalidates};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    id: u64,
    name: String,
}

#[derive(Debug, thiserror::Error)]
enum WarehouseError {
    #[error("there is no product {0}")]
    NoSuchProduct(u64),
}

/// Stands for a slow database.
#[derive(Debug, Default)]
struct Warehouse {
    names: Mutex<BTreeMap<u64, String>>,
    queries: std::sync::atomic::AtomicU64,
}

impl Warehouse {
    async fn find(&self, id: u64) -> Result<Product, WarehouseError> {
        self.queries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if id == 0 {
            return Err(WarehouseError::NoSuchProduct(id));
        }
        let name = self.names.lock().expect("not poisoned").get(&id).cloned();
        Ok(Product { id, name: name.unwrap_or_else(|| format!("product {id}")) })
    }
}

/// The path of the cache; set once, before the first use.
static FILE: OnceLock<PathBuf> = OnceLock::new();

fn file() -> PathBuf {
    FILE.get().cloned().unwrap_or_else(|| PathBuf::from("target/axum_service/products.cache"))
}

/// The warehouse is not part of the key.
#[async_ttl(ttl = "10m", maxsize = 10_000, key = id, backup = DiskBackend::new(file()), name = "product")]
async fn product(warehouse: Arc<Warehouse>, id: u64) -> Result<Product, WarehouseError> {
    warehouse.find(id).await
}

/// Invalidates before and after the write: no request gets the old name after the write has
/// returned.
#[invalidates(product, key = (id))]
async fn rename(warehouse: Arc<Warehouse>, id: u64, name: String) {
    warehouse.names.lock().expect("not poisoned").insert(id, name);
}

/// The cache's errors as responses. Contains the function's own error, shared by all callers that
/// waited for the call.
struct Failure(LoadError<WarehouseError>);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.loader_error() {
            Some(WarehouseError::NoSuchProduct(_)) => StatusCode::NOT_FOUND,
            None => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.0.to_string()).into_response()
    }
}

async fn get_product(
    State(warehouse): State<Arc<Warehouse>>,
    Path(id): Path<u64>,
) -> Result<Json<Product>, Failure> {
    product(warehouse, id).await.map(Json).map_err(Failure)
}

async fn put_product(State(warehouse): State<Arc<Warehouse>>, Path(id): Path<u64>, name: String) {
    rename(warehouse, id, name).await;
}

async fn get_metrics() -> String {
    let metrics = product::metrics();
    format!("hits {}\nmisses {}\nsize {}\n", metrics.hits, metrics.misses, metrics.size)
}

fn service(warehouse: Arc<Warehouse>) -> Router {
    Router::new()
        .route("/products/{id}", get(get_product).put(put_product))
        .route("/metrics", get(get_metrics))
        .with_state(warehouse)
}

/// Ctrl-C, or SIGTERM, by which containers are stopped.
async fn told_to_stop() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_target(false).init();
    if let Some(path) = std::env::args_os().nth(1) {
        FILE.set(path.into()).map_err(|_| "the path is set once")?;
    }
    product::init()?; // fails now, not in the first request, if the path can never hold a cache
    println!("{} products in {}", product::cache().len(), file().display());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    println!("http://{}/products/7", listener.local_addr()?);
    let stop = async { told_to_stop().await.expect("signals can be waited for") };
    axum::serve(listener, service(Arc::default())).with_graceful_shutdown(stop).await?;

    let saved = product::save_to_backup_async().await?;
    println!("saved {} products", saved.entries);
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(service: &Router, method: &str, path: &str, body: &'static str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn requests_share_calls_writes_are_seen_and_a_restart_is_warm() {
        let folder = tempfile::tempdir().unwrap();
        FILE.set(folder.path().join("products.cache")).unwrap();
        let warehouse = Arc::new(Warehouse::default());
        let service = service(Arc::clone(&warehouse));
        let queries = || warehouse.queries.load(std::sync::atomic::Ordering::Relaxed);

        let (first, second) =
            tokio::join!(ask(&service, "GET", "/products/7", ""), ask(&service, "GET", "/products/7", ""));
        assert_eq!(first, (StatusCode::OK, r#"{"id":7,"name":"product 7"}"#.to_owned()));
        assert_eq!(first, second);
        assert_eq!(queries(), 1);

        assert_eq!(ask(&service, "PUT", "/products/7", "a better name").await.0, StatusCode::OK);
        let (_, renamed) = ask(&service, "GET", "/products/7", "").await;
        assert_eq!(renamed, r#"{"id":7,"name":"a better name"}"#);
        assert_eq!(queries(), 2);

        let missing = ask(&service, "GET", "/products/0", "").await;
        assert_eq!(missing, (StatusCode::NOT_FOUND, "there is no product 0".to_owned()));
        let (_, metrics) = ask(&service, "GET", "/metrics", "").await;
        assert!(metrics.ends_with("size 1\n"), "{metrics}");

        // The steps of the shutdown, and then of the next start.
        assert_eq!(product::save_to_backup_async().await.unwrap().entries, 1);
        product::clear();
        assert_eq!(product::load_from_backup().unwrap().entries, 1);
        let before = queries();
        let (_, warm) = ask(&service, "GET", "/products/7", "").await;
        assert_eq!(warm, renamed);
        assert_eq!(queries(), before);
    }
}
