//! The task that carries the bytes of a tier, and does its orders.
//!
//! Rules:
//! 1. A cache has a single task at a time: the task with the number in `driver`. A task with
//!    another number ends, and does nothing more. A task may lose its number between two of its
//!    steps, and the connection of its follower begins later, so a task looks at its number once
//!    more while the connection is locked.
//! 2. The task runs on the runtime of the caller that started the task. If the runtime is shut
//!    down, the connection is lost, and the next call starts a task on its own runtime. If the
//!    runtime stands still, a waiting caller takes over.
//! 3. The task holds the cache weakly. After the last handle is dropped, the task waits for the
//!    acknowledgement of the last writes, no longer than the timeout, and ends.
//! 4. Orders are done in sequence, with nothing locked. The only user code here is the destructors
//!    of entries that leave memory.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_cache_core::remote::{Notice, Settings};
use async_cache_core::time::Time;
use async_cache_redis::{Link, LinkError, Place};
use async_cache_tier::remote::Order;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, Sleep};

use super::socket::{self, Connecting, Socket, push};
use super::{Cached, RemoteTier, Shared};

const BUFFER: usize = 64 * 1024;
/// How often the index of names is looked at.
const COMPACTS_EVERY: Duration = Duration::from_secs(5);

/// The right to drive. Rule 1.
struct Driving {
    shared: Arc<Shared>,
    number: u64,
}

impl Driving {
    fn is_present(&self) -> bool {
        self.shared.driver.load(Ordering::Acquire) == self.number
    }
}

impl Drop for Task {
    /// Without a task nobody hears of changes, and nobody ends the time for which entries are
    /// served without. So they are suspect at once.
    fn drop(&mut self) {
        let shared = &self.driving.shared;
        if resigned(shared, self.driving.number) {
            shared.remote.part(Shared::now());
            shared.look.notify_one(); // The answers may be another task's to give.
            if let Some(cache) = self.cache.upgrade() {
                cache.suspect_all(false);
            }
        }
    }
}

fn resigned(shared: &Shared, number: u64) -> bool {
    shared.driver.compare_exchange(number, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Starts the task on the caller's runtime, unless there is one. Without a runtime nothing happens.
pub(super) fn start(shared: &Arc<Shared>, cache: Weak<dyn Cached>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let number = shared.drivers.fetch_add(1, Ordering::Relaxed) + 1;
    if shared.driver.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    shared.ran_at.store(Shared::now().as_nanos(), Ordering::Relaxed);
    let driving = Driving { shared: Arc::clone(shared), number };
    drop(runtime.spawn(Task::new(driving, cache).run()));
}

/// Rule 2: called by somebody who has called the task, and has waited for long. `called_at`: when
/// the task had run last, before it was called.
pub(super) fn take_over_if_still<K, V>(tier: &RemoteTier<K, V>, called_at: u64) {
    let shared = &tier.shared;
    let number = shared.driver.load(Ordering::Acquire);
    if number != 0 {
        if shared.ran_at.load(Ordering::Relaxed) != called_at || !resigned(shared, number) {
            return;
        }
        shared.remote.closed("the runtime of its connection stands still", Shared::now());
    }
    tier.start();
}

struct Task {
    driving: Driving,
    cache: Weak<dyn Cached>,
    socket: Option<Socket>,
    connecting: Option<Connecting>,
    /// Bytes on their way to the socket.
    out: Vec<u8>,
    written: usize,
    /// Bytes were written since the last flush, to a socket that wants one.
    is_unflushed: bool,
    compacted_at: Time,
    closes_at: Option<Time>,
}

/// What woke the task.
enum Woke {
    Connected(Result<Socket, String>),
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Looks,
    Ticks,
}

impl Task {
    fn new(driving: Driving, cache: Weak<dyn Cached>) -> Self {
        Self {
            driving,
            cache,
            socket: None,
            connecting: None,
            out: Vec::new(),
            written: 0,
            is_unflushed: false,
            compacted_at: Shared::now(),
            closes_at: None,
        }
    }

    async fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        while self.prepare(&mut timer) {
            let woke = self.next(&mut buffer, &mut timer).await;
            if !self.driving.is_present() {
                return; // Rule 1.
            }
            self.after(woke, &buffer);
        }
    }

    /// Does the orders, and gets ready to wait. False: the task is over.
    fn prepare(&mut self, timer: &mut Pin<Box<Sleep>>) -> bool {
        let shared = Arc::clone(&self.driving.shared);
        let now = Shared::now();
        shared.ran_at.store(now.as_nanos(), Ordering::Relaxed);
        if self.closes_at.is_none() && shared.is_closed.load(Ordering::Acquire) {
            // Rule 3.
            self.closes_at = Some(now.later(shared.redis.settings.timeout));
            if let Some(mark) = shared.remote.mark() {
                shared.remote.wait(mark, now);
            }
        }
        if self.socket.is_some() && self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            shared.remote.outgoing(now, |link| {
                if self.driving.is_present() {
                    std::mem::swap(link.outgoing(), &mut self.out);
                }
            });
        }
        while self.driving.is_present()
            && let Some(order) = shared.remote.order()
        {
            self.obey(order);
        }
        shared.looked.notify_waiters();
        if let Some(closes_at) = self.closes_at {
            let is_done = shared.remote.is_settled() && self.out.is_empty();
            if is_done || closes_at <= now || !shared.remote.is_connected_soon() {
                return false;
            }
        }
        let compacts_at = self.compacted_at.later(COMPACTS_EVERY);
        if compacts_at <= now {
            self.compacted_at = now;
            self.compact();
        }
        let wake_at = shared.remote.wake_at();
        let wake_at = [wake_at, self.closes_at].into_iter().flatten().min();
        // A timer that goes off too early costs one look.
        let wake_at = Instant::now() + wake_at.map_or(COMPACTS_EVERY, |at| at.since(now));
        if timer.is_elapsed() || wake_at < timer.deadline() {
            timer.as_mut().reset(wake_at);
        }
        true
    }

    async fn next(&mut self, buffer: &mut [u8], timer: &mut Pin<Box<Sleep>>) -> Woke {
        let shared = Arc::clone(&self.driving.shared);
        let Self { socket, connecting, out, written, is_unflushed, .. } = self;
        match (socket, connecting) {
            (Some(socket), _) => {
                let unwritten = &out[*written..];
                tokio::select! {
                    biased;
                    wrote = push(&mut *socket.write, unwritten), if !unwritten.is_empty() || *is_unflushed => {
                        *is_unflushed = socket.is_buffered && !unwritten.is_empty();
                        Woke::Written(wrote)
                    }
                    read = socket.read.read(buffer) => Woke::Read(read),
                    () = shared.look.notified() => Woke::Looks,
                    () = timer.as_mut() => Woke::Ticks,
                }
            }
            (None, Some(connecting)) => tokio::select! {
                socket = connecting => Woke::Connected(socket),
                () = shared.look.notified() => Woke::Looks,
                () = timer.as_mut() => Woke::Ticks,
            },
            (None, None) => tokio::select! {
                () = shared.look.notified() => Woke::Looks,
                () = timer.as_mut() => Woke::Ticks,
            },
        }
    }

    fn after(&mut self, woke: Woke, buffer: &[u8]) {
        let remote = &self.driving.shared.remote;
        let now = Shared::now();
        match woke {
            Woke::Looks => {}
            Woke::Ticks => remote.tick(now),
            Woke::Connected(Ok(socket)) => {
                self.connecting = None;
                match Link::new(&self.driving.shared.redis.config) {
                    Ok(mut link) => {
                        link.follow(&self.driving.shared.predecessor);
                        link.start();
                        self.socket = Some(socket);
                        remote.opened_if(link, || self.driving.is_present());
                    }
                    Err(error) => remote.closed(&error.to_string(), now),
                }
            }
            Woke::Connected(Err(error)) => {
                self.connecting = None;
                remote.closed(&error, now);
            }
            Woke::Written(Ok(bytes)) => self.written += bytes,
            Woke::Read(Ok(0)) => self.lost("the server has closed the connection", now),
            Woke::Read(Ok(bytes)) => {
                remote.heard(now);
                let received = remote.engine(now, |link| {
                    if self.driving.is_present() { link.receive(&buffer[..bytes]) } else { Ok(()) }
                });
                if let Some(Err(error)) = received {
                    self.refused(&error, now);
                }
            }
            Woke::Written(Err(error)) | Woke::Read(Err(error)) => self.lost(&error.to_string(), now),
        }
    }

    fn obey(&mut self, order: Order<tokio::sync::oneshot::Sender<async_cache_core::remote::Answer>>) {
        match order {
            Order::Answer(waiter, _, answer) => drop(waiter.send(answer)),
            Order::Connect => {
                let shared = &self.driving.shared;
                shared.remote.connecting(Shared::now());
                self.connecting = Some(socket::open(Arc::clone(&shared.route), shared.redis.tls.clone()));
            }
            Order::Disconnect => {
                self.socket = None;
                self.connecting = None;
                self.out.clear();
                self.written = 0;
                self.is_unflushed = false;
            }
            Order::Forget { name, fences } => {
                if let Some(cache) = self.cache.upgrade() {
                    for hash in self.driving.shared.remote.hashes(&name) {
                        cache.forget_hash(hash, fences);
                    }
                }
            }
            Order::ForgetAll => {
                if let Some(cache) = self.cache.upgrade() {
                    cache.forget_all();
                }
            }
            Order::Suspect { fences } => {
                if let Some(cache) = self.cache.upgrade() {
                    cache.suspect_all(fences);
                }
            }
            Order::Say(notice) => self.say(&notice),
        }
    }

    fn compact(&self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.compact(self.driving.shared.remote.names());
        }
    }

    /// The socket was closed.
    fn lost(&self, why: &str, now: Time) {
        let remote = &self.driving.shared.remote;
        let why = remote.engine(now, |link| link.lost(why)).unwrap_or_else(|| why.to_owned());
        remote.closed(&why, now);
    }

    /// The connection cannot be used any more.
    fn refused(&self, error: &LinkError, now: Time) {
        let shared = &self.driving.shared;
        shared.route.lock().ended(error);
        shared.remote.closed(&error.to_string(), now);
    }

    fn say(&self, notice: &Notice) {
        let shared = &self.driving.shared;
        let place = &shared.redis.config.place;
        let Settings { max_uncovered, .. } = shared.redis.settings;
        match notice {
            Notice::Down(why) => tracing::warn!(
                "{place} is away, and the cache goes on without it (entries are served for {max_uncovered:?} at most): \
                 {why}"
            ),
            Notice::Refused(why) => tracing::warn!("{place} refuses a command: {why}"),
            Notice::Up(_) => {
                let server = shared.remote.engine(Shared::now(), |link| link.server().cloned()).flatten();
                let Some(server) = server else { return };
                let name = &server.server;
                let at = match (place, shared.route.lock().current()) {
                    (Place::Sentinel(_) | Place::Cluster(_), Some(address)) => format!(" at {address}"),
                    _ => String::new(),
                };
                tracing::info!("{place} is connected: {name}{at}");
                for notice in &server.notices {
                    tracing::warn!("{place}: {notice}");
                }
            }
        }
    }
}
