//! The only place that knows aya: a node's programs and maps in the kernel, loaded, pinned, attached, filled and read.

mod batch;
mod bpffs;
pub mod clock;
mod counters;
mod device;
mod drops;
mod emit;
mod error;
mod flows;
mod link;
mod lock;
mod mapped;
mod object;
pub mod pinned;
mod plain;
mod syscall;
mod table;
mod tables;
mod tcx;
mod trial;

use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use aya::{Ebpf, util::KernelVersion};

use self::{
    bpffs::Pins,
    device::Device,
    link::Outcome,
    object::{Blueprint, Fit, Purpose},
};
pub use self::{
    bpffs::mount_if_absent as mount_bpffs_if_absent,
    counters::{Counters, Extent, Fill, Verdicts},
    drops::Drops,
    error::KernelError,
    flows::{Flow, Known, Way, flows},
    lock::NodeLock,
    mapped::{Mapped, PROXY_TALLY},
    pinned::{Seat, Which, detach, seat},
    table::{
        ArrayTable, CounterTable, Difference, Field, HashTable, Prefix, PrefixTable, Sum, Table,
    },
    tables::{Tables, label},
    trial::Trial,
};
use crate::config::XdpMode;
use foobar_ebpf::abi;

/// The keys of the flow hash.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct HashKeys(pub [u64; abi::HASH_KEYS]);

impl fmt::Debug for HashKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HashKeys(secret)")
    }
}

/// Entries of the tables whose size follows the configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sizes {
    pub set_hosts: u32,
    pub set_prefixes: u32,
    pub jail: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            set_hosts: abi::SET_HOSTS,
            set_prefixes: abi::SET_PREFIXES,
            jail: abi::SET_HOSTS,
        }
    }
}

/// An interface that the programs serve.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hook {
    /// Its dense id: slot of the ruleset's directory and of the counters.
    pub id: u32,
    /// `wan`
    pub interface: String,
    /// `eth0`
    pub device: String,
    pub mode: XdpMode,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IngressMode {
    Native,
    Generic,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EgressMode {
    Tcx,
    /// A filter of the clsact qdisc, for kernels before 6.6: it stays when foobar ends, but cannot be pinned.
    Clsact,
}

/// How the programs sit on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attachment {
    pub hook: Hook,
    pub ingress: IngressMode,
    pub egress: EgressMode,
}

/// Whether the maps of an earlier controller serve on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    Fresh,
    Adopted,
    /// There were maps, but too small ones: what they held was copied.
    Enlarged,
    /// There were maps, but of another layout, and why: counters, jails and remembered flows start anew.
    Rebuilt(String),
}

/// A node's programs and maps in the kernel. Dropping it leaves them there.
#[derive(Debug)]
pub struct Deployment {
    pins: Pins,
    keys: HashKeys,
    blueprint: Blueprint,
    origin: Origin,
    /// The directory of the maps in use; not `maps` until [`Self::attach`] settled a rebuilt deployment.
    maps: PathBuf,
    tables: Tables,
    loaded: BTreeMap<String, Loaded>,
    trials: BTreeMap<String, Ebpf>,
    /// Loaded when there is something to send for the first time.
    emitter: Option<Ebpf>,
    egress_mode: EgressMode,
}

/// The object of one interface.
#[derive(Debug)]
struct Loaded {
    hook: Hook,
    object: Ebpf,
    attachment: Option<Attachment>,
}

impl Deployment {
    /// Opens the maps that are pinned for `node`, or creates them; attaches nothing.
    ///
    /// # Errors
    /// What stands in the way, with its cure; nothing has changed then but empty maps.
    pub fn open(node: &str, keys: HashKeys, sizes: Sizes) -> Result<Self, KernelError> {
        let blueprint = Blueprint::of_object(sizes)?;
        kernel_is_new_enough()?;
        bpffs::mount_if_absent()?;
        let pins = Pins::of(node);
        pins.recover()?;
        let (origin, maps) = if !pins.maps().exists() {
            (Origin::Fresh, pins.maps())
        } else {
            match blueprint.fit(&pins.maps()) {
                Fit::Usable => (Origin::Adopted, pins.maps()),
                Fit::TooSmall(_) => (Origin::Enlarged, pins.next_maps()),
                Fit::Foreign(reason) => (Origin::Rebuilt(reason), pins.next_maps()),
            }
        };
        let tables = blueprint.create_maps(&maps).and_then(|()| {
            let mut tables = Tables::open(&maps)?;
            if origin == Origin::Enlarged {
                tables.inherit(&Tables::open(&pins.maps())?)?;
            }
            Ok(tables)
        });
        if tables.is_err() && origin != Origin::Adopted {
            // The first error is the one to tell.
            let _ = bpffs::remove_directory(&maps);
        }
        Ok(Self {
            tables: tables?,
            pins,
            keys,
            blueprint,
            origin,
            maps,
            loaded: BTreeMap::new(),
            trials: BTreeMap::new(),
            emitter: None,
            egress_mode: link::best_egress_mode(),
        })
    }

    /// Uses the clsact qdisc even where the kernel has tcx.
    #[must_use]
    pub fn with_clsact(mut self) -> Self {
        self.egress_mode = EgressMode::Clsact;
        self
    }

    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    pub fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// Whether the tables have room for as much.
    #[must_use]
    pub fn holds(&self, sizes: Sizes) -> bool {
        let tables = &self.tables;
        tables.set_hosts_v4.max().min(tables.set_hosts_v6.max()) >= sizes.set_hosts
            && tables
                .set_prefixes_v4
                .max()
                .min(tables.set_prefixes_v6.max())
                >= sizes.set_prefixes
            && tables.jail_v4.max().min(tables.jail_v6.max()) >= sizes.jail
    }

    /// Loads the programs for hooks that have none yet: the kernel checks them, nothing is attached.
    ///
    /// # Errors
    /// When a device is missing or the kernel refuses the programs.
    pub fn prepare(&mut self, hooks: &[Hook]) -> Result<(), KernelError> {
        for hook in hooks {
            if Device::named(&hook.device)?.is_none() {
                return Err(KernelError::NoDevice {
                    interface: hook.interface.clone(),
                    device: hook.device.clone(),
                });
            }
            match self.loaded.get(&hook.interface) {
                Some(loaded) if loaded.hook == *hook => {}
                // The programs of an id serve any device; the attachment is made anew.
                _ => {
                    let object =
                        self.blueprint
                            .load(&self.maps, hook.id, &self.keys, Purpose::Serve)?;
                    self.trials.remove(&hook.interface);
                    self.loaded.insert(
                        hook.interface.clone(),
                        Loaded {
                            hook: hook.clone(),
                            object,
                            attachment: None,
                        },
                    );
                }
            }
        }
        Ok(())
    }

    /// Attaches what [`Self::prepare`] loaded: replaces programs that an earlier controller attached, in one step
    /// each. The tables must be filled before.
    ///
    /// # Errors
    /// Names the interface; interfaces that had no program before then have none again.
    pub fn attach(&mut self) -> Result<Vec<Attachment>, KernelError> {
        let unattached: Vec<&Hook> = self
            .loaded
            .values()
            .filter(|loaded| loaded.attachment.is_none())
            .map(|loaded| &loaded.hook)
            .collect();
        link::rename_pins(&unattached, &self.pins)?;
        let mut undo = Vec::new();
        for (name, loaded) in &mut self.loaded {
            if loaded.attachment.is_some() {
                continue;
            }
            match attach_both(loaded, &self.pins, self.egress_mode, &mut undo) {
                Ok(attachment) => loaded.attachment = Some(attachment),
                Err(error) => {
                    for (interface, device, direction) in undo {
                        // The first error is the one to tell.
                        let _ = link::detach(&interface, Some(&device), direction, &self.pins);
                    }
                    let name = name.clone();
                    self.loaded.remove(&name);
                    return Err(error);
                }
            }
        }
        if self.maps != self.pins.maps() {
            self.pins.settle()?;
            self.maps = self.pins.maps();
        }
        Ok(self.attachments())
    }

    /// Detaches every interface that is not among `hooks`.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn retire_all_but(&mut self, hooks: &[Hook]) -> Result<Vec<String>, KernelError> {
        let mut retired = Vec::new();
        for (interface, direction) in self.pins.pinned_links()? {
            if hooks.iter().any(|hook| hook.interface == interface) {
                continue;
            }
            let device = self
                .loaded
                .get(&interface)
                .map(|loaded| loaded.hook.device.clone())
                .or(pinned::device_of(&self.tables, &interface)?);
            link::detach(&interface, device.as_deref(), direction, &self.pins)?;
            if !retired.contains(&interface) {
                retired.push(interface);
            }
        }
        let stays = |interface: &String| hooks.iter().any(|hook| hook.interface == *interface);
        self.loaded.retain(|interface, _| stays(interface));
        self.trials.retain(|interface, _| stays(interface));
        Ok(retired)
    }

    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        self.loaded
            .values()
            .filter_map(|loaded| loaded.attachment.clone())
            .collect()
    }

    /// Attaches again where a device was removed and came back, or where someone took a program off.
    ///
    /// # Errors
    /// As [`Self::attach`]; a device that is gone is none, see [`Self::lost`].
    pub fn reattach_lost(&mut self) -> Result<Vec<Attachment>, KernelError> {
        let mut back = Vec::new();
        for loaded in self.loaded.values_mut() {
            let Some(device) = Device::named(&loaded.hook.device)? else {
                continue;
            };
            if link::is_attached(&mut loaded.object, &loaded.hook, &device, self.egress_mode)? {
                continue;
            }
            let mut undo = Vec::new();
            let attachment = attach_both(loaded, &self.pins, self.egress_mode, &mut undo)?;
            loaded.attachment = Some(attachment.clone());
            back.push(attachment);
        }
        Ok(back)
    }

    /// Hooks whose devices are gone.
    ///
    /// # Errors
    /// When rtnetlink does not answer.
    pub fn lost(&self) -> Result<Vec<Hook>, KernelError> {
        let mut lost = Vec::new();
        for loaded in self.loaded.values() {
            if Device::named(&loaded.hook.device)?.is_none() {
                lost.push(loaded.hook.clone());
            }
        }
        Ok(lost)
    }

    /// Takes back what opening it created, if nothing was attached yet and nothing was there before.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn abandon(self) -> Result<(), KernelError> {
        match self.origin {
            Origin::Fresh => self.pins.remove(),
            Origin::Adopted => Ok(()),
            Origin::Enlarged | Origin::Rebuilt(_) => {
                bpffs::remove_directory(&self.pins.next_maps())
            }
        }
    }
}

/// What a person should know about this machine.
#[must_use]
pub fn warnings() -> Vec<String> {
    let mut warnings = Vec::new();
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    if jit.is_ok_and(|jit| jit.trim() == "0") {
        warnings.push(
            "the BPF compiler is off, packets cost many times more; `sysctl net.core.bpf_jit_enable=1`"
                .to_owned(),
        );
    }
    warnings
}

fn attach_both(
    loaded: &mut Loaded,
    pins: &Pins,
    egress_mode: EgressMode,
    undo: &mut Vec<(String, String, Direction)>,
) -> Result<Attachment, KernelError> {
    let hook = &loaded.hook;
    let mut undoable =
        |direction| undo.push((hook.interface.clone(), hook.device.clone(), direction));
    let egress = link::attach_egress(object::egress(&mut loaded.object)?, hook, pins, egress_mode)?;
    if matches!(egress, Outcome::Attached(_)) {
        undoable(Direction::Egress);
    }
    let ingress = link::attach_ingress(object::ingress(&mut loaded.object)?, hook, pins)?;
    if matches!(ingress, Outcome::Attached(_)) {
        undoable(Direction::Ingress);
    }
    Ok(Attachment {
        hook: hook.clone(),
        ingress: ingress.mode(),
        egress: egress.mode(),
    })
}

fn kernel_is_new_enough() -> Result<(), KernelError> {
    match KernelVersion::current() {
        Ok(running) if running < KernelVersion::new(6, 1, 0) => Err(KernelError::KernelTooOld {
            running: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map(|release| release.trim().to_owned())
                .unwrap_or_else(|_| "of unknown version".to_owned()),
        }),
        // A version that cannot be told may be new enough; the verifier decides.
        _ => Ok(()),
    }
}
