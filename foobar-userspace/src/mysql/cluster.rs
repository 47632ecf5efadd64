//! A cluster over time: what its members showed, whom its addresses lead to, what is done about a loss.

mod describe;
mod lease;
mod member;
mod operate;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use self::member::Member;
pub use self::operate::{Command, Refused};
use super::{
    claim::Claim,
    evidence::{self, Unfit, Witness, Writer},
    failover::Failover,
    lag::{LagLimits, Readable},
    observation::{Look, Observation, ServerId, Survey},
    preflight::{self, Candidate, Lack},
    rejoin::Rejoin,
    switchover::Switchover,
    task::{Effect, Report},
};
pub use crate::config::{Fallback, MysqlMode as Mode, OnWriteStall, RejoinWish};

/// What of the configuration decides.
#[derive(Clone, Debug)]
pub struct Limits {
    pub mode: Mode,
    /// Time between checks.
    pub every: Duration,
    /// Failures in a row that make a member gone.
    pub fall: u32,
    /// How often a source says that it lives.
    pub heartbeat: Duration,
    pub lag: LagLimits,
    pub fallback: Fallback,
    pub on_write_stall: OnWriteStall,
    pub rejoin: RejoinWish,
    pub cool_down: Duration,
    /// How long the writer address is served on the strength of one look.
    pub lease: Option<Duration>,
    /// How many serve the cluster, of whom one leads.
    pub balancers: usize,
    /// Users of foobar itself.
    pub own: Vec<String>,
    /// Whose terms these are.
    pub who: String,
}

/// Both clocks at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    /// Microseconds since 1970, for what outlives this process.
    pub micros: u64,
}

/// Whom the addresses lead to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Steering {
    /// At most one is not [`Readable::No`] (N1).
    pub writes: Vec<Readable>,
    pub reads: Vec<Readable>,
}

/// What outlives a restart of the controller.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Memory {
    /// Why nothing is done automatically (N4).
    pub paused: Option<String>,
    /// Deposed servers, and the term that deposed them.
    pub fenced: BTreeMap<String, u64>,
    pub last_failover: Option<u64>,
    /// The last term that was given out, whether or not it began.
    pub last_term: u64,
    /// Who was primary when the preflight held last; none where it did not hold.
    pub sound_with: Option<String>,
    /// Servers that were opened and whose term nobody acknowledged (N8).
    pub unproved: BTreeSet<String>,
    pub failovers: u64,
    pub failovers_given_up: u64,
    pub switchovers: u64,
}

#[derive(Clone, Debug)]
pub struct Cluster {
    limits: Limits,
    members: Vec<Member>,
    /// The member that took the writes last.
    incumbent: Option<usize>,
    writer: Writer,
    verdicts: Vec<Result<(), Unfit>>,
    /// A promotion that was acknowledged, while the checks do not show it yet.
    proved: Option<Proof>,
    /// Since when no member showed itself that it takes the writes.
    unserved_since: Option<Instant>,
    operation: Option<Operation>,
    /// When an operation had a server open last whose term was not acknowledged yet.
    opened: Option<Instant>,
    /// When the primary was last asked to begin a term that it lacks.
    claimed: Option<Instant>,
    attempts: Attempts,
    orders: u64,
    /// The last beat that the primary took.
    written: Option<u64>,
    leads: bool,
    /// Of every member something was known before the last look.
    knew_all: bool,
    lacks: Vec<Lack>,
    hints: Vec<Lack>,
    /// The preflight held when all was well last.
    armed: bool,
    /// Why a failover that is due does not take place.
    hindrance: Option<String>,
    role_changes: u64,
    last_window: Option<Duration>,
    /// How the last operation ended, until somebody asks.
    finished: Option<Result<String, String>>,
    memory: Memory,
}

/// Failovers that were given up since the last that was not.
#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    failed: u32,
    /// Until then what was undone may not be seen yet.
    rest_until: Option<Instant>,
}

/// A term that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Proof {
    member: usize,
    /// When it was asked for.
    since: Instant,
    until: Instant,
}

#[derive(Clone, Debug)]
enum Operation {
    Failover(Failover, Cause),
    Switchover(Switchover),
    Rejoin(Rejoin),
    Claim(Claim),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    Automatic,
    Human,
}

impl Cluster {
    #[must_use]
    pub fn new(limits: Limits, names: Vec<(String, u16)>, memory: Memory) -> Self {
        let members: Vec<_> = names
            .into_iter()
            .map(|(host, port)| Member::new(host, port))
            .collect();
        Self {
            verdicts: vec![Err(Unfit::Unknown); members.len()],
            limits,
            members,
            incumbent: None,
            writer: Writer::Nobody,
            proved: None,
            unserved_since: None,
            operation: None,
            opened: None,
            claimed: None,
            attempts: Attempts::default(),
            orders: 0,
            written: None,
            leads: false,
            knew_all: false,
            lacks: Vec::new(),
            hints: Vec::new(),
            armed: false,
            hindrance: None,
            role_changes: 0,
            last_window: None,
            finished: None,
            memory,
        }
    }

    #[must_use]
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Goes on from what an earlier controller left: this member had the writes.
    pub fn take_up(&mut self, incumbent: usize) {
        self.incumbent = (incumbent < self.members.len()).then_some(incumbent);
    }

    /// How an operation ended since this was asked last.
    pub fn finished(&mut self) -> Option<Result<String, String>> {
        self.finished.take()
    }

    /// Whether something is known of every member.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.members
            .iter()
            .all(|member| member.picture.is_some() || member.failure.is_some())
    }

    /// The member that a write probe goes to: also one that nobody hears from any more, whose writes then tell whether it is
    /// cut off.
    #[must_use]
    pub fn to_probe(&self) -> Option<usize> {
        if self.operation.is_some() {
            return None;
        }
        match self.writer {
            Writer::One(member) => Some(member),
            Writer::Nobody => self.incumbent.filter(|incumbent| {
                let member = &self.members[*incumbent];
                let picture = member.picture.as_ref().filter(|_| member.misses == 0);
                picture.is_some_and(|picture| {
                    !picture.read_only
                        && !self.is_fenced(&picture.server)
                        && !self.is_unproved(&picture.server)
                })
            }),
            Writer::Several(_) => None,
        }
    }

    /// Takes in one check of one member.
    pub fn observe(
        &mut self,
        member: usize,
        observation: Observation,
        look: Look,
        now: Now,
    ) -> Vec<Effect> {
        let Some(seen) = self.members.get_mut(member) else {
            return Vec::new();
        };
        seen.observe(observation, look, &self.limits, self.written, now);
        let mut effects = self.learn_of_term(member, now);
        effects.extend(self.judge(now));
        effects
    }

    /// A write with a new value came back from the primary, or did not in time.
    pub fn probed(&mut self, member: usize, beat: Result<u64, String>) {
        let Some(probed) = self.members.get_mut(member) else {
            return;
        };
        match beat {
            Ok(beat) => {
                probed.stalled = None;
                self.written = self.written.max(Some(beat));
            }
            // Where the checks fail too it is the way there, not the disk.
            Err(_) if probed.misses > 0 => {}
            Err(why) => probed.stalled = Some(why),
        }
    }

    pub fn surveyed(&mut self, member: usize, survey: Survey, now: Now) {
        if let Some(surveyed) = self.members.get_mut(member) {
            surveyed.survey(survey, now.instant);
        }
        self.preflight(now.instant);
    }

    /// Whether this controller holds the locks of a majority of all members.
    pub fn lead(&mut self, leads: bool) -> Vec<Effect> {
        if self.leads == leads {
            return Vec::new();
        }
        self.leads = leads;
        vec![Effect::Audit(
            if leads {
                "leads: it holds the locks of a majority"
            } else {
                "leads no more"
            }
            .to_owned(),
        )]
    }

    /// A report on an order, or time passing.
    pub fn hear(&mut self, number: u64, report: Report, now: Now) -> Vec<Effect> {
        self.operate(Some((number, report)), now)
    }

    pub fn tick(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = self.operate(None, now);
        effects.extend(self.judge(now));
        effects.extend(self.consider(now));
        effects
    }

    /// Whom the addresses lead to now.
    #[must_use]
    pub fn steering(&self) -> Steering {
        let mut writes = vec![Readable::No; self.members.len()];
        if let Some(writer) = self.steered_writer() {
            writes[writer] = if self.members[writer].stalled.is_some() && self.proved.is_none() {
                Readable::KeepsOnly
            } else {
                Readable::Yes
            };
        }
        Steering {
            reads: self.readers(&writes),
            writes,
        }
    }

    fn steered_writer(&self) -> Option<usize> {
        let by_evidence = match self.writer {
            Writer::One(member) => Some(member),
            Writer::Nobody => None,
            Writer::Several(_) => return None,
        };
        match &self.operation {
            Some(Operation::Failover(..)) => None,
            Some(Operation::Switchover(switchover)) if !switchover.keeps_old() => None,
            _ => self.proved.map(|proof| proof.member).or(by_evidence),
        }
    }

    fn readers(&self, writes: &[Readable]) -> Vec<Readable> {
        let mut reads: Vec<Readable> = (0..self.members.len())
            .map(|member| match writes[member] {
                Readable::No => self.readable(member),
                _ => Readable::No,
            })
            .collect();
        let someone = reads.contains(&Readable::Yes);
        if !someone && self.limits.fallback == Fallback::LeastLagged {
            let keeping = (0..reads.len()).filter(|member| reads[*member] == Readable::KeepsOnly);
            if let Some(least) = keeping.min_by_key(|member| self.members[*member].gate.lag()) {
                reads[least] = Readable::Yes;
            }
        }
        reads
    }

    /// By everything but the writes: it must not be the writer as well, an answer must tell which address it came by.
    fn readable(&self, index: usize) -> Readable {
        let member = &self.members[index];
        let Some(picture) = member
            .picture
            .as_ref()
            .filter(|_| !member.is_gone(&self.limits))
        else {
            return Readable::No;
        };
        if picture.offline || self.is_fenced(&picture.server) || member.errant().is_some() {
            return Readable::No;
        }
        if let Some(group) = &picture.group {
            return if group.online && group.is_majority() {
                Readable::Yes
            } else {
                Readable::No
            };
        }
        if let Some(galera) = &picture.galera {
            return if galera.is_synced() {
                Readable::Yes
            } else {
                Readable::No
            };
        }
        let Some(replication) = &picture.replication else {
            return Readable::No;
        };
        let source = self.members.iter().position(|other| {
            other
                .picture
                .as_ref()
                .is_some_and(|other| replication.source.as_ref() == Some(&other.server))
        });
        let follows_incumbent = source.is_some() && source == self.incumbent;
        // While nobody takes writes there is nothing that a replica could miss.
        let receives = replication.receiving || self.steered_writer().is_none();
        if !follows_incumbent || !receives || !replication.applying {
            return Readable::No;
        }
        member.gate.readable(self.limits.lag)
    }

    fn is_fenced(&self, server: &ServerId) -> bool {
        self.memory.fenced.contains_key(&server.0)
    }

    /// Opened by us, and never proved.
    fn is_unproved(&self, server: &ServerId) -> bool {
        self.memory.unproved.contains(&server.0)
    }

    /// A server that was seen closed since may be opened by somebody else; one whose term another member has was proved by
    /// it, whoever asked for it.
    fn forgive(&mut self) {
        if self.operation.is_some() {
            return;
        }
        let highest = self.highest_term();
        let pictures = self
            .members
            .iter()
            .filter_map(|member| member.picture.as_ref());
        for picture in pictures {
            if let Some(term) = &picture.term
                && term.number == highest
                && term.server != picture.server
            {
                self.memory.unproved.remove(&term.server.0);
            }
        }
        let seen_since = |taken| self.opened.is_none_or(|opened| taken > opened);
        for member in self
            .members
            .iter()
            .filter(|member| member.taken.is_some_and(seen_since))
        {
            if let Some(picture) = member.picture.as_ref().filter(|picture| picture.read_only) {
                self.memory.unproved.remove(&picture.server.0);
            }
        }
    }

    /// Reads the evidence anew.
    fn judge(&mut self, now: Now) -> Vec<Effect> {
        self.forgive();
        let heard: Vec<bool> = (0..self.members.len())
            .map(|index| self.is_heard(index))
            .collect();
        let witnesses: Vec<Witness<'_>> = self
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| {
                let gone = member.is_gone(&self.limits);
                // Cut from us alone: what its replicas hear from is alive.
                let vouched = gone && heard[index] && self.incumbent == Some(index);
                Witness {
                    name: &member.host,
                    picture: member.picture.as_ref().filter(|_| !gone || vouched),
                    taken: member.taken,
                    term_since: member.term_since,
                    failure: member.failure.as_ref(),
                    hears: member.hears(&self.limits),
                    gone: gone && !vouched,
                    fenced: member.picture.as_ref().is_some_and(|picture| {
                        self.is_fenced(&picture.server) || self.is_unproved(&picture.server)
                    }),
                    incumbent: self.incumbent == Some(index),
                }
            })
            .collect();
        let (writer, verdicts) = evidence::judge(&witnesses);
        self.verdicts = verdicts;
        let before = std::mem::replace(&mut self.writer, writer);
        self.note_errant(now);
        self.note_contact(now);
        self.settle_proof(now);
        self.changed_writer(&before)
    }

    /// Whether another member received something from it within the limit.
    fn is_heard(&self, index: usize) -> bool {
        let Some(server) = self.members[index]
            .picture
            .as_ref()
            .map(|picture| &picture.server)
        else {
            return false;
        };
        self.members.iter().enumerate().any(|(other, member)| {
            other != index
                && member.follows(server)
                && member.hears(&self.limits)
                && !member.is_gone(&self.limits)
        })
    }

    fn note_errant(&mut self, now: Now) {
        let Writer::One(writer) = self.writer else {
            return;
        };
        let Some(executed) = self.members[writer]
            .picture
            .as_ref()
            .map(|picture| picture.executed.clone())
        else {
            return;
        };
        for (index, member) in self.members.iter_mut().enumerate() {
            if index != writer {
                member.compare(&executed, now.instant);
            }
        }
    }

    fn note_contact(&mut self, now: Now) {
        // One that others vouch for may have been closed since it was seen.
        let is_shown = |writer: usize| self.members[writer].misses == 0;
        if matches!(self.writer, Writer::One(writer) if is_shown(writer)) {
            self.unserved_since = None;
        } else {
            self.unserved_since.get_or_insert(now.instant);
        }
    }

    /// A proof stands for a while, in which the checks may still show what was before, unless they show a rival.
    fn settle_proof(&mut self, now: Now) {
        if let Some(proof) = self.proved
            && (now.instant > proof.until || matches!(self.writer, Writer::Several(_)))
        {
            self.proved = None;
        }
    }

    fn changed_writer(&mut self, before: &Writer) -> Vec<Effect> {
        if *before == self.writer {
            return Vec::new();
        }
        let mut effects = Vec::new();
        match &self.writer {
            Writer::One(member) => {
                if self.incumbent != Some(*member) {
                    self.role_changes += 1;
                    self.written = None;
                    effects.push(Effect::Hook("writer", Some(*member)));
                }
                self.incumbent = Some(*member);
                effects.push(Effect::Audit(format!(
                    "{} takes the writes",
                    self.members[*member].host
                )));
            }
            Writer::Nobody => {
                effects.push(Effect::Audit(format!(
                    "nobody may take writes: {}",
                    self.why_nobody()
                )));
            }
            Writer::Several(rivals) => {
                let names: Vec<_> = rivals
                    .iter()
                    .map(|rival| self.members[*rival].host.as_str())
                    .collect();
                effects.push(Effect::Audit(format!(
                    "{} all claim to be primary: the writer address leads to none of them",
                    names.join(" and ")
                )));
                effects.push(Effect::Hook("two-writers", None));
            }
        }
        effects
    }

    fn why_nobody(&self) -> String {
        let reasons: Vec<_> = self
            .members
            .iter()
            .zip(&self.verdicts)
            .filter_map(|(member, verdict)| {
                Some(format!("{}: {}", member.host, verdict.as_ref().err()?))
            })
            .collect();
        reasons.join("; ")
    }

    fn preflight(&mut self, now: Instant) {
        let Writer::One(writer) = self.writer else {
            // Armed is what it was when there was a primary: the loss of one is what it is armed for.
            return;
        };
        if self.limits.mode == Mode::Consensus
            || self.operation.is_some()
            || self.members[writer].misses > 0
        {
            return;
        }
        let candidates = |is_shown: &dyn Fn(&Member) -> bool| -> Vec<Candidate<'_>> {
            self.members
                .iter()
                .enumerate()
                .map(|(index, member)| Candidate {
                    picture: member.picture.as_ref().filter(|_| is_shown(member)),
                    survey: member.survey.as_ref(),
                    is_primary: index == writer,
                    ran_lately: member.ran_lately(now),
                })
                .collect()
        };
        let own = &self.limits.own;
        // By what each showed last, whether or not it answers: that all answer is asked when it comes to it.
        let sound = preflight::for_promotion(&candidates(&|_| true), own).is_empty();
        let shown = candidates(&|member| !member.is_gone(&self.limits));
        let (lacks, hints) = (
            preflight::for_promotion(&shown, own),
            preflight::hints(&shown),
        );
        self.memory.sound_with = self.members[writer]
            .picture
            .as_ref()
            .filter(|_| self.limits.mode == Mode::Promote && sound)
            .map(|picture| picture.server.0.clone());
        self.lacks = lacks;
        self.hints = hints;
        self.armed = self.limits.mode == Mode::Promote && self.lacks.is_empty();
    }
}

#[cfg(test)]
mod tests;
