//! What the controller knows beside the counters, as the monitoring needs it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    admin::api::{
        CertificateExpiry, CertificateLine, ClusterStatus, ControllerState, InterfaceStatus,
        ServiceStatus, Snapshot,
    },
    config::Config,
    snapshot::Names,
};

#[derive(Clone, Debug)]
pub struct Facts {
    pub config: Arc<Config>,
    /// Of all that counts.
    pub names: Arc<Names>,
    pub started_at: SystemTime,
    pub loaded_at: SystemTime,
    pub reload_failed: bool,
    /// Before that, the counters have no names yet.
    pub in_service: bool,
    pub generation: u64,
    pub interfaces: Vec<InterfaceStatus>,
    pub services: Vec<ServiceStatus>,
    pub certificates: Vec<CertificateLine>,
    pub clusters: Vec<ClusterStatus>,
}

impl Facts {
    /// Completes a snapshot that was read from the maps at `at`.
    pub fn complete(&self, snapshot: &mut Snapshot, at: SystemTime) {
        snapshot.source = "controller".to_owned();
        snapshot.clusters.clone_from(&self.clusters);
        snapshot.controller = Some(ControllerState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: unix(self.started_at),
            at: unix(at),
            loaded_at: unix(self.loaded_at),
            reload_failed: self.reload_failed,
            generation: self.generation,
            interfaces: self.interfaces.clone(),
        });
        snapshot.clusters.clone_from(&self.clusters);
        snapshot.certificates = self
            .certificates
            .iter()
            .filter_map(|line| {
                let end = humantime::parse_rfc3339(&line.not_after).ok()?;
                Some(CertificateExpiry {
                    service: line.service.clone(),
                    path: line.path.clone(),
                    seconds_left: unix(end) - unix(at),
                })
            })
            .collect();
        for site in &mut snapshot.sites {
            let known = self
                .services
                .iter()
                .find(|service| service.name == site.name)
                .map(|service| service.backends.as_slice())
                .unwrap_or_default();
            for counted in &mut site.backends {
                let known = known
                    .iter()
                    .find(|known| known.host == counted.host && known.port == counted.port);
                if let Some(known) = known {
                    counted.weight = Some(known.weight);
                    counted.state = Some(known.state);
                }
            }
        }
        for counters in &mut snapshot.services {
            let Some(service) = self
                .services
                .iter()
                .find(|service| service.name == counters.name)
            else {
                continue;
            };
            for counted in &mut counters.backends {
                let known = service
                    .backends
                    .iter()
                    .find(|known| known.host == counted.host && known.port == counted.port);
                if let Some(known) = known {
                    counted.weight = Some(known.weight);
                    counted.state = Some(known.state);
                }
            }
        }
    }
}

/// Seconds since 1970.
pub fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}
