//! What a worker knows of a site's backends: who sits on the bench, how they fare, and who waits for them.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Report, Site, SiteBackend, Worker, answers,
    link::{Link, Pool},
    shared::Standing,
    stream_pool::Streams,
};
use crate::{
    balancer::Availability,
    stable,
    steering::{
        choice::{Candidate, Chooser},
        ejection::{Ejected, Outcome},
        queue::{self, Admission, Load},
        shuffle, warmth,
    },
    tally::BackendCell,
};

/// A site with its backends, in one generation of the table.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) site: Arc<Site>,
    pub(super) hsts: Option<String>,
    seats: Vec<Seat>,
    identities: Vec<u64>,
    memory: Rc<Memory>,
    standing: Arc<Standing>,
}

/// A backend in one generation.
#[derive(Debug)]
struct Seat {
    backend: Rc<Backend>,
    spec: SiteBackend,
}

/// A backend over generations.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) spec: SiteBackend,
    pub(super) pool: Pool,
    pub(super) streams: Streams,
    pub(super) in_flight: Cell<u32>,
    latency: Cell<warmth::Latency>,
}

/// What a worker keeps over generations as long as the backends are the same.
#[derive(Debug)]
struct Memory {
    names: Vec<Arc<str>>,
    chooser: RefCell<Chooser>,
    queue: Rc<Waiting>,
}

/// Requests at backends, and those that wait to get there.
#[derive(Debug, Default)]
struct Waiting {
    in_flight: Cell<u32>,
    line: RefCell<VecDeque<oneshot::Sender<()>>>,
    /// How long a request takes, with a memory of about ten.
    service: Cell<Duration>,
}

/// A request's leave to go to a backend; the next one gets it afterwards.
#[derive(Debug)]
pub(super) struct Permit {
    queue: Rc<Waiting>,
    since: Instant,
}

/// A request at a backend.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) backend: Rc<Backend>,
    pub(super) index: usize,
    worker: Rc<Worker>,
}

/// What a request asks of the choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The hash that keeps requests together.
    pub(super) key: Option<u64>,
    /// The backend that a cookie names.
    pub(super) sticky: Option<u64>,
    /// Who asks, for shuffle sharding.
    pub(super) client: u64,
}

impl Bench {
    pub(super) fn new(
        site: &Arc<Site>,
        before: Option<&Self>,
        standing: Arc<Standing>,
        now: Instant,
    ) -> Self {
        let seats: Vec<_> = site
            .backends
            .iter()
            .map(|spec| Seat {
                backend: before
                    .and_then(|before| before.keep(spec))
                    .unwrap_or_else(|| Rc::new(Backend::new(spec.clone(), now))),
                spec: spec.clone(),
            })
            .collect();
        let names: Vec<_> = site
            .backends
            .iter()
            .map(|spec| Arc::clone(&spec.name))
            .collect();
        let memory = before
            .filter(|before| before.memory.names == names)
            .map_or_else(
                || Rc::new(Memory::new(names)),
                |before| Rc::clone(&before.memory),
            );
        Self {
            identities: seats.iter().map(|seat| identity(&seat.spec)).collect(),
            seats,
            memory,
            standing,
            hsts: answers::hsts(site),
            site: Arc::clone(site),
        }
    }

    /// The same backend, spoken to in the same way.
    fn keep(&self, spec: &SiteBackend) -> Option<Rc<Backend>> {
        let seat = self.seats.iter().find(|seat| {
            let known = &seat.backend.spec;
            known.name == spec.name
                && known.address == spec.address
                && known.id == spec.id
                && match (&known.tls, &spec.tls) {
                    (None, None) => true,
                    (Some(known), Some(new)) => {
                        Arc::ptr_eq(&known.config, &new.config) && known.name == new.name
                    }
                    _ => false,
                }
        })?;
        Some(Rc::clone(&seat.backend))
    }

    /// Leave to go at once, if the site has room for one more.
    pub(super) fn enter_now(&self, now: Instant) -> Option<Permit> {
        (self.admission() == Admission::Enter).then(|| self.memory.queue.permit(now))
    }

    /// Waits until the site has room for one more.
    pub(super) async fn enter(&self, now: Instant) -> Option<Permit> {
        let queue = &self.memory.queue;
        let patience = match self.admission() {
            Admission::Enter => return Some(queue.permit(now)),
            Admission::Shed => return None,
            Admission::Wait(patience) => patience,
        };
        let (turn, my_turn) = oneshot::channel();
        queue.line.borrow_mut().push_back(turn);
        match tokio::time::timeout(patience, my_turn).await {
            Ok(Ok(())) => Some(queue.permit(Instant::now())),
            _ => None,
        }
    }

    fn admission(&self) -> Admission {
        let queue = &self.memory.queue;
        let load = Load {
            in_flight: queue.in_flight.get(),
            room: self.room(),
            waiting: queue.waiting(),
            service: queue.service.get(),
        };
        queue::admit(load, &self.site.service.queue)
    }

    /// Requests that the backends which may be chosen can hold.
    fn room(&self) -> u32 {
        let each = self.site.service.breaker.requests;
        let able = self
            .seats
            .iter()
            .filter(|seat| seat.spec.availability != Availability::Down && seat.spec.weight > 0);
        able.fold(0, |room: u32, _| room.saturating_add(each))
    }

    /// Chooses a backend that was not tried yet.
    pub(super) fn choose(
        &self,
        wanted: &Wanted,
        tried: &[usize],
        worker: &Rc<Worker>,
    ) -> Option<Visit> {
        if let [only] = &self.seats[..] {
            let is_able = tried.is_empty() && self.weight(only, true) > 0.0;
            return is_able.then(|| self.visit(0, worker));
        }
        let now = Instant::now();
        if let Some(index) = self.sticky(wanted, tried) {
            return Some(self.visit(index, worker));
        }
        let shard = self
            .site
            .service
            .shuffle
            .map(|size| shuffle::shard(&self.identities, wanted.client, usize::from(size)));
        let mut candidates = self.candidates(tried, shard.as_deref(), now, Ejections::Respect);
        let healthy: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let all: f64 = self
            .seats
            .iter()
            .map(|seat| f64::from(seat.spec.weight))
            .sum();
        if healthy * 100.0 < all * f64::from(self.site.service.panic_percent) || healthy <= 0.0 {
            candidates = self.candidates(tried, shard.as_deref(), now, Ejections::Ignore);
        }
        let index = self.memory.chooser.borrow_mut().choose(
            &self.site.service.balance,
            &candidates,
            wanted.key,
            &mut worker.random.borrow_mut(),
        )?;
        Some(self.visit(index, worker))
    }

    fn candidates(
        &self,
        tried: &[usize],
        shard: Option<&[bool]>,
        now: Instant,
        ejections: Ejections,
    ) -> Vec<Candidate> {
        let outliers = &self.standing.outliers;
        let candidate = |(index, seat): (usize, &Seat)| {
            let is_out = tried.contains(&index)
                || shard.is_some_and(|shard| !shard[index])
                || ejections == Ejections::Respect && outliers.is_out(index, now);
            let share = warmth::share(seat.spec.since, self.site.service.slow_start, now);
            Candidate {
                identity: self.identities[index],
                weight: if is_out {
                    0.0
                } else {
                    self.weight(seat, false) * share
                },
                in_flight: seat.backend.in_flight.get(),
                latency: seat.backend.latency.get().microseconds(),
            }
        };
        self.seats.iter().enumerate().map(candidate).collect()
    }

    /// 0 for one that takes nothing now.
    fn weight(&self, seat: &Seat, is_only: bool) -> f64 {
        let breaker = &self.site.service.breaker;
        let is_full = seat.backend.in_flight.get() >= breaker.requests
            || seat.backend.pool.is_full(breaker.connections);
        if seat.spec.availability != Availability::Up || is_full {
            return 0.0;
        }
        let weight = f64::from(seat.spec.weight);
        if is_only { weight.max(1.0) } else { weight }
    }

    /// The backend of the cookie, also while it drains: that is what draining is for.
    fn sticky(&self, wanted: &Wanted, tried: &[usize]) -> Option<usize> {
        let sticky = wanted.sticky?;
        let index = self
            .identities
            .iter()
            .position(|identity| *identity == sticky)?;
        let seat = &self.seats[index];
        let is_able = seat.spec.availability != Availability::Down
            && !tried.contains(&index)
            && !self.standing.outliers.is_out(index, Instant::now());
        is_able.then_some(index)
    }

    fn visit(&self, index: usize, worker: &Rc<Worker>) -> Visit {
        let backend = Rc::clone(&self.seats[index].backend);
        backend.in_flight.set(backend.in_flight.get() + 1);
        let tally = &worker.shared.tally;
        tally.add_to_backend(backend.spec.id, BackendCell::Begun, 1);
        Visit {
            backend,
            index,
            worker: Rc::clone(worker),
        }
    }

    /// The sticky cookie's value for a backend.
    pub(super) fn identity(&self, index: usize) -> u64 {
        self.identities[index]
    }

    /// What an attempt says about its backend.
    pub(super) fn observe(&self, visit: &Visit, outcome: Outcome, now: Instant) {
        let Some(policy) = &self.site.service.ejection else {
            return;
        };
        let outliers = &self.standing.outliers;
        let ejected = outliers.observe(visit.index, outcome, policy, now);
        if let Some(why) = ejected {
            let spec = &visit.backend.spec;
            visit
                .worker
                .shared
                .tally
                .add_to_backend(spec.id, BackendCell::Ejections, 1);
            visit.worker.shared.report(Report::Ejected {
                site: Arc::clone(&self.site.name),
                backend: Arc::clone(&spec.name),
                why: match why {
                    Ejected::FailuresInARow => "failures in a row",
                    Ejected::ShareOfFailures => "too many of its answers fail",
                },
            });
        }
    }

    pub(super) fn earn(&self) {
        self.standing.budget.earn(&self.site.service.retries);
    }

    pub(super) fn spend(&self, now: Instant) -> bool {
        self.standing.budget.spend(&self.site.service.retries, now)
    }

    pub(super) fn sweep(&self, now: Instant) {
        for seat in &self.seats {
            seat.backend
                .pool
                .sweep(now, self.site.service.timeouts.backend_idle);
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ejections {
    Ignore,
    Respect,
}

impl Backend {
    fn new(spec: SiteBackend, now: Instant) -> Self {
        Self {
            spec,
            pool: Pool::default(),
            streams: Streams::default(),
            in_flight: Cell::new(0),
            latency: Cell::new(warmth::Latency::new(now)),
        }
    }

    /// The head of an answer came after so long.
    pub(super) fn answered(&self, took: Duration, now: Instant) {
        let mut latency = self.latency.get();
        latency.observe(took, now);
        self.latency.set(latency);
    }

    pub(super) fn give_back(&self, link: Link, now: Instant) {
        self.pool.give_back(link, now);
    }
}

impl Memory {
    fn new(names: Vec<Arc<str>>) -> Self {
        Self {
            names,
            chooser: RefCell::default(),
            queue: Rc::default(),
        }
    }
}

impl Waiting {
    /// Those whose patience ended are still in line; they count until their turn is given to nobody.
    fn waiting(&self) -> u32 {
        let mut line = self.line.borrow_mut();
        while line.front().is_some_and(oneshot::Sender::is_closed) {
            line.pop_front();
        }
        u32::try_from(line.len()).unwrap_or(u32::MAX)
    }

    fn permit(self: &Rc<Self>, now: Instant) -> Permit {
        self.in_flight.set(self.in_flight.get() + 1);
        Permit {
            queue: Rc::clone(self),
            since: now,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let queue = &self.queue;
        queue.in_flight.set(queue.in_flight.get().saturating_sub(1));
        let took = self.since.elapsed();
        queue.service.set((queue.service.get() * 9 + took) / 10);
        while let Some(next) = queue.line.borrow_mut().pop_front() {
            if next.send(()).is_ok() {
                break;
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let in_flight = &self.backend.in_flight;
        in_flight.set(in_flight.get().saturating_sub(1));
        self.worker
            .shared
            .tally
            .add_to_backend(self.backend.spec.id, BackendCell::Ended, 1);
    }
}

fn identity(spec: &SiteBackend) -> u64 {
    stable::hash(&spec.name)
}
