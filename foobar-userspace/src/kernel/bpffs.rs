//! Where a node's maps and links are pinned.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount};

use super::{Direction, KernelError};

const MOUNT_POINT: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The pins of one node.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

impl Pins {
    pub fn of(node: &str) -> Self {
        Self {
            root: Path::new(MOUNT_POINT).join("foobar").join(component(node)),
        }
    }

    pub fn node(&self) -> String {
        self.root
            .file_name()
            .map(|name| original(&name.to_string_lossy()))
            .unwrap_or_default()
    }

    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// Maps of a new layout, until the links use them.
    pub fn next_maps(&self) -> PathBuf {
        self.root.join("maps-next")
    }

    /// Counters of user space, which no new layout of the others replaces.
    pub fn mapped(&self) -> PathBuf {
        self.root.join("mapped")
    }

    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub fn link(&self, interface: &str, direction: Direction) -> PathBuf {
        self.links()
            .join(format!("{}-{}", component(interface), direction.name()))
    }

    /// A link on its way to another name.
    pub fn moving(&self, interface: &str, direction: Direction) -> PathBuf {
        self.links()
            .join(format!("{}-{}~", component(interface), direction.name()))
    }

    /// Puts `maps-next` in the place of `maps`.
    pub fn settle(&self) -> Result<(), KernelError> {
        let (maps, next) = (self.maps(), self.next_maps());
        remove_directory(&maps)?;
        fs::rename(&next, &maps).map_err(|source| KernelError::path("rename", next, source))
    }

    /// Ends what a crash cut short: renamed links, and [`Self::settle`]; clears away maps that never came into use.
    pub fn recover(&self) -> Result<(), KernelError> {
        for name in entries(&self.links())? {
            if let Some(target) = name.strip_suffix('~') {
                let moving = self.links().join(&name);
                fs::rename(&moving, self.links().join(target))
                    .map_err(|source| KernelError::path("rename", moving, source))?;
            }
        }
        let next = self.next_maps();
        if !next.exists() {
            return Ok(());
        }
        if self.maps().exists() {
            remove_directory(&next)
        } else {
            fs::rename(&next, self.maps())
                .map_err(|source| KernelError::path("rename", next, source))
        }
    }

    /// Interfaces and directions with a pinned link.
    pub fn pinned_links(&self) -> Result<Vec<(String, Direction)>, KernelError> {
        let mut links = Vec::new();
        for name in entries(&self.links())? {
            let split = Direction::ALL.into_iter().find_map(|direction| {
                let interface = name.strip_suffix(direction.name())?.strip_suffix('-')?;
                Some((original(interface), direction))
            });
            links.extend(split);
        }
        links.sort();
        Ok(links)
    }

    pub fn remove(&self) -> Result<(), KernelError> {
        for directory in [self.links(), self.maps(), self.next_maps(), self.mapped()] {
            remove_directory(&directory)?;
        }
        match fs::remove_dir(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(KernelError::path("remove", &self.root, error))
            }
            _ => Ok(()),
        }
    }
}

/// Mounts the BPF file system where it is absent.
///
/// # Errors
/// When the kernel refuses, or one has to be root for it.
pub fn mount_if_absent() -> Result<(), KernelError> {
    let present = rustix::fs::statfs(MOUNT_POINT)
        .is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|kind| kind == BPF_FS_MAGIC));
    if present {
        return Ok(());
    }
    match mount("bpf", MOUNT_POINT, "bpf", MountFlags::empty(), c"mode=0700") {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            Err(KernelError::NotPermitted {
                doing: format!("mount the BPF file system on {MOUNT_POINT}"),
                source: Box::new(io::Error::from(rustix::io::Errno::PERM)),
            })
        }
        Err(error) => Err(KernelError::Mount {
            source: error.into(),
        }),
    }
}

/// A directory that one may not look into says "not there" to a stat; this tells the two apart.
pub(super) fn permitted() -> Result<(), KernelError> {
    // The mount itself is root's alone on most machines; this directory may be the controller's user's.
    let directory = Path::new(MOUNT_POINT).join("foobar");
    match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(KernelError::path("read", directory, error))
        }
        _ => Ok(()),
    }
}

pub(super) fn create_directory(path: &Path) -> Result<(), KernelError> {
    fs::create_dir_all(path).map_err(|source| KernelError::path("create", path, source))
}

/// Removes a directory of pins; a missing one is fine.
pub(super) fn remove_directory(path: &Path) -> Result<(), KernelError> {
    for name in entries(path)? {
        let pin = path.join(&name);
        fs::remove_file(&pin).map_err(|source| KernelError::path("remove", pin, source))?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::path("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn entries(directory: &Path) -> Result<Vec<String>, KernelError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other,
    }
    .and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect()
    });
    entries.map_err(|source| KernelError::path("read", directory, source))
}

/// A name as a file's: the BPF file system refuses dots.
fn component(name: &str) -> String {
    name.replace('%', "%25")
        .replace('.', "%2E")
        .replace('/', "%2F")
}

fn original(component: &str) -> String {
    component
        .replace("%2F", "/")
        .replace("%2E", ".")
        .replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_dots_survives_the_file_system() {
        for name in ["wan", "eth0.100", "a%2Eb", "../x"] {
            let component = component(name);
            assert!(!component.contains(['.', '/']), "{component}");
            assert_eq!(original(&component), name);
        }
    }
}
