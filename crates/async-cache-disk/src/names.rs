//! The names of the files beside a cache file: its lock, the temporary files of saves, and files
//! that were set aside (file format, section 9).
//!
//! Rules:
//! 1. A name beside is the cache file's own name (its *stem*) with an addition: `<stem>.lock`,
//!    `.<stem>.<16 hexadecimal digits>.tmp`, `<stem>.aside`, `<stem>.aside-2` and so on.
//! 2. No name is longer than [`MAX_NAME_BYTES`], the limit of file systems. If the cache file's
//!    name has more than [`MAX_STEM_BYTES`], the stem is the front of the name and a digest of the
//!    whole name.
//! 3. Every process derives the same lock for the same name: the derived names never change.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::error::{DiskError, DiskErrorKind};
use crate::settings::Settings;

/// The most bytes in a name, on nearly all file systems.
const MAX_NAME_BYTES: usize = 255;
/// The digits that make the name of a temporary file unique.
const HEX_DIGITS: usize = 16;
/// The addition of a temporary file's name, the longest of all: two dots, the digits, and `.tmp`.
const MOST_ADDED_BYTES: usize = 2 + HEX_DIGITS + 4;
const MAX_STEM_BYTES: usize = MAX_NAME_BYTES - MOST_ADDED_BYTES;
/// `~` and half of the digits of a hash of 128 bits.
const DIGEST_BYTES: usize = 1 + HEX_DIGITS;

/// The path of the lock of a cache file's saves.
pub(crate) fn lock_path(path: &Path) -> Result<PathBuf, DiskError> {
    beside(path, ".lock")
}

/// The folder of the store beside a cache file (file format, section 12).
pub(crate) fn store_folder(path: &Path, settings: &Settings) -> Result<PathBuf, DiskError> {
    let mut hasher = blake3::Hasher::new();
    let version = settings.version.as_deref().unwrap_or_default();
    hasher.update(&[u8::try_from(version.len()).unwrap_or(u8::MAX)]).update(version.as_bytes());
    if let Some(secret) = &settings.secret {
        hasher.update(&secret.store_id());
    }
    let digits = hasher.finalize().to_hex();
    Ok(stores_folder(path)?.join(digits.get(..HEX_DIGITS).unwrap_or_default()))
}

/// The folder of all stores beside a cache file.
pub(crate) fn stores_folder(path: &Path) -> Result<PathBuf, DiskError> {
    beside(path, ".d")
}

/// Whether a name is that of a store in the folder of all stores.
pub(crate) fn is_store(name: &OsStr) -> bool {
    let digits = name.as_encoded_bytes();
    digits.len() == HEX_DIGITS && digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of a file that is set aside, by the number of the attempt, from 1.
pub(crate) fn aside_path(path: &Path, number: u32) -> Result<PathBuf, DiskError> {
    if number == 1 { beside(path, ".aside") } else { beside(path, &format!(".aside-{number}")) }
}

/// The path of a temporary file beside a cache file. If a crash leaves the file there, the next
/// save of the cache file removes it.
///
/// # Errors
/// [`NotAFile`](DiskErrorKind::NotAFile) if the path names no file.
pub fn temporary_beside(path: &Path, random: u64) -> Result<PathBuf, DiskError> {
    let mut name = leftover_prefix(name_of(path)?);
    name.push(format!("{random:016x}.tmp"));
    Ok(path.with_file_name(name))
}

/// Whether a name in the folder of a cache file is the name of a temporary file of its saves.
pub(crate) fn is_temp(name: &OsStr, target: &OsStr) -> bool {
    let prefix = leftover_prefix(target);
    let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
    let random = rest.and_then(|rest| rest.strip_suffix(b".tmp"));
    random.is_some_and(|random| random.len() == HEX_DIGITS && random.iter().all(u8::is_ascii_hexdigit))
}

fn beside(path: &Path, added: &str) -> Result<PathBuf, DiskError> {
    let mut name = stem(name_of(path)?);
    name.push(added);
    Ok(path.with_file_name(name))
}

fn name_of(path: &Path) -> Result<&OsStr, DiskError> {
    let names_no_file = || DiskError::new(DiskErrorKind::NotAFile, path, "this path names no file");
    path.file_name().ok_or_else(names_no_file)
}

fn leftover_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(stem(name));
    prefix.push(".");
    prefix
}

/// Rule 2.
fn stem(name: &OsStr) -> OsString {
    if name.len() <= MAX_STEM_BYTES {
        return name.to_owned();
    }
    let mut stem = name.to_string_lossy().into_owned();
    let mut end = (MAX_STEM_BYTES - DIGEST_BYTES).min(stem.len());
    while !stem.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    stem.truncate(end);
    let digest = blake3::hash(name.as_encoded_bytes()).to_hex();
    stem.push('~');
    stem.extend(digest.chars().take(HEX_DIGITS));
    stem.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(name: &OsStr) -> Vec<OsString> {
        let path = Path::new("/cache").join(name);
        let paths =
            [lock_path(&path), temporary_beside(&path, 7), aside_path(&path, 1), aside_path(&path, 16)];
        paths.into_iter().map(|path| path.unwrap().file_name().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_name_that_leaves_room_is_in_all_names_beside_it_whole() {
        let names = names_of(OsStr::new("pages.cache"));
        let expected = [
            "pages.cache.lock",
            ".pages.cache.0000000000000007.tmp",
            "pages.cache.aside",
            "pages.cache.aside-16",
        ];
        assert_eq!(names, expected);
        assert!(is_temp(&names[1], OsStr::new("pages.cache")));
        assert!(!is_temp(&names[1], OsStr::new("other.cache")));
        let longest = "n".repeat(MAX_STEM_BYTES);
        assert_eq!(names_of(OsStr::new(&longest))[0], OsString::from(longest + ".lock"));
    }

    /// Names longer than 233 bytes could not be saved to, for the temporary file's name was too
    /// long for the file system.
    #[test]
    fn a_long_name_has_names_beside_it_that_fit_and_are_its_own() {
        for letter in ["n", "ß", "缓", "🔥"] {
            let long = letter.repeat(MAX_NAME_BYTES / letter.len());
            let other = format!("{}x", &long[..long.len() - letter.len()]);
            let (names, others) = (names_of(OsStr::new(&long)), names_of(OsStr::new(&other)));
            assert!(names.iter().all(|name| name.len() <= MAX_NAME_BYTES), "{names:?}");
            assert!(names.iter().all(|name| !others.contains(name)), "{names:?}");
            assert!(is_temp(&names[1], OsStr::new(&long)) && !is_temp(&names[1], OsStr::new(&other)));
        }
    }

    /// Rule 3: two versions of this program lock the same file.
    #[test]
    fn the_derived_names_never_change() {
        let lock = names_of(OsStr::new(&"n".repeat(255)))[0].clone();
        assert_eq!(lock, OsString::from("n".repeat(216) + "~4174a3d39f0aa9ae.lock"));
    }
}
