//! The lab, by the binary `foobar-lab`: up, down, status, and commands on its nodes.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
    sync::mpsc,
};

use anyhow::{Context as _, Error, Result};

use crate::{
    machine,
    product::Product,
    setup::{self, Consent, Scope},
    steps::Steps,
    workspace::{Profile, Workspace},
};

/// Sets up, builds and brings the lab up; it stays when xtask ends.
pub fn up(
    workspace: &Workspace,
    steps: &mut Steps,
    consent: Consent,
    profile: Profile,
) -> Result<ExitCode> {
    let product = prepare(workspace, steps, consent, profile)?;
    let status = lab_up(workspace, &product)?;
    Ok(code_of(status))
}

/// Like [`up`], and takes all down when the user ends it.
pub fn up_until_interrupted(
    workspace: &Workspace,
    steps: &mut Steps,
    consent: Consent,
    profile: Profile,
) -> Result<ExitCode> {
    let product = prepare(workspace, steps, consent, profile)?;
    let (sender, interrupted) = mpsc::channel();
    ctrlc::set_handler(move || {
        // Nobody listens any more once the lab goes down.
        let _ = sender.send(());
    })
    .context("cannot listen for Ctrl-C")?;

    let status = lab_up(workspace, &product)?;
    if status.success() {
        eprintln!("Ctrl-C takes all of it down");
        interrupted.recv().context("cannot wait for Ctrl-C")?;
        eprintln!();
    }
    // A group of its own: another Ctrl-C shall not leave half a lab.
    let down = lab_command(workspace, &product.lab)
        .arg("down")
        .process_group(0)
        .status()
        .context("cannot start foobar-lab")?;
    Ok(if status.success() {
        code_of(down)
    } else {
        code_of(status)
    })
}

/// Takes the lab down with the binary that is there, so that a broken build never keeps a lab alive.
pub fn down(workspace: &Workspace, steps: &mut Steps) -> Result<ExitCode> {
    hand_over(workspace, steps, &["down".into()])
}

pub fn status(workspace: &Workspace, steps: &mut Steps) -> Result<ExitCode> {
    hand_over(workspace, steps, &["status".into()])
}

pub fn exec(
    workspace: &Workspace,
    steps: &mut Steps,
    node: OsString,
    command: Vec<OsString>,
) -> Result<ExitCode> {
    let mut arguments = vec!["exec".into(), node, "--".into()];
    arguments.extend(command);
    hand_over(workspace, steps, &arguments)
}

fn prepare(
    workspace: &Workspace,
    steps: &mut Steps,
    consent: Consent,
    profile: Profile,
) -> Result<Product> {
    machine::refuse_unless_capable("the lab")?;
    let tools = setup::ensure(workspace, steps, Scope::Lab, consent)?;
    Product::build(workspace, steps, &tools, profile)
}

fn lab_up(workspace: &Workspace, product: &Product) -> Result<ExitStatus> {
    let mut command = lab_command(workspace, &product.lab);
    product.announce(&mut command);
    command
        .arg("up")
        .status()
        .context("cannot start foobar-lab")
}

/// Becomes `foobar-lab`, so that terminal, signals and exit status are the command's own.
fn hand_over(workspace: &Workspace, steps: &mut Steps, arguments: &[OsString]) -> Result<ExitCode> {
    setup::refuse_unless_root("the lab")?;
    let lab = match newest_lab(workspace) {
        Some(lab) => lab,
        None => {
            let tools = setup::ensure(workspace, steps, Scope::Build, Consent::Ask)?;
            Product::build(workspace, steps, &tools, Profile::Dev)?.lab
        }
    };
    let failure = lab_command(workspace, &lab).args(arguments).exec();
    Err(Error::new(failure).context(format!("cannot start {}", lab.display())))
}

/// The one that brought the lab up, unless both profiles were built since.
fn newest_lab(workspace: &Workspace) -> Option<PathBuf> {
    [Profile::Dev, Profile::Release]
        .map(|profile| workspace.binary(profile, "foobar-lab"))
        .into_iter()
        .filter_map(|lab| Some((fs::metadata(&lab).ok()?.modified().ok()?, lab)))
        .max()
        .map(|(_, lab)| lab)
}

fn lab_command(workspace: &Workspace, lab: &PathBuf) -> Command {
    let mut command = Command::new(lab);
    command
        .current_dir(&workspace.root)
        .env("FOOBAR_LAB_BIN", lab)
        .env("FOOBAR_BIN", lab.with_file_name("foobar"))
        // Cargo's, for xtask; not for the lab's servers.
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("CARGO_MANIFEST_DIR");
    command
}

/// Runs `foobar run ARGUMENTS` on this machine's own interfaces instead of a lab.
pub fn on_this_machine(
    workspace: &Workspace,
    steps: &mut Steps,
    consent: Consent,
    profile: Profile,
    arguments: &[OsString],
) -> Result<ExitCode> {
    setup::refuse_unless_root("attaching to network interfaces")?;
    let tools = setup::ensure(workspace, steps, Scope::Build, consent)?;
    let product = Product::build(workspace, steps, &tools, profile)?;
    let failure = Command::new(&product.foobar)
        .arg("run")
        .args(arguments)
        .env_remove("LD_LIBRARY_PATH")
        .exec();
    Err(Error::new(failure).context(format!("cannot start {}", product.foobar.display())))
}

fn code_of(status: ExitStatus) -> ExitCode {
    match status.code() {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    }
}
