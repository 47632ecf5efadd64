//! Programs for the bench: floors to compare with, and the wrapper that restores the frame before every round.
#![no_std]
#![no_main]

use aya_ebpf::{
    Global,
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    btf_maps::{Array, PerCpuArray, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// Bytes of the template frame: room for Ethernet, IPv6 and TCP.
const LENGTH: usize = 80;

/// The frame that every round begins with; eight bytes a word.
#[btf_map]
static TEMPLATE: Array<[u64; LENGTH / 8], 1> = Array::new();
#[btf_map]
static ROUND: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

/// Flows less one; a power of two less one.
#[unsafe(no_mangle)]
static FLOWS: Global<u64> = Global::new(0);
/// 4 or 6: where the template has the client's address and port.
#[unsafe(no_mangle)]
static FAMILY: Global<u32> = Global::new(4);

/// Restores the frame, gives it the next flow's address and port, and tail-calls the program under test.
#[xdp(frags)]
pub fn wrapper(context: XdpContext) -> u32 {
    restore(&context);
    // SAFETY: a tail call does not return, or returns here with the frame in place.
    unsafe {
        UNDER_TEST.tail_call(&context, 0);
    }
    XDP_ABORTED
}

#[inline(always)]
fn restore(context: &XdpContext) -> Option<()> {
    let start = context.data();
    if start + LENGTH > context.data_end() {
        return None;
    }
    let template = TEMPLATE.get(0)?;
    let round = ROUND.get_ptr_mut(0)?;
    // SAFETY: the frame has `LENGTH` bytes by the comparison above; the round is this CPU's own.
    unsafe {
        *(start as *mut [u64; LENGTH / 8]) = *template;
        *round += 1;
        // Odd, so that all flows come, in no order that a prefetcher could follow.
        let flow = (*round).wrapping_mul(0x9e37_79b1) & FLOWS.load();
        if FAMILY.load() == 4 {
            *((start + 28) as *mut u16) ^= (flow >> 10) as u16;
            *((start + 34) as *mut u16) ^= (flow & 0x3ff) as u16;
        } else {
            *((start + 36) as *mut u16) ^= (flow >> 10) as u16;
            *((start + 54) as *mut u16) ^= (flow & 0x3ff) as u16;
        }
    }
    Some(())
}

#[xdp(frags)]
pub fn floor_drop(_context: XdpContext) -> u32 {
    XDP_DROP
}

#[xdp(frags)]
pub fn floor_tx(_context: XdpContext) -> u32 {
    XDP_TX
}

/// Ethernet, IP and TCP looked at, hardware addresses swapped: the least that a forwarder does.
#[xdp(frags)]
pub fn floor_parse_swap_tx(context: XdpContext) -> u32 {
    let start = context.data();
    let end = context.data_end();
    if start + 14 + 20 + 20 > end {
        return XDP_PASS;
    }
    // SAFETY: within the bytes compared above, or below; natural widths.
    unsafe {
        match *((start + 12) as *const u16) {
            ETHERTYPE_V4 => {
                if *((start + 14) as *const u8) != 0x45 || *((start + 23) as *const u8) != 6 {
                    return XDP_PASS;
                }
            }
            ETHERTYPE_V6 => {
                if start + 14 + 40 + 20 > end || *((start + 20) as *const u8) != 6 {
                    return XDP_PASS;
                }
            }
            _ => return XDP_PASS,
        }
        let macs = start as *mut [u32; 3];
        let [a, b, c] = *macs;
        // Destination a, b.low; source b.high, c: swapped.
        *macs = [b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16];
    }
    XDP_TX
}

const ETHERTYPE_V4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_V6: u16 = 0x86dd_u16.to_be();

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
