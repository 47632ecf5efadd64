//! A configuration compiled for this node: all that follows from it alone.

use std::collections::HashMap;

use foobar_ebpf::abi::LabelKey;

use super::{rules, upstreams::SitePlan};
use crate::{
    balancer::{self, Plan},
    config::{self, Config, Interface},
    firewall::{self, CompileError, Ruleset},
    kernel::Hook,
    labels::{Full, Kind, Labels},
};

#[derive(Clone, Debug)]
pub struct Estate {
    pub config: Config,
    pub labels: Labels,
    pub ruleset: Ruleset,
    pub plan: Plan,
    pub sites: SitePlan,
    pub hooks: Vec<Hook>,
    node: String,
}

/// Why a configuration without mistakes cannot run on this node all the same.
#[derive(Debug, thiserror::Error)]
pub enum EstateError {
    #[error("the configuration has no node `{node}`; it has {present}; name one with --node")]
    NoNode { node: String, present: String },
    #[error(transparent)]
    Ruleset(#[from] CompileError),
    #[error(transparent)]
    Plan(#[from] balancer::PlanError),
    #[error(transparent)]
    Sites(#[from] Full),
}

impl Estate {
    pub fn compile(
        config: Config,
        node: &str,
        mut labels: Labels,
        generation: u64,
    ) -> Result<Self, EstateError> {
        let Some(interfaces) = config.nodes.get(node).map(|node| &node.interfaces) else {
            return Err(EstateError::NoNode {
                node: node.to_owned(),
                present: config
                    .nodes
                    .keys()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        };
        let ruleset = firewall::compile(&config, node, &mut labels, generation)?;
        let plan = balancer::plan(&config, node, &mut labels)?;
        let services = config.l7.values().filter(|service| service.on == node);
        let sites = SitePlan::new(services, &mut labels)?;
        let hooks = interfaces
            .iter()
            .zip(&ruleset.interfaces)
            .map(|(interface, id)| Hook {
                id: *id,
                interface: interface.name.clone(),
                device: interface.device.clone(),
                mode: interface.xdp,
            })
            .collect();
        Ok(Self {
            labels,
            ruleset,
            plan,
            sites,
            hooks,
            node: node.to_owned(),
            config,
        })
    }

    pub fn interfaces(&self) -> &[Interface] {
        self.config
            .nodes
            .get(&self.node)
            .map_or(&[], |node| &node.interfaces)
    }

    /// The names of the ids in use, those of vanished names left out.
    pub fn live_labels(&self) -> HashMap<LabelKey, String> {
        rules::live_labels(&self.config, self.interfaces(), &self.labels)
            .into_iter()
            .chain(self.plan.labels(&self.labels))
            .chain(self.sites.labels())
            .collect()
    }

    /// The services that this node balances.
    pub fn services(&self) -> impl Iterator<Item = &config::L4Service> {
        self.config
            .l4
            .values()
            .filter(|service| service.on == self.node)
    }

    /// The clusters whose addresses are here.
    pub fn clusters(&self) -> impl Iterator<Item = &config::MysqlService> {
        self.config
            .mysql
            .values()
            .filter(|service| service.balancer(&self.node).is_some())
    }

    /// The sets with their ids.
    pub fn sets(&self) -> impl Iterator<Item = (&config::Set, u32)> {
        self.config.sets.values().filter_map(|set| {
            let id = self.labels.find(Kind::Set, &set.name)?;
            Some((set, id))
        })
    }

    /// What it holds, one line each.
    pub fn summary(&self) -> Vec<String> {
        let interfaces = self.interfaces().iter().map(|interface| {
            let policy = |policy: &Option<String>| policy.clone().unwrap_or("none".to_owned());
            format!(
                "+ interface {} on {} (ingress {}, egress {})",
                interface.name,
                interface.device,
                policy(&interface.ingress),
                policy(&interface.egress)
            )
        });
        let policies = rules::policies(&self.config, self.interfaces())
            .into_iter()
            .flat_map(|policy| {
                policy
                    .rules
                    .iter()
                    .map(|rule| format!("+ rule {}/{}", policy.name, rule.name))
            });
        let services = self.services().flat_map(|service| {
            let vips = service
                .vips
                .iter()
                .map(|vip| format!("+ vip l4.{} {vip}", service.name));
            let backends = service.backends.iter().map(|backend| {
                format!(
                    "+ backend l4.{} {}:{}",
                    service.name, backend.host, backend.port
                )
            });
            vips.chain(backends).collect::<Vec<_>>()
        });
        let clusters = self.clusters().flat_map(|service| {
            let here = service.balancer(&self.node).into_iter();
            here.flat_map(|here| {
                let addresses = here.write.iter().map(|address| ("write", address));
                addresses.chain(here.read.iter().map(|address| ("read", address)))
            })
            .map(|(role, address)| format!("+ {role} mysql.{} {address}", service.name))
            .collect::<Vec<_>>()
        });
        let sites = self.sites.sites.iter().flat_map(|site| {
            let service = &site.service;
            let endpoints = service
                .listen
                .iter()
                .map(|endpoint| format!("+ listen l7.{} {endpoint}", service.name));
            let backends = service.backends.iter().map(|backend| {
                format!(
                    "+ backend l7.{} {}:{}",
                    service.name, backend.host, backend.port
                )
            });
            endpoints.chain(backends).collect::<Vec<_>>()
        });
        interfaces
            .chain(policies)
            .chain(services)
            .chain(clusters)
            .chain(sites)
            .collect()
    }
}
