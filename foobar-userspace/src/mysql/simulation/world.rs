//! The servers, the balancers and a clock that jumps a check at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    balancer::{Balancer, COOL_DOWN, STEP},
    server::{Server, Tail},
};
use crate::mysql::{
    cluster::{Command, Now},
    lag::Readable,
    leadership::Hold,
    observation::{Failure, Look, Observation, ServerId, Survey, Term},
    preflight,
    task::{Effect, Order, Report, Task},
};

pub struct World {
    pub servers: Vec<Server>,
    pub balancers: Vec<Balancer>,
    now: Now,
    /// Who is looked at first.
    turn: usize,
    acked: BTreeSet<(u32, u64)>,
    next_write: u64,
    /// A term's server, by the writes that were acknowledged in it.
    terms: Vec<(u64, u32)>,
    /// When each automatic failover was made, since a human looked.
    promotions: Vec<Instant>,
    pub automatic: u32,
}

/// What happens to a server, or between one and a balancer.
#[derive(Clone, Debug)]
pub enum Event {
    Kill(usize),
    Start(usize, Tail),
    Cut(usize),
    Join(usize),
    Lag(usize),
    CatchUp(usize),
    Deny(usize),
    Admit(usize),
    Balancer(usize, Fault),
}

/// What happens to a balancer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It does not reach a server.
    Hide(usize),
    Show(usize),
    LoseLocks,
    TakeLocks,
    /// The controller stands still for this many checks.
    Sleep(u8),
    Restart,
    Command(Command),
}

impl World {
    pub fn new(balancers: usize, lease: Option<Duration>) -> Self {
        Self {
            servers: (1..=3).map(Server::new).collect(),
            balancers: (0..balancers)
                .map(|rank| Balancer::new(rank, lease))
                .collect(),
            now: Now {
                instant: Instant::now(),
                micros: 1_000_000,
            },
            turn: 0,
            acked: BTreeSet::new(),
            next_write: 0,
            terms: Vec::new(),
            promotions: Vec::new(),
            automatic: 0,
        }
    }

    pub fn run(&mut self, checks: u32) {
        for _ in 0..checks {
            self.step();
        }
    }

    pub fn settle(&mut self) {
        self.run(30);
    }

    /// Whom the packet path of a balancer leads writers to.
    pub fn writer(&self, balancer: usize) -> Option<usize> {
        self.balancers[balancer].leads_to(self.now)
    }

    fn linked(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.servers[one], &self.servers[other]);
        one.up && other.up && one.connected && other.connected
    }

    fn reaches(&self, balancer: usize, member: usize) -> bool {
        self.servers[member].up && !self.balancers[balancer].hidden[member]
    }

    /// One check's time: replication, clients' writes, and each balancer's checks, tasks and decisions.
    fn step(&mut self) {
        self.now.instant += STEP;
        self.now.micros += 100_000;
        self.turn += 1;
        self.replicate();
        self.clients();
        self.replicate();
        for balancer in 0..self.balancers.len() {
            self.hold_locks(balancer);
            if self.balancers[balancer].is_awake() {
                self.control(balancer);
            }
            self.assert_one_writer();
        }
    }

    fn control(&mut self, balancer: usize) {
        for turn in self.turn..self.turn + 3 {
            let member = turn % 3;
            let observation = self.check(balancer, member);
            let look = Look {
                begun: self.now.instant,
                took: Duration::from_millis(1),
            };
            let cluster = &mut self.balancers[balancer].cluster;
            let effects = cluster.observe(member, observation, look, self.now);
            self.take(balancer, effects);
            if self.reaches(balancer, member) {
                let cluster = &mut self.balancers[balancer].cluster;
                cluster.surveyed(member, survey(), self.now);
            }
        }
        let probed = self.balancers[balancer].cluster.to_probe();
        let is_due = self.turn.is_multiple_of(CHECKS_OF_A_BEAT);
        if let Some(member) = probed.filter(|member| is_due && self.commits(*member)) {
            let beat = self.now.micros;
            self.next_write += 1;
            let server = &mut self.servers[member];
            server
                .log
                .beats
                .push((server.log.writes.len(), balancer, beat));
            server.write((server.id, self.next_write));
            self.replicate();
            self.balancers[balancer].cluster.probed(member, Ok(beat));
        }
        let own = &mut self.balancers[balancer];
        let effects = own.cluster.lead(own.leadership.leads());
        self.take(balancer, effects);
        for order in std::mem::take(&mut self.balancers[balancer].pending) {
            let report = self.perform(balancer, &order);
            let cluster = &mut self.balancers[balancer].cluster;
            let effects = cluster.hear(order.number, report, self.now);
            self.take(balancer, effects);
        }
        let effects = self.balancers[balancer].cluster.tick(self.now);
        self.take(balancer, effects);
        self.balancers[balancer].steer();
        self.assert_steering(balancer);
        self.note_failovers(balancer);
    }

    /// A session that says nothing for two seconds is ended by its server, and with it its lock.
    fn hold_locks(&mut self, balancer: usize) {
        let own = &mut self.balancers[balancer];
        own.asleep = own.asleep.saturating_sub(1);
        own.slept = if own.asleep > 0 { own.slept + 1 } else { 0 };
        let silent = own.barred || own.slept > 20;
        let is_awake = own.is_awake();
        let yields = is_awake && own.leadership.yields(self.now.instant);
        for member in 0..3 {
            let reaches = self.reaches(balancer, member) && !self.servers[member].refuses_login;
            let lock = &mut self.servers[member].lock;
            match *lock {
                Some(holder) if holder == balancer && (silent || yields || !reaches) => {
                    *lock = None
                }
                None if reaches && !silent && !yields && is_awake => *lock = Some(balancer),
                _ => {}
            }
            if is_awake {
                let hold = match *lock {
                    Some(holder) if holder == balancer => Hold::Own,
                    Some(_) if reaches => Hold::Another,
                    _ => Hold::Nobody,
                };
                self.balancers[balancer].leadership.hear(member, hold);
            }
        }
    }

    /// Replicas copy what their source has and they lack.
    fn replicate(&mut self) {
        for replica in 0..3 {
            let Some(source) = self.servers[replica].source else {
                continue;
            };
            if !self.servers[replica].receiving || !self.linked(replica, source) {
                continue;
            }
            let from = std::mem::take(&mut self.servers[source].log);
            let server = &mut self.servers[replica];
            server.pulse += 1;
            // Strict: a replica with something that its source lacks is refused.
            server.log.follow(&from);
            if !server.lagging {
                server.applied = server.log.writes.len();
            }
            self.servers[source].log = from;
        }
    }

    /// Whether a write on this server would be acknowledged: by a replica, if it waits for one.
    fn commits(&self, member: usize) -> bool {
        let server = &self.servers[member];
        let replicated = (0..3).any(|other| {
            let replica = &self.servers[other];
            replica.source == Some(member)
                && replica.receiving
                && self.linked(member, other)
                && server.log.writes.starts_with(&replica.log.writes)
        });
        server.up && server.writable && (replicated || !server.armed)
    }

    /// A client of each writer address writes.
    fn clients(&mut self) {
        for balancer in 0..self.balancers.len() {
            let member = self.balancers[balancer].leads_to(self.now);
            let takes = |member: &usize| self.servers[*member].up && self.servers[*member].writable;
            if let Some(member) = member.filter(takes) {
                self.write(member);
            }
        }
    }

    fn write(&mut self, member: usize) {
        self.next_write += 1;
        let write = (self.servers[member].id, self.next_write);
        let acknowledged = self.commits(member);
        let server = &mut self.servers[member];
        server.write(write);
        if !acknowledged {
            return;
        }
        assert!(
            server.armed,
            "N8: a write was acknowledged by one server alone"
        );
        self.acked.insert(write);
        let term = server.term().map_or(0, |term| term.number);
        let id = server.id;
        assert!(
            self.terms.last().is_none_or(|(last, _)| *last <= term),
            "terms go on in time"
        );
        assert!(
            self.terms
                .iter()
                .all(|(known, owner)| *known != term || *owner == id),
            "N1: two servers acknowledged in term {term}"
        );
        if self.terms.last() != Some(&(term, id)) {
            self.terms.push((term, id));
        }
    }

    fn check(&self, balancer: usize, member: usize) -> Observation {
        let server = &self.servers[member];
        if server.up && self.balancers[balancer].hidden[member] {
            return Observation::Failed(Failure::TimedOut);
        }
        server.check(balancer, server.source.map(|source| &self.servers[source]))
    }

    fn take(&mut self, balancer: usize, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Order(order) = effect {
                self.balancers[balancer].pending.push(order);
            }
        }
    }

    fn note_failovers(&mut self, balancer: usize) {
        let own = &mut self.balancers[balancer];
        let made = own.cluster.memory().failovers;
        if made == own.failovers {
            return;
        }
        own.failovers = made;
        if own.cluster.memory().paused.is_none() {
            return;
        }
        self.automatic += 1;
        let now = self.now.instant;
        assert!(
            self.promotions
                .last()
                .is_none_or(|last| now - *last >= COOL_DOWN),
            "N4: a second failover inside the cool-down"
        );
        self.promotions.push(now);
    }

    /// The edge: does what was ordered, with the servers as they are, by the right of a lock.
    fn perform(&mut self, balancer: usize, order: &Order) -> Report {
        let member = order.member;
        if !self.reaches(balancer, member) || self.servers[member].refuses_login {
            return Report::Failed("no answer".to_owned());
        }
        if self.servers[member].lock != Some(balancer) {
            return Report::Failed("the lock is lost".to_owned());
        }
        match self.carry_out(member, &order.task) {
            Ok(()) => self.servers[member].done(),
            Err(why) => Report::Failed(why.to_owned()),
        }
    }

    fn carry_out(&mut self, member: usize, task: &Task) -> Result<(), &'static str> {
        let commits = self.commits(member);
        let source = self.servers[member].source;
        match task {
            Task::Inspect => {}
            Task::StopReceiving => self.servers[member].receiving = false,
            Task::StartReceiving => self.servers[member].receiving = source.is_some(),
            Task::Apply(wanted) => {
                let server = &mut self.servers[member];
                if !Server::set(&server.log.writes).covers(wanted) || server.lagging {
                    return Err("not applied in time");
                }
                server.applied = server.log.writes.len();
            }
            Task::BecomeSource => {
                let server = &mut self.servers[member];
                assert_eq!(
                    server.applied,
                    server.log.writes.len(),
                    "N5: relay log thrown away"
                );
                server.source = None;
                server.receiving = false;
                server.armed = true;
            }
            Task::Follow(new) => self.follow(member, *new),
            Task::OpenWrites => {
                let heard = (0..3).any(|other| {
                    self.servers[other].source == Some(member)
                        && self.servers[other].receiving
                        && self.linked(member, other)
                });
                if !heard {
                    return Err("no replica to acknowledge");
                }
                if !self.servers[member].armed {
                    return Err("it was started again");
                }
                self.servers[member].writable = true;
            }
            Task::CloseWrites => self.servers[member].writable = false,
            Task::BeginTerm(number, origin) => {
                let known = self.servers[member].log.terms.iter();
                if known.into_iter().any(|(_, term)| term.number == *number) {
                    return Err("that term has begun before");
                }
                self.next_write += 1;
                let write = self.next_write;
                let server = &mut self.servers[member];
                let term = Term {
                    number: *number,
                    server: ServerId(server.id.to_string()),
                    origin: *origin,
                };
                server.log.terms.push((server.log.writes.len(), term));
                server.write((server.id, write));
                if !commits {
                    return Err("nobody acknowledged");
                }
            }
            Task::DisarmSource => self.servers[member].armed = false,
        }
        Ok(())
    }

    fn follow(&mut self, member: usize, new: usize) {
        let theirs = Server::set(&self.servers[new].log.writes);
        let server = &mut self.servers[member];
        let unapplied = Server::set(&server.log.writes);
        assert!(
            server.applied == server.log.writes.len() || theirs.covers(&unapplied),
            "N5: relay log thrown away that the source lacks"
        );
        server.keep(server.applied);
        server.writable = false;
        server.armed = false;
        server.source = Some(new);
        server.receiving = true;
    }

    pub fn happen(&mut self, event: &Event) {
        match event {
            Event::Kill(member) => self.servers[*member].up = false,
            Event::Start(member, tail) if !self.servers[*member].up => {
                let acked = |write: &(u32, u64)| self.acked.contains(write);
                let last = self.servers[*member].log.writes.iter().rposition(acked);
                let acked_up_to = last.map_or(0, |at| at + 1);
                self.servers[*member].start(acked_up_to, *tail, self.now.micros);
            }
            Event::Start(..) => {}
            Event::Cut(member) => self.servers[*member].connected = false,
            Event::Join(member) => self.servers[*member].connected = true,
            Event::Lag(member) => self.servers[*member].lagging = true,
            Event::CatchUp(member) => self.servers[*member].lagging = false,
            Event::Deny(member) => self.servers[*member].refuses_login = true,
            Event::Admit(member) => self.servers[*member].refuses_login = false,
            Event::Balancer(balancer, fault) => self.befall(*balancer, fault),
        }
    }

    fn befall(&mut self, balancer: usize, fault: &Fault) {
        let own = &mut self.balancers[balancer];
        match fault {
            Fault::Hide(member) => own.hidden[*member] = true,
            Fault::Show(member) => own.hidden[*member] = false,
            Fault::LoseLocks => own.barred = true,
            Fault::TakeLocks => own.barred = false,
            Fault::Sleep(checks) => own.asleep += u32::from(*checks),
            Fault::Restart => {
                own.restart();
                for server in &mut self.servers {
                    server.lock.take_if(|holder| *holder == balancer);
                }
            }
            Fault::Command(command) => {
                if !own.is_awake() {
                    return;
                }
                if matches!(command, Command::Resume) {
                    // A human looks no sooner than the cool-down.
                    self.promotions.clear();
                }
                if let Ok((_, effects)) = own.cluster.command(command, self.now) {
                    self.take(balancer, effects);
                }
            }
        }
    }

    /// All is well again, as far as others than the balancers can bring it there.
    pub fn heal(&mut self) {
        for member in 0..3 {
            for event in [
                Event::Start(member, Tail::Cut),
                Event::Join(member),
                Event::CatchUp(member),
                Event::Admit(member),
            ] {
                self.happen(&event);
            }
        }
        for balancer in &mut self.balancers {
            balancer.hidden = [false; 3];
            balancer.barred = false;
        }
    }

    fn assert_steering(&self, balancer: usize) {
        let steering = self.balancers[balancer].cluster.steering();
        let writers = steering
            .writes
            .iter()
            .filter(|writes| **writes != Readable::No)
            .count();
        assert!(writers <= 1, "N1: {steering:?}");
        for (member, reads) in steering.reads.iter().enumerate() {
            assert!(
                *reads == Readable::No || steering.writes[member] == Readable::No,
                "an answer belongs to one address"
            );
        }
    }

    /// Through all addresses together (N1).
    fn assert_one_writer(&self) {
        let writers: BTreeMap<usize, usize> = (0..self.balancers.len())
            .filter_map(|balancer| Some((self.writer(balancer)?, balancer)))
            .filter(|(member, _)| self.servers[*member].up && self.servers[*member].writable)
            .collect();
        assert!(writers.len() <= 1, "N1: writers by balancer: {writers:?}");
    }

    /// Everything acknowledged is on the server that takes the writes (N2).
    pub fn assert_nothing_lost(&self) {
        for balancer in 0..self.balancers.len() {
            let Some(writer) = self
                .writer(balancer)
                .filter(|writer| self.servers[*writer].writable)
            else {
                continue;
            };
            let rows: BTreeSet<_> = self.servers[writer].log.writes.iter().copied().collect();
            let missing: Vec<_> = self.acked.difference(&rows).collect();
            assert!(
                missing.is_empty(),
                "N2: missing on web{}: {missing:?}",
                writer + 1
            );
        }
    }
}

const CHECKS_OF_A_BEAT: usize = 5;

fn survey() -> Survey {
    let good = [
        ("gtid_strict_mode", "1"),
        ("log_bin", "1"),
        ("log_slave_updates", "1"),
        ("binlog_format", "ROW"),
        ("sync_binlog", "1"),
        ("innodb_flush_log_at_trx_commit", "3"),
        ("rpl_semi_sync_master_wait_point", "AFTER_SYNC"),
        ("rpl_semi_sync_master_timeout", "3600000"),
        ("rpl_semi_sync_slave_kill_conn_timeout", "1"),
        (preflight::AT_START, preflight::READ_ONLY),
        (preflight::TABLES, "2"),
    ];
    Survey {
        settings: good
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Survey::default()
    }
}
