//! Random rules, and packets that fall near them: the library and the kernel must rule alike.

use std::{cell::RefCell, fmt::Write as _, path::Path};

use foobar::{config, firewall, labels::Labels};
use proptest::{prelude::*, sample::select, test_runner::TestRunner};

use super::{
    estate::{Estate, Kernel, Way},
    frames::{Sketch, What},
};

const RULESETS: u32 = 250;
const PACKETS: usize = 100;

#[test]
fn random_rules_and_packets_end_alike_in_the_library_and_in_the_kernel() {
    let kernel = RefCell::new(None::<Kernel>);
    let config = ProptestConfig {
        cases: RULESETS,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let drawn = (policy(), policy(), prop::collection::vec(packet(), PACKETS));
    TestRunner::new(config)
        .run(&drawn, |(ingress, egress, packets)| {
            let text = file(&ingress, &egress);
            let mut estate = Estate::new();
            let (interface, words) = compiled(&text);
            estate.tables.interface = interface;
            estate.tables.ruleset.clone_from(&words);
            let mut kernel = kernel.borrow_mut();
            let kernel = kernel.get_or_insert_with(|| {
                let mut first = Estate::new();
                first.tables.interface = interface;
                first.kernel("packets-rules")
            });
            kernel.take_ruleset(&words);
            for (way, sketch) in packets {
                let frame = sketch.frame();
                let library = estate.library(way, &frame);
                let in_kernel = kernel.run(way, &frame);
                prop_assert_eq!(library, in_kernel, "{:?} {:?} by\n{}", way, sketch, text);
                // What one egress packet leaves behind must not answer for the next.
                estate.tables.v4.flows.clear();
                estate.tables.v6.flows.clear();
                kernel.forget_flows();
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

fn compiled(text: &str) -> (u32, Vec<u64>) {
    let config = config::parse(text, Path::new("random.toml"))
        .unwrap_or_else(|errors| panic!("{}\n{text}", errors.render(false, 120)));
    let ruleset =
        firewall::compile(&config, "lb1", &mut Labels::default(), 1).expect("few rules compile");
    (ruleset.interfaces[0], ruleset.words)
}

fn file(ingress: &str, egress: &str) -> String {
    format!(
        "version = 1\n\
         [hosts]\nlb1 = {{ private = \"10.0.0.10\" }}\n\
         [nodes]\nlb1 = {{ wan = {{ dev = \"lo\", ingress = \"come\", egress = \"go\" }} }}\n\
         [firewall]\ncome = {ingress}\ngo = {egress}\n"
    )
}

fn policy() -> impl Strategy<Value = String> {
    let default = select(&["allow", "drop"][..]);
    (default, prop::collection::vec(rule(), 0..20)).prop_map(|(default, rules)| {
        let mut text = format!("{{ policy = \"{default}\", rules = [\n");
        for (number, rule) in rules.iter().enumerate() {
            let _ = writeln!(text, "  {{ name = \"r{number}\", {rule} }},");
        }
        text + "] }"
    })
}

/// A rule whose addresses and protocol are of one family, for the checker refuses one that cannot match.
fn rule() -> impl Strategy<Value = String> {
    prop_oneof![
        rule_of("icmp/echo-request", PEERS_V4),
        rule_of("icmp6/echo-request", PEERS_V6),
    ]
}

fn rule_of(ping: &'static str, peers: &'static [&'static str]) -> impl Strategy<Value = String> {
    let verb = select(&["allow", "drop"][..]);
    let traffic = prop_oneof![1 => Just(ping), 5 => select(TRAFFIC)];
    let flags = select(&["syn,!ack", "ack", "rst", "!syn"][..]);
    (
        verb,
        traffic,
        prop::option::of(select(peers)),
        prop::option::weighted(0.3, select(peers)),
        prop::option::weighted(0.3, flags),
        prop::option::weighted(0.2, select(&["51000", "1000-2000"][..])),
    )
        .prop_map(|(verb, traffic, from, to, flags, sport)| {
            let mut text = format!("{verb} = \"{traffic}\"");
            let is_tcp = traffic.starts_with("tcp");
            let has_ports = is_tcp || traffic.starts_with("udp");
            for (key, value, is_meant) in [
                ("from", from, true),
                ("to", to, true),
                ("flags", flags, is_tcp),
                ("sport", sport, has_ports),
            ] {
                if let (Some(value), true) = (value, is_meant) {
                    let _ = write!(text, ", {key} = \"{value}\"");
                }
            }
            text
        })
}

const TRAFFIC: &[&str] = &[
    "any",
    "tcp/22",
    "tcp/8080",
    "tcp/1000-51000",
    "udp/53",
    "udp/1-5000",
];

const PEERS_V4: &[&str] = &[
    "198.51.100.0/24",
    "198.51.100.7",
    "198.51.100.64/26",
    "203.0.113.10",
    "192.0.2.0/25",
];

const PEERS_V6: &[&str] = &["2001:db8:c::/48", "2001:db8:c::7", "2001:db8::10"];

fn packet() -> impl Strategy<Value = (Way, Sketch)> {
    let ends_v4 = select(
        &[
            "198.51.100.7",
            "198.51.100.66",
            "203.0.113.10",
            "192.0.2.53",
        ][..],
    );
    let ends_v6 = select(&["2001:db8:c::7", "2001:db8:c:1::7", "2001:db8::10"][..]);
    let ends = prop_oneof![
        (ends_v4.clone(), ends_v4).prop_map(|(from, to)| (from.to_owned(), to.to_owned())),
        (ends_v6.clone(), ends_v6).prop_map(|(from, to)| (format!("[{from}]"), format!("[{to}]"))),
    ];
    let ports = select(&[22_u16, 53, 80, 1500, 5000, 8080, 51000][..]);
    let what = prop_oneof![
        4 => (0_u8..32).prop_map(What::Tcp),
        2 => Just(What::Udp),
        1 => Just(What::EchoRequest),
        1 => Just(What::EchoReply),
    ];
    let way = select(&[Way::In, Way::Out][..]);
    (way, ends, ports.clone(), ports, what).prop_map(|(way, (from, to), sport, dport, what)| {
        let source = format!("{from}:{sport}");
        (way, Sketch::new(&source, &format!("{to}:{dport}"), what))
    })
}
