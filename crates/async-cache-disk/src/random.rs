//! Random bytes of the operating system.

use std::path::Path;

use crate::error::DiskError;

/// As many random bytes as the caller has room for. Errors name `path`.
pub(crate) fn random<const N: usize>(path: &Path) -> Result<[u8; N], DiskError> {
    let mut bytes = [0; N];
    let filled = getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()));
    filled.map(|()| bytes).map_err(|error| DiskError::io("asking for random bytes", path, error))
}
