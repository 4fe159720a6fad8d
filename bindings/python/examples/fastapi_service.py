"""A product service: a cached route, a cached dependency, an invalidating write, a saved cache.

    uvicorn fastapi_service:app     # serves it
    python fastapi_service.py       # sends it some requests, without a server; run twice

``CACHE_FOLDER`` is the folder of the cache, by default target/fastapi-service.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel

from cache import AsyncLRU, AsyncLRUInvalidator, AsyncTTL, DiskBackend

FOLDER = Path(os.environ.get("CACHE_FOLDER", "target/fastapi-service"))


class Product(BaseModel):
    """An article for sale."""

    name: str
    price: float


class Database:
    """Stands for a slow database; counts its queries."""

    def __init__(self) -> None:
        self.products = {number: Product(name=f"product {number}", price=number) for number in range(100)}
        self.users = {"secret": "ada"}
        self.reads = 0
        self.logins = 0

    async def product(self, product_id: int) -> Product | None:
        """One row."""
        self.reads += 1
        await asyncio.sleep(0.01)
        return self.products.get(product_id)

    async def user(self, token: str) -> str | None:
        """The owner of a token."""
        self.logins += 1
        await asyncio.sleep(0.01)
        return self.users.get(token)


database = Database()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Saves the cache at shutdown. The next process opens it when importing this module."""
    yield
    await read_product.save_to_backup_async()


app = FastAPI(lifespan=lifespan)


# A dependency. Errors are not cached, so a token that is unknown now may be known at the next
# request.
@AsyncTTL(time_to_live=30, maxsize=10_000)
async def current_user(x_token: Annotated[str, Header()]) -> str:
    """The user who sent the request."""
    user = await database.user(x_token)
    if user is None:
        raise HTTPException(401, "unknown token")
    return user


# A route: one query for a product, for any number of concurrent requests. The cached result is a
# plain dict, so that the file does not depend on this version of this program.
@app.get("/products/{product_id}")
@AsyncLRU(maxsize=10_000, backup=DiskBackend(FOLDER / "products.cache"))
async def read_product(product_id: int) -> dict[str, Any]:
    """One product."""
    product = await database.product(product_id)
    if product is None:
        raise HTTPException(404, f"there is no product {product_id}")
    return product.model_dump()


# A write. FastAPI calls routes with keyword arguments, so the two `product_id` are matched by name.
@app.put("/products/{product_id}")
@AsyncLRUInvalidator(read_product)
async def write_product(
    product_id: int, product: Product, user: Annotated[str, Depends(current_user)]
) -> dict[str, str]:
    """Changes a product."""
    database.products[product_id] = product
    return {"changed_by": user}


@app.get("/metrics")
async def metrics() -> dict[str, Any]:
    """Metrics of the two caches."""
    return {"products": read_product.get_metrics(), "users": current_user.get_metrics()}


async def demonstrate() -> None:
    """Sends some requests to the service, as its users would."""
    transport = httpx.ASGITransport(app)
    # The transport calls the app without its lifespan.
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        print(f"{read_product.get_metrics()['size']} products came back from the last run")
        answers = await asyncio.gather(*[client.get("/products/7") for _ in range(100)])
        print(f"100 requests at once, {database.reads} queries: {answers[0].json()}")

        token = {"X-Token": "secret"}
        for price in (8.0, 9.0):
            answer = await client.put("/products/7", json={"name": "new", "price": price}, headers=token)
        print(f"2 writes by {answer.json()['changed_by']}, {database.logins} log-in")
        answer = await client.get("/products/7")
        print(f"after them: {answer.json()}")


if __name__ == "__main__":
    asyncio.run(demonstrate())
