//! The questions of loads to the tier.
//!
//! A question belongs to one flight, and lies in the room of the flight. The end of the flight
//! takes the question out and ends it: with the landing of a value, or without a value. A dropped
//! question ends without a value.

use std::sync::Arc;
use std::time::Duration;

use async_cache_core::remote::port::{Content, Name};
use async_cache_core::remote::{AskId, Landing};
use async_cache_core::time::Time;
use async_cache_tier::clock;

use super::SharedRemote;

/// A question that has not ended.
pub(crate) struct Question {
    pub(crate) remote: Arc<SharedRemote>,
    pub(crate) id: AskId,
    /// The number of the inquiry: see [`RemoteState::waits`](super::RemoteState::waits).
    pub(crate) inquiry: u64,
    pub(crate) name: Name,
    /// The canonical bytes of the key.
    pub(crate) canonical: Vec<u8>,
    has_ended: bool,
}

impl Question {
    pub(crate) fn new(
        remote: Arc<SharedRemote>,
        (id, inquiry): (AskId, u64),
        (name, canonical): (Name, Vec<u8>),
    ) -> Self {
        Self { remote, id, inquiry, name, canonical, has_ended: false }
    }

    /// The present answer of [`Question::take`] or [`Question::land`].
    pub(crate) fn expected(&self) -> Landing {
        self.remote.expects(self.id)
    }

    /// How memory may keep the value of the answer. Under the borrow that writes memory.
    pub(crate) fn take(&mut self, now: Time) -> Landing {
        self.has_ended = true;
        self.remote.take(self.id, now)
    }

    /// How memory may keep a loaded value, which is stored in the tier. Called under the borrow
    /// that writes memory.
    pub(crate) fn land(&mut self, content: Content, life: Option<Duration>, now: Time) -> Landing {
        self.has_ended = true;
        self.remote.land(self.id, content, life, now)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.has_ended {
            self.remote.end(self.id, clock::now());
        }
    }
}
