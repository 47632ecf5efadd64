//! Database servers as they are seen, and what follows: who takes writes, who takes reads, when a role may move.
//!
//! Time and observations come in, decisions go out. The contract that this keeps is the N1 to N10; each is named
//! where it is kept and is a property of the simulation in the tests.

pub mod claim;
pub mod cluster;
pub mod evidence;
pub mod failover;
pub mod findings;
pub mod gtid;
pub mod guard;
pub mod lag;
pub mod leadership;
pub mod observation;
pub mod preflight;
pub mod procedure;
pub mod rejoin;
pub mod status;
pub mod switchover;
pub mod task;

#[cfg(test)]
mod simulation;

pub use self::{
    cluster::{Cluster, Limits, Steering},
    evidence::Writer,
    gtid::GtidSet,
    observation::{Failure, Observation, Picture, ServerId},
    status::ClusterStatus,
};
