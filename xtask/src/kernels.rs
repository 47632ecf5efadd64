//! `cargo xtask test --kernels`: foobar under every kernel that Debian offers, each in a virtual machine without a disk.

mod guest;
mod offer;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};

use self::{guest::Guest, offer::Kernel};
use crate::{
    product::Product,
    setup::{self, Consent, Scope},
    steps::Steps,
    workspace::{Profile, Workspace},
};

/// Sets up, builds, and tries every series of kernels whose version begins with `only`.
pub fn run(
    workspace: &Workspace,
    steps: &mut Steps,
    consent: Consent,
    only: Option<&str>,
) -> Result<ExitCode> {
    let tools = setup::ensure(workspace, steps, Scope::Kernels, consent)?;
    let kernels = offered(only)?;
    let product = Product::build(workspace, steps, &tools, Profile::Dev)?;
    let table = table_of_packets(workspace, steps, &product)?;
    let home = workspace.target.join("kernels");
    for kernel in &kernels {
        let tree = fetch(steps, kernel, &home)?;
        let guest = Guest {
            directory: home.join(format!("guest-{}", kernel.series)),
            programs: &[(&product.foobar, "foobar"), (&table, "packets")],
            kernel: &tree,
        };
        let mut machine = guest.build()?;
        let title = format!("foobar under Linux {}", kernel.series);
        let name = format!("kernel-{}", kernel.series);
        steps.run_and_judge(&name, &title, &mut machine, judge)?;
    }
    eprintln!("\n{}", steps.summary());
    Ok(ExitCode::SUCCESS)
}

fn offered(only: Option<&str>) -> Result<Vec<Kernel>> {
    let mut search = Command::new("apt-cache");
    search.args(["search", "--names-only", offer::PATTERN]);
    let output = search.output().context("cannot start apt-cache")?;
    let kernels: Vec<_> = offer::newest(&String::from_utf8_lossy(&output.stdout))
        .into_iter()
        .filter(|kernel| only.is_none_or(|only| kernel.series.starts_with(only)))
        .collect();
    ensure!(
        !kernels.is_empty(),
        "Debian's archive offers no such kernel here; `apt-get update` may help"
    );
    Ok(kernels)
}

/// The tests of the packet path as a program.
fn table_of_packets(
    workspace: &Workspace,
    steps: &mut Steps,
    product: &Product,
) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command.args(["test", "--package", "foobar-tests", "--test", "packets"]);
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    product.announce(&mut command);
    let transcript = steps.run("packets", "the table of packets", &mut command)?;
    let mut built = transcript.text.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "packets";
        message["executable"]
            .as_str()
            .filter(|_| is_it)
            .map(PathBuf::from)
    });
    built.next_back().context("cargo built no test of packets")
}

/// The kernel's files, unpacked and not installed.
fn fetch(steps: &mut Steps, kernel: &Kernel, home: &Path) -> Result<PathBuf> {
    let tree = home.join(&kernel.package);
    if tree.join("boot").exists() {
        return Ok(tree);
    }
    let archives = home.join("archives").join(&kernel.package);
    fs::create_dir_all(&archives)
        .with_context(|| format!("cannot create {}", archives.display()))?;
    let title = format!("fetching {}", kernel.package);
    let mut download = Command::new("apt-get");
    download.args(["download", &kernel.package]);
    steps.run("kernel-fetch", &title, download.current_dir(&archives))?;
    let archive = fs::read_dir(&archives)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get brought no package")?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(&archive).arg(&tree);
    let title = format!("unpacking {}", kernel.package);
    steps.run("kernel-unpack", &title, &mut unpack)?;
    Ok(tree)
}

/// A machine ends well whatever happened in it: what it told decides.
fn judge(text: &str) -> Result<String, String> {
    let lines = || text.lines().map(str::trim);
    if let Some(failed) = lines().find(|line| line.starts_with("not ok: ")) {
        return Err(failed.to_owned());
    }
    if !lines().any(|line| line == "ended") {
        return Err("the machine did not come to its end".to_owned());
    }
    let passed = lines().filter(|line| line.starts_with("ok: ")).count();
    // The loader's escape sequences may stand before it.
    let kernel = lines().find_map(|line| Some(line.split_once("kernel: ")?.1));
    match passed {
        0 => Err("nothing was tried".to_owned()),
        _ => Ok(format!("{passed} passed on {}", kernel.unwrap_or("?"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_only_turned_off_has_shown_nothing() {
        assert!(judge("kernel: 6.1\nended\n").is_err());
        assert!(judge("ok: one\nkernel panic\n").is_err());
        assert!(judge("ok: one\nnot ok: two\nended\n").is_err());
        let told = judge("\x1b[0mkernel: 6.1.0-50\r\nok: one\r\nok: two\r\nended\r\n");
        assert_eq!(told.unwrap(), "2 passed on 6.1.0-50");
    }
}
