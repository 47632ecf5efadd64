//! The Debian package: manuals, completions and schema are written by the product, cargo-deb puts all together.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    product::Product,
    setup::{self, Consent, Scope},
    steps::Steps,
    workspace::{Profile, Workspace, program},
};

/// Builds `target/debian/foobar_….deb` and says where it is.
pub fn run(
    workspace: &Workspace,
    steps: &mut Steps,
    consent: Consent,
    profile: Profile,
) -> Result<ExitCode> {
    let tools = setup::ensure(workspace, steps, Scope::Build, consent)?;
    let product = Product::build(workspace, steps, &tools, profile)?;
    let package = build(workspace, steps, &product.foobar, profile)?;
    verify(workspace, steps, &package)?;
    install(workspace, steps, &product, &package)?;
    println!("{}", package.display());
    Ok(ExitCode::SUCCESS)
}

fn build(
    workspace: &Workspace,
    steps: &mut Steps,
    foobar: &Path,
    profile: Profile,
) -> Result<PathBuf> {
    let target = workspace.root.join("target");
    let stage = target.join("package");
    accompany(foobar, &stage)?;
    let cargo_deb = cargo_deb(workspace, steps)?;
    let output = target.join("debian");
    fs::create_dir_all(&output)?;
    let mut command = Command::new(cargo_deb);
    command
        .current_dir(&workspace.root)
        .args(["--no-build", "--package", "foobar-userspace"])
        .args(packing(profile))
        .args(["--profile", profile_name(profile)])
        .arg("--output")
        .arg(output.join("foobar.deb"));
    steps.run("cargo-deb", "Debian package", &mut command)?;
    Ok(output.join("foobar.deb"))
}

/// Unpacks it beside the system: everything is there, the program runs, the scripts are scripts.
fn verify(workspace: &Workspace, steps: &mut Steps, package: &Path) -> Result<()> {
    let root = workspace.root.join("target/debian/unpacked");
    let _ = fs::remove_dir_all(&root);
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--raw-extract").arg(package).arg(&root);
    steps.run("dpkg-deb", "unpacking it", &mut unpack)?;
    let missing: Vec<&str> = CONTENTS
        .iter()
        .copied()
        .filter(|file| !root.join(file).exists())
        .collect();
    anyhow::ensure!(missing.is_empty(), "the package lacks {missing:?}");
    let mut version = Command::new(root.join("usr/bin/foobar"));
    steps.run(
        "packaged-foobar",
        "foobar --version",
        version.arg("--version"),
    )?;
    for script in ["postinst", "prerm", "postrm"] {
        let mut check = Command::new("sh");
        check.arg("-n").arg(root.join("DEBIAN").join(script));
        steps.run(script, script, &mut check)?;
    }
    Ok(())
}

/// Installs, runs, upgrades and purges it under a service manager of its own.
fn install(
    workspace: &Workspace,
    steps: &mut Steps,
    product: &Product,
    package: &Path,
) -> Result<()> {
    let mut test = workspace.cargo();
    test.args(["test", "--package", "foobar-tests", "--test", "package"])
        .args(["--", "--ignored", "--nocapture"])
        .env("FOOBAR_DEB", package);
    product.announce(&mut test);
    steps.run("package-test", "installing it under systemd", &mut test)?;
    Ok(())
}

const CONTENTS: &[&str] = &[
    "usr/bin/foobar",
    "usr/lib/systemd/system/foobar.service",
    "usr/lib/sysusers.d/foobar.conf",
    "etc/default/foobar",
    "usr/share/man/man1/foobar.1.gz",
    "usr/share/man/man1/foobar-set-add.1.gz",
    "usr/share/bash-completion/completions/foobar",
    "usr/share/zsh/vendor-completions/_foobar",
    "usr/share/fish/vendor_completions.d/foobar.fish",
    "usr/share/foobar/foobar.schema.json",
    "usr/share/foobar/prometheus/foobar-alerts.yml",
    "usr/share/foobar/grafana/foobar.json",
    "usr/share/doc/foobar/examples/foobar.toml",
    "usr/share/doc/foobar/operators/install.md",
    "usr/share/doc/foobar/operators/incidents/locked-out.md",
    "DEBIAN/postinst",
    "DEBIAN/prerm",
    "DEBIAN/postrm",
];

/// What the product writes about itself.
fn accompany(foobar: &Path, stage: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(stage);
    let completions = stage.join("completions");
    fs::create_dir_all(&completions)?;
    let says = |arguments: &[&str]| -> Result<Vec<u8>> {
        let output = Command::new(foobar)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot run {}", foobar.display()))?;
        anyhow::ensure!(output.status.success(), "foobar {arguments:?} failed");
        Ok(output.stdout)
    };
    let manuals = stage.join("man");
    says(&["man", &manuals.to_string_lossy()])?;
    for (shell, file) in [
        ("bash", "foobar.bash"),
        ("zsh", "_foobar"),
        ("fish", "foobar.fish"),
    ] {
        fs::write(completions.join(file), says(&["completions", shell])?)?;
    }
    fs::write(
        stage.join("foobar.schema.json"),
        says(&["config", "schema"])?,
    )?;
    Ok(())
}

/// A debug build is an eighth of its size without its symbols, and is not worth the minutes of the best compression.
fn packing(profile: Profile) -> &'static [&'static str] {
    match profile {
        Profile::Dev => &["--strip", "--fast"],
        Profile::Release => &["--no-strip"],
    }
}

fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Dev => "dev",
        Profile::Release => "release",
    }
}

/// The one in the path, or one of our own under `target`.
fn cargo_deb(workspace: &Workspace, steps: &mut Steps) -> Result<PathBuf> {
    let own = workspace.root.join("target/tools");
    if let Some(found) = program("cargo-deb") {
        return Ok(found);
    }
    let built = own.join("bin/cargo-deb");
    if !built.exists() {
        let mut cargo = Command::new("cargo");
        cargo
            .args(["install", "cargo-deb", "--locked", "--root"])
            .arg(&own);
        steps.run("cargo-install-deb", "cargo-deb, once", &mut cargo)?;
    }
    Ok(built)
}
