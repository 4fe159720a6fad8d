"""A product service with a cache that it shares with every other instance, also those in Rust.

    uvicorn shared_service:app --port 8001      # this one
    shared_service 127.0.0.1:8002               # examples/shared_service.rs, with the same routes
    curl -X PUT localhost:8001/products/7 -H 'content-type: application/json' \
        -d '{"name": "tea", "price": 3.5}'
    curl localhost:8002/products/7

``REDIS_URL`` is the server that they share, by default redis://127.0.0.1:6379. ``PRODUCTS`` is the
folder that stands for their database, by default target/products.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from cache import AsyncCache, RedisBackend

# The namespace, the keys and the values are alike in both languages: keys are texts, values are
# dicts here, and structs with the same names in Rust.
cache = AsyncCache(
    maxsize=10_000,
    default_ttl=600,
    remote_cache=RedisBackend(
        url=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), namespace="products"
    ),
)


class Product(BaseModel):
    """An article for sale."""

    name: str
    price: float


class Database:
    """Stands for a slow database, with a file for each product; counts its queries."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.queries = 0

    async def find(self, product_id: int) -> dict[str, Any]:
        """One row."""
        self.queries += 1
        await asyncio.sleep(0.05)
        try:
            found: dict[str, Any] = json.loads(self._path(product_id).read_bytes())
        except FileNotFoundError:
            raise HTTPException(404, f"there is no product {product_id}") from None
        return found

    async def write(self, product_id: int, product: dict[str, Any]) -> None:
        """Inserts or replaces a row."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(product_id)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(product))
        new.replace(path)

    def _path(self, product_id: int) -> Path:
        return self._folder / f"{product_id}.json"


database = Database(Path(os.environ.get("PRODUCTS", "target/products")))
app = FastAPI()


@app.get("/products/{product_id}")
async def read_product(product_id: int) -> dict[str, Any]:
    """One product: from memory, from the server, or from the database."""
    product: dict[str, Any] = await cache.get(str(product_id), loader=lambda: database.find(product_id))
    return product


@app.put("/products/{product_id}")
async def write_product(product_id: int, product: Product) -> dict[str, Any]:
    """Changes a product. After the write, no instance keeps the old one."""
    new = product.model_dump()
    await database.write(product_id, new)
    await cache.delete(str(product_id))
    return new


@app.get("/metrics")
async def metrics() -> dict[str, Any]:
    """How many queries this instance made, and how many requests it served from memory."""
    return {"queries": database.queries, "hits": cache.get_metrics()["hits"]}
