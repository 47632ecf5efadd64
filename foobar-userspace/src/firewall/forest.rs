//! The trees of a policy's records of one family: which record goes to which tree, and how many steps a packet may need.

use foobar_ebpf::abi::ruleset;

use super::{
    record::{Record, prefix_length},
    tree::{self, Effort, Node, Tree},
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
}

#[derive(Clone, Debug)]
pub(super) struct Forest {
    trees: Vec<Tree>,
}

impl Forest {
    /// The fastest forest found among those that fit into `left` words.
    ///
    /// # Errors
    ///
    /// The words that the smallest would have needed at least.
    pub fn grow(records: &[Record], family: Family, left: usize) -> Result<Self, usize> {
        let members = without_covered(records);
        if members.is_empty() {
            return Ok(Self { trees: Vec::new() });
        }
        let inlined = members.len() * family.record_words();
        let comfortable = left.min(COMFORT * inlined + COMFORT_BASE);
        let partitions: &[Partition] = if members.len() > FEW {
            &[by_specifics_and_ports, by_specifics]
        } else {
            &[together, wild_apart, by_specifics, by_specifics_and_ports]
        };
        let mut best: Option<Self> = None;
        for (effort, limit) in
            EFFORTS
                .into_iter()
                .zip([comfortable, comfortable, left, left, left, left])
        {
            for partition in partitions {
                let groups = partition(records, &members, family);
                if let Some(forest) = Self::plant(records, groups, family, effort, limit)
                    && best.as_ref().is_none_or(|best| forest.cost() < best.cost())
                {
                    best = Some(forest);
                }
            }
            if best
                .as_ref()
                .is_some_and(|best| best.worst_steps() <= ruleset::BUDGET)
            {
                break;
            }
        }
        best.ok_or(inlined.max(left + 1))
    }

    fn plant(
        records: &[Record],
        groups: Vec<Vec<u32>>,
        family: Family,
        effort: Effort,
        limit: usize,
    ) -> Option<Self> {
        let mut left = limit.checked_sub(1 + groups.len())?;
        let mut trees = Vec::with_capacity(groups.len());
        for group in groups {
            let tree = tree::grow(records, group, family, effort, left)?;
            left -= tree.words;
            trees.push(tree);
        }
        trees.sort_by_key(Tree::smallest);
        Some(Self { trees })
    }

    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// The most that a packet can take, each tree's root included: one for every node, record and tree, and one to see
    /// that no tree is left.
    pub fn worst_steps(&self) -> u32 {
        self.trees.iter().fold(1, |steps, tree| {
            u32::saturating_add(steps, tree.worst_steps.saturating_add(1))
        })
    }

    /// All records that a packet can meet.
    pub fn records(&self) -> impl Iterator<Item = u32> {
        self.trees
            .iter()
            .flat_map(|tree| &tree.nodes)
            .flat_map(|node| match node {
                Node::Leaf(records) => records.as_slice(),
                Node::Cut { .. } => &[],
            })
            .copied()
    }

    /// The records on the longest way.
    pub fn worst_records(&self) -> impl Iterator<Item = u32> {
        self.trees.iter().flat_map(|tree| &tree.worst_leaf).copied()
    }

    /// Steps of a typical packet, the worst one's counted a little.
    fn cost(&self) -> f64 {
        let typical: f64 = self.trees.iter().map(|tree| tree.average_steps + 1.0).sum();
        let worst = f64::from(self.worst_steps());
        let hopeless = if worst > f64::from(ruleset::BUDGET) {
            worst
        } else {
            0.0
        };
        typical + 0.2 * worst + 100.0 * hopeless
    }
}

impl Tree {
    /// Index of the first record in it.
    pub fn smallest(&self) -> u32 {
        self.nodes
            .iter()
            .filter_map(|node| match node {
                Node::Leaf(records) => records.first().copied(),
                Node::Cut { .. } => None,
            })
            .min()
            .unwrap_or(u32::MAX)
    }
}

/// Groups of records, each for one tree; none of them empty.
type Partition = fn(&[Record], &[u32], Family) -> Vec<Vec<u32>>;

fn together(_: &[Record], members: &[u32], _: Family) -> Vec<Vec<u32>> {
    vec![members.to_vec()]
}

/// Records that say little apart from the rest, which they would be copied all over.
fn wild_apart(records: &[Record], members: &[u32], family: Family) -> Vec<Vec<u32>> {
    grouped(members, |member| {
        let record = &records[member as usize];
        usize::from(
            Specifics::of(record, family) == Specifics::NONE && !has_narrow_ports(record, family),
        )
    })
}

fn by_specifics(records: &[Record], members: &[u32], family: Family) -> Vec<Vec<u32>> {
    grouped(members, |member| {
        Specifics::of(&records[member as usize], family).number()
    })
}

fn by_specifics_and_ports(records: &[Record], members: &[u32], family: Family) -> Vec<Vec<u32>> {
    grouped(members, |member| {
        let record = &records[member as usize];
        match Specifics::of(record, family) {
            Specifics::NONE if has_narrow_ports(record, family) => 4,
            specifics => specifics.number(),
        }
    })
}

fn grouped(members: &[u32], group: impl Fn(u32) -> usize) -> Vec<Vec<u32>> {
    let mut groups = vec![Vec::new(); ruleset::MAX_TREES as usize];
    for member in members {
        groups[group(*member)].push(*member);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Whether a record is particular about source and destination.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Specifics {
    source: bool,
    destination: bool,
}

impl Specifics {
    const NONE: Self = Self {
        source: false,
        destination: false,
    };

    fn of(record: &Record, family: Family) -> Self {
        let words = family.address_words();
        let is_specific =
            |first: usize| prefix_length(&record.fields[first..first + words]) >= family.specific();
        Self {
            source: is_specific(0),
            destination: is_specific(words),
        }
    }

    fn number(self) -> usize {
        usize::from(self.source) | usize::from(self.destination) << 1
    }
}

fn has_narrow_ports(record: &Record, family: Family) -> bool {
    [family.source_port(), family.destination_port()]
        .map(|dim| record.fields[dim])
        .iter()
        .any(|ports| ports.high - ports.low < 1024)
}

/// Indices of the records that no earlier one covers; of many, all.
fn without_covered(records: &[Record]) -> Vec<u32> {
    let everything = [super::record::Field::ALL; Family::MOST_DIMS];
    let mut kept: Vec<u32> = Vec::with_capacity(records.len());
    for (index, record) in (0..).zip(records) {
        let is_covered = records.len() <= MANY
            && kept
                .iter()
                .any(|earlier| records[*earlier as usize].covers(record, &everything));
        if !is_covered {
            kept.push(index);
        }
    }
    kept
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
    pub const MOST_DIMS: usize = 11;

    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub fn address_words(self) -> usize {
        match self {
            Self::V4 => 1,
            Self::V6 => 4,
        }
    }

    pub fn source_port(self) -> usize {
        2 * self.address_words()
    }

    pub fn destination_port(self) -> usize {
        self.source_port() + 1
    }

    pub fn protocol(self) -> usize {
        self.source_port() + 2
    }

    pub fn dims(self) -> usize {
        self.source_port() + 3
    }

    /// Bits of a dim.
    pub fn width(self, dim: usize) -> u32 {
        match dim.checked_sub(self.source_port()) {
            None => 32,
            Some(0 | 1) => 16,
            Some(_) => 8,
        }
    }

    pub fn record_words(self) -> usize {
        match self {
            Self::V4 => ruleset::RECORD_V4 as usize,
            Self::V6 => ruleset::RECORD_V6 as usize,
        }
    }

    /// Word of a policy that says where this family's forest is.
    pub fn forest_word(self) -> usize {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    /// A prefix as long as this says something about an address.
    fn specific(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 33,
        }
    }
}

const EFFORTS: [Effort; 6] = [
    Effort {
        leaf: 3,
        copies: 2.0,
        room: 0.15,
    },
    Effort {
        leaf: 6,
        copies: 1.8,
        room: 0.4,
    },
    Effort {
        leaf: 6,
        copies: 2.0,
        room: 1.0,
    },
    Effort {
        leaf: 12,
        copies: 2.0,
        room: 1.0,
    },
    Effort {
        leaf: 16,
        copies: 1.3,
        room: 1.0,
    },
    Effort {
        leaf: 24,
        copies: 1.1,
        room: 2.0,
    },
];
/// More records than these are not tried in every partition.
const FEW: usize = 256;
/// More records than these are not all compared with each other.
const MANY: usize = 2048;
/// A forest may be that many times as large as its records alone, and so many words more.
const COMFORT: usize = 4;
const COMFORT_BASE: usize = 2048;
