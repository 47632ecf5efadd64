//! From a node's policies to the ruleset that the packet path walks.

mod blob;
mod forest;
pub mod model;
mod record;
mod tree;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use foobar_ebpf::abi::ruleset;

use self::{
    blob::Blob,
    forest::{Family, Forest},
    record::Record,
};
use crate::{
    config::{self, Config, Limit, LimitPer, Node, Policy, Rule},
    labels::{self, Full, Kind, Labels},
};

/// All policies of a node, laid out as [`foobar_ebpf::abi::ruleset`] says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ruleset {
    /// What the `RULESET` map shall hold from its beginning; shorter than [`ruleset::WORDS`].
    pub words: Vec<u64>,
    pub generation: u64,
    /// The ids of the node's interfaces, in the order of the configuration.
    pub interfaces: Vec<u32>,
    /// By name of the policy.
    pub report: BTreeMap<String, PolicyReport>,
}

/// What became of a policy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicyReport {
    pub rules: usize,
    /// Names of rules that no packet can reach, because earlier ones take all of theirs.
    pub unreachable: Vec<String>,
    pub v4: ForestReport,
    pub v6: ForestReport,
}

/// What became of a policy's rules for one family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ForestReport {
    /// Combinations of traffic, source and destination.
    pub records: usize,
    pub trees: usize,
    pub words: usize,
    /// No packet takes more.
    pub worst_steps: u32,
}

/// Why a configuration cannot become a ruleset.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CompileError {
    #[error("there is no node `{node}`; the configuration has {}", known(.nodes))]
    UnknownNode { node: String, nodes: Vec<String> },
    #[error(transparent)]
    Full(#[from] Full),
    #[error(
        "interface `{interface}` names the policy `{policy}`, which does not exist; write it under [firewall]"
    )]
    UnknownPolicy { interface: String, policy: String },
    #[error(
        "rule `{policy}/{rule}` names the {kind} `{name}`, which does not exist; write it under [{kind}s]"
    )]
    UnknownName {
        policy: String,
        rule: String,
        kind: &'static str,
        name: String,
    },
    /// Too many rules overlap in too many dimensions.
    #[error(
        "in policy `{policy}` one {family} packet may have to be compared with so many rules that it takes {steps} steps, and {} are allowed; \
         {} overlap too much: put their addresses into a set, give them narrower addresses or ports, or merge rules",
        ruleset::BUDGET, known(.rules)
    )]
    TooDeep {
        policy: String,
        family: &'static str,
        steps: u32,
        rules: Vec<String>,
    },
    #[error(
        "policy `{policy}` needs {words} words and {left} are left of the {} of a ruleset; its rules `traffic × from × to` make {records} combinations: \
         use sets instead of lists of addresses, or split the policy over nodes",
        ruleset::WORDS
    )]
    TooLarge {
        policy: String,
        words: usize,
        left: usize,
        records: usize,
    },
}

fn known(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let quoted: Vec<_> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect();
    match names.len().saturating_sub(SHOWN) {
        0 if names.is_empty() => "none".to_owned(),
        0 => quoted.join(", "),
        more => format!("{} and {more} more", quoted.join(", ")),
    }
}

/// Compiles the policies that `node`'s interfaces name.
///
/// The same configuration, ids and generation give the same words. Ids of rules, interfaces and sets are assigned in
/// `labels`, which is to be thrown away when this fails.
///
/// # Errors
///
/// The node, a policy, a set or a limit is not there; names outnumber ids; the rules need more room or more steps
/// than the packet path gives.
pub fn compile(
    config: &Config,
    node: &str,
    labels: &mut Labels,
    generation: u64,
) -> Result<Ruleset, CompileError> {
    let node = config
        .nodes
        .get(node)
        .ok_or_else(|| CompileError::UnknownNode {
            node: node.to_owned(),
            nodes: config.nodes.keys().cloned().collect(),
        })?;
    let policies = policies(config, node)?;
    let names: Vec<_> = config.sets.keys().collect();
    labels.assign(Kind::Set, &names)?;
    let names: Vec<_> = policies
        .values()
        .flat_map(|policy| {
            policy
                .rules
                .iter()
                .map(|rule| labels::rule(&policy.name, &rule.name))
        })
        .collect();
    let slots = labels.assign(Kind::Rule, &names)?;
    let names: Vec<_> = node
        .interfaces
        .iter()
        .map(|interface| labels::interface(&interface.name, &interface.device))
        .collect();
    let interfaces = labels.assign(Kind::Interface, &names)?;

    let mut blob = Blob::new(generation);
    let mut report = BTreeMap::new();
    let mut offsets = BTreeMap::new();
    let mut slots = slots.as_slice();
    let mut demand: usize = policies
        .values()
        .flat_map(|policy| Family::ALL.map(|family| demand_of(policy, family)))
        .sum();
    for policy in policies.values() {
        let (own, rest) = slots.split_at(policy.rules.len());
        slots = rest;
        let (offset, told) = compile_policy(config, policy, labels, own, &mut demand, &mut blob)?;
        offsets.insert(policy.name.as_str(), offset);
        report.insert(policy.name.clone(), told);
    }
    for (interface, id) in node.interfaces.iter().zip(&interfaces) {
        let directions = [&interface.ingress, &interface.egress];
        for (direction, policy) in (0..).zip(directions) {
            if let Some(offset) = policy.as_deref().and_then(|policy| offsets.get(policy)) {
                blob.direct(*id, direction, *offset);
            }
        }
    }
    Ok(Ruleset {
        words: blob.words(),
        generation,
        interfaces,
        report,
    })
}

/// The policies in use, by name.
fn policies<'a>(
    config: &'a Config,
    node: &Node,
) -> Result<BTreeMap<&'a str, &'a Policy>, CompileError> {
    node.interfaces
        .iter()
        .flat_map(|interface| {
            [&interface.ingress, &interface.egress]
                .into_iter()
                .flatten()
                .map(move |policy| (interface, policy))
        })
        .map(|(interface, name)| {
            let policy = config
                .policies
                .get(name)
                .ok_or_else(|| CompileError::UnknownPolicy {
                    interface: interface.name.clone(),
                    policy: name.clone(),
                })?;
            Ok((policy.name.as_str(), policy))
        })
        .collect()
}

fn compile_policy(
    config: &Config,
    policy: &Policy,
    labels: &Labels,
    slots: &[u32],
    demand: &mut usize,
    blob: &mut Blob,
) -> Result<(u32, PolicyReport), CompileError> {
    let names = Names {
        config,
        policy,
        labels,
    };
    let offset = blob.policy(policy.default);
    let actions = policy
        .rules
        .iter()
        .zip(slots)
        .map(|(rule, slot)| Ok(blob.action(names.action(rule, *slot)?)))
        .collect::<Result<Vec<_>, CompileError>>()?;
    let mut report = PolicyReport {
        rules: policy.rules.len(),
        ..PolicyReport::default()
    };
    let mut reached = vec![false; policy.rules.len()];
    for family in Family::ALL {
        let combinations = record::combinations(policy, family);
        if combinations > blob.left() {
            return Err(names.too_large(combinations * family.record_words(), combinations, blob));
        }
        let records = record::expand(policy, family, &|rule, set| names.set(rule, set))?;
        *demand -= demand_of(policy, family);
        let room = blob.left().saturating_sub(*demand * FAIR);
        let forest = Forest::grow(&records, family, room)
            .map_err(|words| names.too_large(words, records.len(), blob))?;
        if forest.worst_steps() > ruleset::BUDGET {
            return Err(names.too_deep(&forest, &records, family));
        }
        for record in forest.records() {
            reached[records[record as usize].rule] = true;
        }
        let before = blob.used();
        blob.forest(offset, family, &forest, &records, &actions);
        let told = ForestReport {
            records: records.len(),
            trees: forest.trees().len(),
            words: blob.used() - before,
            worst_steps: forest.worst_steps(),
        };
        match family {
            Family::V4 => report.v4 = told,
            Family::V6 => report.v6 = told,
        }
    }
    report.unreachable = policy
        .rules
        .iter()
        .zip(reached)
        .filter(|(_, reached)| !reached)
        .map(|(rule, _)| rule.name.clone())
        .collect();
    Ok((offset, report))
}

/// Words of the policy's records, were each there once.
fn demand_of(policy: &Policy, family: Family) -> usize {
    record::combinations(policy, family) * family.record_words()
}

/// Room that is kept for each record that is yet to come, in records: a tree holds copies.
const FAIR: usize = 2;

/// What a policy's names stand for, and how its troubles are told.
struct Names<'a> {
    config: &'a Config,
    policy: &'a Policy,
    labels: &'a Labels,
}

/// What a rule does to a packet that it meets.
#[derive(Clone, Copy, Debug)]
struct RuleAction {
    action: config::Action,
    limit: Option<Bucket>,
    jail: Option<u32>,
    slot: u32,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    per: LimitPer,
    /// Nanoseconds a packet.
    interval: u64,
    /// Nanoseconds that a burst may run ahead.
    tolerance: u64,
}

impl Names<'_> {
    fn action(&self, rule: &Rule, slot: u32) -> Result<RuleAction, CompileError> {
        let limit = match &rule.limit {
            Some(name) => Some(
                self.config
                    .limits
                    .get(name)
                    .map(Bucket::from)
                    .ok_or_else(|| self.unknown(rule, "limit", name))?,
            ),
            None => None,
        };
        let jail = match &rule.jail {
            Some(name) => Some(self.set(rule, name)?),
            None => None,
        };
        Ok(RuleAction {
            action: rule.action,
            limit,
            jail,
            slot,
        })
    }

    fn set(&self, rule: &Rule, name: &str) -> Result<u32, CompileError> {
        let known = self.config.sets.contains_key(name);
        self.labels
            .find(Kind::Set, name)
            .filter(|_| known)
            .ok_or_else(|| self.unknown(rule, "set", name))
    }

    fn unknown(&self, rule: &Rule, kind: &'static str, name: &str) -> CompileError {
        CompileError::UnknownName {
            policy: self.policy.name.clone(),
            rule: rule.name.clone(),
            kind,
            name: name.to_owned(),
        }
    }

    fn too_large(&self, words: usize, records: usize, blob: &Blob) -> CompileError {
        CompileError::TooLarge {
            policy: self.policy.name.clone(),
            words,
            left: blob.left(),
            records,
        }
    }

    fn too_deep(&self, forest: &Forest, records: &[Record], family: Family) -> CompileError {
        let rules: std::collections::BTreeSet<_> = forest
            .worst_records()
            .map(|record| records[record as usize].rule)
            .collect();
        CompileError::TooDeep {
            policy: self.policy.name.clone(),
            family: family.name(),
            steps: forest.worst_steps(),
            rules: rules
                .into_iter()
                .map(|rule| self.policy.rules[rule].name.clone())
                .collect(),
        }
    }
}

impl From<&Limit> for Bucket {
    fn from(limit: &Limit) -> Self {
        let interval = limit.period.as_nanos() / u128::from(limit.packets.max(1));
        let interval = u64::try_from(interval).unwrap_or(u64::MAX).max(1);
        Self {
            per: limit.per,
            interval,
            tolerance: interval.saturating_mul(limit.burst.max(1)),
        }
    }
}
