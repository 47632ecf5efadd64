//! The BPF programs: entry points, and a verdict's translation into an action.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod kernel;

use aya_ebpf::{
    bindings::{
        TC_ACT_OK, TC_ACT_SHOT,
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    },
    helpers::generated::bpf_redirect,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use foobar_ebpf::{pipeline, verdict::Action};
use kernel::{Maps, TcFrame, XdpFrame};

#[xdp(frags)]
pub fn ingress(context: XdpContext) -> u32 {
    let interface = context.ingress_ifindex() as u32;
    let mut frame = XdpFrame::new(context.ctx);
    let mut maps = Maps::new(context.ctx.cast(), interface);
    let Some(workspaces) = kernel::workspaces() else {
        return XDP_DROP;
    };
    match pipeline::ingress(&mut frame, &mut maps, workspaces).action() {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Transmit(out) if out == interface => XDP_TX,
        // SAFETY: a helper on two integers.
        Action::Transmit(out) => unsafe { bpf_redirect(out, 0) as u32 },
        // Not XDP_TX: veth hands that to a peer with an XDP program alone, a redirect to any with GRO.
        // SAFETY: as above.
        Action::Reflect => unsafe { bpf_redirect(interface, 0) as u32 },
    }
}

/// Run by user space with live frames: each run sends one frame that user space made.
#[xdp]
pub fn emit(context: XdpContext) -> u32 {
    match kernel::next_emission(context.ctx) {
        // SAFETY: a helper on two integers.
        Some(out) => unsafe { bpf_redirect(out, 0) as u32 },
        None => XDP_DROP,
    }
}

#[classifier]
pub fn egress(context: TcContext) -> i32 {
    let mut frame = TcFrame::new(context.skb.skb);
    // SAFETY: the kernel gives a valid context.
    let interface = unsafe { (*context.skb.skb).ifindex };
    let mut maps = Maps::new(context.skb.skb.cast(), interface);
    let Some(workspaces) = kernel::workspaces() else {
        return TC_ACT_SHOT;
    };
    match pipeline::egress(&mut frame, &mut maps, workspaces).action() {
        Action::Pass => TC_ACT_OK,
        Action::Drop | Action::Transmit(_) | Action::Reflect => TC_ACT_SHOT,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
