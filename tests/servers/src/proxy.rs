//! A TCP proxy that harms connections as the test says: delays, holds, splits and cuts them.
//!
//! Each connection has two ways, to the server and to the client. In each, a reader stamps the
//! bytes with their time of arrival, and a writer passes them on.
//!
//! 1. The bytes of a way keep their order, whatever the test sets and resets.
//! 2. A delay is a latency: bytes that arrive together leave together, that much later.
//! 3. Held bytes are kept, and are passed on after the release. The end of a connection is held,
//!    too. So a hold of one way is a half-open connection.
//! 4. A cut closes both sides, and drops the bytes that are on their way.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::server::free_port;

/// Waiting for longer is a failure.
const LIMIT: Duration = Duration::from_secs(10);
const CHUNK_BYTES: usize = 1 << 16;
const MOST_CHUNKS: usize = 64;

/// A direction in which bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A proxy before a server. The settings of a direction count for all of its connections, open and
/// new. Dropped: all connections are cut.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ways: [Way; 2],
    /// The two sides of each open connection.
    open: HashMap<u64, [TcpStream; 2]>,
    accepted: u64,
    /// How many of the accepted connections are cut, even if they are not open yet.
    cut: u64,
    refuses: bool,
    ended: bool,
}

/// The settings of a direction, and its counts.
#[derive(Debug, Default)]
struct Way {
    delay: Duration,
    /// How many bytes may still pass. `None`: all.
    allowed: Option<u64>,
    /// Whether the connections are cut after the allowed bytes. They are held otherwise.
    cuts: bool,
    /// Whether each byte is written alone.
    splits: bool,
    /// Bytes passed on. Counted before they are written: a test that has received bytes finds them
    /// counted.
    passed: u64,
    /// Writers that have something and may not write it.
    holding: usize,
}

impl Proxy {
    /// Starts a proxy on a free loopback port.
    pub fn before(target: SocketAddr) -> Self {
        let listener = loop {
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())) {
                break listener;
            }
        };
        let address = listener.local_addr().expect("the listener is bound");
        let shared =
            Arc::new(Shared { target, state: Mutex::new(State::default()), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accepting.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that arrive from now on are passed on so much later.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.set(direction, |way| way.delay = delay);
    }

    /// Holds everything, until [`Self::release`].
    pub fn hold(&self, direction: Direction) {
        self.hold_after(direction, 0);
    }

    /// Lets so many further bytes through, of all connections together, and holds the rest.
    pub fn hold_after(&self, direction: Direction, bytes: u64) {
        self.set(direction, |way| (way.allowed, way.cuts) = (Some(bytes), false));
    }

    /// Lets so many further bytes through, and cuts all connections after the last of them. Later
    /// connections are not limited.
    ///
    /// # Panics
    /// If `bytes` is 0: that is [`Self::cut`].
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        assert!(bytes > 0, "nothing passes before the cut");
        self.set(direction, |way| (way.allowed, way.cuts) = (Some(bytes), true));
    }

    /// Ends a hold: passes on the held bytes, and all that follow.
    pub fn release(&self, direction: Direction) {
        self.set(direction, |way| (way.allowed, way.cuts) = (None, false));
    }

    /// Writes each byte alone from now on.
    pub fn split(&self, direction: Direction) {
        self.set(direction, |way| way.splits = true);
    }

    /// Ends [`Self::split`].
    pub fn join(&self, direction: Direction) {
        self.set(direction, |way| way.splits = false);
    }

    /// Closes all connections that clients have made. New ones are accepted.
    pub fn cut(&self) {
        self.shared.cut(&mut self.shared.locked());
    }

    /// Closes new connections at once, until [`Self::accept`]. Open ones stay.
    pub fn refuse(&self) {
        self.shared.locked().refuses = true;
    }

    /// Ends [`Self::refuse`].
    pub fn accept(&self) {
        self.shared.locked().refuses = false;
    }

    /// How many connections clients have made, with those that were refused.
    pub fn accepted(&self) -> u64 {
        self.shared.locked().accepted
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.locked().open.len()
    }

    /// How many bytes have passed in a direction.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.locked().ways[direction as usize].passed
    }

    /// Waits until bytes, or the end of a connection, are held in a direction.
    ///
    /// # Panics
    /// If nothing is held within ten seconds.
    pub fn wait_until_held(&self, direction: Direction) {
        self.wait("something is held", |state| state.ways[direction as usize].holding > 0);
    }

    /// Waits until clients have made so many connections since the start.
    ///
    /// # Panics
    /// If they have not within ten seconds.
    pub fn wait_until_accepted(&self, connections: u64) {
        self.wait("connections", |state| state.accepted >= connections);
    }

    fn wait(&self, wanted: &str, mut met: impl FnMut(&State) -> bool) {
        let state = self.shared.locked();
        let ended = self.shared.changed.wait_timeout_while(state, LIMIT, |state| !met(state));
        let (state, outcome) = ended.unwrap_or_else(PoisonError::into_inner);
        drop(state);
        assert!(!outcome.timed_out(), "not within {LIMIT:?}: {wanted}");
    }

    fn set(&self, direction: Direction, change: impl FnOnce(&mut Way)) {
        change(&mut self.shared.locked().ways[direction as usize]);
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.locked();
            state.ended = true;
            self.shared.cut(&mut state);
        }
        let _ = TcpStream::connect(self.address); // wakes the acceptor
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, state: &mut State) {
        state.cut = state.accepted;
        for side in state.open.drain().flat_map(|(_, sides)| sides) {
            let _ = side.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            while let Ok((client, _)) = listener.accept() {
                let mut state = self.locked();
                if state.ended {
                    break;
                }
                state.accepted += 1;
                self.changed.notify_all();
                let id = state.accepted;
                if !state.refuses {
                    drop(state);
                    scope.spawn(move || self.connect(id, &client));
                }
            }
        });
    }

    /// The life of a connection.
    fn connect(&self, id: u64, client: &TcpStream) {
        let Ok(server) = TcpStream::connect_timeout(&self.target, LIMIT) else { return };
        let copies = (|| {
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            std::io::Result::Ok([client.try_clone()?, server.try_clone()?])
        })();
        {
            let mut state = self.locked();
            match copies {
                Ok(sides) if id > state.cut => state.open.insert(id, sides),
                _ => return,
            };
        }
        thread::scope(|scope| {
            for (direction, from, to) in
                [(Direction::ToServer, client, &server), (Direction::ToClient, &server, client)]
            {
                let (sender, receiver) = sync_channel(MOST_CHUNKS);
                scope.spawn(move || self.read(direction, from, &sender));
                scope.spawn(move || self.write(id, direction, to, &receiver));
            }
        });
        self.locked().open.remove(&id);
    }

    /// Sends the bytes of one side, each chunk with the time at which it is due. The last chunk is
    /// empty.
    fn read(&self, direction: Direction, mut from: &TcpStream, sender: &SyncSender<(Instant, Vec<u8>)>) {
        loop {
            let mut bytes = vec![0; CHUNK_BYTES];
            let count = from.read(&mut bytes).unwrap_or(0);
            bytes.truncate(count);
            let due = Instant::now() + self.locked().ways[direction as usize].delay;
            if sender.send((due, bytes)).is_err() || count == 0 {
                return;
            }
        }
    }

    fn write(&self, id: u64, direction: Direction, to: &TcpStream, chunks: &Receiver<(Instant, Vec<u8>)>) {
        for (due, bytes) in chunks {
            if self.pass(id, direction, to, due, &bytes).is_none() {
                break;
            }
        }
        // The reader of a connection that was cut may wait for room in the channel, which is now
        // closed; the reader of a broken one sees the end of the other side.
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Passes a chunk on, or the end of the connection if the chunk is empty. `None`: the
    /// connection was cut or is broken.
    fn pass(
        &self,
        id: u64,
        direction: Direction,
        mut to: &TcpStream,
        due: Instant,
        bytes: &[u8],
    ) -> Option<()> {
        let mut rest = bytes;
        loop {
            let (count, cuts) = self.allowed(id, direction, due, rest.len())?;
            let (now, later) = rest.split_at(count);
            to.write_all(now).ok()?;
            rest = later;
            if cuts {
                let mut state = self.locked();
                state.ways[direction as usize].allowed = None;
                state.ways[direction as usize].cuts = false;
                self.cut(&mut state);
                return None;
            }
            if rest.is_empty() {
                return Some(());
            }
        }
    }

    /// Waits until bytes may be written; returns how many, and whether a cut follows. `None`: the
    /// connection was cut.
    fn allowed(&self, id: u64, direction: Direction, due: Instant, wanted: usize) -> Option<(usize, bool)> {
        let mut state = self.locked();
        loop {
            if !state.open.contains_key(&id) {
                return None;
            }
            let left = due.saturating_duration_since(Instant::now());
            let way = &mut state.ways[direction as usize];
            if !left.is_zero() {
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            } else if way.allowed == Some(0) {
                way.holding += 1;
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.ways[direction as usize].holding -= 1;
            } else {
                let most = if way.splits { wanted.min(1) } else { wanted };
                let count = match way.allowed {
                    None => most,
                    Some(allowed) => most.min(usize::try_from(allowed).unwrap_or(usize::MAX)),
                };
                way.allowed = way.allowed.map(|allowed| allowed - count as u64);
                way.passed += count as u64;
                return Some((count, way.allowed == Some(0) && way.cuts));
            }
        }
    }
}
