//! The counters of the packet path as the administration's API shows them: labels taken apart, backends under vips.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use foobar_ebpf::abi::{Tally, Traffic};

use crate::{
    admin::api::{
        BackendCounters, Count, InterfaceCounters, MapUse, RuleCounters, ServiceCounters, Snapshot,
        TrafficCount,
    },
    kernel::{self, Counters, Direction, KernelError, Sum},
};

/// The counters of a node, read from its pinned maps; no controller need run.
///
/// # Errors
/// [`KernelError::NotDeployed`] where nothing is pinned.
pub fn of_pins(node: &str) -> Result<Snapshot, KernelError> {
    kernel::pinned::counters(node).map(|counters| snapshot(node, &counters))
}

#[must_use]
pub fn snapshot(node: &str, counters: &Counters) -> Snapshot {
    Snapshot {
        node: node.to_owned(),
        taken_at: counters.taken_at,
        source: "maps".to_owned(),
        interfaces: counters.interfaces.iter().map(interface).collect(),
        rules: counters.rules.iter().map(rule).collect(),
        services: services(counters),
        maps: counters
            .fill
            .iter()
            .map(|fill| MapUse {
                name: fill.map.to_owned(),
                entries: fill.entries,
                max_entries: fill.max.into(),
            })
            .collect(),
    }
}

fn interface(interface: &kernel::InterfaceCounters) -> InterfaceCounters {
    let (name, device) = interface
        .label
        .split_once(' ')
        .unwrap_or((&interface.label, ""));
    let mut verdicts: BTreeMap<String, BTreeMap<String, Count>> =
        [Direction::Ingress, Direction::Egress]
            .map(|direction| (direction.name().to_owned(), BTreeMap::new()))
            .into();
    for (direction, reason, tally) in &interface.verdicts {
        verdicts
            .entry(direction.name().to_owned())
            .or_default()
            .insert(reason.name().to_owned(), count(*tally));
    }
    InterfaceCounters {
        name: name.to_owned(),
        device: device.to_owned(),
        verdicts,
    }
}

fn rule((label, tally): &(String, Tally)) -> RuleCounters {
    let (policy, rule) = label.split_once('/').unwrap_or(("", label));
    RuleCounters {
        policy: policy.to_owned(),
        rule: rule.to_owned(),
        count: count(*tally),
    }
}

fn services(counters: &Counters) -> Vec<ServiceCounters> {
    let backends: Vec<(BackendLabel<'_>, Traffic)> = counters
        .backends
        .iter()
        .filter_map(|(label, traffic)| Some((BackendLabel::parse(label)?, *traffic)))
        .collect();
    counters
        .vips
        .iter()
        .map(|(label, past)| service(label, *past, &backends))
        .collect()
}

/// The packet path counts by backend; those of a vip together are the vip's.
fn service(
    label: &str,
    past: Traffic,
    backends: &[(BackendLabel<'_>, Traffic)],
) -> ServiceCounters {
    let (name, vip) = label.split_once(' ').unwrap_or((label, ""));
    let is_ipv4 = vip.parse::<SocketAddr>().map(|vip| vip.is_ipv4());
    let own = backends
        .iter()
        .filter(|(label, _)| label.service == name && Ok(label.address.is_ipv4()) == is_ipv4);
    ServiceCounters {
        name: name.to_owned(),
        vip: vip.to_owned(),
        traffic: traffic(
            own.clone()
                .fold(past, |sum, (_, counted)| sum.plus(*counted)),
        ),
        backends: own
            .map(|(label, counted)| BackendCounters {
                host: label.host.to_owned(),
                port: label.port,
                weight: None,
                state: None,
                traffic: traffic(*counted),
            })
            .collect(),
    }
}

/// `l4.name host:port address`
struct BackendLabel<'a> {
    service: &'a str,
    host: &'a str,
    port: u16,
    address: IpAddr,
}

impl<'a> BackendLabel<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        let service = words.next()?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        Some(Self {
            service,
            host,
            port: port.parse().ok()?,
            address: words.next()?.parse().ok()?,
        })
    }
}

fn count(tally: Tally) -> Count {
    Count {
        packets: tally.packets,
        bytes: tally.bytes,
    }
}

fn traffic(traffic: Traffic) -> TrafficCount {
    TrafficCount {
        connections: traffic.connections,
        packets_in: traffic.packets_in,
        bytes_in: traffic.bytes_in,
        packets_out: traffic.packets_out,
        bytes_out: traffic.bytes_out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backends_label_tells_service_host_port_and_address() {
        let label = BackendLabel::parse("l4.plain web1:80 2001:db8::11").expect("well-formed");
        assert_eq!(
            (label.service, label.host, label.port, label.address),
            (
                "l4.plain",
                "web1",
                80,
                "2001:db8::11".parse().expect("IPv6")
            )
        );
    }

    #[test]
    fn a_label_of_another_shape_is_no_backend() {
        assert!(BackendLabel::parse("edge/web").is_none());
    }
}
