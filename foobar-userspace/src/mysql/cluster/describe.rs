//! A cluster told: its status, its alarms.

use std::time::Duration;

use super::{Cluster, Member, Mode, Operation, Steering};
use crate::mysql::{
    evidence::Writer,
    lag::Readable,
    observation::{Picture, SemiSync},
    preflight,
    status::{ClusterStatus, LackStatus, MemberStatus},
};

impl Cluster {
    /// All but the name and the addresses, which are the configuration's.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let steering = self.steering();
        let name = |member: usize| self.members[member].host.clone();
        ClusterStatus {
            mode: match self.limits.mode {
                Mode::Observe => "observe",
                Mode::Consensus => "consensus",
                Mode::Promote => "promote",
            }
            .to_owned(),
            writer: steering
                .writes
                .iter()
                .position(|writes| *writes != Readable::No)
                .map(name),
            rivals: match &self.writer {
                Writer::Several(rivals) => rivals.iter().copied().map(name).collect(),
                _ => Vec::new(),
            },
            term: self.highest_term(),
            armed: self.armed && self.memory.paused.is_none(),
            leads: self.leads,
            paused: self.memory.paused.clone(),
            operation: self
                .operation
                .as_ref()
                .map(Operation::procedure)
                .map(|procedure| format!("{}: {}", procedure.name(), procedure.phase())),
            alarms: self.alarms(&steering),
            lacks: self.told(&self.lacks),
            hints: self.told(&self.hints),
            members: (0..self.members.len())
                .map(|index| self.member_status(index, &steering))
                .collect(),
            failovers: self.memory.failovers,
            failovers_given_up: self.memory.failovers_given_up,
            switchovers: self.memory.switchovers,
            role_changes: self.role_changes,
            last_window_milliseconds: self.last_window.map(|window| window.as_secs_f64() * 1e3),
            ..ClusterStatus::default()
        }
    }

    fn told(&self, lacks: &[preflight::Lack]) -> Vec<LackStatus> {
        let told = |lack: &preflight::Lack| LackStatus {
            member: lack.member.map(|member| self.members[member].host.clone()),
            what: lack.what.clone(),
            cure: lack.cure.clone(),
        };
        lacks.iter().map(told).collect()
    }

    /// What somebody should be woken for.
    fn alarms(&self, steering: &Steering) -> Vec<String> {
        let mut alarms = Vec::new();
        match &self.writer {
            Writer::Several(rivals) => {
                let names: Vec<_> = rivals
                    .iter()
                    .map(|rival| self.members[*rival].host.as_str())
                    .collect();
                alarms.push(format!(
                    "{} all claim to be primary; writes go to none",
                    names.join(" and ")
                ));
            }
            Writer::Nobody if self.operation.is_none() => {
                alarms.push(format!("nobody takes writes: {}", self.why_nobody()));
            }
            _ => {}
        }
        if !steering.reads.contains(&Readable::Yes) {
            alarms.push("no replica takes new readers".to_owned());
        }
        if let Some(why) = &self.hindrance {
            alarms.push(format!("a failover is due and not made: {why}"));
        }
        if self.limits.mode == Mode::Promote && !self.armed {
            alarms.push("`promote` is not armed: the preflight does not hold".to_owned());
        }
        if self.limits.mode == Mode::Promote && !self.leads && self.limits.balancers == 1 {
            alarms
                .push("this controller does not lead: it lacks the locks of a majority".to_owned());
        }
        if self.limits.lease.is_some() && self.steered_writer().is_some() && self.lease().is_none()
        {
            alarms.push(
                "the writer address has no lease: no term names the primary, or no replica hears from it"
                    .to_owned(),
            );
        }
        for member in &self.members {
            if let Some(errant) = member.errant() {
                alarms.push(format!(
                    "{} has transactions that the primary lacks: {errant}",
                    member.host
                ));
            }
            if let Some(why) = &member.stalled {
                alarms.push(format!("{} does not take writes: {why}", member.host));
            }
            if let Some(semi_sync) = member.picture.as_ref().map(|picture| picture.semi_sync)
                && semi_sync.armed
                && !semi_sync.in_effect
            {
                alarms.push(format!(
                    "{}: semi-synchronous replication has degraded",
                    member.host
                ));
            }
            if let Some(failure) = member
                .failure
                .as_ref()
                .filter(|failure| !failure.is_evidence())
            {
                alarms.push(format!(
                    "{} cannot be checked, and is not taken for dead: {failure}",
                    member.host
                ));
            }
        }
        alarms
    }

    fn member_status(&self, index: usize, steering: &Steering) -> MemberStatus {
        let member = &self.members[index];
        let picture = member.picture.as_ref();
        let replication = picture.and_then(|picture| picture.replication.as_ref());
        MemberStatus {
            host: member.host.clone(),
            port: member.port,
            role: self.role(index, picture).to_owned(),
            state: match (picture, &member.failure) {
                (_, Some(_)) if member.is_gone(&self.limits) => "gone",
                (_, Some(_)) => "failing",
                (Some(_), None) => "up",
                (None, None) => "unknown",
            }
            .to_owned(),
            writes: word(steering.writes[index]).to_owned(),
            reads: word(steering.reads[index]).to_owned(),
            reason: self.verdicts[index].as_ref().err().map(ToString::to_string),
            detail: detail(member),
            server: picture.map(|picture| picture.server.0.clone()),
            version: picture.map(|picture| picture.version.clone()),
            source: replication.and_then(|replication| {
                let source = self.members.iter().find(|other| {
                    other.picture.as_ref().map(|picture| &picture.server)
                        == replication.source.as_ref()
                });
                source
                    .map(|source| source.host.clone())
                    .or_else(|| replication.source.as_ref().map(|id| id.0.clone()))
            }),
            receiving: replication.map(|replication| replication.receiving),
            applying: replication.map(|replication| replication.applying),
            lag_seconds: replication
                .and_then(|_| member.gate.lag())
                .map(|lag| lag.as_secs_f64()),
            silence_seconds: replication.map(|_| member.silence().as_secs_f64()),
            executed: picture.map(|picture| picture.executed.to_string()),
            errant: member.errant().map(ToString::to_string),
            term: picture
                .and_then(|picture| picture.term.as_ref())
                .map(|term| term.number),
            semi_sync: picture.map(|picture| semi_sync(picture).to_owned()),
            qps: member.qps,
            connections: member
                .survey
                .as_ref()
                .and_then(|survey| survey.counters.get("threads_connected"))
                .copied(),
            check_milliseconds: member.took.map(|took: Duration| took.as_secs_f64() * 1e3),
            writes_stalled: member.stalled.is_some(),
        }
    }

    fn role(&self, index: usize, picture: Option<&Picture>) -> &'static str {
        match picture {
            _ if self.writer == Writer::One(index) => "primary",
            Some(picture) if self.is_fenced(&picture.server) => "deposed",
            Some(picture)
                if picture.replication.is_some()
                    || picture.group.is_some()
                    || picture.galera.is_some() =>
            {
                "replica"
            }
            Some(_) => "alone",
            None => "unknown",
        }
    }

    /// The preflight's findings as lines, each with its cure.
    #[must_use]
    pub fn lacks(&self) -> &[preflight::Lack] {
        &self.lacks
    }
}

fn detail(member: &Member) -> Option<String> {
    let error = member
        .picture
        .as_ref()
        .and_then(|picture| picture.replication.as_ref()?.error.clone());
    member.failure.as_ref().map(ToString::to_string).or(error)
}

const fn semi_sync(picture: &Picture) -> &'static str {
    match picture {
        Picture { group: Some(_), .. } => "group",
        Picture {
            galera: Some(_), ..
        } => "galera",
        Picture {
            semi_sync:
                SemiSync {
                    armed: true,
                    in_effect: true,
                    ..
                },
            ..
        } => "source",
        Picture {
            semi_sync: SemiSync { armed: true, .. },
            ..
        } => "degraded",
        Picture {
            semi_sync: SemiSync {
                acknowledges: true, ..
            },
            ..
        } => "replica",
        _ => "off",
    }
}

const fn word(readable: Readable) -> &'static str {
    match readable {
        Readable::Yes => "yes",
        Readable::KeepsOnly => "keeps",
        Readable::No => "no",
    }
}
