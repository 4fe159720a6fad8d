//! The garbage collector's view: the single way to show the Python objects held by a value.
//!
//! A value that holds objects implements [`Visit`], with [`visits!`] if its fields suffice. Rules:
//!
//! 1. A value shows every object to which it owns a reference, and no other object: the collector
//!    compares the reference counts with the shown objects. An object not shown is never collected
//!    in a circle; an object shown without being owned may be freed while in use.
//! 2. A visit allocates nothing, takes no lock and runs no Python code.
//! 3. Borrowed state shows nothing: the collector runs in the middle of the borrower's work, whose
//!    stack holds the objects.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

use pyo3::{Py, PyTraverseError, PyVisit, ffi};

use super::{GilCell, Ref};

/// A value that holds Python objects.
pub(crate) trait Visit {
    /// Shows each of the objects.
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped>;
}

/// The collector, as it calls the class of an object. Both kinds do the same, for classes made in
/// different ways.
#[derive(Clone, Copy)]
pub(crate) struct Visitor<'a>(VisitorKind<'a>);

#[derive(Clone, Copy)]
enum VisitorKind<'a> {
    /// A class made by `PyO3`.
    Class(PyVisit<'a>),
    /// A class of this module: the function that receives an object, and the function's argument.
    Slot(ffi::visitproc, *mut c_void),
}

/// The collector stops the visit.
pub(crate) enum VisitStopped {
    Class(PyTraverseError),
    Slot(c_int),
}

impl Visitor<'_> {
    /// Shows one object.
    pub(crate) fn show<T>(self, object: &Py<T>) -> Result<(), VisitStopped> {
        match self.0 {
            VisitorKind::Class(visit) => visit.call(object).map_err(VisitStopped::Class),
            VisitorKind::Slot(visit, argument) => {
                // SAFETY: the collector's own function and argument, which are valid until
                // `tp_traverse` returns; `from_slot` lets no `Visitor` live longer. The object is
                // alive, since `object` owns a reference.
                match unsafe { visit(object.as_ptr(), argument) } {
                    0 => Ok(()),
                    stop => Err(VisitStopped::Slot(stop)),
                }
            }
        }
    }
}

/// The body of `__traverse__` of a class made by `PyO3`.
pub(crate) fn traverse(value: &impl Visit, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
    match value.visit(Visitor(VisitorKind::Class(visit))) {
        Err(VisitStopped::Class(stop)) => Err(stop),
        // The visitor was made right here, and stops with no other kind.
        Ok(()) | Err(VisitStopped::Slot(_)) => Ok(()),
    }
}

/// The body of `tp_traverse` of a class of this module.
///
/// # Safety
/// `visit` and `argument` are those passed to `tp_traverse` by the collector.
pub(super) unsafe fn from_slot(value: &impl Visit, visit: ffi::visitproc, argument: *mut c_void) -> c_int {
    match value.visit(Visitor(VisitorKind::Slot(visit, argument))) {
        Err(VisitStopped::Slot(stop)) => stop,
        // As above.
        Ok(()) | Err(VisitStopped::Class(_)) => 0,
    }
}

impl<T> Visit for Py<T> {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        visitor.show(self)
    }
}

impl<T> Visit for Ref<T> {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        visitor.show(&self.0)
    }
}

impl<V: Visit> Visit for Option<V> {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.as_ref().map_or(Ok(()), |value| value.visit(visitor))
    }
}

impl<V: Visit> Visit for [V] {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.iter().try_for_each(|value| value.visit(visitor))
    }
}

impl<V: Visit> Visit for Vec<V> {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.as_slice().visit(visitor)
    }
}

impl<V: Visit + ?Sized> Visit for Box<V> {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        (**self).visit(visitor)
    }
}

impl<A: Visit, B: Visit> Visit for (A, B) {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.0.visit(visitor)?;
        self.1.visit(visitor)
    }
}

impl<K, V: Visit> Visit for BTreeMap<K, V> {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.values().try_for_each(|value| value.visit(visitor))
    }
}

impl<V: Visit> Visit for GilCell<V> {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        // Rule 3.
        self.peek(|value| value.visit(visitor)).unwrap_or(Ok(()))
    }
}

/// Implements [`Visit`]: names the fields of a struct, or the variants of an enum, that hold Python
/// objects.
///
/// ```text
/// visits!(struct LoadFlight { room, key });
/// visits!(enum Work { Loader(loader), Batch(loader) });
/// ```
macro_rules! visits {
    ($(impl<$parameter:ident>)? struct $type:ty { $($field:ident),+ $(,)? }) => {
        impl$(<$parameter>)? $crate::raw::visit::Visit for $type {
            fn visit(&self, visitor: $crate::raw::visit::Visitor<'_>) -> Result<(), $crate::raw::visit::VisitStopped> {
                $($crate::raw::visit::Visit::visit(&self.$field, visitor)?;)+
                Ok(())
            }
        }
    };
    (enum $type:ty { $($variant:ident $(($($object:ident),+))? $({$($field:ident),+})?),+ $(,)? }) => {
        impl $crate::raw::visit::Visit for $type {
            fn visit(&self, visitor: $crate::raw::visit::Visitor<'_>) -> Result<(), $crate::raw::visit::VisitStopped> {
                match self {
                    $(Self::$variant $(($($object),+))? $({$($field),+ , ..})? => {
                        $($($crate::raw::visit::Visit::visit($object, visitor)?;)+)?
                        $($($crate::raw::visit::Visit::visit($field, visitor)?;)+)?
                    })+
                    #[allow(unreachable_patterns)] // an enum whose variants are all named
                    _ => {}
                }
                Ok(())
            }
        }
    };
}

pub(crate) use visits;
