//! A virtual machine of one kernel and a handful of files in memory.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::program;

/// What a machine is made of.
#[derive(Debug)]
pub struct Guest<'a> {
    /// Made anew.
    pub directory: PathBuf,
    /// And what they are called in it.
    pub programs: &'a [(&'a Path, &'a str)],
    /// A kernel's package, unpacked.
    pub kernel: &'a Path,
}

impl Guest<'_> {
    /// The command that starts it, tries what there is to try, and ends with it.
    pub fn build(&self) -> Result<Command> {
        let files = self.directory.join("files");
        // Left by the last run, or not there.
        let _ = fs::remove_dir_all(&self.directory);
        for directory in [
            "bin",
            "sbin",
            "etc/foobar",
            "modules",
            "proc",
            "sys",
            "dev",
            "tmp",
            "run",
            "var",
        ] {
            fs::create_dir_all(files.join(directory))
                .with_context(|| format!("cannot create {}", files.display()))?;
        }
        fs::write(files.join("etc/foobar/foobar.toml"), CONFIGURATION)?;
        fs::write(files.join("init"), INIT)?;
        fs::set_permissions(files.join("init"), fs::Permissions::from_mode(0o755))?;
        for (file, name) in self.programs {
            let to = files.join("bin").join(name);
            succeed(Command::new("strip").arg("-o").arg(&to).arg(file))?;
            bring_libraries(file, &files)?;
        }
        for (name, place) in [("busybox", "bin/busybox"), ("ip", "sbin/ip")] {
            let file = program(name).with_context(|| format!("there is no {name}"))?;
            fs::copy(&file, files.join(place))?;
            bring_libraries(&file, &files)?;
        }
        for module in MODULES {
            self.bring_module(module, &files)?;
        }
        let memory = self.directory.join("initrd");
        let mut pack = Command::new("sh");
        pack.args(["-c", "find . | busybox cpio -o -H newc | gzip -1 > \"$0\""]);
        succeed(pack.arg(&memory).current_dir(&files))?;
        self.machine(&memory)
    }

    fn bring_module(&self, name: &str, files: &Path) -> Result<()> {
        let mut find = Command::new("find");
        find.arg(self.kernel)
            .args(["-name", &format!("{name}.ko*")]);
        let found = succeed(&mut find)?;
        let found = found
            .lines()
            .next()
            .with_context(|| format!("the kernel has no {name}"))?;
        let to = files.join("modules").join(format!("{name}.ko"));
        match Path::new(found)
            .extension()
            .and_then(|extension| extension.to_str())
        {
            Some("xz") => {
                let to = fs::File::create(to)?;
                succeed(Command::new("xz").arg("-dc").arg(found).stdout(to)).map(drop)
            }
            _ => fs::copy(found, to)
                .map(drop)
                .with_context(|| format!("cannot copy {found}")),
        }
    }

    fn machine(&self, memory: &Path) -> Result<Command> {
        let kernel = fs::read_dir(self.kernel.join("boot"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().contains("vmlinuz"))
            .context("the package has no kernel")?;
        let mut machine = Command::new("timeout");
        machine.args([LIMIT, "qemu-system-x86_64"]);
        // Not KVM: in a virtual machine it may be there and stop at an instruction (seen: cmpxchg16b).
        machine.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        machine.args(["-smp", "2", "-m", "2048", "-nographic", "-no-reboot"]);
        machine
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(memory);
        machine.args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"]);
        Ok(machine)
    }
}

/// Where the machine's loader looks for them: where they are here.
fn bring_libraries(program: &Path, files: &Path) -> Result<()> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot start ldd")?;
    // A program without libraries is no failure.
    for library in String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let to = files.join(library.trim_start_matches('/'));
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::copy(library, to).with_context(|| format!("cannot copy {library}"))?;
    }
    Ok(())
}

/// Runs it; what it said.
fn succeed(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const INIT: &str = include_str!("init.sh");
const CONFIGURATION: &str = include_str!("foobar.toml");
/// What Debian's kernels do not have built in: devices to attach to, and the egress of kernels before 6.6.
const MODULES: &[&str] = &["veth", "sch_ingress", "cls_bpf"];
/// Seconds; a machine takes about one minute.
const LIMIT: &str = "600";
