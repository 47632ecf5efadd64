//! What database clusters decide, brought to the packet path: whom addresses lead to, until when, whose sessions end.

use std::{collections::BTreeMap, time::Instant};

use super::{
    Controller, chain,
    clusters::{Lease, Steered},
    resets,
};
use crate::{admin::api::ClusterStatus, kernel::clock};

impl Controller {
    /// Leads a cluster's addresses to whom its roles say, and acknowledges it.
    pub(super) fn follow_roles(&mut self, steered: &Steered) {
        let now = Instant::now();
        let lease = steered.lease.as_ref();
        // Who may serve no more is told first; who may, once it leads to the right one.
        if let Some(lease) = lease.filter(|lease| lease.until.is_none()) {
            self.renew(lease);
        }
        let mut changed = false;
        for (endpoint, shares) in &steered.endpoints {
            changed |= self.balancing.impose(endpoint, shares, now);
        }
        if changed {
            self.bring_balancing();
        }
        if let Some(lease) = lease.filter(|lease| lease.until.is_some()) {
            self.renew(lease);
        }
    }

    /// Lets an address be served until then, where the packet path was brought to whom it shall lead to.
    fn renew(&mut self, lease: &Lease) {
        if !self.in_service || lease.until.is_some() && self.troubles.has("balancing") {
            return;
        }
        let until = lease.until.map_or(0, clock::at);
        let leased: Vec<u32> = self
            .balancing
            .vips()
            .iter()
            .filter(|(_, vip)| vip.service == lease.endpoint)
            .map(|(id, _)| *id)
            .collect();
        for vip in leased {
            match self.deployment.tables_mut().leases.set(vip, until) {
                Ok(()) => self.troubles.clear("lease"),
                Err(error) => self.troubles.grave("lease", chain(&error)),
            }
        }
    }

    pub(super) fn clusters_told(&self) -> Vec<ClusterStatus> {
        let mut clusters = self.clusters.status();
        for cluster in &mut clusters {
            let endpoints = ["write", "read"].map(|role| format!("{}.{role}", cluster.name));
            let reset = endpoints.iter().filter_map(|name| self.reset.get(name));
            cluster.flows_reset = reset.sum();
        }
        clusters
    }

    /// Only where a service resets, and a backend of one was lost since the last time.
    pub(super) fn end_lost_sessions(&mut self) {
        let epochs: BTreeMap<u32, u32> = self
            .balancing
            .resets()
            .filter_map(|id| Some((id, self.desired.backends.get(&id)?.epoch)))
            .collect();
        if epochs.is_empty() || epochs == self.swept {
            return;
        }
        let vips = self.balancing.vips();
        match resets::end_lost(&mut self.deployment, vips, &self.desired.backends) {
            Ok(ended) => {
                for (id, flows) in ended {
                    if let Some(vip) = vips.get(&id) {
                        tracing::info!(flows, vip = vip.label, "reset: their backend is lost");
                        *self.reset.entry(vip.service.clone()).or_default() += flows;
                    }
                }
                self.swept = epochs;
            }
            Err(error) => tracing::warn!(
                "cannot reset the flows of a lost backend: {}",
                chain(&error)
            ),
        }
    }
}
