//! The flows that a node's tables know one by one.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use foobar_ebpf::abi::{ClientV4, ClientV6, FlowV4, FlowV6, LabelKey, Remembered, Session};

use super::{KernelError, Tables, clock};

/// A flow, with its ids resolved to labels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flow {
    pub way: Way,
    /// IANA's number; `None` where the table does not say.
    pub protocol: Option<u8>,
    /// Seconds since its last packet.
    pub idle: u32,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Way {
    /// To a vip: labels of [`LabelKey::VIP`] and [`LabelKey::BACKEND`], `None` for what has gone.
    Balanced {
        known: Known,
        client: SocketAddr,
        vip: Option<String>,
        backend: Option<String>,
    },
    /// From this node to another; its replies are let in.
    Opened { from: SocketAddr, to: SocketAddr },
}

/// Why a balanced flow is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// Its service resets flows whose backend is lost.
    Session,
    /// Its slot of the ring is moving to another backend.
    Remembered,
}

/// All of them, read from the pinned maps.
///
/// # Errors
/// [`KernelError::NotDeployed`] where nothing is pinned.
pub fn flows(node: &str) -> Result<Vec<Flow>, KernelError> {
    let tables = super::pinned::tables(node)?;
    let names = Names::of(&tables)?;
    let mut flows = Vec::new();
    for (client, session) in tables.sessions_v4.contents_at_once()? {
        flows.push(names.session(client_v4(client), client.vip, &session));
    }
    for (client, session) in tables.sessions_v6.contents_at_once()? {
        flows.push(names.session(client_v6(client), client.vip, &session));
    }
    for (client, flow) in tables.remembered_v4.contents_at_once()? {
        flows.push(names.remembered(client_v4(client), client.vip, flow));
    }
    for (client, flow) in tables.remembered_v6.contents_at_once()? {
        flows.push(names.remembered(client_v6(client), client.vip, flow));
    }
    for (key, state) in tables.flows_v4.contents_at_once()? {
        let (from, to) = ends_v4(&key);
        flows.push(names.opened(from, to, key.protocol, state.seen));
    }
    for (key, state) in tables.flows_v6.contents_at_once()? {
        let (from, to) = ends_v6(&key);
        flows.push(names.opened(from, to, key.protocol, state.seen));
    }
    Ok(flows)
}

/// What ids are called, and what time it is.
struct Names {
    labels: HashMap<LabelKey, String>,
    second: u64,
}

impl Names {
    fn of(tables: &Tables) -> Result<Self, KernelError> {
        Ok(Self {
            labels: tables.label_texts()?,
            second: clock::coarse() / 1_000_000_000,
        })
    }

    fn session(&self, client: SocketAddr, vip: u16, session: &Session) -> Flow {
        self.balanced(Known::Session, client, vip, session.backend, session.seen)
    }

    fn remembered(&self, client: SocketAddr, vip: u16, flow: Remembered) -> Flow {
        self.balanced(Known::Remembered, client, vip, flow.backend, flow.seen)
    }

    fn balanced(
        &self,
        known: Known,
        client: SocketAddr,
        vip: u16,
        backend: u32,
        seen: u32,
    ) -> Flow {
        let label = |kind, id| self.labels.get(&LabelKey { kind, id }).cloned();
        Flow {
            way: Way::Balanced {
                known,
                client,
                vip: label(LabelKey::VIP, vip.into()),
                backend: label(LabelKey::BACKEND, backend),
            },
            // Sessions are TCP's alone; which protocol a vip has stands in the configuration.
            protocol: (known == Known::Session).then_some(TCP),
            idle: self.idle(seen),
        }
    }

    fn opened(&self, from: SocketAddr, to: SocketAddr, protocol: u32, seen: u32) -> Flow {
        Flow {
            way: Way::Opened { from, to },
            protocol: u8::try_from(protocol).ok(),
            idle: self.idle(seen),
        }
    }

    fn idle(&self, seen: u32) -> u32 {
        u32::try_from(self.second.saturating_sub(seen.into())).unwrap_or(u32::MAX)
    }
}

fn client_v4(client: ClientV4) -> SocketAddr {
    SocketAddr::new(v4(client.address), u16::from_be(client.port))
}

fn client_v6(client: ClientV6) -> SocketAddr {
    SocketAddr::new(v6(client.address), u16::from_be(client.port))
}

/// The keys look as replies do: this node is their destination.
fn ends_v4(reply: &FlowV4) -> (SocketAddr, SocketAddr) {
    (
        SocketAddr::new(v4(reply.destination), u16::from_be(reply.destination_port)),
        SocketAddr::new(v4(reply.source), u16::from_be(reply.source_port)),
    )
}

fn ends_v6(reply: &FlowV6) -> (SocketAddr, SocketAddr) {
    (
        SocketAddr::new(v6(reply.destination), u16::from_be(reply.destination_port)),
        SocketAddr::new(v6(reply.source), u16::from_be(reply.source_port)),
    )
}

fn v4(address: u32) -> IpAddr {
    Ipv4Addr::from(address.to_ne_bytes()).into()
}

fn v6(address: [u32; 4]) -> IpAddr {
    let bytes: [u8; 16] = zerocopy::transmute!(address);
    Ipv6Addr::from(bytes).into()
}

const TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_was_opened_here_goes_the_other_way_than_its_replies() {
        let reply = FlowV4 {
            source: u32::from_ne_bytes([203, 0, 113, 1]),
            destination: u32::from_ne_bytes([10, 0, 0, 11]),
            source_port: 53_u16.to_be(),
            destination_port: 40_000_u16.to_be(),
            protocol: 17,
        };
        let (from, to) = ends_v4(&reply);
        assert_eq!(from.to_string(), "10.0.0.11:40000");
        assert_eq!(to.to_string(), "203.0.113.1:53");
    }
}
