"""Checks that every file of tests is run, and that no file of tests is too long.

Each crate has a program for its integration tests, `tests/suite.rs`, with the remaining files as
modules. Files that need a process to themselves are programs too (`[[test]]` in Cargo.toml). Cargo
silently ignores a file in neither place. A long file is split by promise: each part then names
what it tests.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPILED_BY_A_TEST = "ui"  # the folder of trybuild, whose test compiles each file

MOST_LINES = 500
FOLDERS = ["crates/*/tests", "bindings/python/tests"]


def modules(file: Path, folder: Path) -> set[Path]:
    """The file and all files of its modules; `folder` is the folder of its modules."""
    found = {file}
    for name in re.findall(r"^(?:pub )?mod ([a-z_0-9]+);", file.read_text(encoding="utf-8"), re.M):
        for module in (folder / f"{name}.rs", folder / name / "mod.rs"):
            if module.exists():
                found |= modules(module, folder / name)
    return found


def too_long() -> list[str]:
    """A line for each file of tests with more than `MOST_LINES` lines."""
    files = {
        file
        for folders in FOLDERS
        for folder in ROOT.glob(folders)
        for file in folder.rglob("*")
        if file.suffix in (".rs", ".py")
    }
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in sorted(files)}
    return [
        f"{file.relative_to(ROOT)} has {length} lines, more than {MOST_LINES}: split it by promise"
        for file, length in lengths.items()
        if length > MOST_LINES
    ]


def main() -> int:
    """Prints every file that is in no program of tests or too long; returns 1 if any."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--no-deps"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
    wrong = too_long()
    for package in metadata["packages"]:
        programs = [Path(target["src_path"]) for target in package["targets"] if target["kind"] == ["test"]]
        run = {file for program in programs for file in modules(program, program.parent)}
        tests = Path(package["manifest_path"]).parent / "tests"
        wrong += [
            f"{file.relative_to(ROOT)} is not run: `mod {file.stem};` is missing in the file above it"
            for file in sorted(set(tests.rglob("*.rs")) - run)
            if COMPILED_BY_A_TEST not in file.relative_to(tests).parts
        ]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
