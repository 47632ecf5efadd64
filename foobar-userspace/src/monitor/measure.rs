//! What an alert measures, read off a snapshot.

use std::collections::BTreeMap;

use foobar_ebpf::verdict::Reason;

use crate::{
    admin::api::{BackendState, RequestRate, ServiceCounters, SiteCounters, Snapshot},
    config::{Alert, Metric, Quantile},
    mysql::status::{ClusterStatus, MemberStatus},
};

/// `None` where there is nothing to measure: no such service here, or no rate yet.
#[must_use]
pub fn measure(alert: &Alert, snapshot: &Snapshot, before: &Before) -> Option<f64> {
    let of = alert.of.as_deref();
    match alert.metric {
        Metric::Qps => qps(snapshot, of),
        Metric::Drops => drops(snapshot, alert.reason.as_deref()),
        Metric::BackendsUp => backends(snapshot, of, BackendState::Up),
        Metric::BackendsDown => backends(snapshot, of, BackendState::Down),
        Metric::MapPressure => snapshot
            .maps
            .iter()
            .map(|map| part(map.entries, map.max_entries))
            .reduce(f64::max),
        Metric::ExportDropped => snapshot.exports.first().map(|_| {
            snapshot
                .exports
                .iter()
                .map(|export| export.dropped_per_second)
                .sum()
        }),
        Metric::ReloadFailed => snapshot
            .controller
            .as_ref()
            .map(|controller| f64::from(u8::from(controller.reload_failed))),
        Metric::XdpGeneric => snapshot.controller.as_ref().map(|controller| {
            let generic = controller
                .interfaces
                .iter()
                .filter(|interface| interface.xdp == "generic");
            count(generic.count())
        }),
        Metric::Failover => failovers(snapshot, of, before),
        Metric::ReplicaLag => clusters(snapshot, of)
            .flat_map(|cluster| &cluster.members)
            .filter(|member| member.role == "replica")
            .filter_map(|member| member.lag_seconds)
            .reduce(f64::max),
        Metric::NoWriter => of_clusters(snapshot, of, |cluster| {
            usize::from(cluster.writer.is_none())
        }),
        Metric::RivalWriters => of_clusters(snapshot, of, |cluster| cluster.rivals.len()),
        Metric::SemiSyncDegraded => of_clusters(snapshot, of, |cluster| {
            let degraded = |member: &&MemberStatus| member.semi_sync.as_deref() == Some("degraded");
            cluster.members.iter().filter(degraded).count()
        }),
        Metric::WritesStalled => of_clusters(snapshot, of, |cluster| {
            let members = cluster.members.iter();
            members.filter(|member| member.writes_stalled).count()
        }),
        Metric::PreflightLacks => of_clusters(snapshot, of, |cluster| {
            // Elsewhere nobody would act on it.
            match cluster.mode.as_str() {
                "promote" => cluster.lacks.len(),
                _ => 0,
            }
        }),
        Metric::CertificateExpiry => snapshot
            .certificates
            .iter()
            .filter(|certificate| of.is_none_or(|of| certificate.service == of))
            .map(|certificate| certificate.seconds_left)
            .reduce(f64::min),
        Metric::ErrorRate => worst(snapshot, of, |rate| rate.error_rate),
        Metric::Latency(quantile) => worst(snapshot, of, |rate| match quantile {
            Quantile::P50 => rate.p50,
            Quantile::P90 => rate.p90,
            Quantile::P95 => rate.p95,
            Quantile::P99 => rate.p99,
            Quantile::P999 => rate.p999,
        }),
    }
}

fn services<'a>(
    snapshot: &'a Snapshot,
    of: Option<&'a str>,
) -> impl Iterator<Item = &'a ServiceCounters> {
    snapshot
        .services
        .iter()
        .filter(move |service| of.is_none_or(|of| service.name == of))
}

/// Failovers of each cluster until some minutes ago.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Before(pub BTreeMap<String, u64>);

impl Before {
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let clusters = snapshot.clusters.iter();
        Self(
            clusters
                .map(|cluster| (cluster.name.clone(), cluster.failovers))
                .collect(),
        )
    }
}

fn failovers(snapshot: &Snapshot, of: Option<&str>, before: &Before) -> Option<f64> {
    clusters(snapshot, of)
        .map(|cluster| {
            let before = before.0.get(&cluster.name).copied();
            // A cluster that was not there before did not fail over before.
            let recent = cluster
                .failovers
                .saturating_sub(before.unwrap_or(cluster.failovers));
            part(recent, 1)
        })
        .reduce(|sum, recent| sum + recent)
}

fn clusters<'a>(
    snapshot: &'a Snapshot,
    of: Option<&'a str>,
) -> impl Iterator<Item = &'a ClusterStatus> {
    snapshot
        .clusters
        .iter()
        .filter(move |cluster| of.is_none_or(|of| cluster.name == of))
}

/// Of all clusters together; `None` where there is none.
fn of_clusters(
    snapshot: &Snapshot,
    of: Option<&str>,
    number: impl Fn(&ClusterStatus) -> usize,
) -> Option<f64> {
    clusters(snapshot, of)
        .map(|cluster| count(number(cluster)))
        .reduce(|sum, number| sum + number)
}

/// Requests of sites; at layer 4 a query is a connection. What XDP hands to the proxy is counted by the proxy.
fn qps(snapshot: &Snapshot, of: Option<&str>) -> Option<f64> {
    let balanced =
        services(snapshot, of).map(|service| service.traffic.per_second.map(|rate| rate.qps));
    let served = sites(snapshot, of).map(|site| site.requests.per_second.map(|rate| rate.qps));
    sum(balanced.chain(served))
}

fn sites<'a>(
    snapshot: &'a Snapshot,
    of: Option<&'a str>,
) -> impl Iterator<Item = &'a SiteCounters> {
    snapshot
        .sites
        .iter()
        .filter(move |site| of.is_none_or(|of| site.name == of))
}

/// Of several sites the worst; without any answer there is nothing to measure.
fn worst(
    snapshot: &Snapshot,
    of: Option<&str>,
    value: impl Fn(&RequestRate) -> Option<f64>,
) -> Option<f64> {
    sites(snapshot, of)
        .filter_map(|site| value(site.requests.per_second.as_ref()?))
        .reduce(f64::max)
}

/// `None` when there is nothing to add.
fn sum(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values
        .flatten()
        .fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn drops(snapshot: &Snapshot, of: Option<&str>) -> Option<f64> {
    let counts = snapshot
        .interfaces
        .iter()
        .flat_map(|interface| interface.verdicts.values().flatten());
    let dropped = counts
        .filter(|(reason, _)| match of {
            Some(of) => *reason == of,
            None => is_drop(reason),
        })
        .map(|(_, count)| count.per_second.map(|rate| rate.packets));
    // An interface on which nothing was dropped yet has no such count: that is a zero.
    sum(dropped).or_else(|| (!snapshot.interfaces.is_empty()).then_some(0.0))
}

/// Whether packets of this verdict do not go on.
#[must_use]
pub fn is_drop(reason: &str) -> bool {
    Reason::ALL
        .into_iter()
        .any(|known| known.name() == reason && known.drops())
}

/// A backend that serves two vips is one.
fn backends(snapshot: &Snapshot, of: Option<&str>, wanted: BackendState) -> Option<f64> {
    let mut states = BTreeMap::new();
    for service in services(snapshot, of) {
        for backend in &service.backends {
            if let Some(state) = backend.state {
                states.insert((&service.name, &backend.host, backend.port), state);
            }
        }
    }
    for site in sites(snapshot, of) {
        for backend in &site.backends {
            if let Some(state) = backend.state {
                states.insert((&site.name, &backend.host, backend.port), state);
            }
        }
    }
    if states.is_empty() {
        return None;
    }
    Some(count(
        states.values().filter(|state| **state == wanted).count(),
    ))
}

#[expect(clippy::cast_precision_loss, reason = "a part needs no 52 bits")]
fn part(of: u64, whole: u64) -> f64 {
    of as f64 / whole.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "nobody has that many")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        admin::api::{
            BackendCounters, Count, CountRate, InterfaceCounters, MapUse, TrafficCount, TrafficRate,
        },
        config::{Place, Quantity, Severity, Side, Threshold},
        monitor::samples,
        mysql::status::LackStatus,
    };

    fn alert(metric: Metric, of: Option<&str>) -> Alert {
        Alert {
            name: "a".to_owned(),
            metric,
            of: of.map(str::to_owned),
            reason: None,
            threshold: Threshold {
                side: Side::Above,
                fires: Quantity::new(0.0),
                clears: Quantity::new(0.0),
            },
            lasting: Duration::ZERO,
            severity: Severity::Warning,
            notify: Vec::new(),
            place: Place { line: 1, column: 1 },
        }
    }

    fn service(name: &str, vip: &str, qps: f64, states: [BackendState; 2]) -> ServiceCounters {
        let backend = |host: &str, state| BackendCounters {
            host: host.to_owned(),
            port: 80,
            weight: Some(1),
            state: Some(state),
            traffic: TrafficCount::default(),
        };
        ServiceCounters {
            name: name.to_owned(),
            vip: vip.to_owned(),
            traffic: TrafficCount {
                per_second: Some(TrafficRate {
                    qps,
                    ..TrafficRate::default()
                }),
                ..TrafficCount::default()
            },
            backends: vec![backend("web1", states[0]), backend("web2", states[1])],
        }
    }

    fn snapshot() -> Snapshot {
        use BackendState::{Down, Up};
        let dropped = |packets| Count {
            per_second: Some(CountRate {
                packets,
                bytes: 0.0,
            }),
            ..Count::default()
        };
        Snapshot {
            services: vec![
                service("l4.plain", "203.0.113.10:8080", 10.0, [Up, Down]),
                service("l4.plain", "[2001:db8::10]:8080", 5.0, [Up, Down]),
                service("l4.other", "203.0.113.10:8443", 1.0, [Up, Up]),
            ],
            interfaces: vec![InterfaceCounters {
                name: "wan".to_owned(),
                device: "eth0".to_owned(),
                verdicts: BTreeMap::from([(
                    "ingress".to_owned(),
                    BTreeMap::from([
                        (Reason::PolicyDrop.name().to_owned(), dropped(7.0)),
                        (Reason::Malformed.name().to_owned(), dropped(2.0)),
                    ]),
                )]),
            }],
            maps: vec![
                MapUse {
                    name: "A".to_owned(),
                    entries: 1,
                    max_entries: 4,
                },
                MapUse {
                    name: "B".to_owned(),
                    entries: 3,
                    max_entries: 4,
                },
            ],
            ..Snapshot::default()
        }
    }

    fn value(metric: Metric, of: Option<&str>) -> Option<f64> {
        measure(&alert(metric, of), &snapshot(), &Before::default())
    }

    #[test]
    fn queries_of_all_vips_of_a_service_add_up() {
        assert_eq!(value(Metric::Qps, Some("l4.plain")), Some(15.0));
        assert_eq!(value(Metric::Qps, None), Some(16.0));
        assert_eq!(value(Metric::Qps, Some("l4.none")), None);
    }

    #[test]
    fn a_backend_behind_two_vips_is_counted_once() {
        assert_eq!(value(Metric::BackendsDown, Some("l4.plain")), Some(1.0));
        assert_eq!(value(Metric::BackendsUp, None), Some(3.0));
    }

    #[test]
    fn drops_are_those_of_all_reasons_or_of_one() {
        assert_eq!(value(Metric::Drops, None), Some(9.0));
        let mut malformed = alert(Metric::Drops, None);
        malformed.reason = Some(Reason::Malformed.name().to_owned());
        assert_eq!(
            measure(&malformed, &snapshot(), &Before::default()),
            Some(2.0)
        );
    }

    #[test]
    fn the_fullest_map_is_the_pressure() {
        assert_eq!(value(Metric::MapPressure, None), Some(0.75));
        assert_eq!(
            measure(
                &alert(Metric::MapPressure, None),
                &Snapshot::default(),
                &Before::default()
            ),
            None
        );
    }

    #[test]
    fn the_worst_replica_is_the_lag_and_a_new_failover_is_counted_once() {
        let snapshot = samples::snapshot();
        let of =
            |metric, before: &Before| measure(&alert(metric, Some("mysql.app")), &snapshot, before);
        let before = Before(BTreeMap::from([("mysql.app".to_owned(), 1)]));
        assert_eq!(of(Metric::ReplicaLag, &before), Some(2.5));
        assert_eq!(of(Metric::Failover, &before), Some(1.0));
        assert_eq!(of(Metric::Failover, &Before::of(&snapshot)), Some(0.0));
        assert_eq!(of(Metric::Failover, &Before::default()), Some(0.0));
    }

    #[test]
    fn what_ails_a_cluster_is_counted_and_a_healthy_one_counts_nothing() {
        let ails = [
            Metric::NoWriter,
            Metric::RivalWriters,
            Metric::SemiSyncDegraded,
            Metric::WritesStalled,
            Metric::PreflightLacks,
        ];
        let mut snapshot = samples::snapshot();
        let of = |metric, snapshot: &Snapshot| {
            measure(
                &alert(metric, Some("mysql.app")),
                snapshot,
                &Before::default(),
            )
        };
        for metric in ails {
            assert_eq!(of(metric, &snapshot), Some(0.0), "{metric:?}");
            assert_eq!(of(metric, &Snapshot::default()), None, "{metric:?}");
        }
        let cluster = &mut snapshot.clusters[0];
        cluster.writer = None;
        cluster.rivals = vec!["web1".to_owned(), "web2".to_owned()];
        cluster.lacks = vec![LackStatus::default()];
        cluster.members[0].semi_sync = Some("degraded".to_owned());
        cluster.members[0].writes_stalled = true;
        let found = ails.map(|metric| of(metric, &snapshot));
        assert_eq!(found, [1.0, 2.0, 1.0, 1.0, 1.0].map(Some));
    }

    #[test]
    fn requests_errors_and_latency_are_those_of_the_site() {
        let snapshot = samples::snapshot();
        let of = |metric| {
            let alert = alert(metric, Some("l7.www"));
            measure(&alert, &snapshot, &Before::default())
        };
        assert_eq!(of(Metric::Qps), Some(12.0));
        assert_eq!(of(Metric::ErrorRate), Some(0.025));
        assert_eq!(of(Metric::Latency(Quantile::P99)), Some(0.038));
        assert_eq!(of(Metric::CertificateExpiry), Some(86_400.0));
        assert_eq!(of(Metric::BackendsUp), Some(1.0));
    }
}
