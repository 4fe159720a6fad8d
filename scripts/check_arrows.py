"""Checks the dependencies between the crates.

The table is the design in ARCHITECTURE.md: neither the core nor the disk crate knows a runtime or
depends on the other. A new arrow is a design decision: write the decision into ARCHITECTURE.md
first, then add the arrow to the table.
"""

import json
import subprocess
import sys

# Each crate, and the crates of this workspace that are allowed as dependencies.
ARROWS = {
    "async-cache-core": set(),
    "async-cache-disk": set(),
    "async-cache-macros": set(),
    "async-cache": {"async-cache-core", "async-cache-disk", "async-cache-macros"},
    "async-cache-cli": {"async-cache-disk"},
    # The last for the console script, which runs the same tool.
    "async-cache-python": {"async-cache-core", "async-cache-disk", "async-cache-cli"},
    "async-cache-benches": {"async-cache"},
    "async-cache-examples": {"async-cache"},
    "renamed-dependency": {"async-cache"},
}

# Crates that must not reach a runtime, however indirectly.
WITHOUT_RUNTIME = {"async-cache-core", "async-cache-disk", "async-cache-macros", "async-cache-cli"}
RUNTIMES = {"tokio", "async-std", "smol", "async-executor", "futures-executor", "pyo3"}


def main() -> int:
    """Prints every forbidden arrow; returns 1 if any."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    edges = {
        node["id"]: {
            dependency["pkg"]
            for dependency in node["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        }
        for node in metadata["resolve"]["nodes"]
    }
    wrong = []
    for member in metadata["workspace_members"]:
        name = names[member]
        if name not in ARROWS:
            wrong.append(f"{name} is not in the table of arrows")
            continue
        ours = {names[target] for target in edges[member]} & ARROWS.keys()
        wrong += [f"{name} -> {target} is not an arrow of the design" for target in sorted(ours - ARROWS[name])]
        if name in WITHOUT_RUNTIME:
            wrong += [f"{name} reaches the runtime {runtime}" for runtime in reached(member, edges, names) & RUNTIMES]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def reached(start: str, edges: dict[str, set[str]], names: dict[str, str]) -> set[str]:
    """Names the direct and indirect dependencies of a package."""
    seen, todo = set(), [start]
    while todo:
        for target in edges[todo.pop()] - seen:
            seen.add(target)
            todo.append(target)
    return {names[target] for target in seen}


if __name__ == "__main__":
    sys.exit(main())
