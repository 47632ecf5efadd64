//! The counters of a node as the administration's API shows them: under their names, backends under vips.

mod names;
mod sites;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use foobar_ebpf::abi::{Tally, Traffic};

use crate::{
    admin::api::{
        BackendCounters, Count, CountRate, InterfaceCounters, MapUse, Maps, RuleCounters,
        ServiceCounters, Snapshot, TrafficCount, TrafficRate,
    },
    kernel::{self, Counters, Direction, KernelError, Mapped, PROXY_TALLY, Sum, Verdicts},
    tally,
};

pub use self::names::Names;
use self::names::{BackendName, InterfaceName, RuleName, VipName};

/// The counters of a node and their names, read from its pinned maps; no controller need run.
///
/// # Errors
/// [`KernelError::NotDeployed`] where nothing is pinned.
pub fn of_pins(node: &str, maps: Maps) -> Result<Snapshot, KernelError> {
    let names = Names::new(kernel::pinned::labels(node)?);
    named(node, &names, maps)
}

/// The same for those who know the names: these are what makes the maps long to read.
///
/// # Errors
/// [`KernelError::NotDeployed`] where nothing is pinned.
pub fn named(node: &str, names: &Names, maps: Maps) -> Result<Snapshot, KernelError> {
    let counters = kernel::pinned::counters(node, names.extent())?;
    let mut snapshot = snapshot(node, names, &counters);
    // A node without a proxy has no such words.
    if let Ok(words) = Mapped::look(node, PROXY_TALLY) {
        let tally = tally::Tally::new(Arc::new(words));
        snapshot.sites = sites::read(names, &tally);
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
        // Snapshots that share their names need not be read for it.
        let alike = |(before, now): (&RuleCounters, &RuleCounters)| {
            Arc::ptr_eq(&before.rule, &now.rule) || name(before) == name(now)
        };
        let same = earlier.len() == later.len() && earlier.iter().zip(&*later).all(alike);
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

fn snapshot(node: &str, names: &Names, counters: &Counters) -> Snapshot {
    Snapshot {
        node: node.to_owned(),
        taken_at: counters.taken_at,
        source: "maps".to_owned(),
        interfaces: counted(&names.interfaces, &counters.interfaces)
            .map(|(name, verdicts)| interface(name, verdicts))
            .collect(),
        rules: counted(&names.rules, &counters.rules)
            .map(|(name, tally)| rule(name, *tally))
            .collect(),
        services: counted(&names.vips, &counters.vips)
            .map(|(name, past)| service(name, *past, &counters.backends))
            .collect(),
        ..Snapshot::default()
    }
}

/// Names beside what was counted under their ids.
fn counted<'a, N, C>(
    names: &'a [(u32, N)],
    counters: &'a [C],
) -> impl Iterator<Item = (&'a N, &'a C)> {
    names
        .iter()
        .filter_map(|(id, name)| Some((name, counters.get(*id as usize)?)))
}

fn interface(name: &InterfaceName, counted: &Verdicts) -> InterfaceCounters {
    let mut verdicts: BTreeMap<String, BTreeMap<String, Count>> =
        [Direction::Ingress, Direction::Egress]
            .map(|direction| (direction.name().to_owned(), BTreeMap::new()))
            .into();
    for (direction, reason, tally) in counted {
        verdicts
            .entry(direction.name().to_owned())
            .or_default()
            .insert(reason.name().to_owned(), count(*tally));
    }
    InterfaceCounters {
        name: name.name.clone(),
        device: name.device.clone(),
        verdicts,
    }
}

fn rule(name: &RuleName, tally: Tally) -> RuleCounters {
    RuleCounters {
        policy: name.policy.clone(),
        rule: name.rule.clone(),
        count: count(tally),
    }
}

/// The packet path counts by backend; those of a vip together, and what is past, are the vip's.
fn service(vip: &VipName, past: Traffic, backends: &[Traffic]) -> ServiceCounters {
    let own = || counted(&vip.backends, backends);
    ServiceCounters {
        name: vip.service.clone(),
        vip: vip.address.clone(),
        traffic: traffic(own().fold(past, |sum, (_, counted)| sum.plus(*counted))),
        backends: own()
            .map(|(name, counted)| backend(name, *counted))
            .collect(),
    }
}

fn backend(name: &BackendName, counted: Traffic) -> BackendCounters {
    BackendCounters {
        host: name.host.clone(),
        port: name.port,
        weight: None,
        state: None,
        traffic: traffic(counted),
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
    use foobar_ebpf::abi::LabelKey;

    use super::*;

    fn counted(taken_at: u64, packets: u64) -> Snapshot {
        let tally = Tally {
            packets,
            bytes: packets * 100,
        };
        let counters = Counters {
            taken_at,
            rules: vec![tally],
            ..Counters::default()
        };
        let web = LabelKey {
            kind: LabelKey::RULE,
            id: 0,
        };
        let names = Names::new([(web, "edge/web".to_owned())]);
        snapshot("lb1", &names, &counters)
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
    fn a_vip_counts_what_its_backends_do_and_did() {
        let labels = [
            (LabelKey::VIP, 0, "l4.plain 203.0.113.10:8080"),
            (LabelKey::BACKEND, 1, "l4.plain web1:80 10.0.0.11"),
        ];
        let names = Names::new(labels.map(|(kind, id, label)| {
            let key = LabelKey { kind, id };
            (key, label.to_owned())
        }));
        let connections = |connections| Traffic {
            connections,
            ..Traffic::default()
        };
        let counters = Counters {
            vips: vec![connections(5)],
            backends: vec![connections(100), connections(3)],
            ..Counters::default()
        };
        let snapshot = snapshot("lb1", &names, &counters);
        let service = &snapshot.services[0];
        assert_eq!(service.traffic.connections, 8);
        assert_eq!(service.backends[0].traffic.connections, 3);
    }
}
