//! What Python's library defines and `PyO3` has no name for, looked up once, when first needed.

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
    array: PyType = "array", "array";
    dispatch_table: PyAny = "copyreg", "dispatch_table";
    new_object: PyAny = "copyreg", "__newobj__";
    new_object_ex: PyAny = "copyreg", "__newobj_ex__";
    slot_names: PyAny = "copyreg", "_slotnames";
    modules: PyAny = "sys", "modules";
    all_types: PyAny = "types", "__dict__";
}

/// Looks up at the start what is looked up later where an error cannot be raised. Python's module of
/// dates is one of these: `PyO3` takes it for granted, and an interrupt of its import then is a panic.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    // First, for what interrupts the import that `PyO3` asks for becomes an `ImportError`.
    timezone(py)?;
    PyTzInfo::utc(py)?;
    modules(py)?;
    Ok(())
}

/// What is known of classes so far: whether their instances hide something (see `reduce`). A dict that keeps no class
/// alive.
pub(super) fn hiding_classes(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static MADE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = MADE.get_or_try_init(py, || -> PyResult<_> {
        Ok(py.import("weakref")?.getattr("WeakKeyDictionary")?.call0()?.unbind())
    })?;
    Ok(made.bind(py))
}

/// Whether the object is of exactly this class.
pub(super) fn is_exactly(object: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> bool {
    object.get_type_ptr() == class.as_type_ptr()
}
