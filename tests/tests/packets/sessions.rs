//! Cases of services that know their flows: what stands goes on, what does not is told so.

use super::{
    cases::{Case, comes, returned, rewritten, sent_on},
    estate::{
        BACKEND_MACS, CLOSED, CLOSED6, KNOWN_PORT, LAPSED, LAPSED_PRIMARY, LEASED, LEASED_PRIMARY,
        OPEN, ORPHAN, PEER, PRIMARY, PRIMARY6, WRITER, WRITER6,
    },
    frames::{ACK, SYN, SYN_ACK, Sketch, What, reset},
};

const CLIENT: &str = "198.51.100.7";
const CLIENT6: &str = "[2001:db8:c::7]";
/// A sketch's segments begin at 1000, acknowledge 2000 and carry 12 bytes.
const ACKNOWLEDGED: u32 = 2000;
const AFTER_SYN: u32 = 1000 + 1 + 12;
const RST: What = What::Tcp(4);
const FIN: What = What::Tcp(1);
const AFTER_FIN: u32 = AFTER_SYN;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (client, writer, primary) in [(CLIENT, WRITER, PRIMARY), (CLIENT6, WRITER6, PRIMARY6)] {
        cases.extend(cases_of(client, writer, primary));
    }
    cases.extend(nobody_to_take_it());
    cases.extend(leases());
    cases.extend(guards());
    cases
}

fn cases_of(client: &str, writer: &str, primary: &str) -> Vec<Case> {
    let known = format!("{client}:{KNOWN_PORT}");
    let stale = format!("{client}:{}", KNOWN_PORT + 1);
    let unknown = format!("{client}:51000");
    let mut cases = Vec::new();
    for (what, port, name) in [
        (SYN, &unknown, "a SYN begins a session"),
        (ACK, &known, "a segment of a session that stands goes on"),
        (RST, &known, "a RST of a session that stands goes on"),
        (
            SYN,
            &stale,
            "a SYN on the ports of a session of an earlier epoch begins anew",
        ),
    ] {
        let sketch = Sketch::new(port, writer, what);
        let leaves = rewritten(sketch, primary, BACKEND_MACS);
        cases.push(sent_on(name, sketch.frame(), "forwarded", leaves));
    }
    for (port, name) in [
        (&unknown, "a segment of no session is answered with a RST"),
        (
            &stale,
            "a segment of a session of an earlier epoch is answered with a RST",
        ),
    ] {
        let sketch = Sketch::new(port, writer, ACK);
        let leaves = reset(sketch, ACKNOWLEDGED, None);
        cases.push(sent_on(name, sketch.frame(), "reset", leaves));
        cases.push(comes(
            "a RST is never answered with one",
            Sketch::new(port, writer, RST).frame(),
            "no-backend",
        ));
    }
    let closing = Sketch::new(&unknown, writer, FIN);
    cases.push(sent_on(
        "a segment without an ACK has its end acknowledged by the RST",
        closing.frame(),
        "reset",
        reset(closing, 0, Some(AFTER_FIN)),
    ));
    let tagged = Sketch {
        vlan: Some(100),
        payload: 900,
        ..Sketch::new(&unknown, writer, ACK)
    };
    cases.push(sent_on(
        "a RST keeps the tag and loses the payload",
        tagged.frame(),
        "reset",
        reset(tagged, ACKNOWLEDGED, None),
    ));
    let answer = Sketch::new(primary, &known, SYN_ACK);
    cases.push(sent_on(
        "an answer within a session comes from the vip",
        answer.frame(),
        "returned",
        returned(answer, writer),
    ));
    for (port, name) in [
        (&unknown, "an answer without a session is cut off"),
        (&stale, "an answer of an earlier epoch is cut off"),
    ] {
        let answer = Sketch::new(primary, port, ACK).frame();
        cases.push(comes(name, answer, "cut-off"));
    }
    cases
}

fn nobody_to_take_it() -> Vec<Case> {
    let client = format!("{CLIENT}:51000");
    [
        (ORPHAN, "a SYN that nobody may take is refused"),
        (LAPSED, "a SYN is refused once the lease has lapsed"),
    ]
    .map(|(vip, name)| {
        let sketch = Sketch::new(&client, vip, SYN);
        let leaves = reset(sketch, 0, Some(AFTER_SYN));
        sent_on(name, sketch.frame(), "refused", leaves)
    })
    .into()
}

/// What stands ends with the lease, though its backend lives, and no sooner.
fn leases() -> Vec<Case> {
    let client = format!("{CLIENT}:{KNOWN_PORT}");
    let request = |vip| Sketch::new(&client, vip, ACK);
    let answer = |primary| Sketch::new(primary, &client, ACK);
    vec![
        sent_on(
            "a segment within a lease goes on",
            request(LEASED).frame(),
            "forwarded",
            rewritten(request(LEASED), LEASED_PRIMARY, BACKEND_MACS),
        ),
        sent_on(
            "an answer within a lease comes back",
            answer(LEASED_PRIMARY).frame(),
            "returned",
            returned(answer(LEASED_PRIMARY), LEASED),
        ),
        sent_on(
            "a segment is answered with a RST once the lease has lapsed",
            request(LAPSED).frame(),
            "reset",
            reset(request(LAPSED), ACKNOWLEDGED, None),
        ),
        comes(
            "an answer is cut off once the lease has lapsed",
            answer(LAPSED_PRIMARY).frame(),
            "cut-off",
        ),
    ]
}

/// Servers of this host: closed to clients once nobody vouches for them, never to their peers.
fn guards() -> Vec<Case> {
    let client = format!("{CLIENT}:51000");
    let client6 = format!("{CLIENT6}:51000");
    let peer = format!("{PEER}:51000");
    let mut cases = Vec::new();
    for (source, endpoint, name) in [
        (
            &client,
            OPEN,
            "a guarded server is open while it is vouched for",
        ),
        (
            &peer,
            CLOSED,
            "a guarded server is never closed to its peers",
        ),
    ] {
        for what in [SYN, ACK] {
            let frame = Sketch::new(source, endpoint, what).frame();
            cases.push(comes(name, frame, "rule-allow"));
        }
    }
    for (client, closed) in [(&client, CLOSED), (&client6, CLOSED6)] {
        let syn = Sketch::new(client, closed, SYN);
        cases.push(sent_on(
            "a guarded server that nobody vouches for refuses clients",
            syn.frame(),
            "refused",
            reset(syn, 0, Some(AFTER_SYN)),
        ));
        let segment = Sketch::new(client, closed, ACK);
        cases.push(sent_on(
            "a guarded server that nobody vouches for loses its clients",
            segment.frame(),
            "reset",
            reset(segment, ACKNOWLEDGED, None),
        ));
    }
    cases
}
