//! Locks of the fake disk, as other processes take and see them.

use std::path::Path;

use super::FakeDisk;

impl FakeDisk {
    /// Another process takes the [process lock](crate::VfsFile::try_process_lock) of an existing
    /// file, if it is free. Returns whether the other process has the lock.
    pub fn lock_elsewhere(&self, path: &Path) -> bool {
        let mut state = self.state();
        let Some(inode) = state.image.find(path) else { return false };
        state.image.inode(inode).lock_elsewhere()
    }

    /// Other processes release their process locks.
    pub fn unlock_elsewhere(&self, path: &Path) {
        let mut state = self.state();
        let Some(inode) = state.image.find(path) else { return };
        state.image.inode(inode).unlock_elsewhere();
    }
}
