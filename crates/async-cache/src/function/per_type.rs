//! The caches of a decorated method: one for each type of its `impl` block.
//!
//! A `static` in a function of a generic `impl` block is shared by all types of the block, so a
//! cache in the `static` would serve a result of `Repository<User>` to `Repository<Order>`. Owns
//! the step from the type to the cache. An attribute sees a method and not the block around it, so
//! every method takes this step.
//!
//! Rules:
//! 1. A cache belongs to a single type, by its [`TypeId`], from the first use on and for ever.
//! 2. The first type is found without a lock: for a type that is not generic, it is the only type,
//!    and its hits pay a comparison with a constant. Further types take a shared lock.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{LazyLock, OnceLock};

use parking_lot::RwLock;

use super::CachedFunction;
use super::name::Name;
use crate::builder::Builder;

type Further<K, V> = RwLock<HashMap<TypeId, &'static CachedFunction<K, V>>>;

/// See the head of the file.
#[doc(hidden)]
pub struct PerType<K: 'static, V: 'static> {
    first: OnceLock<(TypeId, CachedFunction<K, V>)>,
    further: LazyLock<Further<K, V>>,
}

impl<K: 'static, V: 'static> fmt::Debug for PerType<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerType").field("first", &self.first.get()).finish_non_exhaustive()
    }
}

impl<K, V> PerType<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// No type has come yet.
    #[must_use]
    #[allow(clippy::new_without_default)] // a static needs a `const fn`
    pub const fn new() -> Self {
        Self { first: OnceLock::new(), further: LazyLock::new(Further::default) }
    }

    /// The cache of the method for the type `T`, which is the `Self` of its `impl` block. `name`
    /// and `build` are the method's own, for the first use of each type.
    #[inline]
    pub fn of<T: ?Sized + 'static>(
        &'static self,
        name: Name,
        build: fn(Builder<K, V>) -> Builder<K, V>,
    ) -> &'static CachedFunction<K, V> {
        match self.first.get() {
            // Rule 2.
            Some((first, function)) if *first == TypeId::of::<T>() => function,
            _ => self.further::<T>(name, build),
        }
    }

    #[cold]
    fn further<T: ?Sized + 'static>(
        &'static self,
        name: Name,
        build: fn(Builder<K, V>) -> Builder<K, V>,
    ) -> &'static CachedFunction<K, V> {
        let wanted = TypeId::of::<T>();
        let make = || CachedFunction::new(name.of_method::<T>(), build);
        let (first, function) = self.first.get_or_init(|| (wanted, make()));
        // Rule 1: another type may have come first.
        if *first == wanted {
            return function;
        }
        if let Some(function) = self.further.read().get(&wanted) {
            return function;
        }
        self.further.write().entry(wanted).or_insert_with(|| Box::leak(Box::new(make())))
    }
}
