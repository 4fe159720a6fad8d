//! The objects to which an encoding by value refers: classes, functions and modules by name, other
//! objects by identity.
//!
//! Rules:
//! 1. If an object's name leads to it, the object is *named*: its name is in the encoding, and the
//!    object is kept, because another object may be found under the name later. Within one encoding
//!    a name stands for one object.
//! 2. Any other object is *itself*: its address is in the encoding, and the object is kept, so that
//!    no other object gets the address as long as the key lives. The encoding is then not stable.
//! 3. Equal encodings contain the same names. So two keys are equal if their encodings are, and the
//!    named objects in the order of their names. The order in which objects are visited has no
//!    meaning: for a set it differs each time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::names::QualifiedName;
use super::{ext, write};

/// Appends the encoding of an object. A function value, because `twins` encodes parts of arguments,
/// and the encoding of arguments looks for twins.
pub(super) type EncodeParts = fn(&Bound<'_, PyAny>, &mut Vec<u8>, &mut References) -> PyResult<()>;

/// The objects to which an encoding by value refers.
pub(crate) struct References {
    named: Vec<NamedObject>,
    /// Their names, if there are more than [`FEW`].
    names: HashSet<Arc<[u8]>>,
    itself: Vec<Py<PyAny>>,
    /// The places of the visited objects in `named` and `itself`.
    places: HashMap<usize, Reference>,
    last: Option<(usize, Reference)>,
    of_one_call: Option<Py<PyType>>,
    /// For objects compared by their class. None: the equality defined by classes is ignored, and
    /// the whole content represents an object.
    encode_parts: Option<EncodeParts>,
}

struct NamedObject {
    object: Py<PyAny>,
    /// Module and qualified name, as in the encoding.
    name: Arc<[u8]>,
}

/// Up to this number, names are searched one by one.
const FEW: usize = 16;

#[derive(Clone, Copy)]
pub(super) enum Reference {
    Named(usize),
    Itself(usize),
}

fn address(object: &Bound<'_, PyAny>) -> usize {
    object.as_ptr().addr()
}

impl References {
    /// For an encoding of an object's whole content, ignoring the equality defined by its class.
    pub(crate) fn by_content() -> Self {
        Self::new(None)
    }

    /// For an encoding in which classes with their own equality are asked (see `twins`).
    #[inline]
    pub(super) fn by_equality(encode_parts: EncodeParts) -> Self {
        Self::new(Some(encode_parts))
    }

    #[inline]
    fn new(encode_parts: Option<EncodeParts>) -> Self {
        Self {
            named: Vec::new(),
            names: HashSet::new(),
            itself: Vec::new(),
            places: HashMap::new(),
            last: None,
            of_one_call: None,
            encode_parts,
        }
    }

    /// None: the encoding is by content.
    pub(super) fn encode_parts(&self) -> Option<EncodeParts> {
        self.encode_parts
    }

    /// Whether every name in the encoding leads to the object named, so that another process will
    /// find the same objects.
    pub(crate) fn is_stable(&self) -> bool {
        self.itself.is_empty()
    }

    /// The visited classes, functions and modules, in the order of their names, then the objects
    /// represented by identity only.
    pub(crate) fn into_types(mut self) -> Vec<Py<PyAny>> {
        // Rule 3.
        self.named.sort_by(|a, b| a.name.cmp(&b.name));
        self.itself.sort_by_key(|object| object.as_ptr().addr());
        self.named.into_iter().map(|named| named.object).chain(self.itself).collect()
    }

    /// The class of the first visited object that belongs to one call of a function, such as a
    /// request.
    pub(crate) fn of_one_call(&mut self) -> Option<Py<PyType>> {
        self.of_one_call.take()
    }

    /// Records an object by its name, if the name leads to the object, and otherwise by its
    /// identity.
    pub(super) fn name<'py>(
        &mut self,
        object: &Bound<'py, PyAny>,
        name: impl FnOnce() -> PyResult<QualifiedName<'py>>,
    ) -> PyResult<Reference> {
        let at = address(object);
        if let Some((_, reference)) = self.last.filter(|last| last.0 == at) {
            return Ok(reference);
        }
        let reference = match self.places.get(&at) {
            Some(&reference) => reference,
            None => self.name_new(object, &name()?)?,
        };
        self.last = Some((at, reference));
        Ok(reference)
    }

    fn name_new<'py>(
        &mut self,
        object: &Bound<'py, PyAny>,
        name: &QualifiedName<'py>,
    ) -> PyResult<Reference> {
        let mut bytes = Vec::with_capacity(64);
        name.write(&mut bytes)?;
        // Code that ran in the meantime may have put another object under the name.
        let is_taken = if self.names.is_empty() {
            self.named.iter().any(|named| *named.name == *bytes)
        } else {
            self.names.contains(&*bytes)
        };
        // Rule 1.
        if is_taken || !name.leads_to(object) {
            return Ok(self.itself(object));
        }
        let reference = Reference::Named(self.named.len());
        self.named.push(NamedObject { object: object.clone().unbind(), name: bytes.into() });
        if self.named.len() > FEW {
            // The first time all names, and then the last one.
            let new =
                if self.names.is_empty() { &self.named[..] } else { &self.named[self.named.len() - 1..] };
            self.names.extend(new.iter().map(|named| Arc::clone(&named.name)));
        }
        self.places.insert(address(object), reference);
        Ok(reference)
    }

    /// Records an object by its identity.
    pub(super) fn itself(&mut self, object: &Bound<'_, PyAny>) -> Reference {
        let at = address(object);
        if let Some(&reference @ Reference::Itself(_)) = self.places.get(&at) {
            return reference;
        }
        // Rule 2.
        let reference = Reference::Itself(self.itself.len());
        self.itself.push(object.clone().unbind());
        self.places.insert(at, reference);
        reference
    }

    /// Keeps an object whose address is in an encoding.
    pub(super) fn note_of_one_call(&mut self, class: &Bound<'_, PyType>) {
        if self.of_one_call.is_none() {
            self.of_one_call = Some(class.clone().unbind());
        }
    }

    /// Appends a name (two strings) or an identity; returns the number of array items appended.
    pub(super) fn write(&self, reference: Reference, out: &mut Vec<u8>) -> PyResult<()> {
        match reference {
            Reference::Named(index) => {
                out.extend_from_slice(&self.named[index].name);
                Ok(())
            }
            Reference::Itself(index) => {
                let at = self.itself[index].as_ptr().addr() as u64;
                write::ext(out, ext::IDENTITY, &at.to_be_bytes())
            }
        }
    }
}

impl Reference {
    /// The number of array items appended by [`References::write`].
    pub(super) fn width(self) -> usize {
        match self {
            Self::Named(_) => 2,
            Self::Itself(_) => 1,
        }
    }
}
