"""The N+1 problem and its solution by a batch: a page of posts, each with its author, from SQLite.

Every post asks for its author separately, as the resolvers of a GraphQL server do. The cache
gathers the requests of a few milliseconds, and queries the database once.

    python dataloader.py
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from cache import AsyncCache

Row = dict[str, Any]

POSTS, AUTHORS = 100, 40


class Blog:
    """The database, and its number of queries so far."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:")
        self._connection.executescript(
            """
            CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT);
            CREATE TABLE posts (id INTEGER PRIMARY KEY, title TEXT, author_id INTEGER REFERENCES authors);
            """
        )
        self._connection.executemany(
            "INSERT INTO authors VALUES (?, ?)", [(n, f"author {n}") for n in range(AUTHORS)]
        )
        self._connection.executemany(
            "INSERT INTO posts VALUES (?, ?, ?)", [(n, f"post {n}", n * 7 % AUTHORS) for n in range(POSTS)]
        )
        self.queries = 0

    async def posts(self) -> list[Row]:
        """All posts."""
        return self._select("SELECT id, title, author_id FROM posts ORDER BY id")

    async def author(self, author_id: int) -> Row:
        """One author."""
        [row] = self._select("SELECT id, name FROM authors WHERE id = ?", author_id)
        return row

    async def authors(self, ids: list[int]) -> dict[int, Row]:
        """Many authors, by their ids. The batch loader: each id is queried once."""
        marks = ", ".join("?" * len(ids))
        rows = self._select(f"SELECT id, name FROM authors WHERE id IN ({marks})", *ids)
        return {row["id"]: row for row in rows}

    def _select(self, query: str, *parameters: Any) -> list[Row]:
        self.queries += 1
        cursor = self._connection.execute(query, parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()


async def page(blog: Blog, author_of: Callable[[int], Awaitable[Row]]) -> list[str]:
    """A line for each post; every post gets its author separately, all at the same time."""

    async def line(post: Row) -> str:
        author = await author_of(post["author_id"])
        return f"{post['title']}, by {author['name']}"

    return await asyncio.gather(*[line(post) for post in await blog.posts()])


async def main() -> None:
    """Renders the page in both ways."""
    blog = Blog()
    plain = await page(blog, blog.author)
    print(f"an author at a time: {blog.queries} queries")

    authors = AsyncCache(maxsize=10_000, default_ttl=60, batch_window_ms=2)

    async def author_of(author_id: int) -> Row:
        row: Row = await authors.get(author_id, batch_loader=blog.authors)
        return row

    for what in ("in one batch", "once more, from the cache"):
        blog.queries = 0
        assert await page(blog, author_of) == plain
        print(f"{what}: {blog.queries} queries")
    blog.close()


if __name__ == "__main__":
    asyncio.run(main())
