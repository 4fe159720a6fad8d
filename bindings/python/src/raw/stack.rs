//! The remaining stack of the running thread.

/// Bytes from here to the end of the thread's stack; `None` if the system does not report the
/// limits.
#[cfg(target_os = "linux")]
pub(crate) fn left() -> Option<usize> {
    use std::cell::Cell;

    thread_local! {
        /// The lowest address of the thread's stack, after the first request; 0 if the system does
        /// not report the address.
        static LOWEST: Cell<Option<usize>> = const { Cell::new(None) };
    }
    let here = 0_u8;
    let here = (&raw const here).addr();
    let lowest = LOWEST.get().unwrap_or_else(|| {
        let lowest = lowest_address().unwrap_or(0);
        LOWEST.set(Some(lowest));
        lowest
    });
    // On a stack other than the thread's own (for example in a coroutine of a C library) the
    // difference has no meaning.
    here.checked_sub(lowest).filter(|_| lowest != 0)
}

#[cfg(target_os = "linux")]
fn lowest_address() -> Option<usize> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the attributes are initialised by `pthread_getattr_np` if the function returns 0, are
    // read only then, and are destroyed once. The thread asks for its own attributes, so it is
    // alive.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
        let told = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        (told == 0).then(|| lowest.addr())
    }
}

/// Bytes from here to the end of the thread's stack; `None` if the system does not report the
/// limits.
#[cfg(not(target_os = "linux"))]
pub(crate) fn left() -> Option<usize> {
    None
}
