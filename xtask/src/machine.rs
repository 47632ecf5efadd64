//! What the kernel and this process must be able to do before the lab or a root test can work.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    refusal::{Refusal, Status},
    setup,
};

/// Refuses a machine that cannot run the lab, naming what it lacks; nothing is ever skipped for such a lack.
pub fn refuse_unless_capable(purpose: &str) -> Result<()> {
    setup::refuse_unless_root(purpose)?;
    let mut lacks = Vec::new();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's release")?;
    if version(&release).is_none_or(|version| version < OLDEST_KERNEL) {
        lacks.push(format!(
            "the kernel is {}, and 6.1 is the oldest that is supported",
            release.trim()
        ));
    }
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let missing = missing_capabilities(&status).context("cannot read the capabilities")?;
    if !missing.is_empty() {
        lacks.push(format!(
            "this process lacks {} (in a container: run it with --privileged)",
            missing.join(", ")
        ));
    }
    let users =
        fs::read_to_string("/proc/self/uid_map").context("cannot read /proc/self/uid_map")?;
    if !is_whole_machine(&users) {
        lacks.push(
            "root is root of a user namespace only, and BPF asks for the machine's root".to_owned(),
        );
    }
    if fs::metadata("/proc/sys/kernel/unprivileged_bpf_disabled").is_err() {
        lacks.push("the kernel is built without BPF (CONFIG_BPF_SYSCALL)".to_owned());
    }
    if missing.is_empty() && !can_unshare() {
        lacks.push("the kernel refuses new network and mount namespaces".to_owned());
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        Status::NotPermitted,
        format!(
            "{purpose} cannot work on this machine:\n  {}",
            lacks.join("\n  ")
        ),
    )
    .into())
}

fn can_unshare() -> bool {
    Command::new("unshare")
        .args(["--net", "--mount", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn is_whole_machine(users: &str) -> bool {
    users.split_whitespace().eq(["0", "0", "4294967295"])
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn missing_capabilities(status: &str) -> Option<Vec<&'static str>> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    Some(
        CAPABILITIES
            .iter()
            .filter(|(bit, _)| effective >> bit & 1 == 0)
            .map(|(_, name)| *name)
            .collect(),
    )
}

const OLDEST_KERNEL: (u32, u32) = (6, 1);
const CAPABILITIES: [(u32, &str); 3] = [
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
    (39, "CAP_BPF"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_of_a_distribution_kernel_is_understood() {
        assert_eq!(version("6.1.0-56-cloud-amd64\n"), Some((6, 1)));
        assert_eq!(version("6.12+deb13"), Some((6, 12)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn root_of_a_user_namespace_is_told_from_root() {
        assert!(is_whole_machine("         0          0 4294967295\n"));
        assert!(!is_whole_machine("         0     100000      65536\n"));
    }

    #[test]
    fn each_missing_capability_is_named() {
        let all = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        assert_eq!(missing_capabilities(all), Some(vec![]));
        let container = "CapEff:\t00000000a80425fb\n";
        assert_eq!(
            missing_capabilities(container),
            Some(vec!["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"])
        );
        assert_eq!(missing_capabilities("nothing"), None);
    }
}
