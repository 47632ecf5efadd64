//! A described packet as the frame that it is on the wire, and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::admin::api::Packet;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const VLAN: [u8; 2] = [0x81, 0x00];
const QINQ: [u8; 2] = [0x88, 0xa8];
/// Locally administered: of nobody.
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
const TCP_ACK: u8 = 16;

/// Why a description is not a packet.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAFrame {
    #[error("{0} and {1} are of different families; a packet has two IPv4 or two IPv6 addresses")]
    MixedFamilies(IpAddr, IpAddr),
    #[error("unknown protocol `{0}`; it is tcp, udp, icmp (IPv4) or icmp6 (IPv6)")]
    UnknownProtocol(String),
    #[error("{protocol} is not spoken between {address} and its like; use {instead}")]
    OtherFamily {
        protocol: String,
        address: IpAddr,
        instead: &'static str,
    },
}

/// The frame, with valid lengths and checksums.
///
/// # Errors
/// When the description contradicts itself.
pub fn frame(packet: &Packet) -> Result<Vec<u8>, NotAFrame> {
    let protocol = protocol(packet)?;
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let payload = payload(packet, protocol);
            let mut frame = ethernet(ETHERTYPE_IPV4);
            frame.extend(ipv4(source, destination, protocol, payload.len()));
            frame.extend(payload);
            Ok(frame)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let payload = payload(packet, protocol);
            let mut frame = ethernet(ETHERTYPE_IPV6);
            let hops = hop_limit(packet, protocol);
            frame.extend(ipv6(source, destination, protocol, payload.len(), hops));
            frame.extend(payload);
            Ok(frame)
        }
        (source, destination) => Err(NotAFrame::MixedFamilies(source, destination)),
    }
}

/// `198.51.100.7:51000 -> 10.0.0.12:80`, of a TCP or UDP frame; without ports of any other IP frame.
#[must_use]
pub fn describe(frame: &[u8]) -> Option<String> {
    let mut ethertype = ETHERNET - 2;
    while [VLAN, QINQ].contains(frame.get(ethertype..)?.first_chunk()?) {
        ethertype += 4;
    }
    let ip = frame.get(ethertype + 2..)?;
    let (source, destination, protocol, payload): (IpAddr, IpAddr, u8, &[u8]) =
        match *frame.get(ethertype..)?.first_chunk()? {
            ETHERTYPE_IPV4 => {
                let header: &[u8; IPV4] = ip.first_chunk()?;
                let length = usize::from(header[0] & 15) * 4;
                (
                    Ipv4Addr::from(*header[12..].first_chunk::<4>()?).into(),
                    Ipv4Addr::from(*header[16..].first_chunk::<4>()?).into(),
                    header[9],
                    ip.get(length..)?,
                )
            }
            ETHERTYPE_IPV6 => {
                let header: &[u8; IPV6] = ip.first_chunk()?;
                (
                    Ipv6Addr::from(*header[8..].first_chunk::<16>()?).into(),
                    Ipv6Addr::from(*header[24..].first_chunk::<16>()?).into(),
                    header[6],
                    ip.get(IPV6..)?,
                )
            }
            _ => return None,
        };
    if ![TCP, UDP].contains(&protocol) {
        return Some(format!("{source} -> {destination}"));
    }
    let port = |at: usize| {
        payload
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .map(|bytes| u16::from_be_bytes(*bytes))
    };
    Some(format!(
        "{} -> {}",
        SocketAddr::new(source, port(0)?),
        SocketAddr::new(destination, port(2)?)
    ))
}

fn protocol(packet: &Packet) -> Result<u8, NotAFrame> {
    let other_family = |instead| NotAFrame::OtherFamily {
        protocol: packet.protocol.clone(),
        address: packet.destination,
        instead,
    };
    match packet.protocol.as_str() {
        "tcp" => Ok(TCP),
        "udp" => Ok(UDP),
        "icmp" if packet.destination.is_ipv4() => Ok(ICMP),
        "icmp" => Err(other_family("icmp6")),
        "icmp6" if packet.destination.is_ipv6() => Ok(ICMP6),
        "icmp6" => Err(other_family("icmp")),
        other => Err(NotAFrame::UnknownProtocol(other.to_owned())),
    }
}

fn ethernet(ethertype: [u8; 2]) -> Vec<u8> {
    [MACS.as_slice(), &ethertype].concat()
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: usize) -> [u8; IPV4] {
    let mut header = [0; IPV4];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length(IPV4 + payload));
    // Do not fragment.
    header[6] = 0x40;
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    header
}

fn ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    payload: usize,
    hops: u8,
) -> [u8; IPV6] {
    let mut header = [0; IPV6];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&length(payload));
    header[6] = protocol;
    header[7] = hops;
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

/// Neighbour discovery is valid from this link alone (RFC 4861, 7.1).
fn hop_limit(packet: &Packet, protocol: u8) -> u8 {
    let [kind, _] = packet.destination_port.to_be_bytes();
    match (protocol, kind) {
        (ICMP6, 133..=137) => 255,
        _ => 64,
    }
}

fn payload(packet: &Packet, protocol: u8) -> Vec<u8> {
    let (mut bytes, checksum_at) = match protocol {
        TCP => (tcp(packet), 16),
        UDP => (udp(packet), 6),
        _ => (icmp(packet, protocol), 2),
    };
    let pseudo = match protocol {
        ICMP => Vec::new(),
        _ => pseudo_header(packet, protocol, bytes.len()),
    };
    let mut sum = checksum(&[&pseudo, &bytes]);
    if protocol == UDP && sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum);
    bytes
}

fn tcp(packet: &Packet) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&packet.source_port.to_be_bytes());
    header[2..4].copy_from_slice(&packet.destination_port.to_be_bytes());
    header[7] = 1;
    if packet.flags & TCP_ACK != 0 {
        header[11] = 1;
    }
    header[12] = 5 << 4;
    header[13] = packet.flags;
    header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    header
}

fn udp(packet: &Packet) -> Vec<u8> {
    let mut header = vec![0; 8];
    header[..2].copy_from_slice(&packet.source_port.to_be_bytes());
    header[2..4].copy_from_slice(&packet.destination_port.to_be_bytes());
    header[4..6].copy_from_slice(&length(8));
    header
}

/// Errors quote the packet they are about: here an empty TCP segment the other way.
fn icmp(packet: &Packet, protocol: u8) -> Vec<u8> {
    let [kind, code] = packet.destination_port.to_be_bytes();
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 1];
    let is_error = match protocol {
        ICMP => [3, 4, 5, 11, 12].contains(&kind),
        _ => kind < 128,
    };
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) if is_error => {
            message.extend(ipv4(destination, source, TCP, 20));
            message.extend([0; 20]);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) if is_error => {
            message.extend(ipv6(destination, source, TCP, 20, 64));
            message.extend([0; 20]);
        }
        _ => {}
    }
    message
}

fn pseudo_header(packet: &Packet, protocol: u8, payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [packet.source, packet.destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend([0, protocol]);
    bytes.extend(length(payload));
    bytes
}

/// RFC 1071, as it stands in the packet.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0;
    for part in parts {
        for word in part.chunks(2) {
            let low = word.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([word[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

/// Headers without data are far below 64 KiB.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_packet_is_a_syn_with_valid_checksums() {
        let frame = frame(&packet("tcp", "198.51.100.7", "203.0.113.10")).expect("consistent");
        assert_eq!(frame.len(), ETHERNET + IPV4 + 20);
        assert_eq!(frame[ETHERNET + IPV4 + 13], 2);
        assert_eq!(checksum(&[&frame[ETHERNET..ETHERNET + IPV4]]), [0, 0]);
        let mut pseudo = frame[ETHERNET + 12..ETHERNET + IPV4].to_vec();
        pseudo.extend([0, TCP, 0, 20]);
        assert_eq!(checksum(&[&pseudo, &frame[ETHERNET + IPV4..]]), [0, 0]);
    }

    #[test]
    fn every_protocol_of_both_families_is_checksummed() {
        for (protocol, number) in [("tcp", TCP), ("udp", UDP), ("icmp6", ICMP6)] {
            let frame =
                frame(&packet(protocol, "2001:db8::7", "2001:db8::10")).expect("consistent");
            let payload = &frame[ETHERNET + IPV6..];
            let mut pseudo = frame[ETHERNET + 8..ETHERNET + IPV6].to_vec();
            pseudo.extend([0, number]);
            pseudo.extend(length(payload.len()));
            assert_eq!(checksum(&[&pseudo, payload]), [0, 0], "{protocol}");
        }
        let icmp = frame(&packet("icmp", "198.51.100.7", "203.0.113.10")).expect("consistent");
        assert_eq!(checksum(&[&icmp[ETHERNET + IPV4..]]), [0, 0]);
    }

    #[test]
    fn a_frame_is_described_as_it_was_asked_for() {
        let v4 = frame(&packet("udp", "198.51.100.7", "203.0.113.10")).expect("consistent");
        assert_eq!(
            describe(&v4).as_deref(),
            Some("198.51.100.7:51000 -> 203.0.113.10:2048")
        );
        let v6 = frame(&packet("tcp", "2001:db8::7", "2001:db8::10")).expect("consistent");
        assert_eq!(
            describe(&v6).as_deref(),
            Some("[2001:db8::7]:51000 -> [2001:db8::10]:2048")
        );
        let icmp = frame(&packet("icmp", "198.51.100.7", "203.0.113.10")).expect("consistent");
        assert_eq!(
            describe(&icmp).as_deref(),
            Some("198.51.100.7 -> 203.0.113.10")
        );
    }

    #[test]
    fn a_cut_off_frame_is_not_described() {
        let whole = frame(&packet("tcp", "198.51.100.7", "203.0.113.10")).expect("consistent");
        for end in 0..ETHERNET + IPV4 + 4 {
            assert_eq!(describe(&whole[..end]), None, "{end}");
        }
    }

    #[test]
    fn an_icmp_error_quotes_a_packet() {
        let mut unreachable = packet("icmp", "198.51.100.7", "203.0.113.10");
        unreachable.destination_port = 3 << 8 | 4;
        let frame = frame(&unreachable).expect("consistent");
        assert_eq!(frame.len(), ETHERNET + IPV4 + 8 + IPV4 + 20);
        let quoted = &frame[ETHERNET + IPV4 + 8..];
        assert_eq!(quoted[12..16], [203, 0, 113, 10]);
    }

    #[test]
    fn contradictions_are_refused() {
        for (protocol, source, destination) in [
            ("tcp", "198.51.100.7", "2001:db8::10"),
            ("icmp", "2001:db8::7", "2001:db8::10"),
            ("icmp6", "198.51.100.7", "203.0.113.10"),
            ("sctp", "198.51.100.7", "203.0.113.10"),
        ] {
            assert!(
                frame(&packet(protocol, source, destination)).is_err(),
                "{protocol}"
            );
        }
    }

    fn packet(protocol: &str, source: &str, destination: &str) -> Packet {
        Packet {
            protocol: protocol.to_owned(),
            source: source.parse().expect("an address"),
            source_port: 51_000,
            destination: destination.parse().expect("an address"),
            destination_port: 8 << 8,
            flags: 2,
            interface: None,
            egress: false,
        }
    }
}
