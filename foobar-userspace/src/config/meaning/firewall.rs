//! `[firewall]`

use std::collections::{BTreeMap, HashMap, HashSet};

use ipnet::IpNet;

use super::{hosts::Hosts, many, read as read_word, section, text};
use crate::config::{
    Action, Peer, Policy, PortRange, Rule, Traffic,
    diagnostics::{Problem, Problems},
    tree::{Entry, Name},
    words::WrittenPeer,
};

pub(super) fn read(
    root: Entry<'_>,
    hosts: &Hosts,
    problems: &mut Problems,
) -> BTreeMap<String, Policy> {
    let policies = section(root, "firewall");
    jails(root, &policies, problems);
    policies
        .into_iter()
        .map(|(name, entry)| {
            let policy = Policy {
                name: name.text.to_owned(),
                default: match entry.at("policy").and_then(Entry::text) {
                    Some("allow") => Action::Allow,
                    _ => Action::Drop,
                },
                rules: rules(name, entry, hosts, problems),
            };
            (policy.name.clone(), policy)
        })
        .collect()
}

/// A set that offenders are put into must let them go again.
fn jails(root: Entry<'_>, policies: &[(Name<'_>, Entry<'_>)], problems: &mut Problems) {
    let mut told = HashSet::new();
    for rule in policies
        .iter()
        .flat_map(|(_, policy)| many(*policy, "rules"))
    {
        let Some(jail) = rule.at("jail") else {
            continue;
        };
        let Some(name) = jail.text() else { continue };
        let Some(set) = root.at("sets").and_then(|sets| sets.at(name)) else {
            continue;
        };
        if set.at("timeout").is_none() && told.insert(name) {
            problems.report(
                Problem::new(
                    jail.span(),
                    format!("set `{name}` has no timeout and cannot be a jail"),
                )
                .related(set.span(), "the set")
                .help("who is jailed must come free again: add `timeout = \"10m\"` to the set"),
            );
        }
    }
}

fn rules(policy: Name<'_>, entry: Entry<'_>, hosts: &Hosts, problems: &mut Problems) -> Vec<Rule> {
    let mut names = HashMap::new();
    many(entry, "rules")
        .into_iter()
        .filter(|entry| entry.value().is_table())
        .filter_map(|entry| {
            if let Some(written) = entry.at("name")
                && let Some(name) = written.text()
                && let Some(first) = names.insert(name, written.span())
            {
                problems.report(
                    Problem::new(
                        written.span(),
                        format!("a second rule `{name}` in policy `{}`", policy.text),
                    )
                    .related(first, "the first")
                    .help("the name is the rule's counter; give each its own"),
                );
            }
            rule(entry, hosts, problems)
        })
        .collect()
}

fn rule(entry: Entry<'_>, hosts: &Hosts, problems: &mut Problems) -> Option<Rule> {
    let (action, traffic) = verb(entry, problems)?;
    let rule = Rule {
        name: text(entry, "name")?,
        action,
        traffic: kinds_of_traffic(traffic, problems),
        from: peers(entry, "from", hosts, problems),
        to: peers(entry, "to", hosts, problems),
        flags: read_word(entry, "flags"),
        source_ports: source_ports(entry),
        limit: text(entry, "limit"),
        jail: text(entry, "jail"),
        text: entry.written(),
        place: problems.place(entry.span().start),
    };
    if !problems.touch(&entry.extent()) {
        contradictions(&rule, entry, problems);
    }
    Some(rule)
}

fn verb<'a>(entry: Entry<'a>, problems: &mut Problems) -> Option<(Action, Entry<'a>)> {
    match (entry.at("allow"), entry.at("drop")) {
        (Some(allow), None) => Some((Action::Allow, allow)),
        (None, Some(drop)) => Some((Action::Drop, drop)),
        (Some(_), Some(drop)) => {
            problems.report(
                Problem::new(drop.span(), "a rule either allows or drops")
                    .help("make it two rules; the first that matches decides"),
            );
            None
        }
        (None, None) => {
            if !problems.touch(&entry.extent()) {
                problems.report(
                    Problem::new(entry.span(), "this rule neither allows nor drops")
                        .help("add `allow = [\"tcp/22\"]` or `drop = \"any\"`"),
                );
            }
            None
        }
    }
}

fn kinds_of_traffic(entry: Entry<'_>, problems: &mut Problems) -> Vec<Traffic> {
    let written = entry.one_or_many();
    if written.is_empty() {
        problems.report(
            Problem::new(entry.span(), "this rule meets no traffic")
                .help("write what it meets: `[\"tcp/22\"]`, or `\"any\"` for everything"),
        );
    }
    let mut kinds: Vec<Traffic> = Vec::new();
    for entry in &written {
        let Some(kind) = entry.read() else { continue };
        if kind == Traffic::Any && written.len() > 1 {
            problems.report(
                Problem::new(entry.span(), "`any` covers everything else here")
                    .help("write `\"any\"` alone, or take it out"),
            );
        }
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

fn peers(entry: Entry<'_>, key: &str, hosts: &Hosts, problems: &mut Problems) -> Vec<Peer> {
    let Some(written) = entry.at(key) else {
        return Vec::new();
    };
    if written.value().is_array() && written.elements().is_empty() {
        problems.report(
            Problem::new(written.span(), format!("`{key} = []` names nobody")).help(format!(
                "take `{key}` out to mean every address, or take the rule out"
            )),
        );
    }
    let mut peers = Vec::new();
    for peer in written.one_or_many().into_iter().filter_map(Entry::read) {
        let resolved = match peer {
            WrittenPeer::Prefix(net) => vec![Peer::Prefix(net)],
            WrittenPeer::Set(name) => vec![Peer::Set(name)],
            WrittenPeer::Host(name) => hosts
                .get(&name)
                .into_iter()
                .flat_map(|host| host.private.iter().chain(host.public.iter()))
                .map(|address| Peer::Prefix(IpNet::from(address)))
                .collect(),
        };
        for peer in resolved {
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
    }
    peers
}

fn source_ports(entry: Entry<'_>) -> Option<PortRange> {
    let ports = entry.at("sport")?;
    match ports.whole() {
        Some(port) => {
            let port = u16::try_from(port).ok()?;
            Some(PortRange {
                first: port,
                last: port,
            })
        }
        None => ports.read(),
    }
}

/// Each word is right, the rule is not.
fn contradictions(rule: &Rule, entry: Entry<'_>, problems: &mut Problems) {
    let span = |key: &str| entry.at(key).map_or(entry.span(), Entry::span);
    if rule.action == Action::Drop && rule.limit.is_some() {
        problems.report(
            Problem::new(span("limit"), "a rule that drops has nothing to limit")
                .help("write `allow` with `limit`: what exceeds the limit is dropped"),
        );
    } else if rule.jail.is_some() && rule.limit.is_none() {
        problems.report(
            Problem::new(span("jail"), "`jail` without `limit` jails nobody")
                .help("add `limit`: sources that exceed it go into the jail"),
        );
    }
    let only = |wanted: fn(&Traffic) -> bool| rule.traffic.iter().all(wanted);
    if rule.flags.is_some() && !only(|kind| matches!(kind, Traffic::Tcp(_))) {
        problems.report(
            Problem::new(
                span("flags"),
                "`flags` are of TCP, and this rule meets other traffic too",
            )
            .help("make two rules, one with `tcp` alone and the flags"),
        );
    }
    if rule.source_ports.is_some()
        && !only(|kind| matches!(kind, Traffic::Tcp(_) | Traffic::Udp(_)))
    {
        problems.report(
            Problem::new(
                span("sport"),
                "`sport` is of TCP and UDP, and this rule meets other traffic too",
            )
            .help("write `tcp` or `udp` as the traffic"),
        );
    }
    let families = Families::of_traffic(&rule.traffic)
        .both(Families::of_peers(&rule.from))
        .both(Families::of_peers(&rule.to));
    if families == Families::NONE {
        problems.report(
            Problem::new(entry.span(), "this rule never matches: IPv4 here, IPv6 there")
                .help("`icmp` and IPv4 addresses go together, `icmp6` and IPv6 addresses; `from` and `to` need a family in common"),
        );
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    const ANY: Self = Self { v4: true, v6: true };
    const NONE: Self = Self {
        v4: false,
        v6: false,
    };
    const V4: Self = Self {
        v4: true,
        v6: false,
    };
    const V6: Self = Self {
        v4: false,
        v6: true,
    };

    fn of_traffic(kinds: &[Traffic]) -> Self {
        kinds.iter().fold(Self::NONE, |families, kind| {
            families.either(match kind {
                Traffic::Icmp(..) => Self::V4,
                Traffic::Icmp6(..) => Self::V6,
                Traffic::Any | Traffic::Tcp(_) | Traffic::Udp(_) | Traffic::Protocol(_) => {
                    Self::ANY
                }
            })
        })
    }

    /// What a set holds may change while running.
    fn of_peers(peers: &[Peer]) -> Self {
        if peers.is_empty() {
            return Self::ANY;
        }
        peers.iter().fold(Self::NONE, |families, peer| {
            families.either(match peer {
                Peer::Prefix(IpNet::V4(_)) => Self::V4,
                Peer::Prefix(IpNet::V6(_)) => Self::V6,
                Peer::Set(_) => Self::ANY,
            })
        })
    }

    fn either(self, other: Self) -> Self {
        Self {
            v4: self.v4 || other.v4,
            v6: self.v6 || other.v6,
        }
    }

    fn both(self, other: Self) -> Self {
        Self {
            v4: self.v4 && other.v4,
            v6: self.v6 && other.v6,
        }
    }
}
