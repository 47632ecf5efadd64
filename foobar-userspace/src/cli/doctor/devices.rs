//! What the machine tells of a device: sysfs, the kernel's list of VLANs, ethtool.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use foobar::doctor::device::Traits;

pub fn traits(device: &str, runs_natively: bool) -> Traits {
    let about = PathBuf::from("/sys/class/net").join(device);
    Traits {
        driver: driver(&about),
        mtu: fs::read_to_string(about.join("mtu"))
            .ok()
            .and_then(|mtu| mtu.trim().parse().ok()),
        features: features(device),
        carries_vlans: fs::read_to_string("/proc/net/vlan/config")
            .is_ok_and(|list| carries_vlans(&list, device)),
        runs_natively,
    }
}

/// The name of the directory that `device/driver` leads to.
fn driver(about: &Path) -> Option<String> {
    let driver = fs::read_link(about.join("device/driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

fn features(device: &str) -> Option<String> {
    let told = Command::new("ethtool").args(["-k", device]).output().ok()?;
    told.status
        .success()
        .then(|| String::from_utf8_lossy(&told.stdout).into_owned())
}

/// `eth0.5 | 5 | eth0`
fn carries_vlans(list: &str, device: &str) -> bool {
    list.lines()
        .filter_map(|line| line.rsplit('|').next())
        .any(|below| below.trim() == device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_known_by_the_device_below() {
        let list = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                    eth0.5         | 5  | eth0\n";
        assert!(carries_vlans(list, "eth0"));
        assert!(!carries_vlans(list, "eth1"));
    }
}
