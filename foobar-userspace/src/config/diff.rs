//! What changes between two configurations, one line each.

use std::collections::BTreeMap;

use super::{Alert, Config, L4Service, L7Service, Place, Policy, Rule, Set};

/// Lines like `+ rule edge/web`, `- backend l4.plain web3:80`, `~ limit per-client`; where something stands in its file
/// is no difference.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    named(&mut changes, "host", &old.hosts, &new.hosts);
    sets(&mut changes, &old.sets, &new.sets);
    named(&mut changes, "limit", &old.limits, &new.limits);
    named(
        &mut changes,
        "interface",
        &interfaces(old),
        &interfaces(new),
    );
    policies(&mut changes, &old.policies, &new.policies);
    services(&mut changes, &old.l4, &new.l4);
    sites(&mut changes, &old.l7, &new.l7);
    if old.proxy != new.proxy {
        changes.push("~ proxy".to_owned());
    }
    named(&mut changes, "cluster", &clusters(old), &clusters(new));
    named(&mut changes, "alert", &alerts(old), &alerts(new));
    named(&mut changes, "notify", &old.notify, &new.notify);
    if old.monitor != new.monitor {
        changes.push("~ monitor".to_owned());
    }
    if old.log != new.log {
        changes.push("~ log".to_owned());
    }
    if old.admin != new.admin {
        changes.push("~ admin".to_owned());
    }
    changes
}

fn named<T: PartialEq>(
    changes: &mut Vec<String>,
    what: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) {
    for (name, entry) in new {
        match old.get(name) {
            None => changes.push(format!("+ {what} {name}")),
            Some(before) if before != entry => changes.push(format!("~ {what} {name}")),
            Some(_) => {}
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        changes.push(format!("- {what} {name}"));
    }
}

fn sets(changes: &mut Vec<String>, old: &BTreeMap<String, Set>, new: &BTreeMap<String, Set>) {
    let mut lines = Vec::new();
    named(&mut lines, "set", old, new);
    for line in &mut lines {
        let name = line.strip_prefix("~ set ");
        if let Some((before, after)) = name.and_then(|name| Some((old.get(name)?, new.get(name)?)))
        {
            let before = elements(before);
            let after = elements(after);
            let added = after.difference(&before).count();
            let removed = before.difference(&after).count();
            if added + removed > 0 {
                line.push_str(&format!(" (+{added} -{removed} elements)"));
            }
        }
    }
    changes.append(&mut lines);
}

fn elements(set: &Set) -> std::collections::BTreeSet<ipnet::IpNet> {
    set.elements
        .iter()
        .chain(&set.file_elements)
        .copied()
        .collect()
}

/// By `mysql.app`, without their places.
fn clusters(config: &Config) -> BTreeMap<String, super::MysqlService> {
    config
        .mysql
        .values()
        .map(|service| {
            let cluster = super::MysqlService {
                place: NOWHERE,
                ..service.clone()
            };
            (format!("mysql.{}", service.name), cluster)
        })
        .collect()
}

/// By `node/interface`, without their places.
fn interfaces(config: &Config) -> BTreeMap<String, super::Interface> {
    config
        .nodes
        .values()
        .flat_map(|node| {
            node.interfaces.iter().map(|interface| {
                let mut interface = interface.clone();
                interface.place = NOWHERE;
                (format!("{}/{}", node.name, interface.name), interface)
            })
        })
        .collect()
}

fn policies(
    changes: &mut Vec<String>,
    old: &BTreeMap<String, Policy>,
    new: &BTreeMap<String, Policy>,
) {
    let defaults = |policies: &BTreeMap<String, Policy>| -> BTreeMap<_, _> {
        policies
            .iter()
            .map(|(name, policy)| (name.clone(), policy.default))
            .collect()
    };
    named(changes, "policy", &defaults(old), &defaults(new));
    named(changes, "rule", &rules(old), &rules(new));
    for (name, policy) in new {
        if let Some(before) = old.get(name)
            && order(before, policy) != order(policy, before)
        {
            changes.push(format!("~ order of rules in {name}"));
        }
    }
}

/// By `policy/rule`, without what only tells where and how it is written.
fn rules(policies: &BTreeMap<String, Policy>) -> BTreeMap<String, Rule> {
    policies
        .values()
        .flat_map(|policy| {
            policy.rules.iter().map(|rule| {
                let mut rule = rule.clone();
                rule.place = NOWHERE;
                rule.text = String::new();
                (format!("{}/{}", policy.name, rule.name), rule)
            })
        })
        .collect()
}

/// The rules of `policy` that `other` has too.
fn order<'a>(policy: &'a Policy, other: &Policy) -> Vec<&'a str> {
    policy
        .rules
        .iter()
        .map(|rule| rule.name.as_str())
        .filter(|name| other.rules.iter().any(|rule| rule.name == *name))
        .collect()
}

fn services(
    changes: &mut Vec<String>,
    old: &BTreeMap<String, L4Service>,
    new: &BTreeMap<String, L4Service>,
) {
    named(changes, "service", &frames(old), &frames(new));
    named(changes, "vip", &vips(old), &vips(new));
    named(changes, "backend", &backends(old), &backends(new));
}

fn sites(
    changes: &mut Vec<String>,
    old: &BTreeMap<String, L7Service>,
    new: &BTreeMap<String, L7Service>,
) {
    let frames = |sites: &BTreeMap<String, L7Service>| -> BTreeMap<_, _> {
        sites
            .values()
            .map(|site| {
                let mut frame = site.clone().placeless();
                frame.backends.clear();
                (format!("l7.{}", site.name), frame)
            })
            .collect()
    };
    let backends = |sites: &BTreeMap<String, L7Service>| -> BTreeMap<_, _> {
        sites
            .values()
            .flat_map(|site| {
                site.backends.iter().map(|backend| {
                    let name = format!("l7.{} {}:{}", site.name, backend.host, backend.port);
                    (name, backend.clone())
                })
            })
            .collect()
    };
    named(changes, "service", &frames(old), &frames(new));
    named(changes, "backend", &backends(old), &backends(new));
}

/// Services without vips and backends, which are told by themselves.
fn frames(services: &BTreeMap<String, L4Service>) -> BTreeMap<String, L4Service> {
    services
        .values()
        .map(|service| {
            let frame = L4Service {
                vips: Vec::new(),
                backends: Vec::new(),
                place: NOWHERE,
                ..service.clone()
            };
            (format!("l4.{}", service.name), frame)
        })
        .collect()
}

fn vips(services: &BTreeMap<String, L4Service>) -> BTreeMap<String, ()> {
    services
        .values()
        .flat_map(|service| {
            service
                .vips
                .iter()
                .map(|vip| (format!("l4.{} {vip}", service.name), ()))
        })
        .collect()
}

fn backends(services: &BTreeMap<String, L4Service>) -> BTreeMap<String, super::Backend> {
    services
        .values()
        .flat_map(|service| {
            service.backends.iter().map(|backend| {
                let name = format!("l4.{} {}:{}", service.name, backend.host, backend.port);
                (name, backend.clone())
            })
        })
        .collect()
}

fn alerts(config: &Config) -> BTreeMap<String, Alert> {
    config
        .alerts
        .iter()
        .map(|alert| {
            let alert = Alert {
                place: NOWHERE,
                ..alert.clone()
            };
            (alert.name.clone(), alert)
        })
        .collect()
}

const NOWHERE: Place = Place { line: 0, column: 0 };
