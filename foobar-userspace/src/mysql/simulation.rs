//! A simulated cluster under random faults, and the contract as properties of what the controller does to it.
//!
//! Three servers with semi-synchronous replication, a controller that sees them through checks and moves them through tasks,
//! and a clock that jumps a check at a time. Reality is coarse and honest: what is acknowledged is on two servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    cluster::{Cluster, Command, Fallback, Limits, Memory, Mode, Now, OnWriteStall, RejoinWish},
    gtid::GtidSet,
    lag::{LagLimits, Readable},
    observation::{
        Failure, Make, Observation, Picture, Replication, SemiSync, ServerId, Survey, Term,
    },
    preflight,
    task::{Effect, Order, Position, Report, Task},
};

const STEP: Duration = Duration::from_millis(100);

/// One server as it really is.
#[derive(Clone, Debug)]
struct Server {
    id: u32,
    up: bool,
    /// It answers the controller; it may be up without.
    reachable: bool,
    /// It is connected to the other servers.
    connected: bool,
    writable: bool,
    source: Option<usize>,
    receiving: bool,
    armed: bool,
    /// Writes in the order of arrival, each by its origin and number.
    received: Vec<(u32, u64)>,
    applied: usize,
    term: u64,
    /// Terms travel as writes do: at which length of `received` each came.
    terms: Vec<(usize, u64)>,
    pulse: u64,
    lagging: bool,
    refuses_login: bool,
}

impl Server {
    fn new(id: u32) -> Self {
        Self {
            id,
            up: true,
            reachable: true,
            connected: true,
            writable: id == 1,
            source: (id != 1).then_some(0),
            receiving: id != 1,
            armed: id == 1,
            received: Vec::new(),
            applied: 0,
            term: 0,
            terms: Vec::new(),
            pulse: 0,
            lagging: false,
            refuses_login: false,
        }
    }

    fn set(writes: &[(u32, u64)]) -> GtidSet {
        let mut highest = BTreeMap::new();
        for (origin, number) in writes {
            highest.insert((0, *origin), *number);
        }
        GtidSet::Mariadb(highest)
    }

    fn executed(&self) -> GtidSet {
        Self::set(&self.received[..self.applied])
    }

    fn apply_terms(&mut self) {
        let applied = self.applied;
        let newest = self
            .terms
            .iter()
            .filter(|(at, _)| *at < applied)
            .map(|(_, term)| *term)
            .max();
        self.term = self.term.max(newest.unwrap_or(0));
    }
}

struct World {
    servers: Vec<Server>,
    cluster: Cluster,
    now: Now,
    acked: BTreeSet<(u32, u64)>,
    pending: Vec<(u64, Order)>,
    next_write: u64,
    /// A term's server, by the writes that were acknowledged in it.
    terms: Vec<(u64, u32)>,
    automatic: u32,
    promotions: Vec<Instant>,
    lease: bool,
    sleeping: bool,
}

impl World {
    fn new(start: Instant) -> Self {
        let limits = Limits {
            mode: Mode::Promote,
            every: STEP,
            fall: 3,
            heartbeat: Duration::from_millis(300),
            lag: LagLimits {
                soft: Duration::from_secs(5),
                hard: Duration::from_secs(50),
            },
            fallback: Fallback::LeastLagged,
            on_write_stall: OnWriteStall::Alarm,
            rejoin: RejoinWish::Automatic,
            cool_down: Duration::from_secs(60),
            who: "test".to_owned(),
        };
        let names = (1..=3).map(|id| (format!("web{id}"), 3306)).collect();
        Self {
            servers: (1..=3).map(Server::new).collect(),
            cluster: Cluster::new(limits, names, Memory::default()),
            now: Now {
                instant: start,
                micros: 1_000_000,
            },
            acked: BTreeSet::new(),
            pending: Vec::new(),
            next_write: 0,
            terms: Vec::new(),
            automatic: 0,
            promotions: Vec::new(),
            lease: true,
            sleeping: false,
        }
    }

    fn linked(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.servers[one], &self.servers[other]);
        one.up && other.up && one.connected && other.connected
    }

    /// One check's time: replication, a client's write, checks, tasks, decisions.
    fn step(&mut self) {
        self.now.instant += STEP;
        self.now.micros += 100_000;
        self.replicate();
        self.client();
        self.replicate();
        if self.sleeping {
            return;
        }
        for member in 0..3 {
            let observation = self.check(member);
            let effects =
                self.cluster
                    .observe(member, observation, Duration::from_millis(1), self.now);
            self.take(effects);
            if self.servers[member].up && self.servers[member].reachable {
                let survey = survey();
                self.cluster.surveyed(member, survey, self.now);
            }
        }
        let probed = self.cluster.to_probe();
        if let Some(member) = probed.filter(|member| self.commits(*member)) {
            self.cluster.probed(member, Ok(self.now.micros));
        }
        let majority = self
            .servers
            .iter()
            .filter(|server| server.up && server.reachable)
            .count()
            >= 2;
        let effects = self.cluster.lead(majority && self.lease);
        self.take(effects);
        self.work();
        let effects = self.cluster.tick(self.now);
        self.take(effects);
        self.assert_steering();
    }

    /// Replicas copy what their source has and they lack.
    fn replicate(&mut self) {
        for replica in 0..3 {
            let Some(source) = self.servers[replica].source else {
                continue;
            };
            if !self.servers[replica].up
                || !self.servers[replica].receiving
                || !self.linked(replica, source)
            {
                continue;
            }
            let from = self.servers[source].received.clone();
            let terms = self.servers[source].terms.clone();
            let server = &mut self.servers[replica];
            server.pulse += 1;
            // Strict: a replica with something that its source lacks is refused.
            if server.received.len() <= from.len() && from.starts_with(&server.received) {
                server.received = from;
                server.terms = terms;
            }
            if !server.lagging {
                server.applied = server.received.len();
            }
            server.apply_terms();
        }
    }

    /// Whether a write on this server would be acknowledged: by a replica, if it waits for one.
    fn commits(&self, member: usize) -> bool {
        let server = &self.servers[member];
        let replicated = (0..3).any(|other| {
            let replica = &self.servers[other];
            replica.up
                && replica.source == Some(member)
                && replica.receiving
                && self.linked(member, other)
                && server.received.starts_with(&replica.received)
        });
        server.up && server.writable && (replicated || !server.armed)
    }

    /// A client writes by the writer address.
    fn client(&mut self) {
        let steering = self.cluster.steering();
        let Some(member) = steering
            .writes
            .iter()
            .position(|writes| *writes == Readable::Yes)
        else {
            return;
        };
        if !self.servers[member].up || !self.servers[member].writable {
            return;
        }
        self.next_write += 1;
        let write = (self.servers[member].id, self.next_write);
        let acknowledged = self.commits(member);
        let server = &mut self.servers[member];
        server.received.push(write);
        server.applied = server.received.len();
        if acknowledged {
            assert!(
                server.armed,
                "N8: a write was acknowledged by one server alone"
            );
            self.acked.insert(write);
            let (term, id) = (server.term, server.id);
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
    }

    fn check(&self, member: usize) -> Observation {
        let server = &self.servers[member];
        if !server.up {
            return Observation::Failed(Failure::Refused);
        }
        if !server.reachable {
            return Observation::Failed(Failure::TimedOut);
        }
        if server.refuses_login {
            return Observation::Failed(Failure::of_server(1045, "denied"));
        }
        let replication = server.source.map(|source| Replication {
            source: Some(ServerId(self.servers[source].id.to_string())),
            receiving: server.receiving && self.servers[source].up,
            applying: true,
            pulse: server.pulse,
            behind: Some(0),
            received: Server::set(&server.received),
            error: None,
        });
        Observation::Answered(Box::new(Picture {
            server: ServerId(server.id.to_string()),
            make: Make::Mariadb,
            version: String::new(),
            read_only: !server.writable,
            super_read_only: false,
            offline: false,
            replication,
            executed: server.executed(),
            term: (server.term > 0).then(|| Term {
                number: server.term,
                server: ServerId(String::new()),
            }),
            beat: None,
            semi_sync: SemiSync {
                armed: server.armed,
                in_effect: server.armed,
                replicas: 2,
                acknowledges: true,
            },
            group: None,
            galera: None,
        }))
    }

    /// The edge: does what was ordered, with the servers as they are.
    fn work(&mut self) {
        for (number, order) in std::mem::take(&mut self.pending) {
            let report = self.perform(&order);
            let effects = self.cluster.hear(number, report, self.now);
            self.take(effects);
        }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Order(order) => self.pending.push((order.number, order)),
                Effect::Audit(line) if line.contains("began by itself") => {
                    self.automatic += 1;
                    let now = self.now.instant;
                    assert!(
                        self.promotions
                            .last()
                            .is_none_or(|last| now - *last >= Duration::from_secs(60)),
                        "N4: a second failover inside the cool-down"
                    );
                    self.promotions.push(now);
                }
                _ => {}
            }
        }
    }

    fn perform(&mut self, order: &Order) -> Report {
        let member = order.member;
        if !self.servers[member].up
            || !self.servers[member].reachable
            || self.servers[member].refuses_login
        {
            return Report::Failed("no answer".to_owned());
        }
        if !self.lease && order.task != Task::CloseWrites {
            return Report::Failed("the lock is lost".to_owned());
        }
        let commits = self.commits(member);
        let source = self.servers[member].source;
        match &order.task {
            Task::Inspect => {}
            Task::StopReceiving => self.servers[member].receiving = false,
            Task::StartReceiving => self.servers[member].receiving = source.is_some(),
            Task::Apply(wanted) => {
                let server = &mut self.servers[member];
                if !Server::set(&server.received).covers(wanted) || server.lagging {
                    return Report::Failed("not applied in time".to_owned());
                }
                server.applied = server.received.len();
                server.apply_terms();
            }
            Task::BecomeSource => {
                let server = &mut self.servers[member];
                assert_eq!(
                    server.applied,
                    server.received.len(),
                    "N5: relay log thrown away"
                );
                server.source = None;
                server.receiving = false;
                server.armed = true;
            }
            Task::Follow(new) => {
                let theirs = Server::set(&self.servers[*new].received);
                let server = &mut self.servers[member];
                let unapplied = Server::set(&server.received);
                assert!(
                    server.applied == server.received.len() || theirs.covers(&unapplied),
                    "N5: relay log thrown away that the source lacks"
                );
                server.received.truncate(server.applied);
                server.writable = false;
                server.armed = false;
                server.source = Some(*new);
                server.receiving = true;
            }
            Task::OpenWrites => {
                let heard = (0..3).any(|other| {
                    self.servers[other].source == Some(member)
                        && self.servers[other].receiving
                        && self.linked(member, other)
                });
                if !heard {
                    return Report::Failed("no replica to acknowledge".to_owned());
                }
                self.servers[member].writable = true;
            }
            Task::CloseWrites => self.servers[member].writable = false,
            Task::BeginTerm(term) => {
                self.next_write += 1;
                let number = self.next_write;
                let server = &mut self.servers[member];
                server.terms.push((server.received.len(), *term));
                server.received.push((server.id, number));
                server.applied = server.received.len();
                server.apply_terms();
                if !commits {
                    return Report::Failed("nobody acknowledged".to_owned());
                }
            }
            Task::DisarmSource => self.servers[member].armed = false,
        }
        let server = &self.servers[member];
        Report::Done(Position {
            executed: server.executed(),
            received: Server::set(&server.received),
        })
    }

    fn assert_steering(&self) {
        let steering = self.cluster.steering();
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

    /// Everything acknowledged is on the server that takes the writes (N2).
    fn assert_nothing_lost(&self) {
        let steering = self.cluster.steering();
        let Some(writer) = steering
            .writes
            .iter()
            .position(|writes| *writes != Readable::No)
        else {
            return;
        };
        let rows: BTreeSet<_> = self.servers[writer].received.iter().copied().collect();
        let missing: Vec<_> = self.acked.difference(&rows).collect();
        assert!(
            missing.is_empty(),
            "N2: missing on web{}: {missing:?}",
            writer + 1
        );
    }
}

fn survey() -> Survey {
    let good = [
        ("gtid_strict_mode", "1"),
        ("log_bin", "1"),
        ("log_slave_updates", "1"),
        ("binlog_format", "ROW"),
        ("sync_binlog", "1"),
        ("innodb_flush_log_at_trx_commit", "1"),
        ("rpl_semi_sync_master_wait_point", "AFTER_SYNC"),
        ("rpl_semi_sync_master_timeout", "3600000"),
        ("rpl_semi_sync_slave_kill_conn_timeout", "1"),
        (preflight::TABLES, "2"),
    ];
    Survey {
        settings: good
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        counters: BTreeMap::new(),
    }
}

#[derive(Clone, Debug)]
enum Event {
    Kill(usize),
    /// Comes back read-only, with its unacknowledged tail cut off or kept.
    Start(usize, Tail),
    Hide(usize),
    Show(usize),
    Cut(usize),
    Join(usize),
    Lag(usize),
    CatchUp(usize),
    Deny(usize),
    Admit(usize),
    LoseLease,
    TakeLease,
    /// The controller stands still for this many checks.
    Sleep(u8),
    Command(Command),
}

#[derive(Clone, Copy, Debug)]
enum Tail {
    Cut,
    Kept,
}

fn event() -> impl Strategy<Value = Event> {
    let member = || 0_usize..3;
    prop_oneof![
        3 => member().prop_map(Event::Kill),
        3 => (member(), prop_oneof![Just(Tail::Cut), Just(Tail::Kept)]).prop_map(|(m, tail)| Event::Start(m, tail)),
        2 => member().prop_map(Event::Hide),
        3 => member().prop_map(Event::Show),
        2 => member().prop_map(Event::Cut),
        3 => member().prop_map(Event::Join),
        1 => member().prop_map(Event::Lag),
        2 => member().prop_map(Event::CatchUp),
        1 => member().prop_map(Event::Deny),
        2 => member().prop_map(Event::Admit),
        1 => Just(Event::LoseLease),
        2 => Just(Event::TakeLease),
        1 => (1_u8..40).prop_map(Event::Sleep),
        2 => Just(Event::Command(Command::Resume)),
        1 => Just(Event::Command(Command::Failover)),
        2 => member().prop_map(|m| Event::Command(Command::Switchover { to: format!("web{}", m + 1) })),
        1 => member().prop_map(|m| Event::Command(Command::Rejoin { member: format!("web{}", m + 1) })),
    ]
}

impl World {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Kill(member) => {
                let server = &mut self.servers[*member];
                server.up = false;
            }
            Event::Start(member, tail) if !self.servers[*member].up => {
                let acked = self.acked.clone();
                let server = &mut self.servers[*member];
                server.up = true;
                server.writable = false;
                server.armed = false;
                if matches!(tail, Tail::Cut) && server.source.is_none() {
                    let kept = server
                        .received
                        .iter()
                        .rposition(|write| acked.contains(write))
                        .map_or(0, |at| at + 1);
                    let kept =
                        kept.max(server.terms.iter().map(|(at, _)| at + 1).max().unwrap_or(0));
                    server.received.truncate(kept);
                    server.applied = server.applied.min(kept);
                }
            }
            Event::Hide(member) => self.servers[*member].reachable = false,
            Event::Show(member) => self.servers[*member].reachable = true,
            Event::Cut(member) => self.servers[*member].connected = false,
            Event::Join(member) => self.servers[*member].connected = true,
            Event::Lag(member) => self.servers[*member].lagging = true,
            Event::CatchUp(member) => self.servers[*member].lagging = false,
            Event::Deny(member) => self.servers[*member].refuses_login = true,
            Event::Admit(member) => self.servers[*member].refuses_login = false,
            Event::LoseLease => self.lease = false,
            Event::TakeLease => self.lease = true,
            Event::Sleep(checks) => {
                self.sleeping = true;
                for _ in 0..*checks {
                    self.step();
                }
                self.sleeping = false;
            }
            Event::Command(command) => {
                if matches!(command, Command::Resume) {
                    // A human looks no sooner than the cool-down.
                    self.promotions.clear();
                }
                if let Ok((_, effects)) = self.cluster.command(command, self.now) {
                    self.take(effects);
                }
            }
            Event::Start(..) => {}
        }
    }

    fn run(&mut self, checks: u32) {
        for _ in 0..checks {
            self.step();
        }
    }

    fn settle(&mut self) {
        self.run(30);
    }

    fn writer(&self) -> Option<usize> {
        self.cluster
            .steering()
            .writes
            .iter()
            .position(|writes| *writes == Readable::Yes)
    }
}

#[test]
fn a_killed_primary_is_replaced_once_and_comes_back_as_a_replica() {
    let mut world = World::new(Instant::now());
    world.settle();
    assert_eq!(world.writer(), Some(0));
    world.happen(&Event::Kill(0));
    world.run(15);
    assert_eq!(world.writer(), Some(1));
    world.assert_nothing_lost();
    assert_eq!(world.automatic, 1);
    world.happen(&Event::Start(0, Tail::Cut));
    world.run(100);
    assert_eq!(world.servers[0].source, Some(1), "it follows again");
    assert_eq!(
        world.cluster.steering().reads,
        [Readable::Yes, Readable::No, Readable::Yes]
    );
    world.happen(&Event::Kill(1));
    world.run(50);
    assert_eq!(world.writer(), None, "N4: a human has not said resume");
}

#[test]
fn a_member_that_kept_what_nobody_acknowledged_stays_out() {
    let mut world = World::new(Instant::now());
    world.settle();
    world.happen(&Event::Cut(0));
    world.run(5);
    world.happen(&Event::Kill(0));
    world.happen(&Event::Join(0));
    world.run(30);
    assert_eq!(world.writer(), Some(1));
    world.happen(&Event::Start(0, Tail::Kept));
    world.run(60);
    assert_eq!(world.servers[0].source, None, "N6");
    assert_eq!(world.cluster.steering().reads[0], Readable::No);
    world.assert_nothing_lost();
}

#[test]
fn a_primary_cut_from_this_controller_alone_stays() {
    let mut world = World::new(Instant::now());
    world.settle();
    world.happen(&Event::Hide(0));
    world.run(50);
    assert_eq!((world.writer(), world.automatic), (Some(0), 0));
}

#[test]
fn a_primary_and_a_replica_lost_together_promote_nobody() {
    let mut world = World::new(Instant::now());
    world.settle();
    world.happen(&Event::Kill(0));
    world.happen(&Event::Kill(2));
    world.run(50);
    assert_eq!((world.writer(), world.automatic), (None, 0));
}

#[test]
fn a_replica_that_was_away_when_the_primary_died_is_waited_for() {
    let mut world = World::new(Instant::now());
    world.settle();
    world.happen(&Event::Hide(2));
    world.run(20);
    world.happen(&Event::Kill(0));
    world.run(20);
    assert_eq!((world.writer(), world.automatic), (None, 0), "N3");
    world.happen(&Event::Show(2));
    world.run(50);
    assert_eq!((world.writer(), world.automatic), (Some(1), 1));
    world.assert_nothing_lost();
}

#[test]
fn a_wrong_password_and_a_sleeping_controller_are_no_deaths() {
    let mut world = World::new(Instant::now());
    world.settle();
    for member in 0..3 {
        world.happen(&Event::Deny(member));
    }
    world.run(50);
    assert_eq!((world.writer(), world.automatic), (Some(0), 0), "N9");
    for member in 0..3 {
        world.happen(&Event::Admit(member));
    }
    world.run(3);
    world.happen(&Event::Sleep(40));
    world.run(20);
    assert_eq!((world.writer(), world.automatic), (Some(0), 0));
}

#[test]
fn a_fast_restart_takes_its_writes_again_without_a_failover() {
    let mut world = World::new(Instant::now());
    world.settle();
    world.lease = false;
    world.happen(&Event::Kill(0));
    world.run(4);
    world.happen(&Event::Start(0, Tail::Cut));
    world.run(2);
    world.lease = true;
    world.run(30);
    assert_eq!((world.writer(), world.automatic), (Some(0), 0));
    assert!(world.servers[0].armed);
}

#[test]
fn a_switchover_moves_the_writes_and_loses_none() {
    let mut world = World::new(Instant::now());
    world.settle();
    world.happen(&Event::Command(Command::Switchover {
        to: "web3".to_owned(),
    }));
    world.run(20);
    assert_eq!(world.writer(), Some(2));
    assert_eq!(world.servers[0].source, Some(2));
    world.assert_nothing_lost();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_history_breaks_the_contract(
        history in proptest::collection::vec((event(), 0_u32..25), 1..40),
    ) {
        let mut world = World::new(Instant::now());
        world.settle();
        for (event, checks) in &history {
            world.happen(event);
            world.run(*checks);
            world.assert_nothing_lost();
        }
        for member in 0..3 {
            for event in [Event::Start(member, Tail::Cut), Event::Show(member), Event::Join(member), Event::CatchUp(member), Event::Admit(member)] {
                world.happen(&event);
            }
        }
        world.lease = true;
        world.run(100);
        world.assert_nothing_lost();
    }
}
