//! What is remembered of one member.

use std::time::{Duration, Instant};

use super::{Limits, Now};
use crate::mysql::{
    gtid::GtidSet,
    lag::{self, LagGate},
    observation::{Failure, Look, Observation, Picture, Replication, ServerId, Survey},
};

#[derive(Clone, Debug)]
pub struct Member {
    pub host: String,
    pub port: u16,
    /// The last one; it stays when checks fail.
    pub picture: Option<Picture>,
    pub failure: Option<Failure>,
    /// Failures in a row that speak against it.
    pub misses: u32,
    pub took: Option<Duration>,
    pub gate: LagGate,
    pub survey: Option<Survey>,
    pub qps: Option<f64>,
    /// Why its last write probe did not come back.
    pub stalled: Option<String>,
    /// It was asked to follow, and may not; until it goes away and comes back.
    pub refused_rejoin: bool,
    surveyed: Option<Instant>,
    observed: Option<Instant>,
    /// When it was last seen to receive and to apply.
    ran: Option<Instant>,
    /// When nobody was there to answer last, by the clock of beats.
    down: u64,
    /// When the picture was taken, and since when it shows its term.
    pub taken: Option<Instant>,
    pub term_since: Option<Instant>,
    /// Time *under observation* since its pulse moved: a controller that slept has not heard silence.
    silence: Duration,
    /// Transactions that the primary did not show yet, since when.
    alien: Option<(GtidSet, Instant)>,
    errant: Option<GtidSet>,
}

impl Member {
    pub fn new(host: String, port: u16) -> Self {
        Self {
            host,
            port,
            picture: None,
            failure: None,
            misses: 0,
            took: None,
            gate: LagGate::default(),
            survey: None,
            qps: None,
            stalled: None,
            refused_rejoin: false,
            surveyed: None,
            observed: None,
            ran: None,
            down: 0,
            taken: None,
            term_since: None,
            silence: Duration::ZERO,
            alien: None,
            errant: None,
        }
    }

    pub fn observe(
        &mut self,
        observation: Observation,
        look: Look,
        limits: &Limits,
        written: Option<u64>,
        now: Now,
    ) {
        match observation {
            Observation::Answered(picture) => {
                self.misses = 0;
                self.failure = None;
                self.took = Some(look.took);
                self.listen(&picture, limits, now.instant);
                if picture
                    .replication
                    .as_ref()
                    .is_some_and(Replication::is_running)
                {
                    self.ran = Some(now.instant);
                }
                let term = |picture: &Picture| picture.term.as_ref().map(|term| term.number);
                if self.picture.as_ref().and_then(term) != term(&picture) {
                    self.term_since = Some(now.instant);
                }
                self.taken = Some(look.begun);
                self.picture = Some(*picture);
                let lag = self.lag(written, now.micros);
                self.gate.observe(lag, limits.lag, now.instant);
            }
            Observation::Failed(failure) => {
                // Whoever answers with an error lives.
                self.misses = if failure.is_evidence() {
                    self.misses + 1
                } else {
                    0
                };
                if matches!(failure, Failure::Refused | Failure::ShuttingDown) {
                    self.down = now.micros;
                }
                self.failure = Some(failure);
                if self.is_gone(limits) {
                    self.stalled = None;
                    self.refused_rejoin = false;
                    self.observed = None;
                }
            }
        }
    }

    fn listen(&mut self, picture: &Picture, limits: &Limits, now: Instant) {
        let pulse = |picture: &Picture| {
            let replication = picture.replication.as_ref()?;
            Some((replication.source.clone(), replication.pulse))
        };
        let moved = self
            .picture
            .as_ref()
            .is_none_or(|before| pulse(before) != pulse(picture));
        let gap = self.observed.map_or(Duration::ZERO, |before| {
            now.saturating_duration_since(before)
        });
        self.observed = Some(now);
        if moved {
            self.silence = Duration::ZERO;
        } else {
            self.silence += gap.min(limits.every * 3);
        }
    }

    fn lag(&self, written: Option<u64>, micros: u64) -> Option<Duration> {
        let picture = self.picture.as_ref()?;
        lag::lag(written, picture.beat, micros).or_else(|| {
            // Without beats the server's own figure, which says nothing of a source that has gone silent.
            let behind = picture.replication.as_ref()?.behind?;
            Some(Duration::from_secs(behind).max(self.silence))
        })
    }

    /// Whether it runs replication, or did a moment ago: the loss of its source is no fault of its own.
    pub fn ran_lately(&self, now: Instant) -> bool {
        let since = |ran| now.saturating_duration_since(ran);
        self.ran.is_some_and(|ran| since(ran) < RAN_LATELY)
    }

    /// Whether it may lack what it once received and acknowledged: a server drops at its start what it had not applied, and
    /// has it again once it shows what its source committed after that start.
    pub fn has_forgotten(&self) -> bool {
        self.picture.as_ref().is_none_or(|picture| {
            let started = picture.started.map(|started| started.max(self.down));
            picture
                .beat
                .zip(started)
                .is_none_or(|(beat, started)| beat <= started)
        })
    }

    /// Whether it came up closed after it had taken writes: its configuration closed it, and no human.
    pub fn was_closed_by_its_start(&self) -> bool {
        self.picture.as_ref().is_some_and(|picture| {
            picture.read_only
                && picture.replication.is_none()
                && picture
                    .beat
                    .zip(picture.started)
                    .is_some_and(|(beat, started)| beat < started)
        })
    }

    pub fn is_gone(&self, limits: &Limits) -> bool {
        self.misses >= limits.fall
    }

    /// Something came from its source not too long ago.
    pub fn hears(&self, limits: &Limits) -> bool {
        let receiving = |picture: &Picture| {
            picture
                .replication
                .as_ref()
                .is_some_and(|replication| replication.receiving)
        };
        self.picture.as_ref().is_some_and(receiving) && self.silence <= silence_limit(limits)
    }

    pub fn follows(&self, server: &ServerId) -> bool {
        self.replicates_from(server)
            && self
                .picture
                .as_ref()
                .and_then(|picture| picture.replication.as_ref())
                .is_some_and(|replication| replication.receiving)
    }

    pub fn replicates_from(&self, server: &ServerId) -> bool {
        self.picture
            .as_ref()
            .and_then(|picture| picture.replication.as_ref())
            .is_some_and(|replication| replication.source.as_ref() == Some(server))
    }

    pub const fn silence(&self) -> Duration {
        self.silence
    }

    /// A replica may be ahead of what the primary showed a moment ago; what stays ahead is errant.
    pub fn compare(&mut self, primary: &GtidSet, now: Instant) {
        let Some(picture) = &self.picture else {
            return;
        };
        // What a crash cut off is no longer there.
        self.alien
            .take_if(|(alien, _)| !picture.executed.covers(alien));
        let rest = match &self.alien {
            Some((alien, _)) => alien.minus(primary),
            None => picture.executed.minus(primary),
        };
        match rest {
            Ok(rest) if rest.is_empty() => {
                self.alien = None;
                self.errant = None;
            }
            Ok(rest) => {
                let since = self.alien.as_ref().map_or(now, |(_, since)| *since);
                if now.saturating_duration_since(since) >= ERRANT_AFTER {
                    self.errant = Some(rest.clone());
                }
                self.alien = Some((rest, since));
            }
            Err(_) => {}
        }
    }

    pub const fn errant(&self) -> Option<&GtidSet> {
        self.errant.as_ref()
    }

    pub fn survey(&mut self, survey: Survey, now: Instant) {
        if let (Some(before), Some(at)) = (&self.survey, self.surveyed) {
            let seconds = now.saturating_duration_since(at).as_secs_f64();
            let more = survey.statements().saturating_sub(before.statements());
            if seconds > 0.0 {
                #[expect(clippy::cast_precision_loss, reason = "statements of one second")]
                let rate = more as f64 / seconds;
                self.qps = Some(rate);
            }
        }
        self.survey = Some(survey);
        self.surveyed = Some(now);
    }
}

/// Silence that speaks against a source.
pub fn silence_limit(limits: &Limits) -> Duration {
    (limits.heartbeat * 3).max(Duration::from_secs(1))
}

const RAN_LATELY: Duration = Duration::from_secs(2);
const ERRANT_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::cluster::{Mode, tests};

    fn picture(
        started: impl Into<Option<u64>>,
        beat: Option<u64>,
        source: Option<u32>,
    ) -> Observation {
        Observation::Answered(Box::new(Picture {
            read_only: true,
            started: started.into(),
            beat,
            ..tests::picture(2, source, 0, 1)
        }))
    }

    fn seen(member: &mut Member, observation: Observation, micros: u64) {
        let now = Now {
            instant: Instant::now(),
            micros,
        };
        let look = Look {
            begun: now.instant,
            took: Duration::ZERO,
        };
        member.observe(observation, look, &tests::limits(Mode::Promote), None, now);
    }

    #[test]
    fn a_replica_remembers_once_it_shows_what_was_committed_after_its_start() {
        let mut member = Member::new("web2".to_owned(), 3306);
        assert!(member.has_forgotten(), "never seen");
        for (started, beat, forgotten) in [
            (10, None, true),
            (10, Some(9), true),
            (10, Some(10), true),
            (10, Some(11), false),
        ] {
            seen(&mut member, picture(started, beat, Some(1)), 20);
            assert_eq!(member.has_forgotten(), forgotten, "{started} {beat:?}");
        }
        seen(&mut member, Observation::Failed(Failure::TimedOut), 30);
        seen(&mut member, picture(10, Some(11), Some(1)), 31);
        assert!(!member.has_forgotten(), "silence is no restart");
        seen(&mut member, Observation::Failed(Failure::Refused), 40);
        seen(&mut member, picture(10, Some(11), Some(1)), 41);
        assert!(
            member.has_forgotten(),
            "nobody was there, whatever its clock says"
        );
        seen(&mut member, picture(10, Some(41), Some(1)), 42);
        assert!(!member.has_forgotten());
        seen(&mut member, picture(None, Some(43), Some(1)), 44);
        assert!(member.has_forgotten(), "nobody knows when it was started");
    }

    #[test]
    fn a_primary_that_came_up_closed_is_told_from_one_that_was_closed_by_hand() {
        let mut member = Member::new("web1".to_owned(), 3306);
        for (started, beat, source, by_its_start) in [
            (10, Some(9), None, true),
            (10, Some(11), None, false),
            (10, None, None, false),
            (10, Some(9), Some(3), false),
        ] {
            seen(&mut member, picture(started, beat, source), 20);
            assert_eq!(
                member.was_closed_by_its_start(),
                by_its_start,
                "{started} {beat:?}"
            );
        }
    }
}
