//! The members of the sets: what the configuration, its lists, the command line and the packet path put into them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use foobar_ebpf::abi::{Member, MemberV4, MemberV6, SetInfo};
use ipnet::IpNet;

use super::{
    apply::Sets,
    hops::{word, words},
};
use crate::{
    admin::api::{ElementLine, Refusal, SetLine},
    config,
    kernel::{KernelError, Prefix, Table, Tables},
};

/// Added by the command line; `None`: for ever.
pub type Added = BTreeMap<IpNet, Option<SystemTime>>;

#[derive(Clone, Debug, Default)]
pub struct Members {
    sets: BTreeMap<String, Set>,
}

#[derive(Clone, Debug)]
struct Set {
    id: u32,
    configured: BTreeSet<IpNet>,
    listed: BTreeSet<IpNet>,
    added: Added,
    max: u32,
    timeout: Option<Duration>,
}

impl Members {
    /// The sets of a configuration with what the command line added to them; sets without an id are in no rule's reach.
    pub fn new<'a>(
        sets: impl IntoIterator<Item = (&'a config::Set, u32)>,
        added: &BTreeMap<String, Added>,
    ) -> Self {
        let sets = sets
            .into_iter()
            .map(|(set, id)| {
                let members = Set {
                    id,
                    configured: set.elements.iter().map(IpNet::trunc).collect(),
                    listed: set.file_elements.iter().map(IpNet::trunc).collect(),
                    added: added.get(&set.name).cloned().unwrap_or_default(),
                    max: set.max,
                    timeout: set.timeout,
                };
                (set.name.clone(), members)
            })
            .collect();
        Self { sets }
    }

    /// What the command line added, by set.
    pub fn added(&self) -> BTreeMap<String, Added> {
        self.sets
            .iter()
            .filter(|(_, set)| !set.added.is_empty())
            .map(|(name, set)| (name.clone(), set.added.clone()))
            .collect()
    }

    /// Drops what is over; true when something was.
    pub fn expire(&mut self, now: SystemTime) -> bool {
        let mut expired = false;
        for set in self.sets.values_mut() {
            let before = set.added.len();
            set.added
                .retain(|_, until| until.is_none_or(|until| until > now));
            expired |= set.added.len() != before;
        }
        expired
    }

    /// As the tables should hold them.
    pub fn tables(&self) -> Sets {
        let mut tables = Sets::default();
        let mut prefixes: BTreeMap<IpNet, u64> = BTreeMap::new();
        for set in self.sets.values() {
            let mut info = SetInfo {
                tables: 0,
                zero: 0,
                timeout: set.timeout.map_or(0, nanoseconds),
            };
            for element in set.elements() {
                if is_host(element) {
                    info.tables |= SetInfo::HOSTS;
                    tables.add_host(set.id, element.addr());
                } else {
                    info.tables |= SetInfo::PREFIXES;
                    *prefixes.entry(*element).or_default() |= 1 << set.id;
                }
            }
            // Hosts may be put there for a while at any time.
            info.tables |= SetInfo::TIMED;
            tables.infos.insert(set.id, info);
        }
        for (prefix, mask) in inherited(prefixes) {
            tables.add_prefix(prefix, mask);
        }
        tables
    }

    /// Puts elements into a set, hosts with a timeout right into the packet path's own table.
    pub fn add(
        &mut self,
        name: &str,
        elements: &[IpNet],
        timeout: Option<Duration>,
        now: Now,
        tables: &mut Tables,
    ) -> Result<String, Refusal> {
        let set = self.set_mut(name)?;
        let timeout = timeout.or(set.timeout);
        let mut new = 0;
        for element in elements.iter().map(IpNet::trunc) {
            match timeout {
                Some(timeout) if is_host(&element) => {
                    let expires = now.coarse.saturating_add(nanoseconds(timeout));
                    jail(tables, set.id, element.addr(), expires).map_err(failed)?;
                    new += 1;
                }
                _ => {
                    let until = timeout.and_then(|timeout| now.wall.checked_add(timeout));
                    let known = set.configured.contains(&element) || set.listed.contains(&element);
                    if !known && set.added.insert(element, until).is_none() {
                        new += 1;
                    }
                }
            }
        }
        if set.elements().count() > set.max as usize {
            return Err(Refusal::Conflict {
                message: format!(
                    "set `{name}` may hold {} elements; raise its `max` in the configuration",
                    set.max
                ),
            });
        }
        Ok(match timeout {
            Some(timeout) => format!(
                "{new} of {} put into {name} for {}",
                elements.len(),
                humantime::format_duration(timeout)
            ),
            None => format!("{new} of {} put into {name}", elements.len()),
        })
    }

    /// Takes out what the command line or the packet path put in.
    pub fn delete(
        &mut self,
        name: &str,
        elements: &[IpNet],
        tables: &mut Tables,
    ) -> Result<String, Refusal> {
        let set = self.set_mut(name)?;
        for element in elements.iter().map(IpNet::trunc) {
            let was_added = set.added.remove(&element).is_some();
            let was_jailed =
                is_host(&element) && free(tables, set.id, element.addr()).map_err(failed)?;
            if was_added || was_jailed {
                continue;
            }
            if set.configured.contains(&element) || set.listed.contains(&element) {
                return Err(Refusal::Conflict {
                    message: format!(
                        "{element} is in {name} by the configuration or its list; take it out there and reload"
                    ),
                });
            }
            return Err(Refusal::NotFound {
                message: format!("{element} is not in {name}"),
            });
        }
        Ok(format!("{} taken out of {name}", elements.len()))
    }

    /// Takes out all that the command line and the packet path put in.
    pub fn flush(&mut self, name: &str, tables: &mut Tables) -> Result<String, Refusal> {
        let set = self.set_mut(name)?;
        let mut count = set.added.len();
        set.added.clear();
        for (address, _) in jailed(tables, set.id).map_err(failed)? {
            free(tables, set.id, address).map_err(failed)?;
            count += 1;
        }
        Ok(format!("{count} taken out of {name}"))
    }

    pub fn lines(&self, tables: &Tables, coarse: u64) -> Result<Vec<SetLine>, KernelError> {
        let mut jailed: HashMap<u32, u64> = HashMap::new();
        for (key, member) in tables.jail_v4.contents()? {
            *jailed.entry(key.set).or_default() += u64::from(member.expires > coarse);
        }
        for (key, member) in tables.jail_v6.contents()? {
            *jailed.entry(key.set).or_default() += u64::from(member.expires > coarse);
        }
        Ok(self
            .sets
            .iter()
            .map(|(name, set)| SetLine {
                name: name.clone(),
                elements: set.elements().count() as u64
                    + jailed.get(&set.id).copied().unwrap_or_default(),
                max: set.max,
                timeout_seconds: set.timeout.map(|timeout| timeout.as_secs()),
            })
            .collect())
    }

    pub fn elements(
        &self,
        name: &str,
        tables: &Tables,
        now: Now,
    ) -> Result<Vec<ElementLine>, Refusal> {
        let set = self.set(name)?;
        let line = |element: &IpNet, source: &str, left| ElementLine {
            element: *element,
            source: source.to_owned(),
            expires_in_seconds: left,
        };
        let mut lines: Vec<ElementLine> = Vec::new();
        lines.extend(
            set.configured
                .iter()
                .map(|net| line(net, "configuration", None)),
        );
        lines.extend(
            set.listed
                .difference(&set.configured)
                .map(|net| line(net, "file", None)),
        );
        lines.extend(set.added.iter().map(|(net, until)| {
            let left =
                until.map(|until| until.duration_since(now.wall).unwrap_or_default().as_secs());
            line(net, "command", left)
        }));
        let mut jailed: Vec<(IpAddr, u64)> = jailed(tables, set.id)
            .map_err(failed)?
            .into_iter()
            .filter(|(_, expires)| *expires > now.coarse)
            .collect();
        jailed.sort();
        lines.extend(jailed.into_iter().map(|(address, expires)| {
            let left = (expires - now.coarse).div_ceil(1_000_000_000);
            line(&IpNet::from(address), "jail", Some(left))
        }));
        Ok(lines)
    }

    fn set(&self, name: &str) -> Result<&Set, Refusal> {
        self.sets.get(name).ok_or_else(|| self.unknown(name))
    }

    fn set_mut(&mut self, name: &str) -> Result<&mut Set, Refusal> {
        if !self.sets.contains_key(name) {
            return Err(self.unknown(name));
        }
        self.sets.get_mut(name).ok_or_else(|| Refusal::NotFound {
            message: format!("there is no set `{name}`"),
        })
    }

    fn unknown(&self, name: &str) -> Refusal {
        let known: Vec<String> = self.sets.keys().map(|name| format!("`{name}`")).collect();
        Refusal::NotFound {
            message: if known.is_empty() {
                format!("there is no set `{name}`; the configuration has none")
            } else {
                format!("there is no set `{name}`; there is {}", known.join(", "))
            },
        }
    }
}

/// Both clocks at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Nanoseconds, as the packet path reads them.
    pub coarse: u64,
    pub wall: SystemTime,
}

impl Set {
    /// Each once.
    fn elements(&self) -> impl Iterator<Item = &IpNet> {
        let listed = self.listed.difference(&self.configured);
        let added = self
            .added
            .keys()
            .filter(|net| !self.configured.contains(net) && !self.listed.contains(net));
        self.configured.iter().chain(listed).chain(added)
    }
}

impl Sets {
    fn add_host(&mut self, set: u32, address: IpAddr) {
        let member = Member { expires: u64::MAX };
        match address {
            IpAddr::V4(address) => {
                let address = word(address.octets());
                self.hosts_v4.insert(MemberV4 { set, address }, member);
            }
            IpAddr::V6(address) => {
                let address = words(address.octets());
                self.hosts_v6.insert(MemberV6 { set, address }, member);
            }
        }
    }

    fn add_prefix(&mut self, prefix: IpNet, mask: u64) {
        let length = prefix.prefix_len().into();
        let mask = [mask as u32, (mask >> 32) as u32];
        match prefix {
            IpNet::V4(prefix) => {
                let address = word(prefix.network().octets());
                self.prefixes_v4.insert(Prefix { length, address }, mask);
            }
            IpNet::V6(prefix) => {
                let address = words(prefix.network().octets());
                self.prefixes_v6.insert(Prefix { length, address }, mask);
            }
        }
    }
}

/// The longest match alone is found: each prefix carries the sets of all that surround it.
fn inherited(prefixes: BTreeMap<IpNet, u64>) -> Vec<(IpNet, u64)> {
    let mut found: Vec<(IpNet, u64)> = Vec::with_capacity(prefixes.len());
    let mut around: Vec<(IpNet, u64)> = Vec::new();
    // In order, a prefix follows those that surround it.
    for (prefix, mask) in prefixes {
        while around
            .last()
            .is_some_and(|(outer, _)| !outer.contains(&prefix))
        {
            around.pop();
        }
        let mask = mask | around.last().map_or(0, |(_, mask)| *mask);
        around.push((prefix, mask));
        found.push((prefix, mask));
    }
    found
}

fn is_host(element: &IpNet) -> bool {
    element.prefix_len() == element.max_prefix_len()
}

fn jail(tables: &mut Tables, set: u32, address: IpAddr, expires: u64) -> Result<(), KernelError> {
    let member = Member { expires };
    match address {
        IpAddr::V4(address) => {
            let address = word(address.octets());
            tables.jail_v4.insert(MemberV4 { set, address }, member)
        }
        IpAddr::V6(address) => {
            let address = words(address.octets());
            tables.jail_v6.insert(MemberV6 { set, address }, member)
        }
    }
}

/// True when it was in.
fn free(tables: &mut Tables, set: u32, address: IpAddr) -> Result<bool, KernelError> {
    match address {
        IpAddr::V4(address) => {
            let address = word(address.octets());
            let key = MemberV4 { set, address };
            let was_in = tables.jail_v4.get(key)?.is_some();
            tables.jail_v4.remove(key).map(|()| was_in)
        }
        IpAddr::V6(address) => {
            let address = words(address.octets());
            let key = MemberV6 { set, address };
            let was_in = tables.jail_v6.get(key)?.is_some();
            tables.jail_v6.remove(key).map(|()| was_in)
        }
    }
}

fn jailed(tables: &Tables, set: u32) -> Result<Vec<(IpAddr, u64)>, KernelError> {
    let v4 = tables.jail_v4.contents()?;
    let v4 = v4
        .into_iter()
        .filter(|(key, _)| key.set == set)
        .map(|(key, member)| (IpAddr::from(key.address.to_ne_bytes()), member.expires));
    let v6 = tables.jail_v6.contents()?;
    let v6 = v6
        .into_iter()
        .filter(|(key, _)| key.set == set)
        .map(|(key, member)| {
            (
                IpAddr::from(super::hops::octets(key.address)),
                member.expires,
            )
        });
    Ok(v4.chain(v6).collect())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: KernelError) -> Refusal {
    super::refusal(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_carries_the_sets_around_it() {
        let found = inherited(BTreeMap::from([
            (net("10.0.0.0/8"), 1),
            (net("10.1.0.0/16"), 2),
            (net("10.1.2.0/24"), 4),
            (net("10.2.0.0/16"), 8),
            (net("11.0.0.0/8"), 16),
            (net("2001:db8::/32"), 32),
            (net("2001:db8:1::/48"), 64),
        ]));
        let masks: Vec<u64> = found.iter().map(|(_, mask)| *mask).collect();
        assert_eq!(masks, [1, 3, 7, 9, 16, 32, 96]);
    }

    #[test]
    fn hosts_and_prefixes_go_to_tables_of_their_own() {
        let tables = members().tables();
        assert_eq!(tables.hosts_v4.len(), 1);
        assert_eq!(tables.prefixes_v4.len(), 1);
        assert_eq!(tables.prefixes_v6.len(), 1);
        assert_eq!(
            tables.infos[&3].tables,
            SetInfo::HOSTS | SetInfo::PREFIXES | SetInfo::TIMED
        );
        let mask = tables.prefixes_v4.values().next().expect("one");
        assert_eq!(*mask, [1 << 3, 0]);
    }

    #[test]
    fn what_is_over_is_dropped() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let mut members = members();
        let set = members.sets.get_mut("admins").expect("there");
        set.added.insert(net("192.0.2.0/24"), Some(now));
        set.added.insert(net("192.0.3.0/24"), None);
        assert!(!members.expire(now - Duration::from_secs(1)));
        assert!(members.expire(now));
        assert_eq!(
            members.added()["admins"].keys().collect::<Vec<_>>(),
            [&net("192.0.3.0/24")]
        );
    }

    fn members() -> Members {
        let set = config::Set {
            name: "admins".to_owned(),
            elements: vec![net("198.51.100.7/32"), net("198.51.100.0/24")],
            file: None,
            file_elements: vec![net("2001:db8:ad::/48")],
            max: 10,
            timeout: None,
        };
        Members::new([(&set, 3)], &BTreeMap::new())
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }
}
