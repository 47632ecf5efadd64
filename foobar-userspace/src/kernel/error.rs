//! What can go wrong at the kernel's door, each with the way out.

use std::{error::Error, io, path::PathBuf};

use aya::{maps::MapError, programs::ProgramError};

type Source = Box<dyn Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("this foobar was built without its BPF object; build it with `cargo xtask build`")]
    NoObject,
    #[error(
        "cannot {doing}: not permitted; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NotPermitted { doing: String, source: Source },
    #[error("Linux {running} is too old: foobar needs 6.1 or later")]
    KernelTooOld { running: String },
    #[error(
        "/sys/fs/bpf is no BPF file system and mounting one failed; `mount -t bpf bpf /sys/fs/bpf`"
    )]
    Mount { source: io::Error },
    #[error("cannot {doing} {}", path.display())]
    Path {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "interface {interface}: there is no device {device}; `ip link` lists those of this machine"
    )]
    NoDevice { interface: String, device: String },
    #[error(
        "interface {interface}: {device} has another XDP program already ({program}); `ip link set dev {device} {way_out} off` removes it"
    )]
    Occupied {
        interface: String,
        device: String,
        program: String,
        way_out: &'static str,
    },
    #[error(
        "interface {interface}: the driver of {device} does not take native XDP programs; set xdp = \"auto\" or \"generic\""
    )]
    NoNativeXdp {
        interface: String,
        device: String,
        source: Source,
    },
    #[error("interface {interface}: cannot {doing} on {device}")]
    Attach {
        doing: &'static str,
        interface: String,
        device: String,
        source: Source,
    },
    #[error("the BPF object is damaged: {problem}; build it anew with `cargo xtask build`")]
    Object { problem: String },
    #[error("cannot load the BPF object")]
    Load { source: Source },
    #[error("the kernel refused the program `{program}`: {reason}")]
    Verifier {
        program: &'static str,
        reason: String,
        source: Source,
    },
    #[error("cannot {doing} map {map}")]
    Map {
        doing: &'static str,
        map: &'static str,
        source: Source,
    },
    #[error("map {map} is full: it holds {max} entries")]
    Full { map: &'static str, max: u32 },
    #[error("cannot ask the kernel about device {device}")]
    Netlink { device: String, source: io::Error },
    #[error("cannot run the packet through the program")]
    TestRun { source: Source },
    #[error("node {node} has nothing in the kernel; `foobar run` puts it there")]
    NotDeployed { node: String },
    #[error(
        "a controller of node {node} is running already (pid {pid}); stop it first, or use another --node"
    )]
    Locked { node: String, pid: String },
    #[error("node {node} has no interface {interface} attached; it has {present}")]
    NotAttached {
        node: String,
        interface: String,
        present: String,
    },
}

impl KernelError {
    /// A missing privilege, not a missing thing: exit status 77.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::NotPermitted { .. })
    }

    pub(super) fn map(doing: &'static str, map: &'static str, source: MapError) -> Self {
        if not_permitted(&source) {
            return Self::NotPermitted {
                doing: format!("{doing} map {map}"),
                source: source.into(),
            };
        }
        Self::Map {
            doing,
            map,
            source: source.into(),
        }
    }

    pub(super) fn path(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if not_permitted(&source) {
            return Self::NotPermitted {
                doing: format!("{doing} {}", path.display()),
                source: source.into(),
            };
        }
        Self::Path {
            doing,
            path,
            source,
        }
    }

    pub(super) fn load(source: aya::EbpfError) -> Self {
        if not_permitted(&source) {
            return Self::NotPermitted {
                doing: "load the BPF object".to_owned(),
                source: source.into(),
            };
        }
        Self::Load {
            source: source.into(),
        }
    }

    pub(super) fn verifier(program: &'static str, source: ProgramError) -> Self {
        // The verifier's own refusals are EACCES too; it says why, and a missing capability does not.
        let has_reason = matches!(&source, ProgramError::LoadError { verifier_log, .. } if !verifier_log.to_string().trim().is_empty());
        if not_permitted(&source) && !has_reason {
            return Self::NotPermitted {
                doing: format!("load the program `{program}`"),
                source: source.into(),
            };
        }
        let reason = match &source {
            ProgramError::LoadError { verifier_log, .. } => last_lines(&verifier_log.to_string()),
            other => other.to_string(),
        };
        Self::Verifier {
            program,
            reason,
            source: source.into(),
        }
    }
}

/// The error number at the root of `error`.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let number = match error.downcast_ref::<io::Error>() {
            Some(error) => error.raw_os_error(),
            None => match error.downcast_ref::<MapError>() {
                Some(MapError::IoError(error)) => error.raw_os_error(),
                _ => None,
            },
        };
        if number.is_some() {
            return number;
        }
        cause = error.source();
    }
    None
}

fn not_permitted(error: &(dyn Error + 'static)) -> bool {
    matches!(errno(error), Some(libc::EPERM | libc::EACCES))
}

/// The verifier's verdict stands at the end of its log, before the statistics.
fn last_lines(log: &str) -> String {
    let telling: Vec<&str> = log
        .lines()
        .filter(|line| {
            !line.trim().is_empty()
                && !line.starts_with("processed ")
                && !line.starts_with("verification time")
                && !line.starts_with("stack depth")
        })
        .collect();
    telling[telling.len().saturating_sub(3)..].join("; ")
}
