//! One decision tree: cuts by bits of a field until few records are left to compare.

use std::collections::HashMap;

use foobar_ebpf::abi::ruleset;

use super::{
    forest::Family,
    record::{Field, Record},
};

/// How hard a tree tries to be fast, at the price of room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// So few records are not cut any more.
    pub leaf: usize,
    /// A cut may make that many records out of one, at most.
    pub copies: f64,
    /// What room costs, in halvings of the lists.
    pub room: f64,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Cut {
        dim: usize,
        shift: u32,
        bits: u32,
        /// By value of the bits; indices of nodes.
        children: Vec<usize>,
    },
    /// Indices of records, ascending.
    Leaf(Vec<u32>),
}

#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub nodes: Vec<Node>,
    pub root: usize,
    /// Nodes and records on the longest way through it.
    pub worst_steps: u32,
    /// The records that are compared last on that way.
    pub worst_leaf: Vec<u32>,
    /// Steps on the way to a record, on average over all records of all leaves.
    pub average_steps: f64,
    pub words: usize,
}

/// The packets that reach a node: bits that are known of each field.
#[derive(Clone, Debug)]
struct Region {
    mask: [u32; Family::MOST_DIMS],
    value: [u32; Family::MOST_DIMS],
    width: [u32; Family::MOST_DIMS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    dim: usize,
    shift: u32,
    bits: u32,
}

struct Grower<'a> {
    records: &'a [Record],
    family: Family,
    effort: Effort,
    nodes: Vec<Node>,
    leaves: HashMap<Vec<u32>, usize>,
    words: usize,
    limit: usize,
}

/// The tree of `members` (indices of `records`, ascending); `None` if it needs more than `limit` words.
pub(super) fn grow(
    records: &[Record],
    members: Vec<u32>,
    family: Family,
    effort: Effort,
    limit: usize,
) -> Option<Tree> {
    let mut grower = Grower {
        records,
        family,
        effort,
        nodes: Vec::new(),
        leaves: HashMap::new(),
        words: 1,
        limit,
    };
    let region = Region::whole(family);
    let root = grower.node(members, &region, 0, &[])?;
    let mut measure = Measure::default();
    let (worst_steps, worst_leaf) = measure.longest(&grower.nodes, root, &mut HashMap::new());
    measure.spread(&grower.nodes, root, 1);
    let worst_leaf = match &grower.nodes[worst_leaf] {
        Node::Leaf(records) => records.clone(),
        Node::Cut { .. } => Vec::new(),
    };
    Some(Tree {
        root,
        worst_steps,
        worst_leaf,
        average_steps: measure.steps / measure.records.max(1.0),
        words: grower.words,
        nodes: grower.nodes,
    })
}

impl Grower<'_> {
    fn node(
        &mut self,
        mut members: Vec<u32>,
        region: &Region,
        depth: u32,
        tried: &[Cut],
    ) -> Option<usize> {
        let bounds = region.bounds();
        self.drop_after_first_that_covers_all(&mut members, &bounds);
        if members.len() <= LITTLE {
            self.drop_covered(&mut members, &bounds);
        }
        if members.len() <= self.effort.leaf || depth == DEEPEST {
            return self.leaf(members, &bounds);
        }
        let Some(cut) = self.best_cut(&members, region, &bounds, tried) else {
            return self.leaf(members, &bounds);
        };
        self.words += 1 << cut.bits;
        if self.words > self.limit {
            return None;
        }
        let mut lists = vec![Vec::new(); 1 << cut.bits];
        for member in &members {
            let field = self.records[*member as usize].fields[cut.dim].within(bounds[cut.dim]);
            for value in cut.values(field) {
                lists[value].push(*member);
            }
        }
        let mut groups: Vec<(Vec<u32>, Region)> = Vec::new();
        let mut known: HashMap<Vec<u32>, usize> = HashMap::new();
        let mut group_of = Vec::with_capacity(lists.len());
        for (value, list) in lists.into_iter().enumerate() {
            let child = region.cut(cut, value as u32);
            let group = if let Some(group) = known.get(&list) {
                groups[*group].1.widen(&child);
                *group
            } else {
                known.insert(list.clone(), groups.len());
                groups.push((list, child));
                groups.len() - 1
            };
            group_of.push(group);
        }
        let mut made = Vec::with_capacity(groups.len());
        for (list, region) in groups {
            let tried = if list.len() == members.len() {
                [tried, &[cut]].concat()
            } else {
                Vec::new()
            };
            made.push(self.node(list, &region, depth + 1, &tried)?);
        }
        let children = group_of.into_iter().map(|group| made[group]).collect();
        self.nodes.push(Node::Cut {
            dim: cut.dim,
            shift: cut.shift,
            bits: cut.bits,
            children,
        });
        Some(self.nodes.len() - 1)
    }

    fn leaf(&mut self, mut members: Vec<u32>, bounds: &Bounds) -> Option<usize> {
        self.drop_covered(&mut members, bounds);
        if let Some(leaf) = self.leaves.get(&members) {
            return Some(*leaf);
        }
        self.words += members.len() * self.family.record_words();
        if self.words > self.limit {
            return None;
        }
        self.nodes.push(Node::Leaf(members.clone()));
        self.leaves.insert(members, self.nodes.len() - 1);
        Some(self.nodes.len() - 1)
    }

    /// No packet of the region gets past a record that matches them all.
    fn drop_after_first_that_covers_all(&self, members: &mut Vec<u32>, bounds: &Bounds) {
        let first = members
            .iter()
            .position(|member| self.records[*member as usize].covers_all(bounds));
        if let Some(first) = first {
            members.truncate(first + 1);
        }
    }

    fn drop_covered(&self, members: &mut Vec<u32>, bounds: &Bounds) {
        let mut kept: Vec<u32> = Vec::with_capacity(members.len());
        for member in members.iter() {
            let record = &self.records[*member as usize];
            let is_covered = kept
                .iter()
                .any(|earlier| self.records[*earlier as usize].covers(record, bounds));
            if !is_covered {
                kept.push(*member);
            }
        }
        *members = kept;
    }

    /// The cut that leaves the shortest lists for the least room; `None` if none is worth its step.
    fn best_cut(
        &self,
        members: &[u32],
        region: &Region,
        bounds: &Bounds,
        tried: &[Cut],
    ) -> Option<Cut> {
        let mut best: Option<(f64, Cut)> = None;
        let mut counts = vec![0; (1 << ruleset::MAX_BITS) + 1];
        for (dim, bound) in bounds.iter().enumerate().take(self.family.dims()) {
            let fields: Vec<_> = members
                .iter()
                .map(|member| self.records[*member as usize].fields[dim].within(*bound))
                .collect();
            if fields.iter().all(|field| field == bound) {
                continue;
            }
            for cut in promising(dim, &fields, region) {
                if tried.contains(&cut) {
                    continue;
                }
                if let Some(score) = self.score(cut, &fields, &mut counts)
                    && best.is_none_or(|(least, _)| score < least)
                {
                    best = Some((score, cut));
                }
            }
        }
        best.map(|(_, cut)| cut)
    }

    fn score(&self, cut: Cut, fields: &[Field], counts: &mut [i32]) -> Option<f64> {
        let values = 1 << cut.bits;
        let counts = &mut counts[..=values];
        counts.fill(0);
        for field in fields {
            for (first, last) in cut.spans(*field).into_iter().flatten() {
                counts[first] += 1;
                counts[last + 1] -= 1;
            }
        }
        let (mut sum, mut squares, mut most, mut size) = (0_u64, 0_u64, 0_u64, 0);
        for change in &counts[..values] {
            size += change;
            let size = u64::try_from(size).unwrap_or(0);
            sum += size;
            squares += size * size;
            most = most.max(size);
        }
        let all = fields.len() as f64;
        let copies = sum as f64 / all;
        let typical = squares as f64 / (sum.max(1)) as f64;
        let shrinks = (most as usize) < fields.len() || typical < all * 0.75;
        if !shrinks || typical + 1.0 > all || copies > self.effort.copies + SLACK / all {
            return None;
        }
        let room = copies + values as f64 / (all * self.family.record_words() as f64);
        Some(
            0.5 * typical.max(1.0).log2()
                + 0.5 * (most.max(1) as f64).log2()
                + self.effort.room * room,
        )
    }
}

/// Windows of bits of a field that tell its records apart: for each width the best.
fn promising(dim: usize, fields: &[Field], region: &Region) -> Vec<Cut> {
    let width = region.width[dim];
    let usefulness: Vec<usize> = (0..width)
        .map(|bit| {
            if region.mask[dim] >> bit & 1 != 0 {
                return 0;
            }
            let (mut zeros, mut ones) = (0, 0);
            for field in fields {
                if field.low >> bit == field.high >> bit {
                    if field.low >> bit & 1 == 0 {
                        zeros += 1;
                    } else {
                        ones += 1;
                    }
                }
            }
            usize::min(zeros, ones)
        })
        .collect();
    let mut cuts = Vec::new();
    for bits in WIDTHS {
        if bits > width || 1_usize << bits > 4 * fields.len() {
            break;
        }
        let mut windows: Vec<_> = (0..=width - bits)
            .map(|shift| {
                let window = &usefulness[shift as usize..(shift + bits) as usize];
                (window.iter().sum::<usize>(), shift)
            })
            .filter(|(useful, _)| *useful > 0)
            .collect();
        windows.sort_unstable_by(|a, b| b.cmp(a));
        windows.truncate(1);
        cuts.extend(
            windows
                .into_iter()
                .map(|(_, shift)| Cut { dim, shift, bits }),
        );
        // Ranges that begin and end anywhere are told apart by the highest bits, of which none need be decided.
        if width == PORT
            && let Some(top) = (0..width)
                .rev()
                .find(|bit| region.mask[dim] >> bit & 1 == 0)
            && top + 1 >= bits
        {
            let cut = Cut {
                dim,
                shift: top + 1 - bits,
                bits,
            };
            if !cuts.contains(&cut) {
                cuts.push(cut);
            }
        }
    }
    cuts
}

impl Cut {
    /// The values that the bits of `field` can take, as up to two inclusive spans; none for an empty field.
    fn spans(self, field: Field) -> [Option<(usize, usize)>; 2] {
        if field.is_empty() {
            return [None, None];
        }
        let mask = (1_u32 << self.bits) - 1;
        let (low, high) = (field.low >> self.shift, field.high >> self.shift);
        if high - low >= mask {
            return [Some((0, mask as usize)), None];
        }
        let (first, last) = ((low & mask) as usize, (high & mask) as usize);
        if first <= last {
            [Some((first, last)), None]
        } else {
            [Some((0, last)), Some((first, mask as usize))]
        }
    }

    fn values(self, field: Field) -> impl Iterator<Item = usize> {
        self.spans(field)
            .into_iter()
            .flatten()
            .flat_map(|(first, last)| first..=last)
    }
}

type Bounds = [Field; Family::MOST_DIMS];

impl Region {
    fn whole(family: Family) -> Self {
        let mut width = [0; Family::MOST_DIMS];
        for (dim, width) in width.iter_mut().enumerate().take(family.dims()) {
            *width = family.width(dim);
        }
        Self {
            mask: [0; Family::MOST_DIMS],
            value: [0; Family::MOST_DIMS],
            width,
        }
    }

    /// The part of it where the bits of `cut` are `value`.
    fn cut(&self, cut: Cut, value: u32) -> Self {
        let mut part = self.clone();
        part.mask[cut.dim] |= ((1 << cut.bits) - 1) << cut.shift;
        part.value[cut.dim] =
            part.value[cut.dim] & !(((1 << cut.bits) - 1) << cut.shift) | value << cut.shift;
        part
    }

    /// Takes `other` in: only the bits that are the same in both stay known.
    fn widen(&mut self, other: &Self) {
        for dim in 0..Family::MOST_DIMS {
            let same = !(self.value[dim] ^ other.value[dim]);
            self.mask[dim] &= other.mask[dim] & same;
            self.value[dim] &= self.mask[dim];
        }
    }

    /// By dim, the smallest range that holds all values of the region.
    fn bounds(&self) -> Bounds {
        let mut bounds = [Field::ALL; Family::MOST_DIMS];
        for (dim, bound) in bounds.iter_mut().enumerate() {
            let free = match self.width[dim] {
                0 => continue,
                width => u32::MAX >> (32 - width) & !self.mask[dim],
            };
            *bound = Field {
                low: self.value[dim],
                high: self.value[dim] | free,
            };
        }
        bounds
    }
}

#[derive(Default)]
struct Measure {
    steps: f64,
    records: f64,
}

impl Measure {
    /// The most steps from `node` on, and the leaf where they end.
    fn longest(
        &self,
        nodes: &[Node],
        node: usize,
        known: &mut HashMap<usize, (u32, usize)>,
    ) -> (u32, usize) {
        if let Some(longest) = known.get(&node) {
            return *longest;
        }
        let longest = match &nodes[node] {
            Node::Leaf(records) => (1 + u32::try_from(records.len()).unwrap_or(u32::MAX), node),
            Node::Cut { children, .. } => {
                let mut distinct = children.clone();
                distinct.sort_unstable();
                distinct.dedup();
                let below = distinct
                    .into_iter()
                    .map(|child| self.longest(nodes, child, known))
                    .max_by_key(|(steps, leaf)| (*steps, std::cmp::Reverse(*leaf)));
                let (steps, leaf) = below.unwrap_or((0, node));
                (steps.saturating_add(1), leaf)
            }
        };
        known.insert(node, longest);
        longest
    }

    fn spread(&mut self, nodes: &[Node], node: usize, depth: u32) {
        match &nodes[node] {
            Node::Leaf(records) => {
                let size = records.len() as f64;
                self.records += size;
                self.steps += size * (f64::from(depth) + (size + 1.0) / 2.0);
            }
            Node::Cut { children, .. } => {
                let mut distinct = children.clone();
                distinct.sort_unstable();
                distinct.dedup();
                for child in distinct {
                    self.spread(nodes, child, depth + 1);
                }
            }
        }
    }
}

const WIDTHS: [u32; 7] = [1, 2, 4, 6, 8, 10, ruleset::MAX_BITS];
const PORT: u32 = 16;
/// So few records are compared with each other at every node.
const LITTLE: usize = 16;
/// Copies that a cut may make of few records on top.
const SLACK: f64 = 8.0;
/// Nodes on a way; what is not told apart by then never will be.
const DEEPEST: u32 = 24;
