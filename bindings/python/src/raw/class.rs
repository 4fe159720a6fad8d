//! Classes made by this module, and the slots common to all of their objects.
//!
//! An object of these classes is an [`Instance`]: a head for the interpreter, and a body, which is
//! a value of Rust. Rules:
//!
//! 1. the body is initialised from creation to the end of `dealloc` and never changes;
//! 2. an object is removed from the collector's lists before its body is dropped, so that no visit
//!    sees an incomplete body. The object's reference to its class is released last;
//! 3. the collector clears the `__dict__` of an object and nothing else. Circles of references
//!    through a body also go through objects with a `tp_clear` of their own;
//! 4. a class and the tables to which the class points live as long as the process.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, offset_of};
use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::Ref;
use super::visit::{self, Visit};

/// The place for the class of objects with the body `B`: one place for each body, so that the class
/// of an object determines the body.
pub(crate) struct Class<B>(PyOnceLock<Py<PyType>>, PhantomData<fn(B) -> B>);

impl<B> Class<B> {
    pub(crate) const fn new() -> Self {
        Self(PyOnceLock::new(), PhantomData)
    }

    /// The class, made by `make` at its first use.
    pub(super) fn get_or_make<'py>(
        &self,
        py: Python<'py>,
        make: impl FnOnce() -> PyResult<Bound<'py, PyType>>,
    ) -> PyResult<&Bound<'py, PyType>> {
        Ok(self.0.get_or_try_init(py, || make().map(Bound::unbind))?.bind(py))
    }
}

/// An object with the body `B`.
#[repr(C)]
pub(super) struct Instance<B> {
    base: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    dict: *mut ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
    body: ManuallyDrop<B>,
}

/// The offsets of the fields of an [`Instance`], for the tables of its class.
pub(super) struct Offsets<B>(PhantomData<B>);

impl<B> Offsets<B> {
    pub(super) const VECTORCALL: usize = offset_of!(Instance<B>, vectorcall);
    pub(super) const DICT: usize = offset_of!(Instance<B>, dict);
    pub(super) const WEAKREFS: usize = offset_of!(Instance<B>, weakrefs);
    pub(super) const BODY: usize = offset_of!(Instance<B>, body);
}

/// Makes an object.
///
/// # Safety
/// `class` was made of [`Blueprint::of_object`] for `B`, and the thread is attached.
pub(super) unsafe fn make<B>(
    py: Python<'_>,
    class: *mut ffi::PyTypeObject,
    vectorcall: ffi::vectorcallfunc,
    body: B,
) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the class has the size of `Instance<B>`; every field is written before other code
    // sees the object.
    unsafe {
        let object = ffi::PyObject_GC_New::<ffi::PyObject>(class);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let this = object.cast::<Instance<B>>();
        (&raw mut (*this).vectorcall).write(Some(vectorcall));
        (&raw mut (*this).dict).write(null_mut());
        (&raw mut (*this).weakrefs).write(null_mut());
        (&raw mut (*this).body).write(ManuallyDrop::new(body));
        ffi::PyObject_GC_Track(object.cast());
        Ok(Bound::from_owned_ptr(py, object))
    }
}

/// The body of an object; `None` for an object of another class.
#[inline]
pub(super) fn body_of<'a, B>(class: &Class<B>, object: &'a Bound<'_, PyAny>) -> Option<&'a B> {
    let class = class.0.get(object.py())?;
    // SAFETY: the class is checked, and is the class of `B`'s objects only. The body exists as long
    // as the object (rule 1).
    is_exactly(object, class).then(|| unsafe { body(object.as_ptr()) })
}

/// Whether an object has the given class. `get_type` would count a reference to the class, and from
/// Python 3.12 on a count that is written (in half its width) and read again at once makes the
/// processor wait.
#[inline]
pub(super) fn is_exactly(object: &Bound<'_, PyAny>, class: &Py<PyType>) -> bool {
    // SAFETY: attached, and the object is alive.
    let found = unsafe { ffi::Py_TYPE(object.as_ptr()) };
    std::ptr::eq(found, class.as_ptr().cast())
}

/// The body of the object passed to a slot.
///
/// # Safety
/// The object has the body `B`, and lives as long as the reference is used.
#[inline]
pub(super) unsafe fn body<'a, B>(object: *mut ffi::PyObject) -> &'a B {
    // SAFETY: promised by the caller; rule 1.
    unsafe { &(*object.cast::<Instance<B>>()).body }
}

/// The parts of a class. The slots, and the functions in the tables, have the signatures with which
/// the interpreter calls them.
pub(super) struct Blueprint {
    name: &'static CStr,
    size: usize,
    flags: std::ffi::c_ulong,
    slots: Vec<ffi::PyType_Slot>,
    members: Vec<ffi::PyMemberDef>,
    attributes: Vec<ffi::PyGetSetDef>,
    methods: Vec<ffi::PyMethodDef>,
}

impl Blueprint {
    /// Of a class whose objects are an `O`, which begins with a `PyObject`.
    pub(super) fn new<O>(name: &'static CStr, flags: std::ffi::c_ulong) -> Self {
        Self {
            name,
            size: size_of::<O>(),
            flags: ffi::Py_TPFLAGS_DEFAULT | flags,
            slots: Vec::new(),
            members: Vec::new(),
            attributes: Vec::new(),
            methods: Vec::new(),
        }
    }

    /// Of a class whose objects are an [`Instance`] with the body `B`: known to the collector, and
    /// called by vectorcall.
    pub(super) fn of_object<B: Visit>(name: &'static CStr, flags: std::ffi::c_ulong) -> Self {
        Self::new::<Instance<B>>(name, ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_HAVE_VECTORCALL | flags)
            .slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void)
            .slot(ffi::Py_tp_dealloc, dealloc::<B> as *mut c_void)
            .slot(ffi::Py_tp_traverse, traverse::<B> as *mut c_void)
            .slot(ffi::Py_tp_clear, clear::<B> as *mut c_void)
            .member(c"__vectorcalloffset__", ffi::Py_T_PYSSIZET, Offsets::<B>::VECTORCALL)
    }

    pub(super) fn slot(mut self, slot: c_int, function: *mut c_void) -> Self {
        self.slots.push(ffi::PyType_Slot { slot, pfunc: function });
        self
    }

    /// A field of the objects, which Python code may read.
    pub(super) fn member(mut self, name: &'static CStr, type_code: c_int, offset: usize) -> Self {
        self.members.push(ffi::PyMemberDef {
            name: name.as_ptr(),
            type_code,
            offset: offset.cast_signed(),
            flags: ffi::Py_READONLY,
            doc: std::ptr::null(),
        });
        self
    }

    /// An attribute; `get` is called with the attribute's name as closure.
    pub(super) fn attribute(mut self, name: &'static CStr, get: ffi::getter) -> Self {
        self.attributes.push(ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get),
            set: None,
            doc: std::ptr::null(),
            closure: name.as_ptr().cast_mut().cast(),
        });
        self
    }

    /// The `__dict__`, at the offset given by `__dictoffset__`.
    pub(super) fn dict(mut self) -> Self {
        self.attributes.push(ffi::PyGetSetDef {
            name: c"__dict__".as_ptr(),
            get: Some(ffi::PyObject_GenericGetDict),
            set: Some(ffi::PyObject_GenericSetDict),
            doc: std::ptr::null(),
            closure: null_mut(),
        });
        self
    }

    pub(super) fn method(
        mut self,
        name: &'static CStr,
        call: ffi::PyCFunction,
        flags: c_int,
        doc: &'static CStr,
    ) -> Self {
        self.methods.push(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: call },
            ml_flags: flags,
            ml_doc: doc.as_ptr(),
        });
        self
    }

    /// Makes the class.
    ///
    /// # Safety
    /// All functions have the signatures required by their slots, flags and tables; the fields have
    /// the given offsets and types; the thread is attached.
    pub(super) unsafe fn make(self, py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
        let Self { name, size, flags, mut slots, mut members, mut attributes, mut methods } = self;
        // SAFETY: all zeros end these lists.
        let (no_member, no_attribute) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        members.push(no_member);
        attributes.push(no_attribute);
        methods.push(ffi::PyMethodDef::zeroed());
        // Rule 4: the class keeps pointers to the tables.
        let tables = [
            (ffi::Py_tp_members, members.leak().as_mut_ptr().cast()),
            (ffi::Py_tp_getset, attributes.leak().as_mut_ptr().cast()),
            (ffi::Py_tp_methods, methods.leak().as_mut_ptr().cast()),
            (0, null_mut()),
        ];
        slots.extend(tables.map(|(slot, pfunc)| ffi::PyType_Slot { slot, pfunc }));
        let mut spec = ffi::PyType_Spec {
            name: name.as_ptr(),
            basicsize: c_int::try_from(size)?,
            itemsize: 0,
            flags: u32::try_from(flags)?,
            slots: slots.as_mut_ptr(),
        };
        // SAFETY: promised by the caller; the slots end with a zero, and are copied; the layout
        // begins with `PyObject`.
        unsafe {
            let class = Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))?;
            Ok(class.cast_into_unchecked::<PyType>())
        }
    }
}

/// A body whose object shows attributes of another object as its own.
pub(super) trait Forward: Visit {
    /// The object whose attributes are shown.
    fn owner(&self) -> &Ref;
    /// The object with a certain attribute. `None`, for `__class__` only: the value is the object's
    /// own class.
    fn owner_of(&self, _name: &CStr) -> Option<&Ref> {
        Some(self.owner())
    }
}

/// The getter of a forwarded attribute, whose name is in `closure`.
pub(super) unsafe extern "C" fn forward<B: Forward>(
    object: *mut ffi::PyObject,
    closure: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: attached; the object has the body `B`; `closure` is the name, stored by
    // `Blueprint::attribute`.
    unsafe {
        let name = CStr::from_ptr(closure.cast_const().cast());
        match body::<B>(object).owner_of(name) {
            Some(owner) => ffi::PyObject_GetAttrString(owner.pointer(), name.as_ptr()),
            None => ffi::Py_NewRef(ffi::Py_TYPE(object).cast()),
        }
    }
}

/// `tp_getattro` of objects that forward all missing attributes.
pub(super) unsafe extern "C" fn forward_rest<B: Forward>(
    object: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached; the object has the body `B`; the exception is removed only if it is an
    // `AttributeError`.
    unsafe {
        let own = ffi::PyObject_GenericGetAttr(object, name);
        if !own.is_null() || ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
            return own;
        }
        ffi::PyErr_Clear();
        ffi::PyObject_GetAttr(body::<B>(object).owner().pointer(), name)
    }
}

unsafe extern "C" fn dealloc<B>(object: *mut ffi::PyObject) {
    let this = object.cast::<Instance<B>>();
    // SAFETY: called once, when the last reference is gone. Rule 2.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*this).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        let dict = std::mem::replace(&mut (*this).dict, null_mut());
        ffi::Py_XDECREF(dict);
        ManuallyDrop::drop(&mut (*this).body);
        let class = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse<B: Visit>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let this = object.cast::<Instance<B>>();
    // SAFETY: the collector passes live objects of this class, and its own function and argument.
    unsafe {
        for held in [ffi::Py_TYPE(object).cast(), (*this).dict] {
            if !held.is_null() {
                let stop = visit(held, argument);
                if stop != 0 {
                    return stop;
                }
            }
        }
        visit::from_slot(&*(*this).body, visit, argument)
    }
}

unsafe extern "C" fn clear<B>(object: *mut ffi::PyObject) -> c_int {
    let this = object.cast::<Instance<B>>();
    // SAFETY: the object is unreachable. Rule 3.
    unsafe {
        let dict = std::mem::replace(&mut (*this).dict, null_mut());
        ffi::Py_XDECREF(dict);
    }
    0
}
