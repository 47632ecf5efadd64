//! One second of a node as the dashboard draws it: rates, states and what is wrong; small enough to keep five minutes of.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::is_drop;
use crate::admin::api::{
    AlertLine, BackendState, ControllerState, ExportLine, ServiceCounters, SiteCounters, Snapshot,
};
use crate::mysql::status::ClusterStatus;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct View<'a> {
    pub node: &'a str,
    pub controller: Option<&'a ControllerState>,
    pub services: Vec<ServiceView<'a>>,
    pub sites: Vec<SiteView<'a>>,
    pub clusters: &'a [ClusterStatus],
    /// Packets a second by reason, the most first.
    pub drops: Vec<(&'a str, f64)>,
    pub interfaces: Vec<InterfaceView<'a>>,
    /// Those that decide the most packets.
    pub rules: Vec<RuleView<'a>>,
    pub alerts: &'a [AlertLine],
    pub exports: &'a [ExportLine],
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceView<'a> {
    pub name: &'a str,
    pub vips: Vec<&'a str>,
    pub qps: f64,
    pub bytes_in: f64,
    pub bytes_out: f64,
    pub backends: Vec<BackendView>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SiteView<'a> {
    pub name: &'a str,
    pub qps: f64,
    pub bytes_out: f64,
    pub error_rate: Option<f64>,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub backends: Vec<BackendView>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackendView {
    pub name: String,
    pub state: Option<BackendState>,
    pub weight: Option<u16>,
    pub qps: f64,
    pub bytes_out: f64,
    /// Of a site's backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct InterfaceView<'a> {
    pub name: &'a str,
    pub device: &'a str,
    pub passed: f64,
    pub dropped: f64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuleView<'a> {
    pub policy: &'a str,
    pub rule: &'a str,
    pub packets: f64,
}

impl View<'_> {
    /// Requests of sites and connections of services.
    #[must_use]
    pub fn qps(&self) -> f64 {
        let sites = self.sites.iter().map(|site| site.qps);
        let services = self.services.iter().map(|service| service.qps);
        sites.chain(services).sum()
    }

    #[must_use]
    pub fn bytes_out(&self) -> f64 {
        let sites = self.sites.iter().map(|site| site.bytes_out);
        let services = self.services.iter().map(|service| service.bytes_out);
        sites.chain(services).sum()
    }
}

#[must_use]
pub fn view(snapshot: &Snapshot) -> View<'_> {
    View {
        node: &snapshot.node,
        controller: snapshot.controller.as_ref(),
        services: services(&snapshot.services),
        sites: snapshot.sites.iter().map(site).collect(),
        clusters: &snapshot.clusters,
        drops: drops(snapshot),
        interfaces: interfaces(snapshot),
        rules: rules(snapshot),
        alerts: &snapshot.alerts,
        exports: &snapshot.exports,
    }
}

/// The vips of a service are one service.
fn services(counters: &[ServiceCounters]) -> Vec<ServiceView<'_>> {
    let mut services: Vec<ServiceView<'_>> = Vec::new();
    for counted in counters {
        let at = services
            .iter()
            .position(|known| known.name == counted.name)
            .unwrap_or_else(|| {
                services.push(ServiceView {
                    name: &counted.name,
                    vips: Vec::new(),
                    qps: 0.0,
                    bytes_in: 0.0,
                    bytes_out: 0.0,
                    backends: Vec::new(),
                });
                services.len() - 1
            });
        let rate = counted.traffic.per_second.unwrap_or_default();
        let service = &mut services[at];
        service.vips.push(&counted.vip);
        service.qps += rate.qps;
        service.bytes_in += rate.bytes_in;
        service.bytes_out += rate.bytes_out;
        for backend in &counted.backends {
            let rate = backend.traffic.per_second.unwrap_or_default();
            let name = format!("{}:{}", backend.host, backend.port);
            match service.backends.iter_mut().find(|known| known.name == name) {
                Some(known) => {
                    known.qps += rate.qps;
                    known.bytes_out += rate.bytes_out;
                }
                None => service.backends.push(BackendView {
                    name,
                    state: backend.state,
                    weight: backend.weight,
                    qps: rate.qps,
                    bytes_out: rate.bytes_out,
                    p99: None,
                }),
            }
        }
    }
    services
}

fn site(counted: &SiteCounters) -> SiteView<'_> {
    let rate = counted.requests.per_second.unwrap_or_default();
    SiteView {
        name: &counted.name,
        qps: rate.qps,
        bytes_out: rate.bytes_out,
        error_rate: rate.error_rate,
        p50: rate.p50,
        p99: rate.p99,
        backends: counted
            .backends
            .iter()
            .map(|backend| {
                let rate = backend.requests.per_second.unwrap_or_default();
                BackendView {
                    name: format!("{}:{}", backend.host, backend.port),
                    state: backend.state,
                    weight: backend.weight,
                    qps: rate.qps,
                    bytes_out: rate.bytes_out,
                    p99: rate.p99,
                }
            })
            .collect(),
    }
}

fn drops(snapshot: &Snapshot) -> Vec<(&str, f64)> {
    let mut by_reason: BTreeMap<&str, f64> = BTreeMap::new();
    for (reason, count) in snapshot
        .interfaces
        .iter()
        .flat_map(|interface| interface.verdicts.values().flatten())
        .filter(|(reason, _)| is_drop(reason))
    {
        let rate = count.per_second.map_or(0.0, |rate| rate.packets);
        *by_reason.entry(reason).or_default() += rate;
    }
    let mut drops: Vec<_> = by_reason.into_iter().collect();
    drops.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    drops
}

fn interfaces(snapshot: &Snapshot) -> Vec<InterfaceView<'_>> {
    snapshot
        .interfaces
        .iter()
        .map(|interface| {
            let (mut passed, mut dropped) = (0.0, 0.0);
            for (reason, count) in interface.verdicts.get("ingress").into_iter().flatten() {
                let rate = count.per_second.map_or(0.0, |rate| rate.packets);
                *if is_drop(reason) {
                    &mut dropped
                } else {
                    &mut passed
                } += rate;
            }
            InterfaceView {
                name: &interface.name,
                device: &interface.device,
                passed,
                dropped,
            }
        })
        .collect()
}

fn rules(snapshot: &Snapshot) -> Vec<RuleView<'_>> {
    let mut rules: Vec<_> = snapshot
        .rules
        .iter()
        .map(|rule| RuleView {
            policy: &rule.policy,
            rule: &rule.rule,
            packets: rule.count.per_second.map_or(0.0, |rate| rate.packets),
        })
        .collect();
    rules.sort_by(|a, b| b.packets.total_cmp(&a.packets));
    rules.truncate(SHOWN_RULES);
    rules
}

const SHOWN_RULES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::api::{CountRate, TrafficRate},
        monitor::samples,
    };

    fn with_rates() -> Snapshot {
        let mut snapshot = samples::snapshot();
        let mut second = snapshot.services[0].clone();
        second.vip = "[2001:db8::10]:8080".to_owned();
        snapshot.services.push(second);
        for service in &mut snapshot.services {
            service.traffic.per_second = Some(TrafficRate {
                qps: 4.0,
                ..TrafficRate::default()
            });
            service.backends[0].traffic.per_second = Some(TrafficRate {
                qps: 3.0,
                ..TrafficRate::default()
            });
        }
        for verdicts in snapshot.interfaces[0].verdicts.values_mut() {
            for count in verdicts.values_mut() {
                count.per_second = Some(CountRate {
                    packets: 5.0,
                    bytes: 0.0,
                });
            }
        }
        snapshot
    }

    #[test]
    fn the_vips_of_a_service_add_up() {
        let snapshot = with_rates();
        let view = view(&snapshot);
        assert_eq!(view.services.len(), 1);
        let service = &view.services[0];
        assert_eq!((service.vips.len(), service.qps), (2, 8.0));
        assert_eq!(service.backends.len(), 2);
        assert_eq!(service.backends[0].qps, 6.0);
    }

    #[test]
    fn what_passes_and_what_is_dropped_are_told_apart() {
        let snapshot = with_rates();
        let view = view(&snapshot);
        assert_eq!(view.drops, [("policy", 5.0)]);
        let interface = &view.interfaces[0];
        assert_eq!((interface.passed, interface.dropped), (5.0, 5.0));
    }
}
