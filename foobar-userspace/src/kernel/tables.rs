//! All maps of a node.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use aya::maps::{self, MapData, MapError};
use foobar_ebpf::abi::{
    self, Backend, ClientV4, ClientV6, EndpointV4, EndpointV6, Label, LabelKey, Member, MemberV4,
    MemberV6, NextHop, Remembered, Return, Session, SetInfo, Tally, Trace, Traffic, Vip, map,
    ruleset,
};
use foobar_ebpf::verdict::Reason;

use super::{
    KernelError,
    table::{ArrayTable, CounterTable, HashTable, PrefixTable, Table, open},
};

const RULESET_WORDS: usize = ruleset::WORDS as usize;
const RING_SLOTS: usize = abi::RING_SLOTS as usize;
type RulesetMap = maps::Array<MapData, [u64; RULESET_WORDS]>;
type RingMap = maps::Array<MapData, [u32; RING_SLOTS]>;

/// All maps of a node that user space touches.
#[derive(Debug)]
pub struct Tables {
    pub vips_v4: HashTable<EndpointV4, Vip>,
    pub vips_v6: HashTable<EndpointV6, Vip>,
    pub returns_v4: HashTable<EndpointV4, Return>,
    pub returns_v6: HashTable<EndpointV6, Return>,
    pub backends: ArrayTable<Backend>,
    pub local_v4: HashTable<u32, u32>,
    pub local_v6: HashTable<[u32; 4], u32>,
    pub routes_v4: PrefixTable<u32, u32>,
    pub routes_v6: PrefixTable<[u32; 4], u32>,
    pub next_hops: ArrayTable<NextHop>,
    pub wanted_v4: HashTable<u32, u32>,
    pub wanted_v6: HashTable<[u32; 4], u32>,
    pub remembered_v4: HashTable<ClientV4, Remembered>,
    pub remembered_v6: HashTable<ClientV6, Remembered>,
    pub sessions_v4: HashTable<ClientV4, Session>,
    pub sessions_v6: HashTable<ClientV6, Session>,
    pub leases: ArrayTable<u64>,
    pub(super) emissions: ArrayTable<abi::Emission>,
    pub(super) emitted: ArrayTable<u32>,
    pub flows_v4: HashTable<abi::FlowV4, abi::FlowState>,
    pub flows_v6: HashTable<abi::FlowV6, abi::FlowState>,
    pub fragments_v4: HashTable<abi::DatagramV4, abi::FirstFragment>,
    pub fragments_v6: HashTable<abi::DatagramV6, abi::FirstFragment>,
    pub sets: ArrayTable<SetInfo>,
    pub set_prefixes_v4: PrefixTable<u32, [u32; 2]>,
    pub set_prefixes_v6: PrefixTable<[u32; 4], [u32; 2]>,
    pub set_hosts_v4: HashTable<MemberV4, Member>,
    pub set_hosts_v6: HashTable<MemberV6, Member>,
    pub jail_v4: HashTable<MemberV4, Member>,
    pub jail_v6: HashTable<MemberV6, Member>,
    pub buckets_v4: HashTable<abi::BucketV4, abi::Bucket>,
    pub buckets_v6: HashTable<abi::BucketV6, abi::Bucket>,
    pub buckets_rule: ArrayTable<abi::Bucket>,
    pub reasons: CounterTable<Tally>,
    pub rules: CounterTable<Tally>,
    pub vip_traffic: CounterTable<Traffic>,
    pub backend_traffic: CounterTable<Traffic>,
    pub labels: HashTable<LabelKey, Label>,
    pub(super) trace: ArrayTable<Trace>,
    ruleset: maps::ArrayOfMaps<MapData, RulesetMap>,
    rings: maps::ArrayOfMaps<MapData, RingMap>,
}

impl Tables {
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            vips_v4: HashTable::open(directory, map::VIPS_V4)?,
            vips_v6: HashTable::open(directory, map::VIPS_V6)?,
            returns_v4: HashTable::open(directory, map::RETURNS_V4)?,
            returns_v6: HashTable::open(directory, map::RETURNS_V6)?,
            backends: ArrayTable::open(directory, map::BACKENDS)?,
            local_v4: HashTable::open(directory, map::LOCAL_V4)?,
            local_v6: HashTable::open(directory, map::LOCAL_V6)?,
            routes_v4: PrefixTable::open(directory, map::ROUTES_V4)?,
            routes_v6: PrefixTable::open(directory, map::ROUTES_V6)?,
            next_hops: ArrayTable::open(directory, map::NEXT_HOPS)?,
            wanted_v4: HashTable::open(directory, map::WANTED_V4)?,
            wanted_v6: HashTable::open(directory, map::WANTED_V6)?,
            remembered_v4: HashTable::open(directory, map::REMEMBERED_V4)?,
            remembered_v6: HashTable::open(directory, map::REMEMBERED_V6)?,
            sessions_v4: HashTable::open(directory, map::SESSIONS_V4)?,
            sessions_v6: HashTable::open(directory, map::SESSIONS_V6)?,
            leases: ArrayTable::open(directory, map::LEASES)?,
            emissions: ArrayTable::open(directory, map::EMISSIONS)?,
            emitted: ArrayTable::open(directory, map::EMITTED)?,
            flows_v4: HashTable::open(directory, map::FLOWS_V4)?,
            flows_v6: HashTable::open(directory, map::FLOWS_V6)?,
            fragments_v4: HashTable::open(directory, map::FRAGMENTS_V4)?,
            fragments_v6: HashTable::open(directory, map::FRAGMENTS_V6)?,
            sets: ArrayTable::open(directory, map::SETS)?,
            set_prefixes_v4: PrefixTable::open(directory, map::SET_PREFIXES_V4)?,
            set_prefixes_v6: PrefixTable::open(directory, map::SET_PREFIXES_V6)?,
            set_hosts_v4: HashTable::open(directory, map::SET_HOSTS_V4)?,
            set_hosts_v6: HashTable::open(directory, map::SET_HOSTS_V6)?,
            jail_v4: HashTable::open(directory, map::JAIL_V4)?,
            jail_v6: HashTable::open(directory, map::JAIL_V6)?,
            buckets_v4: HashTable::open(directory, map::BUCKETS_V4)?,
            buckets_v6: HashTable::open(directory, map::BUCKETS_V6)?,
            buckets_rule: ArrayTable::open(directory, map::BUCKETS_RULE)?,
            reasons: CounterTable::open(directory, map::REASONS)?,
            rules: CounterTable::open(directory, map::RULES)?,
            vip_traffic: CounterTable::open(directory, map::VIP_TRAFFIC)?,
            backend_traffic: CounterTable::open(directory, map::BACKEND_TRAFFIC)?,
            labels: HashTable::open(directory, map::LABELS)?,
            trace: ArrayTable::open(directory, map::TRACE)?,
            ruleset: open(directory, map::RULESET)?
                .0
                .try_into()
                .map_err(|error| KernelError::map("open", map::RULESET, error))?,
            rings: open(directory, map::RINGS)?
                .0
                .try_into()
                .map_err(|error| KernelError::map("open", map::RINGS, error))?,
        })
    }

    /// Swaps the whole ruleset: each packet sees the old one or this one.
    ///
    /// # Errors
    /// When the kernel refuses; the old one stays.
    pub fn set_ruleset(&mut self, words: &[u64]) -> Result<(), KernelError> {
        let failed = |error| KernelError::map("swap", map::RULESET, error);
        let mut inner = RulesetMap::create(1, 0).map_err(failed)?;
        let mut whole = words.to_vec();
        whole.resize(RULESET_WORDS, 0);
        let whole: &[u64; RULESET_WORDS] =
            whole.as_slice().try_into().map_err(|_| KernelError::Full {
                map: map::RULESET,
                max: ruleset::WORDS,
            })?;
        inner.set(0, whole, 0).map_err(failed)?;
        self.ruleset.set(0, &inner, 0).map_err(failed)
    }

    /// Swaps the whole ring of a vip: each packet sees the old one or this one.
    ///
    /// # Errors
    /// When the kernel refuses; the old one stays.
    pub fn set_ring(
        &mut self,
        vip: u32,
        slots: &[abi::Slot; RING_SLOTS],
    ) -> Result<(), KernelError> {
        let failed = |error| KernelError::map("swap", map::RINGS, error);
        let mut inner = RingMap::create(1, 0).map_err(failed)?;
        inner.set(0, slots.map(|slot| slot.0), 0).map_err(failed)?;
        self.rings.set(vip, &inner, 0).map_err(failed)
    }

    /// The ring of a vip, `None` where it never had one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn ring(&self, vip: u32) -> Result<Option<Box<[abi::Slot; RING_SLOTS]>>, KernelError> {
        let inner = match self.rings.get(&vip, 0) {
            Ok(inner) => inner,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(KernelError::map("read", map::RINGS, error)),
        };
        inner
            .get(&0, 0)
            .map(|slots| Some(Box::new(slots.map(abi::Slot))))
            .map_err(|error| KernelError::map("read", map::RINGS, error))
    }

    /// Takes over all that `old` holds but the ruleset, for tables of the same layout and other sizes.
    pub(super) fn inherit(&mut self, old: &Self) -> Result<(), KernelError> {
        macro_rules! copy {
            ($($table:ident),+ $(,)?) => { $(self.$table.copy(&old.$table)?;)+ };
        }
        copy![
            labels,
            backends,
            next_hops,
            sets,
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
            leases,
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
            buckets_rule,
            reasons,
            rules,
            vip_traffic,
            backend_traffic,
        ];
        for vip in 0..self.rings.len() {
            if let Some(slots) = old.ring(vip)? {
                self.set_ring(vip, &slots)?;
            }
        }
        self.vips_v4.copy(&old.vips_v4)?;
        self.vips_v6.copy(&old.vips_v6)
    }

    /// How many flows of each vip are remembered, IPv4 and IPv6 together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remembered_flows(&self) -> Result<HashMap<u32, Vec<Remembered>>, KernelError> {
        let mut flows: HashMap<u32, Vec<Remembered>> = HashMap::new();
        for (client, remembered) in self.remembered_v4.contents()? {
            flows.entry(client.vip.into()).or_default().push(remembered);
        }
        for (client, remembered) in self.remembered_v6.contents()? {
            flows.entry(client.vip.into()).or_default().push(remembered);
        }
        Ok(flows)
    }

    /// The names of the dense ids.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn label_texts(&self) -> Result<HashMap<LabelKey, String>, KernelError> {
        let texts = self
            .labels
            .read_at_once(|key, label| (key, label_text(label)))?;
        Ok(texts.into_iter().collect())
    }

    /// Books what a backend counted to its vip, for the vip's counters never fall.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bequeath(&mut self, backend: u32, vip: u32) -> Result<(), KernelError> {
        let counted = self.backend_traffic.get(backend)?;
        self.vip_traffic.add(vip, counted)?;
        self.backend_traffic.reset(backend)
    }

    /// Clears all that is kept under ids which are about to name something else.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn recycle(&mut self, ids: &HashSet<LabelKey>) -> Result<(), KernelError> {
        for LabelKey { kind, id } in ids.iter().copied() {
            match kind {
                LabelKey::RULE => {
                    self.rules.reset(id)?;
                    self.buckets_rule.set(
                        id,
                        abi::Bucket {
                            theoretical_arrival: 0,
                        },
                    )?;
                }
                LabelKey::VIP => {
                    self.vip_traffic.reset(id)?;
                    self.leases.set(id, 0)?;
                }
                LabelKey::BACKEND => self.backend_traffic.reset(id)?,
                LabelKey::INTERFACE => {
                    let first = id * 2 * Reason::SLOTS;
                    (first..first + 2 * Reason::SLOTS)
                        .try_for_each(|slot| self.reasons.reset(slot))?;
                }
                _ => {}
            }
        }
        let recycled = |kind, id| ids.contains(&LabelKey { kind, id });
        if ids.iter().any(|key| key.kind == LabelKey::RULE) {
            let of_rule = |rule| recycled(LabelKey::RULE, rule);
            self.buckets_v4.forget(|key, _| of_rule(key.rule))?;
            self.buckets_v6.forget(|key, _| of_rule(key.rule))?;
        }
        if ids.iter().any(|key| key.kind == LabelKey::SET) {
            let of_set = |set| recycled(LabelKey::SET, set);
            self.jail_v4.forget(|key, _| of_set(key.set))?;
            self.jail_v6.forget(|key, _| of_set(key.set))?;
        }
        if ids
            .iter()
            .any(|key| [LabelKey::VIP, LabelKey::BACKEND].contains(&key.kind))
        {
            let of_either = |vip: u16, backend| {
                recycled(LabelKey::VIP, vip.into()) || recycled(LabelKey::BACKEND, backend)
            };
            self.remembered_v4
                .forget(|key, flow| of_either(key.vip, flow.backend))?;
            self.remembered_v6
                .forget(|key, flow| of_either(key.vip, flow.backend))?;
            self.sessions_v4
                .forget(|key, flow| of_either(key.vip, flow.backend))?;
            self.sessions_v6
                .forget(|key, flow| of_either(key.vip, flow.backend))?;
        }
        Ok(())
    }

    /// # Errors
    /// When the kernel refuses.
    pub fn set_label(&mut self, key: LabelKey, text: &str) -> Result<(), KernelError> {
        self.labels.insert(key, label(text))
    }
}

/// Text as a label's value; cut at a character's boundary where it is longer.
#[must_use]
pub fn label(text: &str) -> Label {
    let mut label = Label { text: [0; 96] };
    let mut end = text.len().min(label.text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    label.text[..end].copy_from_slice(&text.as_bytes()[..end]);
    label
}

fn label_text(label: &Label) -> String {
    let end = label
        .text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(label.text.len());
    String::from_utf8_lossy(&label.text[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_comes_back_as_it_was_written() {
        assert_eq!(label_text(&label("edge/web")), "edge/web");
        assert_eq!(label_text(&label("")), "");
    }

    #[test]
    fn a_long_label_is_cut_between_characters() {
        let text = "ä".repeat(60);
        assert_eq!(label_text(&label(&text)), "ä".repeat(48));
        let odd = format!("x{}", "ä".repeat(60));
        assert_eq!(label_text(&label(&odd)), format!("x{}", "ä".repeat(47)));
    }
}
