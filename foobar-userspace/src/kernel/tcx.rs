//! Which programs a device's egress runs, by their ids: what CAP_NET_ADMIN suffices for.
#![expect(
    unsafe_code,
    reason = "aya's query opens each program, which takes CAP_SYS_ADMIN; bpf(2) takes pointers"
)]

use std::io;

use aya_obj::generated::{bpf_attach_type::BPF_TCX_EGRESS, bpf_cmd::BPF_PROG_QUERY};

use super::syscall;

/// The programs on the way out of a device, in their order.
///
/// # Errors
/// As bpf(2).
pub(super) fn on_egress(device: u32) -> io::Result<Vec<u32>> {
    let mut programs = vec![0_u32; MOST];
    let mut attributes = syscall::attributes();
    attributes.query.__bindgen_anon_1.target_ifindex = device;
    attributes.query.attach_type = BPF_TCX_EGRESS as u32;
    attributes.query.prog_ids = programs.as_mut_ptr() as u64;
    attributes.query.__bindgen_anon_2.count = u32::try_from(MOST).unwrap_or(u32::MAX);
    // SAFETY: the kernel writes at most as many ids as `count` says, and there is room for these.
    unsafe { syscall::bpf(BPF_PROG_QUERY, &mut attributes) }?;
    // SAFETY: written by the kernel, an integer.
    let count = unsafe { attributes.query.__bindgen_anon_2.count };
    programs.truncate(usize::try_from(count).unwrap_or(MOST));
    Ok(programs)
}

/// The kernel runs no more on one hook.
const MOST: usize = 64;
