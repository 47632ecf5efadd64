//! Reads the kernel's tables by rtnetlink; the only place that knows its messages.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_core::{ErrorMessage, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags},
        link::{self, LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
            RouteType, RouteVia,
        },
        rule::{RuleAttribute, RuleMessage},
    },
};

use super::{
    LinkInfo, Mac, RoutesError, Trouble,
    picture::{Hop, Knowledge, Link, Neighbour, Path, Route, Via},
};

/// Which tables a notification is about.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Stale {
    pub links: bool,
    pub addresses: bool,
    pub neighbours: bool,
    pub routes: bool,
}

impl Stale {
    pub const ALL: Self = Self {
        links: true,
        addresses: true,
        neighbours: true,
        routes: true,
    };

    pub fn by(message: &NetlinkMessage<RouteNetlinkMessage>) -> Self {
        use RouteNetlinkMessage as Message;
        let NetlinkPayload::InnerMessage(message) = &message.payload else {
            // Notifications were lost.
            return Self::ALL;
        };
        match message {
            Message::NewNeighbour(_) | Message::DelNeighbour(_) => Self {
                neighbours: true,
                ..Self::default()
            },
            Message::NewRoute(_)
            | Message::DelRoute(_)
            | Message::NewRule(_)
            | Message::DelRule(_) => Self {
                routes: true,
                ..Self::default()
            },
            // A link or an address takes routes along with it, without a word about each.
            _ => Self::ALL,
        }
    }

    pub fn any(self) -> bool {
        self != Self::default()
    }

    pub fn and(self, other: Self) -> Self {
        Self {
            links: self.links || other.links,
            addresses: self.addresses || other.addresses,
            neighbours: self.neighbours || other.neighbours,
            routes: self.routes || other.routes,
        }
    }
}

pub(super) async fn links(handle: &Handle) -> Result<HashMap<u32, Link>, RoutesError> {
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(RoutesError::asking("the links"))?;
    Ok(links
        .iter()
        .map(link_of)
        .map(|link| (link.info.index, link))
        .collect())
}

pub(super) async fn link_named(
    handle: &Handle,
    name: &str,
) -> Result<Option<LinkInfo>, RoutesError> {
    Ok(links(handle)
        .await?
        .into_values()
        .map(|link| link.info)
        .find(|info| info.name == name))
}

fn link_of(message: &LinkMessage) -> Link {
    let mut info = LinkInfo {
        index: message.header.index,
        name: String::new(),
        mac: Mac::default(),
        mtu: 0,
        up: message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::LowerUp),
        kind: String::new(),
    };
    let mut has_mac = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => info.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
            LinkAttribute::LinkInfo(details) => {
                for detail in details {
                    if let link::LinkInfo::Kind(kind) = detail {
                        info.kind = kind.to_string();
                    }
                }
            }
            LinkAttribute::Address(bytes) => {
                if let Ok(mac) = Mac::try_from(bytes.as_slice()) {
                    info.mac = mac;
                    has_mac = true;
                }
            }
            _ => {}
        }
    }
    Link {
        ethernet: has_mac && message.header.link_layer_type == LinkLayerType::Ether,
        info,
    }
}

pub(super) async fn addresses(handle: &Handle) -> Result<BTreeSet<IpAddr>, RoutesError> {
    let mut addresses = BTreeSet::new();
    let mut messages = std::pin::pin!(handle.address().get().execute());
    while let Some(message) = messages
        .try_next()
        .await
        .map_err(RoutesError::asking("the addresses"))?
    {
        let mut own = None;
        let mut refused = false;
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link `Address` is the other end's.
                AddressAttribute::Local(address) => own = Some(*address),
                AddressAttribute::Address(address) => own = own.or(Some(*address)),
                AddressAttribute::Flags(flags) => {
                    refused = flags.contains(AddressFlags::Dadfailed);
                }
                _ => {}
            }
        }
        addresses.extend(own.filter(|_| !refused));
    }
    Ok(addresses)
}

pub(super) async fn neighbours(handle: &Handle) -> Result<HashMap<Hop, Neighbour>, RoutesError> {
    let messages: Vec<NeighbourMessage> = handle
        .neighbours()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(RoutesError::asking("the neighbours"))?;
    Ok(messages.iter().filter_map(neighbour).collect())
}

fn neighbour(message: &NeighbourMessage) -> Option<(Hop, Neighbour)> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLocalAddress(bytes) => {
                mac = Mac::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    let knowledge = match message.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => {
            Knowledge::Sure
        }
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => Knowledge::Stale,
        _ => Knowledge::None,
    };
    let hop = Hop {
        interface: message.header.ifindex,
        address: address?,
    };
    Some((hop, Neighbour { mac, knowledge }))
}

/// The main tables of both families; none of a family that other rules than the kernel's own decide about.
pub(super) async fn routes(handle: &Handle) -> Result<Vec<Route>, RoutesError> {
    let mut routes = Vec::new();
    for (version, question) in [
        (
            IpVersion::V4,
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
        ),
        (
            IpVersion::V6,
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ),
    ] {
        if !main_table_decides(handle, version).await? {
            continue;
        }
        let mut messages = std::pin::pin!(handle.route().get(question).execute());
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(RoutesError::asking("the routes"))?
        {
            routes.extend(route(&message));
        }
    }
    Ok(routes)
}

async fn main_table_decides(handle: &Handle, version: IpVersion) -> Result<bool, RoutesError> {
    let rules: Result<Vec<RuleMessage>, _> =
        handle.rule().get(version).execute().try_collect().await;
    let rules = match rules {
        Err(rtnetlink::Error::NetlinkError(refusal)) if not_built(&refusal) => return Ok(true),
        rules => rules.map_err(RoutesError::asking("the routing rules"))?,
    };
    Ok(rules.iter().all(|rule| {
        let priority = rule
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RuleAttribute::Priority(priority) => Some(*priority),
                _ => None,
            });
        matches!(priority.unwrap_or(0), 0 | 32_766 | 32_767)
    }))
}

/// A kernel without routing rules, or without IPv6.
fn not_built(refusal: &ErrorMessage) -> bool {
    refusal
        .code
        .is_some_and(|code| matches!(-code.get(), libc::EOPNOTSUPP | libc::EAFNOSUPPORT))
}

fn route(message: &RouteMessage) -> Option<Route> {
    let mut table = u32::from(message.header.table);
    let mut prefix = None;
    let mut metric = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => prefix = address_of(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN)
        || message.header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let everywhere = match message.header.address_family {
        rtnetlink::packet_route::AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        rtnetlink::packet_route::AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let length = message.header.destination_prefix_length;
    Some(Route {
        prefix: IpNet::new(prefix.unwrap_or(everywhere), length)
            .ok()?
            .trunc(),
        metric,
        via: via(message),
    })
}

fn via(message: &RouteMessage) -> Via {
    let header = &message.header;
    let plain = header.kind == RouteType::Unicast
        && header.source_prefix_length == 0
        && header.tos == 0
        && !header
            .flags
            .intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    match way(message) {
        Some((Some(gateway), interface)) if plain => Via::Gateway(Hop {
            interface,
            address: gateway,
        }),
        Some((None, interface)) if plain => Via::Link(interface),
        _ => Via::Kernel,
    }
}

/// Gateway, if any, and link of a route that has one way only.
fn way(message: &RouteMessage) -> Option<(Option<IpAddr>, u32)> {
    let mut gateway = None;
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => gateway = Some(address_of(address)?),
            RouteAttribute::Via(RouteVia::Inet(v4)) => gateway = Some(IpAddr::V4(*v4)),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Via(_)
            | RouteAttribute::MultiPath(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_) => return None,
            _ => {}
        }
    }
    Some((gateway, interface?))
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// Asks the kernel how it would send to `target`.
pub(super) async fn path(handle: &Handle, target: IpAddr) -> Result<Path, Trouble> {
    let question = match target {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4, 32)
            .build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6, 128)
            .build(),
    };
    let mut answers = std::pin::pin!(handle.route().get(question).execute());
    // An error is the kernel's "unreachable".
    let Ok(Some(answer)) = answers.try_next().await else {
        return Err(Trouble::NoRoute);
    };
    match answer.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(Trouble::Local),
        _ => return Err(Trouble::NoRoute),
    }
    let (gateway, interface) = way(&answer).ok_or(Trouble::NoRoute)?;
    let hop = Hop {
        interface,
        address: gateway.unwrap_or(target),
    };
    Ok(Path {
        hop,
        mtu: mtu(&answer),
    })
}

fn mtu(message: &RouteMessage) -> Option<u32> {
    message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => Some(metrics),
            _ => None,
        })
        .flatten()
        .find_map(|metric| match metric {
            RouteMetric::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
}

/// Has the kernel use the neighbour as if it had a packet for it: it asks for an unknown one and probes a stale one.
pub(super) async fn provoke(handle: &Handle, hop: Hop) -> Result<(), RoutesError> {
    handle
        .neighbours()
        .add(hop.interface, hop.address)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace()
        .execute()
        .await
        .map_err(RoutesError::asking("a neighbour's address"))
}
