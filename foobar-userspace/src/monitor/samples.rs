//! A snapshot for tests, with something of everything.

use std::collections::BTreeMap;

use foobar_ebpf::verdict::Reason;

use crate::admin::api::{
    AlertLine, AlertState, BackendCounters, BackendState, ControllerState, Count, ExportLine,
    InterfaceCounters, InterfaceStatus, MapUse, RuleCounters, ServiceCounters, Snapshot,
    TrafficCount,
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
                policy: "edge".to_owned(),
                rule: rule.to_owned(),
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
