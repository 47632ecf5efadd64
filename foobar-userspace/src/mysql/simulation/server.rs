//! One server as it really is, coarse and honest: what is acknowledged is on two.

use std::collections::BTreeMap;

use crate::mysql::{
    gtid::GtidSet,
    observation::{Failure, Make, Observation, Picture, Replication, SemiSync, ServerId, Term},
    task::{Position, Report},
};

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
    /// Writes in the order of arrival, each by its origin and number.
    pub received: Vec<(u32, u64)>,
    pub applied: usize,
    /// Terms travel as writes do: at which length of `received` each came.
    pub terms: Vec<(usize, Term)>,
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
            received: Vec::new(),
            applied: 0,
            terms: Vec::new(),
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
        Self::set(&self.received[..self.applied])
    }

    /// The newest that is applied.
    pub fn term(&self) -> Option<&Term> {
        self.terms
            .iter()
            .filter(|(at, _)| *at < self.applied)
            .map(|(_, term)| term)
            .max_by_key(|term| term.number)
    }

    pub fn write(&mut self, write: (u32, u64)) {
        self.received.push(write);
        self.applied = self.received.len();
    }

    /// Comes back after a crash, read-only, with the unacknowledged end of its log or without.
    pub fn start(&mut self, acked_up_to: usize, tail: Tail) {
        self.up = true;
        self.writable = false;
        self.armed = false;
        self.lock = None;
        if matches!(tail, Tail::Cut) && self.source.is_none() {
            let of_terms = self.terms.iter().map(|(at, _)| at + 1).max().unwrap_or(0);
            let kept = acked_up_to.max(of_terms);
            self.received.truncate(kept);
            self.applied = self.applied.min(kept);
        }
    }

    pub fn done(&self) -> Report {
        Report::Done(Position {
            executed: self.executed(),
            received: Self::set(&self.received),
        })
    }

    /// What a check of it says, whose source is this one.
    pub fn check(&self, source: Option<&Self>) -> Observation {
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
            received: Self::set(&self.received),
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
            beat: None,
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
