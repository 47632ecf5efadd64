//! What stands between a machine and a node in good service, and the repair of each.

pub mod device;
pub mod standing;

use std::{collections::BTreeSet, net::IpAddr};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    admin::api::{MapUse, Status},
    config::{Addresses, Interface, XdpMode},
    kernel::Seat,
};

#[derive(Clone, Debug, Eq, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    pub grade: Grade,
    /// `kernel`, `interface wan`, `name www.foobar.com`, …
    pub subject: String,
    pub text: String,
    /// The command or the change that mends it.
    pub repair: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    pub fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            grade: Grade::Ok,
            subject: subject.into(),
            text: text.into(),
            repair: None,
        }
    }

    pub fn warn(
        subject: impl Into<String>,
        text: impl Into<String>,
        repair: impl Into<String>,
    ) -> Self {
        Self {
            grade: Grade::Warn,
            repair: Some(repair.into()),
            ..Self::ok(subject, text)
        }
    }

    pub fn fail(
        subject: impl Into<String>,
        text: impl Into<String>,
        repair: impl Into<String>,
    ) -> Self {
        Self {
            grade: Grade::Fail,
            ..Self::warn(subject, text, repair)
        }
    }
}

/// `release` as `uname -r` prints it.
#[must_use]
pub fn kernel(release: &str) -> Finding {
    let release = release.trim();
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_KERNEL => {
            Finding::ok("kernel", format!("Linux {release}"))
        }
        (Some(_), Some(_)) => Finding::fail(
            "kernel",
            format!("Linux {release} is too old"),
            "boot Linux 6.1 or later",
        ),
        _ => Finding::warn(
            "kernel",
            format!("cannot tell the version from `{release}`"),
            "see that it is Linux 6.1 or later",
        ),
    }
}

/// `status` is the text of `/proc/self/status`.
#[must_use]
pub fn capabilities(status: &str) -> Finding {
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|held| u64::from_str_radix(held.trim(), 16).ok())
        .unwrap_or(0);
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| held >> bit & 1 == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Finding::ok("capabilities", "all that loading and attaching take");
    }
    Finding::fail(
        "capabilities",
        format!("{} missing", missing.join(", ")),
        format!(
            "run as root, or in the unit: AmbientCapabilities={}",
            CAPABILITIES.map(|(_, name)| name).join(" ")
        ),
    )
}

/// `enabled` is the text of `/proc/sys/net/core/bpf_jit_enable`.
#[must_use]
pub fn bpf_compiler(enabled: Option<&str>) -> Finding {
    match enabled.map(str::trim) {
        Some("0") => Finding::warn(
            "bpf",
            "programs are interpreted: packets cost many times more",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        _ => Finding::ok("bpf", "programs are compiled"),
    }
}

/// What sits on an interface of the node.
#[must_use]
pub fn interface(interface: &Interface, seat: &Seat) -> Finding {
    let subject = format!("interface {}", interface.name);
    let device = &interface.device;
    match seat {
        Seat::NoDevice => Finding::fail(
            subject,
            format!("there is no device {device}"),
            format!("name one of `ip link` as `dev`, or create {device}"),
        ),
        Seat::Free => Finding::ok(subject, format!("{device} is free")),
        Seat::Foobar { native: true } => {
            Finding::ok(subject, format!("{device} runs foobar natively"))
        }
        Seat::Foobar { native: false } if interface.xdp == XdpMode::Generic => Finding::ok(
            subject,
            format!("{device} runs foobar in generic mode, as asked"),
        ),
        Seat::Foobar { native: false } => Finding::warn(
            subject,
            format!("{device} runs foobar in generic mode, many times slower"),
            "use a card whose driver takes XDP programs (a virtio card wants two queues a CPU), or say xdp = \"generic\"",
        ),
        Seat::Other { program, native } => Finding::fail(
            subject,
            format!("{device} has another XDP program ({program})"),
            format!(
                "ip link set dev {device} {} off",
                if *native { "xdp" } else { "xdpgeneric" }
            ),
        ),
    }
}

/// Whether a DNS name leads to the public addresses of its host.
#[must_use]
pub fn name(name: &str, public: &Addresses, answer: &Result<Vec<IpAddr>, String>) -> Finding {
    let subject = format!("name {name}");
    let expected: BTreeSet<IpAddr> = public.iter().collect();
    let list = |addresses: &BTreeSet<IpAddr>| {
        addresses
            .iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let found: BTreeSet<IpAddr> = match answer {
        Ok(found) => found.iter().copied().collect(),
        Err(error) => {
            return Finding::fail(
                subject,
                format!("does not resolve: {error}"),
                format!(
                    "let {name} lead to {} in its DNS zone, or ask another server with --dns",
                    list(&expected)
                ),
            );
        }
    };
    let strangers: BTreeSet<IpAddr> = found.difference(&expected).copied().collect();
    let absent: BTreeSet<IpAddr> = expected.difference(&found).copied().collect();
    if !strangers.is_empty() {
        return Finding::fail(
            subject,
            format!("leads to {}, which is not here", list(&strangers)),
            format!("let it lead to {} in its DNS zone", list(&expected)),
        );
    }
    if !absent.is_empty() {
        return Finding::warn(
            subject,
            format!("does not lead to {}", list(&absent)),
            "add the record to its DNS zone, or take the address out of the file",
        );
    }
    Finding::ok(subject, format!("leads to {}", list(&found)))
}

/// What the running controller says of itself.
#[must_use]
pub fn controller(status: &Status, version: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if status.version == version {
        findings.push(Finding::ok(
            "controller",
            format!(
                "{} runs generation {} (pid {})",
                status.version, status.generation, status.pid
            ),
        ));
    } else {
        findings.push(Finding::warn(
            "controller",
            format!("{} runs, and this command is {version}", status.version),
            "restart the controller; the packet path goes on meanwhile",
        ));
    }
    findings.extend(status.warnings.iter().map(|warning| Finding {
        grade: if status.healthy {
            Grade::Warn
        } else {
            Grade::Fail
        },
        ..Finding::ok("controller", warning.as_str())
    }));
    findings
}

/// Maps that are nearly full.
#[must_use]
pub fn maps(maps: &[MapUse]) -> Vec<Finding> {
    let tight: Vec<Finding> = maps
        .iter()
        .filter(|map| map.entries * 10 > map.max_entries * 9)
        // These forget their oldest entry when they are full, by design.
        .filter(|map| !FORGETFUL.iter().any(|name| map.name.starts_with(name)))
        .map(|map| {
            Finding::warn(
                "maps",
                format!(
                    "{} holds {} of {} entries",
                    map.name, map.entries, map.max_entries
                ),
                "raise `max` of the set that fills it, or shorten its `timeout`",
            )
        })
        .collect();
    if tight.is_empty() {
        return vec![Finding::ok("maps", "none is nearly full")];
    }
    tight
}

const OLDEST_KERNEL: (u32, u32) = (6, 1);
const CAPABILITIES: [(u32, &str); 3] =
    [(39, "CAP_BPF"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON")];
const FORGETFUL: [&str; 4] = ["REMEMBERED", "FLOWS", "FRAGMENTS", "BUCKETS"];

#[cfg(test)]
mod tests {
    use super::*;

    fn public() -> Addresses {
        Addresses {
            v4: Some("203.0.113.10".parse().expect("IPv4")),
            v6: Some("2001:db8::10".parse().expect("IPv6")),
        }
    }

    fn grade_of(answer: &[&str]) -> Grade {
        let answer = answer
            .iter()
            .map(|address| address.parse().expect("an address"))
            .collect();
        name("www.foobar.com", &public(), &Ok(answer)).grade
    }

    #[test]
    fn a_name_leads_to_all_public_addresses_and_no_others() {
        assert_eq!(grade_of(&["203.0.113.10", "2001:db8::10"]), Grade::Ok);
        assert_eq!(grade_of(&["203.0.113.10"]), Grade::Warn);
        assert_eq!(grade_of(&["203.0.113.10", "192.0.2.1"]), Grade::Fail);
        assert_eq!(
            name("www.foobar.com", &public(), &Err("no such name".into())).grade,
            Grade::Fail
        );
    }

    #[test]
    fn kernels_from_6_1_on_will_do() {
        assert_eq!(kernel("6.1.0-56-amd64\n").grade, Grade::Ok);
        assert_eq!(kernel("6.18.44").grade, Grade::Ok);
        assert_eq!(kernel("5.15.0").grade, Grade::Fail);
        assert_eq!(kernel("strange").grade, Grade::Warn);
    }

    #[test]
    fn a_missing_capability_is_named_with_the_line_for_the_unit() {
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\n").grade, Grade::Ok);
        let finding = capabilities("CapEff:\t0000008000001000\n");
        assert_eq!(finding.text, "CAP_PERFMON missing");
        assert!(finding.repair.expect("a repair").contains("CAP_PERFMON"));
    }

    #[test]
    fn another_program_on_a_device_is_a_failure_with_the_way_out() {
        let wan = Interface {
            name: "wan".into(),
            device: "eth0".into(),
            xdp: XdpMode::Auto,
            ingress: None,
            egress: None,
            place: crate::config::Place { line: 1, column: 1 },
        };
        let finding = interface(
            &wan,
            &Seat::Other {
                program: "id 7".into(),
                native: false,
            },
        );
        assert_eq!(
            (finding.grade, finding.repair.as_deref()),
            (Grade::Fail, Some("ip link set dev eth0 xdpgeneric off"))
        );
        assert_eq!(
            interface(&wan, &Seat::Foobar { native: false }).grade,
            Grade::Warn
        );
    }

    #[test]
    fn a_full_set_is_told_and_a_full_cache_is_not() {
        let map = |name: &str| MapUse {
            name: name.into(),
            entries: 95,
            max_entries: 100,
        };
        assert_eq!(maps(&[map("SET_HOSTS_V4")])[0].grade, Grade::Warn);
        assert_eq!(maps(&[map("FLOWS_V4")])[0].grade, Grade::Ok);
    }
}
