//! Every metric: its name, unit, type, what it means, and its values in a snapshot. Encoders know no metric by name.
//!
//! Labels come from the configuration alone: no client address, path or port from the wire becomes a series.

mod clusters;
mod sites;

use std::borrow::Cow;

use super::measure::is_drop;
use crate::admin::api::{
    AlertState, BackendState, ControllerState, Count, ServiceCounters, Snapshot, TrafficCount,
};

/// A metric with all its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Family<'a> {
    /// Without unit and `_total`.
    pub name: &'static str,
    pub unit: Unit,
    pub kind: Kind,
    /// Says also whether anything but zero is normal.
    pub help: &'static str,
    pub series: Vec<Series<'a>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Series<'a> {
    pub labels: Vec<(&'static str, Cow<'a, str>)>,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Whole(u64),
    Real(f64),
    /// Of a histogram: upper bounds with how many were at most that, the last bound infinite; and their sum.
    Buckets {
        below: Vec<(f64, u64)>,
        sum: f64,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    Bytes,
    None,
    Ratio,
    Seconds,
}

impl Unit {
    /// As a name ends.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Bytes => "_bytes",
            Self::None => "",
            Self::Ratio => "_ratio",
            Self::Seconds => "_seconds",
        }
    }
}

impl Family<'_> {
    /// As a scrape names it; OTLP keeps it without `_total`.
    #[must_use]
    pub fn full_name(&self) -> String {
        let total = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{}{total}", self.name, self.unit.suffix())
    }
}

/// All metrics of the node, in an order that never changes.
#[must_use]
pub fn families(snapshot: &Snapshot) -> Vec<Family<'_>> {
    let mut families = Vec::new();
    if let Some(controller) = &snapshot.controller {
        families.extend(about_the_controller(controller));
    }
    families.extend(interfaces(snapshot));
    families.extend(rules(snapshot));
    families.extend(services(snapshot));
    families.extend(backends(snapshot));
    families.extend(sites::of_sites(snapshot));
    families.extend(sites::of_backends(snapshot));
    families.extend(sites::at_the_door(snapshot));
    families.extend(sites::certificates(snapshot));
    families.extend(clusters::of_clusters(snapshot));
    families.extend(clusters::of_members(snapshot));
    families.extend(maps(snapshot));
    families.extend(alerts(snapshot));
    families.extend(exports(snapshot));
    families.retain(|family| !family.series.is_empty());
    families
}

fn about_the_controller(controller: &ControllerState) -> Vec<Family<'_>> {
    let alone = |value| vec![series([], value)];
    vec![
        Family {
            name: "foobar_build_info",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "The version that runs, always 1",
            series: vec![series(
                [("version", controller.version.as_str().into())],
                Value::Whole(1),
            )],
        },
        Family {
            name: "foobar_start_time",
            unit: Unit::Seconds,
            kind: Kind::Gauge,
            help: "When the controller started, Unix time; the packet path may be older",
            series: alone(Value::Real(controller.started_at)),
        },
        Family {
            name: "foobar_config_last_reload_successful",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the last reload was taken; 0 is not normal, what ran before goes on",
            series: alone(truth(!controller.reload_failed)),
        },
        Family {
            name: "foobar_config_loaded_time",
            unit: Unit::Seconds,
            kind: Kind::Gauge,
            help: "When the configuration in force was loaded, Unix time",
            series: alone(Value::Real(controller.loaded_at)),
        },
        Family {
            name: "foobar_interface_xdp_generic",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if XDP runs in generic mode, many times slower; 1 is not normal in production",
            series: controller
                .interfaces
                .iter()
                .map(|interface| {
                    series(
                        [
                            ("interface", interface.name.as_str().into()),
                            ("device", interface.device.as_str().into()),
                        ],
                        truth(interface.xdp == "generic"),
                    )
                })
                .collect(),
        },
    ]
}

fn interfaces(snapshot: &Snapshot) -> [Family<'_>; 2] {
    let verdicts = |value: fn(&Count) -> u64| {
        snapshot
            .interfaces
            .iter()
            .flat_map(move |interface| {
                interface
                    .verdicts
                    .iter()
                    .flat_map(move |(direction, verdicts)| {
                        verdicts.iter().map(move |(reason, count)| {
                            let verdict = if is_drop(reason) { "drop" } else { "pass" };
                            series(
                                [
                                    ("interface", interface.name.as_str().into()),
                                    ("direction", direction.as_str().into()),
                                    ("verdict", verdict.into()),
                                    ("reason", reason.as_str().into()),
                                ],
                                Value::Whole(value(count)),
                            )
                        })
                    })
            })
            .collect()
    };
    [
        Family {
            name: "foobar_interface_packets",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Packets by what became of them and why; drops are normal on an edge, of reason internal they never are",
            series: verdicts(|count| count.packets),
        },
        Family {
            name: "foobar_interface",
            unit: Unit::Bytes,
            kind: Kind::Counter,
            help: "Bytes by what became of their packets and why",
            series: verdicts(|count| count.bytes),
        },
    ]
}

fn rules(snapshot: &Snapshot) -> [Family<'_>; 2] {
    let of = |value: fn(&Count) -> u64| {
        snapshot
            .rules
            .iter()
            .map(move |rule| {
                series(
                    [
                        ("policy", rule.policy.as_ref().into()),
                        ("rule", rule.rule.as_ref().into()),
                    ],
                    Value::Whole(value(&rule.count)),
                )
            })
            .collect()
    };
    [
        Family {
            name: "foobar_rule_packets",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Packets that the rule decided; a rule that stays 0 may be dead",
            series: of(|count| count.packets),
        },
        Family {
            name: "foobar_rule",
            unit: Unit::Bytes,
            kind: Kind::Counter,
            help: "Bytes of the packets that the rule decided",
            series: of(|count| count.bytes),
        },
    ]
}

fn services(snapshot: &Snapshot) -> Vec<Family<'_>> {
    let all = || {
        snapshot.services.iter().map(|service| {
            let labels = vec![
                ("service", service.name.as_str().into()),
                ("vip", service.vip.as_str().into()),
            ];
            (labels, &service.traffic)
        })
    };
    vec![
        Family {
            name: "foobar_service_connections",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "New connections to the service; at layer 4 a query is a connection",
            series: connections(all()),
        },
        Family {
            name: "foobar_service_packets",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Packets of the service, in towards the backends and out towards the clients",
            series: directions(all(), |traffic| (traffic.packets_in, traffic.packets_out)),
        },
        Family {
            name: "foobar_service",
            unit: Unit::Bytes,
            kind: Kind::Counter,
            help: "Bytes of the service, in towards the backends and out towards the clients",
            series: directions(all(), |traffic| (traffic.bytes_in, traffic.bytes_out)),
        },
    ]
}

fn backends(snapshot: &Snapshot) -> Vec<Family<'_>> {
    let all = || {
        snapshot.services.iter().flat_map(|service| {
            service
                .backends
                .iter()
                .map(|backend| (backend_labels(service, backend), &backend.traffic))
        })
    };
    let states = || {
        snapshot.services.iter().flat_map(|service| {
            service.backends.iter().filter_map(|backend| {
                Some((
                    backend_labels(service, backend),
                    backend.state?,
                    backend.weight,
                ))
            })
        })
    };
    vec![
        Family {
            name: "foobar_backend_up",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the backend takes new connections; 0 is normal only while it is drained or disabled",
            series: states()
                .map(|(labels, state, _)| Series {
                    labels,
                    value: truth(state == BackendState::Up),
                })
                .collect(),
        },
        Family {
            name: "foobar_backend_down",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the backend fails its checks; 1 is not normal",
            series: states()
                .map(|(labels, state, _)| Series {
                    labels,
                    value: truth(state == BackendState::Down),
                })
                .collect(),
        },
        Family {
            name: "foobar_backend_weight",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "The share of the backend against the others",
            series: states()
                .filter_map(|(labels, _, weight)| {
                    Some(Series {
                        labels,
                        value: Value::Whole(weight?.into()),
                    })
                })
                .collect(),
        },
        Family {
            name: "foobar_backend_connections",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "New connections to the backend",
            series: connections(all()),
        },
        Family {
            name: "foobar_backend_packets",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Packets of the backend, in towards it and out towards the clients",
            series: directions(all(), |traffic| (traffic.packets_in, traffic.packets_out)),
        },
        Family {
            name: "foobar_backend",
            unit: Unit::Bytes,
            kind: Kind::Counter,
            help: "Bytes of the backend, in towards it and out towards the clients",
            series: directions(all(), |traffic| (traffic.bytes_in, traffic.bytes_out)),
        },
    ]
}

type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

fn backend_labels<'a>(
    service: &'a ServiceCounters,
    backend: &crate::admin::api::BackendCounters,
) -> Labels<'a> {
    vec![
        ("service", service.name.as_str().into()),
        ("vip", service.vip.as_str().into()),
        (
            "backend",
            format!("{}:{}", backend.host, backend.port).into(),
        ),
    ]
}

fn connections<'a>(of: impl Iterator<Item = (Labels<'a>, &'a TrafficCount)>) -> Vec<Series<'a>> {
    of.map(|(labels, traffic)| Series {
        labels,
        value: Value::Whole(traffic.connections),
    })
    .collect()
}

fn directions<'a>(
    of: impl Iterator<Item = (Labels<'a>, &'a TrafficCount)>,
    values: fn(&TrafficCount) -> (u64, u64),
) -> Vec<Series<'a>> {
    of.flat_map(|(labels, traffic)| {
        let (incoming, outgoing) = values(traffic);
        [("in", incoming), ("out", outgoing)].map(|(direction, value)| {
            let mut labels = labels.clone();
            labels.push(("direction", direction.into()));
            Series {
                labels,
                value: Value::Whole(value),
            }
        })
    })
    .collect()
}

fn maps(snapshot: &Snapshot) -> [Family<'_>; 2] {
    let of = |value: fn(&crate::admin::api::MapUse) -> u64| {
        snapshot
            .maps
            .iter()
            .map(move |map| {
                let labels = [("map", map.name.to_lowercase().into())];
                series(labels, Value::Whole(value(map)))
            })
            .collect()
    };
    [
        Family {
            name: "foobar_map_entries",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "Entries of a table of the packet path",
            series: of(|map| map.entries),
        },
        Family {
            name: "foobar_map_entries_limit",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "The most entries that the table holds; above 90 % is not normal",
            series: of(|map| map.max_entries),
        },
    ]
}

fn alerts(snapshot: &Snapshot) -> [Family<'_>; 1] {
    [Family {
        name: "foobar_alert_firing",
        unit: Unit::None,
        kind: Kind::Gauge,
        help: "1 while an alert of the configuration fires; 1 is not normal",
        series: snapshot
            .alerts
            .iter()
            .map(|alert| {
                series(
                    [
                        ("alert", alert.name.as_str().into()),
                        ("severity", alert.severity.as_str().into()),
                    ],
                    truth(alert.state == AlertState::Firing),
                )
            })
            .collect(),
    }]
}

fn exports(snapshot: &Snapshot) -> Vec<Family<'_>> {
    let of = |value: fn(&crate::admin::api::ExportLine) -> u64| {
        snapshot
            .exports
            .iter()
            .map(move |export| {
                series(
                    [
                        ("exporter", export.exporter.as_str().into()),
                        ("signal", export.signal.as_str().into()),
                    ],
                    Value::Whole(value(export)),
                )
            })
            .collect()
    };
    vec![
        Family {
            name: "foobar_export_batches_sent",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Batches that the collector took",
            series: of(|export| export.sent),
        },
        Family {
            name: "foobar_export_failures",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Attempts to push that failed; they are tried again, a few are normal",
            series: of(|export| export.failures),
        },
        Family {
            name: "foobar_export_dropped",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Batches given up because the buffer was full or the collector refused them for good; not normal",
            series: of(|export| export.dropped),
        },
        Family {
            name: "foobar_export_waiting",
            unit: Unit::Bytes,
            kind: Kind::Gauge,
            help: "What waits for the collector; grows while it does not answer",
            series: of(|export| export.waiting_bytes),
        },
    ]
}

fn series<'a, const N: usize>(
    labels: [(&'static str, Cow<'a, str>); N],
    value: Value,
) -> Series<'a> {
    Series {
        labels: labels.into(),
        value,
    }
}

const fn truth(so: bool) -> Value {
    Value::Whole(so as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::monitor::samples;

    #[test]
    fn every_metric_has_our_prefix_its_own_name_and_a_help_text() {
        let snapshot = samples::snapshot();
        let families = families(&snapshot);
        let names: BTreeSet<_> = families.iter().map(Family::full_name).collect();
        assert_eq!(names.len(), families.len());
        for family in &families {
            assert!(family.name.starts_with("foobar_"), "{}", family.name);
            assert!(!family.help.is_empty() && !family.help.ends_with('.'));
            assert!(!family.name.ends_with("_total"), "{}", family.name);
        }
    }

    #[test]
    fn all_series_of_a_metric_have_the_same_labels_and_none_stands_twice() {
        let snapshot = samples::snapshot();
        for family in families(&snapshot) {
            let keys: BTreeSet<Vec<_>> = family
                .series
                .iter()
                .map(|series| series.labels.iter().map(|(key, _)| *key).collect())
                .collect();
            assert_eq!(keys.len(), 1, "{}", family.name);
            let mut distinct: Vec<_> = family.series.iter().map(|series| &series.labels).collect();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), family.series.len(), "{}", family.name);
        }
    }

    #[test]
    fn values_are_those_of_the_snapshot() {
        let snapshot = samples::snapshot();
        let families = families(&snapshot);
        let family = families
            .iter()
            .find(|family| family.full_name() == "foobar_backend_bytes_total")
            .expect("there");
        assert_eq!(
            family.series[0],
            series(
                [
                    ("service", "l4.plain".into()),
                    ("vip", "203.0.113.10:8080".into()),
                    ("backend", "web1:80".into()),
                    ("direction", "in".into()),
                ],
                Value::Whole(1_200)
            )
        );
    }
}
