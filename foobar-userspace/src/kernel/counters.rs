//! All counters of a node at one instant, under their labels.

use std::collections::BTreeMap;

use foobar_ebpf::{
    abi::{LabelKey, Tally, Traffic},
    verdict::Reason,
};

use super::{CounterTable, Direction, Field, KernelError, Sum, Table as _, Tables, clock};

/// What the packet path counted, in the order of the ids.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub taken_at: u64,
    pub interfaces: Vec<Interface>,
    /// By label: `policy/rule`.
    pub rules: Vec<(String, Tally)>,
    /// By label: `l4.name address:port`; what backends counted that are gone, to add to those that are there.
    pub vips: Vec<(String, Traffic)>,
    /// By label: `l4.name host:port address`.
    pub backends: Vec<(String, Traffic)>,
    /// Ids and labels of what the proxy counts.
    pub sites: Vec<(u32, String)>,
    pub site_backends: Vec<(u32, String)>,
}

#[derive(Clone, Debug)]
pub struct Interface {
    /// `wan eth0`
    pub label: String,
    /// Reasons that never occurred are left out.
    pub verdicts: Vec<(Direction, Reason, Tally)>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fill {
    pub map: &'static str,
    pub entries: u64,
    pub max: u32,
}

impl Tables {
    /// # Errors
    /// When the kernel refuses to be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let mut labels = self.labels_by_kind()?;
        let mut of = |kind| labels.remove(&kind).unwrap_or_default();
        Ok(Counters {
            taken_at: clock::monotonic(),
            interfaces: of(LabelKey::INTERFACE)
                .into_iter()
                .map(|(id, label)| {
                    Ok(Interface {
                        label,
                        verdicts: self.verdicts(id)?,
                    })
                })
                .collect::<Result<_, KernelError>>()?,
            rules: labelled(of(LabelKey::RULE), &self.rules)?,
            vips: labelled(of(LabelKey::VIP), &self.vip_traffic)?,
            backends: labelled(of(LabelKey::BACKEND), &self.backend_traffic)?,
            sites: of(LabelKey::SITE),
            site_backends: of(LabelKey::SITE_BACKEND),
        })
    }

    /// Ids and their labels, ascending; ten thousand a second, so neither hashed nor copied.
    fn labels_by_kind(&self) -> Result<BTreeMap<u32, Vec<(u32, String)>>, KernelError> {
        let mut kinds: BTreeMap<u32, Vec<(u32, String)>> = BTreeMap::new();
        for (key, text) in self.label_list()? {
            kinds.entry(key.kind).or_default().push((key.id, text));
        }
        for labels in kinds.values_mut() {
            labels.sort_unstable_by_key(|(id, _)| *id);
        }
        Ok(kinds)
    }

    /// Of an interface.
    ///
    /// # Errors
    /// When the kernel refuses to be read.
    pub fn verdicts(&self, interface: u32) -> Result<Vec<(Direction, Reason, Tally)>, KernelError> {
        let mut verdicts = Vec::new();
        let first = interface * 2 * Reason::SLOTS;
        let tallies = self.reasons.first(first + 2 * Reason::SLOTS)?;
        for (number, direction) in (0..).zip(Direction::ALL) {
            for reason in Reason::ALL {
                let slot = first + number * Reason::SLOTS + reason as u32;
                match tallies.get(slot as usize) {
                    Some(tally) if tally.packets > 0 => verdicts.push((direction, reason, *tally)),
                    _ => {}
                }
            }
        }
        Ok(verdicts)
    }

    /// How full the maps are; walks through each.
    ///
    /// # Errors
    /// When the kernel refuses to be read.
    pub fn fill(&self) -> Result<Vec<Fill>, KernelError> {
        macro_rules! fill {
            ($($table:ident),+ $(,)?) => {
                vec![$(Fill {
                    map: self.$table.name(),
                    entries: self.$table.count()?,
                    max: self.$table.max(),
                }),+]
            };
        }
        Ok(fill![
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
            sessions_v4,
            sessions_v6,
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
}

/// The counters of all labels of a kind, in the order of the ids.
fn labelled<V: Field + Default + Sum>(
    labels: Vec<(u32, String)>,
    counters: &CounterTable<V>,
) -> Result<Vec<(String, V)>, KernelError> {
    let Some((last, _)) = labels.last() else {
        return Ok(Vec::new());
    };
    let values = counters.first(last + 1)?;
    Ok(labels
        .into_iter()
        .filter_map(|(id, label)| Some((label, *values.get(id as usize)?)))
        .collect())
}
