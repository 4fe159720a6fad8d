//! What an encoding by value refers to: classes, functions and modules by name, and what is known
//! by identity.
//!
//! Rules:
//! 1. What its name leads to is *named*: its name is in the encoding, and the object is kept, for
//!    another one may be found under the name later. Within one encoding a name stands for one
//!    object.
//! 2. Anything else is *itself*: its address is in the encoding, and the object is kept, so that no
//!    other one gets the address as long as the key lives. Then the encoding is not stable.
//! 3. Equal encodings name the same names. So two keys are equal if their encodings are, and the
//!    named objects in the order of their names. The order in which objects are met says nothing:
//!    that of a set is another one each time.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::names::Name;
use super::{ext, write};

/// What an encoding by value refers to.
#[derive(Default)]
pub(crate) struct Found {
    named: Vec<Named>,
    itself: Vec<Py<PyAny>>,
    /// Where what was met stands in the two.
    places: HashMap<usize, Place>,
    last: Option<(usize, Place)>,
    of_one_call: Option<Py<PyType>>,
    /// Objects whose classes have an equality of their own are known by all that they hold, too.
    by_content: bool,
}

struct Named {
    object: Py<PyAny>,
    /// Module and qualified name, as the encoding has them.
    name: Box<[u8]>,
}

#[derive(Clone, Copy)]
pub(super) enum Place {
    Named(usize),
    Itself(usize),
}

fn address(object: &Bound<'_, PyAny>) -> usize {
    object.as_ptr().addr()
}

impl Found {
    /// For an encoding that says all that there is to an object, whatever its class calls equal.
    pub(crate) fn by_content() -> Self {
        Self { by_content: true, ..Self::default() }
    }

    pub(super) fn is_by_content(&self) -> bool {
        self.by_content
    }

    /// Whether every name in the encoding leads to what was met under it, so that another process
    /// will find the same there.
    pub(crate) fn is_stable(&self) -> bool {
        self.itself.is_empty()
    }

    /// The classes, functions and modules that were met, in the order of their names, then the
    /// objects that are known by identity only.
    pub(crate) fn into_types(mut self) -> Vec<Py<PyAny>> {
        // Rule 3.
        self.named.sort_by(|a, b| a.name.cmp(&b.name));
        self.itself.sort_by_key(|object| object.as_ptr().addr());
        self.named.into_iter().map(|named| named.object).chain(self.itself).collect()
    }

    /// The class of the first object that was met and belongs to one call of a function, such as a
    /// request.
    pub(crate) fn of_one_call(&mut self) -> Option<Py<PyType>> {
        self.of_one_call.take()
    }

    /// Notes an object that is known by its name, if that leads to it, and else by its identity.
    pub(super) fn name<'py>(
        &mut self,
        object: &Bound<'py, PyAny>,
        name: impl FnOnce() -> PyResult<Name<'py>>,
    ) -> PyResult<Place> {
        let at = address(object);
        if let Some((_, place)) = self.last.filter(|last| last.0 == at) {
            return Ok(place);
        }
        let place = match self.places.get(&at) {
            Some(&place) => place,
            None => self.name_new(object, &name()?)?,
        };
        self.last = Some((at, place));
        Ok(place)
    }

    fn name_new<'py>(&mut self, object: &Bound<'py, PyAny>, name: &Name<'py>) -> PyResult<Place> {
        let mut bytes = Vec::with_capacity(64);
        name.write(&mut bytes)?;
        // Code that ran meanwhile may have put another object there.
        let is_taken = self.named.iter().any(|named| *named.name == *bytes);
        // Rule 1.
        if is_taken || !name.leads_to(object) {
            return Ok(self.itself(object));
        }
        let place = Place::Named(self.named.len());
        self.named.push(Named { object: object.clone().unbind(), name: bytes.into() });
        self.places.insert(address(object), place);
        Ok(place)
    }

    /// Notes an object that is known by its identity.
    pub(super) fn itself(&mut self, object: &Bound<'_, PyAny>) -> Place {
        let at = address(object);
        if let Some(&place @ Place::Itself(_)) = self.places.get(&at) {
            return place;
        }
        // Rule 2.
        let place = Place::Itself(self.itself.len());
        self.itself.push(object.clone().unbind());
        self.places.insert(at, place);
        place
    }

    /// Keeps an object that an encoding has the address of.
    pub(super) fn note_of_one_call(&mut self, class: &Bound<'_, PyType>) {
        if self.of_one_call.is_none() {
            self.of_one_call = Some(class.clone().unbind());
        }
    }

    /// Appends a name, two strings, or an identity; returns how many items of an array that is.
    pub(super) fn write(&self, place: Place, out: &mut Vec<u8>) -> PyResult<()> {
        match place {
            Place::Named(index) => {
                out.extend_from_slice(&self.named[index].name);
                Ok(())
            }
            Place::Itself(index) => {
                let at = self.itself[index].as_ptr().addr() as u64;
                write::ext(out, ext::IDENTITY, &at.to_be_bytes())
            }
        }
    }
}

impl Place {
    /// How many items of an array [`Found::write`] appends.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Named(_) => 2,
            Self::Itself(_) => 1,
        }
    }
}
