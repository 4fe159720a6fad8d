//! No tier beyond one host: the feature `redis` is off. The same names as in `remote`, of types
//! without values.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::time::{Deadline, Now, Time};
use async_cache_tier::suspects::Suspects;

use crate::backup::codec::Codec;
use crate::inner::Inner;
use crate::room::Load;

pub(crate) struct RemoteTier<K, V>(Infallible, PhantomData<fn(K, V)>);

pub(crate) enum Prepared {}

pub(crate) struct RemoteLoad(Infallible);

pub(crate) enum Questions {}

pub(crate) struct Plan {
    pub(crate) deadline: Deadline,
    never: Infallible,
}

impl<K, V> RemoteTier<K, V> {
    pub(crate) fn for_function(self, _: &str) -> Self {
        match self.0 {}
    }

    pub(crate) fn codec(&self) -> &Codec<K, V> {
        match self.0 {}
    }

    pub(crate) fn prepare(&self, _: &K, _: &V) -> Option<Prepared> {
        match self.0 {}
    }

    pub(crate) fn deadline_of_put(&self, _: Deadline, _: Time) -> Deadline {
        match self.0 {}
    }

    pub(crate) fn put(&self, _: Prepared, _: u64, _: Deadline, _: Option<Duration>, _: Now) -> bool {
        match self.0 {}
    }

    pub(crate) fn invalidate(&self, _: &K) {
        match self.0 {}
    }

    pub(crate) fn clear(&self) {
        match self.0 {}
    }

    pub(crate) fn suspects(&self) -> Suspects {
        match self.0 {}
    }

    pub(crate) fn look(&self) {
        match self.0 {}
    }
}

impl RemoteLoad {
    pub(crate) fn plan<K, V>(
        &self,
        _: &Codec<K, V>,
        _: &V,
        _: (bool, Option<Duration>),
        _: Deadline,
        _: Time,
    ) -> Plan {
        match self.0 {}
    }

    pub(crate) fn land(&self, plan: &mut Plan) -> bool {
        match plan.never {}
    }
}

impl<K, V> Inner<K, V> {
    pub(crate) fn asking(self: &Arc<Self>, _: u64, _: &K) -> Option<Arc<RemoteLoad>> {
        None
    }

    pub(crate) fn asks_first(self: &Arc<Self>, asks: &Arc<RemoteLoad>, _: K, _: Load<V>) -> Load<V> {
        match asks.0 {}
    }
}
