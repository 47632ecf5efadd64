//! The connections that a node knows one by one: flows in the packet path's tables, sockets of the proxy.
//!
//! A service at layer 4 that neither resets nor moves slots keeps no flows, so none of its connections are here: that is
//! what makes it fast.

mod sockets;

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    admin::api::{ConnectionCount, ConnectionKind, ConnectionLine, Connections},
    kernel::{self, Flow, KernelError, Known, Way},
};

/// An endpoint that the proxy listens on, and whose it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    pub endpoint: SocketAddr,
    /// `l7.www`; several share an endpoint as `l7.shop,l7.www`.
    pub sites: String,
}

/// All connections of a node, by its pinned maps and the kernel's own table of sockets.
///
/// # Errors
/// [`KernelError::NotDeployed`] where nothing is pinned.
pub fn of_node(node: &str, listeners: &[Listener]) -> Result<Vec<ConnectionLine>, KernelError> {
    let mut lines: Vec<ConnectionLine> = kernel::flows(node)?.iter().map(line_of_flow).collect();
    lines.extend(sockets::accepted(listeners));
    Ok(lines)
}

/// Counts of all that hold `filter`, and at most `limit` of them, those with the latest packet first.
#[must_use]
pub fn told(
    mut lines: Vec<ConnectionLine>,
    filter: Option<&str>,
    limit: Option<usize>,
) -> Connections {
    if let Some(filter) = filter {
        lines.retain(|line| holds(line, filter));
    }
    let mut counts: BTreeMap<(ConnectionKind, Option<String>, Option<String>), u64> =
        BTreeMap::new();
    for line in &lines {
        let group = (line.kind, line.service.clone(), line.backend.clone());
        *counts.entry(group).or_default() += 1;
    }
    let total = lines.len() as u64;
    lines.sort_by(|one, other| order(one).cmp(&order(other)));
    lines.truncate(limit.unwrap_or(usize::MAX));
    Connections {
        total,
        counts: counts
            .into_iter()
            .map(|((kind, service, backend), connections)| ConnectionCount {
                kind,
                service,
                backend,
                connections,
            })
            .collect(),
        connections: lines,
    }
}

fn order(line: &ConnectionLine) -> (ConnectionKind, Option<&str>, Option<u32>, &str) {
    (
        line.kind,
        line.service.as_deref(),
        line.idle_seconds,
        &line.from,
    )
}

fn holds(line: &ConnectionLine, filter: &str) -> bool {
    [
        Some(line.from.as_str()),
        Some(line.to.as_str()),
        Some(line.kind.name()),
        line.service.as_deref(),
        line.backend.as_deref(),
    ]
    .into_iter()
    .flatten()
    .any(|text| text.contains(filter))
}

fn line_of_flow(flow: &Flow) -> ConnectionLine {
    let protocol = flow.protocol.map(protocol_name);
    let idle_seconds = Some(flow.idle);
    match &flow.way {
        Way::Balanced {
            known,
            client,
            vip,
            backend,
        } => {
            let (service, vip) = vip
                .as_deref()
                .and_then(|label| label.split_once(' '))
                .unwrap_or(("", "-"));
            let backend = backend.as_deref().and_then(|label| label.split(' ').nth(1));
            ConnectionLine {
                kind: match known {
                    Known::Session => ConnectionKind::Session,
                    Known::Remembered => ConnectionKind::Steered,
                },
                protocol,
                from: client.to_string(),
                to: vip.to_owned(),
                service: (!service.is_empty()).then(|| service.to_owned()),
                backend: backend.map(str::to_owned),
                idle_seconds,
            }
        }
        Way::Opened { from, to } => ConnectionLine {
            kind: ConnectionKind::Opened,
            protocol,
            from: from.to_string(),
            to: to.to_string(),
            service: None,
            backend: None,
            idle_seconds,
        },
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(client: &str, backend: &str, idle: u32) -> ConnectionLine {
        line_of_flow(&Flow {
            way: Way::Balanced {
                known: Known::Session,
                client: client.parse().expect("an endpoint"),
                vip: Some("mysql.app 10.0.0.10:3306".to_owned()),
                backend: Some(format!("mysql.app {backend}:3306 10.0.0.11")),
            },
            protocol: Some(6),
            idle,
        })
    }

    #[test]
    fn a_session_tells_its_service_and_its_backend() {
        let line = session("10.0.0.12:40000", "web1", 3);
        assert_eq!(line.service.as_deref(), Some("mysql.app"));
        assert_eq!(line.to, "10.0.0.10:3306");
        assert_eq!(line.backend.as_deref(), Some("web1:3306"));
        assert_eq!(line.protocol.as_deref(), Some("tcp"));
    }

    #[test]
    fn all_that_match_are_counted_and_only_some_are_listed() {
        let lines = vec![
            session("10.0.0.12:1", "web1", 9),
            session("10.0.0.12:2", "web1", 1),
            session("10.0.0.13:3", "web2", 2),
        ];
        let told = told(lines, Some("web1"), Some(1));
        assert_eq!((told.total, told.connections.len()), (2, 1));
        assert_eq!(told.connections[0].from, "10.0.0.12:2");
        assert_eq!(told.counts.len(), 1);
        assert_eq!(told.counts[0].connections, 2);
    }

    #[test]
    fn a_flow_of_a_vip_that_is_gone_is_told_without_it() {
        let line = line_of_flow(&Flow {
            way: Way::Balanced {
                known: Known::Remembered,
                client: "192.0.2.1:5".parse().expect("an endpoint"),
                vip: None,
                backend: None,
            },
            protocol: None,
            idle: 0,
        });
        assert_eq!((line.service, line.to.as_str()), (None, "-"));
        assert_eq!(line.kind, ConnectionKind::Steered);
    }
}
