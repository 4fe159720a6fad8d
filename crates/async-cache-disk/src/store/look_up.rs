//! Looking a key up in the segments (rules 3 and 6 of the store).

use std::sync::{Arc, RwLock};

use super::answer::{StoreAnswer, StoreScratch};
use super::guards::read;
use super::layout::{PlacedRun, StoreLayout};
use super::run::InRun;
use super::tails::{InTails, SlotSeen, Tails};
use crate::format::address::{KeyHash, KeyHasher};
use crate::format::store::Hash40;
use crate::vfs::Patience;

/// Where the latest record of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Located {
    /// In a segment, and read into the buffers.
    Read,
    /// In no segment.
    Absent,
    /// A part of the store that cannot be read may hold it.
    Hidden,
}

/// The parts of a store that look-ups read.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookUp<'s> {
    pub(super) hasher: &'s KeyHasher,
    pub(super) layout: &'s RwLock<Arc<StoreLayout>>,
    pub(super) tails: &'s RwLock<Tails>,
}

impl LookUp<'_> {
    /// The files and the slot of a hash, as of one moment: a record moves from the tails into a
    /// run, and from a segment that is collected into the tails.
    pub(super) fn look(&self, hash: KeyHash) -> (Arc<StoreLayout>, InTails, SlotSeen) {
        let layout = read(self.layout);
        let (in_tails, seen) = read(self.tails).look(hash);
        (Arc::clone(&layout), in_tails, seen)
    }
}

impl StoreLayout {
    /// Answers for a key whose slot in the tails this is.
    pub(super) fn answer<'s>(
        &self,
        key: &[u8],
        hash: KeyHash,
        in_tails: InTails,
        patience: &Patience,
        scratch: &'s mut StoreScratch,
    ) -> StoreAnswer<'s> {
        match locate(key, hash, in_tails, self, patience, scratch) {
            Located::Read => scratch.answer(patience, key, self),
            Located::Absent => match &self.base {
                Some(base) => scratch.find_in_base(patience, base, key, self),
                None => StoreAnswer::Absent,
            },
            Located::Hidden => StoreAnswer::Hidden,
        }
    }
}

/// Reads the latest record of a key in the segments.
pub(super) fn locate(
    key: &[u8],
    hash: KeyHash,
    in_tails: InTails,
    layout: &StoreLayout,
    patience: &Patience,
    scratch: &mut StoreScratch,
) -> Located {
    let place = match in_tails {
        InTails::Hidden => return Located::Hidden,
        InTails::At(place) => Some(place),
        InTails::Absent => None,
    };
    // Rule 6: with a place, only the runs behind it.
    match read_from_runs(key, hash, place.map(|place| place.segment), layout, patience, scratch) {
        Some(true) => return Located::Read,
        Some(false) => {}
        None => return Located::Hidden,
    }
    let Some(place) = place else { return Located::Absent };
    let found = scratch.read(patience, layout, place).map(|is_key| is_key(key));
    // One slot for two keys with one hash: `tails`, rule 1.
    if found == Some(true) { Located::Read } else { Located::Hidden }
}

/// Reads the latest record of a key from the runs behind a segment. Returns whether there is a
/// record; `None` if the key is hidden.
fn read_from_runs(
    key: &[u8],
    hash: KeyHash,
    behind: Option<u32>,
    layout: &StoreLayout,
    patience: &Patience,
    scratch: &mut StoreScratch,
) -> Option<bool> {
    let is_behind = |placed: &&PlacedRun| behind.is_none_or(|segment| placed.first_segment > segment);
    for placed in layout.runs.iter().take_while(is_behind) {
        let InRun::Places(places) = placed.run.find_with(patience, Hash40::of(hash)) else { return None };
        for place in places {
            // A collected segment had nothing that counts; a lost one has raised the floor.
            if layout.segment(place.segment).is_some() && scratch.read(patience, layout, place)?(key) {
                return Some(true);
            }
        }
    }
    Some(false)
}
