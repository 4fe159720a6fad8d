//! The stores beside a cache file: one for each version tag and secret.

use std::path::PathBuf;

use crate::error::{DiskError, DiskErrorKind};
use crate::names::{is_store, store_folder, stores_folder};
use crate::settings::Settings;
use crate::store::folder::StoreFolder;
use crate::trust::{Site, is_nothing_there};

/// A store beside a cache file.
#[derive(Debug)]
pub struct FoundStore {
    /// The folder.
    pub folder: PathBuf,
    /// The version tag; or why the store cannot be opened with these settings, for example because
    /// it has another secret.
    pub version: Result<String, DiskError>,
}

/// The stores beside a file, in the order of their folders. Folders without a manifest are no
/// stores.
///
/// # Errors
/// [`Io`](DiskErrorKind::Io), if the folder cannot be read.
pub(crate) fn stores(site: &Site, settings: &Settings) -> Result<Vec<FoundStore>, DiskError> {
    let outer = stores_folder(&site.place)?;
    let mut names = match site.vfs.list(&outer) {
        Ok(names) => names,
        Err(error) if is_nothing_there(&error) => return Ok(Vec::new()),
        Err(error) => return Err(DiskError::io("looking for stores", &outer, error)),
    };
    names.retain(|name| is_store(name));
    names.sort();
    let found = names.into_iter().filter_map(|name| {
        let path = outer.join(name);
        let folder = StoreFolder::at(&site.vfs, path.clone(), settings);
        let labels = folder.exists().and_then(|_| folder.labels()).transpose()?;
        let version = labels.and_then(|labels| {
            let version = labels.version;
            let settings = Settings { version: Some(version.clone()), ..settings.clone() };
            if store_folder(&site.place, &settings)? == path {
                return Ok(version);
            }
            let what = "its version tag is not that of its folder";
            Err(DiskError::new(DiskErrorKind::Damaged, &path.join("manifest"), what))
        });
        Some(FoundStore { folder: path, version })
    });
    Ok(found.collect())
}
