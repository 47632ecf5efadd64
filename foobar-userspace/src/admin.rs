//! The administration socket: what can be asked of a running controller, and by whom.

mod access;
mod accounts;
pub mod api;
pub mod client;
mod connections;
mod deed;
mod question;
mod server;

use std::sync::Arc;

use tokio::sync::{broadcast, oneshot};

use crate::monitor::lines::Line;

pub use self::{
    access::{Access, Caller},
    deed::Deed,
    server::{Door, ListenError, listen},
};

/// Where lines of logs come and go.
#[derive(Clone, Debug)]
pub struct Feeds {
    pub lines: broadcast::Sender<Arc<Line>>,
    /// Apart, for drops are told only while somebody follows them.
    pub drops: broadcast::Sender<Arc<Line>>,
}

impl Feeds {
    /// `behind`: lines that one who reads too slowly may be behind.
    #[must_use]
    pub fn new(behind: usize) -> Self {
        Self {
            lines: broadcast::channel(behind).0,
            drops: broadcast::channel(behind).0,
        }
    }
}

/// A request on its way to the controller, and where the answer goes.
#[derive(Debug)]
pub struct Question {
    pub request: api::Request,
    pub answer: oneshot::Sender<Result<api::Response, api::Refusal>>,
}
