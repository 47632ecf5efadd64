//! What was decided is brought into the kernel, difference by difference.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Controller,
    apply::{Desired, apply_sets, set_backend, set_ring},
    balancing::Balancing,
    chain,
    estate::Estate,
    members::Members,
    refusal,
};
use crate::{
    admin::api::{Refusal, Response},
    balancer::Ring,
    kernel::{KernelError, Table, Tables},
    snapshot::Names,
};

impl Controller {
    /// All that the kernel should hold under this configuration and this health.
    pub(super) fn desire(
        &self,
        estate: &Estate,
        balancing: &Balancing,
        members: &Members,
    ) -> Desired {
        Desired {
            hooks: estate.hooks.clone(),
            labels: estate.live_labels(),
            ruleset: estate.ruleset.words.clone(),
            backends: balancing.backends(&self.hops),
            rings: balancing.rings(),
            vips_v4: estate.plan.vips_v4.clone(),
            vips_v6: estate.plan.vips_v6.clone(),
            returns_v4: balancing.returns_v4(),
            returns_v6: balancing.returns_v6(),
            sets: members.tables(),
        }
    }

    /// What was just written is what the kernel holds.
    pub(super) fn take_for_present(&mut self, desired: Desired) {
        self.names = Arc::new(Names::new(desired.labels.clone()));
        self.desired = desired;
    }

    /// Writes backends and rings where they differ from what the kernel holds; before the start that is all at once.
    pub(super) fn bring_balancing(&mut self) {
        if !self.in_service {
            return;
        }
        let backends = self.balancing.backends(&self.hops);
        let rings = self.balancing.rings();
        match self.write_balancing(backends, rings) {
            Ok(()) => self.troubles.clear("balancing"),
            Err(error) => self.troubles.grave("balancing", chain(&error)),
        }
    }

    /// Flows of a lost backend are cut first: to swap a ring, the kernel waits for every packet under way.
    fn write_balancing(
        &mut self,
        backends: BTreeMap<u32, foobar_ebpf::abi::Backend>,
        rings: BTreeMap<u32, Ring>,
    ) -> Result<(), KernelError> {
        let tables = self.deployment.tables_mut();
        for (id, backend) in &backends {
            if self.desired.backends.get(id) != Some(backend) {
                set_backend(tables, *id, *backend)?;
            }
        }
        self.desired.backends = backends;
        self.end_lost_sessions();
        self.write_returns()?;
        let tables = self.deployment.tables_mut();
        for (vip, ring) in &rings {
            if self.desired.rings.get(vip) != Some(ring) {
                set_ring(tables, *vip, ring)?;
            }
        }
        self.desired.rings = rings;
        Ok(())
    }

    /// Only members of clusters change their way back while they run, and only from one address of theirs to the other.
    fn write_returns(&mut self) -> Result<(), KernelError> {
        let tables = self.deployment.tables_mut();
        let (v4, v6) = (self.balancing.returns_v4(), self.balancing.returns_v6());
        for (key, back) in &v4 {
            if self.desired.returns_v4.get(key) != Some(back) {
                tables.returns_v4.insert(*key, *back)?;
            }
        }
        for (key, back) in &v6 {
            if self.desired.returns_v6.get(key) != Some(back) {
                tables.returns_v6.insert(*key, *back)?;
            }
        }
        self.desired.returns_v4 = v4;
        self.desired.returns_v6 = v6;
        Ok(())
    }

    pub(super) fn bring_members(&mut self) {
        let sets = self.members.tables();
        match apply_sets(self.deployment.tables_mut(), &self.desired.sets, &sets) {
            Ok(()) => {
                self.desired.sets = sets;
                self.troubles.clear("sets");
            }
            Err(error) => self.troubles.grave("sets", chain(&error)),
        }
    }

    /// Changes sets by command: all of it, or nothing but what went into the packet path's own table.
    pub(super) fn change_members(
        &mut self,
        change: impl FnOnce(&mut Members, &mut Tables) -> Result<String, Refusal>,
    ) -> Result<Response, Refusal> {
        let mut next = self.members.clone();
        let tables = self.deployment.tables_mut();
        let message = change(&mut next, tables)?;
        let sets = next.tables();
        if self.deployment.holds(next.sizes()) {
            let tables = self.deployment.tables_mut();
            if let Err(error) = apply_sets(tables, &self.desired.sets, &sets) {
                // What was written of it is taken back by the difference the other way.
                let _ = apply_sets(tables, &sets, &self.desired.sets);
                return Err(refusal(&error));
            }
            self.desired.sets = sets;
        } else {
            let desired = Desired {
                sets,
                ..self.desired.clone()
            };
            self.bring_all(&desired, next.sizes())?;
            self.desired = desired;
        }
        self.members = next;
        self.keep_memory();
        tracing::info!("{message}");
        Ok(Response::Done { message })
    }
}
