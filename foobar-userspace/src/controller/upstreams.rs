//! The backends of this node's sites: their health and what operators want of them.
//!
//! The states are those of the packet path's backends ([`crate::balancer::health`]); what follows from them are not
//! rings but a table that the proxy's workers choose from, request by request.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    balancing::{Remark, Wishes},
    checks::{Aim, Observation},
};
use crate::{
    admin::api::{BackendState, BackendStatus, BackendWish, Refusal, ServiceStatus},
    balancer::{Availability, Health, Observed, health::availabilities_above},
    config::{Backend, L7Service},
    labels::{self, Full, Kind, Labels},
};

/// The sites of a node with the dense ids of their counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SitePlan {
    pub sites: Vec<PlannedSite>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PlannedSite {
    pub id: u32,
    pub service: L7Service,
    /// In the order of the configuration.
    pub backends: Vec<u32>,
}

/// A backend as the proxy's table has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    pub id: u32,
    pub address: SocketAddr,
    pub weight: u16,
    pub availability: Availability,
    /// Since when it is up, if it was down before.
    pub since: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    plan: SitePlan,
    health: BTreeMap<u32, Health>,
    since: BTreeMap<u32, Instant>,
    took: BTreeMap<u32, Duration>,
    wishes: Wishes,
}

impl SitePlan {
    /// # Errors
    /// More sites or backends than there are counters for.
    pub fn new<'a>(
        services: impl Iterator<Item = &'a L7Service>,
        labels: &mut Labels,
    ) -> Result<Self, Full> {
        let services: Vec<&L7Service> = services.collect();
        let names: Vec<String> = services
            .iter()
            .map(|service| labels::site(&service.name))
            .collect();
        let ids = labels.assign(Kind::Site, &names)?;
        let backends: Vec<String> = services
            .iter()
            .flat_map(|service| {
                service
                    .backends
                    .iter()
                    .map(|backend| label(service, backend))
            })
            .collect();
        let mut backends = labels.assign(Kind::SiteBackend, &backends)?.into_iter();
        let sites = services
            .into_iter()
            .zip(ids)
            .map(|(service, id)| PlannedSite {
                id,
                backends: backends.by_ref().take(service.backends.len()).collect(),
                service: service.clone(),
            })
            .collect();
        Ok(Self { sites })
    }

    /// The names of the ids in use.
    pub fn labels(&self) -> impl Iterator<Item = (foobar_ebpf::abi::LabelKey, String)> {
        let sites = self
            .sites
            .iter()
            .map(|site| (Kind::Site.key(site.id), labels::site(&site.service.name)));
        let backends = self
            .pairs()
            .map(|(service, id, backend)| (Kind::SiteBackend.key(id), label(service, backend)));
        sites
            .chain(backends)
            .map(|(key, label)| (key, labels::fit(&label).into_owned()))
    }

    fn pairs(&self) -> impl Iterator<Item = (&L7Service, u32, &Backend)> {
        self.sites.iter().flat_map(|site| {
            let backends = site.backends.iter().zip(&site.service.backends);
            backends.map(|(id, backend)| (&site.service, *id, backend))
        })
    }
}

fn label(service: &L7Service, backend: &Backend) -> String {
    labels::site_backend(&service.name, &backend.host, backend.port.get())
}

/// The proxy has one connection to choose, not one a family: IPv4 where there is one.
fn address(backend: &Backend) -> Option<SocketAddr> {
    let address = backend.addresses.iter().next()?;
    Some(SocketAddr::new(address, backend.port.get()))
}

impl Upstreams {
    pub fn new(wishes: Wishes) -> Self {
        Self {
            wishes,
            ..Self::default()
        }
    }

    /// The same under another plan; who is in both keeps its health.
    #[must_use]
    pub fn replanned(&self, plan: SitePlan) -> Self {
        let checked: BTreeMap<u32, bool> = self
            .plan
            .pairs()
            .map(|(service, id, _)| (id, service.check.is_some()))
            .collect();
        let health: BTreeMap<u32, Health> = plan
            .pairs()
            .map(|(service, id, _)| {
                let is_checked = service.check.is_some();
                let known = self
                    .health
                    .get(&id)
                    .filter(|_| checked.get(&id) == Some(&is_checked));
                let new = || match is_checked {
                    true => Health::new(Observed::Unknown),
                    false => Health::unchecked(),
                };
                (id, known.cloned().unwrap_or_else(new))
            })
            .collect();
        let mut next = Self {
            since: retained(&self.since, &health),
            took: retained(&self.took, &health),
            wishes: self.wishes.clone(),
            health,
            plan,
        };
        next.impose_wishes();
        next
    }

    pub fn plan(&self) -> &SitePlan {
        &self.plan
    }

    /// Which one `backend` of `site` is: `web1:8443` of `www`.
    #[must_use]
    pub fn find(&self, site: &str, backend: &str) -> Option<u32> {
        let mut pairs = self.plan.pairs();
        pairs
            .find(|(service, _, known)| service.name == site && *endpoint(known) == *backend)
            .map(|(_, id, _)| id)
    }

    /// Where the checks ask.
    pub fn aims(&self) -> HashMap<u32, Aim> {
        self.plan
            .pairs()
            .filter_map(|(service, id, backend)| {
                Some((id, (address(backend)?, service.check.clone()?)))
            })
            .collect()
    }

    /// True when it changes what the proxy may choose.
    pub fn observe(&mut self, observation: Observation<u32>, now: Instant) -> bool {
        let id = observation.target;
        let Some((service, _, backend)) = self.plan.pairs().find(|(_, of, _)| *of == id) else {
            return false;
        };
        let (Some(check), Some(health)) = (&service.check, self.health.get_mut(&id)) else {
            return false;
        };
        if let Ok(took) = observation.result {
            self.took.insert(id, took);
        }
        let before = health.observed();
        if !health.observe(observation.result.map(drop), check.rise, check.fall) {
            return false;
        }
        let (service, backend) = (labels::site(&service.name), &*endpoint(backend));
        match health.observed() {
            Observed::Up => {
                tracing::info!(service, backend, "up");
                if before == Observed::Down {
                    self.since.insert(id, now);
                }
            }
            _ => {
                let reason = health.detail().unwrap_or_default();
                tracing::warn!(service, backend, reason, "down");
            }
        }
        true
    }

    /// Whether every backend that is checked was.
    pub fn knows_all(&self) -> bool {
        self.health
            .values()
            .all(|health| health.observed() != Observed::Unknown || health.detail().is_some())
    }

    /// `service` is `l7.www` or `www`.
    #[must_use]
    pub fn has(&self, service: &str) -> bool {
        let name = service.strip_prefix("l7.").unwrap_or(service);
        self.plan.sites.iter().any(|site| site.service.name == name)
    }

    /// `backend` is `web2` or `web2:8443`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] says what there is.
    pub fn wish(
        &mut self,
        service: &str,
        backend: &str,
        wish: BackendWish,
    ) -> Result<String, Refusal> {
        let name = service.strip_prefix("l7.").unwrap_or(service);
        let of_service: Vec<(String, String)> = self
            .plan
            .pairs()
            .filter(|(service, _, _)| service.name == name)
            .map(|(service, _, known)| {
                (
                    format!("{}:{}", known.host, known.port),
                    label(service, known),
                )
            })
            .collect();
        let chosen: Vec<&(String, String)> = of_service
            .iter()
            .filter(|(endpoint, _)| {
                endpoint == backend
                    || endpoint
                        .split_once(':')
                        .is_some_and(|(host, _)| host == backend)
            })
            .collect();
        if chosen.is_empty() {
            let known: Vec<String> = of_service
                .iter()
                .map(|(endpoint, _)| format!("`{endpoint}`"))
                .collect();
            return Err(Refusal::NotFound {
                message: format!(
                    "l7.{name} has no backend `{backend}`; there is {}",
                    known.join(", ")
                ),
            });
        }
        for (_, label) in &chosen {
            match wish {
                BackendWish::Enable => self.wishes.remove(label),
                wish => self.wishes.insert(label.clone(), wish),
            };
        }
        let names: Vec<&str> = chosen
            .iter()
            .map(|(endpoint, _)| endpoint.as_str())
            .collect();
        let names = names.join(", ");
        self.impose_wishes();
        Ok(match wish {
            BackendWish::Enable => format!("{names} of l7.{name} takes requests again"),
            BackendWish::Drain => {
                format!("{names} of l7.{name} drains: it ends its requests and gets no new ones")
            }
            BackendWish::Disable => format!("{names} of l7.{name} is out of service"),
            BackendWish::Weight(weight) => format!("{names} of l7.{name} has weight {weight} now"),
        })
    }

    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// What the proxy may choose from at `site`, in the order of the configuration.
    pub fn standings(&self, site: &PlannedSite) -> Vec<Standing> {
        let members: Vec<(u32, &Backend, &Health)> = site
            .backends
            .iter()
            .zip(&site.service.backends)
            .filter_map(|(id, backend)| Some((*id, backend, self.health.get(id)?)))
            .collect();
        let weighed: Vec<(&Health, u16)> = members
            .iter()
            .map(|(_, backend, health)| (*health, backend.weight))
            .collect();
        let available = availabilities_above(&weighed, site.service.panic_percent);
        members
            .into_iter()
            .zip(available)
            .filter_map(|((id, backend, health), availability)| {
                Some(Standing {
                    id,
                    address: address(backend)?,
                    weight: health.weight(backend.weight),
                    availability,
                    since: self.since.get(&id).copied(),
                })
            })
            .collect()
    }

    pub fn statuses(&self) -> Vec<ServiceStatus> {
        let status = |site: &PlannedSite| ServiceStatus {
            name: labels::site(&site.service.name),
            vips: site
                .service
                .listen
                .iter()
                .map(ToString::to_string)
                .collect(),
            backends: site
                .backends
                .iter()
                .zip(&site.service.backends)
                .map(|(id, backend)| self.status(*id, backend))
                .collect(),
        };
        self.plan.sites.iter().map(status).collect()
    }

    fn status(&self, id: u32, backend: &Backend) -> BackendStatus {
        let health = self.health.get(&id);
        BackendStatus {
            host: backend.host.clone(),
            port: backend.port.get(),
            weight: health.map_or(backend.weight, |health| health.weight(backend.weight)),
            state: self.state(id),
            detail: health.and_then(Health::detail).map(str::to_owned),
            check_milliseconds: self.took.get(&id).map(|took| took.as_secs_f64() * 1e3),
        }
    }

    fn state(&self, id: u32) -> BackendState {
        self.health
            .get(&id)
            .map_or(BackendState::Unknown, Health::state)
    }

    pub fn remarks(&self) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for site in &self.plan.sites {
            let name = labels::site(&site.service.name);
            let up = |id: &&u32| self.state(**id) == BackendState::Up;
            let taking = |standing: &&Standing| standing.availability == Availability::Up;
            let standings = self.standings(site);
            let healthy = site.backends.iter().filter(up).count();
            let taking = standings.iter().filter(taking).count();
            if taking == 0 {
                remarks.push(Remark::grave(format!("{name}: no backend takes requests")));
            } else if healthy == 0 {
                remarks.push(Remark::grave(format!(
                    "{name}: the checks of all backends fail; all are kept in service"
                )));
            } else if taking > healthy {
                remarks.push(Remark::note(format!(
                    "{name}: less than {} % of the weights are healthy; those that fail their checks are kept in service",
                    site.service.panic_percent
                )));
            }
            for (id, backend) in site.backends.iter().zip(&site.service.backends) {
                if self.state(*id) == BackendState::Down {
                    let detail = self.health.get(id).and_then(Health::detail);
                    let detail = detail
                        .map(|detail| format!(": {detail}"))
                        .unwrap_or_default();
                    remarks.push(Remark::note(format!(
                        "{}: down{detail}",
                        label(&site.service, backend)
                    )));
                }
            }
            remarks.extend(self.about_kind(site));
            if site.service.backend_tls.is_none() {
                remarks.push(Remark::note(format!(
                    "{name}: requests go to its backends in clear; `backend-tls` encrypts them"
                )));
            }
        }
        remarks
    }

    /// Identical servers share their faults.
    fn about_kind(&self, site: &PlannedSite) -> Option<Remark> {
        let kinds = |only_up: bool| -> BTreeSet<&str> {
            site.backends
                .iter()
                .zip(&site.service.backends)
                .filter(|(id, _)| !only_up || self.state(**id) == BackendState::Up)
                .map(|(_, backend)| backend.kind.as_deref().unwrap_or_default())
                .collect()
        };
        let up: Vec<&str> = kinds(true).into_iter().collect();
        match up.as_slice() {
            [kind] if kinds(false).len() > 1 => Some(Remark::note(format!(
                "l7.{}: all backends that are up are of the kind `{kind}`; what breaks one may break all",
                site.service.name
            ))),
            _ => None,
        }
    }

    fn impose_wishes(&mut self) {
        for (service, id, backend) in self.plan.pairs() {
            let wish = self.wishes.get(&label(service, backend)).copied();
            if let Some(health) = self.health.get_mut(&id) {
                health.wish(wish.unwrap_or(BackendWish::Enable));
            }
        }
    }
}

fn retained<T: Clone>(
    known: &BTreeMap<u32, T>,
    wanted: &BTreeMap<u32, Health>,
) -> BTreeMap<u32, T> {
    known
        .iter()
        .filter(|(id, _)| wanted.contains_key(id))
        .map(|(id, value)| (*id, value.clone()))
        .collect()
}

/// `web1:8443`
pub fn endpoint(backend: &Backend) -> Arc<str> {
    format!("{}:{}", backend.host, backend.port).into()
}
