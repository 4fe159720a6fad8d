//! Arguments by value that are deep, big or lead back to themselves: a graph of objects, each
//! examined once.
//!
//! Rules:
//! 1. Nothing recurses: the path from the root is a list of [`PathNode`]s, at any depth.
//! 2. An object is examined once, even if it occurs several times. Its encoding is *short*: if
//!    longer than [`SHORT`], the encoding is replaced by its digest. So `a = [a, a]` sixty times
//!    over is sixty objects, and sixty digests.
//! 3. The encoding of an object is made from the encodings of its parts, which are computed first.
//!    Only the objects of a *circle*, which all lead to each other, cannot be encoded in this
//!    order: they are encoded together (see `circle`). Circles are found by Tarjan's algorithm.
//! 4. An object that leads into a circle, and is alike in all respects to an object of the circle,
//!    is encoded as that object: a link of an endless list before the list's circle represents the
//!    same endless list.
//! 5. Nothing depends on sharing, nor on the order in which objects are visited.

use std::collections::HashMap;

use async_cache_core::number::NumberMap;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::builtin::write_plain;
use super::circle::{Circle, CirclePart};
use super::digest::DIGEST_BYTES;
use super::look::look;
use super::plan::{ObjectPlan, Plan};
use super::references::References;
use super::shape::{ObjectShape, fill};
use super::{digest, ext, write};

/// An encoding up to this length is not worth a digest.
const SHORT: usize = 64;

/// The maximum number of objects reachable from an argument: some seconds of work. Also stops an
/// argument that makes new objects endlessly.
const MAX_NODES: usize = 1 << 22;

/// A part of an object.
enum Child<'py> {
    /// Not examined so far.
    Waits(Bound<'py, PyAny>),
    Node(usize),
}

struct Node<'py> {
    /// Kept, so that no other object gets its address.
    object: Bound<'py, PyAny>,
    shape: ObjectShape,
    children: Vec<Child<'py>>,
    /// The first reachable node on Tarjan's stack.
    low: usize,
    is_on_stack: bool,
    /// The encoding of the object, when known.
    bytes: Vec<u8>,
}

/// A node in progress, and the number of its next child.
struct PathNode {
    node: usize,
    next: usize,
}

/// Appends an argument.
pub(super) fn write_graph(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    references: &mut References,
) -> PyResult<()> {
    let mut graph = ObjectGraph {
        references,
        nodes: Vec::new(),
        places: NumberMap::default(),
        circular: HashMap::new(),
        frames: Vec::new(),
        stack: Vec::new(),
    };
    let bytes = graph.run(value)?;
    write::ext(out, ext::GRAPH, &bytes)
}

struct ObjectGraph<'a, 'py> {
    references: &'a mut References,
    nodes: Vec<Node<'py>>,
    /// By address.
    places: NumberMap<usize, usize>,
    frames: Vec<PathNode>,
    /// Nodes whose circle is not complete.
    stack: Vec<usize>,
    /// The encodings of objects in circles, by the encodings that they would have outside a circle.
    circular: HashMap<[u8; DIGEST_BYTES], Vec<u8>>,
}

impl<'py> ObjectGraph<'_, 'py> {
    fn run(&mut self, root: &Bound<'py, PyAny>) -> PyResult<Vec<u8>> {
        self.enter(root.clone())?;
        // Rule 1.
        while let Some(frame) = self.frames.last_mut() {
            let (node, next) = (frame.node, frame.next);
            frame.next += 1;
            if next < self.nodes[node].children.len() {
                self.follow(node, next)?;
            } else {
                self.frames.pop();
                self.leave(node)?;
            }
        }
        Ok(std::mem::take(&mut self.nodes[0].bytes))
    }

    fn follow(&mut self, node: usize, next: usize) -> PyResult<()> {
        let Child::Waits(value) = &self.nodes[node].children[next] else { return Ok(()) };
        let value = value.clone();
        let child = match self.places.get(&value.as_ptr().addr()) {
            // Rule 2.
            Some(&known) => {
                if self.nodes[known].is_on_stack {
                    self.nodes[node].low = self.nodes[node].low.min(known);
                }
                known
            }
            None => self.enter(value)?,
        };
        self.nodes[node].children[next] = Child::Node(child);
        Ok(())
    }

    /// Examines a new object.
    fn enter(&mut self, object: Bound<'py, PyAny>) -> PyResult<usize> {
        let index = self.nodes.len();
        if index == MAX_NODES {
            let what = format!(
                "an argument leads to more than {MAX_NODES} objects, or makes new ones without end: say what stands for it \
                 with cache.key.register, or pass something smaller"
            );
            return Err(PyValueError::new_err(what));
        }
        let (mut bytes, mut children) = (Vec::new(), Vec::new());
        let plan = look(&object, &mut bytes, self.references)?;
        let has_plan = plan.is_some();
        let shape = match plan {
            None => ObjectShape::Bytes(Vec::new()),
            Some(plan) => shape_of(plan, &mut children)?,
        };
        self.places.insert(object.as_ptr().addr(), index);
        let waits = !children.is_empty();
        if has_plan && !waits {
            fill(&shape, &mut bytes, self.references, &|_, _| Ok(()))?;
        }
        shorten(&mut bytes)?;
        self.nodes.push(Node { object, shape, children, low: index, is_on_stack: waits, bytes });
        if waits {
            self.stack.push(index);
            self.frames.push(PathNode { node: index, next: 0 });
        }
        Ok(index)
    }

    /// Called when all parts of a node are done.
    fn leave(&mut self, node: usize) -> PyResult<()> {
        let low = self.nodes[node].low;
        if low == node {
            let first = self.stack.iter().rposition(|&one| one == node).unwrap_or_default();
            let circle = self.stack.split_off(first);
            self.close(&circle)?;
        }
        if let Some(above) = self.frames.last() {
            let above = &mut self.nodes[above.node];
            // The child may be complete: then its number is above the number of its parent.
            above.low = above.low.min(low);
        }
        Ok(())
    }

    /// Rule 3.
    fn close(&mut self, circle: &[usize]) -> PyResult<()> {
        let encoded = match circle {
            [node] if !self.leads_to(*node, *node) => {
                let mut bytes = Vec::new();
                let one = &self.nodes[*node];
                let child = |index: usize, out: &mut Vec<u8>| {
                    if let Child::Node(child) = &one.children[index] {
                        out.extend_from_slice(&self.nodes[*child].bytes);
                    }
                    Ok(())
                };
                fill(&one.shape, &mut bytes, self.references, &child)?;
                // Rule 4.
                let known =
                    if self.circular.is_empty() { None } else { self.circular.get(&digest::bare(&bytes)) };
                match known {
                    Some(known) => bytes.clone_from(known),
                    None => shorten(&mut bytes)?,
                }
                vec![bytes]
            }
            _ => self.encode_circle(circle)?,
        };
        for (&index, bytes) in circle.iter().zip(encoded) {
            let node = &mut self.nodes[index];
            node.bytes = bytes;
            node.is_on_stack = false;
            // The parts stay, as nodes of their own.
            node.shape = ObjectShape::Bytes(Vec::new());
            node.children = Vec::new();
        }
        Ok(())
    }

    fn leads_to(&self, node: usize, other: usize) -> bool {
        self.nodes[node].children.iter().any(|child| matches!(child, Child::Node(child) if *child == other))
    }

    fn encode_circle(&mut self, circle: &[usize]) -> PyResult<Vec<Vec<u8>>> {
        let inside: NumberMap<usize, usize> =
            circle.iter().enumerate().map(|(at, &node)| (node, at)).collect();
        let nodes = circle.iter().map(|&node| {
            let node = &self.nodes[node];
            let parts = node.children.iter().map(|child| match child {
                Child::Node(child) => match inside.get(child) {
                    Some(&at) => CirclePart::Inside(at),
                    None => CirclePart::Outside(&self.nodes[*child].bytes),
                },
                Child::Waits(_) => CirclePart::Outside(&[]),
            });
            (&node.shape, parts.collect())
        });
        let nodes = Circle::new(nodes.collect(), self.references);
        if let Some(encoded) = nodes.encode()? {
            let outside = (0..circle.len()).map(|at| nodes.outside(at, &encoded));
            let outside = outside.collect::<PyResult<Vec<_>>>()?;
            self.circular.extend(outside.into_iter().zip(encoded.iter().cloned()));
            return Ok(encoded);
        }
        // Too many alike objects to be distinguished in a reasonable time.
        let mut encoded = Vec::with_capacity(circle.len());
        for &node in circle {
            let reference = self.references.itself(&self.nodes[node].object);
            let mut bytes = Vec::new();
            self.references.write(reference, &mut bytes)?;
            encoded.push(bytes);
        }
        Ok(encoded)
    }
}

/// Replaces a long encoding by its digest (rule 2).
fn shorten(bytes: &mut Vec<u8>) -> PyResult<()> {
    if bytes.len() > SHORT { digest::replace(bytes, 0) } else { Ok(()) }
}

fn shape_of<'py>(plan: Plan<'py>, children: &mut Vec<Child<'py>>) -> PyResult<ObjectShape> {
    Ok(match plan {
        Plan::Bytes(mut bytes) => {
            shorten(&mut bytes)?;
            ObjectShape::Bytes(bytes)
        }
        Plan::Value(value) => shape_of_value(value, children)?,
        Plan::Array(plans) => {
            let count = plans.len();
            let shapes = plans.into_iter().map(|plan| shape_of(plan, children)).collect::<PyResult<_>>()?;
            ObjectShape::Array(count, shapes)
        }
        Plan::Items(items) => {
            let count = items.len();
            let mut shapes: Vec<ObjectShape> = Vec::new();
            for item in items {
                match (shape_of_value(item, children)?, shapes.last_mut()) {
                    (ObjectShape::Bytes(bytes), Some(ObjectShape::Bytes(before))) => {
                        before.extend_from_slice(&bytes);
                    }
                    (shape, _) => shapes.push(shape),
                }
            }
            ObjectShape::Array(count, shapes)
        }
        Plan::Set(items) => ObjectShape::Set(
            items.into_iter().map(|item| shape_of_value(item, children)).collect::<PyResult<_>>()?,
        ),
        Plan::Pairs(pairs) => {
            let pair = |(key, value)| Ok((shape_of_value(key, children)?, shape_of_value(value, children)?));
            ObjectShape::Map(pairs.into_iter().map(pair).collect::<PyResult<_>>()?)
        }
        Plan::Object(object) => {
            let ObjectPlan { class, content, state } = *object;
            ObjectShape::Object(Box::new((class, shape_of(content, children)?, shape_of(state, children)?)))
        }
    })
}

fn shape_of_value<'py>(value: Bound<'py, PyAny>, children: &mut Vec<Child<'py>>) -> PyResult<ObjectShape> {
    let mut bytes = Vec::new();
    if write_plain(&value, &mut bytes)? {
        shorten(&mut bytes)?;
        return Ok(ObjectShape::Bytes(bytes));
    }
    children.push(Child::Waits(value));
    Ok(ObjectShape::Child(children.len() - 1))
}
