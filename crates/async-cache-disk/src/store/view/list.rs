//! The stores beside a cache file: one for each version tag and secret.

use std::path::{Path, PathBuf};

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
        let version = version_at(site, settings, &path).transpose()?;
        Some(FoundStore { folder: path, version })
    });
    Ok(found.collect())
}

/// The version tag of the store in a folder; `None` if there is no store.
fn version_at(site: &Site, settings: &Settings, path: &Path) -> Result<Option<String>, DiskError> {
    let folder = StoreFolder::at(&site.vfs, path.to_owned(), settings);
    if !folder.exists()? {
        return Ok(None);
    }
    let Some(labels) = folder.labels()? else { return folder.refuse_records().map(|()| None) };
    let settings = Settings { version: Some(labels.version.clone()), ..settings.clone() };
    if store_folder(&site.place, &settings)? == path {
        return Ok(Some(labels.version));
    }
    let what = "its version tag is not that of its folder";
    Err(DiskError::new(DiskErrorKind::Damaged, &path.join("manifest"), what))
}
