//! From the configuration's services to the tables of vips, backends and ways back.

mod guard;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use foobar_ebpf::abi::{EndpointV4, EndpointV6, LabelKey, Return, Vip, checksum_words};

use crate::{
    config::{Backend, Check, Config, L4Service, OnLoss, Protocol, Tenure},
    labels::{self, Full, Kind, Labels},
};

/// What a node balances, as the tables shall hold it; hardware addresses and health come from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub vips_v4: HashMap<EndpointV4, Vip>,
    pub vips_v6: HashMap<EndpointV6, Vip>,
    pub returns_v4: HashMap<EndpointV4, Return>,
    pub returns_v6: HashMap<EndpointV6, Return>,
    /// Ways back by the writer address, by the member's backend there: a server answers for its reader address otherwise,
    /// since its endpoint alone must tell. It takes part in one of the two at a time.
    pub writers_v4: BTreeMap<u32, (EndpointV4, Return)>,
    pub writers_v6: BTreeMap<u32, (EndpointV6, Return)>,
    pub backends: BTreeMap<u32, PlannedBackend>,
    /// By the vip's id.
    pub vips: BTreeMap<u32, PlannedVip>,
}

/// A backend of one family of a service.
#[derive(Clone, Debug)]
pub struct PlannedBackend {
    pub service: String,
    pub host: String,
    pub port: u16,
    pub address: IpAddr,
    pub weight: u16,
    pub check: Option<Check>,
    /// As the table of backends holds the address.
    pub words: [u32; 4],
    /// [`checksum_words`] of address and port.
    pub sum: u32,
    pub on_loss: OnLoss,
    pub label: String,
}

#[derive(Clone, Debug)]
pub struct PlannedVip {
    /// `plain`
    pub service: String,
    pub address: SocketAddr,
    /// Ids of its backends, in the order of the file.
    pub members: Vec<u32>,
    pub label: String,
}

/// Why services cannot be balanced.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Full(#[from] Full),
}

impl Plan {
    /// Names of the ids in use.
    #[must_use]
    pub fn labels(&self, _labels: &Labels) -> Vec<(LabelKey, String)> {
        let named = |kind, id: &u32, text: &String| (LabelKey { kind, id: *id }, text.clone());
        let vips = self
            .vips
            .iter()
            .map(|(id, vip)| named(LabelKey::VIP, id, &vip.label));
        let backends = self
            .backends
            .iter()
            .map(|(id, backend)| named(LabelKey::BACKEND, id, &backend.label));
        vips.chain(backends).collect()
    }
}

/// # Errors
/// When there are more vips or backends than the tables hold.
pub fn plan(config: &Config, node: &str, labels: &mut Labels) -> Result<Plan, PlanError> {
    let endpoints: Vec<L4Service> = config
        .mysql
        .values()
        .flat_map(|service| service.endpoints(node))
        .collect();
    let pairs: Vec<_> = config
        .l4
        .values()
        .chain(&endpoints)
        .filter(|service| service.on == node)
        .flat_map(|service| service.vips.iter().map(move |vip| (service, *vip)))
        .collect();
    let vip_labels: Vec<_> = pairs
        .iter()
        .map(|(service, vip)| labels::vip(&service.name, *vip))
        .collect();
    let vip_ids = labels.assign(Kind::Vip, &vip_labels)?;
    let backends: Vec<_> = pairs
        .iter()
        .flat_map(|(service, vip)| members(service, *vip))
        .collect();
    let backend_labels: Vec<_> = backends
        .iter()
        .map(|(service, backend, address)| {
            labels::backend(&service.name, &backend.host, backend.port.get(), *address)
        })
        .collect();
    let backend_ids = labels.assign(Kind::Backend, &backend_labels)?;
    let mut plan = Plan::default();
    let mut named = backends.iter().zip(backend_ids).zip(backend_labels);
    for (((service, vip), id), label) in pairs.iter().zip(vip_ids).zip(vip_labels) {
        let count = members(service, *vip).count();
        let mut ids = Vec::with_capacity(count);
        for (((_, backend, address), backend_id), backend_label) in named.by_ref().take(count) {
            plan.add_backend(service, backend, *address, backend_id, backend_label);
            plan.add_return(service, *vip, id, backend_id);
            ids.push(backend_id);
        }
        plan.add_vip(service, *vip, id, ids, label);
    }
    guard::add(&mut plan, config, node, labels)?;
    Ok(plan)
}

/// Backends that have an address of the vip's family.
fn members(
    service: &L4Service,
    vip: SocketAddr,
) -> impl Iterator<Item = (&L4Service, &Backend, IpAddr)> {
    service.backends.iter().filter_map(move |backend| {
        let address = if vip.is_ipv4() {
            backend.addresses.v4.map(IpAddr::V4)
        } else {
            backend.addresses.v6.map(IpAddr::V6)
        };
        Some((service, backend, address?))
    })
}

impl Plan {
    fn add_backend(
        &mut self,
        service: &L4Service,
        backend: &Backend,
        address: IpAddr,
        id: u32,
        label: String,
    ) {
        let port = backend.port.get();
        let words = words(address);
        self.backends.insert(
            id,
            PlannedBackend {
                service: service.name.clone(),
                host: backend.host.clone(),
                port,
                address,
                weight: backend.weight,
                check: service.check.clone(),
                words,
                sum: checksum_words(&words, port.to_be()),
                on_loss: service.on_loss,
                label,
            },
        );
    }

    fn add_return(&mut self, service: &L4Service, vip: SocketAddr, vip_id: u32, id: u32) {
        let Some(backend) = self.backends.get(&id) else {
            return;
        };
        let address = words(vip.ip());
        let back = Return {
            address,
            port: u32::from(vip.port().to_be()),
            sum: checksum_words(&address, vip.port().to_be()),
            backend_sum: backend.sum,
            vip: vip_id,
            backend: id,
            flags: flags(service),
        };
        let endpoint = endpoint(
            SocketAddr::new(backend.address, backend.port),
            service.protocol,
        );
        if is_of_a_cluster(&service.name) && service.name.ends_with(".write") {
            match endpoint {
                Endpoint::V4(key) => {
                    self.writers_v4.insert(id, (key, back));
                    self.returns_v4.entry(key).or_insert(back);
                }
                Endpoint::V6(key) => {
                    self.writers_v6.insert(id, (key, back));
                    self.returns_v6.entry(key).or_insert(back);
                }
            }
            return;
        }
        match endpoint {
            Endpoint::V4(key) => self.returns_v4.insert(key, back),
            Endpoint::V6(key) => self.returns_v6.insert(key, back),
        };
    }

    fn add_vip(
        &mut self,
        service: &L4Service,
        address: SocketAddr,
        id: u32,
        members: Vec<u32>,
        label: String,
    ) {
        let value = Vip {
            vip: id,
            sum: checksum_words(&words(address.ip()), address.port().to_be()),
            flags: flags(service),
            zero: 0,
        };
        self.put_vip(endpoint(address, service.protocol), value);
        self.vips.insert(
            id,
            PlannedVip {
                service: service.name.clone(),
                address,
                members,
                label,
            },
        );
    }

    fn put_vip(&mut self, endpoint: Endpoint, value: Vip) {
        match endpoint {
            Endpoint::V4(key) => drop(self.vips_v4.insert(key, value)),
            Endpoint::V6(key) => drop(self.vips_v6.insert(key, value)),
        }
    }
}

/// Whether the members of a service are told their share by their roles rather than by checks of the balancer.
#[must_use]
pub fn is_of_a_cluster(service: &str) -> bool {
    service.starts_with("mysql.")
}

/// Of a vip and of the ways back to it.
const fn flags(service: &L4Service) -> u32 {
    let on_loss = match service.on_loss {
        OnLoss::Keep => Vip::KEEP,
        OnLoss::Resteer => 0,
        OnLoss::Reset => Vip::SESSIONS | Vip::REFUSE,
    };
    match service.tenure {
        Tenure::ForEver => on_loss,
        Tenure::Leased => on_loss | Vip::LEASED,
    }
}

enum Endpoint {
    V4(EndpointV4),
    V6(EndpointV6),
}

fn endpoint(address: SocketAddr, protocol: Protocol) -> Endpoint {
    let protocol = match protocol {
        Protocol::Tcp => foobar_ebpf::wire::tcp::PROTOCOL,
        Protocol::Udp => foobar_ebpf::wire::udp::PROTOCOL,
    };
    endpoint_of(address.ip(), address.port(), protocol)
}

fn endpoint_of(address: IpAddr, port: u16, protocol: u8) -> Endpoint {
    let port = port.to_be();
    let words = words(address);
    if address.is_ipv4() {
        Endpoint::V4(EndpointV4 {
            address: words[0],
            port,
            protocol,
            zero: 0,
        })
    } else {
        Endpoint::V6(EndpointV6 {
            address: words,
            port,
            protocol,
            zero: 0,
        })
    }
}

/// An address as the tables hold it: the network's bytes, IPv4 in the first word.
fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [u32::from_ne_bytes(address.octets()), 0, 0, 0],
        IpAddr::V6(address) => zerocopy::transmute!(address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn planned() -> Plan {
        let text = r#"
version = 1
[hosts]
lb1 = { public = ["203.0.113.10", "2001:db8::10"], private = "10.0.0.10" }
web1 = { private = ["10.0.0.11", "fd00::11"] }
web2 = { private = ["10.0.0.12", "fd00::12"] }
[nodes]
lb1 = { wan = { dev = "eth0" } }
[l4.plain]
on = "lb1"
vip = ["public:8080"]
proto = "tcp"
backends = [{ host = "web1", port = 80, weight = 3 }, { host = "web2", port = 80 }]
"#;
        let config =
            config::parse(text, std::path::Path::new("test.toml")).expect("a good configuration");
        plan(&config, "lb1", &mut Labels::default()).expect("room for all")
    }

    #[test]
    fn a_service_of_two_families_has_two_vips_with_backends_of_their_own() {
        let plan = planned();
        assert_eq!((plan.vips_v4.len(), plan.vips_v6.len()), (1, 1));
        assert_eq!((plan.returns_v4.len(), plan.returns_v6.len()), (2, 2));
        assert_eq!(plan.backends.len(), 4);
        for vip in plan.vips.values() {
            for id in &vip.members {
                assert_eq!(plan.backends[id].address.is_ipv4(), vip.address.is_ipv4());
            }
        }
    }

    #[test]
    fn what_comes_back_from_a_backend_gets_the_vip_that_led_to_it() {
        let plan = planned();
        for (key, back) in &plan.returns_v4 {
            let backend = &plan.backends[&back.backend];
            assert_eq!(key.address, backend.words[0]);
            assert_eq!(back.backend_sum, backend.sum);
            let vip = plan.vips_v4.values().next().expect("one");
            assert_eq!((back.vip, back.sum), (vip.vip, vip.sum));
        }
    }

    #[test]
    fn a_member_of_a_cluster_answers_for_one_address_at_a_time() {
        let text = r#"
version = 1
[hosts]
lb1 = { private = "10.0.0.10" }
web1 = { private = "10.0.0.11" }
web2 = { private = "10.0.0.12" }
[nodes]
lb1 = { lan = { dev = "eth1" } }
[mysql.app]
on = "lb1"
write = "private:3306"
read = "private:3307"
members = ["web1:3306", "web2:3306"]
check = { user = "m", password = { env = "P" } }
"#;
        let config =
            config::parse(text, std::path::Path::new("test.toml")).expect("a good configuration");
        let plan = plan(&config, "lb1", &mut Labels::default()).expect("room for all");
        assert_eq!((plan.vips.len(), plan.backends.len()), (2, 4));
        assert_eq!((plan.returns_v4.len(), plan.writers_v4.len()), (2, 2));
        for (id, (key, back)) in &plan.writers_v4 {
            assert_eq!(plan.backends[id].service, "mysql.app.write");
            assert_ne!(
                plan.returns_v4[key].vip, back.vip,
                "by default it answers readers"
            );
        }
    }

    #[test]
    fn another_node_balances_nothing() {
        let text = "version = 1\n[hosts]\na = { private = \"10.0.0.1\" }\n";
        let config =
            config::parse(text, std::path::Path::new("test.toml")).expect("a good configuration");
        let plan = plan(&config, "a", &mut Labels::default()).expect("nothing to hold");
        assert!(plan.vips.is_empty() && plan.backends.is_empty());
    }
}
