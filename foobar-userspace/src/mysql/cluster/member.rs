//! What is remembered of one member.

use std::time::{Duration, Instant};

use super::{Limits, Now};
use crate::mysql::{
    gtid::GtidSet,
    lag::{self, LagGate},
    observation::{Failure, Look, Observation, Picture, ServerId, Survey},
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

const ERRANT_AFTER: Duration = Duration::from_secs(2);
