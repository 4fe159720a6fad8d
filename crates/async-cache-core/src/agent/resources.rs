//! The tools that read a resource. A write to the resource makes the results of all of them stale.
//!
//! Owns the lists of readers by resource name. A reader is a handle that a front may be unable to
//! upgrade (tools may be dropped before the process ends): [`Resources::readers`] removes readers
//! that are gone, so that tools made in a loop do not pile up. Also owns the names of resources
//! that were written to: a tool may open a file of older results afterwards, and
//! [`Resources::register`] reports this.

use std::collections::{BTreeMap, BTreeSet};

/// The readers of each resource, in the order in which they were registered.
#[derive(Debug)]
pub struct Resources<T> {
    readers: BTreeMap<Box<str>, Vec<T>>,
    written: BTreeSet<Box<str>>,
}

impl<T> Default for Resources<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Resources<T> {
    /// Nobody reads anything.
    pub const fn new() -> Self {
        Self { readers: BTreeMap::new(), written: BTreeSet::new() }
    }

    /// Records that a tool reads a resource. Returns whether the resource was written to before; if
    /// so, the tool's results from a file are stale.
    #[must_use = "stale results must go"]
    pub fn register(&mut self, resource: &str, tool: T) -> bool {
        match self.readers.get_mut(resource) {
            Some(readers) => readers.push(tool),
            None => drop(self.readers.insert(resource.into(), vec![tool])),
        }
        self.written.contains(resource)
    }

    /// Records that a resource is written to.
    pub fn write(&mut self, resource: &str) {
        if !self.written.contains(resource) {
            self.written.insert(resource.into());
        }
    }

    /// The readers of a resource that `upgrade` still finds; all others are removed.
    pub fn readers<U>(&mut self, resource: &str, mut upgrade: impl FnMut(&T) -> Option<U>) -> Vec<U> {
        let Some(readers) = self.readers.get_mut(resource) else { return Vec::new() };
        let mut found = Vec::with_capacity(readers.len());
        readers.retain(|reader| {
            let upgraded = upgrade(reader);
            let is_there = upgraded.is_some();
            found.extend(upgraded);
            is_there
        });
        if readers.is_empty() {
            self.readers.remove(resource);
        }
        found
    }

    /// The names of all resources with a registered reader.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.readers.keys().map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readers_of_one_resource_are_not_those_of_another() {
        let mut resources = Resources::new();
        assert!(!resources.register("files", 1));
        assert!(!resources.register("rows", 2));
        assert!(!resources.register("files", 3));
        assert_eq!(resources.readers("files", |&tool| Some(tool)), [1, 3]);
        assert_eq!(resources.readers("mails", |&tool| Some(tool)), []);
    }

    #[test]
    fn readers_that_are_gone_are_forgotten() {
        let mut resources = Resources::new();
        assert!(!resources.register("files", 1));
        assert!(!resources.register("files", 2));
        assert_eq!(resources.readers("files", |&tool| (tool == 2).then_some(tool)), [2]);
        assert_eq!(resources.readers("files", |&tool| Some(tool)), [2]);
        assert_eq!(resources.readers("files", |_| None::<()>), []);
        assert_eq!(resources.names().count(), 0);
    }

    #[test]
    fn a_reader_that_comes_after_a_write_is_told() {
        let mut resources = Resources::new();
        resources.write("files");
        assert!(resources.register("files", 1));
        assert!(!resources.register("rows", 1));
    }
}
