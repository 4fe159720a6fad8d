//! A serializer that refuses a value which would be read back as another value.
//!
//! `MessagePack` has a single nil. serde writes `None` as nil, and `Some(x)` as `x`. So `Some(x)`
//! is written as nil too when `x` is, as in `Some(None)`, `Some(())` and
//! `Some(serde_json::Value::Null)`, and is read as `None`. Owns the refusal: [`Distinct`] passes
//! everything on to the serializer of the format and remembers whether it is directly inside a
//! `Some`. It has no further state and buffers nothing, so its output is, byte for byte, the output
//! of the format's serializer.
//!
//! Rules:
//! 1. A nil directly inside a `Some` is an error. "Directly" passes through further `Some`s and
//!    through newtype structs, which the format writes as their content.
//! 2. Every part of a value (elements, keys, fields, the content of a variant) is checked in the
//!    same way, and begins outside a `Some`.
//! 3. A nil outside a `Some` is written: a `None`, a `()`. The type that reads it distinguishes
//!    them.
//!
//! Ambiguities outside the data model of serde cannot be refused here: variants of an untagged enum
//! that are written alike, or a field whose `Serialize` and `Deserialize` disagree.

use std::fmt::Display;

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// See the head of the file. `serializer` is that of the format, or one of its compounds.
pub(super) struct Distinct<S> {
    serializer: S,
    place: ValuePlace,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ValuePlace {
    InSome,
    Elsewhere,
}

impl<S> Distinct<S> {
    pub(super) fn new(serializer: S) -> Self {
        Self { serializer, place: ValuePlace::Elsewhere }
    }

    /// Rule 2: a compound is outside a `Some`, in any container.
    fn compound<E>(serializer: Result<S, E>) -> Result<Self, E> {
        serializer.map(Self::new)
    }
}

/// A value that is written through [`Distinct`] by a serializer that does not know it.
struct Part<'a, T: ?Sized> {
    value: &'a T,
    place: ValuePlace,
}

impl<'a, T: ?Sized> Part<'a, T> {
    /// Rule 2.
    fn of(value: &'a T) -> Self {
        Self { value, place: ValuePlace::Elsewhere }
    }
}

impl<T: Serialize + ?Sized> Serialize for Part<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Distinct { serializer, place: self.place })
    }
}

macro_rules! pass_on {
    ($($method:ident: $ty:ty),+ $(,)?) => {$(
        fn $method(self, value: $ty) -> Result<S::Ok, S::Error> {
            self.serializer.$method(value)
        }
    )+};
}

impl<S: Serializer> Distinct<S> {
    /// Rules 1 and 3.
    fn nil(self, write: impl FnOnce(S) -> Result<S::Ok, S::Error>) -> Result<S::Ok, S::Error> {
        match self.place {
            ValuePlace::Elsewhere => write(self.serializer),
            ValuePlace::InSome => Err(S::Error::custom(
                "a `Some` of what is written as nil (`None`, `()`, a null) would be read as `None`; to tell the two \
                 apart, use an enum of your own in place of the outer `Option`",
            )),
        }
    }
}

impl<S: Serializer> Serializer for Distinct<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Distinct<S::SerializeSeq>;
    type SerializeTuple = Distinct<S::SerializeTuple>;
    type SerializeTupleStruct = Distinct<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Distinct<S::SerializeTupleVariant>;
    type SerializeMap = Distinct<S::SerializeMap>;
    type SerializeStruct = Distinct<S::SerializeStruct>;
    type SerializeStructVariant = Distinct<S::SerializeStructVariant>;

    pass_on! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.nil(S::serialize_none)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_some(&Part { value, place: ValuePlace::InSome })
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.nil(S::serialize_unit)
    }

    // Written as an empty list, and so no nil.
    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_unit_struct(name)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        // Rule 1: a newtype is written as its content.
        self.serializer.serialize_newtype_struct(name, &Part { value, place: self.place })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.serializer.serialize_newtype_variant(name, index, variant, &Part::of(value))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        Distinct::compound(self.serializer.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Distinct::compound(self.serializer.serialize_tuple(len))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Distinct::compound(self.serializer.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        Distinct::compound(self.serializer.serialize_tuple_variant(name, index, variant, len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        Distinct::compound(self.serializer.serialize_map(len))
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        Distinct::compound(self.serializer.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        Distinct::compound(self.serializer.serialize_struct_variant(name, index, variant, len))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.serializer.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.serializer.is_human_readable()
    }
}

macro_rules! sequences {
    ($($compound:ident: $method:ident),+ $(,)?) => {$(
        impl<S: $compound> $compound for Distinct<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                self.serializer.$method(&Part::of(value))
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.serializer.end()
            }
        }
    )+};
}

sequences! {
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
}

macro_rules! structs {
    ($($compound:ident),+ $(,)?) => {$(
        impl<S: $compound> $compound for Distinct<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                self.serializer.serialize_field(name, &Part::of(value))
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
                self.serializer.skip_field(name)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.serializer.end()
            }
        }
    )+};
}

structs! { SerializeStruct, SerializeStructVariant }

impl<S: SerializeMap> SerializeMap for Distinct<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.serializer.serialize_key(&Part::of(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.serializer.serialize_value(&Part::of(value))
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), S::Error> {
        self.serializer.serialize_entry(&Part::of(key), &Part::of(value))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.serializer.end()
    }
}
