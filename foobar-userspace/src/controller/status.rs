//! How the controller is, in the words of the administration.

use std::{
    collections::{BTreeMap, BTreeSet},
    process,
    time::{Duration, UNIX_EPOCH},
};

use foobar_ebpf::verdict::Reason;

use super::{Controller, balancing::Remark, refusal};
use crate::{
    admin::api::{InterfaceStatus, Refusal, ServiceStatus, Status},
    config::{Action, Policy, Traffic, XdpMode},
    kernel::{self, EgressMode, IngressMode, KernelError},
};

/// What is wrong at the moment, by cause: a cause that goes away takes its trouble with it.
#[derive(Clone, Debug, Default)]
pub struct Troubles(BTreeMap<&'static str, Trouble>);

#[derive(Clone, Debug)]
struct Trouble {
    text: String,
    grave: bool,
}

impl Troubles {
    /// Something to know; the node is healthy all the same.
    pub fn note(&mut self, cause: &'static str, text: String) {
        self.set(cause, text, false);
    }

    /// Something that makes the node unhealthy.
    pub fn grave(&mut self, cause: &'static str, text: String) {
        self.set(cause, text, true);
    }

    pub fn clear(&mut self, cause: &'static str) {
        if let Some(trouble) = self.0.remove(cause) {
            tracing::info!(cause, "over: {}", trouble.text);
        }
    }

    pub fn has(&self, cause: &str) -> bool {
        self.0.contains_key(cause)
    }

    fn set(&mut self, cause: &'static str, text: String, grave: bool) {
        let known = self
            .0
            .get(cause)
            .is_some_and(|trouble| trouble.text == text);
        if !known {
            tracing::warn!(cause, "{text}");
        }
        self.0.insert(cause, Trouble { text, grave });
    }
}

impl Controller {
    pub(super) fn status(&self) -> Result<Status, Refusal> {
        let mut remarks: Vec<Remark> = self
            .troubles
            .0
            .values()
            .map(|trouble| Remark {
                text: trouble.text.clone(),
                grave: trouble.grave,
            })
            .collect();
        remarks.extend(kernel::warnings().into_iter().map(Remark::note));
        remarks.extend(self.about_interfaces().map_err(|error| refusal(&error))?);
        remarks.extend(self.balancing.remarks(&self.hops));
        remarks.extend(self.about_kinds());
        remarks.extend(self.proxying.remarks());
        remarks.extend(self.about_closed_doors());
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.options.node.clone(),
            pid: process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            configuration: self.options.config.display().to_string(),
            loaded_at: self
                .loaded_at
                .duration_since(UNIX_EPOCH)
                .unwrap_or(Duration::ZERO)
                .as_secs(),
            generation: self.estate.ruleset.generation,
            healthy: !remarks.iter().any(|remark| remark.grave),
            warnings: remarks.into_iter().map(|remark| remark.text).collect(),
            interfaces: self.interfaces(),
            services: self.services(),
        })
    }

    pub(super) fn interfaces(&self) -> Vec<InterfaceStatus> {
        let attachments = self.deployment.attachments();
        self.estate
            .interfaces()
            .iter()
            .map(|interface| {
                let attachment = attachments
                    .iter()
                    .find(|attachment| attachment.hook.interface == interface.name);
                InterfaceStatus {
                    name: interface.name.clone(),
                    device: interface.device.clone(),
                    xdp: match attachment.map(|attachment| attachment.ingress) {
                        Some(IngressMode::Native) => "native",
                        Some(IngressMode::Generic) => "generic",
                        None => "none",
                    }
                    .to_owned(),
                    egress: match attachment.map(|attachment| attachment.egress) {
                        Some(EgressMode::Tcx) => "tcx",
                        Some(EgressMode::Clsact) => "clsact",
                        None => "none",
                    }
                    .to_owned(),
                    ingress_policy: interface.ingress.clone(),
                    egress_policy: interface.egress.clone(),
                }
            })
            .collect()
    }

    pub(super) fn services(&self) -> Vec<ServiceStatus> {
        let sites = self.proxying.upstreams().statuses();
        self.balancing.services().into_iter().chain(sites).collect()
    }

    /// A site whose port no interface lets in answers nobody.
    fn about_closed_doors(&self) -> Vec<Remark> {
        let config = &self.estate.config;
        let admits = |port: u16| {
            self.estate.interfaces().iter().any(|interface| {
                let policy = interface
                    .ingress
                    .as_ref()
                    .and_then(|name| config.policies.get(name));
                policy.is_none_or(|policy| lets_in(policy, port))
            })
        };
        let mut remarks = Vec::new();
        for site in &self.estate.sites.sites {
            let service = &site.service;
            let endpoints = service.listen.iter().chain(&service.redirect);
            let ports: BTreeSet<u16> = endpoints.map(|endpoint| endpoint.port()).collect();
            for port in ports.into_iter().filter(|port| !admits(*port)) {
                remarks.push(Remark::note(format!(
                    "l7.{}: no interface of this node lets tcp/{port} in; add `{{ name = \"{}\", allow = [\"tcp/{port}\"] }}` to its ingress policy",
                    service.name, service.name
                )));
            }
        }
        remarks
    }

    /// Identical servers share their faults.
    fn about_kinds(&self) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for service in self.estate.services() {
            let kinds = |only_up: bool| -> BTreeSet<&str> {
                service
                    .backends
                    .iter()
                    .filter(|backend| {
                        !only_up
                            || self.balancing.is_up(
                                &service.name,
                                &backend.host,
                                backend.port.get(),
                            )
                    })
                    .map(|backend| backend.kind.as_deref().unwrap_or_default())
                    .collect()
            };
            if let (true, [kind]) = (
                kinds(false).len() > 1,
                kinds(true).into_iter().collect::<Vec<_>>().as_slice(),
            ) {
                remarks.push(Remark::note(format!(
                    "l4.{}: all backends that are up are of the kind `{kind}`; what breaks one may break all",
                    service.name
                )));
            }
        }
        remarks
    }

    fn about_interfaces(&self) -> Result<Vec<Remark>, KernelError> {
        let mut remarks: Vec<Remark> = self
            .deployment
            .lost()?
            .into_iter()
            .map(|hook| {
                Remark::grave(format!(
                    "interface {}: the device {} is gone",
                    hook.interface, hook.device
                ))
            })
            .collect();
        for attachment in self.deployment.attachments() {
            let hook = &attachment.hook;
            if attachment.ingress == IngressMode::Generic && hook.mode == XdpMode::Auto {
                remarks.push(Remark::note(format!(
                    "interface {}: {} runs XDP in generic mode, many times slower; its driver takes no native programs",
                    hook.interface, hook.device
                )));
            }
            let internal: u64 = self
                .deployment
                .tables()
                .verdicts(hook.id)?
                .into_iter()
                .filter(|(_, reason, _)| *reason == Reason::Internal)
                .map(|(_, _, tally)| tally.packets)
                .sum();
            if internal > 0 {
                remarks.push(Remark::grave(format!(
                    "interface {}: {internal} packets were dropped for a fault of foobar's own (`internal`); please report it",
                    hook.interface
                )));
            }
        }
        Ok(remarks)
    }
}

/// Whether some source's packets to `port` pass.
fn lets_in(policy: &Policy, port: u16) -> bool {
    let meets = |traffic: &Traffic| match traffic {
        Traffic::Any => true,
        Traffic::Tcp(ports) => (ports.first..=ports.last).contains(&port),
        _ => false,
    };
    policy.default == Action::Allow
        || policy
            .rules
            .iter()
            .any(|rule| rule.action == Action::Allow && rule.traffic.iter().any(meets))
}
