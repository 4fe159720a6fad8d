//! The numbers of the `MessagePack` extension types in keys and values: part of the file format,
//! and never given another meaning. `docs/values.md` has their contents. This crate does not look
//! into keys and values; the programs that do share the numbers through it.

/// One array.
pub const TUPLE: i8 = 1;
/// One array, in any order.
pub const SET: i8 = 2;
/// One array; in keys by ascending bytes of the elements.
pub const FROZENSET: i8 = 3;
/// An integer outside of the 64-bit range: big endian, two's complement.
pub const INT: i8 = 4;
/// Real and imaginary part, two f64.
pub const COMPLEX: i8 = 5;
/// A date and a time, with or without a zone.
pub const DATETIME: i8 = 6;
/// Year, month, day.
pub const DATE: i8 = 7;
/// A time of day, with or without a zone.
pub const TIME: i8 = 8;
/// Days, seconds, microseconds.
pub const TIMEDELTA: i8 = 9;
/// A fixed offset, with or without a name.
pub const TIMEZONE: i8 = 10;
/// The text of `str()`.
pub const DECIMAL: i8 = 11;
/// 16 bytes, most significant first.
pub const UUID: i8 = 12;
/// The bytes.
pub const BYTEARRAY: i8 = 13;
/// A `str` with lone surrogates: UTF-8 as if surrogates were characters.
pub const SURROGATES: i8 = 14;
/// A pickle.
pub const PICKLE: i8 = 15;
/// A rational number that is neither an integer nor an f64: an array of numerator and denominator.
pub const RATIONAL: i8 = 16;
/// A pure path: an array of flavour and text.
pub const PATH: i8 = 17;
/// An array of module, qualified name and member's name.
pub const ENUM: i8 = 18;
/// A class, function or module, by value: an array of module and qualified name.
pub const REFERENCE: i8 = 19;
/// Any other object, by value: an array of module, qualified name, content and state.
pub const OBJECT: i8 = 20;
/// The arguments of a call that is not one positional argument.
pub const CALL: i8 = 21;
/// The arguments of a call of a function that tells types apart.
pub const TYPED_CALL: i8 = 22;
/// By value, in memory only: an object known by its identity. The number is its address, which
/// stays its own while the key keeps the object alive.
pub const IDENTITY: i8 = 23;
/// By value, in the place of a longer encoding: its length, then its BLAKE3 digest.
pub const DIGEST: i8 = 24;
/// By value: an encoding in which every long part is a digest, because the argument is deep, big or
/// leads back to itself.
pub const GRAPH: i8 = 25;
/// In a graph, an object that leads back to itself: the digest of all objects of its circle, and
/// the number of the object in the circle.
pub const CIRCLE: i8 = 26;
