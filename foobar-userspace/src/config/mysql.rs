//! Writer and reader endpoints of database clusters, as meant.

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};

use super::{Addresses, Backend, L4Service, OnLoss, Place, Protocol, Secret, Tenure};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MysqlService {
    pub name: String,
    /// The nodes that steer, each with addresses of its own.
    pub balancers: Vec<MysqlBalancer>,
    pub members: Vec<MysqlMember>,
    pub check: MysqlCheck,
    pub mode: MysqlMode,
    /// Who moves roles; there in mode `promote`.
    pub admin: Option<Account>,
    /// As whom replicas connect to a new primary; there in mode `promote`.
    pub replication: Option<Account>,
    pub fallback: Fallback,
    pub on_write_stall: OnWriteStall,
    pub rejoin: RejoinWish,
    pub cool_down: Duration,
    /// How long the writer address is served on the strength of one look; none: until the controller says otherwise.
    pub lease: Option<Duration>,
    /// How long after the last acknowledged beat the members' own nodes let clients in; none: always.
    pub guard: Option<Duration>,
    /// A program told of what happens to roles.
    pub hook: Option<PathBuf>,
    pub place: Place,
}

/// A node that leads clients to the members.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MysqlBalancer {
    pub node: String,
    /// Where it speaks with the members from.
    pub addresses: Addresses,
    /// At most one address of each family.
    pub write: Vec<SocketAddr>,
    pub read: Vec<SocketAddr>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MysqlMember {
    /// Name of a host; its private address is used.
    pub host: String,
    pub addresses: Addresses,
    pub port: NonZeroU16,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    pub user: String,
    pub password: Secret,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MysqlCheck {
    pub account: Account,
    pub every: Duration,
    pub timeout: Duration,
    pub fall: u32,
    /// Replicas further behind get no new connections.
    pub max_lag: Duration,
    /// Replicas further behind lose those they have.
    pub hard_lag: Duration,
    /// How often a source tells its replicas that it lives.
    pub heartbeat: Duration,
    /// Time between write probes; none: nothing is written.
    pub probe: Option<Duration>,
    pub probe_timeout: Duration,
    /// The servers' admin (MySQL) or extra (MariaDB) port, which answers when connections are exhausted.
    pub admin_port: Option<NonZeroU16>,
    /// Who signs the servers' certificates; with it TLS is spoken and demanded.
    pub ca: Option<PathBuf>,
}

/// Who decides which server is primary.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MysqlMode {
    /// Somebody else; no server is ever changed.
    Observe,
    /// The engine's own majority: Group Replication, Galera.
    Consensus,
    /// This controller, under its contract.
    Promote,
}

/// Where reads go when no replica is close enough.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fallback {
    None,
    LeastLagged,
}

/// What follows when the primary answers and does not take writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnWriteStall {
    /// An alarm, and no new writers.
    Alarm,
    Failover,
}

/// Whether a deposed member that comes back clean follows by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RejoinWish {
    Automatic,
    Manual,
}

impl MysqlService {
    /// `mysql.app.write` and `mysql.app.read`: what its two addresses are called among the services.
    #[must_use]
    pub fn endpoint(&self, role: EndpointRole) -> String {
        let role = match role {
            EndpointRole::Write => "write",
            EndpointRole::Read => "read",
        };
        format!("mysql.{}.{role}", self.name)
    }

    /// Its part on a node.
    #[must_use]
    pub fn balancer(&self, node: &str) -> Option<&MysqlBalancer> {
        self.balancers.iter().find(|balancer| balancer.node == node)
    }

    /// The member that a node guards, if it runs on one.
    #[must_use]
    pub fn guarded(&self, node: &str) -> Option<&MysqlMember> {
        self.guard?;
        self.members.iter().find(|member| member.host == node)
    }

    /// What a guarded member's endpoints are called among the services.
    #[must_use]
    pub fn guard_name(&self) -> String {
        format!("mysql.{}.guard", self.name)
    }

    /// Its two addresses on a node as the balancer takes them; who of the members gets what, their roles say.
    pub fn endpoints(&self, node: &str) -> impl Iterator<Item = L4Service> {
        let backends: Vec<_> = self
            .members
            .iter()
            .map(|member| Backend {
                host: member.host.clone(),
                addresses: member.addresses.clone(),
                port: member.port,
                weight: 1,
                kind: None,
            })
            .collect();
        self.balancer(node).into_iter().flat_map(move |balancer| {
            [
                (EndpointRole::Read, &balancer.read),
                (EndpointRole::Write, &balancer.write),
            ]
            .map(|(role, vips)| L4Service {
                name: self.endpoint(role),
                on: balancer.node.clone(),
                vips: vips.clone(),
                protocol: Protocol::Tcp,
                // Whoever loses its role loses its clients: none may go on where they were, or come by themselves to another.
                on_loss: OnLoss::Reset,
                tenure: match (role, self.lease) {
                    (EndpointRole::Write, Some(_)) => Tenure::Leased,
                    _ => Tenure::ForEver,
                },
                backends: backends.clone(),
                check: None,
                place: self.place,
            })
        })
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndpointRole {
    Write,
    Read,
}
