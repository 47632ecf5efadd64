//! The administration socket: what can be asked of a running controller.

pub mod api;
