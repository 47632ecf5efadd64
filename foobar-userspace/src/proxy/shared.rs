//! What all workers of a node share, and what they tell the rest of it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{AccessTap, Site};
use crate::{
    config::{BlastRadius, Jail, RequestRate},
    stable,
    steering::{
        blast::{Answered, Blast, Verdict},
        budget::Budget,
        ejection::Outliers,
        offences::Offences,
        rate::{self, Rates},
    },
    tally::Tally,
};

/// What all workers share; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    pub tally: Tally,
    /// Where the controller hears of what happens; when it is full, reports are lost.
    pub reports: mpsc::Sender<Report>,
    /// To the access log.
    pub access: AccessTap,
    pub memory: Arc<Memory>,
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

/// What workers must know together. Its locks are taken only by sites that ask for it, or after something went wrong.
#[derive(Debug)]
pub struct Memory {
    seed: u64,
    workers: AtomicU64,
    /// Requests that backends survived, whichever worker brought them.
    answered: Answered,
    /// By site and its backends; asked for when a table is made.
    standings: Mutex<HashMap<Line, Arc<Standing>>>,
    has_suspects: AtomicBool,
    blast: Mutex<Blast>,
    /// By site and client.
    rates: Mutex<Rates<(u32, IpAddr)>>,
    offences: Mutex<Offences<(u32, IpAddr)>>,
}

/// A site and its backends, in their order.
type Line = (Arc<str>, Vec<Arc<str>>);

/// How a site's backends fare, and what may still be tried again, in the eyes of all workers.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) outliers: Outliers,
    pub(super) budget: Budget,
}

impl Memory {
    /// `seed` keeps clients from guessing what hashes to what.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            seed,
            workers: AtomicU64::new(0),
            standings: Mutex::default(),
            answered: Answered::new(Instant::now()),
            has_suspects: AtomicBool::new(false),
            blast: Mutex::default(),
            rates: Mutex::new(Rates::new(MOST_CLIENTS)),
            offences: Mutex::new(Offences::new(MOST_CLIENTS)),
        })
    }

    /// Another one for each worker.
    pub(super) fn seed(&self) -> u64 {
        let worker = self.workers.fetch_add(1, Ordering::Relaxed);
        self.seed ^ stable::mix(worker + 1)
    }

    /// The same for all.
    pub(super) fn common_seed(&self) -> u64 {
        self.seed
    }

    /// The same for every worker and generation as long as the backends are the same.
    pub(super) fn standing(&self, site: &Site, now: Instant) -> Arc<Standing> {
        let backends = site.backends.iter();
        let names: Vec<_> = backends.map(|backend| Arc::clone(&backend.name)).collect();
        let mut standings = lock(&self.standings);
        // Of those that no table has any more nobody asks again.
        standings.retain(|(name, known), standing| {
            Arc::strong_count(standing) > 1 || *name == site.name && *known == names
        });
        let standing = standings
            .entry((Arc::clone(&site.name), names))
            .or_insert_with(|| {
                Arc::new(Standing {
                    outliers: Outliers::new(site.backends.len(), now),
                    budget: Budget::new(&site.service.retries, now),
                })
            });
        Arc::clone(standing)
    }

    pub(super) fn held(&self, fingerprint: u64, now: Instant) -> Option<Duration> {
        if !self.has_suspects.load(Ordering::Relaxed) {
            return None;
        }
        lock(&self.blast).held(fingerprint, now)
    }

    pub(super) fn answered(&self, fingerprint: u64, now: Instant) {
        self.answered.note(fingerprint, now);
    }

    pub(super) fn died(
        &self,
        fingerprint: u64,
        crowd: u32,
        policy: &BlastRadius,
        now: Instant,
    ) -> Verdict {
        let answered = self.answered.last(fingerprint);
        let mut blast = lock(&self.blast);
        let verdict = blast.died(fingerprint, crowd, answered, policy, now);
        self.has_suspects
            .store(!blast.is_quiet(), Ordering::Relaxed);
        verdict
    }

    pub(super) fn is_within(
        &self,
        site: u32,
        client: IpAddr,
        rate: &RequestRate,
        now: Instant,
    ) -> bool {
        lock(&self.rates).allow((site, rate::client(client)), rate, now)
    }
}

impl Shared {
    /// Counts an offence of a client; the one too many is reported.
    pub fn offend(&self, site: (u32, &Arc<str>), client: IpAddr, jail: Option<&Jail>) {
        let Some(jail) = jail else {
            return;
        };
        let now = Instant::now();
        if lock(&self.memory.offences).commit((site.0, rate::client(client)), jail, now) {
            self.tally.add(site.0, crate::tally::SiteCell::Offenders, 1);
            self.report(Report::Jail {
                site: Arc::clone(site.1),
                set: jail.set.clone(),
                client: client.to_canonical(),
            });
        }
    }

    pub(super) fn report(&self, report: Report) {
        // A full channel means that the controller has enough to do with what it knows already.
        let _ = self.reports.try_send(report);
    }
}

/// What a panicking thread left is still counts and times.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const MOST_CLIENTS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

    #[test]
    fn workers_share_what_they_know_of_the_same_backends() {
        let memory = Memory::new(7);
        let now = Instant::now();
        let site = |ports: &[u16]| {
            let addresses = ports.iter().map(|port| ([127, 0, 0, 1], *port).into());
            let service = samples::service("www", "192.0.2.1:443");
            let sites = samples::sites_of(vec![(service, addresses.collect())]);
            Arc::clone(&sites.all()[0])
        };
        let first = memory.standing(&site(&[1, 2]), now);
        assert!(Arc::ptr_eq(&first, &memory.standing(&site(&[1, 2]), now)));
        assert!(!Arc::ptr_eq(&first, &memory.standing(&site(&[1, 3]), now)));
        assert!(Arc::ptr_eq(&first, &memory.standing(&site(&[1, 2]), now)));
        drop(first);
        memory.standing(&site(&[4]), now);
        assert_eq!(lock(&memory.standings).len(), 1);
    }
}
