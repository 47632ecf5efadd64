//! The BPF programs: entry points, and a verdict's translation into an action.
#![no_std]
#![no_main]

mod kernel;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

#[xdp(frags)]
pub fn ingress(_context: XdpContext) -> u32 {
    XDP_PASS
}

#[classifier]
pub fn egress(_context: TcContext) -> i32 {
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
