//! Borrowed forms of a key.
//!
//! Owns how borrowed data (`&str`, or `(&str, &u64)`) stands for a key that owns its parts
//! (`String`, or `(String, u64)`): the borrowed form hashes like the key, compares with the key,
//! and becomes the key when the key is stored. So a hit needs no owned key, and allocates nothing.
//!
//! **Invariant:** `asked.is(&key)` holds if and only if `asked.to_key() == key`, and then both hash
//! alike. The invariant holds because tuples hash part by part, and borrowed data hashes like its
//! owner ([`Borrow`]).

use std::borrow::Borrow;
use std::hash::Hash;

/// Stands for a key of type `K`: a reference to the key's borrowed form, or, for a key of several
/// parts, a tuple of such references.
///
/// Implemented for all of these; no other implementation is needed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a key of type `{K}`",
    note = "ask for a key by reference (`&7`, `\"name\"`), and for a key of several parts by a tuple of references \
            (`(\"name\", &7)`)"
)]
pub trait Lookup<K>: Hash + Copy {
    /// Whether `self` stands for this key.
    fn is(&self, key: &K) -> bool;

    /// The key, to be stored.
    fn to_key(&self) -> K;
}

impl<K, Q> Lookup<K> for &Q
where
    K: Borrow<Q>,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
{
    #[inline]
    fn is(&self, key: &K) -> bool {
        key.borrow() == *self
    }

    fn to_key(&self) -> K {
        (*self).to_owned()
    }
}

impl Lookup<()> for () {
    #[inline]
    fn is(&self, (): &()) -> bool {
        true
    }

    fn to_key(&self) {}
}

macro_rules! tuples {
    ($($key:ident $part:ident $at:tt),+) => {
        impl<$($key, $part),+> Lookup<($($key,)+)> for ($(&$part,)+)
        where
            $($key: Borrow<$part>, $part: Hash + Eq + ToOwned<Owned = $key> + ?Sized,)+
        {
            #[inline]
            fn is(&self, key: &($($key,)+)) -> bool {
                $(key.$at.borrow() == self.$at)&&+
            }

            fn to_key(&self) -> ($($key,)+) {
                ($(self.$at.to_owned(),)+)
            }
        }
    };
}

tuples!(KA A 0, KB B 1);
tuples!(KA A 0, KB B 1, KC C 2);
tuples!(KA A 0, KB B 1, KC C 2, KD D 3);
tuples!(KA A 0, KB B 1, KC C 2, KD D 3, KE E 4);
tuples!(KA A 0, KB B 1, KC C 2, KD D 3, KE E 4, KF F 5);
tuples!(KA A 0, KB B 1, KC C 2, KD D 3, KE E 4, KF F 5, KG G 6);
tuples!(KA A 0, KB B 1, KC C 2, KD D 3, KE E 4, KF F 5, KG G 6, KH H 7);

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::hash::BuildHasher;

    use super::*;

    fn stands_for<K: Hash + Eq + Debug>(asked: impl Lookup<K>, key: &K, other: &K) {
        let hasher = foldhash::quality::FixedState::with_seed(7);
        assert_eq!(hasher.hash_one(asked), hasher.hash_one(key));
        assert!(asked.is(key));
        assert!(!asked.is(other));
        assert_eq!(asked.to_key(), *key);
    }

    #[test]
    fn what_is_borrowed_hashes_and_compares_as_the_key_that_owns_it() {
        stands_for("a", &"a".to_owned(), &"b".to_owned());
        stands_for(&7, &7, &8);
        stands_for(&[1, 2][..], &vec![1, 2], &vec![1]);
        stands_for(("a", &7), &("a".to_owned(), 7), &("a".to_owned(), 8));
        stands_for(("a", "b"), &("a".to_owned(), "b".to_owned()), &("ab".to_owned(), String::new()));
        let (key, other) = ((vec!['x'], "y".to_owned(), Some(1)), (vec![], "y".to_owned(), None));
        stands_for((&['x'][..], "y", &Some(1)), &key, &other);
    }
}
