//! A reload that is on trial: what ran before comes back unless somebody confirms it in time.

use std::time::{Duration, Instant};

use super::Controller;
use crate::{
    admin::api::{Apply, Refusal, Response},
    config::Config,
};

#[derive(Debug)]
pub struct Trial {
    /// What runs again when nobody confirms.
    before: Config,
    ends: Instant,
    seconds: u32,
}

impl Apply {
    pub(super) const fn trial_seconds(self) -> Option<u32> {
        match self {
            Self::OnTrial { seconds } => Some(seconds),
            Self::DryRun | Self::Now => None,
        }
    }
}

impl Controller {
    /// After a reload: one on trial goes back to what was in force before any trial, any other one stays.
    pub(super) fn begin_trial(&mut self, how: Apply, before: Config) {
        self.troubles.clear(UNCONFIRMED);
        let earlier = self.trial.take();
        let Some(seconds) = how.trial_seconds() else {
            self.troubles.clear(TRIAL);
            return;
        };
        self.troubles.note(
            TRIAL,
            format!(
                "the last reload is on trial: what ran before comes back after {seconds} s, unless `foobar confirm` follows"
            ),
        );
        self.trial = Some(Trial {
            before: earlier.map_or(before, |earlier| earlier.before),
            ends: Instant::now() + Duration::from_secs(seconds.into()),
            seconds,
        });
    }

    pub(super) fn confirm(&mut self) -> Result<Response, Refusal> {
        if self.trial.take().is_none() {
            return Err(Refusal::Conflict {
                message: "no reload is on trial; `foobar reload --confirm SECONDS` begins one, or it ended and \
                          `foobar status` says so"
                    .to_owned(),
            });
        }
        self.troubles.clear(TRIAL);
        Ok(Response::Done {
            message: format!("generation {} stays", self.estate.ruleset.generation),
        })
    }

    pub(super) fn end_trial(&mut self, now: Instant) {
        let Some(trial) = self.trial.take_if(|trial| trial.ends <= now) else {
            return;
        };
        self.troubles.clear(TRIAL);
        match self.change_to(trial.before, Apply::Now) {
            Ok(_) => self.troubles.note(
                UNCONFIRMED,
                format!(
                    "nobody confirmed the last reload within {} s, and what ran before is back; {} still says otherwise",
                    trial.seconds,
                    self.options.config.display()
                ),
            ),
            Err(refusal) => self.troubles.grave(
                UNCONFIRMED,
                format!(
                    "nobody confirmed the last reload, and what ran before cannot come back: {}",
                    first_line(&refusal)
                ),
            ),
        }
    }
}

const TRIAL: &str = "trial";
const UNCONFIRMED: &str = "unconfirmed";

fn first_line(refusal: &Refusal) -> String {
    let text = refusal.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
