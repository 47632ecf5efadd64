//! What all workers of a node share, and what they tell the rest of it.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::mpsc;

use super::AccessRecord;
use crate::tally::Tally;

/// What all workers share; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    pub tally: Tally,
    /// Where the controller hears of what happens; when it is full, reports are lost.
    pub reports: mpsc::Sender<Report>,
    /// The access log, if one is kept.
    pub access: Option<mpsc::Sender<AccessRecord>>,
}

/// What a worker tells the controller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    /// Put this client into this set.
    Jail {
        site: Arc<str>,
        set: String,
        client: IpAddr,
    },
    /// A backend died under a request, or refuses connections: check it now.
    Lost { site: Arc<str>, backend: Arc<str> },
    /// A worker leaves a backend out for a while.
    Ejected {
        site: Arc<str>,
        backend: Arc<str>,
        why: &'static str,
    },
}
