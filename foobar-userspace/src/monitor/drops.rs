//! A dropped packet as a line for people and programs: what it was, and why it did not go on.

use std::net::{Ipv4Addr, Ipv6Addr};

use foobar_ebpf::{
    abi::{DropEvent, Trace},
    verdict::Reason,
};
use serde_json::{Value, json};

/// Names of ids.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub interface: &'a str,
    /// `edge/jailed`
    pub rule: Option<&'a str>,
}

/// `at` is RFC 3339.
#[must_use]
pub fn line(event: &DropEvent, named: Named<'_>, at: &str) -> String {
    let reason = Reason::ALL
        .into_iter()
        .find(|reason| *reason as u32 == event.reason);
    let direction = match event.direction {
        0 => "ingress",
        _ => "egress",
    };
    let frame = frame(event);
    let packet = Packet::read(frame);
    let field = |text: Option<String>| text.map_or(Value::Null, Value::from);
    json!({
        "time": at,
        "interface": named.interface,
        "direction": direction,
        "reason": reason.map_or("unknown", Reason::name),
        "rule": named.rule,
        "src": field(packet.as_ref().map(|packet| packet.source.clone())),
        "dst": field(packet.as_ref().map(|packet| packet.destination.clone())),
        "proto": field(packet.as_ref().map(|packet| packet.protocol.clone())),
        "sport": packet.as_ref().and_then(|packet| packet.ports).map(|ports| ports.0),
        "dport": packet.as_ref().and_then(|packet| packet.ports).map(|ports| ports.1),
        "flags": field(packet.as_ref().and_then(|packet| packet.flags.clone())),
        "length": event.length,
        "frame": hex(frame),
    })
    .to_string()
}

/// The rule that decided, where it was a rule.
#[must_use]
pub fn rule_of(event: &DropEvent) -> Option<u32> {
    let decides = [Reason::RuleDrop as u32, Reason::RateLimit as u32].contains(&event.reason);
    (decides && event.rule != Trace::NONE).then_some(event.rule)
}

fn frame(event: &DropEvent) -> &[u8] {
    let captured = usize::try_from(event.captured).unwrap_or_default();
    event.frame.get(..captured).unwrap_or_default()
}

/// As much of a packet as a line tells.
struct Packet {
    source: String,
    destination: String,
    protocol: String,
    ports: Option<(u16, u16)>,
    flags: Option<String>,
}

impl Packet {
    fn read(frame: &[u8]) -> Option<Self> {
        let mut network = 14;
        let mut kind = word(frame, 12)?;
        while matches!(kind, 0x8100 | 0x88a8) {
            kind = word(frame, network + 2)?;
            network += 4;
        }
        let (source, destination, protocol, transport) = match kind {
            0x0800 => {
                let header = frame.get(network..network + 20)?;
                let length = usize::from(header.first()? & 15) * 4;
                let address = |from: usize| -> Option<String> {
                    let bytes: [u8; 4] = header.get(from..from + 4)?.try_into().ok()?;
                    Some(Ipv4Addr::from(bytes).to_string())
                };
                (
                    address(12)?,
                    address(16)?,
                    *header.get(9)?,
                    network + length,
                )
            }
            0x86dd => {
                let header = frame.get(network..network + 40)?;
                let address = |from: usize| -> Option<String> {
                    let bytes: [u8; 16] = header.get(from..from + 16)?.try_into().ok()?;
                    Some(Ipv6Addr::from(bytes).to_string())
                };
                (address(8)?, address(24)?, *header.get(6)?, network + 40)
            }
            _ => return None,
        };
        let has_ports = matches!(protocol, 6 | 17);
        Some(Self {
            source,
            destination,
            protocol: match protocol {
                1 => "icmp".to_owned(),
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                58 => "icmp6".to_owned(),
                other => other.to_string(),
            },
            ports: has_ports
                .then(|| Some((word(frame, transport)?, word(frame, transport + 2)?)))
                .flatten(),
            flags: (protocol == 6)
                .then(|| frame.get(transport + 13).map(|flags| tcp_flags(*flags)))
                .flatten(),
        })
    }
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    let bytes: [u8; 2] = frame.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}

/// `S`, `SA`, `FA`
fn tcp_flags(flags: u8) -> String {
    [(2, 'S'), (1, 'F'), (4, 'R'), (8, 'P'), (16, 'A'), (32, 'U')]
        .into_iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, letter)| letter)
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use foobar_ebpf::abi::DROP_BYTES;

    use super::*;

    fn event(frame: &[u8]) -> DropEvent {
        let mut event = DropEvent {
            at: 1,
            interface: 0,
            direction: 0,
            reason: Reason::RuleDrop as u32,
            rule: 3,
            length: 40,
            captured: u32::try_from(frame.len()).expect("short"),
            frame: [0; DROP_BYTES],
        };
        event.frame[..frame.len()].copy_from_slice(frame);
        event
    }

    fn told(frame: &[u8]) -> Value {
        let named = Named {
            interface: "wan",
            rule: Some("edge/jailed"),
        };
        serde_json::from_str(&line(&event(frame), named, "now")).expect("JSON")
    }

    /// Ethernet, IPv4 and TCP with SYN.
    fn syn() -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[23] = 6;
        frame[26..30].copy_from_slice(&[192, 0, 2, 7]);
        frame[30..34].copy_from_slice(&[203, 0, 113, 10]);
        frame[34..38].copy_from_slice(&[0xc8, 0, 0, 22]);
        frame[47] = 2;
        frame
    }

    #[test]
    fn a_syn_is_told_with_addresses_ports_and_the_rule() {
        let told = told(&syn());
        assert_eq!(told["src"], "192.0.2.7");
        assert_eq!(told["dst"], "203.0.113.10");
        assert_eq!(
            (told["sport"].as_u64(), told["dport"].as_u64()),
            (Some(51_200), Some(22))
        );
        assert_eq!(told["flags"], "S");
        assert_eq!(
            (&told["reason"], &told["rule"]),
            (&Value::from("rule"), &Value::from("edge/jailed"))
        );
    }

    #[test]
    fn a_tag_is_stepped_over_and_a_stub_is_told_as_far_as_it_goes() {
        let mut tagged = syn();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(told(&tagged)["dport"], 22);
        assert_eq!(told(&syn()[..20])["src"], Value::Null);
        assert_eq!(told(&[])["frame"], "");
    }

    #[test]
    fn only_rules_that_decide_are_named() {
        let mut event = event(&syn());
        assert_eq!(rule_of(&event), Some(3));
        event.reason = Reason::PolicyDrop as u32;
        assert_eq!(rule_of(&event), None);
    }
}
