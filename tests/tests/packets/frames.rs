//! Frames as a sender would make them, checksums and all.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpOptionElement, VlanHeader};

/// A frame described by what matters to the packet path.
#[derive(Clone, Copy, Debug)]
pub struct Sketch {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub what: What,
    pub vlan: Option<u16>,
    pub hops: u8,
    pub macs: ([u8; 6], [u8; 6]),
    pub payload: usize,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
    Tcp(u8),
    Reset {
        sequence: u32,
        acknowledged: Option<u32>,
    },
    Udp,
    EchoRequest,
    EchoReply,
}

pub const SYN: What = What::Tcp(2);
pub const SYN_ACK: What = What::Tcp(18);
pub const ACK: What = What::Tcp(16);

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

impl Sketch {
    pub fn new(source: &str, destination: &str, what: What) -> Self {
        let endpoint = |text: &str| {
            text.parse()
                .unwrap_or_else(|_| SocketAddr::new(text.parse::<IpAddr>().expect("an address"), 0))
        };
        Self {
            source: endpoint(source),
            destination: endpoint(destination),
            what,
            vlan: None,
            hops: 64,
            macs: (CLIENT_MAC, OUR_MAC),
            payload: 12,
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(self.macs.0, self.macs.1);
        match self.vlan {
            None => match (self.source.ip(), self.destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    self.transport(ethernet.ipv4(from.octets(), to.octets(), self.hops))
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    self.transport(ethernet.ipv6(from.octets(), to.octets(), self.hops))
                }
                _ => panic!("one family"),
            },
            Some(vlan) => self.tagged(ethernet.single_vlan(vlan.try_into().expect("12 bits"))),
        }
    }

    fn tagged(&self, ethernet: PacketBuilderStep<VlanHeader>) -> Vec<u8> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.transport(ethernet.ipv4(from.octets(), to.octets(), self.hops))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                self.transport(ethernet.ipv6(from.octets(), to.octets(), self.hops))
            }
            _ => panic!("one family"),
        }
    }

    fn transport(&self, ip: PacketBuilderStep<etherparse::IpHeaders>) -> Vec<u8> {
        let payload: Vec<u8> = (0..self.payload).map(|byte| byte as u8).collect();
        let mut frame = Vec::new();
        let (from, to) = (self.source.port(), self.destination.port());
        match self.what {
            What::Udp => ip.udp(from, to).write(&mut frame, &payload),
            What::Tcp(flags) => {
                let mut tcp = ip.tcp(from, to, 1000, 8192);
                if flags & 1 != 0 {
                    tcp = tcp.fin();
                }
                if flags & 2 != 0 {
                    tcp = tcp
                        .syn()
                        .options(&[TcpOptionElement::MaximumSegmentSize(1460)])
                        .expect("fits");
                }
                if flags & 4 != 0 {
                    tcp = tcp.rst();
                }
                if flags & 8 != 0 {
                    tcp = tcp.psh();
                }
                if flags & 16 != 0 {
                    tcp = tcp.ack(2000);
                }
                tcp.write(&mut frame, &payload)
            }
            What::Reset {
                sequence,
                acknowledged,
            } => {
                let mut tcp = ip.tcp(from, to, sequence, 0).rst();
                if let Some(acknowledged) = acknowledged {
                    tcp = tcp.ack(acknowledged);
                }
                tcp.write(&mut frame, &payload)
            }
            What::EchoRequest if self.source.is_ipv4() => {
                ip.icmpv4_echo_request(7, 1).write(&mut frame, &payload)
            }
            What::EchoReply if self.source.is_ipv4() => {
                ip.icmpv4_echo_reply(7, 1).write(&mut frame, &payload)
            }
            What::EchoRequest => ip.icmpv6_echo_request(7, 1).write(&mut frame, &payload),
            What::EchoReply => ip.icmpv6_echo_reply(7, 1).write(&mut frame, &payload),
        }
        .expect("a vector takes all");
        frame
    }
}

/// The RST that answers `asked`: from its destination, back the way it came.
pub fn reset(asked: Sketch, sequence: u32, acknowledged: Option<u32>) -> Vec<u8> {
    let (source, destination) = asked.macs;
    Sketch {
        source: asked.destination,
        destination: asked.source,
        what: What::Reset {
            sequence,
            acknowledged,
        },
        macs: (destination, source),
        hops: 64,
        payload: 0,
        ..asked
    }
    .frame()
}

/// The Internet checksum over whole headers, computed from the start.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Splits an untagged IPv4 frame at `at` bytes of its payload (a multiple of 8).
pub fn fragments(frame: &[u8], at: usize) -> (Vec<u8>, Vec<u8>) {
    let (header, payload) = frame.split_at(34);
    let piece = |part: &[u8], flags: u16| {
        let mut piece = [header, part].concat();
        piece[16..18].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
        piece[18..20].copy_from_slice(&77_u16.to_be_bytes());
        piece[20..22].copy_from_slice(&flags.to_be_bytes());
        piece[24..26].fill(0);
        let sum = checksum(&piece[14..34]);
        piece[24..26].copy_from_slice(&sum.to_be_bytes());
        piece
    };
    (
        piece(&payload[..at], 0x2000),
        piece(&payload[at..], (at / 8) as u16),
    )
}

/// An ICMPv4 or ICMPv6 error of a router about `about`, a whole untagged frame.
pub fn error(kind: u8, code: u8, from: &str, to: &str, about: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().expect("ip"), to.parse().expect("ip"));
    let quoted = &about[14..about.len().min(14 + 48)];
    let mut body = vec![kind, code, 0, 0, 0, 0, 5, 0];
    body.extend_from_slice(quoted);
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let sum = checksum(&body);
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            ethernet.ipv4(from.octets(), to.octets(), 60).write(
                &mut frame,
                etherparse::IpNumber::ICMP,
                &body,
            )
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = (body.len() as u32).to_be_bytes();
            let sum = checksum(
                &[
                    &from.octets()[..],
                    &to.octets(),
                    &length,
                    &[0, 0, 0, 58],
                    &body,
                ]
                .concat(),
            );
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            ethernet.ipv6(from.octets(), to.octets(), 60).write(
                &mut frame,
                etherparse::IpNumber::IPV6_ICMP,
                &body,
            )
        }
        _ => panic!("one family"),
    }
    .expect("a vector takes all");
    frame
}
