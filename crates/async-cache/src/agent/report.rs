//! The errors of a tool's callers; a loop as data that a model can read.

use std::error::Error;
use std::fmt;

use async_cache_core::agent::Alarm;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::error::LoadError;

/// Why a call of a tool got no value.
#[non_exhaustive]
pub enum ToolError<E> {
    /// The tool failed, or could not run.
    Load(LoadError<E>),
    /// The call would have gone on with a loop; the tool did not run.
    Loop(Box<LoopDetected>),
    /// The call would have continued a loop, the session says
    /// [`OnLoop::ShortCircuit`](super::OnLoop::ShortCircuit), and no result is cached; the tool did
    /// not run.
    ShortCircuited,
}

impl<E> ToolError<E> {
    /// The tool's own error; `None` for all other variants.
    pub fn tool_error(&self) -> Option<&E> {
        match self {
            Self::Load(error) => error.loader_error(),
            _ => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for ToolError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => error.fmt(f),
            Self::Loop(detected) => detected.fmt(f),
            Self::ShortCircuited => {
                f.write_str("the call would have gone on with a loop, and nothing is cached for it")
            }
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for ToolError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => f.debug_tuple("Load").field(error).finish(),
            Self::Loop(detected) => f.debug_tuple("Loop").field(detected).finish(),
            Self::ShortCircuited => f.write_str("ShortCircuited"),
        }
    }
}

/// As of [`LoadError`]: the message says everything.
impl<E: fmt::Debug + fmt::Display> Error for ToolError<E> {}

/// The kind of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoopKind {
    /// The same call with the same result, over and over.
    Repeat,
    /// A cycle of calls.
    Oscillation,
    /// Tools that call tools that call tools.
    Depth,
}

impl LoopKind {
    /// Its name: `repeat`, `oscillation` or `depth`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::Oscillation => "oscillation",
            Self::Depth => "depth",
        }
    }
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolCall {
    /// The function's name.
    pub tool: String,
    /// Its key's arguments, as `Debug` shows them.
    pub arguments: String,
}

impl fmt::Display for ToolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tool, arguments } = self;
        if arguments.starts_with('(') {
            write!(f, "{tool}{arguments}")
        } else {
            write!(f, "{tool}({arguments})")
        }
    }
}

/// A call that was refused because it would have continued a loop. Serializes in the form that a
/// model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopDetected {
    /// The kind.
    pub kind: LoopKind,
    /// The refused call.
    pub call: ToolCall,
    /// How often the call would have been made in a row, how often the cycle was run, or how deep
    /// the call would have been.
    pub count: u32,
    /// The limit of the session.
    pub limit: u32,
    /// The calls of the cycle, in the order in which they were made.
    pub cycle: Vec<ToolCall>,
    /// The session whose loop detection refused the call.
    pub session_id: String,
}

impl LoopDetected {
    pub(super) fn new(alarm: Alarm, call: ToolCall, cycle: Vec<ToolCall>, limit: u32, session: &str) -> Self {
        let (kind, count) = match alarm {
            Alarm::Oscillation { count, .. } => (LoopKind::Oscillation, count),
            Alarm::Depth { depth } => (LoopKind::Depth, depth),
            Alarm::Repeat { count } => (LoopKind::Repeat, count),
            _ => (LoopKind::Repeat, 0),
        };
        Self { kind, call, count, limit, cycle, session_id: session.to_owned() }
    }
}

impl fmt::Display for LoopDetected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, call, count, limit, cycle, .. } = self;
        write!(f, "loop detected ({}): ", kind.name())?;
        match kind {
            LoopKind::Repeat => {
                write!(
                    f,
                    "{call} would be the same call {count} times in a row, with the same result each time"
                )?;
            }
            LoopKind::Oscillation => {
                let cycle: Vec<_> = cycle.iter().map(ToString::to_string).collect();
                let cycle = cycle.join(" -> ");
                write!(
                    f,
                    "{cycle} was run {count} times in a row with the same results, and {call} goes on with it"
                )?;
            }
            LoopKind::Depth => write!(f, "{call} would be {count} calls of tools deep")?,
        }
        let advice = match kind {
            LoopKind::Depth => "call fewer tools from within tools",
            _ => "change the arguments, use another tool, or finish with what is known",
        };
        write!(f, " (limit {limit}); {advice}")
    }
}

impl Error for LoopDetected {}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ToolCall", 2)?;
        fields.serialize_field("tool", &self.tool)?;
        fields.serialize_field("arguments", &self.arguments)?;
        fields.end()
    }
}

impl Serialize for LoopDetected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("LoopDetected", 9)?;
        fields.serialize_field("error", "loop_detected")?;
        fields.serialize_field("kind", self.kind.name())?;
        fields.serialize_field("tool", &self.call.tool)?;
        fields.serialize_field("arguments", &self.call.arguments)?;
        fields.serialize_field("count", &self.count)?;
        fields.serialize_field("limit", &self.limit)?;
        fields.serialize_field("cycle", &self.cycle)?;
        fields.serialize_field("session_id", &self.session_id)?;
        fields.serialize_field("message", &self.to_string())?;
        fields.end()
    }
}
