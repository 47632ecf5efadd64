//! The administration socket: what can be asked of a running controller.

pub mod api;
pub mod client;
mod server;

use tokio::sync::oneshot;

pub use self::server::{Door, ListenError, listen};

/// A request on its way to the controller, and where the answer goes.
#[derive(Debug)]
pub struct Question {
    pub request: api::Request,
    pub answer: oneshot::Sender<Result<api::Response, api::Refusal>>,
}
