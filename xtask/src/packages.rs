//! Debian packages: which are missing, and their installation without a trace but the packages themselves.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result};

use crate::{
    refusal::{Refusal, Status},
    steps::{Steps, Transcript},
    workspace::program,
};

/// A program that the lab runs, and the package that brings it.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub program: &'static str,
    pub package: &'static str,
    /// What the package would start at every boot, which nobody asked for.
    pub service: Option<&'static str>,
}

pub const COMPILER: &[&str] = &["rustc-web", "rust-web-src"];

pub const LAB: &[Need] = &[
    need("ip", "iproute2"),
    need("ethtool", "ethtool"),
    need("nsenter", "util-linux"),
    need("sysctl", "procps"),
    Need {
        program: "nginx",
        package: "nginx",
        service: Some("nginx"),
    },
    need("gunicorn", "gunicorn"),
    need("python3", "python3"),
    need("dnsmasq", "dnsmasq-base"),
    need("curl", "curl"),
    need("wrk", "wrk"),
    need("h2load", "nghttp2-client"),
    Need {
        program: "haproxy",
        package: "haproxy",
        service: Some("haproxy"),
    },
    need("ping", "iputils-ping"),
    need("nc", "netcat-openbsd"),
    Need {
        program: "mariadbd",
        package: "mariadb-server",
        service: Some("mariadb"),
    },
    need("rsync", "rsync"),
    need("iptables", "iptables"),
    Need {
        program: "/usr/lib/galera/libgalera_smm.so",
        package: "galera-4",
        service: None,
    },
    Need {
        program: "/usr/lib/python3/dist-packages/pymysql/__init__.py",
        package: "python3-pymysql",
        service: None,
    },
    Need {
        program: "prometheus",
        package: "prometheus",
        service: Some("prometheus"),
    },
    Need {
        program: "prometheus-alertmanager",
        package: "prometheus-alertmanager",
        service: Some("prometheus-alertmanager"),
    },
    need("chromium", "chromium"),
    need("pebble", "pebble"),
    need("dig", "bind9-dnsutils"),
    need("openssl", "openssl"),
    // A journal of a test's own, and the manager that the package is installed under.
    need("systemd-cat", "systemd"),
    need(
        "/usr/lib/python3/dist-packages/websockets/__init__.py",
        "python3-websockets",
    ),
    need(
        "/usr/lib/python3/dist-packages/grpc/__init__.py",
        "python3-grpcio",
    ),
];

/// What `cargo xtask conformance` needs beside the lab.
pub const CONFORMANCE: &[Need] = &[
    need("testssl", "testssl.sh"),
    need("/usr/lib/python3.11/ensurepip/__main__.py", "python3-venv"),
];

/// What `cargo xtask test --kernels` needs.
pub const KERNELS: &[Need] = &[
    need("ip", "iproute2"),
    need("qemu-system-x86_64", "qemu-system-x86"),
    need("busybox", "busybox-static"),
    need("strip", "binutils"),
    need("xz", "xz-utils"),
];

const fn need(program: &'static str, package: &'static str) -> Need {
    Need {
        program,
        package,
        service: None,
    }
}

impl Need {
    pub fn is_missing(&self) -> bool {
        program(self.program).is_none()
    }
}

/// Installs `packages`; services among them are neither started now nor at the next boot.
pub fn install(steps: &mut Steps, packages: &[&str], services: &[&str]) -> Result<()> {
    let started_by_boot: Vec<&str> = services
        .iter()
        .copied()
        .filter(|service| !is_enabled(service))
        .collect();
    let quiet = QuietServices::begin()?;
    let installed = install_packages(steps, packages)?;
    drop(quiet);
    if !installed.status.success() {
        return Err(Refusal::new(
            Status::Failed,
            format!(
                "{}\napt-get could not install {}\nthe whole output is in {}",
                installed.text,
                packages.join(" "),
                installed.log.display()
            ),
        )
        .into());
    }
    for service in started_by_boot {
        disable(steps, service)?;
    }
    Ok(())
}

fn install_packages(steps: &mut Steps, packages: &[&str]) -> Result<Transcript> {
    // Lists of another day name files that the mirror has replaced since; lists without the security archive name a
    // rustc-web whose LLVM (19) the linker cannot use.
    update(steps)?;
    let title = format!("installing {}", packages.join(" "));
    steps.attempt("apt-get-install", &title, &mut apt_install(packages))
}

fn apt_install(packages: &[&str]) -> Command {
    let mut command = apt();
    command
        .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
        .args(packages);
    command
}

/// A source that does not answer matters only when the packages are not to be had from the others.
fn update(steps: &mut Steps) -> Result<()> {
    steps.attempt("apt-get-update", "apt-get update", apt().arg("update"))?;
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
        .args([
            "-o",
            "Acquire::Retries=3",
            "-o",
            "Acquire::http::Timeout=30",
        ])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .env_remove("LD_LIBRARY_PATH");
    command
}

fn is_enabled(service: &str) -> bool {
    let link = format!("etc/systemd/system/multi-user.target.wants/{service}.service");
    Path::new("/").join(link).symlink_metadata().is_ok()
}

fn disable(steps: &mut Steps, service: &str) -> Result<()> {
    let mut command = if program("systemctl").is_some() {
        let mut command = Command::new("systemctl");
        command.args(["disable", service]);
        command
    } else {
        let mut command = Command::new("update-rc.d");
        command.args([service, "disable"]);
        command
    };
    steps.run(
        "disable-service",
        &format!("{service} is not to start at boot"),
        &mut command,
    )?;
    Ok(())
}

/// While it lives, packages start no services: Debian asks `/usr/sbin/policy-rc.d` before it starts one.
struct QuietServices(Option<PathBuf>);

impl QuietServices {
    fn begin() -> Result<Self> {
        Self::begin_at(Path::new("/usr/sbin/policy-rc.d"))
    }

    fn begin_at(policy: &Path) -> Result<Self> {
        if fs::read_to_string(policy).is_ok_and(|text| text.contains(MARK)) {
            fs::remove_file(policy)
                .with_context(|| format!("cannot remove {}", policy.display()))?;
        }
        // Were we killed, what is left behind refuses nothing.
        let script = format!(
            "#!/bin/sh\n# {MARK}\n[ -d /proc/{} ] && exit 101\nexit 0\n",
            process::id()
        );
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(policy);
        match file {
            Ok(mut file) => {
                let own = Self(Some(policy.to_path_buf()));
                file.write_all(script.as_bytes())
                    .with_context(|| format!("cannot write {}", policy.display()))?;
                Ok(own)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                eprintln!(
                    "{} is there already and stays as it is: it decides whether a service starts now",
                    policy.display()
                );
                Ok(Self(None))
            }
            Err(error) => Err(error).with_context(|| format!("cannot write {}", policy.display())),
        }
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.0
            && let Err(error) = fs::remove_file(policy)
        {
            eprintln!("cannot remove {}: {error}", policy.display());
        }
    }
}

const MARK: &str = "made by foobar's cargo xtask while it installs packages";

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(policy: &Path) -> Option<i32> {
        Command::new(policy).status().unwrap().code()
    }

    #[test]
    fn services_are_refused_only_while_packages_are_installed() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        let quiet = QuietServices::begin_at(&policy).unwrap();
        assert_eq!(status_of(&policy), Some(101));
        drop(quiet);
        assert!(!policy.exists());
    }

    #[test]
    fn a_policy_of_someone_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 101\n").unwrap();
        drop(QuietServices::begin_at(&policy).unwrap());
        assert_eq!(
            fs::read_to_string(&policy).unwrap(),
            "#!/bin/sh\nexit 101\n"
        );
    }

    #[test]
    fn a_policy_left_by_a_killed_run_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        fs::write(&policy, format!("# {MARK}\n")).unwrap();
        drop(QuietServices::begin_at(&policy).unwrap());
        assert!(!policy.exists());
    }

    #[test]
    fn a_program_that_nobody_has_is_missing() {
        assert!(need("no-such-program-anywhere", "none").is_missing());
        assert!(!need("sh", "dash").is_missing());
    }
}
