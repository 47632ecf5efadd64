//! All counters at one instant, under their names.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use foobar_ebpf::{
    abi::{LabelKey, Tally, Traffic},
    verdict::Reason,
};

use super::{Direction, KernelError, clock, table::Tables};
use crate::admin::api::{
    BackendCounters, Count, InterfaceCounters, MapUse, RuleCounters, ServiceCounters, Snapshot,
    TrafficCount,
};

pub(super) fn take(node: &str, tables: &Tables) -> Result<Snapshot, KernelError> {
    let labels = Labels::of(tables.label_texts()?);
    Ok(Snapshot {
        node: node.to_owned(),
        taken_at: clock::monotonic(),
        source: "maps".to_owned(),
        interfaces: interfaces(&labels, tables)?,
        rules: rules(&labels, tables)?,
        services: services(&labels, tables)?,
        maps: maps(tables)?,
    })
}

/// Ids and texts by kind, in the order of the ids.
struct Labels(BTreeMap<u32, BTreeMap<u32, String>>);

impl Labels {
    fn of(texts: HashMap<LabelKey, String>) -> Self {
        let mut kinds: BTreeMap<u32, BTreeMap<u32, String>> = BTreeMap::new();
        for (key, text) in texts {
            kinds.entry(key.kind).or_default().insert(key.id, text);
        }
        Self(kinds)
    }

    fn of_kind(&self, kind: u32) -> impl Iterator<Item = (u32, &str)> {
        self.0
            .get(&kind)
            .into_iter()
            .flatten()
            .map(|(id, text)| (*id, text.as_str()))
    }
}

fn interfaces(labels: &Labels, tables: &Tables) -> Result<Vec<InterfaceCounters>, KernelError> {
    let mut interfaces = Vec::new();
    for (id, text) in labels.of_kind(LabelKey::INTERFACE) {
        let (name, device) = text.split_once(' ').unwrap_or((text, ""));
        let mut verdicts = BTreeMap::new();
        for (number, direction) in (0..).zip(Direction::ALL) {
            let mut counts = BTreeMap::new();
            for reason in Reason::ALL {
                let slot = (id * 2 + number) * Reason::SLOTS + reason as u32;
                let count = count(tables.reasons.get(slot)?);
                if count.packets > 0 {
                    counts.insert(reason.name().to_owned(), count);
                }
            }
            verdicts.insert(direction.name().to_owned(), counts);
        }
        interfaces.push(InterfaceCounters {
            name: name.to_owned(),
            device: device.to_owned(),
            verdicts,
        });
    }
    Ok(interfaces)
}

fn rules(labels: &Labels, tables: &Tables) -> Result<Vec<RuleCounters>, KernelError> {
    labels
        .of_kind(LabelKey::RULE)
        .map(|(id, text)| {
            let (policy, rule) = text.split_once('/').unwrap_or(("", text));
            Ok(RuleCounters {
                policy: policy.to_owned(),
                rule: rule.to_owned(),
                count: count(tables.rules.get(id)?),
            })
        })
        .collect()
}

fn services(labels: &Labels, tables: &Tables) -> Result<Vec<ServiceCounters>, KernelError> {
    let mut services = Vec::new();
    for (id, text) in labels.of_kind(LabelKey::VIP) {
        let (name, vip) = text.split_once(' ').unwrap_or((text, ""));
        let is_ipv4 = vip.parse::<SocketAddr>().ok().map(|vip| vip.is_ipv4());
        let mut backends = Vec::new();
        for (id, text) in labels.of_kind(LabelKey::BACKEND) {
            let Some(label) = BackendLabel::parse(text) else {
                continue;
            };
            if label.service == name && Some(label.address.is_ipv4()) == is_ipv4 {
                backends.push(BackendCounters {
                    host: label.host.to_owned(),
                    port: label.port,
                    weight: None,
                    state: None,
                    traffic: traffic(tables.backend_traffic.get(id)?),
                });
            }
        }
        services.push(ServiceCounters {
            name: name.to_owned(),
            vip: vip.to_owned(),
            traffic: traffic(tables.vip_traffic.get(id)?),
            backends,
        });
    }
    Ok(services)
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

fn maps(tables: &Tables) -> Result<Vec<MapUse>, KernelError> {
    macro_rules! uses {
        ($($table:ident),+ $(,)?) => {
            vec![$(MapUse {
                name: super::Table::name(&tables.$table).to_owned(),
                entries: tables.$table.count()?,
                max_entries: tables.$table.max().into(),
            }),+]
        };
    }
    Ok(uses![
        vips_v4,
        vips_v6,
        returns_v4,
        returns_v6,
        local_v4,
        local_v6,
        routes_v4,
        routes_v6,
        remembered_v4,
        remembered_v6,
        flows_v4,
        flows_v6,
        fragments_v4,
        fragments_v6,
        set_prefixes_v4,
        set_prefixes_v6,
        set_hosts_v4,
        set_hosts_v6,
        jail_v4,
        jail_v6,
        buckets_v4,
        buckets_v6,
        labels,
    ])
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
