//! A snapshot for tests, with something of everything.

use std::collections::BTreeMap;

use foobar_ebpf::verdict::Reason;

use crate::mysql::status::{ClusterStatus, MemberStatus};

use crate::admin::api::{
    AlertLine, AlertState, BackendCounters, BackendState, CertificateExpiry, ControllerState,
    Count, ExportLine, InterfaceCounters, InterfaceStatus, MapUse, RequestCount, RequestRate,
    RuleCounters, ServiceCounters, SiteBackendCounters, SiteCounters, Snapshot, TrafficCount,
};

pub fn snapshot() -> Snapshot {
    Snapshot {
        node: "lb1".to_owned(),
        taken_at: 5_000_000_000,
        source: "controller".to_owned(),
        interfaces: vec![InterfaceCounters {
            name: "wan".to_owned(),
            device: "eth0".to_owned(),
            verdicts: BTreeMap::from([(
                "ingress".to_owned(),
                [Reason::RuleAllow, Reason::PolicyDrop]
                    .map(|reason| (reason.name().to_owned(), count(7)))
                    .into(),
            )]),
        }],
        rules: ["web", "ssh"]
            .map(|rule| RuleCounters {
                policy: "edge".into(),
                rule: rule.into(),
                count: count(3),
            })
            .into(),
        services: vec![ServiceCounters {
            name: "l4.plain".to_owned(),
            vip: "203.0.113.10:8080".to_owned(),
            traffic: traffic(24),
            backends: vec![
                backend("web1", BackendState::Up),
                backend("web2", BackendState::Down),
            ],
        }],
        sites: vec![SiteCounters {
            name: "l7.www".to_owned(),
            requests: requests(120),
            backends: vec![SiteBackendCounters {
                host: "web1".to_owned(),
                port: 8_444,
                weight: Some(1),
                state: Some(BackendState::Up),
                requests: requests(118),
            }],
        }],
        door: BTreeMap::from([
            ("accepted".to_owned(), 40),
            ("refused_rate".to_owned(), 2),
            ("unknown_name".to_owned(), 1),
            ("faults".to_owned(), 0),
        ]),
        clusters: vec![ClusterStatus {
            name: "mysql.app".to_owned(),
            mode: "promote".to_owned(),
            writer: Some("web1".to_owned()),
            armed: true,
            failovers: 2,
            members: vec![
                member("web1", "primary", None),
                member("web2", "replica", Some(0.2)),
                member("web3", "replica", Some(2.5)),
            ],
            ..ClusterStatus::default()
        }],
        certificates: vec![CertificateExpiry {
            service: "l7.www".to_owned(),
            path: "/etc/foobar/tls/www.pem".to_owned(),
            seconds_left: 86_400.0,
        }],
        maps: vec![MapUse {
            name: "FLOWS_V4".to_owned(),
            entries: 1,
            max_entries: 4,
        }],
        controller: Some(ControllerState {
            version: "0.1.0".to_owned(),
            started_at: 1_000.5,
            at: 1_700_000_000.25,
            loaded_at: 1_001.0,
            reload_failed: false,
            generation: 2,
            interfaces: vec![InterfaceStatus {
                name: "wan".to_owned(),
                device: "eth0".to_owned(),
                xdp: "native".to_owned(),
                egress: "tcx".to_owned(),
                ingress_policy: Some("edge".to_owned()),
                egress_policy: None,
            }],
        }),
        alerts: vec![AlertLine {
            name: "busy".to_owned(),
            metric: "qps".to_owned(),
            of: Some("l4.plain".to_owned()),
            severity: "warning".to_owned(),
            state: AlertState::Firing,
            threshold: "above 5000/s".to_owned(),
            value: Some(6_000.0),
            said: Some("6000/s".to_owned()),
            since: Some(1_699_999_990.0),
        }],
        exports: vec![ExportLine {
            exporter: "otlp".to_owned(),
            signal: "metrics".to_owned(),
            sent: 9,
            ..ExportLine::default()
        }],
    }
}

fn count(packets: u64) -> Count {
    Count {
        packets,
        bytes: packets * 60,
        per_second: None,
    }
}

fn member(host: &str, role: &str, lag_seconds: Option<f64>) -> MemberStatus {
    MemberStatus {
        host: host.to_owned(),
        port: 3_306,
        role: role.to_owned(),
        state: "up".to_owned(),
        writes: "no".to_owned(),
        reads: "yes".to_owned(),
        lag_seconds,
        qps: Some(40.0),
        ..MemberStatus::default()
    }
}

fn requests(number: u64) -> RequestCount {
    RequestCount {
        counts: [
            ("requests", number),
            ("status_2xx", number - 3),
            ("status_5xx", 3),
            ("bytes_in", number * 200),
            ("bytes_out", number * 4_000),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into(),
        latency: vec![0, number - 1, 0, 1],
        per_second: Some(RequestRate {
            qps: 12.0,
            error_rate: Some(0.025),
            p99: Some(0.038),
            ..RequestRate::default()
        }),
    }
}

fn traffic(connections: u64) -> TrafficCount {
    TrafficCount {
        connections,
        packets_in: connections * 10,
        bytes_in: connections * 100,
        packets_out: connections * 8,
        bytes_out: connections * 900,
        per_second: None,
    }
}

fn backend(host: &str, state: BackendState) -> BackendCounters {
    BackendCounters {
        host: host.to_owned(),
        port: 80,
        weight: Some(1),
        state: Some(state),
        traffic: traffic(12),
    }
}
