//! Whole files: what they mean, and what their mistakes are told.

mod l7;
mod monitor;
mod mysql;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

const ESTATE: &str = include_str!("tests/estate.toml");
const MISTAKES: &str = include_str!("tests/mistakes.toml");

fn read(text: &str) -> Result<Config, Diagnostics> {
    parse_with(text, Path::new("/etc/foobar/foobar.toml"), &files)
}

fn files(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("/etc/foobar/good.txt") => {
            Ok("# known\n192.0.2.1\n\n 2001:db8:bad::/48 # a net\r\n".to_owned())
        }
        Some("/etc/foobar/bad.txt") => Ok("192.0.2.1\n  192.0.2.300 # no\n10.0.0.1/8\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    }
}

fn estate() -> Config {
    read(ESTATE).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// Where something is written does not count.
fn meaning(mut config: Config) -> Config {
    let nowhere = Place { line: 0, column: 0 };
    config.path = PathBuf::new();
    for node in config.nodes.values_mut() {
        for interface in &mut node.interfaces {
            interface.place = nowhere;
        }
    }
    for policy in config.policies.values_mut() {
        for rule in &mut policy.rules {
            rule.place = nowhere;
            rule.text.clear();
        }
    }
    for service in config.l4.values_mut() {
        service.place = nowhere;
    }
    for service in config.mysql.values_mut() {
        service.place = nowhere;
    }
    config.l7 = config
        .l7
        .into_iter()
        .map(|(name, service)| (name, service.placeless()))
        .collect();
    config
}

#[test]
fn the_estate_is_read_as_meant() {
    let config = estate();
    let lb1 = &config.nodes["lb1"];
    let names: Vec<_> = lb1
        .interfaces
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    assert_eq!(names, ["wan", "lan"], "the order of the file");
    let edge = &config.policies["edge"];
    assert_eq!(
        edge.rules[1].traffic,
        [Traffic::Tcp(PortRange {
            first: 22,
            last: 22
        })]
    );
    assert_eq!(
        edge.rules[1].place,
        Place {
            line: 20,
            column: 3
        }
    );
    assert_eq!(
        edge.rules[1].text,
        r#"{ name = "ssh", allow = ["tcp/22"], from = ["@admins"], limit = "per-client", jail = "jail" }"#
    );
    assert_eq!(config.limits["syn"].packets, 20_000);
    assert_eq!(config.limits["per-client"].per, LimitPer::Source);
    assert_eq!(config.sets["jail"].timeout, Some(Duration::from_secs(600)));
    let plain = &config.l4["plain"];
    let vips: Vec<_> = plain.vips.iter().map(ToString::to_string).collect();
    assert_eq!(vips, ["203.0.113.10:8080", "[2001:db8::10]:8080"]);
    assert_eq!(
        plain.backends[2].addresses.v4,
        Some(Ipv4Addr::new(10, 0, 0, 13))
    );
    let check = plain.check.as_ref().expect("it has one");
    assert_eq!(
        check.probe,
        Probe::Http {
            path: "/healthz".to_owned(),
            expect: 200
        }
    );
    assert_eq!(
        config.admin.socket_of("lb1"),
        Path::new("/run/foobar/lb1.sock")
    );
}

#[test]
fn a_host_in_a_rule_means_all_its_addresses() {
    let config = estate();
    let to: Vec<_> = config.policies["servers-out"].rules[0]
        .to
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        to,
        ["10.0.0.10", "fd00::10", "203.0.113.10", "2001:db8::10"]
    );
}

#[test]
fn the_file_of_a_set_is_read_beside_the_configuration() {
    let text = ESTATE.replace("{ max = 1_000_000 }", r#"{ file = "good.txt" }"#);
    let config = read(&text).expect("good");
    let elements: Vec<_> = config.sets["blocklist"]
        .file_elements
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(elements, ["192.0.2.1/32", "2001:db8:bad::/48"]);
}

#[test]
fn every_mistake_is_told_at_once_with_place_line_and_cure() {
    let rendered = read(MISTAKES).expect_err("bad").render(false, 120);
    let expected = include_str!("tests/mistakes.txt");
    if rendered != expected.trim_end() {
        let actual = std::env::temp_dir().join("foobar-mistakes.txt");
        std::fs::write(&actual, &rendered).expect("a writable temporary directory");
        panic!(
            "differs from config/tests/mistakes.txt; see {}",
            actual.display()
        );
    }
}

#[test]
fn a_secret_in_the_file_is_not_shown_in_the_message_about_it() {
    let diagnostics = read(MISTAKES).expect_err("bad");
    assert!(MISTAKES.contains("hunter2"));
    assert!(!diagnostics.render(true, 200).contains("hunter2"));
    assert!(!format!("{diagnostics:?}").contains("hunter2"));
}

#[test]
fn colour_is_there_when_asked_for() {
    let diagnostics = read(MISTAKES).expect_err("bad");
    assert!(diagnostics.render(true, 120).contains('\u{1b}'));
    assert!(!diagnostics.render(false, 120).contains('\u{1b}'));
}

#[test]
fn one_wrong_letter_is_not_told_many_times() {
    let letters: Vec<char> = ESTATE.chars().collect();
    for at in (0..letters.len()).filter(|at| !letters[*at].is_alphanumeric()) {
        let text: String = letters[..at].iter().chain(&letters[at + 1..]).collect();
        if let Err(diagnostics) = read(&text) {
            let told = diagnostics.iter().len();
            assert!(told <= 5, "without letter {at}: {told}\n{diagnostics}");
        }
    }
}

#[test]
fn what_stands_apart_from_a_syntax_error_is_still_checked() {
    let text = ESTATE
        .replacen("web1 = { private = [", "web1 = { private = ", 1)
        .replacen(
            "edge = { policy = \"drop\"",
            "edge = { policy = \"dorp\"",
            1,
        )
        .replacen("every = \"2s\"", "every = \"2\"", 1)
        .replacen("on = \"lb1\"", "on = lb1", 1);
    let told = read(&text).expect_err("four mistakes");
    let lines: Vec<_> = told
        .iter()
        .filter_map(|told| Some(told.place?.line))
        .collect();
    assert_eq!(lines, [4, 18, 27, 30], "{told}");
}

#[test]
fn a_name_cannot_speak_to_the_terminal() {
    let text = ESTATE.replacen(r#"ingress = "edge""#, r#"ingress = "\u001b[2Jedge""#, 1);
    let told = read(&text).expect_err("unknown").render(false, 120);
    assert!(told.contains("unknown policy"), "{told}");
    assert!(!told.contains('\u{1b}'), "{told}");
}

#[test]
fn a_file_that_is_not_there_says_how_to_begin() {
    let rendered = load(Path::new("/nonexistent/foobar.toml"))
        .expect_err("absent")
        .to_string();
    assert!(
        rendered.contains("cannot read /nonexistent/foobar.toml"),
        "{rendered}"
    );
    assert!(rendered.contains("foobar config example"), "{rendered}");
}

/// In the estate's file, this is written instead of that.
struct Slip {
    right: &'static str,
    wrong: &'static str,
    /// Line (0: any), words of the message, words of the cure; all of the errors, in order.
    told: &'static [(u32, &'static str, &'static str)],
}

const WEB: &str = r#"{ name = "web",    allow = ["tcp/80", "tcp/443"], limit = "per-client" }"#;
const PLAIN: &str = "[l4.plain]";

#[rustfmt::skip]
const SLIPS: &[Slip] = &[
    // The file
    Slip { right: "version = 1", wrong: "", told: &[(1, "`version` is missing", "add `version = 1`")] },
    Slip { right: "version = 1", wrong: "version = 2", told: &[(1, "does not know that version", "write `version = 1`")] },
    Slip { right: "version = 1", wrong: "version = \"1\"", told: &[(1, "`version` must be the number 1", "without quotes: `version = 1`")] },
    Slip { right: "version = 1", wrong: "version = 1\nverison = 1", told: &[(2, "unknown key `verison`", "did you mean `version`?")] },
    Slip { right: "[hosts]", wrong: "[host]", told: &[(2, "unknown key `host` in the file", "did you mean `hosts`?")] },
    Slip { right: "[limits]", wrong: "[limits", told: &[(11, "this is not TOML: unclosed table", "add what closes it: `]`")] },
    Slip { right: "[admin]", wrong: "[admin]\nsocket = \"/x\"", told: &[(42, "this is not TOML: duplicate key", "every key may stand once")] },
    Slip { right: "[admin]", wrong: "[l4.plain]\n[admin]", told: &[(40, "this is not TOML: duplicate key", "every key")] },
    Slip { right: "[admin]", wrong: "[admin]\ndashbord = 1", told: &[(41, "unknown key `dashbord` in `[admin]`", "did you mean `dashboard`?")] },
    Slip { right: "[admin]", wrong: "[admin]\ndashboard = \"9100\"", told: &[(41, "`9100` has no port", "public:443")] },
    Slip { right: "[admin]", wrong: "[admin]\ndashboard = \"public:9100\"", told: &[(41, "node `web1` has no such address", "127.0.0.1:PORT")] },
    Slip { right: "[admin]", wrong: "[admin]\ndashboard = \"192.0.2.1:9100\"", told: &[(41, "`192.0.2.1` is not an address of any node", "private:PORT")] },
    // Hosts
    Slip { right: "private = [\"10.0.0.11\", \"fd00::11\"]", wrong: "private = [\"10.0.0.11\", \"10.0.0.21\"]", told: &[(4, "a second IPv4 address under `private`", "keep one IPv4 address")] },
    Slip { right: "private = [\"10.0.0.11\", \"fd00::11\"]", wrong: "private = \"10.0.0.12\"", told: &[(5, "`10.0.0.12` is given twice", "one host")] },
    Slip { right: "private = [\"10.0.0.11\", \"fd00::11\"]", wrong: "private = \"10.0.0.11/24\"", told: &[(4, "not an IP address", "without the prefix length: `10.0.0.11`")] },
    Slip { right: "private = [\"10.0.0.11\", \"fd00::11\"]", wrong: "private = \"127.0.0.1\"", told: &[(4, "reached by its own host only", "other machines")] },
    Slip { right: "private = [\"10.0.0.11\", \"fd00::11\"]", wrong: "", told: &[(4, "host `web1` has no address", "private = ")] },
    Slip { right: "private = [\"10.0.0.11\", \"fd00::11\"]", wrong: "privat = \"10.0.0.11\"", told: &[(4, "unknown key `privat` in a host", "did you mean `private`?")] },
    Slip { right: "private = [\"10.0.0.11\", \"fd00::11\"]", wrong: "private = 10", told: &[(4, "`private` must be an IP address in quotes, not a number", "write it like")] },
    Slip { right: "[sets]", wrong: "\"10.1\" = { private = \"10.9.9.9\" }\n[sets]", told: &[(7, "`10.1` looks like an address", "a letter in it")] },
    Slip { right: "[sets]", wrong: "\"web 4\" = { private = \"10.9.9.9\" }\n[sets]", told: &[(7, "`web 4` cannot be a name", "begin with a letter")] },
    // Sets
    Slip { right: "\"198.51.100.0/24\"", wrong: "\"198.51.100.1/24\"", told: &[(8, "bits set behind its prefix length", "write `198.51.100.0/24` or `198.51.100.1`")] },
    Slip { right: "\"198.51.100.0/24\"", wrong: "\"office\"", told: &[(8, "neither an address nor a prefix", "198.51.100.7")] },
    Slip { right: "elements = [\"198.51.100.0/24\", \"2001:db8:ad::/48\"]", wrong: "elements = \"198.51.100.0/24\"", told: &[(8, "`elements` must be an array, not a string", "put it into brackets: `elements = [\"198.51.100.0/24\"]`")] },
    Slip { right: "{ max = 1_000_000 }", wrong: "{ file = \"/absent.txt\" }", told: &[(9, "cannot read /absent.txt: there is no such file", "create it")] },
    Slip { right: "{ max = 1_000_000 }", wrong: "{ file = \"bad.txt\" }", told: &[(2, "`192.0.2.300` is neither", "write one like"), (3, "bits set", "write `10.0.0.0/8`")] },
    Slip { right: "{ max = 1_000_000 }", wrong: "{ file = \"good.txt\", max = 1 }", told: &[(9, "has 2 elements, but may hold 1", "max = 2")] },
    Slip { right: "{ max = 1_000_000 }", wrong: "{ max = 0 }", told: &[(9, "`max` is out of range", "from 1 to 16777216")] },
    Slip { right: "timeout = \"10m\"", wrong: "timeout = 10", told: &[(10, "`timeout` must be a duration in quotes, not a number", "with its unit: `timeout = \"10s\"`")] },
    Slip { right: "timeout = \"10m\"", wrong: "timeout = \"10\"", told: &[(10, "`10` is not a duration", "`10s`")] },
    Slip { right: "timeout = \"10m\"", wrong: "timeout = \"0s\"", told: &[(10, "a duration of nothing", "longer than zero")] },
    Slip { right: ", timeout = \"10m\"", wrong: "", told: &[(20, "set `jail` has no timeout and cannot be a jail", "add `timeout = \"10m\"`")] },
    // Limits
    Slip { right: "\"100/s\"", wrong: "\"100\"", told: &[(12, "`100` is not a rate", "`100/s`")] },
    Slip { right: "\"100/s\"", wrong: "\"0/s\"", told: &[(12, "a rate of nothing", "`drop`")] },
    Slip { right: "\"100/s\"", wrong: "\"+100/s\"", told: &[(12, "`+100/s` is not a rate", "`100/s`")] },
    Slip { right: "\"100/s\"", wrong: "\"2000M/s\"", told: &[(12, "more than 1000000000 packets a second", "lower rate")] },
    Slip { right: "rate = \"100/s\", ", wrong: "", told: &[(12, "`rate` is missing in a limit", "add `rate = ")] },
    Slip { right: "per = \"source\"", wrong: "per = \"client\"", told: &[(12, "`per` cannot be `client`", "`rule`, `source`")] },
    Slip { right: "rate = \"20k/s\", burst = 40_000", wrong: "rate = \"1/d\", burst = 1_000_000_000", told: &[(13, "years", "smaller `burst`")] },
    // Nodes
    Slip { right: "ingress = \"edge\"", wrong: "ingress = \"egde\"", told: &[(15, "unknown policy `egde`", "did you mean `edge`?")] },
    Slip { right: "dev = \"eth1\"", wrong: "dev = \"eth0\"", told: &[(15, "device `eth0` is named twice on node `lb1`", "join the two")] },
    Slip { right: "dev = \"eth1\"", wrong: "dev = \"an-interface-too-long\"", told: &[(15, "cannot be the name of a network device", "15 bytes")] },
    Slip { right: "dev = \"eth1\", ", wrong: "", told: &[(15, "`dev` is missing in an interface", "add `dev = \"eth0\"`")] },
    Slip { right: "xdp = \"auto\"", wrong: "xdp = \"skb\"", told: &[(15, "`xdp` cannot be `skb`", "`auto`, `native`, `generic`")] },
    Slip { right: "[firewall]", wrong: "web9 = { lan = { dev = \"eth0\" } }\n[firewall]", told: &[(17, "node `web9` is not a host", "did you mean `web1`?")] },
    Slip { right: "[firewall]", wrong: "web2 = {}\n[firewall]", told: &[(17, "node `web2` has no interface", "dev = \"eth0\"")] },
    Slip { right: "[firewall]", wrong: "web2 = { dev = \"eth0\" }\n[firewall]", told: &[(17, "`an interface` must be a table, not a string", "{ dev = \"eth0\" }")] },
    // Rules
    Slip { right: WEB, wrong: "{ name = \"web\", alow = \"tcp/80\" }", told: &[(22, "unknown key `alow` in a rule", "did you mean `allow`?")] },
    Slip { right: WEB, wrong: "{ name = \"web\" }", told: &[(22, "neither allows nor drops", "add `allow")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"any\", drop = \"any\" }", told: &[(22, "either allows or drops", "two rules")] },
    Slip { right: WEB, wrong: "{ allow = \"any\" }", told: &[(22, "`name` is missing in a rule", "add `name")] },
    Slip { right: WEB, wrong: "{ name = \"ssh\", allow = \"any\" }", told: &[(22, "a second rule `ssh` in policy `edge`", "each its own")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = [\"tcp/80\", \"any\"] }", told: &[(22, "`any` covers everything else", "alone")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = [] }", told: &[(22, "meets no traffic", "\"any\"")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"80\" }", told: &[(22, "`80` is no kind of traffic", "`tcp/80` or `udp/80`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"https\" }", told: &[(22, "`https` is no kind of traffic", "`tcp/443`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tpc/80\" }", told: &[(22, "`tpc/80` is no kind of traffic", "did you mean `tcp`?")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp/http\" }", told: &[(22, "`http` is not a port", "write `tcp/80`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp/99999\" }", told: &[(22, "`99999` is not a port", "1 to 65535")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp/90-80\" }", told: &[(22, "the range `90-80` is empty", "`80-90`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"icmp/echo-rquest\" }", told: &[(22, "not a type of icmp", "did you mean `echo-request`?")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"icmp/packet-too-big\" }", told: &[(22, "not a type of icmp", "`icmp6/packet-too-big`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"icmp/3/frag\" }", told: &[(22, "`frag` is not a code", "numbers")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"proto/300\" }", told: &[(22, "`300` is not an IP protocol's number", "0 to 255")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = 80 }", told: &[(22, "`allow` must be a kind of traffic in quotes, not a number", "write it like")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", from = \"@admin\" }", told: &[(22, "unknown set `admin`", "did you mean `admins`?")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", from = \"admins\" }", told: &[(22, "unknown host `admins`", "`@admins`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", from = \"wbe1\" }", told: &[(22, "unknown host `wbe1`", "did you mean `web1`?")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", from = \"any\" }", told: &[(22, "unknown host `any`", "take `from` out")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", from = \"10.0.0.0/33\" }", told: &[(22, "neither an address nor a prefix", "")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", from = [] }", told: &[(22, "`from = []` names nobody", "take `from` out")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"icmp6\", from = [\"10.0.0.0/8\"] }", told: &[(22, "never matches", "IPv6")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", from = \"10.0.0.0/8\", to = \"fd00::/8\" }", told: &[(22, "never matches", "a family in common")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", limit = \"per-cilent\" }", told: &[(22, "unknown limit `per-cilent`", "did you mean `per-client`?")] },
    Slip { right: WEB, wrong: "{ name = \"web\", drop = \"tcp\", limit = \"per-client\" }", told: &[(22, "nothing to limit", "`allow` with `limit`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", jail = \"jail\" }", told: &[(22, "jails nobody", "add `limit`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", limit = \"per-client\", jail = \"@jail\" }", told: &[(22, "unknown set `@jail`", "without `@`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", flags = \"sin\" }", told: &[(22, "`sin` is not a TCP flag", "did you mean")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", flags = \"syn,!syn\" }", told: &[(22, "`syn` stands twice", "once")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"udp/53\", flags = \"syn\" }", told: &[(22, "`flags` are of TCP", "`tcp` alone")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"icmp\", sport = 53 }", told: &[(22, "`sport` is of TCP and UDP", "`tcp` or `udp`")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"udp\", sport = 70000 }", told: &[(22, "`70000` is not a port", "1 to 65535")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", log = \"new\" }", told: &[(22, "`log` is not yet supported", "foobar stats")] },
    Slip { right: WEB, wrong: "{ name = \"web\", allow = \"tcp\", mode = \"audti\" }", told: &[(22, "`mode` is not yet supported", ""), (22, "`mode` cannot be `audti`", "did you mean `audit`?")] },
    Slip { right: "edge = { policy = \"drop\"", wrong: "edge = { policy = \"deny\"", told: &[(18, "`policy` cannot be `deny`", "`allow`, `drop`")] },
    Slip { right: "inside = { policy = \"allow\" }", wrong: "inside = { }", told: &[(24, "`policy` is missing in a policy", "add `policy = \"allow\"`")] },
    // Services
    Slip { right: PLAIN, wrong: "[l4.plain]\nmode = \"dsr-l2\"", told: &[(27, "`mode = \"dsr-l2\"` is not yet supported", "mode = \"dnat\"")] },
    Slip { right: PLAIN, wrong: "[l4.plain]\nmode = \"dsr\"", told: &[(27, "`mode` cannot be `dsr`", "`dnat`")] },
    Slip { right: "balance = \"hrw\"", wrong: "balance = \"maglev\"", told: &[(36, "`balance = \"maglev\"` is not yet supported", "hrw")] },
    Slip { right: "\"resteer\"", wrong: "\"rest\"", told: &[(37, "`on-backend-loss` cannot be `rest`", "`reset`")] },
    Slip { right: PLAIN, wrong: "[l4.plain]\nproto = \"udp\"\non-backend-loss = \"reset\"", told: &[(28, "UDP has no RST", "resteer")] },
    Slip { right: PLAIN, wrong: "[l4.plain]\nshuffle = 2", told: &[(27, "`shuffle` is not yet supported", "take it out")] },
    Slip { right: "on = \"lb1\"\nvip = [\"public:8080\"]", wrong: "vip = [\"public:8080\"]", told: &[(26, "`on` is missing in an l4 service", "add `on")] },
    Slip { right: "on = \"lb1\"\nvip = [\"public:8080\"]", wrong: "on = \"web3\"\nvip = [\"public:8080\"]", told: &[(27, "unknown node `web3`", "nodes there are"), (28, "host `web3` has no public address", "add `public"), (29, "cannot balance to itself", "another host")] },
    Slip { right: "\"public:8080\"", wrong: "\"pubic:8080\"", told: &[(28, "`pubic` is neither", "did you mean `public`?")] },
    Slip { right: "\"public:8080\"", wrong: "\"public\"", told: &[(28, "`public` has no port", "`public:443`")] },
    Slip { right: "\"public:8080\"", wrong: "\"public:http\"", told: &[(28, "`http` is not a port", "write 80")] },
    Slip { right: "\"public:8080\"", wrong: "\"192.0.2.1:80\"", told: &[(28, "not an address of host `lb1`", "`203.0.113.10`")] },
    Slip { right: "\"public:8080\"", wrong: "\"2001:db8::10:80\"", told: &[(28, "need brackets", "[2001:db8::10]:443")] },
    Slip { right: "\"public:8080\"", wrong: "\"public:8443\"", told: &[(33, "vip `203.0.113.10:8443` is taken", "another port"), (33, "vip `[2001:db8::10]:8443` is taken", "another port")] },
    Slip { right: "\"public:8080\"", wrong: "\"public:8080\", \"private:8080\"", told: &[(28, "a second IPv4 vip", "a service of its own"), (28, "a second IPv6 vip", "a service of its own")] },
    Slip { right: "vip = [\"public:8080\"]", wrong: "vip = []", told: &[(28, "cannot be reached", "vip = [\"public:8080\"]")] },
    Slip { right: "{ host = \"web3\", port = 80 }", wrong: "{ host = \"web33\", port = 80 }", told: &[(29, "unknown host `web33`", "did you mean `web3`?")] },
    Slip { right: "{ host = \"web3\", port = 80 }", wrong: "{ host = \"web2\", port = 80 }", told: &[(29, "backend `web2:80` stands twice", "`weight`")] },
    Slip { right: "{ host = \"web3\", port = 80 }", wrong: "{ host = \"web3\", port = 8443 }", told: &[(38, "already answers for `l4.plain`", "one more port")] },
    Slip { right: "{ host = \"web3\", port = 80 }", wrong: "{ host = \"web3\", port = 80, weight = 2000 }", told: &[(29, "`weight` is out of range", "from 1 to 1000")] },
    Slip { right: "{ host = \"web3\", port = 80 }", wrong: "{ host = \"web3\", port = \"80\" }", told: &[(29, "`port` must be a whole number from 1 to 65535, not a string", "without quotes: `port = 80`")] },
    Slip { right: "{ host = \"web3\", port = 80 }", wrong: "{ host = \"web3\", port = 0 }", told: &[(29, "`port` is out of range", "")] },
    Slip { right: "{ host = \"web3\", port = 80 }", wrong: "\"web3:80\"", told: &[(29, "`backends` must be a table, not a string", "host = ")] },
    Slip { right: "{ http = \"/healthz\", expect = 200,", wrong: "{", told: &[(30, "does not say what to check", "tcp = true")] },
    Slip { right: "{ http = \"/healthz\",", wrong: "{ http = \"healthz\",", told: &[(30, "not the path of a request", "begin it with `/`")] },
    Slip { right: "{ http = \"/healthz\",", wrong: "{ tcp = true, http = \"/healthz\",", told: &[(30, "either `tcp` or `http`", "keep `http`")] },
    Slip { right: "{ http = \"/healthz\",", wrong: "{ tcp = true,", told: &[(30, "`expect` is of an `http` check", "take it out")] },
    Slip { right: "{ tcp = true, every", wrong: "{ tcp = false, every", told: &[(39, "checks nothing", "tcp = true")] },
    Slip { right: "timeout = \"1s\"", wrong: "timeout = \"3s\"", told: &[(30, "`timeout` is longer than `every`", "timeout = \"2s\"")] },
    // What later versions bring
    Slip { right: "[admin]", wrong: "[l7.www]\non = \"lb1\"\nlisten = \"public:443\"\ntls = { cert = \"/c\", key = \"s3cret\" }\nbackends = [{ host = \"web4\", port = 80 }]\n[admin]",
        told: &[(43, "`key` is a secret and never stands in this file", "credential"), (44, "unknown host `web4`", "did you mean `web1`?")] },
    Slip { right: "[admin]", wrong: "[l7.www]\non = \"lb1\"\nlisten = \"pbulic:443\"\ntls = { cert = \"/c\", key = { credential = \"a\", file = \"/b\" } }\nbackends = []\n[admin]",
        told: &[(42, "`pbulic` is neither", "did you mean `public`?"), (43, "must say where it is found, once", "credential"), (44, "has no backend", "port = 8443")] },
    Slip { right: "[admin]", wrong: "[mysql.app]\non = \"lb1\"\nwrite = \"192.0.2.1:3306\"\nmembers = [\"web1\", \"web5:3306\"]\ncheck = { user = \"m\", password = { env = \"P\" }, max-lag = 5 }\n[admin]",
        told: &[(42, "not an address of host `lb1`", ""), (43, "`web1` has no port", "`web1:3306`"), (43, "unknown host `web5`", ""), (44, "`max-lag` must be a duration", "`max-lag = \"5s\"`")] },
    Slip { right: "[admin]", wrong: "[mysql.app]\non = \"lb1\"\nwrite = \"private:3306\"\nread = \"private:3306\"\nmembers = [\"web1:3306\", \"web2:80\"]\ncheck = { user = \"m\", password = { env = \"P\" }, max-lag = \"5s\", hard-lag = \"1s\" }\nmode = \"promote\"\n[admin]",
        told: &[(43, "is taken by its own `write`", "another port"), (43, "is taken by its own `write`", "another port"), (44, "already answers for l4.plain", "take it out"), (45, "`hard-lag` is below", "longer")] },
    Slip { right: "[admin]", wrong: "[mysql.app]\non = \"lb1\"\nwrite = \"private:3306\"\nmembers = [\"web1:3306\", \"web2:3306\"]\ncheck = { user = \"m\", password = { env = \"P\" } }\nadmin = { user = \"m\", password = { env = \"P\" } }\nmode = \"promote\"\n[admin]",
        told: &[(43, "needs three members", "observe"), (45, "one account", "second account"), (46, "needs `replication`", "add `replication")] },
    Slip { right: "[admin]", wrong: "[mysql.app]\non = \"lb1\"\nwrite = \"private:3306\"\nmembers = [\"web1:3306\"]\ncheck = { user = \"m\", password = { env = \"P\" } }\nfallback = \"primary\"\ncool-down = \"1m\"\n[admin]",
        told: &[(45, "`fallback = \"primary\"` is not yet supported", "least-lagged")] },
];

#[test]
fn each_slip_is_told_with_its_place_and_its_cure() {
    let mut failures = Vec::new();
    for slip in SLIPS {
        assert!(ESTATE.contains(slip.right), "{}", slip.right);
        let text = ESTATE.replacen(slip.right, slip.wrong, 1);
        let told = match read(&text) {
            Ok(_) => Vec::new(),
            Err(diagnostics) => diagnostics.iter().cloned().collect(),
        };
        let right = told.len() == slip.told.len()
            && told
                .iter()
                .zip(slip.told)
                .all(|(told, (line, message, cure))| {
                    told.place.is_some_and(|place| place.line == *line)
                        && told.message.contains(message)
                        && told.help.iter().any(|help| help.contains(cure))
                });
        if !right {
            let told: Vec<_> = told
                .iter()
                .map(|told| {
                    format!(
                        "    {:?} {} ({})",
                        told.place.map(|place| place.line),
                        told.message,
                        told.help.join("; ")
                    )
                })
                .collect();
            failures.push(format!(
                "{}\n  expected {:?}, got\n{}",
                slip.wrong,
                slip.told,
                told.join("\n")
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        SLIPS.len(),
        failures.join("\n")
    );
}

#[test]
fn an_ipv6_vip_without_ipv6_backends_is_refused() {
    let text = ESTATE
        .replace(", \"fd00::11\"]", "]")
        .replace(", \"fd00::12\"]", "]")
        .replace(", \"fd00::13\"]", "]");
    let told = read(&text).expect_err("nobody answers").to_string();
    assert!(
        told.contains("no backend has a private IPv6 address for the vip `[2001:db8::10]:8080`"),
        "{told}"
    );
}

#[test]
fn an_endpoint_may_answer_for_one_service_of_each_family_and_protocol() {
    let extra = |name, vip, proto| {
        format!(
            "[l4.{name}]\non = \"lb1\"\nvip = \"{vip}\"\nproto = \"{proto}\"\nbackends = [{{ host = \"web1\", port = 53 }}]\n"
        )
    };
    let text = format!(
        "{}\n{}{}{}",
        ESTATE,
        extra("a", "203.0.113.10:53", "tcp"),
        extra("b", "[2001:db8::10]:53", "tcp"),
        extra("c", "203.0.113.10:53", "udp")
    );
    assert!(read(&text).is_ok(), "{}", read(&text).expect_err("told"));
    let text = format!("{text}{}", extra("d", "10.0.0.10:53", "udp"));
    let told = read(&text)
        .expect_err("web1:53/udp answers for c")
        .to_string();
    assert!(
        told.contains("backend `web1:53` already answers for `l4.c`"),
        "{told}"
    );
}

#[test]
fn more_than_the_kernels_tables_hold_is_refused() {
    let many = |count: u32, one: fn(u32) -> String| (0..count).map(one).collect::<String>();
    let sets = many(foobar_ebpf::abi::MAX_SETS, |n| format!("s{n} = {{}}\n"));
    let interfaces = many(foobar_ebpf::abi::MAX_INTERFACES + 1, |n| {
        format!("i{n} = {{ dev = \"eth{n}\" }}\n")
    });
    let services = many(foobar_ebpf::abi::MAX_VIPS / 2, |n| {
        format!(
            "[l4.s{n}]\non = \"lb1\"\nvip = \"public:{0}\"\nbackends = [{{ host = \"web1\", port = {0} }}]\n",
            n + 10_000
        )
    });
    for (text, phrase) in [
        (
            ESTATE.replacen("[sets]\n", &format!("[sets]\n{sets}"), 1),
            "more than 64 sets",
        ),
        (
            ESTATE.replacen(
                "[firewall]",
                &format!("[nodes.web3]\n{interfaces}[firewall]"),
                1,
            ),
            "more than 16 interfaces",
        ),
        (
            format!("{ESTATE}\n{services}"),
            "node `lb1` has more than 256 vips",
        ),
    ] {
        let told = read(&text).expect_err(phrase);
        assert_eq!(told.iter().len(), 1, "{told}");
        assert!(told.to_string().contains(phrase), "{told}");
    }
}

#[test]
fn names_that_fit_no_label_are_refused() {
    let text = ESTATE
        .replace("web1", "a-host-with-a-name-of-32-letters")
        .replacen("[l4.plain]", "[l4.a-service-with-a-name-of-32-letter]", 1)
        .replace("fd00::11", "fd00:1111:2222:3333:4444:5555:6666:7777");
    let told = read(&text).expect_err("too long").to_string();
    assert!(told.contains("letters too long together"), "{told}");
}

#[test]
fn rules_and_backends_may_be_written_as_sections() {
    let text = "version = 1\n[hosts]\nlb = { public = \"192.0.2.1\" }\na = { private = \"10.0.0.1\" }\n[nodes.lb.wan]\ndev = \"eth0\"\ningress = \"edge\"\n[firewall.edge]\npolicy = \"drop\"\n[[firewall.edge.rules]]\nname = \"web\"\nallow = [\n  \"tcp/80\", # plain\n]\n[l4.web]\non = \"lb\"\nvip = \"public:80\"\n[[l4.web.backends]]\nhost = \"a\"\nport = 80\n";
    let config = read(text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let rule = &config.policies["edge"].rules[0];
    assert_eq!(rule.place.line, 10);
    assert_eq!(rule.text, r#"{ name = "web", allow = ["tcp/80"] }"#);
    assert_eq!(config.l4["web"].backends.len(), 1);
}

#[test]
fn a_mistake_in_a_section_is_told_at_its_header() {
    let told =
        read("version = 1\n\n[l4.web]\nvip = \"public:80\"\nbackends = []\n").expect_err("bad");
    let missing = told
        .iter()
        .find(|told| told.message.contains("`on` is missing"))
        .expect("told");
    assert_eq!(missing.place.map(|place| place.line), Some(3));
}

#[test]
fn what_is_shown_is_read_again_as_the_same() {
    let config = estate();
    let shown = show(&config);
    let again = read(&shown).unwrap_or_else(|diagnostics| panic!("{shown}\n{diagnostics}"));
    assert_eq!(meaning(config), meaning(again));
}

#[test]
fn differences_are_told_by_name() {
    let old = estate();
    let new = ESTATE
        .replacen(
            WEB,
            r#"{ name = "web", allow = ["tcp/443"] }, { name = "new", allow = "udp/53" }"#,
            1,
        )
        .replacen(
            r#"  { name = "jailed", drop = "any", from = ["@jail", "@blocklist"] },"#,
            "",
            1,
        )
        .replacen("{ rate = \"20k/s\"", "{ rate = \"30k/s\"", 1)
        .replacen(r#", { host = "web3", port = 80 }"#, "", 1)
        .replacen(
            "elements = [\"198.51.100.0/24\"",
            "elements = [\"198.51.100.9\"",
            1,
        )
        .replacen(
            "inside = { policy = \"allow\" }",
            "inside = { policy = \"drop\" }",
            1,
        );
    let new = read(&new).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(
        diff(&old, &new),
        [
            "~ set admins (+1 -1 elements)",
            "~ limit syn",
            "~ policy inside",
            "+ rule edge/new",
            "~ rule edge/web",
            "- rule edge/jailed",
            "- backend l4.plain web3:80",
        ]
    );
    assert!(diff(&old, &old).is_empty());
}

#[test]
fn a_changed_order_of_rules_is_a_difference() {
    let a = r#"{ name = "dns", allow = ["udp/53", "tcp/53"], to = "lb1" }"#;
    let b = r#"{ name = "ntp", allow = ["udp/123"] }"#;
    let old = read(&ESTATE.replacen(a, &format!("{a}, {b}"), 1)).expect("good");
    let new = read(&ESTATE.replacen(a, &format!("{b}, {a}"), 1)).expect("good");
    assert_eq!(diff(&old, &new), ["~ order of rules in servers-out"]);
}

#[test]
fn the_schema_knows_every_key_of_the_language() {
    let schema = schema();
    let rule =
        &schema["properties"]["firewall"]["additionalProperties"]["properties"]["rules"]["items"];
    assert!(rule["properties"]["allow"]["description"].is_string());
    assert_eq!(rule["additionalProperties"], serde_json::Value::Bool(false));
    assert_eq!(rule["required"], serde_json::json!(["name"]));
    assert!(
        schema["properties"]["l4"]["additionalProperties"]["properties"]["slow-start"]["description"]
            .as_str()
            .is_some_and(|text| text.contains("Not yet supported"))
    );
}

/// A mistake of a hurried hand.
fn slips() -> impl Strategy<Value = String> {
    let edit = (
        any::<prop::sample::Index>(),
        0..4_usize,
        "[ -~\u{e9}\n]{0,3}",
    );
    prop::collection::vec(edit, 1..8).prop_map(|edits| {
        let mut letters: Vec<char> = ESTATE.chars().collect();
        for (at, cut, insert) in edits {
            let start = at.index(letters.len());
            let end = (start + cut).min(letters.len());
            letters.splice(start..end, insert.chars());
        }
        letters.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_upsets_the_reader(text in "\\PC{0,200}|[\\[\\]{}=\"'., \n#a-z0-9\\\\]{0,200}") {
        if let Err(diagnostics) = read(&text) {
            prop_assert!(!diagnostics.render(false, 80).is_empty());
            prop_assert!(!diagnostics.render(true, 20).is_empty());
        }
    }

    #[test]
    fn a_mutated_estate_is_refused_with_places_or_means_what_it_shows(text in slips()) {
        match read(&text) {
            Err(diagnostics) => {
                for told in diagnostics.iter() {
                    prop_assert!(told.place.is_some());
                    prop_assert!(!told.help.is_empty(), "{}", told.message);
                }
                prop_assert!(!diagnostics.render(true, 100).is_empty());
            }
            Ok(config) => {
                let shown = show(&config);
                let again = read(&shown).map_err(|told| TestCaseError::fail(format!("{shown}\n{told}")))?;
                prop_assert!(diff(&config, &again).is_empty());
                prop_assert_eq!(meaning(config), meaning(again));
            }
        }
    }

    #[test]
    fn words_are_read_as_they_are_written(first in any::<u16>(), last in any::<u16>(), kind in any::<Option<u8>>(), code in any::<u8>(), number in any::<u8>()) {
        let range = PortRange { first: first.min(last), last: first.max(last) };
        let code = kind.map(|_| code);
        for traffic in [Traffic::Tcp(range), Traffic::Udp(range), Traffic::Icmp(kind, code), Traffic::Icmp6(kind, code)] {
            prop_assert_eq!(traffic.to_string().parse::<Traffic>(), Ok(traffic));
        }
        let traffic: Traffic = format!("proto/{number}").parse().expect("a protocol");
        prop_assert_eq!(traffic.to_string().parse::<Traffic>(), Ok(traffic));
    }
}

#[test]
fn the_reference_is_a_good_configuration() {
    let config = parse(example(), Path::new("foobar.toml"))
        .unwrap_or_else(|errors| panic!("{}", errors.render(false, 120)));
    assert_eq!(config.l4.len(), 2);
    assert_eq!(config.nodes.len(), 4);
}
