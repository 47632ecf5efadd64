//! Whether a device and its driver suit XDP.

use super::Finding;

/// What the machine tells of a device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Traits {
    /// `virtio_net`; `None` for devices without hardware.
    pub driver: Option<String>,
    pub mtu: Option<u32>,
    /// What `ethtool -k` prints; `None` where it is not installed.
    pub features: Option<String>,
    /// Whether VLAN devices stand on it.
    pub carries_vlans: bool,
    /// Whether a program of foobar already runs in its driver.
    pub runs_natively: bool,
}

/// All that is to be said of `device`, which the file calls `name`.
#[must_use]
pub fn findings(name: &str, device: &str, traits: &Traits) -> Vec<Finding> {
    let subject = format!("interface {name}");
    let mut findings = vec![driver(&subject, device, traits)];
    findings.extend(mtu(&subject, device, traits.mtu));
    findings.extend(offloads(&subject, device, traits));
    findings
}

fn driver(subject: &str, device: &str, traits: &Traits) -> Finding {
    match traits.driver.as_deref() {
        _ if traits.runs_natively => {
            Finding::ok(subject, format!("{device}: XDP runs in its driver"))
        }
        Some(driver) if NATIVE.contains(&driver) => {
            Finding::ok(subject, format!("{device}: {driver} runs XDP itself"))
        }
        Some(driver) => Finding::warn(
            subject,
            format!("{device}: {driver} is not known to run XDP itself"),
            "start foobar and see what `foobar status` says; in generic mode packets cost many times more, and a card by \
             another maker is the cure",
        ),
        None => Finding::ok(subject, format!("{device} has no hardware driver")),
    }
}

/// IPv6 asks for 1280 bytes (RFC 8200 5).
fn mtu(subject: &str, device: &str, mtu: Option<u32>) -> Option<Finding> {
    let mtu = mtu?;
    Some(if mtu < SMALLEST_MTU {
        Finding::fail(
            subject,
            format!("{device} takes packets of {mtu} bytes only, fewer than IPv6 asks for"),
            format!("ip link set dev {device} mtu 1500"),
        )
    } else {
        Finding::ok(subject, format!("{device}: MTU {mtu}"))
    })
}

/// What a packet comes in by must go out whole by the others.
#[must_use]
pub fn mtus(devices: &[(String, u32)]) -> Option<Finding> {
    let (widest, most) = devices.iter().max_by_key(|(_, mtu)| *mtu)?;
    let (narrowest, least) = devices.iter().min_by_key(|(_, mtu)| *mtu)?;
    (least < most).then(|| {
        Finding::warn(
            "mtu",
            format!("packets of {most} bytes that come by {widest} do not fit through {narrowest} ({least})"),
            format!("ip link set dev {widest} mtu {least}, or give {narrowest} the larger one"),
        )
    })
}

fn offloads(subject: &str, device: &str, traits: &Traits) -> Vec<Finding> {
    let Some(features) = &traits.features else {
        return vec![Finding::warn(
            subject,
            format!("{device}: offloads were not looked at"),
            "apt install ethtool",
        )];
    };
    let is_on = |name: &str| {
        features.lines().any(|line| {
            line.trim()
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(':'))
                .is_some_and(|state| state.trim().starts_with("on"))
        })
    };
    let harmful = [
        (
            "large-receive-offload",
            "lro",
            true,
            "joins packets before XDP sees them, and drivers then refuse XDP",
        ),
        (
            "rx-gro-hw",
            "rx-gro-hw",
            true,
            "joins packets before XDP sees them, and drivers then refuse XDP",
        ),
        (
            "rx-vlan-offload",
            "rxvlan",
            traits.carries_vlans,
            "takes VLAN tags off before XDP sees them: the packets of all VLANs look alike to the firewall",
        ),
    ];
    let mut findings: Vec<Finding> = harmful
        .into_iter()
        .filter(|(feature, _, matters, _)| *matters && is_on(feature))
        .map(|(feature, key, _, why)| {
            Finding::warn(
                subject,
                format!("{device}: {feature} {why}"),
                format!("ethtool -K {device} {key} off"),
            )
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(
            subject,
            format!("{device}: no offload is in the way"),
        ));
    }
    findings
}

const SMALLEST_MTU: u32 = 1_280;

/// Drivers with XDP of their own, some of them in kernels after 6.1 alone.
const NATIVE: [&str; 37] = [
    "atlantic",
    "bnxt_en",
    "bonding",
    "cpsw",
    "dpaa2-eth",
    "ena",
    "enetc",
    "fec",
    "fsl_dpa",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ionic",
    "ixgbe",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_en",
    "mlx4_core",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "octeontx2-nicpf",
    "qede",
    "sfc",
    "stmmac",
    "thunder-nicvf",
    "tsnep",
    "tun",
    "veth",
    "virtio_net",
    "vif",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn worst(traits: &Traits) -> (Grade, Vec<String>) {
        let findings = findings("wan", "eth0", traits);
        let grade = findings.iter().map(|finding| finding.grade).max();
        let cures = findings.into_iter().filter_map(|finding| finding.repair);
        (grade.expect("findings"), cures.collect())
    }

    fn good() -> Traits {
        Traits {
            driver: Some("ice".to_owned()),
            mtu: Some(1_500),
            features: Some(
                "large-receive-offload: off\nrx-vlan-offload: on\nrx-gro-hw: off [fixed]"
                    .to_owned(),
            ),
            carries_vlans: false,
            runs_natively: false,
        }
    }

    #[test]
    fn a_usual_card_is_well() {
        assert_eq!(worst(&good()), (Grade::Ok, Vec::new()));
    }

    #[test]
    fn a_driver_without_xdp_is_told_unless_it_runs_there_already() {
        let odd = Traits {
            driver: Some("e1000e".to_owned()),
            ..good()
        };
        assert_eq!(worst(&odd).0, Grade::Warn);
        let running = Traits {
            runs_natively: true,
            ..odd
        };
        assert_eq!(worst(&running).0, Grade::Ok);
    }

    #[test]
    fn offloads_that_hide_packets_are_told_with_the_command() {
        let joined = Traits {
            features: Some("large-receive-offload: on".to_owned()),
            ..good()
        };
        assert_eq!(worst(&joined).1, ["ethtool -K eth0 lro off"]);
        let tagged = Traits {
            carries_vlans: true,
            ..good()
        };
        assert_eq!(worst(&tagged).1, ["ethtool -K eth0 rxvlan off"]);
        let unknown = Traits {
            features: None,
            ..good()
        };
        assert_eq!(worst(&unknown).1, ["apt install ethtool"]);
    }

    #[test]
    fn packets_must_fit_through_all_interfaces() {
        let small = Traits {
            mtu: Some(1_000),
            ..good()
        };
        assert_eq!(worst(&small).0, Grade::Fail);
        let device = |name: &str, mtu| (name.to_owned(), mtu);
        assert_eq!(mtus(&[device("eth0", 1_500), device("eth1", 1_500)]), None);
        let finding = mtus(&[device("eth0", 9_000), device("eth1", 1_500)]).expect("a finding");
        assert!(finding.text.contains("9000") && finding.text.contains("eth1 (1500)"));
    }
}
