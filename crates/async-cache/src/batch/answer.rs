//! The results that a batch loader may return: a map, or a list as long as its keys; of values, of
//! values that may be missing, or of results.
//!
//! Owns the step from these shapes to a result for each key. Knows nothing of flights.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

/// A list with another length than the requested keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongCount {
    pub(crate) asked: usize,
    pub(crate) returned: usize,
}

/// The result of a batch loader: `HashMap<K, T>` or `BTreeMap<K, T>`, which may lack keys, and
/// whose superfluous keys are ignored; or `Vec<T>`, which has a `T` for each key, in their order.
/// `T` is a [`KeyAnswer`].
pub trait BatchAnswer<K, V, E>: IntoResults<K, V, E> {}

/// The result of a batch loader for a single key: the value; `Option<V>`, where `None` is a key
/// without a value; `Result<V, E>` or `Result<Option<V>, E>`, with an error for this key only.
pub trait KeyAnswer<V, E>: Single<V, E> {}

impl<K, V, E, A: IntoResults<K, V, E>> BatchAnswer<K, V, E> for A {}
impl<V, E, T: Single<V, E>> KeyAnswer<V, E> for T {}

mod sealed {
    use super::WrongCount;

    #[allow(unnameable_types)] // only this crate implements the trait
    pub trait IntoResults<K, V, E> {
        /// A result for each of the keys.
        #[allow(private_interfaces)] // and only this crate calls the method
        fn into_results(self, keys: &[K]) -> Result<Vec<Result<Option<V>, E>>, WrongCount>;
    }

    #[allow(unnameable_types)]
    pub trait Single<V, E> {
        fn into_result(self) -> Result<Option<V>, E>;
    }
}

pub(super) use sealed::IntoResults;
use sealed::Single;

impl<K, V, E, T, S> IntoResults<K, V, E> for HashMap<K, T, S>
where
    K: Hash + Eq,
    T: Single<V, E>,
    S: BuildHasher,
{
    #[allow(private_interfaces)]
    fn into_results(mut self, keys: &[K]) -> Result<Vec<Result<Option<V>, E>>, WrongCount> {
        Ok(keys.iter().map(|key| found(self.remove(key))).collect())
    }
}

impl<K, V, E, T> IntoResults<K, V, E> for BTreeMap<K, T>
where
    K: Ord,
    T: Single<V, E>,
{
    #[allow(private_interfaces)]
    fn into_results(mut self, keys: &[K]) -> Result<Vec<Result<Option<V>, E>>, WrongCount> {
        Ok(keys.iter().map(|key| found(self.remove(key))).collect())
    }
}

impl<K, V, E, T: Single<V, E>> IntoResults<K, V, E> for Vec<T> {
    #[allow(private_interfaces)]
    fn into_results(self, keys: &[K]) -> Result<Vec<Result<Option<V>, E>>, WrongCount> {
        if self.len() != keys.len() {
            return Err(WrongCount { asked: keys.len(), returned: self.len() });
        }
        Ok(self.into_iter().map(Single::into_result).collect())
    }
}

fn found<V, E>(answer: Option<impl Single<V, E>>) -> Result<Option<V>, E> {
    answer.map_or(Ok(None), Single::into_result)
}

impl<V, E> Single<V, E> for V {
    fn into_result(self) -> Result<Option<V>, E> {
        Ok(Some(self))
    }
}

impl<V, E> Single<V, E> for Option<V> {
    fn into_result(self) -> Result<Option<V>, E> {
        Ok(self)
    }
}

impl<V, E> Single<V, E> for Result<V, E> {
    fn into_result(self) -> Result<Option<V>, E> {
        self.map(Some)
    }
}

impl<V, E> Single<V, E> for Result<Option<V>, E> {
    fn into_result(self) -> Result<Option<V>, E> {
        self
    }
}
