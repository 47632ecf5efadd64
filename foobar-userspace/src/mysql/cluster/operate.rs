//! Roles moved: when a failover is due, what people command, and how an operation goes on.

use std::time::Duration;

use super::{
    Attempts, Cause, Cluster, Mode, Now, OnWriteStall, Operation, Proof, RejoinWish, member,
};
use crate::mysql::{
    evidence::{self, Writer},
    failover::Failover,
    observation::{Origin, ServerId},
    procedure::{Course, Procedure},
    rejoin::Rejoin,
    switchover::Switchover,
    task::{Effect, Report},
};

/// What an operator wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    Switchover {
        to: String,
    },
    Failover,
    Rejoin {
        member: String,
    },
    /// A human has looked: automatic failover may act again.
    Resume,
}

/// Why a command is not carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("there is no member `{0}`; there is {1}")]
    NoMember(String, String),
    #[error(
        "the mode is not `promote`: set it in the configuration, once `foobar mysql status` lists nothing that it lacks"
    )]
    Mode,
    #[error("{0} is under way")]
    Busy(String),
    #[error(
        "this controller does not hold the locks of a majority of the members: another leads, or too few answer"
    )]
    NoLease,
    #[error("{0}")]
    State(String),
}

impl Cluster {
    /// What a switchover would do, or why it would not.
    ///
    /// # Errors
    /// Why not.
    pub fn plan(&self, to: &str) -> Result<Vec<String>, Refused> {
        let (from, to) = self.switchable(to)?;
        let names: Vec<_> = self
            .members
            .iter()
            .map(|member| member.host.clone())
            .collect();
        Ok(Switchover::plan(
            from,
            to,
            &self.others(&[from, to]),
            &names,
        ))
    }

    /// Begins what an operator wants.
    ///
    /// # Errors
    /// Why not; nothing changed then.
    pub fn command(
        &mut self,
        command: &Command,
        now: Now,
    ) -> Result<(String, Vec<Effect>), Refused> {
        match command {
            Command::Switchover { to } => {
                let (from, to) = self.switchable(to)?;
                self.may_operate()?;
                let term = self.next_term();
                let others = self.others(&[from, to]);
                let (switchover, effects) =
                    Switchover::begin(from, to, others, term, self.orders, now.instant);
                let said = format!(
                    "switchover from {} to {} began, term {term}",
                    self.members[from].host, self.members[to].host
                );
                Ok((
                    said.clone(),
                    self.begin(Operation::Switchover(switchover), said, effects),
                ))
            }
            Command::Failover => {
                self.may_operate()?;
                let lost = self.lost(now).map_err(Refused::State)?;
                let effects = self.fail_over(lost, Cause::Human, now);
                Ok((
                    format!("failover from {} began", self.members[lost].host),
                    effects,
                ))
            }
            Command::Rejoin { member } => {
                let member = self.find(member)?;
                self.may_operate()?;
                let Writer::One(primary) = self.writer else {
                    return Err(Refused::State("there is no primary to follow".to_owned()));
                };
                if member == primary {
                    return Err(Refused::State("it is the primary".to_owned()));
                }
                let effects = self.rejoin(member, primary, now);
                Ok((
                    format!(
                        "{} is asked to follow {}",
                        self.members[member].host, self.members[primary].host
                    ),
                    effects,
                ))
            }
            Command::Resume => {
                let Some(_) = self.memory.paused.take() else {
                    return Err(Refused::State("nothing is paused".to_owned()));
                };
                self.memory.last_failover = None;
                self.hindrance = None;
                self.attempts = Attempts::default();
                Ok((
                    "automatic failover may act again".to_owned(),
                    vec![Effect::Audit("resumed by hand".to_owned())],
                ))
            }
        }
    }

    fn find(&self, host: &str) -> Result<usize, Refused> {
        self.members
            .iter()
            .position(|member| {
                member.host == host || format!("{}:{}", member.host, member.port) == host
            })
            .ok_or_else(|| {
                let names: Vec<_> = self
                    .members
                    .iter()
                    .map(|member| member.host.as_str())
                    .collect();
                Refused::NoMember(host.to_owned(), names.join(", "))
            })
    }

    fn may_operate(&self) -> Result<(), Refused> {
        if self.limits.mode != Mode::Promote {
            return Err(Refused::Mode);
        }
        if let Some(operation) = &self.operation {
            return Err(Refused::Busy(operation.procedure().name().to_owned()));
        }
        if !self.leads {
            return Err(Refused::NoLease);
        }
        Ok(())
    }

    fn switchable(&self, to: &str) -> Result<(usize, usize), Refused> {
        let to = self.find(to)?;
        if self.limits.mode != Mode::Promote {
            return Err(Refused::Mode);
        }
        let Writer::One(from) = self.writer else {
            return Err(Refused::State(format!(
                "there is no primary to switch from: {}",
                self.why_nobody()
            )));
        };
        let target = &self.members[to];
        if from == to {
            return Err(Refused::State(format!(
                "{} takes the writes already",
                target.host
            )));
        }
        if !self.lacks.is_empty() {
            return Err(Refused::State(format!(
                "the preflight does not hold: {}; `foobar mysql status` lists the cures",
                self.lacks
                    .iter()
                    .map(|lack| lack.what.as_str())
                    .collect::<Vec<_>>()
                    .join("; ")
            )));
        }
        let primary = self.members[from]
            .picture
            .as_ref()
            .map(|picture| picture.server.clone());
        let follows = primary.is_some_and(|primary| target.follows(&primary));
        if !follows || target.errant().is_some() || target.misses > 0 {
            return Err(Refused::State(format!(
                "{} is no clean replica of {}",
                target.host, self.members[from].host
            )));
        }
        match target.gate.lag() {
            Some(lag) if lag <= LAG_TO_SWITCH => Ok((from, to)),
            lag => Err(Refused::State(format!(
                "{} is {} behind; at most {LAG_TO_SWITCH:?} would keep the window short",
                target.host,
                lag.map_or("an unknown time".to_owned(), |lag| format!("{lag:?}"))
            ))),
        }
    }

    fn others(&self, but: &[usize]) -> Vec<usize> {
        (0..self.members.len())
            .filter(|member| !but.contains(member))
            .collect()
    }

    /// Never one that was given out before, though the checks may not show it yet.
    pub(super) fn next_term(&mut self) -> u64 {
        self.memory.last_term = self.highest_term().max(self.memory.last_term) + 1;
        self.memory.last_term
    }

    /// That any member shows.
    pub(super) fn highest_term(&self) -> u64 {
        let pictures = self
            .members
            .iter()
            .filter_map(|member| member.picture.as_ref());
        evidence::highest_term(pictures)
    }

    pub(super) fn begin(
        &mut self,
        operation: Operation,
        said: String,
        mut effects: Vec<Effect>,
    ) -> Vec<Effect> {
        self.orders = operation.procedure().orders().last();
        self.operation = Some(operation);
        effects.insert(0, Effect::Audit(said));
        effects
    }

    fn fail_over(&mut self, lost: usize, cause: Cause, now: Now) -> Vec<Effect> {
        let term = self.next_term();
        let survivors = self.others(&[lost]);
        let (failover, effects) = Failover::begin(lost, survivors, term, self.orders, now.instant);
        let failover = failover
            .because(match cause {
                Cause::Automatic => Origin::FailoverByItself,
                Cause::Human => Origin::FailoverByHand,
            })
            .outliving(self.limits.lease);
        self.hindrance = None;
        let mut effects = self.begin(
            Operation::Failover(failover, cause),
            format!(
                "{} is lost; failover to term {term} began {}",
                self.members[lost].host,
                match cause {
                    Cause::Automatic => "by itself",
                    Cause::Human => "by hand",
                }
            ),
            effects,
        );
        effects.push(Effect::Hook("failover", Some(lost)));
        effects
    }

    fn rejoin(&mut self, member: usize, primary: usize, now: Now) -> Vec<Effect> {
        let (rejoin, effects) = Rejoin::begin(member, primary, self.orders, now.instant);
        let said = format!(
            "{} is to follow {}",
            self.members[member].host, self.members[primary].host
        );
        self.begin(Operation::Rejoin(rejoin), said, effects)
    }

    /// What is to be done by itself.
    pub(super) fn consider(&mut self, now: Now) -> Vec<Effect> {
        if self.limits.mode != Mode::Promote || self.operation.is_some() || self.proved.is_some() {
            return Vec::new();
        }
        if let Some(effects) = self.consider_claim(now) {
            return effects;
        }
        if let Some(effects) = self.consider_rejoin(now) {
            return effects;
        }
        if self
            .attempts
            .rest_until
            .is_some_and(|until| now.instant < until)
        {
            return Vec::new();
        }
        let Ok(lost) = self.lost_or_hindered(now) else {
            return self.consider_reopening(now);
        };
        if let Err(why) = self.may_fail_over(now) {
            return self.hinder(why);
        }
        self.fail_over(lost, Cause::Automatic, now)
    }

    /// The lost primary; remembers why what looks like a loss is none that may be acted upon.
    fn lost_or_hindered(&mut self, now: Now) -> Result<usize, ()> {
        match self.lost(now) {
            Ok(lost) => Ok(lost),
            Err(why) => {
                let looks_lost = self
                    .incumbent
                    .is_some_and(|incumbent| self.members[incumbent].is_gone(&self.limits));
                if !looks_lost {
                    self.hindrance = None;
                } else if self.writer == Writer::Nobody {
                    self.hindrance = Some(why);
                }
                Err(())
            }
        }
    }

    fn hinder(&mut self, why: String) -> Vec<Effect> {
        if self.hindrance.as_ref() == Some(&why) {
            return Vec::new();
        }
        self.hindrance = Some(why.clone());
        vec![
            Effect::Audit(format!("a failover is due and not made: {why}")),
            Effect::Hook("failover-refused", self.incumbent),
        ]
    }

    /// Step 0 of the contract (N2, N3, N9): the primary does not answer, and every other member answers, has all that it ever
    /// acknowledged, and says that nothing comes from it.
    fn lost(&self, now: Now) -> Result<usize, String> {
        let primary = self.incumbent.ok_or("no member ever took the writes")?;
        let member = &self.members[primary];
        let server = self
            .known_as(primary, now)
            .ok_or("the primary was never seen")?;
        let gone = member.is_gone(&self.limits);
        let stalled = member.stalled.is_some();
        if !gone && !stalled {
            return Err("the primary answers".to_owned());
        }
        if self.is_fenced(&server) {
            return Err("the lost primary was deposed before".to_owned());
        }
        let silent = self
            .others(&[primary])
            .into_iter()
            .try_for_each(|other| self.deaf_to(other, &server));
        let hung_alone =
            silent.is_err() && stalled && self.limits.on_write_stall == OnWriteStall::Failover;
        if !hung_alone {
            silent?;
        }
        Ok(primary)
    }

    /// A primary that died with an earlier controller is the one that this one remembers, for as long as its beats are fresh:
    /// until then what it remembers of the preflight was kept up to date.
    fn known_as(&self, primary: usize, now: Now) -> Option<ServerId> {
        if let Some(picture) = &self.members[primary].picture {
            return Some(picture.server.clone());
        }
        let remembered = self.memory.sound_with.clone().map(ServerId)?;
        let pictures = self.others(&[primary]).into_iter();
        let beat = pictures
            .filter_map(|other| self.members[other].picture.as_ref()?.beat)
            .max()?;
        let age = Duration::from_micros(now.micros.saturating_sub(beat));
        (age < FRESH).then_some(remembered)
    }

    /// Whether a member answers, is the server's replica, has forgotten nothing of it, and hears nothing from it.
    fn deaf_to(&self, other: usize, server: &ServerId) -> Result<(), String> {
        let member = &self.members[other];
        if member.misses > 0 || member.failure.is_some() || member.picture.is_none() {
            return Err(format!(
                "{} does not answer: without it nobody can say what was acknowledged",
                member.host
            ));
        }
        if self.is_half_promoted(other) || self.follows_half_promoted(other) {
            return Ok(());
        }
        if member.has_forgotten() {
            return Err(format!(
                "{} was started again and has not caught up since: what it had acknowledged may be lost without the old primary",
                member.host
            ));
        }
        if !member.replicates_from(server) {
            return Err(format!("{} is no replica of the lost primary", member.host));
        }
        let broken = !member.follows(server);
        if !broken && member.silence() <= member::silence_limit(&self.limits) {
            return Err(format!("{} still hears from the primary", member.host));
        }
        Ok(())
    }

    /// Whether a failover that somebody began and did not end left it without a source, and closed.
    fn is_half_promoted(&self, index: usize) -> bool {
        let member = &self.members[index];
        member.picture.as_ref().is_some_and(|picture| {
            let term = picture.term.as_ref().map_or(0, |term| term.number);
            picture.read_only
                && picture.replication.is_none()
                && term == self.highest_term()
                && !self.is_fenced(&picture.server)
        }) && member.errant().is_none()
    }

    fn follows_half_promoted(&self, index: usize) -> bool {
        (0..self.members.len())
            .filter(|other| *other != index && self.is_half_promoted(*other))
            .filter_map(|other| self.members[other].picture.as_ref())
            .any(|picture| self.members[index].replicates_from(&picture.server))
    }

    fn may_fail_over(&self, now: Now) -> Result<(), String> {
        if let Some(why) = &self.memory.paused {
            return Err(why.clone());
        }
        if let Some(last) = self.memory.last_failover {
            let since = Duration::from_micros(now.micros.saturating_sub(last));
            if since < self.limits.cool_down {
                return Err(format!("the last failover was {} s ago", since.as_secs()));
            }
        }
        if self.memory.sound_with.is_none() {
            return Err("the preflight did not hold when all was well".to_owned());
        }
        if !self.leads {
            return Err("this controller does not hold the locks of a majority".to_owned());
        }
        Ok(())
    }

    /// A deposed member that answers again is asked once to follow the new primary.
    fn consider_rejoin(&mut self, now: Now) -> Option<Vec<Effect>> {
        let Writer::One(primary) = self.writer else {
            return None;
        };
        if !self.leads || self.limits.rejoin != RejoinWish::Automatic {
            return None;
        }
        let returned = self.others(&[primary]).into_iter().find(|index| {
            let member = &self.members[*index];
            member.misses == 0
                && member.failure.is_none()
                && !member.refused_rejoin
                && member.picture.as_ref().is_some_and(|picture| {
                    self.is_fenced(&picture.server) && picture.replication.is_none()
                })
        })?;
        Some(self.rejoin(returned, primary, now))
    }

    /// The primary restarted faster than it could be replaced: it takes its writes again (nobody else would clear its
    /// read_only).
    fn consider_reopening(&mut self, now: Now) -> Vec<Effect> {
        let (Some(primary), Some(since)) = (self.incumbent, self.unserved_since) else {
            return Vec::new();
        };
        let member = &self.members[primary];
        let restarted = self.writer == Writer::Nobody
            && member.misses == 0
            && member.failure.is_none()
            && member.was_closed_by_its_start()
            && member
                .picture
                .as_ref()
                .is_some_and(|picture| !self.is_fenced(&picture.server));
        let all_answer = self
            .members
            .iter()
            .all(|member| member.misses == 0 && member.picture.is_some());
        let settled = now.instant.saturating_duration_since(since) >= REOPEN_AFTER;
        if !restarted
            || !all_answer
            || !settled
            || !self.leads
            || self.memory.sound_with.is_none()
            || self.memory.paused.is_some()
        {
            return Vec::new();
        }
        let term = self.next_term();
        let everyone = (0..self.members.len()).collect();
        let (failover, effects) =
            Failover::reopen(primary, everyone, term, self.orders, now.instant);
        let said = format!(
            "{} came back read-only; it is to take writes again, term {term}",
            self.members[primary].host
        );
        self.begin(
            Operation::Failover(failover, Cause::Automatic),
            said,
            effects,
        )
    }

    /// Carries the operation on.
    pub(super) fn operate(&mut self, heard: Option<(u64, Report)>, now: Now) -> Vec<Effect> {
        let Some(mut operation) = self.operation.take() else {
            return Vec::new();
        };
        let (course, mut effects) = operation.procedure_mut().advance(heard, now.instant);
        self.orders = operation.procedure().orders().last();
        let opened = operation
            .procedure()
            .opens()
            .filter(|_| course == Course::Going)
            .and_then(|member| self.members[member].picture.as_ref());
        if let Some(picture) = opened {
            self.memory.unproved.insert(picture.server.0.clone());
            self.opened = Some(now.instant);
        }
        match course {
            Course::Going => self.operation = Some(operation),
            Course::Won(member) => effects.extend(self.won(&operation, member, now)),
            Course::GivenUp(why) => effects.extend(self.given_up(&operation, &why, now)),
        }
        effects
    }

    fn won(&mut self, operation: &Operation, member: usize, now: Now) -> Vec<Effect> {
        let host = self.members[member].host.clone();
        if let Some(picture) = &self.members[member].picture {
            self.memory.unproved.remove(&picture.server.0);
        }
        let proof = Proof {
            member,
            since: operation.procedure().orders().begun(),
            until: now.instant + PROOF,
        };
        let said = match operation {
            Operation::Failover(failover, cause) => {
                self.proved = Some(proof);
                if let Some(lost) = failover.lost {
                    self.depose(lost, failover.term, now);
                    self.memory.failovers += 1;
                    self.memory.last_failover = Some(now.micros);
                    if *cause == Cause::Automatic {
                        self.memory.paused = Some(format!(
                            "{host} took over from {} by itself, term {}; look, then `foobar mysql resume`",
                            self.members[lost].host, failover.term
                        ));
                    }
                }
                self.take_over(member);
                format!("{host} is primary, term {}", failover.term)
            }
            Operation::Switchover(switchover) => {
                self.proved = Some(proof);
                self.memory.switchovers += 1;
                self.last_window = switchover.window(now.instant);
                self.take_over(member);
                format!("{host} is primary, term {}", switchover.term)
            }
            Operation::Claim(claim) => {
                self.proved = Some(proof);
                format!("{host} is primary, term {}", claim.term)
            }
            Operation::Rejoin(_) => {
                if let Some(picture) = &self.members[member].picture {
                    self.memory.fenced.remove(&picture.server.0);
                }
                format!("{host} follows again")
            }
        };
        self.finished = Some(Ok(said.clone()));
        vec![Effect::Audit(said)]
    }

    fn take_over(&mut self, member: usize) {
        if self.incumbent != Some(member) {
            self.role_changes += 1;
            self.written = None;
        }
        self.incumbent = Some(member);
        self.unserved_since = None;
        self.attempts = Attempts::default();
    }

    fn depose(&mut self, lost: usize, term: u64, now: Now) {
        if let Some(server) = self.known_as(lost, now) {
            self.memory.fenced.insert(server.0, term);
        }
    }

    fn given_up(&mut self, operation: &Operation, why: &str, now: Now) -> Vec<Effect> {
        self.finished = Some(Err(format!(
            "{} given up at {why}",
            operation.procedure().name()
        )));
        match operation {
            Operation::Failover(failover, cause) => {
                self.memory.failovers_given_up += 1;
                self.attempts.failed += 1;
                let again = *cause == Cause::Automatic
                    && failover.leaves_all_as_it_was()
                    && self.attempts.failed < ATTEMPTS;
                if again {
                    self.attempts.rest_until = Some(now.instant + ATTEMPT_AGAIN);
                    return vec![Effect::Audit(format!(
                        "a failover was given up at {why}; all is as it was, and if its cause lasts it is tried again"
                    ))];
                }
                self.memory.paused = Some(format!(
                    "a failover was given up at {why}; look, then `foobar mysql resume`"
                ));
            }
            Operation::Switchover(_) | Operation::Claim(_) => {}
            Operation::Rejoin(rejoin) => {
                let member = &mut self.members[rejoin.member];
                member.refused_rejoin = true;
                return vec![Effect::Audit(format!("{} stays out: {why}", member.host))];
            }
        }
        vec![Effect::Audit(format!(
            "{} given up at {why}",
            operation.procedure().name()
        ))]
    }
}

impl Operation {
    pub(super) fn procedure(&self) -> &dyn Procedure {
        match self {
            Self::Failover(failover, _) => failover,
            Self::Switchover(switchover) => switchover,
            Self::Rejoin(rejoin) => rejoin,
            Self::Claim(claim) => claim,
        }
    }

    fn procedure_mut(&mut self) -> &mut dyn Procedure {
        match self {
            Self::Failover(failover, _) => failover,
            Self::Switchover(switchover) => switchover,
            Self::Rejoin(rejoin) => rejoin,
            Self::Claim(claim) => claim,
        }
    }
}

const FRESH: Duration = Duration::from_secs(60);
const LAG_TO_SWITCH: Duration = Duration::from_secs(1);
/// How long an acknowledged promotion counts before the checks must show it.
const PROOF: Duration = Duration::from_secs(1);
/// A machine that has no time to spare loses locks in the middle, again and again; then a human is asked.
const ATTEMPTS: u32 = 3;
/// As long as it takes a replica to find its source again.
const ATTEMPT_AGAIN: Duration = Duration::from_secs(2);
/// A restart that ends sooner needs no help; one that is still on is a failover's.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
