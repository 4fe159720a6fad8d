//! The question to a Sentinel or to a node of a cluster: where is the server of the cache?
//!
//! One connection for one question, in RESP2, which all versions speak: AUTH if there is a
//! password, then `SENTINEL GET-MASTER-ADDR-BY-NAME` or `CLUSTER SLOTS`.
//!
//! Rules:
//! 1. A host that is missing in a reply is the host of the server that was asked: a node that has
//!    never met another one does not know its own address.
//! 2. A host `?` is not known, and is no address.

use std::collections::BTreeSet;

use crate::config::Address;
use crate::credentials::{Credentials, accepted};
use crate::error::{LinkError, LinkErrorKind};
use crate::resp::{Limits, Malformed, Message, Reader, Value, Writer};

/// The longest text and the longest reply, in bytes: 16384 slots, each with several nodes.
const LIMITS: Limits = Limits { string: 64 * 1024, message: 16 * 1024 * 1024 };

/// How many nodes of a cluster are remembered. A cluster has at most about 1000.
const MAX_NODES: usize = 1024;

/// A question, without I/O. Write [`Inquiry::outgoing`] to the server, and give the bytes of the
/// server to [`Inquiry::receive`], until it has the answer or an error.
#[derive(Debug)]
pub struct Inquiry {
    asked: Address,
    question: Question,
    out: Vec<u8>,
    reader: Reader,
    /// The reply to AUTH has not arrived.
    authenticates: bool,
    ended: Option<Result<Located, LinkError>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// The primary with this name, at a Sentinel.
    Primary(String),
    /// The node with this slot, at a node of the cluster.
    Slot(u16),
}

/// The answer: the address of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Located {
    /// The address of the server of the cache.
    pub address: Address,
    /// The nodes of the cluster.
    pub(crate) nodes: BTreeSet<Address>,
}

impl Inquiry {
    pub(crate) fn new(asked: Address, question: Question, credentials: Option<&Credentials>) -> Self {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        if let Some(credentials) = credentials {
            writer.command(&credentials.auth());
        }
        match &question {
            Question::Primary(service) => {
                writer.command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()]);
            }
            Question::Slot(_) => writer.command(&[b"CLUSTER", b"SLOTS"]),
        }
        let authenticates = credentials.is_some();
        Self { asked, question, out, reader: Reader::new(LIMITS), authenticates, ended: None }
    }

    /// The bytes for the server. The caller removes the bytes that are written to the socket.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Takes bytes of the server. `None`: the answer has not arrived.
    ///
    /// # Errors
    /// [`LinkError`] if the server does not know, or cannot be asked. The next server may know.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<Option<Located>, LinkError> {
        while self.ended.is_none() {
            match self.reader.next(&mut bytes) {
                Ok(Some(Message::Reply(value))) => self.reply(&value),
                Ok(Some(Message::Push(_))) => {}
                Ok(None) => return Ok(None),
                Err(malformed) => self.ended = Some(Err(not_understood(malformed))),
            }
        }
        self.ended.clone().transpose()
    }

    fn reply(&mut self, value: &Value) {
        if std::mem::take(&mut self.authenticates) {
            self.ended = accepted(value).err().map(Err);
            return;
        }
        self.ended = Some(match (value, &self.question) {
            (Value::Error(text), _) => Err(refusal(text)),
            (value, Question::Primary(service)) => self.primary(service, value),
            (value, Question::Slot(slot)) => self.node(*slot, value),
        });
    }

    fn primary(&self, service: &str, value: &Value) -> Result<Located, LinkError> {
        let address = match value {
            Value::Null => {
                let problem = format!("the Sentinel {} does not know `{service}`", self.asked);
                return Err(LinkError::new(LinkErrorKind::Unknown, problem));
            }
            Value::List(parts) => match parts.as_slice() {
                [host, port] => self.address(host, port),
                _ => None,
            },
            _ => None,
        };
        match address {
            Some(address) => Ok(Located { address, nodes: BTreeSet::new() }),
            None => Err(LinkError::new(LinkErrorKind::Protocol, "the Sentinel named no address")),
        }
    }

    /// Reads a list of ranges: first slot, last slot, the primary, its replicas.
    fn node(&self, slot: u16, value: &Value) -> Result<Located, LinkError> {
        let Value::List(ranges) = value else {
            return Err(LinkError::new(LinkErrorKind::Protocol, "the node named no slots"));
        };
        let (mut owner, mut nodes) = (None, BTreeSet::new());
        for range in ranges {
            let Value::List(parts) = range else { continue };
            let [Value::Integer(first), Value::Integer(last), servers @ ..] = parts.as_slice() else {
                continue;
            };
            let mut addresses = servers.iter().map(|server| match server {
                Value::List(parts) => match parts.as_slice() {
                    [host, port, ..] => self.address(host, port),
                    _ => None,
                },
                _ => None,
            });
            let primary = addresses.next().flatten();
            if (*first..=*last).contains(&i64::from(slot)) {
                owner.clone_from(&primary);
            }
            let others = addresses.flatten();
            let new = primary.into_iter().chain(others);
            nodes.extend(new.take(MAX_NODES.saturating_sub(nodes.len())));
        }
        owner.map(|address| Located { address, nodes }).ok_or_else(|| {
            let problem = format!("no node of the cluster has slot {slot}, says {}", self.asked);
            LinkError::new(LinkErrorKind::Cluster, problem)
        })
    }

    /// Rules 1 and 2.
    fn address(&self, host: &Value, port: &Value) -> Option<Address> {
        let port = match port {
            Value::Integer(port) => u16::try_from(*port).ok(),
            port => std::str::from_utf8(port.text()?).ok()?.parse().ok(),
        };
        let port = port.filter(|port| *port > 0)?;
        let host = match host {
            Value::Null => None,
            Value::Text(text) => match std::str::from_utf8(text).ok()? {
                "" => None,
                "?" => return None,
                host => Some(host),
            },
            _ => return None,
        };
        Some(self.asked.beside(host, port))
    }
}

fn not_understood(malformed: Malformed) -> LinkError {
    let (kind, problem) = match malformed.marker {
        0x15 | 0x16 => (LinkErrorKind::Tls, "the server speaks TLS"),
        _ => (LinkErrorKind::NotRedis, "the server does not speak the protocol of Redis"),
    };
    LinkError::new(kind, format!("{problem}: {malformed}"))
}

fn refusal(text: &str) -> LinkError {
    let lower = text.to_ascii_lowercase();
    let kind = match lower.split(' ').next().unwrap_or_default() {
        "noauth" | "wrongpass" => LinkErrorKind::Auth,
        "loading" => LinkErrorKind::Loading,
        "clusterdown" => LinkErrorKind::Cluster,
        _ => LinkErrorKind::Refused,
    };
    LinkError::new(kind, format!("the server answered: {text}"))
}
