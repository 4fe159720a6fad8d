"""Measures the prose of comments and documentation, and holds finished areas to the limits.

```
scripts/check_prose.py              the table; fails if an area in HELD exceeds a limit
scripts/check_prose.py --worst 20   and the twenty files with the most words over the limits
scripts/check_prose.py FILE...      the figures of some files, and each line that counts
```

Prose: comments and doc comments in Rust, comments and docstrings in Python, and Markdown. Code
blocks, code spans, link targets and directives to tools are left out. Measured:

- `pronouns`: words of `PRONOUNS` in 100 words. The reader must resolve each of them.
- `what/who`: words of `QUESTIONS` in 1,000 words.
- `he`: words of `PERSONS`. A caller or a process is `it` or `they`.
- `wide`: lines of prose longer than `WIDTH` columns. Tables, links and headings are exempt, because
  nothing can wrap them.

Counted without a limit, outside tests: Rust functions of more than `LONG` lines, and names of Rust
types with more than one definition.
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import rust_source

ROOT = Path(__file__).parent.parent

PERSONS = frozenset(["he", "him", "his"])
QUESTIONS = frozenset(["what", "who", "whoever", "whatever"])
OTHERS = frozenset(["that", "it", "this", "these", "those", "such", "one", "other"])
PRONOUNS = PERSONS | QUESTIONS | OTHERS

MOST_PRONOUNS = 4.5  # in a hundred words
MOST_QUESTIONS = 2.0  # in a thousand words
WIDTH = 100
LONG = 70

# A path belongs to the first area with a matching pattern.
AREAS = [
    ("docs", r".*\.md"),
    ("tests", r"tests/.*|crates/[^/]+/tests/.*|bindings/python/tests/.*|fuzz/.*"),
    ("examples", r"crates/[^/]+/examples/.*|(bindings/python/)?(examples|benches)/.*"),
    ("scripts", r"scripts/.*"),
    ("core", r"crates/async-cache-core/.*"),
    ("disk", r"crates/async-cache-disk/.*"),
    ("tier", r"crates/async-cache-tier/.*"),
    ("redis", r"crates/async-cache-redis/.*"),
    ("front", r"crates/async-cache/.*"),
    ("macros", r"crates/async-cache-macros/.*"),
    ("cli", r"crates/async-cache-cli/.*"),
    ("bindings", r"bindings/python/src/.*"),
    ("packages", r"bindings/python/python/.*"),
]

# Finished areas. None of them may exceed a limit again.
HELD = {
    "bindings",
    "cli",
    "core",
    "disk",
    "docs",
    "examples",
    "front",
    "macros",
    "packages",
    "redis",
    "scripts",
    "tests",
    "tier",
}

# Files written by programs.
EXCLUDED = re.compile(r"benches/results/.*")
NO_PROSE = re.compile(r"^#!|^\s*(type: ignore|noqa|pyright:|mypy:|pragma:|ruff:|fmt:|-\*-)")
WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class Line:
    """A line of prose. An empty `text` ends a paragraph."""

    number: int
    text: str
    end: int
    """The column after the last character; 0 if the width is not measured."""


@dataclass
class Figures:
    """The counts of a file or an area."""

    words: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wide: int = 0
    long: int = 0
    types: Counter[str] = field(default_factory=Counter)

    def add(self, more: "Figures") -> None:
        """Adds the figures of another file."""
        self.words += more.words
        self.counts += more.counts
        self.wide += more.wide
        self.long += more.long
        self.types += more.types

    def of(self, words: frozenset[str]) -> int:
        """How often some words occur."""
        return sum(self.counts[word] for word in words)

    @property
    def pronouns(self) -> float:
        """Pronouns in a hundred words."""
        return 100 * self.of(PRONOUNS) / max(self.words, 1)

    @property
    def questions(self) -> float:
        """The words of QUESTIONS in a thousand words."""
        return 1000 * self.of(QUESTIONS) / max(self.words, 1)

    def excess(self) -> float:
        """How many words must go before both limits are met."""
        pronouns = self.of(PRONOUNS) - MOST_PRONOUNS * self.words / 100
        return max(pronouns, 0) + max(self.of(QUESTIONS) - MOST_QUESTIONS * self.words / 1000, 0)

    def faults(self) -> list[str]:
        """A message for each exceeded limit."""
        return [
            f"{name} {value:.3g}, at most {most:g}"
            for name, value, most in [
                ("pronouns in 100 words", self.pronouns, MOST_PRONOUNS),
                ("what/who in 1,000 words", self.questions, MOST_QUESTIONS),
                ("he/him/his", self.of(PERSONS), 0),
                (f"lines over {WIDTH} columns", self.wide, 0),
            ]
            if value > most
        ]


def rust_lines(source: str) -> Iterator[Line]:
    """Yields the prose of a Rust file. A gap or another kind of comment starts a paragraph."""
    is_code, last = False, ("", 0)
    for comment in rust_source.comments(source):
        if last != (comment.marker, comment.line - 1):
            is_code = False
            yield Line(comment.line, "", 0)
        last = (comment.marker, comment.line)
        text = comment.text.strip()
        if comment.marker != "//" and text.startswith("```"):
            is_code = not is_code
            continue
        measured = not is_code and not text.startswith("|")
        yield Line(comment.line, "" if is_code else text, comment.end if measured else 0)


def python_lines(source: str) -> Iterator[Line]:
    """Yields the prose of a Python file: comments, then docstrings."""
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.removeprefix("#")
            if NO_PROSE.match(text) or NO_PROSE.match(token.string):
                continue
            if token.start[0] != last + 1:
                yield Line(token.start[0], "", 0)
            last = token.start[0]
            yield Line(last, text.strip(), token.end[1])
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield from _docstring(lines, value.lineno, value.end_lineno or value.lineno)


def _docstring(lines: list[str], first: int, last: int) -> Iterator[Line]:
    yield Line(first, "", 0)
    is_code = False
    for number in range(first, last + 1):
        line = lines[number - 1]
        text = line.strip().strip('"').removeprefix('r"""')
        if text.startswith("```"):
            is_code = not is_code
        elif not is_code and not text.startswith((">>>", "...")):
            yield Line(number, text, 0 if text.startswith("|") else len(line))


def markdown_lines(source: str) -> Iterator[Line]:
    """Yields the prose of a Markdown file."""
    fence = ""
    for number, line in enumerate(source.split("\n"), 1):
        text = line.strip()
        mark = re.match(r"```+|~~~+", text)
        if mark and (not fence or text == fence):
            fence = "" if fence else mark.group()
        elif not fence:
            measured = not re.match(r"\||#|\[[^\]]+\]:|<", text)
            yield Line(number, text, len(line) if measured else 0)


def prose(path: Path, source: str) -> list[Line]:
    """The prose of a file, with code spans and link targets blanked, also across lines."""
    readers = {".rs": rust_lines, ".py": python_lines, ".pyi": python_lines, ".md": markdown_lines}
    lines = list(readers[path.suffix](source))
    if not lines:
        return []
    text = "\n".join(line.text for line in lines)
    # An unclosed span ends with its paragraph.
    for pattern in (r"(`+)(?:(?!\n\n)[^`])*?\1", r"\]\([^)\s]*\)", r"https?://\S+", r"<!--.*?-->"):
        text = re.sub(pattern, lambda span: re.sub(r"[^\n]", " ", span.group()), text, flags=re.S)
    return [Line(old.number, new, old.end) for old, new in zip(lines, text.split("\n"), strict=True)]


def is_wide(line: Line, source: list[str]) -> bool:
    """Whether a line is too long and could be wrapped."""
    return line.end > WIDTH and not re.search(r"https?://\S{40}", source[line.number - 1])


def measure(path: Path, source: str) -> Figures:
    """The figures of a file."""
    figures = Figures()
    lines, split = prose(path, source), source.split("\n")
    for line in lines:
        words = [word.lower() for word in WORD.findall(line.text)]
        figures.words += len(words)
        figures.counts.update(word for word in words if word in PRONOUNS)
    figures.wide = len({line.number for line in lines if is_wide(line, split)})
    if path.suffix == ".rs" and re.search(r"(^|/)src/", path.as_posix()):
        shipped = rust_source.without_tests(rust_source.code(source))
        figures.long = sum(length > LONG for _, _, length in rust_source.functions(shipped))
        figures.types.update(rust_source.types(shipped))
    return figures


def area(path: str) -> str | None:
    """The area of a file; `path` is relative to the root."""
    if EXCLUDED.fullmatch(path):
        return None
    return next((name for name, pattern in AREAS if re.fullmatch(pattern, path)), None)


def files(root: Path) -> list[str]:
    """All files with prose, committed or not, except those ignored by git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, cwd=root, text=True).stdout.split("\n")
    suffixes = (".rs", ".py", ".pyi", ".md")
    return sorted({path for path in listed if path.endswith(suffixes) and (root / path).is_file()})


def row(name: str, figures: Figures, repeated: Counter[str]) -> str:
    """A line of the table."""
    twice = sum(name in repeated for name in figures.types)
    return (
        f"{name:<12}{figures.words:>8}{figures.pronouns:>10.2f}{figures.questions:>10.2f}"
        f"{figures.of(PERSONS):>6}{figures.wide:>7}{figures.long:>7}{twice:>7}"
    )


def show(paths: list[Path]) -> int:
    """Prints the figures of some files, and every line with a counted word or too many columns."""
    for path in paths:
        source = path.read_text()
        figures, split = measure(path, source), source.split("\n")
        for line in prose(path, source):
            found = [word for word in WORD.findall(line.text) if word.lower() in PRONOUNS]
            found += ["(wide)"] if is_wide(line, split) else []
            if found:
                print(f"{path}:{line.number}: {' '.join(found)}")
        print(f"{path}: {figures.words} words, {figures.pronouns:.2f} %, {figures.questions:.2f} in 1,000")
    return 0


def main() -> int:
    """Prints the table; returns 1 if a finished area exceeds a limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, help="measure these files only, line by line")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to measure")
    parser.add_argument(
        "--worst", type=int, default=0, metavar="N", help="list the N files with the most excess"
    )
    parser.add_argument("--names", action="store_true", help="list long functions' files and repeated types")
    arguments = parser.parse_args()
    if arguments.paths:
        return show(arguments.paths)
    areas: dict[str, Figures] = defaultdict(Figures)
    single: dict[str, Figures] = {}
    for path in files(arguments.root):
        name = area(path)
        if name is not None:
            single[path] = measure(Path(path), (arguments.root / path).read_text())
            if name in ("tests", "examples"):
                single[path].long, single[path].types = 0, Counter()
            areas[name].add(single[path])
    total = Figures()
    for figures in areas.values():
        total.add(figures)
    repeated = Counter({name: count for name, count in total.types.items() if count > 1})
    print(
        f"{'area':<12}{'words':>8}{'pronouns%':>10}{'what/who':>10}{'he':>6}{'wide':>7}{'>70':>7}{'twice':>7}"
    )
    for name in [name for name, _ in reversed(AREAS) if name in areas]:
        print(row(name, areas[name], repeated) + ("  held" if name in HELD else ""))
    print(row("all", total, repeated))
    for path in sorted(single, key=lambda path: -single[path].excess())[: arguments.worst]:
        print(f"{single[path].excess():>6.0f} {path}")
    if arguments.names:
        print("over 70 lines:", ", ".join(path for path in single if single[path].long))
        print("twice or more:", ", ".join(f"{name} {count}" for name, count in repeated.most_common()))
    wrong = [f"{name}: {fault}" for name in sorted(HELD & areas.keys()) for fault in areas[name].faults()]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
