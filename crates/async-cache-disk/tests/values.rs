//! The numbers of the extension types are those of the page that describes them.

use async_cache_disk::values;

const PAGE: &str = include_str!("../../../docs/values.md");

/// Number and name of every row of the table.
fn rows() -> Vec<(i8, &'static str)> {
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?.parse().ok()?, cells.next()?.trim_matches('`')))
    };
    PAGE.lines().filter_map(row).collect()
}

#[test]
fn every_extension_type_has_the_number_of_the_page() {
    let expected = [
        (values::TUPLE, "tuple"),
        (values::SET, "set"),
        (values::FROZENSET, "frozenset"),
        (values::INT, "integer beyond 64 bits"),
        (values::COMPLEX, "complex number"),
        (values::DATETIME, "datetime"),
        (values::DATE, "date"),
        (values::TIME, "time"),
        (values::TIMEDELTA, "timedelta"),
        (values::TIMEZONE, "timezone"),
        (values::DECIMAL, "Decimal"),
        (values::UUID, "UUID"),
        (values::BYTEARRAY, "bytearray"),
        (values::SURROGATES, "string with lone surrogates"),
        (values::PICKLE, "pickle"),
        (values::RATIONAL, "rational number"),
        (values::PATH, "pure path"),
        (values::ENUM, "member of an enum"),
        (values::REFERENCE, "class, function, module"),
        (values::OBJECT, "other object"),
        (values::CALL, "call"),
        (values::TYPED_CALL, "call, types told apart"),
        (values::IDENTITY, "object by identity"),
        (values::DIGEST, "digest"),
        (values::GRAPH, "graph"),
        (values::CIRCLE, "object of a circle"),
    ];
    assert_eq!(rows(), expected);
}
