"""Tests of the scripts beside it: `python3 -m unittest discover -s scripts`."""

import tempfile
import unittest
from pathlib import Path

import check_layouts
import check_prose
import imports
import rust_source

RUST = """//! Heads count. `what` in a span does not.
//!
//! ```
//! let who = "what"; // code
//! ```

/// It says `a
/// b` twice.
fn short() -> &'static str {
    let brace = '{'; // a trailing one
    /* a block /* nested */ he */
    r#"} // no comment "quoted" "#
}

#[cfg(test)]
mod tests {
    struct Hidden;
    fn unseen() {}
}
pub(crate) struct Seen;
type Alias = Seen;
trait Asks {
    fn declared(&self) -> [u8; 4];
}
"""


class RustSource(unittest.TestCase):
    def test_a_slash_in_a_string_is_no_comment(self) -> None:
        lines = [(comment.line, comment.text.strip()) for comment in rust_source.comments(RUST)]
        self.assertIn((10, "a trailing one"), lines)
        self.assertIn((11, "a block /* nested */ he"), lines)
        self.assertNotIn(12, [line for line, _ in lines])

    def test_functions_are_measured_without_tests_and_without_declarations(self) -> None:
        shipped = rust_source.without_tests(rust_source.code(RUST))
        self.assertEqual(list(rust_source.functions(shipped)), [("short", 9, 5)])

    def test_types_outside_tests_are_named(self) -> None:
        shipped = rust_source.without_tests(rust_source.code(RUST))
        self.assertEqual(sorted(rust_source.types(shipped)), ["Alias", "Asks", "Seen"])

    def test_arguments_of_a_macro_define_no_type(self) -> None:
        source = "visits!(struct A { b });\nvisits!(\n    enum B {\n        C(d),\n    }\n);\nstats! {\n    struct E\n}\n"
        self.assertEqual(list(rust_source.types(source + "struct F;\n")), ["E", "F"])

    def test_modules_of_tests_are_left_out(self) -> None:
        source = "mod a;\npub mod b;\n#[cfg(test)]\nmod c;\n// mod d;\n#[cfg(unix)]\npub(crate) mod e;\n"
        self.assertEqual(rust_source.modules(source), ["a", "b", "e"])

    def test_a_module_with_a_body_has_an_end(self) -> None:
        source = "mod a;\nmod b { mod c { } }\nmod d { }\n"
        self.assertEqual(
            list(rust_source.inline_modules(source)), [("b", 7, 26), ("c", 15, 24), ("d", 27, 36)]
        )


class Imports(unittest.TestCase):
    def graph(self, **files: str) -> imports.Graph:
        """The imports of a crate with these files. `__` separates folders."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder, *name.split("__")).with_suffix(".rs")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return imports.rust(Path(folder))

    def test_a_parent_that_only_gathers_names_imports_no_child(self) -> None:
        graph = self.graph(
            a="mod b;\npub use b::Y;\npub(super) use self::b::{load, Z as Other};\nfn f(load: u8) { load.y() }\n",
            a__b="use super::f;\npub struct Y;\n",
        )
        self.assertEqual(graph, {"a": set(), "a::b": {"a"}})

    def test_a_parent_that_uses_names_of_a_child_imports_the_child(self) -> None:
        parents = {
            "private": "mod b;\nuse b::Y;\n",
            "public and used": "mod b;\npub use b::Y;\nfn f(y: Y) {}\n",
            "public and called": "mod b;\npub use b::load;\nfn f() { load() }\n",
            "under another name": "mod b;\npub use self::b::Y as Z;\nfn f(z: Z) {}\n",
            "by a path": "mod b;\nfn f() -> u8 { b::load() }\n",
            "by a full path": "mod b;\nfn f() -> u8 { crate::a::b::load() }\n",
        }
        for how, parent in parents.items():
            with self.subTest(how):
                self.assertEqual(self.graph(a=parent, a__b="")["a"], {"a::b"})

    def test_a_circle_through_a_parent_is_found(self) -> None:
        graph = self.graph(
            a="mod b;\nmod c;\npub use b::load;\nstruct Y;\nfn f() { b::load() }\n",
            a__b="use super::c::Z;\n",
            a__c="use super::Y;\n",
        )
        self.assertEqual(imports.circles(graph), [["a", "a::b", "a::c"]])

    def test_the_crate_root_is_a_parent(self) -> None:
        graph = self.graph(lib="mod a;\nuse a::X;\npub fn f() {}\n", a="use crate::f;\n")
        self.assertEqual(graph, {"lib": {"a"}, "a": {"lib"}})

    def test_a_name_of_a_field_or_another_type_is_no_use(self) -> None:
        parent = "mod b;\npub use b::{Y, load};\nfn load2() { x.load(); c::Y; fn load() {} }\n"
        self.assertEqual(self.graph(a=parent, a__b="")["a"], set())

    def test_super_in_a_module_with_a_body_is_the_file(self) -> None:
        graph = self.graph(a="mod b;\n", a__b="mod sealed { use super::W; }\n use super::V;\n")
        self.assertEqual(graph["a::b"], {"a"})
        self.assertEqual(self.graph(a="mod b;\n", a__b="mod sealed { use super::W; }\n")["a::b"], set())

    def test_a_name_is_imported_from_its_home(self) -> None:
        graph = self.graph(
            a="mod b;\npub use b::Y as Z;\n", a__b="pub struct Y;\n", c="use crate::a::{self, Z};\n"
        )
        self.assertEqual(graph["c"], {"a", "a::b"})


class Prose(unittest.TestCase):
    def figures(self, name: str, source: str) -> check_prose.Figures:
        return check_prose.measure(Path(name), source)

    def test_code_blocks_and_spans_are_not_prose(self) -> None:
        figures = self.figures("src/a.rs", RUST)
        self.assertEqual(dict(figures.counts), {"it": 1, "one": 1, "he": 1})
        self.assertIn("he/him/his 1, at most 0", figures.faults())

    def test_docstrings_and_comments_of_python_are_prose(self) -> None:
        source = '"""Whatever\n\n```\nwho\n```\n"""\nTEXT = "what"  # that\n# noqa: E501 this\n'
        self.assertEqual(dict(self.figures("a.py", source).counts), {"whatever": 1, "that": 1})

    def test_link_targets_and_fences_of_markdown_are_not_prose(self) -> None:
        source = "# What\n\n[these](who/it.md) `such` words\n\n```text\nhe\n```\n"
        self.assertEqual(dict(self.figures("a.md", source).counts), {"what": 1, "these": 1})

    def test_a_table_may_be_wide_and_a_comment_may_not(self) -> None:
        table, comment = "//! | " + "a" * 100 + " |\n", "let a = 1; // " + "a " * 50 + "\n"
        self.assertEqual(self.figures("src/a.rs", table).wide, 0)
        self.assertEqual(self.figures("src/a.rs", comment).wide, 1)


class Layouts(unittest.TestCase):
    def test_each_module_is_named_and_each_name_exists(self) -> None:
        source = "//! # Layout\n//!\n//! - `gone`: left; `here`, [`there`]: stay\n\nmod here;\nmod new;\nmod there;\n"
        self.assertEqual(
            check_layouts.faults(source, {"here", "new", "there"}),
            [
                "`mod new` is missing in the list under `# Layout`",
                "`gone` is in the list under `# Layout`, and no such module exists",
            ],
        )

    def test_a_promise_is_kept_by_a_name_in_a_file(self) -> None:
        row = "| text | `scripts/{}` | `{}` |\n"
        rows = row.format("check_layouts.py", "section") + row.format("check_layouts.py", "gone")
        self.assertEqual(
            check_layouts.broken_promises(rows + row.format("gone.py", "main"), check_layouts.ROOT),
            [
                "scripts/check_layouts.py keeps a promise by `gone`, and does not define it",
                "scripts/gone.py keeps a promise, and does not exist",
            ],
        )


if __name__ == "__main__":
    unittest.main()
