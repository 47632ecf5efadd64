//! The RSTs that end a session on both sides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;
use foobar_ebpf::abi::{Backend, Emission, Session};

/// A session, and between whom it is.
#[derive(Clone, Copy, Debug)]
pub struct Farewell {
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub session: Session,
    pub backend: Backend,
}

impl Farewell {
    /// As from the vip.
    #[must_use]
    pub fn to_client(&self) -> Option<Emission> {
        let Session {
            macs,
            ifindex,
            server_next,
            ..
        } = self.session;
        reset(macs, ifindex, self.vip, self.client, server_next)
    }

    /// As from the client, where the way to the backend is known.
    #[must_use]
    pub fn to_backend(&self) -> Option<Emission> {
        if self.backend.flags & Backend::RESOLVED == 0 {
            return None;
        }
        let backend = SocketAddr::new(
            address(self.backend.address, self.vip.is_ipv4()),
            u16::from_be(self.backend.port as u16),
        );
        let Backend { macs, ifindex, .. } = self.backend;
        reset(
            macs,
            ifindex,
            self.client,
            backend,
            self.session.client_next,
        )
    }
}

/// `macs` are the first twelve bytes of the Ethernet header.
fn reset(
    macs: [u32; 3],
    ifindex: u32,
    source: SocketAddr,
    destination: SocketAddr,
    sequence: u32,
) -> Option<Emission> {
    let bytes: [u8; 12] = zerocopy::transmute!(macs);
    let (to, from) = bytes.split_first_chunk::<6>()?;
    let ethernet = PacketBuilder::ethernet2(*from.first_chunk()?, *to);
    let ip = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), HOPS)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), HOPS)
        }
        _ => return None,
    };
    let mut frame = Vec::with_capacity(Emission::LENGTH);
    ip.tcp(source.port(), destination.port(), sequence, 0)
        .rst()
        .write(&mut frame, &[])
        .ok()?;
    frame.resize(Emission::LENGTH, 0);
    let frame: [u8; Emission::LENGTH] = frame.try_into().ok()?;
    Some(Emission {
        ifindex,
        frame: zerocopy::transmute!(frame),
    })
}

/// What Linux gives its own packets.
const HOPS: u8 = 64;

/// An address as the tables hold it.
#[must_use]
pub fn address(words: [u32; 4], is_ipv4: bool) -> IpAddr {
    if is_ipv4 {
        Ipv4Addr::from(words[0].to_ne_bytes()).into()
    } else {
        let bytes: [u8; 16] = zerocopy::transmute!(words);
        Ipv6Addr::from(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn both_ends_get_the_number_that_they_expect() {
        for (client, vip, words, backend_text) in [
            (
                "198.51.100.7:51000",
                "10.0.0.10:3306",
                [u32::from_ne_bytes([10, 0, 0, 11]), 0, 0, 0],
                "10.0.0.11",
            ),
            (
                "[2001:db8:c::7]:51000",
                "[fd00::10]:3306",
                zerocopy::transmute!("fd00::11".parse::<Ipv6Addr>().expect("ip").octets()),
                "fd00::11",
            ),
        ] {
            let farewell = farewell(client, vip, words);
            let frames = [farewell.to_client(), farewell.to_backend()];
            let read: Vec<_> = frames.iter().flatten().map(read).collect();
            assert_eq!(
                read,
                [
                    (3, vip.to_owned(), client.to_owned(), 2000),
                    (
                        7,
                        client.to_owned(),
                        SocketAddr::new(backend_text.parse().expect("ip"), 3306).to_string(),
                        1000
                    )
                ]
            );
        }
    }

    #[test]
    fn a_backend_without_a_way_gets_none() {
        let mut farewell = farewell("198.51.100.7:51000", "10.0.0.10:3306", [1, 0, 0, 0]);
        farewell.backend.flags = 0;
        assert!(farewell.to_client().is_some() && farewell.to_backend().is_none());
    }

    fn farewell(client: &str, vip: &str, words: [u32; 4]) -> Farewell {
        Farewell {
            client: client.parse().expect("an endpoint"),
            vip: vip.parse().expect("an endpoint"),
            session: Session {
                client_next: 1000,
                server_next: 2000,
                ifindex: 3,
                ..Session::default()
            },
            backend: Backend {
                address: words,
                port: u32::from(3306_u16.to_be()),
                sum: 0,
                flags: Backend::RESOLVED,
                ifindex: 7,
                macs: [0; 3],
                mtu: 1500,
                epoch: 1,
            },
        }
    }

    /// Device, source, destination and sequence number of a RST whose checksums are right.
    fn read(emission: &Emission) -> (u32, String, String, u32) {
        let bytes: [u8; Emission::LENGTH] = zerocopy::transmute!(emission.frame);
        let packet = SlicedPacket::from_ethernet(&bytes).expect("a packet");
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("no TCP");
        };
        assert!(tcp.rst() && !tcp.ack());
        let header = tcp.to_header();
        let (source, destination): (IpAddr, IpAddr) = match packet.net {
            Some(NetSlice::Ipv4(ip)) => {
                let ip = ip.header();
                assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
                assert_eq!(
                    Ok(tcp.checksum()),
                    header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), &[])
                );
                (ip.source_addr().into(), ip.destination_addr().into())
            }
            Some(NetSlice::Ipv6(ip)) => {
                let ip = ip.header();
                assert_eq!(
                    Ok(tcp.checksum()),
                    header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), &[])
                );
                (ip.source_addr().into(), ip.destination_addr().into())
            }
            other => panic!("{other:?}"),
        };
        (
            emission.ifindex,
            SocketAddr::new(source, tcp.source_port()).to_string(),
            SocketAddr::new(destination, tcp.destination_port()).to_string(),
            tcp.sequence_number(),
        )
    }
}
