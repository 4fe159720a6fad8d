//! Python library objects for which `PyO3` has no name, looked up once, at first use.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyType, PyTzInfo};

macro_rules! library {
    ($($name:ident: $kind:ty = $module:literal, $attribute:literal;)*) => {$(
        pub(super) fn $name(py: Python<'_>) -> PyResult<&Bound<'_, $kind>> {
            static FOUND: PyOnceLock<Py<$kind>> = PyOnceLock::new();
            FOUND.import(py, $module, $attribute)
        }
    )*};
}

library! {
    timezone: PyType = "datetime", "timezone";
    zone_info: PyType = "zoneinfo", "ZoneInfo";
    decimal: PyType = "decimal", "Decimal";
    fraction: PyType = "fractions", "Fraction";
    uuid: PyType = "uuid", "UUID";
    enumeration: PyType = "enum", "Enum";
    pure_path: PyType = "pathlib", "PurePath";
    pure_posix_path: PyType = "pathlib", "PurePosixPath";
    pure_windows_path: PyType = "pathlib", "PureWindowsPath";
    posix_path: PyType = "pathlib", "PosixPath";
    windows_path: PyType = "pathlib", "WindowsPath";
    partial: PyType = "functools", "partial";
    method: PyType = "types", "MethodType";
    pickle_dumps: PyAny = "pickle", "dumps";
    pickle_loads: PyAny = "pickle", "loads";
    pickle_buffer: PyType = "pickle", "PickleBuffer";
    mapping_proxy: PyType = "types", "MappingProxyType";
    dict_keys: PyType = "_collections_abc", "dict_keys";
    dict_values: PyType = "_collections_abc", "dict_values";
    dict_items: PyType = "_collections_abc", "dict_items";
    ordered_dict: PyType = "collections", "OrderedDict";
    array: PyType = "array", "array";
    stand_in_of: PyAny = "cache._stand_ins", "of";
    equality_of: PyAny = "cache._equality", "of";
    dispatch_table: PyAny = "copyreg", "dispatch_table";
    new_object: PyAny = "copyreg", "__newobj__";
    new_object_ex: PyAny = "copyreg", "__newobj_ex__";
    slot_names: PyAny = "copyreg", "_slotnames";
    modules: PyAny = "sys", "modules";
    all_types: PyAny = "types", "__dict__";
    all_views: PyAny = "_collections_abc", "__dict__";
}

/// `object.__new__`.
pub(super) fn new_blank(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.get_type::<PyAny>().getattr(intern!(py, "__new__"))
}

/// `object.__setattr__`.
pub(super) fn set_attribute(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.get_type::<PyAny>().getattr(intern!(py, "__setattr__"))
}

/// Looks up objects in advance that are later needed where an error cannot be raised. One of them
/// is Python's module of dates: `PyO3` assumes that the module is present, and an interrupt of its
/// import would then be a panic.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    // First, because an interrupt during the import started by `PyO3` becomes an `ImportError`.
    timezone(py)?;
    PyTzInfo::utc(py)?;
    modules(py)?;
    Ok(())
}

/// Whether the object is of exactly this class.
pub(super) fn is_exactly(object: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> bool {
    object.get_type_ptr() == class.as_type_ptr()
}
