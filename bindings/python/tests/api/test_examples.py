"""The examples run, and show their subjects."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import mcp
import pytest
from mcp.server.mcpserver import MCPServer

from agent_cache import AgentCache
from cache import AsyncCache, DiskBackend

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_example(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs an example in a separate process, to its end; a warning fails the test."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.mark.timeout(300)
def test_the_second_run_of_the_quickstart_has_everything_from_the_file(tmp_path: Path) -> None:
    left_behind = AsyncCache(backup=DiskBackend(tmp_path / "modules.cache"))
    left_behind.set("before", 1)
    left_behind.save_to_backup()

    first = run_example("quickstart.py", "--fresh", "--folder", str(tmp_path))
    assert first.stdout.startswith("0 entries came back")
    [modules] = re.findall(r"0 of (\d+) modules came from the file, \1 were parsed", first.stdout)
    assert int(modules) > 400
    assert "warm" not in first.stdout
    [cold] = re.findall(r"^cold: ([\d.]+) s$", first.stdout, re.MULTILINE)

    second = run_example("quickstart.py", "--folder", str(tmp_path))
    assert second.stdout.startswith(f"{modules} entries came back")
    assert f"{modules} of {modules} modules came from the file, 0 were parsed" in second.stdout
    assert f"cold: {cold} s" in second.stdout
    [warm] = re.findall(r"^warm: ([\d.]+) s$", second.stdout, re.MULTILINE)
    assert float(warm) < float(cold)

    # The results are the same, and the log is short.
    found = re.compile(r"^\d+ modules: .*\n.*$", re.MULTILINE)
    assert found.findall(first.stdout) == found.findall(second.stdout)
    assert 10 <= len(first.stderr.splitlines()) <= 12


@pytest.mark.timeout(300)
def test_a_rust_program_reads_what_the_quickstart_cached_and_python_reads_what_that_adds(
    tmp_path: Path,
) -> None:
    program = os.environ.get("ASYNC_CACHE_PYTHON_FILE")
    assert program, (
        "ASYNC_CACHE_PYTHON_FILE is the Rust example python_file, built; `make test-python` sees to that"
    )
    first = run_example("quickstart.py", "--fresh", "--folder", str(tmp_path))
    [modules] = re.findall(r"0 of (\d+) modules came from the file", first.stdout)
    found = re.findall(r"(\d+) lines, (\d+) functions, (\d+) classes", first.stdout)

    file = tmp_path / "modules.cache"
    rust = subprocess.run([program, str(file)], capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"{modules} modules that Python indexed: " in rust
    assert re.findall(r"(\d+) lines, (\d+) functions, (\d+) classes", rust) == found
    assert f"{int(modules) + 1} entries saved" in rust

    async def added() -> Any:
        return await AsyncCache(maxsize=None, backup=DiskBackend(file)).get("examples/python_file.rs")

    module = asyncio.run(added())
    assert list(module) == ["path", "functions", "classes", "lines", "names"]
    assert (module["path"], module["functions"], type(module["lines"])) == ("examples/python_file.rs", 1, int)
    second = run_example("quickstart.py", "--folder", str(tmp_path))
    assert second.stdout.startswith(f"{int(modules) + 1} entries came back")
    assert f"{modules} of {modules} modules came from the file" in second.stdout


def test_the_data_loader_asks_once_for_all_authors() -> None:
    assert run_example("dataloader.py").stdout.splitlines() == [
        "an author at a time: 101 queries",
        "in one batch: 2 queries",
        "once more, from the cache: 1 queries",
    ]


def test_the_service_has_its_products_back_after_a_restart(tmp_path: Path) -> None:
    first, second = (run_example("fastapi_service.py", CACHE_FOLDER=str(tmp_path)).stdout for _ in range(2))
    assert "0 products came back" in first
    assert "100 requests at once, 1 queries" in first
    assert "2 writes by ada, 1 log-in" in first
    assert "after them: {'name': 'new', 'price': 9.0}" in first
    assert "1 products came back" in second
    assert "100 requests at once, 0 queries: {'name': 'new', 'price': 9.0}" in second


def test_the_agent_is_told_of_its_loop_and_the_second_run_counts_nothing_anew(tmp_path: Path) -> None:
    first, second = (run_example("agent.py", "--folder", str(tmp_path)).stdout for _ in range(2))
    for output in (first, second):
        assert output.count("the model was told: oscillation of query -> list_files") == 2
    ran = [int(number) for number in re.findall(r"(\d+) of them ran a tool", first + second)]
    assert ran[0] > ran[1] == ran[2] == ran[3], "counted once, and read once per conversation"
    assert "from the file: 0" in first
    [from_file] = re.findall(r"from the file: (\d+)", second)
    assert int(from_file) >= 5


def test_an_mcp_servers_tools_are_cached_per_connection_and_kept_from_looping() -> None:
    output = run_example("agent_mcp.py").stdout.splitlines()
    assert output[:4] == [
        "tools: read_note, write_note",
        "first: milk | again: milk",
        "reads from the disk: 1",
        "after a write: bread",
    ]
    assert output[4].startswith(
        "stuck: loop detected (repeat): read_note(name='todo') would be the same call 4 times"
    )
    assert "'loop_detections': 2" in output[5]


def test_a_decorated_tool_is_an_mcp_tool() -> None:
    async def main() -> Any:
        server = MCPServer("tools")

        @server.tool()
        @AgentCache(resource="greetings")
        async def greet(name: str, polite: bool = False) -> str:
            """Greets."""
            return f"{'Good day' if polite else 'Hi'}, {name}"

        async with mcp.Client(server) as client:
            [tool] = (await client.list_tools()).tools
            assert (tool.name, tool.description) == ("greet", "Greets.")
            assert set(tool.input_schema["properties"]) == {"name", "polite"}
            answers = [await client.call_tool("greet", {"name": "Ada", "polite": True}) for _ in range(2)]
            assert greet.get_metrics()["hits"] == 1
            return [answer.structured_content for answer in answers]

    assert asyncio.run(main()) == [{"result": "Good day, Ada"}] * 2


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The service's module, imported for this test alone."""
    monkeypatch.setenv("CACHE_FOLDER", str(tmp_path))
    name = "fastapi_service"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


class Client:
    """Sends requests to a service. Every request has an event loop of its own: the cache does not
    depend on loops.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def get(self, path: str) -> httpx.Response:
        return asyncio.run(self._request("GET", path))

    def put(self, path: str, product: dict[str, Any], **headers: str) -> httpx.Response:
        return asyncio.run(self._request("PUT", path, json=product, headers=headers))

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, **options)


@pytest.fixture
def client(service: ModuleType) -> Client:
    """A client of the service."""
    return Client(service.app)


PRODUCT = {"name": "new", "price": 1.0}
TOKEN = {"X-Token": "secret"}


def test_a_decorated_route_is_cached(service: ModuleType, client: Client) -> None:
    for _ in range(3):
        assert client.get("/products/7").json() == {"name": "product 7", "price": 7.0}
    assert client.get("/products/8").json()["name"] == "product 8"
    assert service.database.reads == 2
    assert client.get("/metrics").json()["products"] == {"hits": 2, "misses": 2, "size": 2, "hit_rate": 0.5}


def test_a_decorated_route_keeps_the_signature_that_is_validated_and_documented(client: Client) -> None:
    assert client.get("/products/seven").status_code == 422
    paths = client.get("/openapi.json").json()["paths"]["/products/{product_id}"]
    assert [(p["name"], p["in"]) for p in paths["get"]["parameters"]] == [("product_id", "path")]
    assert {p["name"] for p in paths["put"]["parameters"]} == {"product_id", "x-token"}


def test_an_error_of_a_decorated_route_is_not_cached(service: ModuleType, client: Client) -> None:
    assert client.get("/products/1000").status_code == 404
    service.database.products[1000] = service.Product(**PRODUCT)
    assert client.get("/products/1000").json() == PRODUCT


def test_a_write_invalidates_the_product_that_it_changes_and_no_other(
    service: ModuleType, client: Client
) -> None:
    for number in (7, 8):
        client.get(f"/products/{number}")
    changed = client.put("/products/7", PRODUCT, **TOKEN)
    assert changed.json() == {"changed_by": "ada"}
    assert client.get("/products/7").json() == PRODUCT
    assert client.get("/products/8").json()["name"] == "product 8"
    assert service.database.reads == 3


def test_a_decorated_dependency_is_cached_and_its_errors_are_not(service: ModuleType, client: Client) -> None:
    for _ in range(2):
        assert client.put("/products/7", PRODUCT, **{"X-Token": "?"}).status_code == 401
    assert client.put("/products/7", PRODUCT).status_code == 422
    assert service.database.logins == 2
    for _ in range(2):
        assert client.put("/products/7", PRODUCT, **TOKEN).status_code == 200
    assert service.database.logins == 3


def test_the_service_saves_when_it_goes_down(service: ModuleType, client: Client, tmp_path: Path) -> None:
    async def up_and_down() -> None:
        async with service.lifespan(service.app):
            assert not file.exists()

    file = tmp_path / "products.cache"
    client.get("/products/7")
    asyncio.run(up_and_down())
    assert file.exists()


DOCUMENTS = [
    "README.md",
    "bindings/python/README.md",
    "docs/compatibility.md",
    "docs/agent.md",
    "docs/decorators.md",
    "docs/remote.md",
]
ROOT = Path(__file__).resolve().parents[4]


def snippets() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        programs = re.findall(
            r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL
        )
        assert programs, document
        found += [(f"{document} {number}", program) for number, program in enumerate(programs, 1)]
    return found


@pytest.mark.parametrize("program", [pytest.param(program, id=name) for name, program in snippets()])
def test_a_snippet_of_the_documents_runs_as_it_is_written_and_again_after_a_restart(
    program: str, tmp_path: Path
) -> None:
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
