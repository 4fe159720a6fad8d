//! Syncs of folders, and what a failed one leaves.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::{FakeDisk, FolderSyncs};

impl FakeDisk {
    /// Fails the syncs of folders with these numbers, counting from 0.
    pub fn fail_folder_syncs(&self, numbers: Range<usize>) {
        self.state().folder_syncs.failing = numbers;
    }

    /// The number of syncs of folders so far.
    pub fn folder_syncs(&self) -> usize {
        self.state().folder_syncs.count
    }

    /// If a sync of this folder fails from now on, no later sync makes its changes to names
    /// durable, although it succeeds: they have to be made anew.
    pub fn lose_failed_syncs(&self, folder: &Path) {
        self.state().folder_syncs.forgetful = Some(folder.to_owned());
    }

    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let result = self.call("sync_dir", folder).map(drop);
        let mut state = self.state();
        let FolderSyncs { count, failing, forgetful } = &mut state.folder_syncs;
        let is_failing = failing.contains(count);
        let is_forgetful = forgetful.as_deref() == Some(folder);
        *count += 1;
        let result = if is_failing { result.and(Err(io::ErrorKind::Other.into())) } else { result };
        if result.is_ok() {
            state.image.sync_dir(folder);
        } else if is_forgetful && !state.crashed {
            state.image.lose_names(folder);
        }
        result
    }
}
