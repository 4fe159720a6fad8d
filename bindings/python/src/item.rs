//! One flight of a load, in the form for the load's driver and for a batch.

use std::collections::HashMap;

use async_cache_core::flight::FlightId;
use pyo3::prelude::*;

use crate::key::{Query, StoredKey};
use crate::raw::Ref;
use crate::raw::visit::visits;
use crate::room::Room;
use crate::ttl::Ttl;

/// One flight of a load.
pub(crate) struct LoadFlight {
    pub(crate) flight: FlightId,
    pub(crate) room: Ref<Room>,
    pub(crate) key: Ref,
    pub(crate) hash: u64,
    pub(crate) ttl: Ttl,
    /// The answer of the tier beyond this host.
    pub(crate) answer: Beforehand,
}

/// The answer of the tier beyond this host, before the loader runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beforehand {
    /// It was not asked, or has not answered.
    Nothing,
    /// The loader runs, and the tier gets the value.
    Leads,
    /// The loader runs, and the tier gets the value only if it has no leases.
    Alone,
    /// The loader runs, and the tier has bytes that are no value here.
    Undecodable,
}

visits!(struct LoadFlight { room, key });

/// For each flight the first flight that loads the same key. Nearly always the flight itself: a key
/// has one flight, but a flight fenced while its batch gathered has a successor in the same batch.
pub(crate) fn distinct(py: Python<'_>, items: &[LoadFlight]) -> Vec<usize> {
    let mut first = HashMap::with_capacity(items.len());
    let mut same = |(index, item): (usize, &LoadFlight)| {
        let at = *first.entry(item.hash).or_insert(index);
        let query = StoredKey { key: items[at].key.bind(py), hash: item.hash };
        if query.quick(py, &item.key) == Some(true) { at } else { index }
    };
    items.iter().enumerate().map(&mut same).collect()
}
