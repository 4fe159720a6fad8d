"""Checks that every file of tests is run.

Each crate has a program for its integration tests, `tests/suite.rs`, with the remaining files as
modules. Files that need a process to themselves are programs too (`[[test]]` in Cargo.toml). Cargo
silently ignores a file in neither place.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Prints every file that is in no program of tests; returns 1 if any."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--no-deps"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
    wrong = []
    for package in metadata["packages"]:
        programs = [Path(target["src_path"]) for target in package["targets"] if target["kind"] == ["test"]]
        run = set(programs)
        for program in programs:
            modules = re.findall(r"^(?:pub )?mod ([a-z_0-9]+);", program.read_text(), re.M)
            run |= {program.parent / f"{module}.rs" for module in modules}
        files = set((Path(package["manifest_path"]).parent / "tests").glob("*.rs"))
        wrong += [
            f"{file.relative_to(ROOT)} is not run: `mod {file.stem};` is missing in suite.rs beside it"
            for file in sorted(files - run)
        ]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
