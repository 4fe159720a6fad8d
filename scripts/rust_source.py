"""Reads Rust source without a compiler: comments, functions, types and modules.

A single regular expression finds comments, strings and characters, so a `//` in a string starts no
comment and a brace in a comment closes no block. Macros are not expanded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

TOKEN = re.compile(
    r"""(?P<line>//[^\n]*)
    | (?P<block>/\*)
    | \b(?:b|c)?r(?P<hashes>\#*)".*?"(?P=hashes)
    | (?:\b[bc])?"(?:\\.|[^"\\])*"
    | (?:\bb)?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'\n])'""",
    re.S | re.X,
)
TEST_MODULE = re.compile(
    r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?mod\s+\w+\s*\{"
)
FUNCTION = re.compile(r"\bfn\s+(\w+)")
TYPE = re.compile(r"^ *(?:pub(?:\([^)]*\))? +)?(?:unsafe +)?(?:struct|enum|union|trait) +(\w+)", re.M)
ALIAS = re.compile(r"^(?:pub(?:\([^)]*\))? +)?type +(\w+)", re.M)
INLINE_MODULE = re.compile(r"\bmod +(\w+) *\{")
CALL_OF_MACRO = re.compile(r"\b(?!macro_rules\b)\w+!\s*\(")
MODULE = re.compile(r"((?:#\[[^\n]*\]\s*)*)^ *(?:pub(?:\([^)]*\))? +)?mod +(\w+);", re.M)


@dataclass(frozen=True)
class Comment:
    """A line of a comment."""

    line: int
    """Counted from 1."""
    marker: str
    """`//`, `///`, `//!` or `/*`."""
    text: str
    """Without the marker."""
    end: int
    """The column after the last character, counted from 0."""


def comments(source: str) -> Iterator[Comment]:
    """Yields every line of every comment, in the order of the file."""
    for start, end in _comment_spans(source):
        first = source.count("\n", 0, start) + 1
        column = start - (source.rfind("\n", 0, start) + 1)
        text = source[start:end]
        if text.startswith("/*"):
            for index, part in enumerate(text.removesuffix("*/").split("\n")):
                body = part.removeprefix("/*") if index == 0 else part
                yield Comment(
                    first + index, "/*", body.strip().lstrip("*!"), len(part) + (column if index == 0 else 0)
                )
        else:
            match = re.match(r"//[/!]?", text)
            marker = match.group() if match else "//"
            yield Comment(first, marker, text[len(marker) :], column + len(text))


def _comment_spans(source: str) -> Iterator[tuple[int, int]]:
    position = 0
    while match := TOKEN.search(source, position):
        position = _end(source, match)
        if match["line"] or match["block"]:
            yield match.start(), position


def _end(source: str, match: re.Match[str]) -> int:
    """Where a token ends. Block comments nest, so a regular expression cannot find their ends."""
    if not match["block"]:
        return match.end()
    depth, position = 1, match.end()
    while depth and (mark := re.compile(r"/\*|\*/").search(source, position)):
        depth += 1 if mark.group() == "/*" else -1
        position = mark.end()
    return position if not depth else len(source)


def code(source: str) -> str:
    """The source with comments, strings and characters blanked. Lines keep their numbers."""
    parts, position = [], 0
    while match := TOKEN.search(source, position):
        end = _end(source, match)
        parts += [source[position : match.start()], re.sub(r"[^\n]", " ", source[match.start() : end])]
        position = end
    return "".join([*parts, source[position:]])


def without_tests(blanked: str) -> str:
    """The result of `code`, with modules under `#[cfg(test)]` blanked too."""
    while match := TEST_MODULE.search(blanked):
        end = _closing(blanked, match.end() - 1, "{}")
        blanked = (
            blanked[: match.start()] + re.sub(r"[^\n]", " ", blanked[match.start() : end]) + blanked[end:]
        )
    return blanked


def _closing(blanked: str, opening: int, pair: str) -> int:
    """The index after the bracket that closes the bracket at `opening`."""
    depth = 0
    for bracket in re.compile(f"[{re.escape(pair)}]").finditer(blanked, opening):
        depth += 1 if bracket.group() == pair[0] else -1
        if depth == 0:
            return bracket.end()
    return len(blanked)


def inline_modules(blanked: str) -> Iterator[tuple[str, int, int]]:
    """Yields name, start and end of every module with a body, the outer ones first."""
    for match in INLINE_MODULE.finditer(blanked):
        yield match.group(1), match.start(), _closing(blanked, match.end() - 1, "{}")


def functions(blanked: str) -> Iterator[tuple[str, int, int]]:
    """Yields name, first line and number of lines of every function with a body."""
    for match in FUNCTION.finditer(blanked):
        opening = _body(blanked, match.end())
        if opening is not None:
            first = blanked.count("\n", 0, match.start()) + 1
            yield (
                match.group(1),
                first,
                blanked.count("\n", match.start(), _closing(blanked, opening, "{}")) + 1,
            )


def _body(blanked: str, position: int) -> int | None:
    """The index of the brace that opens a function's body; `None` if there is no body."""
    depth = 0
    for mark in re.compile(r"[()\[\]{;]").finditer(blanked, position):
        if mark.group() in "([":
            depth += 1
        elif mark.group() in ")]":
            depth -= 1
            if depth < 0:
                return None
        elif depth == 0:
            return mark.start() if mark.group() == "{" else None
    return None


def types(blanked: str) -> Iterator[str]:
    """Yields the names of structs, enums, unions, traits and aliases, without associated types.

    The arguments of a macro in parentheses define nothing: `visits!(struct Room { callers })`.
    """
    calls = [
        range(match.end(), _closing(blanked, match.end() - 1, "()"))
        for match in CALL_OF_MACRO.finditer(blanked)
    ]
    for pattern in (TYPE, ALIAS):
        for match in pattern.finditer(blanked):
            if not any(match.start(1) in call for call in calls):
                yield match.group(1)


def modules(source: str) -> list[str]:
    """The modules declared in a file by `mod name;`, without modules under `#[cfg(test)]`."""
    blanked = code(source)
    return [name for attributes, name in MODULE.findall(blanked) if not re.search(r"cfg\(test\)", attributes)]
