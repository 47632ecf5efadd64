//! One server as it really is, coarse and honest: what is acknowledged is on two.

use std::collections::BTreeMap;

use crate::mysql::{
    gtid::GtidSet,
    observation::{Failure, Make, Observation, Picture, Replication, SemiSync, ServerId, Term},
    task::{Position, Report},
};

/// What it received and wrote.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// In the order of arrival, each by its origin and number.
    pub writes: Vec<(u32, u64)>,
    /// Terms travel as writes do: at which length of `writes` each came.
    pub terms: Vec<(usize, Term)>,
    /// So do beats, each of a balancer.
    pub beats: Vec<(usize, usize, u64)>,
}

impl Log {
    /// Takes what it lacks of one that goes on from it, and nothing of another.
    pub fn follow(&mut self, from: &Self) {
        let own = self.writes.len();
        if own < from.writes.len() && from.writes.starts_with(&self.writes) {
            self.writes.extend_from_slice(&from.writes[own..]);
            self.terms.clone_from(&from.terms);
            self.beats.clone_from(&from.beats);
        }
    }

    fn keep(&mut self, first: usize) {
        self.writes.truncate(first);
        self.terms.retain(|(at, _)| *at < first);
        self.beats.retain(|(at, ..)| *at < first);
    }
}

#[derive(Clone, Debug)]
pub struct Server {
    pub id: u32,
    pub up: bool,
    /// It is connected to the other servers.
    pub connected: bool,
    pub writable: bool,
    pub source: Option<usize>,
    pub receiving: bool,
    pub armed: bool,
    pub log: Log,
    pub applied: usize,
    /// By the clock of beats.
    pub started: u64,
    pub pulse: u64,
    pub lagging: bool,
    pub refuses_login: bool,
    /// Who holds the cluster's lock here.
    pub lock: Option<usize>,
}

impl Server {
    pub fn new(id: u32) -> Self {
        Self {
            id,
            up: true,
            connected: true,
            writable: id == 1,
            source: (id != 1).then_some(0),
            receiving: id != 1,
            armed: id == 1,
            log: Log::default(),
            applied: 0,
            started: 0,
            pulse: 0,
            lagging: false,
            refuses_login: false,
            lock: None,
        }
    }

    pub fn set(writes: &[(u32, u64)]) -> GtidSet {
        let mut highest = BTreeMap::new();
        for (origin, number) in writes {
            highest.insert((0, *origin), *number);
        }
        GtidSet::Mariadb(highest)
    }

    fn executed(&self) -> GtidSet {
        Self::set(&self.log.writes[..self.applied])
    }

    /// The newest that is applied.
    pub fn term(&self) -> Option<&Term> {
        self.log
            .terms
            .iter()
            .filter(|(at, _)| *at < self.applied)
            .map(|(_, term)| term)
            .max_by_key(|term| term.number)
    }

    /// The last of a balancer that is applied.
    fn beat(&self, balancer: usize) -> Option<u64> {
        self.log
            .beats
            .iter()
            .rfind(|(at, of, _)| *at < self.applied && *of == balancer)
            .map(|(_, _, beat)| *beat)
    }

    pub fn write(&mut self, write: (u32, u64)) {
        self.log.writes.push(write);
        self.applied = self.log.writes.len();
    }

    /// Comes back after a crash, read-only: a replica without what it had not applied, a primary with the unacknowledged end
    /// of its log or without.
    pub fn start(&mut self, acked_up_to: usize, tail: Tail, now: u64) {
        self.up = true;
        self.writable = false;
        self.armed = false;
        self.lock = None;
        self.started = now;
        if self.source.is_some() {
            self.keep(self.applied);
        } else if matches!(tail, Tail::Cut) {
            let terms = self.log.terms.iter().map(|(at, _)| at + 1);
            let beats = self.log.beats.iter().map(|(at, ..)| at + 1);
            let kept = terms.chain(beats).max().unwrap_or(0).max(acked_up_to);
            self.keep(kept);
        }
    }

    /// The first of what it received, and nothing more.
    pub fn keep(&mut self, first: usize) {
        self.log.keep(first);
        self.applied = self.applied.min(first);
    }

    pub fn done(&self) -> Report {
        Report::Done(Position {
            executed: self.executed(),
            received: Self::set(&self.log.writes),
        })
    }

    /// What a balancer's check of it says, whose source is this one.
    pub fn check(&self, balancer: usize, source: Option<&Self>) -> Observation {
        if !self.up {
            return Observation::Failed(Failure::Refused);
        }
        if self.refuses_login {
            return Observation::Failed(Failure::of_server(1045, "denied"));
        }
        let replication = source.map(|source| Replication {
            source: Some(ServerId(source.id.to_string())),
            receiving: self.receiving && source.up,
            applying: true,
            pulse: self.pulse,
            behind: Some(0),
            received: Self::set(&self.log.writes),
            error: None,
        });
        Observation::Answered(Box::new(Picture {
            server: ServerId(self.id.to_string()),
            make: Make::Mariadb,
            version: String::new(),
            read_only: !self.writable,
            super_read_only: false,
            offline: false,
            replication,
            executed: self.executed(),
            term: self.term().cloned(),
            beat: self.beat(balancer),
            started: Some(self.started),
            semi_sync: SemiSync {
                armed: self.armed,
                in_effect: self.armed,
                replicas: 2,
                acknowledges: true,
            },
            group: None,
            galera: None,
        }))
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Tail {
    Cut,
    Kept,
}
