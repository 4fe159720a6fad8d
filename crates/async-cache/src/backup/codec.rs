//! Keys and values as bytes: `MessagePack`, structs as maps with field names.
//!
//! Owns the encoding, as plain functions for one pair of types, so that the rest of the crate needs no serde
//! bounds. A value that grows or loses an optional field still decodes; one that no longer fits the type is
//! an error, and so a miss.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BackendError;

type Encode<T> = fn(&T, &mut Vec<u8>) -> Result<(), BackendError>;
type Decode<T> = fn(&[u8]) -> Result<T, BackendError>;

/// How keys of type `K` and values of type `V` are written to a file.
pub(crate) struct Codec<K, V> {
    /// Replaces the content of the buffer by the encoded key.
    pub(crate) encode_key: Encode<K>,
    pub(crate) decode_key: Decode<K>,
    /// Replaces the content of the buffer by the encoded value.
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
    buffer.clear();
    value.serialize(&mut rmp_serde::Serializer::new(buffer).with_struct_map())?;
    Ok(())
}

/// Values nested deeper than this do not decode: no file may overflow the stack of whoever reads it.
const MAX_DEPTH: usize = 256;

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BackendError> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(MAX_DEPTH);
    Ok(T::deserialize(&mut decoder)?)
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

    #[test]
    fn a_value_of_another_shape_is_an_error() {
        let mut bytes = Vec::new();
        encode(&7, &mut bytes).unwrap();
        decode::<Page>(&bytes).unwrap_err();
        decode::<i32>(&bytes[..0]).unwrap_err();
    }
}
