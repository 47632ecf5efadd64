//! foobar's user space: configuration, pure decisions, and the edges that carry them out.
#![deny(unsafe_code)]

pub mod admin;
pub mod config;
pub mod firewall;
pub mod labels;
pub mod stable;
