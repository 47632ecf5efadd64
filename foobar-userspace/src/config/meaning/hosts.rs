//! `[hosts]`

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::Range,
};

use super::{many, section};
use crate::config::{
    Addresses, Host,
    diagnostics::{Problem, Problems},
    tree::Entry,
    words::{DnsName, HostAddress, WrittenPeer},
};

/// The hosts, and whose addresses are among the mistakes told already.
pub(super) struct Hosts {
    by_name: BTreeMap<String, Host>,
    doubtful: BTreeSet<String>,
}

impl Hosts {
    pub fn get(&self, name: &str) -> Option<&Host> {
        self.by_name.get(name)
    }

    pub fn doubtful(&self, name: &str) -> bool {
        self.doubtful.contains(name)
    }

    pub fn into_all(self) -> BTreeMap<String, Host> {
        self.by_name
    }
}

pub(super) fn read(root: Entry<'_>, problems: &mut Problems) -> Hosts {
    let by_name = by_name(root, problems);
    let doubtful = section(root, "hosts")
        .into_iter()
        .filter(|(_, host)| problems.touch(&host.extent()))
        .map(|(name, _)| name.text.to_owned())
        .collect();
    Hosts { by_name, doubtful }
}

fn by_name(root: Entry<'_>, problems: &mut Problems) -> BTreeMap<String, Host> {
    let mut owners = HashMap::new();
    section(root, "hosts")
        .into_iter()
        .map(|(name, entry)| {
            if !matches!(name.text.parse(), Ok(WrittenPeer::Host(_))) {
                problems.report(
                    Problem::new(
                        name.span(),
                        format!("`{}` looks like an address", name.text),
                    )
                    .help("give the host a name with a letter in it, as `web1`"),
                );
            }
            let host = Host {
                name: name.text.to_owned(),
                public: addresses(entry, "public", &mut owners, problems),
                private: addresses(entry, "private", &mut owners, problems),
                names: names(entry),
            };
            if let (Some(names), None) = (entry.at("names"), host.public.iter().next())
                && !problems.touch(&entry.extent())
            {
                problems.report(
                    Problem::new(
                        names.span(),
                        format!("host `{}` has names and no public address", host.name),
                    )
                    .help("add `public = \"203.0.113.10\"`, or give the names to the host that they lead to"),
                );
            }
            let nowhere = host
                .public
                .iter()
                .chain(host.private.iter())
                .next()
                .is_none();
            if nowhere && entry.value().is_table() && !problems.touch(&entry.extent()) {
                problems.report(
                    Problem::new(entry.span(), format!("host `{}` has no address", name.text))
                        .help("add `private = \"10.0.0.11\"` or `public = \"203.0.113.10\"`"),
                );
            }
            (host.name.clone(), host)
        })
        .collect()
}

fn names(host: Entry<'_>) -> Vec<String> {
    many(host, "names")
        .into_iter()
        .filter_map(|entry| entry.read().map(|DnsName(name)| name))
        .collect()
}

type Owners = HashMap<IpAddr, Range<usize>>;

fn addresses(
    host: Entry<'_>,
    key: &str,
    owners: &mut Owners,
    problems: &mut Problems,
) -> Addresses {
    let mut addresses = Addresses::default();
    for entry in many(host, key) {
        let Some(HostAddress(address)) = entry.read() else {
            continue;
        };
        if let Some(owner) = owners.insert(address, entry.span()) {
            problems.report(
                Problem::new(entry.span(), format!("`{address}` is given twice"))
                    .related(owner, "first given here")
                    .help("every address belongs to one host, as public or as private"),
            );
            continue;
        }
        let taken = match address {
            IpAddr::V4(v4) => addresses.v4.replace(v4).is_some(),
            IpAddr::V6(v6) => addresses.v6.replace(v6).is_some(),
        };
        if taken {
            let family = family(address);
            problems.report(
                Problem::new(
                    entry.span(),
                    format!("a second {family} address under `{key}`"),
                )
                .help(format!(
                    "keep one {family} address; each host has at most one of each family"
                )),
            );
        }
    }
    addresses
}

pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
