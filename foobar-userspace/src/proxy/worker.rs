//! A worker thread's state: its seats for clients, its buffers, and what it knows of each site.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::Instant,
};

use slab::Slab;

use super::{Shared, Sites, bench::Bench, buffers::Buffers, spares::Spares, watch::Watch};
use crate::steering::random::Random;

/// One thread's share of the proxy; lives on that thread alone.
#[derive(Debug)]
pub struct Worker {
    pub(super) shared: Shared,
    table: RefCell<Rc<Table>>,
    /// Of clients' connections; a waker where one waits for its next request.
    seats: RefCell<Slab<Option<Waker>>>,
    is_draining: Cell<bool>,
    pub(super) random: RefCell<Random>,
    /// For requests' heads and bodies.
    requests: RefCell<Rc<Buffers>>,
    /// For answers.
    pub(super) answers: Rc<Buffers>,
    /// For heads, and for what is gathered.
    pub(super) spares: Rc<Spares>,
    /// Timers that somebody had before: to move one costs nothing, to make one does.
    watches: RefCell<Vec<Watch>>,
}

/// The sites, and beside each its bench of backends.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) sites: Arc<Sites>,
    pub(super) benches: Vec<Rc<Bench>>,
}

impl Worker {
    /// A worker that serves by `sites`.
    #[must_use]
    pub fn new(sites: Arc<Sites>, shared: Shared) -> Rc<Self> {
        let now = Instant::now();
        let seed = shared.memory.seed();
        Rc::new(Self {
            table: RefCell::new(Rc::new(Table::new(&sites, None, &shared, now))),
            shared,
            seats: RefCell::default(),
            is_draining: Cell::new(false),
            random: RefCell::new(Random::new(seed)),
            requests: RefCell::new(Buffers::new(largest_head(&sites))),
            answers: Buffers::new(ANSWER_BUFFER),
            spares: Rc::default(),
            watches: RefCell::default(),
        })
    }

    /// Serves by `sites` from the next request on. Requests on their way end by what they began with.
    pub fn adopt(&self, sites: Arc<Sites>) {
        let table = Table::new(&sites, Some(&self.table()), &self.shared, Instant::now());
        let largest = largest_head(&sites);
        if self.requests.borrow().size() != largest {
            self.requests.replace(Buffers::new(largest));
        }
        self.table.replace(Rc::new(table));
    }

    /// Ends connections as soon as no request is on them; [`Worker::connections`] tells when all are gone.
    pub fn drain(&self) {
        self.is_draining.set(true);
        for (_, seat) in self.seats.borrow_mut().iter_mut() {
            if let Some(waker) = seat.take() {
                waker.wake();
            }
        }
    }

    /// Connections of clients at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.seats.borrow().len()
    }

    /// Closes connections to backends that were idle for too long. To be called every second or so.
    pub fn sweep(&self) {
        let table = self.table();
        let now = Instant::now();
        for bench in &table.benches {
            bench.sweep(now);
        }
    }

    /// The table that the next request is served by.
    #[must_use]
    pub fn sites(&self) -> Arc<Sites> {
        Arc::clone(&self.table.borrow().sites)
    }

    pub(super) fn table(&self) -> Rc<Table> {
        Rc::clone(&self.table.borrow())
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    pub(super) fn request_buffers(&self) -> Rc<Buffers> {
        Rc::clone(&self.requests.borrow())
    }

    pub(super) fn take_watch(&self, deadline: Instant) -> Watch {
        let Some(watch) = self.watches.borrow_mut().pop() else {
            return Watch::new(deadline);
        };
        watch.set(deadline);
        watch
    }

    pub(super) fn give_watch(&self, watch: Watch) {
        let mut watches = self.watches.borrow_mut();
        if watches.len() < MOST_WATCHES {
            watches.push(watch);
        }
    }
}

/// A client's place in the worker's count.
#[derive(Debug)]
pub(super) struct Seat {
    worker: Rc<Worker>,
    key: usize,
}

impl Seat {
    pub(super) fn take(worker: &Rc<Worker>) -> Self {
        Self {
            key: worker.seats.borrow_mut().insert(None),
            worker: Rc::clone(worker),
        }
    }

    /// Whether the worker drains; if it does not, the task is woken when it begins to.
    pub(super) fn is_asked_to_leave(&self, context: &Context<'_>) -> bool {
        if self.worker.is_draining.get() {
            return true;
        }
        if let Some(seat) = self.worker.seats.borrow_mut().get_mut(self.key)
            && !seat
                .as_ref()
                .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            *seat = Some(context.waker().clone());
        }
        false
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.seats.borrow_mut().remove(self.key);
    }
}

impl Table {
    fn new(sites: &Arc<Sites>, before: Option<&Self>, shared: &Shared, now: Instant) -> Self {
        let benches = sites.all().iter().map(|site| {
            let before = before.and_then(|before| {
                let mut benches = before.benches.iter();
                benches.find(|bench| bench.site.name == site.name)
            });
            let standing = shared.memory.standing(site, now);
            Rc::new(Bench::new(
                site,
                before.map(|bench| &**bench),
                standing,
                now,
            ))
        });
        Self {
            benches: benches.collect(),
            sites: Arc::clone(sites),
        }
    }
}

fn largest_head(sites: &Sites) -> usize {
    let heads = sites.all().iter().map(|site| site.limits().head);
    heads
        .max()
        .unwrap_or_default()
        .clamp(16 * 1024, 1024 * 1024)
}

/// An answer of 64 KB and its head in one read.
const ANSWER_BUFFER: usize = 80 * 1024;
const MOST_WATCHES: usize = 1024;
