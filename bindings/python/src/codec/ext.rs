//! The extension types: their numbers are part of the file format and are never reused.

/// One array.
pub(super) const TUPLE: i8 = 1;
/// One array, in any order.
pub(super) const SET: i8 = 2;
/// One array; in keys by ascending bytes of the elements.
pub(super) const FROZENSET: i8 = 3;
/// An integer outside of the 64-bit range: big endian, two's complement.
pub(super) const INT: i8 = 4;
/// Real and imaginary part, two f64.
pub(super) const COMPLEX: i8 = 5;
pub(super) const DATETIME: i8 = 6;
pub(super) const DATE: i8 = 7;
pub(super) const TIME: i8 = 8;
pub(super) const TIMEDELTA: i8 = 9;
pub(super) const TIMEZONE: i8 = 10;
/// The result of `str()`.
pub(super) const DECIMAL: i8 = 11;
/// 16 bytes, most significant first.
pub(super) const UUID: i8 = 12;
pub(super) const BYTEARRAY: i8 = 13;
/// A `str` with lone surrogates: UTF-8 as if surrogates were characters.
pub(super) const SURROGATES: i8 = 14;
pub(super) const PICKLE: i8 = 15;
/// A rational number that is neither an integer nor an f64: an array of numerator and denominator.
pub(super) const RATIONAL: i8 = 16;
/// A pure path: an array of flavour and text.
pub(super) const PATH: i8 = 17;
/// An array of module, qualified name and member's name.
pub(super) const ENUM: i8 = 18;
/// A class, function or module, by value: an array of module and qualified name.
pub(super) const REFERENCE: i8 = 19;
/// Any other object, by value: an array of module, qualified name, content and state.
pub(super) const OBJECT: i8 = 20;
/// The arguments of a call that is not one positional argument.
pub(crate) const CALL: i8 = 21;
/// The arguments of a call of a function with `typed=True`.
pub(crate) const TYPED_CALL: i8 = 22;
/// By value, in memory only: an object represented by its identity, in the form of its address; the
/// key keeps the object alive.
pub(super) const IDENTITY: i8 = 23;
/// By value, in the place of a longer encoding: its length, then its BLAKE3 digest.
pub(super) const DIGEST: i8 = 24;
/// By value: an encoding in which every long part is a digest, since the argument is deep, big or
/// leads back to itself.
pub(super) const GRAPH: i8 = 25;
/// In a graph, an object that leads back to itself: the digest of all objects of its circle, and
/// its number among them.
pub(super) const CIRCLE: i8 = 26;
/// During the examination of a circle: one of its objects.
pub(super) const HOLE: i8 = 27;
