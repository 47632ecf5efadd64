//! An XDP program that passes everything: without one at the far end of a veth, what XDP sends back by the interface it
//! came by lies in the ring until something else rings there (`veth_xdp_flush`).

use std::{ffi::CString, fs, io, path::Path};

use anyhow::{Context as _, Result};
use foobar::kernel;

/// Where `ip link` finds it while it attaches it.
pub const PIN: &str = "/sys/fs/bpf/foobar-lab-pass";

/// Loads the program and pins it at [`PIN`].
///
/// # Errors
/// When the kernel refuses.
pub fn pin() -> Result<()> {
    kernel::mount_bpffs_if_absent()?;
    unpin()?;
    let path = CString::new(PIN)?;
    let program = load().context("cannot load an XDP program; are you root?")?;
    let pinned = call(
        OBJ_PIN,
        &mut Pin {
            path: path.as_ptr() as u64,
            program,
            ..Pin::default()
        },
    );
    // SAFETY: the descriptor is this function's own; the pin holds the program from here on.
    unsafe { libc::close(program.cast_signed()) };
    pinned.with_context(|| format!("cannot pin at {PIN}"))?;
    Ok(())
}

/// Takes the pin away; interfaces keep their program.
///
/// # Errors
/// When it cannot be removed.
pub fn unpin() -> Result<()> {
    if Path::new(PIN).exists() {
        fs::remove_file(PIN).with_context(|| format!("cannot remove {PIN}"))?;
    }
    Ok(())
}

fn load() -> io::Result<u32> {
    // r0 = XDP_PASS; exit
    let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
    let license = c"GPL";
    let descriptor = call(
        PROG_LOAD,
        &mut Load {
            kind: PROG_TYPE_XDP,
            count: 2,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            ..Load::default()
        },
    )?;
    u32::try_from(descriptor).map_err(io::Error::other)
}

/// The part of `union bpf_attr` for BPF_PROG_LOAD that is used here.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    more: [u64; 12],
}

/// For BPF_OBJ_PIN.
#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    program: u32,
    flags: u32,
    more: [u64; 2],
}

fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: the attributes are a whole, initialised prefix of `union bpf_attr` of the size given, and what they point to
    // outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const PROG_TYPE_XDP: u32 = 6;
