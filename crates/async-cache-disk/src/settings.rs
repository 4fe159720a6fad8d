//! How a cache file is read and written: the same for every operation on the file.

use crate::compress::Compression;
use crate::secret::Secret;
use crate::trust::Owners;

/// The settings of a [`CacheFile`](crate::CacheFile), besides the place of the file. The methods
/// there define each setting.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `None`: files of every version are opened.
    pub(crate) version: Option<String>,
    pub(crate) secret: Option<Secret>,
    pub(crate) compression: Compression,
    pub(crate) producer: String,
    pub(crate) owners: Owners,
    pub(crate) may_be_cut: bool,
}

impl Settings {
    /// For files of every version that were written with this secret.
    pub(crate) fn with_secret(secret: Option<Secret>) -> Self {
        Self {
            version: None,
            secret,
            compression: Compression::OFF,
            producer: concat!("async-cache-disk ", env!("CARGO_PKG_VERSION")).to_owned(),
            owners: Owners::Trusted,
            may_be_cut: false,
        }
    }
}
