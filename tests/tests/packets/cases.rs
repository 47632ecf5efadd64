//! The table. To add a case, add an entry.

use super::{
    estate::{
        BACKEND, BACKEND_MACS, BACKEND6, DEAD, HEIR, KEEPER, RESTEERER, ROUTER_MACS, VIP, VIP6, Way,
    },
    frames::{ACK, SYN, SYN_ACK, Sketch, What, checksum, error, fragments},
    sessions,
};

pub struct Case {
    pub name: &'static str,
    pub way: Way,
    pub frame: Vec<u8>,
    reason: &'static str,
    /// The frame that leaves, where one does.
    leaves: Option<Vec<u8>>,
}

impl Case {
    pub fn expected(&self) -> (String, Option<Vec<u8>>) {
        (self.reason.to_owned(), self.leaves.clone())
    }
}

pub fn comes(name: &'static str, frame: Vec<u8>, reason: &'static str) -> Case {
    Case {
        name,
        way: Way::In,
        frame,
        reason,
        leaves: None,
    }
}

fn goes(name: &'static str, frame: Vec<u8>, reason: &'static str) -> Case {
    Case {
        way: Way::Out,
        ..comes(name, frame, reason)
    }
}

pub fn sent_on(name: &'static str, frame: Vec<u8>, reason: &'static str, leaves: Vec<u8>) -> Case {
    Case {
        leaves: Some(leaves),
        ..comes(name, frame, reason)
    }
}

const CLIENT: &str = "198.51.100.7:51000";
const CLIENT6: &str = "[2001:db8:c::7]:51000";

pub fn all() -> Vec<Case> {
    let mut cases = parsing();
    cases.extend(filtering());
    cases.extend(balancing());
    cases.extend(sessions::cases());
    cases.extend(leaving());
    cases
}

/// A sketch after the balancer: other ends, other hardware addresses, one hop less.
pub fn rewritten(sketch: Sketch, to: &str, macs: ([u8; 6], [u8; 6])) -> Vec<u8> {
    Sketch {
        destination: to.parse().expect("an endpoint"),
        hops: sketch.hops - 1,
        macs,
        ..sketch
    }
    .frame()
}

pub fn returned(sketch: Sketch, from: &str) -> Vec<u8> {
    Sketch {
        source: from.parse().expect("an endpoint"),
        hops: sketch.hops - 1,
        macs: ROUTER_MACS,
        ..sketch
    }
    .frame()
}

fn patched(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn parsing() -> Vec<Case> {
    let ssh = || Sketch::new("192.0.2.1:1024", "203.0.113.10:22", SYN).frame();
    let ssh6 = || Sketch::new("[2001:db8::1]:1024", "[2001:db8::10]:22", SYN).frame();
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 28]].concat();
    let lldp = [
        &[0x01, 0x80, 0xc2, 0, 0, 14][..],
        &[2; 6],
        &[0x88, 0xcc],
        &[0; 46],
    ]
    .concat();
    let mut three_tags = ssh()[..12].to_vec();
    for _ in 0..3 {
        three_tags.extend([0x81, 0, 0, 5]);
    }
    three_tags.extend(&ssh()[12..]);
    let mut two_tags = ssh()[..12].to_vec();
    two_tags.extend([0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
    two_tags.extend(&ssh()[12..]);
    vec![
        comes("arp always passes", arp, "neighbour"),
        comes("what is not IP passes", lldp, "not-ip"),
        comes(
            "an IPv4 header of version 5",
            patched(ssh(), 14, &[0x55]),
            "malformed",
        ),
        comes(
            "an IPv4 header of 16 bytes",
            patched(ssh(), 14, &[0x44]),
            "malformed",
        ),
        comes(
            "a total length beyond the frame",
            patched(ssh(), 16, &[9, 0]),
            "truncated",
        ),
        comes(
            "a total length below the header",
            patched(ssh(), 16, &[0, 10]),
            "malformed",
        ),
        comes(
            "an IPv6 header of version 4",
            patched(ssh6(), 14, &[0x40]),
            "malformed",
        ),
        comes(
            "a payload length beyond the frame",
            patched(ssh6(), 18, &[9, 0]),
            "truncated",
        ),
        comes(
            "a TCP header of 16 bytes",
            patched(ssh(), 46, &[0x40]),
            "malformed",
        ),
        comes(
            "TCP options beyond the packet",
            patched(ssh(), 46, &[0xf0]),
            "truncated",
        ),
        comes(
            "a UDP length beyond the packet",
            patched(
                Sketch::new("192.0.2.1:9", "203.0.113.10:5000", What::Udp).frame(),
                38,
                &[1, 0],
            ),
            "malformed",
        ),
        comes("two tags do not hide a packet", two_tags, "rule-allow"),
        comes("three tags are too many", three_tags, "too-deep"),
    ]
}

fn filtering() -> Vec<Case> {
    let syn = |from: &str, to: &str| Sketch::new(from, to, SYN).frame();
    let tagged = Sketch {
        vlan: Some(100),
        ..Sketch::new("192.0.2.1:1024", "203.0.113.10:23", SYN)
    };
    let udp = Sketch {
        payload: 64,
        ..Sketch::new("192.0.2.1:1024", "203.0.113.10:5000", What::Udp)
    };
    let (first, later) = fragments(&udp.frame(), 32);
    let neighbour = |hops| {
        let sketch = Sketch {
            hops,
            ..Sketch::new("fe80::1", "fe80::2", What::EchoRequest)
        };
        let mut frame = sketch.frame();
        frame[54] = 135;
        frame
    };
    vec![
        comes(
            "an allowed port",
            syn("192.0.2.1:1024", "203.0.113.10:22"),
            "rule-allow",
        ),
        comes(
            "an allowed port over IPv6",
            syn("[2001:db8::1]:1024", "[2001:db8::10]:22"),
            "rule-allow",
        ),
        comes(
            "the first port of a range",
            syn("192.0.2.1:1024", "203.0.113.10:1000"),
            "rule-allow",
        ),
        comes(
            "the last port of a range",
            syn("192.0.2.1:1024", "203.0.113.10:2000"),
            "rule-allow",
        ),
        comes(
            "the port after a range",
            syn("192.0.2.1:1024", "203.0.113.10:2001"),
            "policy",
        ),
        comes(
            "a port that no rule names",
            syn("192.0.2.1:1024", "203.0.113.10:23"),
            "policy",
        ),
        comes(
            "a tag does not slip past the policy",
            tagged.frame(),
            "policy",
        ),
        comes(
            "a denied source",
            syn("198.51.100.66:1024", "203.0.113.10:22"),
            "rule",
        ),
        comes(
            "a denied source at a vip",
            syn("198.51.100.66:1024", VIP),
            "rule",
        ),
        comes(
            "an echo request",
            Sketch::new("192.0.2.1", "203.0.113.10", What::EchoRequest).frame(),
            "rule-allow",
        ),
        comes(
            "an echo request over IPv6",
            Sketch::new("2001:db8::1", "2001:db8::10", What::EchoRequest).frame(),
            "rule-allow",
        ),
        comes(
            "an echo reply that nobody asked for",
            Sketch::new("192.0.2.1", "203.0.113.10", What::EchoReply).frame(),
            "policy",
        ),
        comes("neighbour discovery", neighbour(255), "neighbour"),
        comes("neighbour discovery from afar", neighbour(254), "policy"),
        comes("a first fragment by its ports", first, "rule-allow"),
        comes("a later fragment has no ports", later, "fragment-unknown"),
        comes(
            "a reply to a flow of this node",
            Sketch::new("192.0.2.53:53", "203.0.113.10:40000", What::Udp).frame(),
            "reply",
        ),
        comes(
            "the same from another server",
            Sketch::new("192.0.2.54:53", "203.0.113.10:40000", What::Udp).frame(),
            "policy",
        ),
        comes(
            "a path-MTU message survives the policy",
            error(
                3,
                4,
                "192.0.2.9",
                "203.0.113.10",
                &syn("203.0.113.10:4000", "192.0.2.1:25"),
            ),
            "path-mtu",
        ),
        comes(
            "a path-MTU message over IPv6 survives the policy",
            error(
                2,
                0,
                "2001:db8::9",
                "2001:db8::10",
                &syn("[2001:db8::10]:4000", "[2001:db8::1]:25"),
            ),
            "path-mtu",
        ),
        comes(
            "an unreachable about nothing of ours",
            error(
                3,
                3,
                "192.0.2.9",
                "203.0.113.10",
                &syn("203.0.113.10:4000", "192.0.2.1:25"),
            ),
            "policy",
        ),
        comes(
            "an unreachable about our own flow",
            error(
                3,
                3,
                "192.0.2.53",
                "203.0.113.10",
                &Sketch::new("203.0.113.10:40000", "192.0.2.53:53", What::Udp).frame(),
            ),
            "reply",
        ),
    ]
}

fn balancing() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, name) in [
        (SYN, "a SYN to a vip goes to its backend"),
        (ACK, "a segment to a vip goes to its backend"),
    ] {
        for (client, vip, backend) in [(CLIENT, VIP, BACKEND), (CLIENT6, VIP6, BACKEND6)] {
            let sketch = Sketch::new(client, vip, what);
            cases.push(sent_on(
                name,
                sketch.frame(),
                "forwarded",
                rewritten(sketch, backend, BACKEND_MACS),
            ));
        }
    }
    for (backend, client, vip) in [(BACKEND, CLIENT, VIP), (BACKEND6, CLIENT6, VIP6)] {
        let sketch = Sketch::new(backend, client, SYN_ACK);
        cases.push(sent_on(
            "a backend's answer comes from the vip",
            sketch.frame(),
            "returned",
            returned(sketch, vip),
        ));
        cases.push(comes(
            "a connection that a backend opens is not an answer",
            Sketch::new(backend, client, SYN).frame(),
            "policy",
        ));
    }
    let tagged = Sketch {
        vlan: Some(100),
        ..Sketch::new(CLIENT, VIP, SYN)
    };
    cases.push(sent_on(
        "a tag stays on",
        tagged.frame(),
        "forwarded",
        rewritten(tagged, BACKEND, BACKEND_MACS),
    ));
    let dying = Sketch {
        hops: 1,
        ..Sketch::new(CLIENT, VIP, SYN)
    };
    cases.push(comes(
        "a packet at its last hop",
        dying.frame(),
        "ttl-exceeded",
    ));
    let large = Sketch {
        payload: 1500,
        ..Sketch::new(CLIENT, VIP, ACK)
    };
    cases.push(comes("a packet beyond the MTU", large.frame(), "too-big"));
    cases.push(comes(
        "the vip's address on another port",
        Sketch::new(CLIENT, "203.0.113.10:8081", SYN).frame(),
        "policy",
    ));
    for (vip, backend, name) in [
        (RESTEERER, HEIR, "a flow of a dead backend goes to its heir"),
        (KEEPER, DEAD, "a flow of a dead backend is kept where asked"),
    ] {
        let sketch = Sketch::new(CLIENT, vip, ACK);
        let leaves = rewritten(sketch, backend, BACKEND_MACS);
        cases.push(sent_on(name, sketch.frame(), "forwarded", leaves));
    }
    cases.push(path_mtu_of_a_balanced_flow());
    cases.push(path_mtu_of_a_balanced_flow_over_ipv6());
    cases
}

/// The quotation must name the backend, or its kernel would not recognise its own packet.
fn path_mtu_of_a_balanced_flow() -> Case {
    let sent = |from: &str| Sketch::new(from, CLIENT, ACK).frame();
    let before = error(3, 4, "192.0.2.9", "203.0.113.10", &sent(VIP));
    let mut after = error(3, 4, "192.0.2.9", "10.0.0.11", &sent(BACKEND));
    // What the backend's packet had become by the time it was quoted: the TCP checksum of the vip's.
    let quoted = 14 + 20 + 8;
    let tcp_checksum = quoted + 20 + 16;
    after[tcp_checksum..tcp_checksum + 2].copy_from_slice(&before[tcp_checksum..tcp_checksum + 2]);
    let icmp = 14 + 20;
    after[icmp + 2..icmp + 4].fill(0);
    let sum = checksum(&after[icmp..]);
    after[icmp + 2..icmp + 4].copy_from_slice(&sum.to_be_bytes());
    hop(&mut after, BACKEND_MACS);
    sent_on(
        "a path-MTU message about a balanced flow reaches its backend",
        before,
        "error-forwarded",
        after,
    )
}

fn path_mtu_of_a_balanced_flow_over_ipv6() -> Case {
    let sent = |from: &str| Sketch::new(from, CLIENT6, ACK).frame();
    let before = error(2, 0, "2001:db8::9", "2001:db8::10", &sent(VIP6));
    let mut after = error(2, 0, "2001:db8::9", "fd00::11", &sent(BACKEND6));
    let icmp = 14 + 40;
    after[icmp + 2..icmp + 4].fill(0);
    let length = ((after.len() - icmp) as u32).to_be_bytes();
    let sum = checksum(
        &[
            &after[14 + 8..14 + 40],
            &length,
            &[0, 0, 0, 58],
            &after[icmp..],
        ]
        .concat(),
    );
    after[icmp + 2..icmp + 4].copy_from_slice(&sum.to_be_bytes());
    hop(&mut after, BACKEND_MACS);
    sent_on(
        "a path-MTU message about a balanced IPv6 flow reaches its backend",
        before,
        "error-forwarded",
        after,
    )
}

/// Other hardware addresses, one hop less.
fn hop(frame: &mut [u8], (source, destination): ([u8; 6], [u8; 6])) {
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&source);
    if frame[12..14] == [8, 0] {
        frame[22] -= 1;
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[21] -= 1;
    }
}

fn leaving() -> Vec<Case> {
    vec![
        goes(
            "a query that the egress policy allows",
            Sketch::new("203.0.113.10:40000", "192.0.2.53:53", What::Udp).frame(),
            "rule-allow",
        ),
        goes(
            "a connection that the egress policy does not allow",
            Sketch::new("203.0.113.10:40000", "192.0.2.1:25", SYN).frame(),
            "policy",
        ),
        goes(
            "an answer to what the ingress policy let in",
            Sketch::new("203.0.113.10:22", "192.0.2.1:1024", SYN_ACK).frame(),
            "reply",
        ),
        goes(
            "an answer from a port that lets nothing in",
            Sketch::new("203.0.113.10:23", "192.0.2.1:1024", SYN_ACK).frame(),
            "policy",
        ),
        goes(
            "an echo reply",
            Sketch::new("203.0.113.10", "192.0.2.1", What::EchoReply).frame(),
            "reply",
        ),
        goes(
            "an echo request",
            Sketch::new("203.0.113.10", "192.0.2.1", What::EchoRequest).frame(),
            "policy",
        ),
    ]
}
