//! Services as people are told of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::Balancing;
use crate::{
    admin::api::{BackendState, BackendStatus, ServiceStatus},
    balancer::{Availability, Health, PlannedBackend, PlannedVip, is_of_a_cluster},
    routes::NextHop,
};

/// What a person should know about a part of the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remark {
    pub text: String,
    /// It makes the node unhealthy.
    pub grave: bool,
}

impl Remark {
    pub fn note(text: String) -> Self {
        Self { text, grave: false }
    }

    pub fn grave(text: String) -> Self {
        Self { text, grave: true }
    }
}

impl Balancing {
    pub fn services(&self) -> Vec<ServiceStatus> {
        let names: BTreeSet<&str> = self
            .plan
            .vips
            .values()
            .map(|vip| vip.service.as_str())
            .filter(|service| !is_of_a_cluster(service))
            .collect();
        names.into_iter().map(|name| self.service(name)).collect()
    }

    pub fn remarks(&self, hops: &BTreeMap<IpAddr, NextHop>) -> Vec<Remark> {
        let availability = self.availability();
        let is_up = |id: &u32| availability.get(id) == Some(&Availability::Up);
        let mut remarks = Vec::new();
        // Of clusters their own status tells.
        let checked = |vip: &&PlannedVip| !is_of_a_cluster(&vip.service);
        for vip in self.plan.vips.values().filter(checked) {
            let taking = vip.members.iter().filter(|id| is_up(id)).count();
            let checked = self
                .members(vip)
                .filter(|(id, _)| self.state(*id) == BackendState::Up)
                .count();
            if vip.members.is_empty() {
                remarks.push(Remark::grave(format!(
                    "{}: none of its backends has an address of its family",
                    vip.label
                )));
            } else if taking == 0 {
                remarks.push(Remark::grave(format!(
                    "{}: no backend takes new connections",
                    vip.label
                )));
            } else if checked == 0 {
                remarks.push(Remark::grave(format!(
                    "{}: the checks of all backends fail; all are kept in service",
                    vip.label
                )));
            }
            for (id, planned) in self.members(vip) {
                if self.state(id) == BackendState::Down {
                    remarks.push(Remark::note(format!(
                        "{}: down{}",
                        planned.label,
                        self.health
                            .get(&id)
                            .and_then(Health::detail)
                            .map(|detail| format!(": {detail}"))
                            .unwrap_or_default()
                    )));
                } else if let Some(trouble) = hops.get(&planned.address).map(|hop| hop.trouble) {
                    remarks.extend(trouble.map(|trouble| {
                        Remark::grave(format!(
                            "{}: packets cannot be sent to it: {trouble}",
                            planned.label
                        ))
                    }));
                }
            }
        }
        remarks
    }

    fn service(&self, name: &str) -> ServiceStatus {
        let of_service = |service: &str| service == name;
        let mut hosts: Vec<Vec<(u32, &PlannedBackend)>> = Vec::new();
        let mut places = HashMap::new();
        for (id, planned) in &self.plan.backends {
            if of_service(&planned.service) {
                let place = *places
                    .entry((planned.host.as_str(), planned.port))
                    .or_insert(hosts.len());
                match hosts.get_mut(place) {
                    Some(addresses) => addresses.push((*id, planned)),
                    None => hosts.push(vec![(*id, planned)]),
                }
            }
        }
        let worst = |addresses: &Vec<(u32, &PlannedBackend)>| {
            let of_many = addresses.len() > 1;
            let statuses = addresses
                .iter()
                .map(|(id, planned)| self.backend(*id, planned, of_many));
            // Of two that are equally bad, the first.
            statuses.rev().max_by_key(|status| severity(status.state))
        };
        ServiceStatus {
            name: format!("l4.{name}"),
            vips: self
                .plan
                .vips
                .values()
                .filter(|vip| of_service(&vip.service))
                .map(|vip| vip.address.to_string())
                .collect(),
            backends: hosts.iter().filter_map(worst).collect(),
        }
    }

    /// Where a host has two addresses, what is wrong names one.
    fn backend(&self, id: u32, planned: &PlannedBackend, of_many: bool) -> BackendStatus {
        let health = self.health.get(&id);
        let detail = health.and_then(Health::detail).map(|detail| match of_many {
            true => format!("{}: {detail}", planned.address),
            false => detail.to_owned(),
        });
        BackendStatus {
            host: planned.host.clone(),
            port: planned.port,
            weight: health.map_or(planned.weight, |health| health.weight(planned.weight)),
            state: self.state(id),
            detail,
            check_milliseconds: self.took.get(&id).map(|took| took.as_secs_f64() * 1e3),
        }
    }
}

/// Of two families' states the worse one is told.
fn severity(state: BackendState) -> u8 {
    match state {
        BackendState::Up => 0,
        BackendState::Drain => 1,
        BackendState::Disabled => 2,
        BackendState::Unknown => 3,
        BackendState::Down => 4,
    }
}
