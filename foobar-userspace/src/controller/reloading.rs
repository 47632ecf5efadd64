//! From the configuration in force to the one in the file: all of it, or nothing.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    Controller, RENDER_WIDTH,
    apply::{Desired, apply},
    chain,
    estate::Estate,
    members::Members,
    proxying::{self, diagnostics},
    refusal,
};
use crate::{
    admin::api::{Apply, Refusal, Reloaded},
    config::{self, Config},
    kernel::{Deployment, KernelError, Sizes},
};

impl Controller {
    /// As [`Self::change_to`], to what the file says now.
    pub(super) fn reload(&mut self, how: Apply) -> Result<Reloaded, Refusal> {
        let before = self.estate.config.clone();
        let result = self.try_reload(how);
        match &result {
            Ok(reloaded) if reloaded.applied => {
                self.troubles.clear("reload");
                self.begin_trial(how, before);
                tracing::info!(
                    generation = reloaded.generation,
                    changes = reloaded.changes.len(),
                    "reloaded"
                );
            }
            Ok(_) => {}
            Err(refusal) if how != Apply::DryRun => {
                let first = refusal.to_string();
                let first = first.lines().next().unwrap_or_default().to_owned();
                self.troubles.grave(
                    "reload",
                    format!("the last reload failed, what ran before goes on: {first}"),
                );
            }
            Err(_) => {}
        }
        self.tell_monitoring();
        result
    }

    fn try_reload(&mut self, how: Apply) -> Result<Reloaded, Refusal> {
        let config =
            config::load(&self.options.config).map_err(|problems| Refusal::BadConfiguration {
                rendered: problems.render(false, RENDER_WIDTH),
            })?;
        self.change_to(config, how)
    }

    /// Everything is prepared before the first write; what fails half-way is taken back.
    pub(super) fn change_to(&mut self, config: Config, how: Apply) -> Result<Reloaded, Refusal> {
        let generation = self.estate.ruleset.generation + 1;
        let labels = self.estate.labels.clone();
        let next =
            Estate::compile(config, &self.options.node, labels, generation).map_err(|error| {
                Refusal::BadConfiguration {
                    rendered: chain(&error),
                }
            })?;
        let changes = config::diff(&self.estate.config, &next.config);
        let proxy = self.draft_proxy(&next)?;
        if how == Apply::DryRun {
            return Ok(Reloaded {
                applied: false,
                generation: self.estate.ruleset.generation,
                changes,
                reverts_in_seconds: None,
            });
        }
        let balancing = self.balancing.replanned(next.plan.clone(), Instant::now());
        let members = Members::new(next.sets(), &self.members.added());
        let desired = self.desire(&next, &balancing, &members);
        self.proxying
            .bind(&proxy)
            .map_err(|error| Refusal::Failed {
                message: chain(&error),
            })?;
        if let Err(refusal) = self.bring_all(&desired, members.sizes()) {
            self.proxying.unbind();
            return Err(refusal);
        }
        self.proxying.adopt(proxy);
        self.proxying.note_requests(&next.config.log.access);
        self.troubles.clear("tls");
        if self.estate.config.admin != next.config.admin {
            tracing::warn!("the administration socket moves at the next start");
        }
        self.config = Arc::new(next.config.clone());
        self.estate = next;
        self.balancing = balancing;
        self.members = members;
        self.take_for_present(desired);
        self.end_lost_sessions();
        self.loaded_at = SystemTime::now();
        self.aim();
        Ok(Reloaded {
            applied: true,
            generation,
            changes,
            reverts_in_seconds: how.trial_seconds(),
        })
    }

    /// What the next configuration's sites name; a doubt that is new is an error now, while what runs goes on.
    fn draft_proxy(&mut self, next: &Estate) -> Result<proxying::Draft, Refusal> {
        let bad = |flaws| Refusal::BadConfiguration {
            rendered: diagnostics(&next.config, flaws).render(false, RENDER_WIDTH),
        };
        let draft = self
            .proxying
            .draft(&next.config, next.sites.clone())
            .map_err(bad)?;
        let doubts = self.proxying.new_doubts(&draft);
        if doubts.is_empty() {
            Ok(draft)
        } else {
            Err(bad(doubts))
        }
    }

    /// All of it, or what was before.
    pub(super) fn bring_all(&mut self, desired: &Desired, sizes: Sizes) -> Result<(), Refusal> {
        if let Err(error) = self.deployment.prepare(&desired.hooks) {
            let _ = self.deployment.prepare(&self.desired.hooks);
            return Err(refusal(&error));
        }
        let written = if self.deployment.holds(sizes) {
            apply(&mut self.deployment, desired)
        } else {
            self.enlarge(desired, sizes)
        };
        written.map_err(|error| {
            let taken_back = self
                .deployment
                .prepare(&self.desired.hooks)
                .and_then(|()| apply(&mut self.deployment, &self.desired));
            if let Err(second) = taken_back {
                tracing::error!("cannot take the failed change back: {}", chain(&second));
            }
            refusal(&error)
        })
    }

    /// Moves to a deployment with larger tables.
    fn enlarge(&mut self, desired: &Desired, sizes: Sizes) -> Result<(), KernelError> {
        let mut larger = Deployment::open(&self.options.node, self.keys, sizes)?;
        let moved = larger
            .prepare(&desired.hooks)
            .and_then(|()| apply(&mut larger, desired));
        match moved {
            Ok(()) => {
                self.deployment = larger;
                Ok(())
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = larger.abandon();
                Err(error)
            }
        }
    }
}
