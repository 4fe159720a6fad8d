//! The connection before the present connection.
//!
//! Commands of a lost connection may arrive late: the network or a proxy may hold them, and the
//! system goes on to send the buffer of a closed socket. A late `SET` would bring an old value back
//! after the writes of the next connection. So the next connection has the server end its
//! predecessor before anything else.

use std::sync::{Arc, Mutex, PoisonError};

/// The last connection of a cache. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Predecessor(Arc<Mutex<Option<Met>>>);

/// A connection, as its server names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) run_id: Arc<str>,
    pub(crate) client: i64,
}

impl Predecessor {
    pub(crate) fn last(&self) -> Option<Met> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_followed_by(&self, next: Option<Met>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}
