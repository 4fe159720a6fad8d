//! The macros' messages about mistakes: each file in `ui` is named after a mistake, with the
//! compiler's messages beside it. `TRYBUILD=overwrite` writes the messages anew.
#![cfg(feature = "macros")]

#[test]
fn every_mistake_is_reported_where_it_stands_with_what_to_write_instead() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
