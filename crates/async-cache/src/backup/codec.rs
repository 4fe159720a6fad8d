//! Keys and values as bytes: `MessagePack`, structs as maps with field names.
//!
//! Owns the encoding, as plain functions for a single pair of types, so that the rest of the crate
//! needs no serde bounds. A value whose type gained or lost an optional field still decodes; a
//! value that no longer fits the type is an error, and so a miss. A key or value that would be read
//! back as another value is not written ([`Distinct`]).
//!
//! Rule: `Serialize` and `Deserialize` are the user's code, and a panic in them is an error of a
//! single entry, as if they had returned `Err`. It stops neither the save nor the caller.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::distinct::Distinct;
use crate::error::{BackendError, panic_message};

type Encode<T> = fn(&T, &mut Vec<u8>) -> Result<(), BackendError>;
type Decode<T> = fn(&[u8]) -> Result<T, BackendError>;

/// How keys of type `K` and values of type `V` are written to a file.
pub(crate) struct Codec<K, V> {
    /// Appends the encoded key, or nothing.
    pub(crate) encode_key: Encode<K>,
    pub(crate) decode_key: Decode<K>,
    /// Appends the encoded value, or nothing.
    pub(crate) encode_value: Encode<V>,
    pub(crate) decode_value: Decode<V>,
    pub(crate) clone_key: fn(&K) -> K,
}

impl<K, V> Clone for Codec<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Codec<K, V> {}

impl<K, V> fmt::Debug for Codec<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec(MessagePack)")
    }
}

impl<K, V> Codec<K, V>
where
    K: Serialize + DeserializeOwned + Clone,
    V: Serialize + DeserializeOwned,
{
    pub(crate) fn message_pack() -> Self {
        Self {
            encode_key: encode,
            decode_key: decode,
            encode_value: encode,
            decode_value: decode,
            clone_key: K::clone,
        }
    }
}

fn encode<T: Serialize>(value: &T, buffer: &mut Vec<u8>) -> Result<(), BackendError> {
    let start = buffer.len();
    let mut encoder = rmp_serde::Serializer::new(&mut *buffer).with_struct_map();
    let result = or_panicked("Serialize", || value.serialize(Distinct::new(&mut encoder)));
    if result.is_err() {
        buffer.truncate(start);
    }
    result
}

/// Values nested deeper than this do not decode: no file may overflow the stack of its reader.
const MAX_DEPTH: usize = 256;

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BackendError> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(MAX_DEPTH);
    or_panicked("Deserialize", || T::deserialize(&mut decoder))
}

/// Runs the user's implementation of a trait; a panic is an error with its message.
pub(crate) fn or_panicked<T, E: Into<BackendError>>(
    of_trait: &str,
    run: impl FnOnce() -> Result<T, E>,
) -> Result<T, BackendError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => Err(format!("its `{of_trait}` panicked: {}", panic_message(&*panic)).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Debug;

    use serde::Deserialize;

    use super::*;

    fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let mut bytes = Vec::new();
        encode(value, &mut bytes).unwrap();
        assert_eq!(decode::<T>(&bytes).unwrap(), *value);
    }

    #[test]
    fn what_serde_can_say_comes_back() {
        comes_back(&"text".to_owned());
        comes_back(&vec![0_u8, 127, 128, 255]);
        comes_back(&(1_i64, -1_i8, u64::MAX, i64::MIN, 1.5_f32, f64::MIN));
        comes_back(&[Some(true), None]);
        comes_back(&BTreeMap::from([((1, 2), "pair".to_owned())]));
        comes_back(&BTreeSet::from([b'a', b'b']));
        comes_back(&(u128::MAX, i128::MIN, ()));
        comes_back(&Ok::<u8, String>(3));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Page {
        title: String,
        links: Vec<String>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct LaterPage {
        links: Vec<String>,
        title: String,
        #[serde(default)]
        language: Option<String>,
    }

    #[test]
    fn a_struct_is_a_map_with_field_names() {
        let page = Page { title: "t".into(), links: vec![] };
        let mut bytes = Vec::new();
        encode(&page, &mut bytes).unwrap();
        assert_eq!(bytes, b"\x82\xA5title\xA1t\xA5links\x90");
        let later: LaterPage = decode(&bytes).unwrap();
        assert_eq!((later.title.as_str(), later.language), ("t", None));
    }

    /// A `Some` around a value written as nil was read as `None`: the entry silently came back as
    /// another entry.
    #[test]
    fn a_some_of_nil_is_refused_at_every_depth() {
        #[derive(Serialize)]
        struct Nickname(Option<String>);
        #[derive(Serialize)]
        struct Person {
            nickname: Option<Nickname>,
        }
        #[derive(Serialize)]
        enum Answer {
            One(Option<()>),
            Two(u8, Option<()>),
            Named { it: Option<()> },
        }
        #[derive(Serialize)]
        struct Flat {
            #[serde(flatten)]
            rest: BTreeMap<String, Option<serde_json::Value>>,
        }
        fn is_refused<T: Serialize>(value: &T) {
            let error = encode(value, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("would be read as `None`"), "{error}");
        }
        is_refused(&Some(None::<u32>));
        is_refused(&Some(Some(None::<u32>)));
        is_refused(&Some(()));
        is_refused(&Some(serde_json::Value::Null));
        is_refused(&Some(Nickname(None)));
        is_refused(&Some(Box::new(Nickname(None))));
        is_refused(&Person { nickname: Some(Nickname(None)) });
        is_refused(&[Some(())]);
        is_refused(&vec![(1, Some(()))]);
        is_refused(&Some(vec![Some(())]));
        is_refused(&BTreeMap::from([(1, Some(()))]));
        is_refused(&BTreeMap::from([(Some(()), 1)]));
        is_refused(&[Answer::One(Some(()))]);
        is_refused(&[Answer::Two(1, Some(()))]);
        is_refused(&[Answer::Named { it: Some(()) }]);
        is_refused(&Flat { rest: BTreeMap::from([("a".to_owned(), Some(serde_json::Value::Null))]) });
    }

    /// Only ambiguous values are refused; a stream of unknown length takes another way in the
    /// encoder.
    #[test]
    fn a_none_and_a_some_of_anything_else_come_back() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Nothing;
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum Shape {
            Point,
            Line(Option<u8>),
            Box { width: Option<u8> },
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Flat {
            #[serde(flatten)]
            rest: BTreeMap<String, Option<u8>>,
        }
        comes_back(&(None::<Option<u8>>, Some(Some(1)), None::<()>, ()));
        comes_back(&Some(Nothing));
        comes_back(&Some(std::marker::PhantomData::<u8>));
        comes_back(&Some(vec![None::<u8>, Some(1)]));
        comes_back(&Some(Vec::<u8>::new()));
        comes_back(&Some((None::<u8>, ())));
        comes_back(&Some(String::new()));
        comes_back(&Some(false));
        comes_back(&[Some(Shape::Point), Some(Shape::Line(None)), Some(Shape::Box { width: None }), None]);
        comes_back(&Flat { rest: BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some(1))]) });
        comes_back(&serde_json::json!({"a": null, "b": [null, 1], "c": {"d": null}}));
    }

    /// A refused value is refused before the format sees it; everything else is written as without
    /// the check, or old files would miss.
    #[test]
    fn the_check_changes_no_byte() {
        let value = serde_json::json!({"a": null, "b": [null, 1.5, -1, "text"], "c": {"d": [[], {}, true]}});
        let value = (value, Some(vec![Some(u128::MAX)]), 'c', BTreeMap::from([(Some(1), [None, Some(2)])]));
        let (mut checked, mut plain) = (Vec::new(), Vec::new());
        encode(&value, &mut checked).unwrap();
        value.serialize(&mut rmp_serde::Serializer::new(&mut plain).with_struct_map()).unwrap();
        assert_eq!(checked, plain);
    }

    #[test]
    fn a_panic_of_the_users_serde_code_is_an_error() {
        #[derive(Debug)]
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                panic!("not today")
            }
        }
        impl<'de> Deserialize<'de> for Broken {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                panic!("nor tomorrow")
            }
        }
        let error = encode(&Broken, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "its `Serialize` panicked: not today");
        let error = decode::<Broken>(b"\x01").unwrap_err();
        assert_eq!(error.to_string(), "its `Deserialize` panicked: nor tomorrow");
    }

    #[test]
    fn a_value_of_another_shape_is_an_error() {
        let mut bytes = Vec::new();
        encode(&7, &mut bytes).unwrap();
        decode::<Page>(&bytes).unwrap_err();
        decode::<i32>(&bytes[..0]).unwrap_err();
    }
}
