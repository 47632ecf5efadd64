//! The counters of the packet path as the administration's API shows them: labels taken apart, backends under vips.

mod sites;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use foobar_ebpf::abi::{Tally, Traffic};

use crate::{
    admin::api::{
        BackendCounters, Count, CountRate, InterfaceCounters, MapUse, Maps, RuleCounters,
        ServiceCounters, Snapshot, TrafficCount, TrafficRate,
    },
    kernel::{self, Counters, Direction, KernelError, Mapped, PROXY_TALLY, Sum},
    tally,
};

/// The counters of a node, read from its pinned maps; no controller need run.
///
/// # Errors
/// [`KernelError::NotDeployed`] where nothing is pinned.
pub fn of_pins(node: &str, maps: Maps) -> Result<Snapshot, KernelError> {
    let counters = kernel::pinned::counters(node)?;
    let mut snapshot = snapshot(node, &counters);
    // A node without a proxy has no such words.
    if let Ok(words) = Mapped::look(node, PROXY_TALLY) {
        let tally = tally::Tally::new(Arc::new(words));
        snapshot.sites = sites::read(&counters, &tally);
        if !snapshot.sites.is_empty() {
            snapshot.door = sites::door(&tally);
        }
    }
    if maps == Maps::Counted {
        snapshot.maps = kernel::pinned::fill(node)?
            .into_iter()
            .map(map_use)
            .collect();
    }
    Ok(snapshot)
}

/// Puts rates into `later`: its differences from `earlier`, by the second.
pub fn rate(earlier: &Snapshot, later: &mut Snapshot) {
    let seconds = Duration::from_nanos(later.taken_at.saturating_sub(earlier.taken_at));
    if seconds.is_zero() {
        return;
    }
    let clock = Clock(seconds.as_secs_f64());
    for interface in &mut later.interfaces {
        let before = find(&earlier.interfaces, |known| known.name == interface.name);
        for (direction, verdicts) in &mut interface.verdicts {
            let before = before.and_then(|before| before.verdicts.get(direction));
            for (reason, count) in verdicts {
                let before = before.and_then(|before| before.get(reason));
                clock.count(before.copied().unwrap_or_default(), count);
            }
        }
    }
    clock.rules(&earlier.rules, &mut later.rules);
    sites::rate(&earlier.sites, &mut later.sites, clock.0);
    for service in &mut later.services {
        let before = find(&earlier.services, |known| {
            known.name == service.name && known.vip == service.vip
        });
        let traffic = before.map_or(TrafficCount::default(), |before| before.traffic);
        clock.traffic(traffic, &mut service.traffic);
        for backend in &mut service.backends {
            let before = before.and_then(|before| {
                find(&before.backends, |known| {
                    known.host == backend.host && known.port == backend.port
                })
            });
            let traffic = before.map_or(TrafficCount::default(), |before| before.traffic);
            clock.traffic(traffic, &mut backend.traffic);
        }
    }
}

fn find<T>(items: &[T], is_it: impl Fn(&&T) -> bool) -> Option<&T> {
    items.iter().find(is_it)
}

/// Seconds between two snapshots.
struct Clock(f64);

impl Clock {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate needs no more than 52 bits"
    )]
    fn rate(&self, before: u64, now: u64) -> f64 {
        // A counter that fell belongs to something new of the same name.
        now.checked_sub(before).unwrap_or(now) as f64 / self.0
    }

    fn count(&self, before: Count, now: &mut Count) {
        now.per_second = Some(CountRate {
            packets: self.rate(before.packets, now.packets),
            bytes: self.rate(before.bytes, now.bytes),
        });
    }

    /// Ten thousand rules are not looked for one by one: most often both are of one ruleset, in one order.
    fn rules(&self, earlier: &[RuleCounters], later: &mut [RuleCounters]) {
        fn name(rule: &RuleCounters) -> (&str, &str) {
            (&rule.policy, &rule.rule)
        }
        let same = earlier.len() == later.len()
            && earlier
                .iter()
                .zip(&*later)
                .all(|(before, now)| name(before) == name(now));
        if same {
            for (before, now) in earlier.iter().zip(later) {
                self.count(before.count, &mut now.count);
            }
            return;
        }
        let before: HashMap<_, Count> = earlier
            .iter()
            .map(|rule| (name(rule), rule.count))
            .collect();
        for rule in later {
            let before = before.get(&name(rule)).copied().unwrap_or_default();
            self.count(before, &mut rule.count);
        }
    }

    fn traffic(&self, before: TrafficCount, now: &mut TrafficCount) {
        now.per_second = Some(TrafficRate {
            qps: self.rate(before.connections, now.connections),
            packets_in: self.rate(before.packets_in, now.packets_in),
            bytes_in: self.rate(before.bytes_in, now.bytes_in),
            packets_out: self.rate(before.packets_out, now.packets_out),
            bytes_out: self.rate(before.bytes_out, now.bytes_out),
        });
    }
}

fn map_use(fill: kernel::Fill) -> MapUse {
    MapUse {
        name: fill.map.to_owned(),
        entries: fill.entries,
        max_entries: fill.max.into(),
    }
}

#[must_use]
pub fn snapshot(node: &str, counters: &Counters) -> Snapshot {
    Snapshot {
        node: node.to_owned(),
        taken_at: counters.taken_at,
        source: "maps".to_owned(),
        interfaces: counters.interfaces.iter().map(interface).collect(),
        rules: counters.rules.iter().map(rule).collect(),
        clusters: Vec::new(),
        services: services(counters),
        ..Snapshot::default()
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
        per_second: None,
    }
}

fn traffic(traffic: Traffic) -> TrafficCount {
    TrafficCount {
        connections: traffic.connections,
        packets_in: traffic.packets_in,
        bytes_in: traffic.bytes_in,
        packets_out: traffic.packets_out,
        bytes_out: traffic.bytes_out,
        per_second: None,
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

    fn counted(taken_at: u64, packets: u64) -> Snapshot {
        let tally = Tally {
            packets,
            bytes: packets * 100,
        };
        let counters = Counters {
            taken_at,
            interfaces: Vec::new(),
            rules: vec![("edge/web".to_owned(), tally)],
            vips: Vec::new(),
            backends: Vec::new(),
            sites: Vec::new(),
            site_backends: Vec::new(),
        };
        snapshot("lb1", &counters)
    }

    fn rate_of(earlier: &Snapshot, mut later: Snapshot) -> Option<CountRate> {
        rate(earlier, &mut later);
        later.rules[0].count.per_second
    }

    #[test]
    fn a_rate_is_the_difference_by_the_second() {
        let rate = rate_of(&counted(1_000_000_000, 100), counted(3_000_000_000, 500));
        assert_eq!(
            rate,
            Some(CountRate {
                packets: 200.0,
                bytes: 20_000.0
            })
        );
    }

    #[test]
    fn a_counter_that_fell_started_anew() {
        let rate = rate_of(&counted(0, 500), counted(1_000_000_000, 3)).expect("a rate");
        assert!((rate.packets - 3.0).abs() < 1e-9);
    }

    #[test]
    fn two_snapshots_of_one_instant_have_no_rate() {
        assert_eq!(rate_of(&counted(7, 1), counted(7, 2)), None);
    }

    #[test]
    fn a_label_of_another_shape_is_no_backend() {
        assert!(BackendLabel::parse("edge/web").is_none());
    }
}
