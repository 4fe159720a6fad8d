//! Sessions by id. A session lives from the first `enter` to the last `leave`.
//!
//! | state | `enter` | `leave` |
//! |---|---|---|
//! | not open | opens a new session, independent of earlier sessions with the id | `None` |
//! | open, entered n times | the same session, n + 1 | n - 1; at 0, the session is returned, and the caller ends it |
//!
//! Invariant: every session here was entered at least once more than it was left. A returned
//! session is never found again: its id opens another session.

use std::collections::HashMap;
use std::num::NonZeroUsize;

/// The open sessions. `S` is a front's state of a session.
#[derive(Debug)]
pub struct Sessions<S> {
    open: HashMap<Box<str>, (S, NonZeroUsize)>,
}

impl<S> Default for Sessions<S> {
    fn default() -> Self {
        Self { open: HashMap::new() }
    }
}

impl<S> Sessions<S> {
    /// Enters a session. If the session is not open, `make` opens it.
    pub fn enter(&mut self, id: &str, make: impl FnOnce() -> S) -> &S {
        let (session, entered) = self
            .open
            .entry(id.into())
            .and_modify(|(_, entered)| *entered = entered.saturating_add(1))
            .or_insert_with(|| (make(), NonZeroUsize::MIN));
        debug_assert!(entered.get() > 0);
        session
    }

    /// Leaves a session. The last leaver gets the session, and must end it.
    pub fn leave(&mut self, id: &str) -> Option<S> {
        let (_, entered) = self.open.get_mut(id)?;
        if let Some(others) = NonZeroUsize::new(entered.get() - 1) {
            *entered = others;
            return None;
        }
        self.open.remove(id).map(|(session, _)| session)
    }

    /// An open session.
    pub fn get(&self, id: &str) -> Option<&S> {
        self.open.get(id).map(|(session, _)| session)
    }

    /// All open sessions, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &S> {
        self.open.values().map(|(session, _)| session)
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_two_places_is_one_session_until_the_last_one_leaves() {
        let mut sessions = Sessions::default();
        assert_eq!(*sessions.enter("a", || 1), 1);
        assert_eq!(*sessions.enter("a", || 2), 1);
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions.leave("a"), None);
        assert_eq!(sessions.get("a"), Some(&1));
        assert_eq!(sessions.leave("a"), Some(1));
        assert!(sessions.is_empty());
    }

    #[test]
    fn an_id_that_comes_back_is_another_session() {
        let mut sessions = Sessions::default();
        sessions.enter("a", || 1);
        sessions.leave("a");
        assert_eq!(*sessions.enter("a", || 2), 2);
    }

    #[test]
    fn leaving_a_session_that_is_not_open_is_nothing() {
        assert_eq!(Sessions::<()>::default().leave("a"), None);
    }
}
