//! One cluster: observations go into its pure state, and what that decides goes to the servers and the packet path.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::PoisonError,
    time::{Duration, Instant},
};

use tokio::{
    process::Command as Program,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time,
};

use super::{Lease, Shared, Steered, journal::Journal};
use crate::{
    admin::api::{ClusterStatus, MysqlCommand, Refusal, Response},
    balancer::Availability,
    config::{Account, EndpointRole, MysqlCheck, MysqlMember, MysqlMode, MysqlService},
    database::{Beat, Endpoint, Hand, Heard, Peer, Rhythm, Seen, Stage, probe, watch as look},
    mysql::{
        Cluster, Limits, Steering,
        cluster::{Command, Memory, Now},
        lag::{LagLimits, Readable},
        leadership::Leadership,
        task::{Effect, Order},
    },
};

/// A command, and whom to tell how it ended.
#[derive(Debug)]
pub struct Wanted {
    pub command: MysqlCommand,
    pub answer: oneshot::Sender<Result<Response, Refusal>>,
}

#[derive(Debug)]
pub struct Conductor {
    service: MysqlService,
    node: String,
    cluster: Cluster,
    journal: Journal,
    steered: mpsc::Sender<Steered>,
    status: Shared,
    /// What the packet path was told last.
    told: Option<(Steering, Option<Instant>)>,
    kept: Memory,
    hands: Vec<mpsc::Sender<Order>>,
    leadership: Leadership,
    /// To let go of the locks, and take none.
    yields: watch::Sender<bool>,
    target: watch::Sender<Option<usize>>,
    /// Who waits for the end of what is under way.
    waiting: Option<oneshot::Sender<Result<Response, Refusal>>>,
    trouble: Option<String>,
}

/// Where news comes from.
struct Inbox {
    seen: mpsc::Receiver<Seen>,
    beats: mpsc::Receiver<Beat>,
    heard: mpsc::Receiver<Heard>,
    /// Ends what sends, with this.
    _tasks: JoinSet<()>,
}

impl Conductor {
    pub fn new(
        service: MysqlService,
        node: String,
        directory: &Path,
        writers: &BTreeSet<(String, u16)>,
        steered: mpsc::Sender<Steered>,
        status: Shared,
    ) -> Self {
        let journal = Journal::new(directory, &service.name);
        let mut trouble = None;
        let memory = journal.recall().unwrap_or_else(|error| {
            let why = format!("what was remembered of failovers cannot be read ({error}); look, then `foobar mysql resume`");
            trouble = Some(why.clone());
            Memory { paused: Some(why), ..Memory::default() }
        });
        let names: Vec<_> = service
            .members
            .iter()
            .map(|member| (member.host.clone(), member.port.get()))
            .collect();
        let rank = service
            .balancers
            .iter()
            .position(|balancer| balancer.node == node)
            .unwrap_or(0);
        let incumbent = names.iter().position(|name| writers.contains(name));
        let mut cluster = Cluster::new(limits(&service, &node), names, memory.clone());
        if let Some(incumbent) = incumbent {
            cluster.take_up(incumbent);
        }
        Self {
            leadership: Leadership::new(service.members.len(), rank),
            yields: watch::Sender::new(false),
            service,
            node,
            cluster,
            journal,
            steered,
            status,
            told: None,
            kept: memory,
            hands: Vec::new(),
            target: watch::Sender::new(None),
            waiting: None,
            trouble,
        }
    }

    pub async fn run(mut self, mut wanted: mpsc::Receiver<Wanted>) {
        let mut inbox = loop {
            match self.start() {
                Ok(inbox) => break inbox,
                Err(why) => {
                    tracing::error!(cluster = self.service.name, "{why}");
                    self.trouble = Some(why);
                    self.tell_status();
                    time::sleep(SECRETS_AGAIN).await;
                }
            }
        };
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut next_status = Instant::now();
        loop {
            let effects = tokio::select! {
                Some(seen) = inbox.seen.recv() => self.see(seen),
                Some(beat) = inbox.beats.recv() => {
                    self.cluster.probed(beat.member, beat.written);
                    Vec::new()
                }
                Some(heard) = inbox.heard.recv() => self.hear(heard),
                Some(wanted) = wanted.recv() => self.command(wanted),
                _ = tick.tick() => self.cluster.tick(now()),
                else => return,
            };
            self.take(effects);
            let yields = self.leadership.yields(Instant::now());
            self.yields
                .send_if_modified(|known| std::mem::replace(known, yields) != yields);
            self.steer().await;
            self.conclude();
            if Instant::now() >= next_status {
                next_status = Instant::now() + STATUS;
                self.tell_status();
            }
        }
    }

    /// Begins to watch, to probe, and to hold the locks.
    fn start(&mut self) -> Result<Inbox, String> {
        let check = &self.service.check;
        let monitor = self.endpoints(&check.account)?;
        let mut tasks = JoinSet::new();
        let (sender, seen) = mpsc::channel(64);
        // One after the other: checks of all at one moment wait for each other.
        let members = u32::try_from(monitor.len()).unwrap_or(u32::MAX);
        let apart = check.every / members.max(1);
        let (mut from, every, timeout) = (time::Instant::now(), check.every, check.timeout);
        for (member, endpoint) in monitor.iter().enumerate() {
            tasks.spawn(look(
                member,
                endpoint.clone(),
                self.node.clone(),
                Rhythm {
                    from,
                    every,
                    timeout,
                },
                sender.clone(),
            ));
            from += apart;
        }
        let (sender, beats) = mpsc::channel(8);
        if let Some(every) = check.probe {
            let target = self.target.subscribe();
            tasks.spawn(probe(
                monitor,
                self.node.clone(),
                every,
                check.probe_timeout,
                target,
                sender,
            ));
        }
        let (sender, heard) = mpsc::channel(64);
        self.hands.clear();
        if let (MysqlMode::Promote, Some(admin), Some(replication)) = (
            self.service.mode,
            &self.service.admin,
            &self.service.replication,
        ) {
            let stage = Stage {
                members: self
                    .service
                    .members
                    .iter()
                    .filter_map(|member| address(member, Port::Service))
                    .collect(),
                replication: Peer {
                    user: replication.user.clone(),
                    password: secret(replication)?,
                },
                who: self.node.clone(),
            };
            let mut hands = Vec::new();
            for (member, endpoint) in self.endpoints(admin)?.into_iter().enumerate() {
                let (orders, given) = mpsc::channel(16);
                let hand = Hand::new(member, endpoint, &self.service.name, stage.clone());
                tasks.spawn(hand.run(given, self.yields.subscribe(), sender.clone()));
                hands.push(orders);
            }
            self.hands = hands;
        }
        self.trouble = None;
        Ok(Inbox {
            seen,
            beats,
            heard,
            _tasks: tasks,
        })
    }

    fn endpoints(&self, account: &Account) -> Result<Vec<Endpoint>, String> {
        let members = self.service.members.iter();
        members
            .map(|member| endpoint(&self.service.check, account, member))
            .collect()
    }

    fn see(&mut self, seen: Seen) -> Vec<Effect> {
        match seen {
            Seen::Checked {
                member,
                observation,
                look,
            } => self.cluster.observe(member, observation, look, now()),
            Seen::Surveyed { member, survey } => {
                self.cluster.surveyed(member, survey, now());
                Vec::new()
            }
        }
    }

    fn hear(&mut self, heard: Heard) -> Vec<Effect> {
        match heard {
            Heard::Report { number, report } => self.cluster.hear(number, report, now()),
            Heard::Lock { member, hold } => {
                self.leadership.hear(member, hold);
                self.cluster.lead(self.leadership.leads())
            }
        }
    }

    fn command(&mut self, wanted: Wanted) -> Vec<Effect> {
        let command = match wanted.command {
            MysqlCommand::Switchover { to, dry_run: true } => {
                let plan = self
                    .cluster
                    .plan(&to)
                    .map(|lines| lines.join("\n"))
                    .map_err(|why| why.to_string());
                self.trail(&format!(
                    "dry run of a switchover to {to}: {}",
                    plan.as_deref().unwrap_or_else(|why| why)
                ));
                answer(wanted.answer, plan);
                return Vec::new();
            }
            MysqlCommand::Switchover { to, dry_run: false } => Command::Switchover { to },
            MysqlCommand::Failover => Command::Failover,
            MysqlCommand::Rejoin { member } => Command::Rejoin { member },
            MysqlCommand::Resume | MysqlCommand::Status => Command::Resume,
        };
        match self.cluster.command(&command, now()) {
            Ok((said, effects)) => {
                if command == Command::Resume {
                    answer(wanted.answer, Ok(said));
                } else {
                    self.waiting = Some(wanted.answer);
                }
                effects
            }
            Err(why) => {
                answer(wanted.answer, Err(why.to_string()));
                Vec::new()
            }
        }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        if self.cluster.memory() != &self.kept {
            self.kept = self.cluster.memory().clone();
            if let Err(error) = self.journal.keep(&self.kept) {
                self.trouble = Some(format!("what was done cannot be remembered: {error}"));
            }
        }
        for effect in effects {
            match effect {
                Effect::Order(order) => {
                    let number = order.number;
                    let given = self
                        .hands
                        .get(order.member)
                        .is_some_and(|hand| hand.try_send(order).is_ok());
                    if !given {
                        tracing::warn!(
                            cluster = self.service.name,
                            number,
                            "an order could not be given"
                        );
                    }
                }
                Effect::Audit(line) => {
                    tracing::warn!(cluster = self.service.name, "{line}");
                    self.trail(&line);
                }
                Effect::Hook(event, member) => self.hook(event, member),
            }
        }
    }

    fn trail(&self, line: &str) {
        if let Err(error) = self.journal.note(now().micros, line) {
            tracing::warn!(cluster = self.service.name, "no line in the trail: {error}");
        }
    }

    /// Starts the operator's program, and waits for nothing.
    fn hook(&self, event: &str, member: Option<usize>) {
        let Some(program) = &self.service.hook else {
            return;
        };
        let host = member
            .and_then(|member| self.service.members.get(member))
            .map_or("", |member| member.host.as_str());
        let started = Program::new(program)
            .args([event, &self.service.name, host])
            .spawn();
        match started {
            Ok(mut child) => drop(tokio::spawn(async move { child.wait().await })),
            Err(error) => tracing::warn!(
                cluster = self.service.name,
                "the hook does not start: {error}"
            ),
        }
    }

    /// Tells the packet path where it differs from what it was told; before every member was looked at once, it stays as an
    /// earlier controller left it.
    async fn steer(&mut self) {
        self.target.send_if_modified(|target| {
            let next = self.cluster.to_probe();
            let changed = *target != next;
            *target = next;
            changed
        });
        if self.told.is_none() && !self.cluster.knows_all() {
            return;
        }
        let steering = self.cluster.steering();
        let lease = self.cluster.lease();
        let is_known = |(told, until): &(Steering, Option<Instant>)| {
            *told == steering && !is_worth_telling(*until, lease)
        };
        if self.told.as_ref().is_some_and(is_known) {
            return;
        }
        let shares = |readable: &[Readable]| {
            let share = |readable: &Readable| match readable {
                Readable::Yes => Availability::Up,
                Readable::KeepsOnly => Availability::Draining,
                Readable::No => Availability::Down,
            };
            self.service
                .members
                .iter()
                .zip(readable)
                .map(|(member, readable)| (member.host.clone(), member.port.get(), share(readable)))
                .collect()
        };
        let endpoints = vec![
            (
                self.service.endpoint(EndpointRole::Write),
                shares(&steering.writes),
            ),
            (
                self.service.endpoint(EndpointRole::Read),
                shares(&steering.reads),
            ),
        ];
        let leased = self.service.lease.map(|_| Lease {
            endpoint: self.service.endpoint(EndpointRole::Write),
            until: lease,
        });
        let steered = Steered {
            endpoints,
            lease: leased,
        };
        // Nobody listens any more when the controller ends.
        let _ = self.steered.send(steered).await;
        self.told = Some((steering, lease));
    }

    fn conclude(&mut self) {
        if let Some(outcome) = self.cluster.finished() {
            self.tell_status();
            if let Some(waiting) = self.waiting.take() {
                answer(waiting, outcome);
            }
        }
    }

    fn tell_status(&self) {
        let addresses = |addresses: &[SocketAddr]| -> Vec<String> {
            addresses.iter().map(ToString::to_string).collect()
        };
        let here = self.service.balancer(&self.node);
        let mut status = ClusterStatus {
            name: format!("mysql.{}", self.service.name),
            write: here.map_or_else(Vec::new, |here| addresses(&here.write)),
            read: here.map_or_else(Vec::new, |here| addresses(&here.read)),
            ..self.cluster.status()
        };
        status.alarms.extend(self.trouble.clone());
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// A lease that came or went, or that lasts longer by enough.
fn is_worth_telling(told: Option<Instant>, now: Option<Instant>) -> bool {
    match (told, now) {
        (Some(told), Some(now)) => now.saturating_duration_since(told) >= RENEWAL,
        (told, now) => told != now,
    }
}

fn answer(answer: oneshot::Sender<Result<Response, Refusal>>, outcome: Result<String, String>) {
    // The one who asked may have gone.
    let _ = answer.send(match outcome {
        Ok(message) => Ok(Response::Done { message }),
        Err(message) => Err(Refusal::Conflict { message }),
    });
}

/// Where a member is spoken with, and as whom.
pub fn endpoint(
    check: &MysqlCheck,
    account: &Account,
    member: &MysqlMember,
) -> Result<Endpoint, String> {
    let port = check
        .admin_port
        .map_or(Port::Service, |port| Port::Admin(port.get()));
    let address =
        address(member, port).ok_or_else(|| format!("{} has no private address", member.host))?;
    Ok(Endpoint {
        address,
        user: account.user.clone(),
        password: secret(account)?,
        ca: check.ca.clone(),
    })
}

#[derive(Clone, Copy)]
enum Port {
    Service,
    Admin(u16),
}

/// IPv4 where there is both: one address of a member is enough to speak with it.
fn address(member: &MysqlMember, port: Port) -> Option<SocketAddr> {
    let address = member.addresses.iter().next()?;
    Some(SocketAddr::new(
        address,
        match port {
            Port::Service => member.port.get(),
            Port::Admin(port) => port,
        },
    ))
}

fn secret(account: &Account) -> Result<String, String> {
    let found = account
        .password
        .reveal()
        .map_err(|error| format!("the password of {}: {error}", account.user))?;
    Ok(found.expose().to_owned())
}

fn limits(service: &MysqlService, node: &str) -> Limits {
    Limits {
        mode: service.mode,
        every: service.check.every,
        fall: service.check.fall,
        heartbeat: service.check.heartbeat,
        lag: LagLimits {
            soft: service.check.max_lag,
            hard: service.check.hard_lag,
        },
        fallback: service.fallback,
        on_write_stall: service.on_write_stall,
        rejoin: service.rejoin,
        cool_down: service.cool_down,
        lease: service.lease,
        balancers: service.balancers.len(),
        own: [
            Some(&service.check.account),
            service.admin.as_ref(),
            service.replication.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(|account| account.user.clone())
        .collect(),
        who: node.to_owned(),
    }
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        micros: crate::database::now(),
    }
}

const TICK: Duration = Duration::from_millis(25);
/// What a lease must gain to be renewed.
const RENEWAL: Duration = Duration::from_millis(50);
const STATUS: Duration = Duration::from_millis(200);
/// How long until a secret that was missing is looked for again.
pub const SECRETS_AGAIN: Duration = Duration::from_secs(5);
