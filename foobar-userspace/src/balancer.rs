//! Which backends a node's services have, and which of them takes which flows.

pub mod health;
mod plan;
pub mod resets;
pub mod ring;

pub use self::{
    health::{Availability, Health, Observed, availabilities},
    plan::{Plan, PlanError, PlannedBackend, PlannedVip, is_of_a_cluster, plan},
    ring::{Member, Ring, VipRing},
};
