//! The ends of flights: with a value that is stored, with a value that is not stored, or without a
//! value.

use std::time::Duration;

use async_cache_core::entry::Fetched;
use async_cache_core::flight::FlightId;
use async_cache_core::remote::port::Content;
use async_cache_core::shard::FinishedLoad;
use async_cache_core::time::{Deadline, Time};
use pyo3::prelude::*;

use super::Cache;
use crate::key::Query;
use crate::raw::Ref;
use crate::remote::{Question, deadline_under};
use crate::room::{Answer, Room};
use crate::ttl::Ttl;

/// The objects to drop after the end of a flight, with nothing borrowed.
#[allow(dead_code, reason = "kept to be dropped")]
pub(crate) enum Landed {
    Stored(Option<FinishedLoad<Ref, Ref, Ref<Room>>>),
    Unstored(Option<(Ref, Ref<Room>)>),
}

/// The part of the tier beyond this host in the landing of a value.
pub(crate) enum Beyond {
    /// Nothing.
    Unasked,
    /// The value was loaded, and is stored there.
    Loaded(Question, Content),
    /// The value came from there, and is served until then.
    Taken(Question, Deadline),
}

impl Beyond {
    /// Ends the question. Returns until when memory keeps the value; `None`: not at all. Under the
    /// borrow that writes memory, and once.
    pub(crate) fn deadline(&mut self, deadline: Deadline, now: Time) -> Option<Deadline> {
        match std::mem::replace(self, Self::Unasked) {
            Self::Unasked => Some(deadline),
            Self::Loaded(mut question, content) => {
                let landing = question.land(content, deadline.remaining(now), now);
                deadline_under(landing, deadline, now)
            }
            Self::Taken(mut question, until) => deadline_under(question.take(now), until, now),
        }
    }

    /// The present answer of [`Beyond::deadline`].
    pub(crate) fn expected(&self, deadline: Deadline, now: Time) -> Option<Deadline> {
        match self {
            Self::Unasked => Some(deadline),
            Self::Loaded(question, _) => deadline_under(question.expected(), deadline, now),
            Self::Taken(question, until) => deadline_under(question.expected(), *until, now),
        }
    }
}

impl Cache {
    /// Ends a flight whose load does not continue. `Err`: an interrupt; the flight has ended
    /// nevertheless.
    pub(crate) fn abandon(
        &self,
        py: Python<'_>,
        flight: FlightId,
        room: &Bound<'_, Room>,
        running: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let left = match room.get().take_question(py) {
            Some(question) => self.left_inquiry(py, question.inquiry, room),
            None => Ok(()),
        };
        let ended = if room.get().is_inherited(py) {
            // The parent's load has not failed: it goes on in the parent.
            self.state.borrow(py).tiered.shard.finish_without_storing(flight, Duration::ZERO)
        } else {
            self.fail(py, flight, Duration::ZERO)
        };
        let told = room.get().tell(py, Answer::Abandoned, running);
        drop(ended);
        left.and(told)
    }

    /// Ends a flight without a value.
    pub(crate) fn fail(&self, py: Python<'_>, flight: FlightId, took: Duration) -> Option<(Ref, Ref<Room>)> {
        self.state.borrow(py).tiered.shard.fail(flight, took)
    }

    /// Ends a flight with a value that is not stored.
    pub(crate) fn answer(
        &self,
        py: Python<'_>,
        flight: FlightId,
        took: Duration,
    ) -> Option<(Ref, Ref<Room>)> {
        self.state.borrow(py).tiered.shard.finish_without_storing(flight, took)
    }

    /// Ends a flight with a value, which is stored for `ttl` unless the flight was fenced, or the
    /// tier beyond this host says that the value may be out of date.
    pub(crate) fn land(
        &self,
        py: Python<'_>,
        flight: FlightId,
        query: &impl Query,
        (value, ttl): (Ref, Ttl),
        beyond: &mut Beyond,
        (started, ended): (Time, Time),
    ) -> PyResult<Landed> {
        if let Some(journal) = self.journal() {
            return self.land_in_journal(
                py,
                journal,
                (flight, query),
                (value, ttl),
                beyond,
                (started, ended),
            );
        }
        self.warn_if_forked(py);
        loop {
            let probed = self.probe(py, query)?;
            let (mut state, found) = self.locate(py, query)?;
            let Ok(at) = state.tiered.shard.admit(found, probed) else { continue };
            let deadline = ttl.deadline(state.default_ttl, || ended);
            let Some(deadline) = beyond.deadline(deadline, ended) else {
                let finished = state.tiered.shard.finish_without_storing(flight, ended.since(started));
                return Ok(Landed::Unstored(finished));
            };
            let fetched = Fetched::loaded(value, deadline);
            let now = super::now(ended, &self.tier);
            return Ok(Landed::Stored(state.tiered.shard.land(
                flight,
                at,
                fetched,
                ended.since(started),
                now,
            )));
        }
    }
}
