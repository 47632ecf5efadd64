//! What rtnetlink says about a device and the XDP program on it.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage, LinkXdp, XdpAttached},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::KernelError;

/// A network device of this network namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Device {
    pub index: u32,
    pub xdp: Option<AttachedXdp>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct AttachedXdp {
    pub program: u32,
    pub native: bool,
}

impl Device {
    /// `None`: there is no device of that name.
    pub fn named(name: &str) -> Result<Option<Self>, KernelError> {
        query(name).map_err(|source| KernelError::Netlink {
            device: name.to_owned(),
            source,
        })
    }
}

fn query(name: &str) -> io::Result<Option<Device>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    // Without the statistics the answer is short.
    link.attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut request = NetlinkMessage::new(
        header,
        NetlinkPayload::from(RouteNetlinkMessage::GetLink(link)),
    );
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(Device {
            index: link.header.index,
            xdp: attached(&link.attributes),
        })),
        NetlinkPayload::Error(error) => match error.to_io() {
            error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            error => Err(error),
        },
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("unexpected answer of type {}", other.message_type()),
        )),
    }
}

fn attached(attributes: &[LinkAttribute]) -> Option<AttachedXdp> {
    let xdp = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    let native = xdp
        .iter()
        .any(|item| matches!(item, LinkXdp::Attached(XdpAttached::Driver)));
    let program = xdp.iter().find_map(|item| match item {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    })?;
    Some(AttachedXdp { program, native })
}
