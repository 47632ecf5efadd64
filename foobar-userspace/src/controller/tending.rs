//! What the proxy needs of the loop: its offenders jailed, its workers kept, its files read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::{Controller, RENDER_WIDTH, now, proxying::diagnostics};
use crate::{
    admin::api::{Refusal, Response},
    proxy::Report,
};

impl Controller {
    /// Offenders go where XDP drops them; the rest is for people.
    pub(super) fn hear(&mut self, reports: Vec<Report>) {
        let mut offenders: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for report in reports {
            match report {
                Report::Jail { site, set, client } => {
                    tracing::warn!(%site, %client, set, "offends; jailed");
                    offenders.entry(set).or_default().insert(client);
                }
                Report::Lost { site, backend } => {
                    tracing::debug!(%site, %backend, "lost under a request");
                    self.proxying.doubt(&site, &backend);
                }
                Report::Ejected { site, backend, why } => {
                    tracing::warn!(%site, %backend, why, "left out for a while");
                }
            }
        }
        for (set, clients) in offenders {
            let elements: Vec<_> = clients.into_iter().map(IpNet::from).collect();
            let jailed = self.change_members(|members, tables| {
                members.add(&set, &elements, None, now(), tables)
            });
            match jailed {
                Ok(_) => self.troubles.clear("jail"),
                Err(refusal) => self
                    .troubles
                    .note("jail", format!("nobody is jailed: {refusal}")),
            }
        }
    }

    /// Workers, tickets, and files that changed on the disk.
    pub(super) fn tend_proxy(&mut self, now: Instant) {
        match self.proxying.tick(now) {
            Some(trouble) => self.troubles.note("tickets", trouble),
            None => self.troubles.clear("tickets"),
        }
        if self.proxying.is_outdated() && self.settling.is_none() {
            // Certificate and key are two files: whoever writes them gets a moment.
            self.settling = Some(now + SETTLED_AFTER);
        }
        if self.settling.is_some_and(|due| due <= now) {
            self.settling = None;
            if let Err(refusal) = self.refresh_tls() {
                self.proxying.note_stamps();
                tracing::error!("{refusal}");
            }
        }
    }

    /// Certificates, keys and pages as they are on the disk now, or as they were.
    pub(super) fn refresh_tls(&mut self) -> Result<Response, Refusal> {
        match self.proxying.refresh(&self.estate.config) {
            Ok(()) => {
                self.troubles.clear("tls");
                let message = "certificates, keys and pages were read again".to_owned();
                tracing::info!("{message}");
                Ok(Response::Done { message })
            }
            Err(flaws) => {
                let first = flaws
                    .first()
                    .map(|flaw| flaw.message.clone())
                    .unwrap_or_default();
                self.troubles.grave(
                    "tls",
                    format!("certificates cannot be renewed, those before go on: {first}"),
                );
                Err(Refusal::BadConfiguration {
                    rendered: diagnostics(&self.estate.config, flaws).render(false, RENDER_WIDTH),
                })
            }
        }
    }
}

const SETTLED_AFTER: Duration = Duration::from_secs(1);
