//! On a database's own host: until when clients may reach it past the balancers.
//!
//! A balancer writes a beat to whom it takes for the primary, and the beat is there once a replica has acknowledged it. From
//! the moment that the replicas of a lost primary stop receiving none arrives on it any more, whoever still writes to it.

use std::time::{Duration, Instant};

use super::observation::Failure;

#[derive(Clone, Debug)]
pub struct Guard {
    open_for: Duration,
    /// All beats at the last look, and when that began.
    before: Option<(String, Instant)>,
    until: Option<Instant>,
}

impl Guard {
    #[must_use]
    pub const fn new(open_for: Duration) -> Self {
        Self {
            open_for,
            before: None,
            until: None,
        }
    }

    /// Takes in a look at the beats; until when it is open. A beat that is new came after the last look began. The first look,
    /// and the first after a failure, say nothing: a server that crashed may come back with what nobody acknowledged.
    pub fn look(&mut self, beats: Result<String, Failure>, begun: Instant) -> Option<Instant> {
        let before = self.before.take();
        if let Ok(beats) = beats {
            if let Some((_, since)) = before.filter(|(known, _)| *known != beats) {
                self.until = self.until.max(Some(since + self.open_for));
            }
            self.before = Some((beats, begun));
        }
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_opens_from_the_look_before_it_and_silence_and_a_restart_do_not() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut guard = Guard::new(Duration::from_secs(3));
        let beats = |beats: &str| Ok(beats.to_owned());
        assert_eq!(guard.look(beats("1"), at(0)), None);
        assert_eq!(guard.look(beats("1"), at(100)), None);
        let open = Some(at(3_100));
        assert_eq!(guard.look(beats("2"), at(200)), open);
        assert_eq!(guard.look(beats("2"), at(300)), open);
        assert_eq!(guard.look(Err(Failure::Refused), at(400)), open);
        assert_eq!(guard.look(beats("3"), at(500)), open);
        assert_eq!(guard.look(beats("4"), at(600)), Some(at(3_500)));
    }
}
