//! The administration socket: what can be asked of a running controller, and by whom.

mod access;
mod accounts;
pub mod api;
pub mod client;
mod deed;
mod question;
mod server;

use tokio::sync::oneshot;

pub use self::{
    access::{Access, Caller},
    deed::Deed,
    server::{Door, ListenError, listen},
};

/// A request on its way to the controller, and where the answer goes.
#[derive(Debug)]
pub struct Question {
    pub request: api::Request,
    pub answer: oneshot::Sender<Result<api::Response, api::Refusal>>,
}
