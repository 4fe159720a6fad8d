//! Objects that all lead to each other, by value: the encoding of each represents the whole circle
//! and the object's place in the circle.
//!
//! Two objects are *alike* if nothing distinguishes them: they have the same class, their contents
//! have the same encoding, and their parts inside the circle are alike in turn. (This is equality
//! of the structures obtained by following references for ever; sharing is not part of the value.)
//!
//! Rules:
//! 1. Alike objects get one encoding. They are found by refinement: at first all objects are in one
//!    class; a class is split as long as its members' parts are in different classes. The largest
//!    piece of a class keeps its number, so an object changes its class at most as often as the
//!    class's size halves: the time is n log n, even for a list of a hundred thousand links.
//! 2. The classes are put in an order determined by the value alone. Each gets a *colour*, which
//!    represents everything about the class up to some distance. When a colour differs from all
//!    others, its class is the first, and the rest follow in the order of a walk from there; the
//!    entries of sets and maps are ordered by their colours. If different entries have the same
//!    colour, the distance grows.
//! 3. The encoding is the digest of all classes in this order, each with the numbers of its parts,
//!    and the number of the object's class: equal encodings mean equal values, for any choice of
//!    colours.

use std::collections::{BTreeMap, HashMap};

use pyo3::prelude::*;

use super::digest::{self, DIGEST_BYTES};
use super::references::References;
use super::shape::{ObjectShape, fill, filled};
use super::{ext, write};

/// Colours are computed as long as their digests cover fewer bytes than this limit: seconds of
/// work.
const MAX_COLOURED_BYTES: usize = 1 << 29;

pub(super) type Digest = [u8; DIGEST_BYTES];

/// A part of an object of the circle.
pub(super) enum CirclePart<'a> {
    /// An object of the circle.
    Inside(usize),
    /// The encoding of an object outside the circle.
    Outside(&'a [u8]),
}

pub(super) struct Circle<'a> {
    nodes: Vec<(&'a ObjectShape, Vec<CirclePart<'a>>)>,
    references: &'a References,
}

/// Which objects are alike.
struct AlikeClasses {
    /// Of each object.
    of: Vec<usize>,
    members: Vec<Vec<usize>>,
    /// The index of each object among the members.
    at: Vec<usize>,
    /// The common signature of the members that were not examined since.
    signature: Vec<Option<Digest>>,
}

impl<'a> Circle<'a> {
    pub(super) fn new(
        nodes: Vec<(&'a ObjectShape, Vec<CirclePart<'a>>)>,
        references: &'a References,
    ) -> Self {
        Self { nodes, references }
    }

    /// The encodings, in the order of the objects. None: encoding would take too long.
    pub(super) fn encode(&self) -> PyResult<Option<Vec<Vec<u8>>>> {
        let classes = self.classes()?;
        let Some(numbers) = self.numbers(&classes)? else { return Ok(None) };
        // Rule 3.
        let mut order = vec![0; numbers.len()];
        for (class, &number) in numbers.iter().enumerate() {
            order[number] = class;
        }
        let mut all = Vec::with_capacity(DIGEST_BYTES * order.len());
        for class in order {
            let bytes = self.filled(classes.members[class][0], &|node| {
                numbers[classes.of[node]].to_be_bytes().to_vec()
            })?;
            all.extend_from_slice(&digest::bare(&bytes));
        }
        let all = digest::bare(&all);
        let encoded = classes.of.iter().map(|&class| {
            let mut body = all.to_vec();
            body.extend_from_slice(&(numbers[class] as u64).to_be_bytes());
            let mut bytes = Vec::with_capacity(body.len() + 3);
            write::ext(&mut bytes, ext::CIRCLE, &body)?;
            Ok(bytes)
        });
        Ok(Some(encoded.collect::<PyResult<_>>()?))
    }

    /// The encoding that an object would have outside a circle.
    pub(super) fn outside(&self, node: usize, encoded: &[Vec<u8>]) -> PyResult<Digest> {
        let mut bytes = Vec::new();
        let child = |index: usize, out: &mut Vec<u8>| {
            out.extend_from_slice(match &self.nodes[node].1[index] {
                CirclePart::Outside(bytes) => bytes,
                CirclePart::Inside(node) => &encoded[*node],
            });
            Ok(())
        };
        fill(self.nodes[node].0, &mut bytes, self.references, &child)?;
        Ok(digest::bare(&bytes))
    }

    /// The encoding of an object; `hole` gives the encodings of its parts inside the circle.
    fn filled(&self, node: usize, hole: &dyn Fn(usize) -> Vec<u8>) -> PyResult<Vec<u8>> {
        let mut bytes = Vec::new();
        fill(self.nodes[node].0, &mut bytes, self.references, &self.child(node, hole))?;
        Ok(bytes)
    }

    fn child<'b>(
        &'b self,
        node: usize,
        hole: &'b dyn Fn(usize) -> Vec<u8>,
    ) -> impl Fn(usize, &mut Vec<u8>) -> PyResult<()> + 'b {
        move |index, out| match &self.nodes[node].1[index] {
            CirclePart::Outside(bytes) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            CirclePart::Inside(node) => write::ext(out, ext::HOLE, &hole(*node)),
        }
    }

    /// Rule 1.
    fn classes(&self) -> PyResult<AlikeClasses> {
        let count = self.nodes.len();
        let mut holders = vec![Vec::new(); count];
        for (holder, (_, parts)) in self.nodes.iter().enumerate() {
            for part in parts {
                if let CirclePart::Inside(node) = part {
                    holders[*node].push(holder);
                }
            }
        }
        let mut classes = AlikeClasses {
            of: vec![0; count],
            members: vec![(0..count).collect()],
            at: (0..count).collect(),
            signature: vec![None],
        };
        let mut outdated: Vec<usize> = (0..count).collect();
        while !outdated.is_empty() {
            let mut by_class: BTreeMap<usize, HashMap<Digest, Vec<usize>>> = BTreeMap::new();
            for &node in &outdated {
                let class = classes.of[node];
                // The only member of a class is not split off.
                if classes.members[class].len() > 1 {
                    let bytes = self.filled(node, &|part| classes.of[part].to_be_bytes().to_vec())?;
                    by_class.entry(class).or_default().entry(digest::bare(&bytes)).or_default().push(node);
                }
            }
            let mut changed = Vec::new();
            for (class, pieces) in by_class {
                classes.split(class, pieces, &mut changed);
            }
            outdated = changed.iter().flat_map(|&node| holders[node].iter().copied()).collect();
            outdated.sort_unstable();
            outdated.dedup();
        }
        Ok(classes)
    }

    /// Rule 2: the number of each class.
    fn numbers(&self, classes: &AlikeClasses) -> PyResult<Option<Vec<usize>>> {
        let count = classes.members.len();
        let first = |class: usize| classes.members[class][0];
        let mut colours = vec![[0; DIGEST_BYTES]; count];
        let mut bytes_so_far = 0;
        loop {
            let mut next = Vec::with_capacity(count);
            for class in 0..count {
                let bytes = self.filled(first(class), &|node| colours[classes.of[node]].to_vec())?;
                bytes_so_far += bytes.len();
                next.push(digest::bare(&bytes));
            }
            colours = next;
            if let Some(start) = lone(&colours)
                && !self.has_ties(classes, &colours)?
            {
                return self.from(start, classes, &colours).map(Some);
            }
            if bytes_so_far > MAX_COLOURED_BYTES {
                return Ok(None);
            }
        }
    }

    /// Whether different entries of a set or map have the same colours.
    fn has_ties(&self, classes: &AlikeClasses, colours: &[Digest]) -> PyResult<bool> {
        for members in &classes.members {
            let node = members[0];
            let by_colour = |node: usize| colours[classes.of[node]].to_vec();
            let by_class = |node: usize| classes.of[node].to_be_bytes().to_vec();
            let (by_colour, by_class) = (self.child(node, &by_colour), self.child(node, &by_class));
            let mut waiting = vec![self.nodes[node].0];
            while let Some(shape) = waiting.pop() {
                let entries = entries(shape, &mut waiting);
                let mut known: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
                for entry in entries.iter().filter(|entry| entry.iter().any(|shape| has_child(shape))) {
                    let (colour, class) = (
                        filled(entry, self.references, &by_colour)?,
                        filled(entry, self.references, &by_class)?,
                    );
                    if known.get(&colour).is_some_and(|other| *other != class) {
                        return Ok(true);
                    }
                    known.insert(colour, class);
                }
            }
        }
        Ok(false)
    }

    /// Numbers in the order in which a walk visits the classes.
    fn from(&self, start: usize, classes: &AlikeClasses, colours: &[Digest]) -> PyResult<Vec<usize>> {
        let mut numbers = vec![usize::MAX; classes.members.len()];
        let mut order = vec![start];
        numbers[start] = 0;
        let mut at = 0;
        while let Some(&class) = order.get(at) {
            at += 1;
            let node = classes.members[class][0];
            let by_colour = |node: usize| colours[classes.of[node]].to_vec();
            let child = self.child(node, &by_colour);
            let mut waiting = vec![self.nodes[node].0];
            while let Some(shape) = waiting.pop() {
                if let ObjectShape::Child(index) = shape {
                    if let CirclePart::Inside(part) = &self.nodes[node].1[*index] {
                        let class = classes.of[*part];
                        if numbers[class] == usize::MAX {
                            numbers[class] = order.len();
                            order.push(class);
                        }
                    }
                    continue;
                }
                let from = waiting.len();
                let mut entries = entries(shape, &mut waiting);
                waiting[from..].reverse();
                entries.retain(|entry| entry.iter().any(|shape| has_child(shape)));
                let mut sorted = Vec::with_capacity(entries.len());
                for entry in entries {
                    sorted.push((filled(&entry, self.references, &child)?, entry));
                }
                sorted.sort_by(|a, b| b.0.cmp(&a.0));
                waiting.extend(sorted.into_iter().flat_map(|(_, entry)| entry.into_iter().rev()));
            }
        }
        Ok(numbers)
    }
}

/// The class with the least unique colour.
fn lone(colours: &[Digest]) -> Option<usize> {
    let mut counts: HashMap<&Digest, (usize, usize)> = HashMap::with_capacity(colours.len());
    for (class, colour) in colours.iter().enumerate() {
        counts.entry(colour).or_insert((0, class)).0 += 1;
    }
    let lone = counts.into_iter().filter(|(_, (count, _))| *count == 1);
    lone.min_by(|a, b| a.0.cmp(b.0)).map(|(_, (_, class))| class)
}

/// The entries of a set or map; the parts of other shapes are added to `waiting`, in their order.
fn entries<'a>(shape: &'a ObjectShape, waiting: &mut Vec<&'a ObjectShape>) -> Vec<Vec<&'a ObjectShape>> {
    match shape {
        ObjectShape::Bytes(_) | ObjectShape::Child(_) => Vec::new(),
        ObjectShape::Array(_, parts) => {
            waiting.extend(parts);
            Vec::new()
        }
        ObjectShape::Object(object) => {
            waiting.extend([&object.1, &object.2]);
            Vec::new()
        }
        ObjectShape::Set(items) => items.iter().map(|item| vec![item]).collect(),
        ObjectShape::Map(pairs) => pairs.iter().map(|(key, value)| vec![key, value]).collect(),
    }
}

fn has_child(shape: &ObjectShape) -> bool {
    match shape {
        ObjectShape::Bytes(_) => false,
        ObjectShape::Child(_) => true,
        ObjectShape::Array(_, parts) | ObjectShape::Set(parts) => parts.iter().any(has_child),
        ObjectShape::Map(pairs) => pairs.iter().any(|(key, value)| has_child(key) || has_child(value)),
        ObjectShape::Object(object) => has_child(&object.1) || has_child(&object.2),
    }
}

impl AlikeClasses {
    /// Splits a class into pieces. `pieces`: the examined members, by their new signatures; the
    /// rest is unchanged.
    fn split(&mut self, class: usize, mut pieces: HashMap<Digest, Vec<usize>>, changed: &mut Vec<usize>) {
        let looked_at: usize = pieces.values().map(Vec::len).sum();
        let rest = self.members[class].len() - looked_at;
        // Members with an unchanged signature stay with the rest.
        let as_before =
            self.signature[class].filter(|_| rest > 0).and_then(|signature| pieces.remove(&signature));
        let rest = rest + as_before.map_or(0, |nodes| nodes.len());
        let largest = pieces.iter().map(|(signature, nodes)| (nodes.len(), *signature)).max();
        let Some((len, signature)) = largest else { return };
        if len > rest {
            let kept = pieces.remove(&signature).unwrap_or_default();
            let before = self.signature[class].replace(signature);
            if rest > 0 {
                // All members in no piece: fewer than the members that stay.
                let mut is_elsewhere: std::collections::HashSet<usize> = kept.into_iter().collect();
                is_elsewhere.extend(pieces.values().flatten().copied());
                let moved = self.members[class].iter().copied().filter(|node| !is_elsewhere.contains(node));
                let moved = moved.collect();
                self.move_out(moved, before, changed);
            }
        }
        for (signature, nodes) in pieces {
            self.move_out(nodes, Some(signature), changed);
        }
    }

    /// Makes a class of nodes of another class.
    fn move_out(&mut self, nodes: Vec<usize>, signature: Option<Digest>, changed: &mut Vec<usize>) {
        let class = self.members.len();
        for (place, &node) in nodes.iter().enumerate() {
            let members = &mut self.members[self.of[node]];
            let at = self.at[node];
            members.swap_remove(at);
            if let Some(&moved) = members.get(at) {
                self.at[moved] = at;
            }
            self.of[node] = class;
            self.at[node] = place;
        }
        changed.extend_from_slice(&nodes);
        self.members.push(nodes);
        self.signature.push(signature);
    }
}
