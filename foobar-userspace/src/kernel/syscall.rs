//! bpf(2) itself, for the commands that aya does not know.
#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

use std::{io, mem};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Attributes that say nothing yet.
pub(super) fn attributes() -> bpf_attr {
    // SAFETY: a union of integers and arrays of them, of which zero is a value.
    unsafe { mem::zeroed() }
}

/// # Safety
/// What the attributes point to holds all that the command reads from there and writes there.
///
/// # Errors
/// As bpf(2).
pub(super) unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<()> {
    // SAFETY: the attributes are whole, and the caller answers for what they point to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            libc::c_long::from(command as u32),
            &raw mut *attributes,
            size_of::<bpf_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
