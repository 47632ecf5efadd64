//! The endpoints of this host's own databases, which are closed to clients while nothing vouches for them.

use std::net::{IpAddr, SocketAddr};

use foobar_ebpf::abi::Vip;

use super::{Plan, PlanError, PlannedVip, endpoint, endpoint_of};
use crate::{
    config::{Config, MysqlMember, MysqlService, Protocol},
    labels::{self, Kind, Labels},
};

pub fn add(
    plan: &mut Plan,
    config: &Config,
    node: &str,
    labels: &mut Labels,
) -> Result<(), PlanError> {
    let guarded: Vec<(&MysqlService, SocketAddr)> = config
        .mysql
        .values()
        .filter_map(|service| Some((service, service.guarded(node)?)))
        .flat_map(|(service, member)| {
            endpoints(service, member).map(move |endpoint| (service, endpoint))
        })
        .collect();
    if guarded.is_empty() {
        return Ok(());
    }
    // All vips of the node are named at once: those that are not named lose their ids.
    let vips = plan.vips.values().map(|vip| vip.label.clone());
    let first = plan.vips.len();
    let names: Vec<String> = vips
        .chain(
            guarded
                .iter()
                .map(|(service, endpoint)| labels::vip(&service.guard_name(), *endpoint)),
        )
        .collect();
    let ids = labels.assign(Kind::Vip, &names)?;
    let named = ids.into_iter().zip(names).skip(first);
    for ((service, address), (id, label)) in guarded.iter().zip(named) {
        let value = Vip {
            vip: id,
            sum: 0,
            flags: Vip::GUARDED | Vip::LEASED,
            zero: 0,
        };
        plan.put_vip(endpoint(*address, Protocol::Tcp), value);
        plan.vips.insert(
            id,
            PlannedVip {
                service: service.guard_name(),
                address: *address,
                members: Vec::new(),
                label,
            },
        );
        for peer in peers(service) {
            plan.put_vip(endpoint_of(peer, 0, 0), PEER);
        }
    }
    Ok(())
}

/// Where the member is reached, by clients and by who watches it.
fn endpoints<'a>(
    service: &'a MysqlService,
    member: &'a MysqlMember,
) -> impl Iterator<Item = SocketAddr> + 'a {
    let ports = [Some(member.port), service.check.admin_port];
    member.addresses.iter().flat_map(move |address| {
        let ports = ports.into_iter().flatten();
        ports.map(move |port| SocketAddr::new(address, port.get()))
    })
}

/// Who must reach a member to mend it.
fn peers(service: &MysqlService) -> impl Iterator<Item = IpAddr> {
    let balancers = service.balancers.iter();
    let members = service.members.iter();
    balancers
        .flat_map(|balancer| balancer.addresses.iter())
        .chain(members.flat_map(|member| member.addresses.iter()))
}

const PEER: Vip = Vip {
    vip: 0,
    sum: 0,
    flags: Vip::PEER,
    zero: 0,
};

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr, path::Path};

    use super::*;
    use crate::config;

    #[test]
    fn a_member_guards_its_ports_on_its_own_node_and_knows_its_peers() {
        let text = r#"
version = 1
[hosts]
lb1 = { private = "10.0.0.10" }
web1 = { private = "10.0.0.11" }
web2 = { private = "10.0.0.12" }
[nodes]
lb1 = { lan = { dev = "eth0" } }
web1 = { lan = { dev = "eth0" } }
web2 = { lan = { dev = "eth0" } }
[mysql.app]
on = "lb1"
write = "private:3306"
members = ["web1:3306", "web2:3306"]
check = { user = "m", password = { env = "P" }, admin-port = 3308 }
guard = "3s"
"#;
        let config = config::parse(text, Path::new("test.toml")).expect("a good configuration");
        let with = |node, flags: u32| {
            let plan = super::super::plan(&config, node, &mut Labels::default()).expect("room");
            let vips = plan.vips_v4.into_iter();
            vips.filter(|(_, vip)| vip.flags & flags != 0)
                .map(|(key, _)| (Ipv4Addr::from(key.address.to_ne_bytes()), key.port.to_be()))
                .collect::<BTreeSet<_>>()
        };
        let own = Ipv4Addr::new(10, 0, 0, 11);
        assert_eq!(
            with("web1", Vip::GUARDED),
            [(own, 3306), (own, 3308)].into()
        );
        assert_eq!(with("web1", Vip::PEER).len(), 3);
        assert_eq!(with("lb1", Vip::GUARDED | Vip::PEER), [].into());
    }
}
