//! Links: programs on devices, pinned so that they outlive the controller.

use std::{error::Error, fs, io, path::Path};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as AyaMode,
        links::{FdLink, Link, LinkError, PinnedLink},
        loaded_programs,
        tc::{
            NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle,
            qdisc_add_clsact,
        },
    },
    util::KernelVersion,
};

use super::{
    Direction, EgressMode, Hook, IngressMode, KernelError,
    bpffs::{self, Pins},
    device::Device,
    error::errno,
    object, tcx,
};
use crate::config::XdpMode;

/// Where our filter sits in a clsact qdisc, on kernels without tcx.
const CLSACT_PRIORITY: u16 = 0xf00b;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// What attaching did, so that a failure further on can take it back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome<M> {
    Attached(M),
    Replaced(M),
}

impl<M: Copy> Outcome<M> {
    pub fn mode(self) -> M {
        match self {
            Self::Attached(mode) | Self::Replaced(mode) => mode,
        }
    }
}

/// Gives each pin the name that the interface on its device has now: an interface that was renamed keeps its links.
pub(super) fn rename_pins(hooks: &[&Hook], pins: &Pins) -> Result<(), KernelError> {
    let mut moves = Vec::new();
    for hook in hooks {
        let on_device = Device::named(&hook.device)?.and_then(|device| device.xdp);
        let Some(on_device) = on_device else { continue };
        for (interface, direction) in pins.pinned_links()? {
            let path = pins.link(&interface, direction);
            if direction == Direction::Ingress
                && interface != hook.interface
                && let Some(link) = pinned(&path, hook)?
                && program_of(&link) == Some(on_device.program)
            {
                moves.push((interface, hook.interface.clone()));
            }
        }
    }
    let renamed = |from: &Path, to: &Path| match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::path("rename", from, error))
        }
        _ => Ok(()),
    };
    // Over a name of its own, for two interfaces may have swapped theirs.
    for direction in Direction::ALL {
        for (old, new) in &moves {
            renamed(&pins.link(old, direction), &pins.moving(new, direction))?;
        }
        for (_, new) in &moves {
            renamed(&pins.moving(new, direction), &pins.link(new, direction))?;
        }
    }
    Ok(())
}

/// Puts `program` on the hook's device, by atomic replacement where ours is there already.
pub(super) fn attach_ingress(
    program: &mut Xdp,
    hook: &Hook,
    pins: &Pins,
) -> Result<Outcome<IngressMode>, KernelError> {
    let path = pins.link(&hook.interface, Direction::Ingress);
    let device = device(hook)?;
    if let Some(link) = pinned(&path, hook)? {
        let on_device = device
            .xdp
            .filter(|xdp| Some(xdp.program) == program_of(&link));
        let mode = on_device.map(|xdp| match xdp.native {
            true => IngressMode::Native,
            false => IngressMode::Generic,
        });
        match mode.filter(|mode| serves(*mode, hook.mode)) {
            Some(mode) => match replace_ingress(program, link) {
                Ok(()) => return Ok(Outcome::Replaced(mode)),
                Err(error) if severed(&error) => unpin(&path)?,
                Err(source) => return Err(failed("replace the XDP program", hook, source)),
            },
            // Of a device that is gone, of another device than configured now, or in another mode.
            None => unpin(&path)?,
        }
    }
    let mode = match hook.mode {
        XdpMode::Native => attach_xdp(program, hook, device.index, IngressMode::Native, &path)?,
        XdpMode::Generic => attach_xdp(program, hook, device.index, IngressMode::Generic, &path)?,
        XdpMode::Auto => {
            match attach_xdp(program, hook, device.index, IngressMode::Native, &path) {
                Err(KernelError::NoNativeXdp { .. }) => {
                    attach_xdp(program, hook, device.index, IngressMode::Generic, &path)?
                }
                other => other?,
            }
        }
    };
    Ok(Outcome::Attached(mode))
}

/// As [`attach_ingress`], for the way out: tcx, or clsact where the kernel has no tcx.
pub(super) fn attach_egress(
    program: &mut SchedClassifier,
    hook: &Hook,
    pins: &Pins,
    mode: EgressMode,
) -> Result<Outcome<EgressMode>, KernelError> {
    match mode {
        EgressMode::Tcx => attach_tcx(program, hook, pins),
        EgressMode::Clsact => attach_clsact(program, hook),
    }
}

/// Whether both programs of the object sit on the device.
pub(super) fn is_attached(
    object: &mut Ebpf,
    hook: &Hook,
    device: &Device,
    egress_mode: EgressMode,
) -> Result<bool, KernelError> {
    let ingress = object::ingress(object)?.info().map(|info| info.id()).ok();
    if device.xdp.map(|xdp| xdp.program) != ingress {
        return Ok(false);
    }
    match egress_mode {
        EgressMode::Tcx => {
            let egress = object::egress(object)?.info().map(|info| info.id()).ok();
            let on_device = tcx::on_egress(device.index)
                .map_err(|error| failed("ask for the tcx programs", hook, error))?;
            Ok(on_device.into_iter().any(|program| Some(program) == egress))
        }
        // A filter goes with its device alone.
        EgressMode::Clsact => Ok(true),
    }
}

/// Takes our program off; a link that is not there is fine.
pub(super) fn detach(
    interface: &str,
    device: Option<&str>,
    direction: Direction,
    pins: &Pins,
) -> Result<(), KernelError> {
    unpin(&pins.link(interface, direction))?;
    if direction == Direction::Egress
        && let Some(device) = device
        && let Ok(link) = clsact_link(device)
    {
        // Most often there is no such filter: tcx is the rule, clsact the exception.
        let _ = link.detach();
    }
    Ok(())
}

pub(super) fn best_egress_mode() -> EgressMode {
    match KernelVersion::current() {
        Ok(running) if running >= KernelVersion::new(6, 6, 0) => EgressMode::Tcx,
        _ => EgressMode::Clsact,
    }
}

fn attach_xdp(
    program: &mut Xdp,
    hook: &Hook,
    device: u32,
    mode: IngressMode,
    path: &Path,
) -> Result<IngressMode, KernelError> {
    let aya_mode = match mode {
        IngressMode::Native => AyaMode::Driver,
        IngressMode::Generic => AyaMode::Skb,
    };
    let id = program
        .attach_to_if_index(device, aya_mode)
        .map_err(|error| match errno(&error) {
            Some(libc::EBUSY | libc::EEXIST) => occupied(hook, mode),
            Some(libc::EOPNOTSUPP | libc::ERANGE | libc::EINVAL) if mode == IngressMode::Native => {
                KernelError::NoNativeXdp {
                    interface: hook.interface.clone(),
                    device: hook.device.clone(),
                    source: error.into(),
                }
            }
            _ => failed("attach the XDP program", hook, error),
        })?;
    let link = program
        .take_link(id)
        .map_err(|error| failed("keep the XDP link", hook, error))?;
    pin(link.try_into(), path, hook)?;
    Ok(mode)
}

fn attach_tcx(
    program: &mut SchedClassifier,
    hook: &Hook,
    pins: &Pins,
) -> Result<Outcome<EgressMode>, KernelError> {
    let path = pins.link(&hook.interface, Direction::Egress);
    if let Some(link) = pinned(&path, hook)? {
        let on_device = tcx::on_egress(device(hook)?.index)
            .map_err(|error| failed("ask for the tcx programs", hook, error))?;
        let ours = program_of(&link);
        if on_device.into_iter().any(|program| Some(program) == ours) {
            match replace_egress(program, link) {
                Ok(()) => return Ok(Outcome::Replaced(EgressMode::Tcx)),
                Err(error) if severed(&error) => {}
                Err(source) => return Err(failed("replace the egress program", hook, source)),
            }
        }
        unpin(&path)?;
    }
    // First, so that no other program lets pass what the rules forbid.
    let id = program
        .attach_with_options(
            &hook.device,
            TcAttachType::Egress,
            TcAttachOptions::TcxOrder(LinkOrder::first()),
        )
        .map_err(|error| failed("attach the egress program", hook, error))?;
    let link = program
        .take_link(id)
        .map_err(|error| failed("keep the egress link", hook, error))?;
    pin(link.try_into(), &path, hook)?;
    Ok(Outcome::Attached(EgressMode::Tcx))
}

/// A filter of clsact cannot be pinned; it stays by itself until someone removes it.
fn attach_clsact(
    program: &mut SchedClassifier,
    hook: &Hook,
) -> Result<Outcome<EgressMode>, KernelError> {
    if let Ok(link) = clsact_link(&hook.device)
        && let Ok(id) = program.attach_to_link(link)
    {
        leave_attached(program, id, hook)?;
        return Ok(Outcome::Replaced(EgressMode::Clsact));
    }
    match qdisc_add_clsact(&hook.device) {
        Err(error) if errno(&error) != Some(libc::EEXIST) => {
            return Err(failed("add the clsact qdisc", hook, error));
        }
        _ => {}
    }
    let options = NlOptions {
        priority: CLSACT_PRIORITY,
        handle: CLSACT_HANDLE,
        classid: None,
    };
    let id = program
        .attach_with_options(
            &hook.device,
            TcAttachType::Egress,
            TcAttachOptions::Netlink(options),
        )
        .map_err(|error| failed("attach the egress program", hook, error))?;
    leave_attached(program, id, hook)?;
    Ok(Outcome::Attached(EgressMode::Clsact))
}

fn leave_attached(
    program: &mut SchedClassifier,
    id: SchedClassifierLinkId,
    hook: &Hook,
) -> Result<(), KernelError> {
    let link = program
        .take_link(id)
        .map_err(|error| failed("keep the egress filter", hook, error))?;
    std::mem::forget(link);
    Ok(())
}

fn clsact_link(device: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(
        device,
        TcAttachType::Egress,
        CLSACT_PRIORITY,
        CLSACT_HANDLE,
        None,
    )
}

fn replace_ingress(program: &mut Xdp, link: FdLink) -> Result<(), ProgramError> {
    let link = link
        .try_into()
        .map_err(|_| ProgramError::UnexpectedProgramType)?;
    let id = program.attach_to_link(link)?;
    // The pin keeps the link; this handle of it may go.
    drop(program.take_link(id)?);
    Ok(())
}

fn replace_egress(program: &mut SchedClassifier, link: FdLink) -> Result<(), ProgramError> {
    let link = link
        .try_into()
        .map_err(|_| ProgramError::UnexpectedProgramType)?;
    let id = program.attach_to_link(link)?;
    drop(program.take_link(id)?);
    Ok(())
}

fn pin(link: Result<FdLink, LinkError>, path: &Path, hook: &Hook) -> Result<(), KernelError> {
    let link = link.map_err(|error| failed("pin the link", hook, error))?;
    if let Some(directory) = path.parent() {
        bpffs::create_directory(directory)?;
    }
    link.pin(path)
        .map(drop)
        .map_err(|error| failed("pin the link", hook, error))
}

fn pinned(path: &Path, hook: &Hook) -> Result<Option<FdLink>, KernelError> {
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link.into())),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(failed("open the pinned link", hook, error)),
    }
}

fn unpin(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::path("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn device(hook: &Hook) -> Result<Device, KernelError> {
    Device::named(&hook.device)?.ok_or_else(|| KernelError::NoDevice {
        interface: hook.interface.clone(),
        device: hook.device.clone(),
    })
}

/// The program that a link holds.
fn program_of(link: &FdLink) -> Option<u32> {
    link.info().ok().map(|info| info.program_id())
}

fn serves(mode: IngressMode, wish: XdpMode) -> bool {
    match wish {
        XdpMode::Auto => true,
        XdpMode::Native => mode == IngressMode::Native,
        XdpMode::Generic => mode == IngressMode::Generic,
    }
}

/// The device of the link is gone.
fn severed(error: &ProgramError) -> bool {
    errno(error) == Some(libc::ENOLINK)
}

fn occupied(hook: &Hook, mode: IngressMode) -> KernelError {
    let other = Device::named(&hook.device)
        .ok()
        .flatten()
        .and_then(|device| device.xdp);
    let program = match other {
        Some(other) => describe_program(other.program),
        None => "unknown to rtnetlink".to_owned(),
    };
    let native = other.map_or(mode == IngressMode::Native, |other| other.native);
    KernelError::Occupied {
        interface: hook.interface.clone(),
        device: hook.device.clone(),
        program,
        way_out: if native { "xdp" } else { "xdpgeneric" },
    }
}

/// `id 7`, with its name where it has one.
pub(super) fn describe_program(program: u32) -> String {
    let name = name_of(program)
        .map(|name| format!(" `{name}`"))
        .unwrap_or_default();
    format!("id {program}{name}")
}

/// The program of the link at this pin, where there is one.
pub(super) fn pinned_program(path: &Path) -> Option<u32> {
    program_of(&PinnedLink::from_pin(path).ok()?.into())
}

fn name_of(program: u32) -> Option<String> {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == program)
        .and_then(|info| info.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
}

fn failed(
    doing: &'static str,
    hook: &Hook,
    source: impl Error + Send + Sync + 'static,
) -> KernelError {
    if matches!(errno(&source), Some(libc::EPERM | libc::EACCES)) {
        return KernelError::NotPermitted {
            doing: format!("{doing} on {}", hook.device),
            source: source.into(),
        };
    }
    KernelError::Attach {
        doing,
        interface: hook.interface.clone(),
        device: hook.device.clone(),
        source: source.into(),
    }
}
