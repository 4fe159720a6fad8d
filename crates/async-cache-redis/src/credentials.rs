//! A user and a password, as commands have them.
//!
//! Invariant: no debug output contains a password.

use std::fmt;

use crate::error::{LinkError, LinkErrorKind};
use crate::resp::Value;

/// A password, and perhaps a user.
#[derive(Clone)]
pub(crate) struct Credentials {
    user: Option<String>,
    password: String,
}

impl Credentials {
    /// The credentials in some settings. `None`: there is no password.
    pub(crate) fn new(user: Option<&String>, password: Option<&String>) -> Option<Self> {
        Some(Self { user: user.cloned(), password: password?.clone() })
    }

    /// The user, for commands that want one.
    pub(crate) fn user(&self) -> &[u8] {
        self.user.as_deref().unwrap_or("default").as_bytes()
    }

    pub(crate) fn password(&self) -> &[u8] {
        self.password.as_bytes()
    }

    /// The command AUTH. Servers before version 6 know no users.
    pub(crate) fn auth(&self) -> Vec<&[u8]> {
        let user = self.user.as_ref().map(String::as_bytes);
        [Some(b"AUTH".as_slice()), user, Some(self.password())].into_iter().flatten().collect()
    }
}

/// Whether the server accepted the command AUTH.
pub(crate) fn accepted(value: &Value) -> Result<(), LinkError> {
    match value {
        // A password for a server without one.
        Value::Error(text) if text.contains("no password") || text.contains("without any password") => Ok(()),
        Value::Error(text) => {
            Err(LinkError::new(LinkErrorKind::Auth, format!("the server answered: {text}")))
        }
        _ => Ok(()),
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}
