//! The words of a ruleset, laid out as [`foobar_ebpf::abi::ruleset`] says.

use std::collections::HashMap;

use foobar_ebpf::abi::ruleset;

use super::{
    RuleAction,
    forest::{Family, Forest},
    record::{Field, Record},
    tree::{Node, Tree},
};
use crate::config::{Action, LimitPer};

pub(super) struct Blob {
    words: Vec<u64>,
}

impl Blob {
    pub fn new(generation: u64) -> Self {
        let mut words = vec![0; ruleset::POLICIES as usize];
        words[0] = ruleset::MAGIC;
        words[1] = generation;
        Self { words }
    }

    pub fn words(self) -> Vec<u64> {
        self.words
    }

    pub fn used(&self) -> usize {
        self.words.len()
    }

    /// Some words are kept back for what comes with a policy beside its forests.
    pub fn left(&self) -> usize {
        (ruleset::WORDS as usize).saturating_sub(self.used() + RESERVE)
    }

    /// Makes a policy hold for a direction of an interface.
    pub fn direct(&mut self, interface: u32, direction: u32, policy: u32) {
        self.words[(ruleset::DIRECTORY + interface * 2 + direction) as usize] = policy.into();
    }

    /// The offset of a policy that has no rules yet.
    pub fn policy(&mut self, default: Action) -> u32 {
        let offset = self.offset();
        self.words.extend([action_word(default), 0, 0]);
        offset
    }

    pub fn action(&mut self, action: RuleAction) -> u32 {
        let (kind, interval, tolerance) = match action.limit {
            None => (ruleset::LIMIT_NONE, 0, 0),
            Some(limit) => {
                let kind = match limit.per {
                    LimitPer::Rule => ruleset::LIMIT_RULE,
                    LimitPer::Source => ruleset::LIMIT_SOURCE,
                };
                (kind, limit.interval, limit.tolerance)
            }
        };
        let offset = self.offset();
        self.words.extend([
            action_word(action.action)
                | kind << 8
                | set_word(action.jail) << 16
                | u64::from(action.slot) << 32,
            interval,
            tolerance,
        ]);
        offset
    }

    /// Gives the policy at `policy` its forest of a family.
    pub fn forest(
        &mut self,
        policy: u32,
        family: Family,
        forest: &Forest,
        records: &[Record],
        actions: &[u32],
    ) {
        let offset = self.offset();
        self.words[policy as usize + family.forest_word()] = offset.into();
        self.words.push(forest.trees().len() as u64);
        let roots = self.words.len();
        self.words.resize(roots + forest.trees().len(), 0);
        for (index, tree) in forest.trees().iter().enumerate() {
            let root = self.offset();
            self.words.push(0);
            self.words[root as usize] =
                self.node(tree, tree.root, &mut HashMap::new(), &|record| {
                    words_of(&records[record as usize], family, actions)
                });
            let smallest = match records.get(tree.smallest() as usize) {
                Some(record) => record.order,
                None => u32::MAX,
            };
            self.words[roots + index] = u64::from(root) | u64::from(smallest) << 32;
        }
    }

    /// The word of a node whose children or records are laid out already.
    fn node(
        &mut self,
        tree: &Tree,
        node: usize,
        known: &mut HashMap<usize, u64>,
        record: &dyn Fn(u32) -> Vec<u64>,
    ) -> u64 {
        if let Some(word) = known.get(&node) {
            return *word;
        }
        let word = match &tree.nodes[node] {
            Node::Leaf(records) => {
                let base = self.offset();
                for index in records {
                    self.words.extend(record(*index));
                }
                1 | (records.len() as u64) << 8 | u64::from(base) << 32
            }
            Node::Cut {
                dim,
                shift,
                bits,
                children,
            } => {
                let base = self.words.len();
                self.words.resize(base + children.len(), 0);
                for (value, child) in children.iter().enumerate() {
                    self.words[base + value] = self.node(tree, *child, known, record);
                }
                (*dim as u64) << 8
                    | u64::from(*shift) << 16
                    | u64::from(*bits) << 24
                    | (base as u64) << 32
            }
        };
        known.insert(node, word);
        word
    }

    /// Of the next word; [`ruleset::WORDS`] is far below 2^32.
    fn offset(&self) -> u32 {
        self.words.len() as u32
    }
}

fn words_of(record: &Record, family: Family, actions: &[u32]) -> Vec<u64> {
    let mut words = addresses(record, family);
    let ports = |dim: usize| {
        let Field { low, high } = record.fields[dim];
        u64::from(low) | u64::from(high - low) << 16
    };
    words.push(ports(family.source_port()) | ports(family.destination_port()) << 32);
    let protocol = record.fields[family.protocol()];
    let protocol_mask = if protocol.low == protocol.high {
        0xff
    } else {
        0
    };
    let (flags_mask, flags_value) = record
        .flags
        .map_or((0, 0), |flags| (flags.mask, flags.value));
    words.push(
        u64::from(protocol.low)
            | protocol_mask << 8
            | u64::from(flags_mask) << 16
            | u64::from(flags_value) << 24
            | set_word(record.source_set) << 32
            | set_word(record.destination_set) << 40
            | if record.needs_ports {
                ruleset::NEEDS_PORTS
            } else {
                0
            },
    );
    words.push(u64::from(record.order) | u64::from(actions[record.rule]) << 32);
    words
}

fn addresses(record: &Record, family: Family) -> Vec<u64> {
    let value = |dim: usize| u64::from(record.fields[dim].low);
    let mask = |dim: usize| u64::from(!(record.fields[dim].low ^ record.fields[dim].high));
    match family {
        Family::V4 => [0, 1].map(|dim| value(dim) | mask(dim) << 32).to_vec(),
        Family::V6 => [0, 4]
            .into_iter()
            .flat_map(|first| {
                [
                    value(first) << 32 | value(first + 1),
                    value(first + 2) << 32 | value(first + 3),
                    mask(first) << 32 | mask(first + 1),
                    mask(first + 2) << 32 | mask(first + 3),
                ]
            })
            .collect(),
    }
}

fn action_word(action: Action) -> u64 {
    match action {
        Action::Allow => ruleset::ALLOW,
        Action::Drop => ruleset::DROP,
    }
}

fn set_word(set: Option<u32>) -> u64 {
    set.map_or(0, |set| u64::from(set) + 1)
}

const RESERVE: usize = 64;
