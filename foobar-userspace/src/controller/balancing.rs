//! The services of this node under way: health and wishes of the backends, and the rings that follow from them.

mod describe;
mod epochs;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use foobar_ebpf::abi::{self, EndpointV4, EndpointV6, LabelKey, Remembered, Return};

pub use self::describe::Remark;
use self::epochs::Epochs;
use super::{apply::NO_BACKEND, checks::Aim, checks::Observation, hops};
use crate::{
    admin::api::{BackendState, BackendWish, Refusal},
    balancer::{
        Availability, Health, Member, Observed, Plan, PlannedBackend, PlannedVip, Ring, VipRing,
        availabilities, is_of_a_cluster, ring::SETTLE,
    },
    config::OnLoss,
    routes::NextHop,
};

/// Wishes by the label of the backend.
pub type Wishes = BTreeMap<String, BackendWish>;

#[derive(Clone, Debug)]
pub struct Balancing {
    plan: Plan,
    health: BTreeMap<u32, Health>,
    /// What members of clusters get by their roles.
    imposed: BTreeMap<u32, Availability>,
    wishes: Wishes,
    took: BTreeMap<u32, Duration>,
    rings: BTreeMap<u32, VipRing>,
    epochs: Epochs,
    /// Vips whose rings no packet has seen: those are made anew rather than handed over.
    unseen: BTreeSet<u32>,
}

impl Balancing {
    /// Goes on from what an earlier controller left: a backend that has slots is up until the checks say otherwise, so
    /// that a restart moves no slot.
    pub fn restore<E>(
        plan: Plan,
        wishes: Wishes,
        labels: &HashMap<LabelKey, String>,
        ring: impl Fn(u32) -> Result<Option<Ring>, E>,
        present: impl Fn(u32) -> Result<abi::Backend, E>,
        now: Instant,
    ) -> Result<Self, E> {
        let known = |kind, id, label: &String| labels.get(&LabelKey { kind, id }) == Some(label);
        let mut rings = BTreeMap::new();
        for (id, vip) in &plan.vips {
            if known(LabelKey::VIP, *id, &vip.label)
                && let Some(slots) = ring(*id)?
            {
                rings.insert(*id, VipRing::adopt(slots, now));
            }
        }
        let unseen = plan
            .vips
            .keys()
            .filter(|id| !rings.contains_key(id))
            .copied()
            .collect();
        let mut health = BTreeMap::new();
        let mut imposed = BTreeMap::new();
        for (id, vip) in &plan.vips {
            let owners: Option<BTreeSet<u32>> = rings
                .get(id)
                .map(|ring| ring.slots().iter().map(|slot| slot.current()).collect());
            for member in &vip.members {
                let Some(backend) = plan.backends.get(member) else {
                    continue;
                };
                let was_there = known(LabelKey::BACKEND, *member, &backend.label);
                let observed = match &owners {
                    Some(owners) if was_there && owners.contains(member) => Observed::Up,
                    Some(_) if was_there => Observed::Down,
                    _ => Observed::Unknown,
                };
                health.insert(*member, first_health(backend, observed));
                if is_of_a_cluster(&vip.service) && observed == Observed::Up {
                    imposed.insert(*member, Availability::Up);
                }
            }
        }
        let mut epochs = Epochs::default();
        for (id, backend) in &plan.backends {
            if known(LabelKey::BACKEND, *id, &backend.label) {
                epochs.adopt(*id, present(*id)?);
            }
        }
        let mut balancing = Self {
            plan,
            health,
            imposed,
            wishes,
            took: BTreeMap::new(),
            rings,
            epochs,
            unseen,
        };
        balancing.impose_wishes();
        balancing.steer(now);
        Ok(balancing)
    }

    /// The same backends under another plan; what both plans have keeps its health and its ring.
    pub fn replanned(&self, plan: Plan, now: Instant) -> Self {
        let health = plan
            .backends
            .iter()
            .map(|(id, backend)| {
                let before = self.plan.backends.get(id);
                let same = before.is_some_and(|before| {
                    before.label == backend.label
                        && before.check.is_some() == backend.check.is_some()
                });
                let health = match self.health.get(id) {
                    Some(health) if same => health.clone(),
                    _ => first_health(backend, Observed::Unknown),
                };
                (*id, health)
            })
            .collect();
        let rings = self
            .rings
            .iter()
            .filter(|(id, _)| {
                let label = |plan: &Plan| plan.vips.get(id).map(|vip| vip.label.clone());
                label(&self.plan).is_some() && label(&self.plan) == label(&plan)
            })
            .map(|(id, ring)| (*id, ring.clone()))
            .collect();
        let mut balancing = Self {
            took: self.took.clone(),
            wishes: self.wishes.clone(),
            unseen: self.unseen.clone(),
            imposed: self
                .imposed
                .iter()
                .filter(|(id, _)| {
                    let label =
                        |plan: &Plan| plan.backends.get(id).map(|backend| backend.label.clone());
                    label(&self.plan) == label(&plan)
                })
                .map(|(id, availability)| (*id, *availability))
                .collect(),
            epochs: self.epochs.clone(),
            plan,
            health,
            rings,
        };
        balancing.impose_wishes();
        balancing.steer(now);
        balancing
    }

    /// True when backends or rings changed.
    pub fn observe(&mut self, observation: Observation<u32>, now: Instant) -> bool {
        let id = observation.target;
        let (Some(backend), Some(health)) = (self.plan.backends.get(&id), self.health.get_mut(&id))
        else {
            return false;
        };
        let Some(check) = &backend.check else {
            return false;
        };
        if let Ok(took) = observation.result {
            self.took.insert(id, took);
        }
        let result = observation.result.map(drop);
        if !health.observe(result, check.rise, check.fall) {
            return false;
        }
        let mut words = backend.label.split(' ');
        let (service, backend, address) = (words.next(), words.next(), words.next());
        match health.observed() {
            Observed::Up => tracing::info!(service, backend, address, "up"),
            _ => tracing::warn!(
                service,
                backend,
                address,
                reason = health.detail().unwrap_or_default(),
                "down"
            ),
        }
        self.steer(now);
        true
    }

    /// Gives the members of a cluster's endpoint (`mysql.app.write`) what their roles let them have; true when something
    /// changed.
    pub fn impose(
        &mut self,
        endpoint: &str,
        shares: &[(String, u16, Availability)],
        now: Instant,
    ) -> bool {
        let before = self.imposed.clone();
        for (id, planned) in &self.plan.backends {
            if planned.service == endpoint {
                let share = shares
                    .iter()
                    .find(|(host, port, _)| *host == planned.host && *port == planned.port)
                    .map_or(Availability::Down, |(_, _, share)| *share);
                self.imposed.insert(*id, share);
            }
        }
        if before == self.imposed {
            return false;
        }
        self.steer(now);
        true
    }

    /// The members that have slots of a cluster's endpoint, by host and port.
    pub fn has_slots(&self, endpoint: &str) -> BTreeSet<(String, u16)> {
        let has = |id: &u32| {
            self.imposed
                .get(id)
                .is_some_and(|share| *share != Availability::Down)
        };
        self.plan
            .backends
            .iter()
            .filter(|(id, planned)| planned.service == endpoint && has(id))
            .map(|(_, planned)| (planned.host.clone(), planned.port))
            .collect()
    }

    pub fn returns_v4(&self) -> HashMap<EndpointV4, Return> {
        self.returns(&self.plan.returns_v4, &self.plan.writers_v4)
    }

    pub fn returns_v6(&self) -> HashMap<EndpointV6, Return> {
        self.returns(&self.plan.returns_v6, &self.plan.writers_v6)
    }

    /// Who takes writes answers by the writer address.
    fn returns<K: Copy + Eq + std::hash::Hash>(
        &self,
        all: &HashMap<K, Return>,
        writers: &BTreeMap<u32, (K, Return)>,
    ) -> HashMap<K, Return> {
        let mut returns = all.clone();
        for (id, (key, back)) in writers {
            if self
                .imposed
                .get(id)
                .is_some_and(|share| *share != Availability::Down)
            {
                returns.insert(*key, *back);
            }
        }
        returns
    }

    /// From now on packets see the rings.
    pub fn enter_service(&mut self) {
        self.unseen.clear();
    }

    /// Whether every backend that is checked was.
    pub fn knows_all(&self) -> bool {
        self.health
            .values()
            .all(|health| health.observed() != Observed::Unknown || health.detail().is_some())
    }

    /// `service` is `l4.plain` or `plain`, `backend` is `web2` or `web2:80`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] says what there is.
    pub fn wish(
        &mut self,
        service: &str,
        backend: &str,
        wish: BackendWish,
        now: Instant,
    ) -> Result<String, Refusal> {
        let name = service.strip_prefix("l4.").unwrap_or(service);
        let of_service: Vec<&PlannedBackend> = self
            .plan
            .backends
            .values()
            .filter(|planned| planned.service == name && !is_of_a_cluster(&planned.service))
            .collect();
        if of_service.is_empty() {
            let services: BTreeSet<String> = self
                .plan
                .vips
                .values()
                .filter(|vip| !is_of_a_cluster(&vip.service))
                .map(|vip| format!("`l4.{}`", vip.service))
                .collect();
            return Err(Refusal::NotFound {
                message: format!(
                    "this node balances no service `{service}`; {}",
                    there_is(services)
                ),
            });
        }
        let chosen: Vec<&PlannedBackend> = of_service
            .iter()
            .filter(|planned| planned.host == backend || endpoint(planned) == backend)
            .copied()
            .collect();
        if chosen.is_empty() {
            let backends = of_service
                .iter()
                .map(|planned| format!("`{}`", endpoint(planned)))
                .collect();
            return Err(Refusal::NotFound {
                message: format!(
                    "l4.{name} has no backend `{backend}`; {}",
                    there_is(backends)
                ),
            });
        }
        let names: BTreeSet<String> = chosen.iter().copied().map(endpoint).collect();
        for planned in chosen {
            match wish {
                BackendWish::Enable => self.wishes.remove(&planned.label),
                wish => self.wishes.insert(planned.label.clone(), wish),
            };
        }
        self.impose_wishes();
        self.steer(now);
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        Ok(match wish {
            BackendWish::Enable => format!("{names} of l4.{name} takes new connections again"),
            BackendWish::Drain => {
                format!(
                    "{names} of l4.{name} drains: it keeps its connections and gets no new ones"
                )
            }
            BackendWish::Disable => format!("{names} of l4.{name} is out of service"),
            BackendWish::Weight(weight) => format!("{names} of l4.{name} has weight {weight} now"),
        })
    }

    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// Whether some ring waits for [`Self::settle`].
    pub fn is_due(&self, now: Instant) -> bool {
        self.rings
            .values()
            .filter_map(VipRing::deadline)
            .any(|deadline| deadline <= now)
    }

    /// Ends transitions that lasted long enough; `second` is now on the packet path's clock. True when rings changed.
    pub fn settle(
        &mut self,
        remembered: &HashMap<u32, Vec<Remembered>>,
        second: u64,
        now: Instant,
    ) -> bool {
        let mut changed = false;
        for (vip, ring) in &mut self.rings {
            let recent: Vec<u32> = remembered
                .get(vip)
                .into_iter()
                .flatten()
                .filter(|flow| second.saturating_sub(flow.seen.into()) < SETTLE.as_secs())
                .map(|flow| flow.backend)
                .collect();
            changed |= ring.settle(&recent, now);
        }
        changed
    }

    pub fn backends(&self, hops: &BTreeMap<IpAddr, NextHop>) -> BTreeMap<u32, abi::Backend> {
        let availability = self.availability();
        self.plan
            .backends
            .iter()
            .map(|(id, planned)| {
                let alive = match availability.get(id) {
                    Some(Availability::Up | Availability::Draining) => abi::Backend::ALIVE,
                    Some(Availability::Down) | None => 0,
                };
                let backend = abi::Backend {
                    address: planned.words,
                    port: planned.port.to_be().into(),
                    sum: planned.sum,
                    flags: alive,
                    epoch: self.epochs.of(*id),
                    ..NO_BACKEND
                };
                (*id, hops::with_hop(backend, hops.get(&planned.address)))
            })
            .collect()
    }

    /// By their ids.
    pub fn vips(&self) -> &BTreeMap<u32, PlannedVip> {
        &self.plan.vips
    }

    /// Backends whose flows are reset when they are lost.
    pub fn resets(&self) -> impl Iterator<Item = u32> {
        self.plan
            .backends
            .iter()
            .filter(|(_, backend)| backend.on_loss == OnLoss::Reset)
            .map(|(id, _)| *id)
    }

    pub fn rings(&self) -> BTreeMap<u32, Ring> {
        self.rings
            .iter()
            .map(|(vip, ring)| (*vip, ring.slots().clone()))
            .collect()
    }

    /// Where the checks ask.
    pub fn aims(&self) -> HashMap<u32, Aim> {
        self.plan
            .backends
            .iter()
            .filter_map(|(id, backend)| {
                let check = backend.check.clone()?;
                Some((*id, (SocketAddr::new(backend.address, backend.port), check)))
            })
            .collect()
    }

    /// Whose next hops are needed.
    pub fn targets(&self) -> BTreeSet<IpAddr> {
        self.plan
            .backends
            .values()
            .map(|backend| backend.address)
            .collect()
    }

    /// Whether the backend is up in every family it has.
    pub fn is_up(&self, service: &str, host: &str, port: u16) -> bool {
        let mut members = self
            .plan
            .backends
            .iter()
            .filter(|(_, planned)| {
                planned.service == service && planned.host == host && planned.port == port
            })
            .peekable();
        members.peek().is_some() && members.all(|(id, _)| self.state(*id) == BackendState::Up)
    }

    fn state(&self, id: u32) -> BackendState {
        let planned = self.plan.backends.get(&id);
        if planned.is_some_and(|planned| is_of_a_cluster(&planned.service)) {
            return match self.imposed.get(&id) {
                Some(Availability::Up) => BackendState::Up,
                Some(Availability::Draining) => BackendState::Drain,
                Some(Availability::Down) | None => BackendState::Down,
            };
        }
        self.health
            .get(&id)
            .map_or(BackendState::Unknown, Health::state)
    }

    fn members(&self, vip: &PlannedVip) -> impl Iterator<Item = (u32, &PlannedBackend)> {
        vip.members
            .iter()
            .filter_map(|id| Some((*id, self.plan.backends.get(id)?)))
    }

    fn availability(&self) -> BTreeMap<u32, Availability> {
        let mut found = BTreeMap::new();
        for vip in self.plan.vips.values() {
            if is_of_a_cluster(&vip.service) {
                // Never all of them for want of one: two writers would be worse than none.
                found.extend(vip.members.iter().map(|id| {
                    (
                        *id,
                        self.imposed.get(id).copied().unwrap_or(Availability::Down),
                    )
                }));
                continue;
            }
            let (ids, health): (Vec<u32>, Vec<&Health>) = vip
                .members
                .iter()
                .filter_map(|id| Some((*id, self.health.get(id)?)))
                .unzip();
            found.extend(ids.into_iter().zip(availabilities(&health)));
        }
        found
    }

    fn impose_wishes(&mut self) {
        for (id, planned) in &self.plan.backends {
            let wish = self.wishes.get(&planned.label).copied();
            if let Some(health) = self.health.get_mut(id) {
                health.wish(wish.unwrap_or(BackendWish::Enable));
            }
        }
    }

    fn steer(&mut self, now: Instant) {
        let availability = self.availability();
        for id in self.plan.backends.keys() {
            let is_alive = availability
                .get(id)
                .is_some_and(|is| *is != Availability::Down);
            self.epochs.note(*id, is_alive);
        }
        for (id, vip) in &self.plan.vips {
            let members: Vec<Member> = self
                .members(vip)
                .map(|(id, planned)| Member {
                    backend: id,
                    name: SocketAddr::new(planned.address, planned.port).to_string(),
                    weight: self
                        .health
                        .get(&id)
                        .map_or(planned.weight, |health| health.weight(planned.weight)),
                    availability: availability.get(&id).copied().unwrap_or(Availability::Down),
                })
                .collect();
            match self.rings.get_mut(id) {
                Some(ring) if !self.unseen.contains(id) => {
                    ring.steer(&members, now);
                }
                _ => {
                    self.rings.insert(*id, VipRing::new(&members, now));
                }
            }
        }
    }
}

fn first_health(backend: &PlannedBackend, observed: Observed) -> Health {
    if backend.check.is_some() {
        Health::new(observed)
    } else {
        Health::unchecked()
    }
}

/// `web2:80`
fn endpoint(backend: &PlannedBackend) -> String {
    format!("{}:{}", backend.host, backend.port)
}

fn there_is(names: BTreeSet<String>) -> String {
    if names.is_empty() {
        "there is none".to_owned()
    } else {
        format!(
            "there is {}",
            names.into_iter().collect::<Vec<_>>().join(", ")
        )
    }
}

#[cfg(test)]
mod tests;
