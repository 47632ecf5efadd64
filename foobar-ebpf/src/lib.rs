//! The packet path of foobar, pure: compiled into the BPF programs and tested on the host.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::integer_division_remainder_used
    )
)]

pub mod abi;
pub mod balancer;
pub mod family;
pub mod firewall;
pub mod flow;
pub mod frame;
pub mod guard;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
pub mod packet;
pub mod pipeline;
pub mod rewrite;
pub mod session;
pub mod tables;
pub mod verdict;
pub mod wire;
pub mod workspace;
