//! A user's own backend, as an engine of the core: its commands become jobs, which Python carries
//! out as tasks (`cache._own`).
//!
//! Such a backend has no conditions and tells of no changes. Its values are objects, which pass
//! through the machine by handle: the bytes of a content are the number of an object in
//! [`Objects`]. Replies are delivered in the order of the commands, whenever their jobs end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_cache_core::remote::port::{
    Abilities, Command, CommandId, Content, Engine, Event, Found, FoundValue, Generation, Greeting, Name,
    News, Reply,
};
use pyo3::prelude::*;

use crate::raw::Ref;
use crate::raw::visit::{Visit, VisitStopped, Visitor};

/// Work for the backend.
pub(crate) enum Job {
    Get(Vec<Name>),
    /// The handle of the object, and the time to live.
    Set(Name, Arc<[u8]>, Option<Duration>),
    Delete(Vec<Name>),
    Clear,
}

/// A connection to a user's own backend.
pub(crate) struct OwnEngine {
    jobs: VecDeque<(CommandId, Job)>,
    /// The commands without a delivered reply, oldest first; the reply, once it is known.
    waiting: VecDeque<(CommandId, Option<Reply>)>,
    news: VecDeque<News>,
    /// Outlives the connection; 0: none yet.
    generation: Arc<AtomicU64>,
}

impl OwnEngine {
    pub(crate) fn new(generation: Arc<AtomicU64>) -> Self {
        let abilities = Abilities { fences: false, notifies: false };
        let ready = News::Ready(Greeting { abilities, identity: 0 });
        Self { jobs: VecDeque::new(), waiting: VecDeque::new(), news: VecDeque::from([ready]), generation }
    }

    /// The next job to be begun.
    pub(crate) fn job(&mut self) -> Option<(CommandId, Job)> {
        self.jobs.pop_front()
    }

    /// A job has ended.
    pub(crate) fn ended(&mut self, id: CommandId, reply: Reply) {
        if let Some((_, known)) = self.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
            *known = Some(reply);
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some((id, known)) = self.waiting.pop_front() {
            match known {
                Some(reply) => self.news.push_back(News::Event(Event::Reply(id, reply))),
                None => return self.waiting.push_front((id, None)),
            }
        }
    }
}

impl Engine for OwnEngine {
    fn send(&mut self, id: CommandId, _: Generation, command: &Command) {
        let (job, reply) = match command {
            Command::Read(names) => (Some(Job::Get(names.clone())), None),
            Command::Put { name, content: Content::Value(handle), life }
            | Command::Fill { name, content: Content::Value(handle), life, .. } => {
                (Some(Job::Set(name.clone(), Arc::clone(handle), *life)), None)
            }
            // A value that is not shared: the value before it goes.
            Command::Put { name, .. } | Command::Fill { name, .. } => {
                (Some(Job::Delete(vec![name.clone()])), None)
            }
            Command::Drop(names) => (Some(Job::Delete(names.clone())), None),
            Command::NewGeneration(begun) => {
                self.generation.store(begun.0, Ordering::Relaxed);
                (Some(Job::Clear), None)
            }
            Command::Generation(ours) => {
                let first = self.generation.compare_exchange(0, ours.0, Ordering::Relaxed, Ordering::Relaxed);
                (None, Some(Reply::Generation(Generation(first.map_or_else(|known| known, |_| ours.0)))))
            }
            Command::Alive { .. } | Command::Ping => (None, Some(Reply::Done)),
            Command::Acquire { .. }
            | Command::TakeOver { .. }
            | Command::Extend { .. }
            | Command::Release { .. }
            | Command::IsAlive(_) => (None, Some(Reply::Refused)),
        };
        self.jobs.extend(job.map(|job| (id, job)));
        self.waiting.push_back((id, reply));
        self.deliver();
    }

    fn next(&mut self) -> Option<News> {
        self.news.pop_front()
    }
}

/// The objects that are on their way, by handle.
#[derive(Default)]
pub(crate) struct Objects {
    kept: BTreeMap<u64, (Weak<[u8]>, Ref)>,
    last: u64,
    /// At this number of objects, those whose handles are gone are dropped.
    sweep_at: usize,
}

impl Visit for Objects {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.kept.values().try_for_each(|(_, object)| object.visit(visitor))
    }
}

impl Objects {
    /// Keeps an object as long as its handle exists. Returns objects to drop with nothing borrowed.
    pub(crate) fn keep(&mut self, object: Ref) -> (Arc<[u8]>, Vec<Ref>) {
        self.last += 1;
        let handle: Arc<[u8]> = Arc::from(self.last.to_le_bytes().as_slice());
        self.kept.insert(self.last, (Arc::downgrade(&handle), object));
        let mut gone = Vec::new();
        if self.kept.len() > self.sweep_at {
            let is_gone = |held: &(Weak<[u8]>, Ref)| held.0.strong_count() == 0;
            let numbers: Vec<u64> =
                self.kept.iter().filter(|(_, held)| is_gone(held)).map(|(number, _)| *number).collect();
            gone.extend(numbers.iter().filter_map(|number| self.kept.remove(number)).map(|held| held.1));
            self.sweep_at = self.kept.len() * 2 + 64;
        }
        (handle, gone)
    }

    /// The object of a handle.
    pub(crate) fn find(&self, py: Python<'_>, handle: &[u8]) -> Option<Ref> {
        let number = u64::from_le_bytes(handle.try_into().ok()?);
        Some(self.kept.get(&number)?.1.copy(py))
    }
}

/// The reply to a job: for a `Get` a value for each name, or `None` where there is none.
pub(crate) fn reply_to_get(handles: Vec<Option<Arc<[u8]>>>) -> Reply {
    let found = |handle: Option<Arc<[u8]>>| match handle {
        Some(bytes) => Found::Value(FoundValue { bytes, life: None }),
        None => Found::Absent,
    };
    Reply::Found(handles.into_iter().map(found).collect())
}

/// The text of a name, for the backend: a key that is a readable text of at most 200 bytes is
/// itself, every other key a letter, a colon and hexadecimal digits.
pub(crate) fn text_of(name: &Name, namespace: &str) -> String {
    let text = match name.as_bytes() {
        [b's', text @ ..] => {
            let text = String::from_utf8_lossy(text);
            // No text is mistaken for the digits of another key.
            if text.starts_with("k:") || text.starts_with("h:") || text.starts_with("s:") {
                format!("s:{text}")
            } else {
                text.into_owned()
            }
        }
        [b'h', digits @ ..] => format!("h:{}", String::from_utf8_lossy(digits)),
        [_, bytes @ ..] => {
            use std::fmt::Write;
            let mut text = "k:".to_owned();
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
            text
        }
        [] => String::new(),
    };
    if namespace == "default" { text } else { format!("{namespace}:{text}") }
}
