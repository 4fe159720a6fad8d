//! What the macros say about mistakes: each file in `ui` is named after one, and what the compiler says about it stands
//! beside it. `TRYBUILD=overwrite` writes that down anew.
#![cfg(feature = "macros")]

#[test]
fn every_mistake_is_reported_where_it_stands_with_what_to_write_instead() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
