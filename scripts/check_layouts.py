"""Checks the lists of modules in the heads of Rust files, and the table of promises.

Rules:
1. if the head (`//!`) of a file has a section `# Layout`, every module declared in the file
   (`mod name;`) is named in a code span of the section;
2. every lower-case name before a colon in the section is an existing module or folder;
3. the `lib.rs` of a crate with more than two modules has a `# Layout` section;
4. every file in the table of promises in ARCHITECTURE.md exists, and defines the named type or
   function.
"""

import re
import subprocess
import sys
from pathlib import Path

import rust_source

ROOT = Path(__file__).parent.parent
NAME = r"\[?`(?:[a-z_]+(?:::[a-z_]+)*/?)`\]?"
TERMS = re.compile(rf"(?:^- |; |, )((?:{NAME}(?:, (?:and )?| and ))*{NAME}): ", re.M)


def section(source: str) -> str | None:
    """Returns the section `# Layout` of a file's head, with each item on a single line."""
    head = re.match(r"(?://!.*\n|\s*\n)*", source)
    lines = [line.removeprefix("//!").strip() for line in (head.group() if head else "").split("\n")]
    if "# Layout" not in lines:
        return None
    found: list[str] = []
    for line in lines[lines.index("# Layout") + 1 :]:
        if line.startswith("#"):
            break
        if found and line and found[-1] and not line.startswith("- "):
            found[-1] += " " + line
        else:
            found.append(line)
    return "\n".join(found)


def faults(source: str, exists: set[str]) -> list[str]:
    """Returns the faults of a file. `exists`: all files and folders below the file's folder."""
    layout = section(source)
    if layout is None:
        return []
    spans = {name for span in re.findall(r"`([^`]+)`", layout) for name in re.split(r"::|/", span)}
    missing = [name for name in rust_source.modules(source) if name not in spans]
    terms = {
        name
        for term in TERMS.findall(layout)
        for name in re.findall(r"[a-z_]+", re.sub(r"\band\b", "", term))
    }
    return [f"`mod {name}` is missing in the list under `# Layout`" for name in missing] + [
        f"`{name}` is in the list under `# Layout`, and no such module exists"
        for name in sorted(terms - exists)
    ]


PROMISE = re.compile(r"^\|.*\| `([^`]+\.(?:rs|py))` \| `(\w+)` \|$", re.M)
DEFINITION = r"^\s*(?:pub(?:\([^)]*\))? +)?(?:struct|enum|trait|type|fn|async fn|class|def) +{}\b"


def broken_promises(text: str, root: Path) -> list[str]:
    """Rule 4: returns the faults of a table of promises."""
    rows = PROMISE.findall(text)
    wrong = [] if rows else ["the table of promises is missing"]
    for path, name in rows:
        if not (root / path).is_file():
            wrong.append(f"{path} keeps a promise, and does not exist")
        elif not re.search(DEFINITION.format(name), (root / path).read_text(), re.M):
            wrong.append(f"{path} keeps a promise by `{name}`, and does not define it")
    return wrong


def main() -> int:
    """Prints every fault; returns 1 if there is a fault."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]
    listed = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, text=True).stdout.split()
    paths = sorted(path for path in set(listed) if (ROOT / path).is_file() and re.search(r"(^|/)src/", path))
    wrong = []
    for path in paths:
        source = (ROOT / path).read_text()
        folder = str(Path(path).parent) + "/"
        below = [other.removeprefix(folder) for other in paths if other.startswith(folder)]
        exists = {part.removesuffix(".rs") for other in below for part in other.split("/")}
        wrong += [f"{path}: {fault}" for fault in faults(source, exists)]
        if path.endswith("/lib.rs") and len(rust_source.modules(source)) > 2 and section(source) is None:
            wrong.append(f"{path}: has modules and no section `# Layout` in its head")
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    wrong += [f"ARCHITECTURE.md: {fault}" for fault in broken_promises(architecture, ROOT)]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
