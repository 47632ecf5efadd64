//! What the ids of a node are called, taken apart once: ten thousand labels are not read anew each second.

use std::{net::SocketAddr, sync::Arc};

use foobar_ebpf::abi::LabelKey;

use crate::kernel::Extent;

/// The names that are in use; until a reload they stay what they are.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub(super) interfaces: Vec<(u32, InterfaceName)>,
    pub(super) rules: Vec<(u32, RuleName)>,
    pub(super) vips: Vec<(u32, VipName)>,
    pub(super) sites: Vec<(u32, String)>,
    pub(super) site_backends: Vec<(u32, String)>,
    extent: Extent,
}

/// `wan eth0`
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct InterfaceName {
    pub name: String,
    pub device: String,
}

/// `edge/web`; each snapshot shares it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RuleName {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
}

/// `l4.plain 203.0.113.10:8080`, and the backends below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct VipName {
    pub service: String,
    pub address: String,
    pub backends: Vec<(u32, BackendName)>,
}

/// `l4.plain web1:80 10.0.0.11`
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct BackendName {
    service: String,
    pub host: String,
    pub port: u16,
    is_ipv4: bool,
}

impl Names {
    /// Labels that make no sense name nothing.
    pub fn new(labels: impl IntoIterator<Item = (LabelKey, String)>) -> Self {
        let mut labels: Vec<(LabelKey, String)> = labels.into_iter().collect();
        labels.sort_unstable_by_key(|(key, _)| (key.kind, key.id));
        let of = |kind| {
            let labels = labels.iter().filter(move |(key, _)| key.kind == kind);
            labels.map(|(key, label)| (key.id, label.as_str()))
        };
        let end = |kind| of(kind).next_back().map_or(0, |(id, _)| id + 1);
        let owned = |(id, label): (u32, &str)| (id, label.to_owned());
        let backends: Vec<(u32, BackendName)> = of(LabelKey::BACKEND)
            .filter_map(|(id, label)| Some((id, BackendName::parse(label)?)))
            .collect();
        Self {
            interfaces: of(LabelKey::INTERFACE)
                .map(|(id, label)| (id, InterfaceName::parse(label)))
                .collect(),
            rules: rules(of(LabelKey::RULE)),
            vips: of(LabelKey::VIP)
                .map(|(id, label)| (id, VipName::parse(label, &backends)))
                .collect(),
            sites: of(LabelKey::SITE).map(owned).collect(),
            site_backends: of(LabelKey::SITE_BACKEND).map(owned).collect(),
            extent: Extent {
                interfaces: end(LabelKey::INTERFACE),
                rules: end(LabelKey::RULE),
                vips: end(LabelKey::VIP),
                backends: end(LabelKey::BACKEND),
            },
        }
    }

    /// Up to the last id that has a name.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }
}

/// Rules of one policy share its name.
fn rules<'a>(labels: impl Iterator<Item = (u32, &'a str)>) -> Vec<(u32, RuleName)> {
    let mut policy: Arc<str> = "".into();
    labels
        .map(|(id, label)| {
            let (of, rule) = label.split_once('/').unwrap_or(("", label));
            if *policy != *of {
                policy = of.into();
            }
            let rule = RuleName {
                policy: policy.clone(),
                rule: rule.into(),
            };
            (id, rule)
        })
        .collect()
}

impl InterfaceName {
    fn parse(label: &str) -> Self {
        let (name, device) = label.split_once(' ').unwrap_or((label, ""));
        Self {
            name: name.to_owned(),
            device: device.to_owned(),
        }
    }
}

impl VipName {
    /// The packet path counts by backend; a vip has those of its service and its address family.
    fn parse(label: &str, backends: &[(u32, BackendName)]) -> Self {
        let (service, address) = label.split_once(' ').unwrap_or((label, ""));
        let is_ipv4 = address.parse().map(|address: SocketAddr| address.is_ipv4());
        Self {
            service: service.to_owned(),
            address: address.to_owned(),
            backends: backends
                .iter()
                .filter(|(_, name)| name.service == service && Ok(name.is_ipv4) == is_ipv4)
                .cloned()
                .collect(),
        }
    }
}

impl BackendName {
    fn parse(label: &str) -> Option<Self> {
        let mut words = label.split(' ');
        let service = words.next()?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        let address: std::net::IpAddr = words.next()?.parse().ok()?;
        Some(Self {
            service: service.to_owned(),
            host: host.to_owned(),
            port: port.parse().ok()?,
            is_ipv4: address.is_ipv4(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(labels: &[(u32, u32, &str)]) -> Names {
        Names::new(labels.iter().map(|(kind, id, label)| {
            let key = LabelKey {
                kind: *kind,
                id: *id,
            };
            (key, (*label).to_owned())
        }))
    }

    #[test]
    fn names_stand_in_the_order_of_their_ids() {
        let names = names(&[
            (LabelKey::RULE, 7, "inside/ssh"),
            (LabelKey::INTERFACE, 0, "wan eth0"),
            (LabelKey::RULE, 2, "edge/web"),
        ]);
        let rules: Vec<(u32, &str, &str)> = names
            .rules
            .iter()
            .map(|(id, name)| (*id, &*name.policy, &*name.rule))
            .collect();
        assert_eq!(rules, [(2, "edge", "web"), (7, "inside", "ssh")]);
        assert_eq!(names.interfaces[0].1.device, "eth0");
        assert_eq!(
            names.extent(),
            Extent {
                interfaces: 1,
                rules: 8,
                ..Extent::default()
            }
        );
    }

    #[test]
    fn a_vip_has_the_backends_of_its_service_and_family() {
        let names = names(&[
            (LabelKey::VIP, 0, "l4.plain 203.0.113.10:8080"),
            (LabelKey::VIP, 1, "l4.plain [2001:db8::10]:8080"),
            (LabelKey::BACKEND, 1, "l4.plain web1:80 10.0.0.11"),
            (LabelKey::BACKEND, 2, "l4.plain web1:80 fd00::11"),
            (LabelKey::BACKEND, 3, "l4.other web1:80 10.0.0.11"),
            (LabelKey::BACKEND, 4, "edge/web"),
        ]);
        let backends = |vip: usize| {
            let backends = names.vips[vip].1.backends.iter();
            backends
                .map(|(id, name)| (*id, name.host.as_str(), name.port))
                .collect::<Vec<_>>()
        };
        assert_eq!(backends(0), [(1, "web1", 80)]);
        assert_eq!(backends(1), [(2, "web1", 80)]);
    }
}
