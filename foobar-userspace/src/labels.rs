//! Dense ids for the names of rules, vips, backends, interfaces and sets, so that counters keep their meaning.
//!
//! A name keeps its id over reloads and, through the pinned `LABELS` map, over restarts. The id of a name that is no
//! longer asked for stays its own until the kind runs out of ids; then the longest vanished go first.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::{IpAddr, SocketAddr},
};

use foobar_ebpf::abi::{
    Label, LabelKey, MAX_BACKENDS, MAX_INTERFACES, MAX_RULES, MAX_SETS, MAX_VIPS,
};

use crate::{
    stable,
    tally::{MAX_SITE_BACKENDS, MAX_SITES},
};

/// What an id stands for; ids of different kinds are independent.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    Rule,
    Vip,
    Backend,
    Interface,
    Set,
    Site,
    SiteBackend,
}

/// The ids of all names of a node.
///
/// Loading a configuration may fail half-way: assign on a clone, and keep the clone when all went well.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    tables: [Table; Kind::ALL.len()],
    renamed: BTreeSet<(u32, u32)>,
}

/// More names than ids.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{wanted} {kind}s are more than the {capacity} that one node can hold; move some to another node or merge them"
)]
pub struct Full {
    pub kind: Kind,
    pub wanted: usize,
    pub capacity: u32,
}

#[derive(Clone, Debug, Default)]
struct Table {
    ids: HashMap<String, u32>,
    names: BTreeMap<u32, Name>,
    /// Counts [`Labels::assign`].
    loads: u64,
}

#[derive(Clone, Debug)]
struct Name {
    text: String,
    /// The last load that asked for it.
    asked: u64,
}

impl Labels {
    /// The ids that the pinned `LABELS` map holds; what makes no sense in it is left out.
    #[must_use]
    pub fn restore(pinned: impl IntoIterator<Item = (LabelKey, Label)>) -> Self {
        let mut labels = Self::default();
        let mut pinned: Vec<_> = pinned
            .into_iter()
            .filter_map(|(key, label)| {
                Some((
                    Kind::from_number(key.kind)?,
                    key.id,
                    read(&label)?.to_owned(),
                ))
            })
            .collect();
        pinned.sort();
        for (kind, id, text) in pinned {
            let table = &mut labels.tables[kind as usize];
            if id < kind.capacity() && !table.ids.contains_key(&text) {
                table.insert(id, text, 0);
            }
        }
        labels
    }

    /// All ids, as the `LABELS` map shall hold them.
    pub fn export(&self) -> impl Iterator<Item = (LabelKey, Label)> {
        Kind::ALL.into_iter().flat_map(move |kind| {
            let names = &self.tables[kind as usize].names;
            names
                .iter()
                .map(move |(id, name)| (kind.key(*id), write(&name.text)))
        })
    }

    /// The ids of `names`, in their order; every other name of this kind has vanished from now on.
    ///
    /// # Errors
    ///
    /// There are more names than ids. The names that had an id keep it.
    pub fn assign<N: AsRef<str>>(&mut self, kind: Kind, names: &[N]) -> Result<Vec<u32>, Full> {
        let table = &mut self.tables[kind as usize];
        table.loads += 1;
        let names: Vec<_> = names.iter().map(|name| fit(name.as_ref())).collect();
        for name in &names {
            table.ask(name);
        }
        let new: Vec<&str> = names
            .iter()
            .map(AsRef::as_ref)
            .filter(|name| !table.ids.contains_key(*name))
            .collect();
        let mut unique = BTreeSet::new();
        let new: Vec<&str> = new
            .into_iter()
            .filter(|name| unique.insert(*name))
            .collect();
        let mut free = table.free(kind.capacity(), new.len());
        for name in new {
            let id = free.pop().ok_or_else(|| Full {
                kind,
                wanted: names.iter().collect::<BTreeSet<_>>().len(),
                capacity: kind.capacity(),
            })?;
            table.insert(id, name.to_owned(), table.loads);
            self.renamed.insert((kind.number(), id));
        }
        Ok(names.iter().map(|name| table.ids[name.as_ref()]).collect())
    }

    /// The id of a name, also of a vanished one.
    #[must_use]
    pub fn find(&self, kind: Kind, name: &str) -> Option<u32> {
        self.tables[kind as usize]
            .ids
            .get(fit(name).as_ref())
            .copied()
    }

    /// The name of an id, also of a vanished one.
    #[must_use]
    pub fn name(&self, kind: Kind, id: u32) -> Option<&str> {
        let name = self.tables[kind as usize].names.get(&id)?;
        Some(&name.text)
    }

    /// The ids that got a new name since the last call: their counters, buckets and remembered flows are to be cleared.
    pub fn take_renamed(&mut self) -> Vec<LabelKey> {
        std::mem::take(&mut self.renamed)
            .into_iter()
            .map(|(kind, id)| LabelKey { kind, id })
            .collect()
    }
}

impl Table {
    fn insert(&mut self, id: u32, text: String, asked: u64) {
        if let Some(old) = self.names.insert(
            id,
            Name {
                text: text.clone(),
                asked,
            },
        ) {
            self.ids.remove(&old.text);
        }
        self.ids.insert(text, id);
    }

    fn ask(&mut self, name: &str) {
        if let Some(name) = self.ids.get(name).and_then(|id| self.names.get_mut(id)) {
            name.asked = self.loads;
        }
    }

    /// Up to `wanted` ids to give away, the best last: unused ones from the lowest, then the longest vanished.
    fn free(&self, capacity: u32, wanted: usize) -> Vec<u32> {
        let unused = (0..capacity).filter(|id| !self.names.contains_key(id));
        let mut vanished: Vec<_> = self
            .names
            .iter()
            .filter(|(_, name)| name.asked < self.loads)
            .map(|(id, name)| (name.asked, *id))
            .collect();
        vanished.sort_unstable();
        let vanished = vanished.into_iter().map(|(_, id)| id);
        let mut free: Vec<_> = unused.chain(vanished).take(wanted).collect();
        free.reverse();
        free
    }
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Rule,
        Self::Vip,
        Self::Backend,
        Self::Interface,
        Self::Set,
        Self::Site,
        Self::SiteBackend,
    ];

    /// As [`LabelKey::kind`] has it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Rule => LabelKey::RULE,
            Self::Vip => LabelKey::VIP,
            Self::Backend => LabelKey::BACKEND,
            Self::Interface => LabelKey::INTERFACE,
            Self::Set => LabelKey::SET,
            Self::Site => LabelKey::SITE,
            Self::SiteBackend => LabelKey::SITE_BACKEND,
        }
    }

    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Ids run from 0 to below this.
    #[must_use]
    pub const fn capacity(self) -> u32 {
        match self {
            Self::Rule => MAX_RULES,
            Self::Vip => MAX_VIPS,
            Self::Backend => MAX_BACKENDS,
            Self::Interface => MAX_INTERFACES,
            Self::Set => MAX_SETS,
            Self::Site => MAX_SITES,
            Self::SiteBackend => MAX_SITE_BACKENDS,
        }
    }

    #[must_use]
    pub const fn key(self, id: u32) -> LabelKey {
        LabelKey {
            kind: self.number(),
            id,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rule => "rule",
            Self::Vip => "vip",
            Self::Backend => "backend",
            Self::Interface => "interface",
            Self::Set => "set",
            Self::Site => "site",
            Self::SiteBackend => "site backend",
        })
    }
}

/// `policy/rule`
#[must_use]
pub fn rule(policy: &str, rule: &str) -> String {
    format!("{policy}/{rule}")
}

/// `l7.www`
#[must_use]
pub fn site(service: &str) -> String {
    format!("l7.{service}")
}

/// `l7.www web1:8443`
#[must_use]
pub fn site_backend(service: &str, host: &str, port: u16) -> String {
    format!("l7.{service} {host}:{port}")
}

/// `l4.plain 203.0.113.10:8080`
#[must_use]
pub fn vip(service: &str, address: SocketAddr) -> String {
    format!("{} {address}", self::service(service))
}

/// `l4.plain`; an endpoint of a cluster is `mysql.app.write` already.
#[must_use]
pub fn service(name: &str) -> String {
    if name.starts_with("mysql.") {
        name.to_owned()
    } else {
        format!("l4.{name}")
    }
}

/// `l4.plain web1:80 10.0.0.11`
#[must_use]
pub fn backend(service: &str, host: &str, port: u16, address: IpAddr) -> String {
    format!("{} {host}:{port} {address}", self::service(service))
}

/// `wan eth0`
#[must_use]
pub fn interface(name: &str, device: &str) -> String {
    format!("{name} {device}")
}

/// The text as a label holds it: of one that is too long, the beginning and a hash of the whole.
#[must_use]
pub fn fit(text: &str) -> Cow<'_, str> {
    if text.len() <= LENGTH && !text.contains('\0') {
        return Cow::Borrowed(text);
    }
    let mut cut = text.replace('\0', "?");
    cut.truncate(cut.floor_char_boundary(LENGTH - TAIL));
    Cow::Owned(format!("{cut}~{:016x}", stable::hash(text)))
}

/// The text of a label, if it is one.
#[must_use]
pub fn read(label: &Label) -> Option<&str> {
    let end = label.text.iter().position(|byte| *byte == 0);
    let text = str::from_utf8(&label.text[..end.unwrap_or(LENGTH)]).ok()?;
    (!text.is_empty()).then_some(text)
}

fn write(text: &str) -> Label {
    let mut label = Label { text: [0; LENGTH] };
    for (to, from) in label.text.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    label
}

const LENGTH: usize = 96;
/// `~` and 16 hexadecimal digits.
const TAIL: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_id_over_reloads_and_restarts() {
        let mut labels = Labels::default();
        let first = labels
            .assign(Kind::Rule, &["edge/ssh", "edge/web"])
            .unwrap();
        let second = labels
            .assign(Kind::Rule, &["edge/new", "edge/web"])
            .unwrap();
        assert_eq!(first, [0, 1]);
        assert_eq!(second, [2, 1]);
        let mut restarted = Labels::restore(labels.export());
        let third = restarted
            .assign(Kind::Rule, &["edge/ssh", "edge/new", "edge/web"])
            .unwrap();
        assert_eq!(third, [0, 2, 1]);
        assert!(restarted.take_renamed().is_empty());
    }

    #[test]
    fn kinds_do_not_share_ids() {
        let mut labels = Labels::default();
        assert_eq!(labels.assign(Kind::Set, &["jail"]), Ok(vec![0]));
        assert_eq!(labels.assign(Kind::Vip, &["l4.a [::1]:80"]), Ok(vec![0]));
        assert_eq!(labels.name(Kind::Set, 0), Some("jail"));
        assert_eq!(labels.find(Kind::Vip, "jail"), None);
    }

    #[test]
    fn the_longest_vanished_name_gives_its_id_first() {
        let mut labels = Labels::default();
        let mut all: Vec<_> = (0..MAX_SETS).map(|set| format!("set-{set}")).collect();
        labels.assign(Kind::Set, &all).unwrap();
        let lost_first = all.remove(5);
        labels.assign(Kind::Set, &all).unwrap();
        all.remove(7);
        labels.assign(Kind::Set, &all).unwrap();
        labels.take_renamed();
        all.push("newcomer".to_owned());
        assert_eq!(labels.assign(Kind::Set, &all).unwrap().last(), Some(&5));
        assert_eq!(labels.take_renamed(), [Kind::Set.key(5)]);
        assert_eq!(labels.find(Kind::Set, &lost_first), None);
        assert_eq!(labels.find(Kind::Set, "set-8"), Some(8));
    }

    #[test]
    fn more_names_than_ids_are_refused_with_the_numbers() {
        let names: Vec<_> = (0..=MAX_INTERFACES)
            .map(|i| format!("i{i} eth{i}"))
            .collect();
        let refusal = Labels::default()
            .assign(Kind::Interface, &names)
            .unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "17 interfaces are more than the 16 that one node can hold; move some to another node or merge them"
        );
    }

    #[test]
    fn long_names_stay_apart_and_whole_in_utf_8() {
        let mut labels = Labels::default();
        let long = |last: char| format!("edge/{}{last}", "ä".repeat(60));
        let ids = labels
            .assign(Kind::Rule, &[long('a'), long('b'), long('a')])
            .unwrap();
        assert_eq!(ids, [0, 1, 0]);
        assert_eq!(labels.find(Kind::Rule, &long('b')), Some(1));
        let restored = Labels::restore(labels.export());
        assert_eq!(restored.find(Kind::Rule, &long('b')), Some(1));
    }

    #[test]
    fn nonsense_in_the_pinned_map_is_left_out() {
        let text = |bytes: &[u8]| {
            let mut text = [0; LENGTH];
            text[..bytes.len()].copy_from_slice(bytes);
            Label { text }
        };
        let labels = Labels::restore([
            (LabelKey { kind: 77, id: 0 }, text(b"what")),
            (Kind::Set.key(MAX_SETS), text(b"beyond")),
            (Kind::Set.key(0), text(b"\xff\xfe")),
            (Kind::Set.key(1), text(b"")),
            (Kind::Set.key(3), text(b"twice")),
            (Kind::Set.key(2), text(b"twice")),
        ]);
        assert_eq!(labels.export().count(), 1);
        assert_eq!(labels.find(Kind::Set, "twice"), Some(2));
    }
}
