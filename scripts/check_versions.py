"""Checks that the workspace's version, in Cargo.toml, is the only version.

The crates inherit the version, the wheel takes the version of its crate, and `cache.__version__`
and the tool's `--version` are compiled in. Nobody would raise a second number.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Prints every deviating version; returns 1 if any."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--no-deps"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
    manifest = (ROOT / "Cargo.toml").read_text()
    (version,) = re.findall(r'^\[workspace\.package\]\nversion = "([^"]+)"', manifest, re.M)
    wrong = [
        f"{package['name']} has the version {package['version']}, and the workspace {version}"
        for package in metadata["packages"]
        if package["version"] != version
    ]
    for name, wanted in re.findall(
        r'^(async-cache[a-z-]*) = \{ path = "[^"]+", version = "([^"]+)"',
        manifest,
        re.M,
    ):
        if wanted != version:
            wrong.append(f"Cargo.toml wants {name} in version {wanted}, and the workspace has {version}")
    lock = (ROOT / "fuzz/Cargo.lock").read_text()
    for name, locked in re.findall(r'^name = "(async-cache-(?:cli|disk))"\nversion = "([^"]+)"', lock, re.M):
        if locked != version:
            wrong.append(f"fuzz/Cargo.lock has {name} in version {locked}, and the workspace has {version}")
    project = (ROOT / "bindings/python/pyproject.toml").read_text()
    project = project[project.index("[project]") : project.index("[project.scripts]")]
    if re.search(r"^version\s*=", project, re.M) or 'dynamic = ["version"]' not in project:
        wrong.append('pyproject.toml has a version of its own; it is to say dynamic = ["version"]')
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
