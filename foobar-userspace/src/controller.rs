//! The loop: observations in, desired state out, differences applied.

pub mod apply;
pub mod checks;
pub mod hops;
pub mod notify;
pub mod secret;
