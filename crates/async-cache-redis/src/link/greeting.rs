//! The beginning of a connection: the server describes itself and its commands.
//!
//! The greeting is one packet. If the server refuses RESP3, a second packet says the same in
//! RESP2, without tracking. A last packet ends the predecessor, a connection to the same server.
//!
//! Rules:
//! 1. Commands are found out by asking for them, never by the version of the server: versions lie,
//!    and users may be forbidden a command.
//! 2. Nothing is written by asking. The conditions name a key that is never written, and the life
//!    in `SET NX GET PX 0` is refused after the options were understood.
//! 3. If an answer about a command is unclear, the server does not have it.
//! 4. In a cluster, the question about the probe also finds out whether the node has the slot of
//!    the cache. If another node has it, or the slot is being moved, the connection ends.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Ready;
use super::engine::{Engine, REMOVE, Removing, Replacing};
use super::expected::explained;
use crate::config::Config;
use crate::credentials::{Credentials, accepted};
use crate::error::{LinkError, LinkErrorKind};
use crate::layout::Layout;
use crate::predecessor::Met;
use crate::resp::{Value, Writer};

/// A command of the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Hello,
    Auth,
    /// Its answer does not matter.
    Label,
    Select,
    Track,
    Info,
    Role,
    IfEq,
    DelIfEq,
    DelEx,
    SetNxGet,
    Script,
    ClientId,
    /// Its answer does not matter: a user may be forbidden to end connections.
    Kill,
}

#[derive(Debug)]
pub(super) struct Greeting {
    credentials: Option<Credentials>,
    db: u32,
    /// The tracked prefix, if the server is asked to tell of changes.
    tracked: Option<Vec<u8>>,
    probe: Vec<u8>,
    started: bool,
    /// The commands without an answer.
    steps: VecDeque<Step>,
    /// The answers in RESP3 do not count, and the second packet follows.
    refused: bool,
    predecessor: Option<Met>,
    met: Option<Met>,
    facts: Facts,
}

/// The answers so far.
#[derive(Debug, Default)]
struct Facts {
    name: Option<String>,
    version: Option<String>,
    run_id: Option<String>,
    client: Option<i64>,
    role: Option<String>,
    /// `standalone`, `cluster` or `sentinel`.
    mode: Option<String>,
    /// The commands that the server has.
    has: Vec<Step>,
    script_error: Option<Arc<str>>,
    notices: Vec<Arc<str>>,
}

impl Greeting {
    pub(super) fn new(config: &Config, layout: &Layout) -> Self {
        Self {
            credentials: Credentials::new(config.username.as_ref(), config.password.as_ref()),
            db: config.db,
            tracked: config.tracking.then(|| layout.tracked().to_vec()),
            probe: layout.probe_key(),
            started: false,
            steps: VecDeque::new(),
            refused: false,
            predecessor: None,
            met: None,
            facts: Facts::default(),
        }
    }

    pub(super) fn follow(&mut self, predecessor: Option<Met>) {
        self.predecessor = predecessor;
    }

    pub(super) fn met(&self) -> Option<Met> {
        self.met.clone()
    }

    /// Writes the first packet, once.
    pub(super) fn start(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(credentials) = &self.credentials {
            hello.extend([b"AUTH", credentials.user(), credentials.password()]);
        }
        Writer::new(out).command(&hello);
        self.steps.push_back(Step::Hello);
        self.label(out);
        self.select(out);
        if let Some(prefix) = &self.tracked {
            let track: [&[u8]; 7] = [b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", prefix, b"NOLOOP"];
            Writer::new(out).command(&track);
            self.steps.push_back(Step::Track);
        }
        self.ask(out);
    }

    /// Writes the second packet.
    fn start_again(&mut self, out: &mut Vec<u8>) {
        if let Some(credentials) = &self.credentials {
            Writer::new(out).command(&credentials.auth());
            self.steps.push_back(Step::Auth);
        }
        self.label(out);
        self.select(out);
        Writer::new(out).command(&[b"CLIENT", b"ID"]);
        self.steps.push_back(Step::ClientId);
        self.ask(out);
    }

    fn label(&mut self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.command(&[b"CLIENT", b"SETNAME", b"async-cache"]);
        writer.command(&[b"CLIENT", b"SETINFO", b"LIB-NAME", b"async-cache"]);
        writer.command(&[b"CLIENT", b"SETINFO", b"LIB-VER", env!("CARGO_PKG_VERSION").as_bytes()]);
        self.steps.extend([Step::Label; 3]);
    }

    fn select(&mut self, out: &mut Vec<u8>) {
        if self.db != 0 {
            Writer::new(out).command(&[b"SELECT", self.db.to_string().as_bytes()]);
            self.steps.push_back(Step::Select);
        }
    }

    /// Rules 1 and 2.
    fn ask(&mut self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        let key = self.probe.as_slice();
        let commands: [(Step, &[&[u8]]); 7] = [
            (Step::Info, &[b"INFO", b"server"]),
            (Step::Role, &[b"ROLE"]),
            (Step::IfEq, &[b"SET", key, b"1", b"IFEQ", b"0"]),
            (Step::DelIfEq, &[b"DELIFEQ", key, b"0"]),
            (Step::DelEx, &[b"DELEX", key, b"IFEQ", b"0"]),
            (Step::SetNxGet, &[b"SET", key, b"1", b"NX", b"GET", b"PX", b"0"]),
            (Step::Script, &[b"EVAL", REMOVE, b"1", key, b"0"]),
        ];
        for (step, command) in commands {
            writer.command(command);
            self.steps.push_back(step);
        }
    }

    /// Takes the next answer. The result is there when the greeting is over.
    pub(super) fn reply(
        &mut self,
        value: &Value,
        out: &mut Vec<u8>,
    ) -> Result<Option<(Engine, Ready)>, LinkError> {
        let Some(step) = self.steps.pop_front() else {
            return Err(LinkError::new(LinkErrorKind::Protocol, "the server spoke before it was greeted"));
        };
        // A refused packet is refused command by command.
        if !self.refused {
            self.learn(step, value)?;
            self.facts.check()?;
        }
        if !self.steps.is_empty() {
            return Ok(None);
        }
        if std::mem::take(&mut self.refused) {
            self.start_again(out);
            return Ok(None);
        }
        if let Some(before) = self.predecessor.take().filter(|before| self.facts.is_server_of(before)) {
            let client = before.client.to_string();
            Writer::new(out).command(&[b"CLIENT", b"KILL", b"ID", client.as_bytes()]);
            self.steps.push_back(Step::Kill);
            return Ok(None);
        }
        Ok(Some(self.result()))
    }

    fn learn(&mut self, step: Step, value: &Value) -> Result<(), LinkError> {
        let error = match value {
            Value::Error(text) => Some(&**text),
            _ => None,
        };
        // A server that forbids HELLO may ask for the password first: AUTH follows.
        let early = step == Step::Hello
            && self.credentials.is_some()
            && error.is_some_and(|text| text.starts_with("NOAUTH"));
        if !early && let Some(error) = error.and_then(of_the_connection) {
            return Err(error);
        }
        let facts = &mut self.facts;
        match step {
            Step::Hello => {
                let speaks = value.field("proto") == Some(&Value::Integer(3));
                if !speaks {
                    self.refused = true;
                    facts.notice(
                        "the server speaks RESP2 only, or forbids HELLO, so it does not tell of changes; use Redis 6 or Valkey",
                    );
                    return Ok(());
                }
                facts.name = words(value.field("server"));
                facts.version = words(value.field("version"));
                facts.role = words(value.field("role"));
                facts.mode = words(value.field("mode"));
                facts.client = number(value.field("id"));
            }
            Step::Auth => accepted(value)?,
            Step::Label | Step::Kill => {}
            Step::ClientId => facts.client = number(Some(value)),
            Step::Select => {
                if let Some(text) = error {
                    let problem = format!("the server refused database {}: {text}", self.db);
                    return Err(LinkError::new(LinkErrorKind::Database, problem));
                }
            }
            Step::Track => match error {
                Some(text) => {
                    let text = explained(text);
                    facts.notice(&format!(
                        "the server refused CLIENT TRACKING, so it does not tell of changes: {text}"
                    ));
                }
                None => facts.has.push(step),
            },
            Step::Info => facts.info(value),
            Step::Role => {
                if let Value::List(parts) = value {
                    facts.role = words(parts.first()).or_else(|| facts.role.take());
                }
            }
            // Rule 3.
            Step::IfEq => facts.found(step, *value == Value::Null),
            Step::DelIfEq | Step::DelEx => facts.found(step, *value == Value::Integer(0)),
            Step::SetNxGet => {
                facts.found(step, error.is_some_and(|text| text.contains("invalid expire")));
            }
            Step::Script => {
                facts.found(step, *value == Value::Integer(0));
                facts.script_error = error.map(explained);
            }
        }
        Ok(())
    }

    fn result(&mut self) -> (Engine, Ready) {
        let mut facts = std::mem::take(&mut self.facts);
        let has = |step| facts.has.contains(&step);
        let replacing = match () {
            () if has(Step::IfEq) => Replacing::IfEq,
            () if has(Step::Script) => Replacing::Script,
            () => Replacing::No,
        };
        let removing = match replacing {
            _ if has(Step::DelIfEq) => Removing::DelIfEq,
            _ if has(Step::DelEx) => Removing::DelEx,
            _ if has(Step::Script) => Removing::Script,
            Replacing::IfEq => Removing::Expiry,
            _ => Removing::No,
        };
        let (set_nx_get, notifies) = (has(Step::SetNxGet), has(Step::Track));
        if replacing == Replacing::No {
            let why = facts.script_error.as_deref().unwrap_or("EVAL did not work");
            let notice = format!(
                "the server has no conditional write, so a load may overwrite a later write: neither SET IFEQ nor scripts: {why}"
            );
            facts.notice(&notice);
        }
        let engine = Engine { replacing, removing, set_nx_get, notifies };
        let server = [facts.name.as_deref(), facts.version.as_deref()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ");
        let run_id: Option<Arc<str>> = facts.run_id.map(Into::into);
        self.met = run_id.clone().zip(facts.client).map(|(run_id, client)| Met { run_id, client });
        let ready = Ready {
            abilities: engine.abilities(),
            run_id,
            role: facts.role.map(Into::into),
            server: if server.is_empty() { "a server without a name".into() } else { server.into() },
            notices: facts.notices,
        };
        (engine, ready)
    }
}

impl Facts {
    fn notice(&mut self, notice: &str) {
        self.notices.push(notice.into());
    }

    fn is_server_of(&self, met: &Met) -> bool {
        self.run_id.as_deref() == Some(&*met.run_id) && self.client != Some(met.client)
    }

    fn found(&mut self, step: Step, works: bool) {
        if works {
            self.has.push(step);
        }
    }

    /// Reads the lines `name:value` of INFO.
    fn info(&mut self, value: &Value) {
        let text = String::from_utf8_lossy(value.text().unwrap_or_default());
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = || Some(value.trim().to_owned());
            match name {
                "run_id" => self.run_id = value(),
                "redis_mode" | "server_mode" => self.mode = value(),
                // Valkey names a version of Redis too, for old clients.
                "valkey_version" => (self.name, self.version) = (Some("valkey".to_owned()), value()),
                "redis_version" if self.version.is_none() => {
                    (self.name, self.version) = (Some("redis".to_owned()), value());
                }
                _ => {}
            }
        }
    }

    /// Whether a cache can use the server, as far as is known.
    fn check(&self) -> Result<(), LinkError> {
        let (kind, problem) = match (self.mode.as_deref(), self.role.as_deref()) {
            (Some("sentinel"), _) | (_, Some("sentinel")) => {
                (LinkErrorKind::Sentinel, "the server is a Sentinel")
            }
            (_, Some("slave" | "replica")) => (LinkErrorKind::Replica, "the server is a replica"),
            _ => return Ok(()),
        };
        Err(LinkError::new(kind, problem))
    }
}

/// The fault of the whole connection that an error tells of.
fn of_the_connection(text: &str) -> Option<LinkError> {
    if let Some(error) = LinkError::of_the_place(text) {
        return Some(error);
    }
    let lower = text.to_ascii_lowercase();
    let kind = match lower.split(' ').next().unwrap_or_default() {
        "noauth" | "wrongpass" => LinkErrorKind::Auth,
        "loading" => LinkErrorKind::Loading,
        // Rule 4.
        "ask" | "tryagain" => LinkErrorKind::Cluster,
        "denied" => LinkErrorKind::Refused,
        _ if lower.contains("max number of clients") => LinkErrorKind::Refused,
        _ if lower.contains("invalid password") || lower.contains("invalid username") => LinkErrorKind::Auth,
        _ => return None,
    };
    Some(LinkError::new(kind, format!("the server answered: {text}")))
}

fn number(value: Option<&Value>) -> Option<i64> {
    match value {
        Some(Value::Integer(number)) => Some(*number),
        _ => None,
    }
}

fn words(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::text).map(|text| String::from_utf8_lossy(text).into_owned())
}
