//! What must be on the machine before anything can be built or run, and how it gets there.

use std::{
    fmt, fs,
    io::{self, BufRead as _, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
};

use anyhow::{Context as _, Result};

use crate::{
    linker::{self, Linker},
    packages::{self, Need},
    refusal::{Refusal, Status},
    steps::Steps,
    toolchain::{self, Refused, Toolchain},
    workspace::{Workspace, program},
};

/// What builds the BPF objects.
#[derive(Debug)]
pub struct BpfTools {
    pub toolchain: Toolchain,
    pub linker: Linker,
}

impl fmt::Display for BpfTools {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "ready: {} {} with LLVM {}, {}",
            self.toolchain.rustc.display(),
            self.toolchain.release,
            self.toolchain.llvm.major,
            self.linker.program().display()
        )
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// What building takes.
    Build,
    /// And what the lab runs.
    Lab,
    /// And what the slow suites run.
    Conformance,
    /// What building takes, and what virtual machines are made of and run by.
    Kernels,
}

impl Scope {
    fn needs(self) -> impl Iterator<Item = Need> {
        let needs: &[&[Need]] = match self {
            Self::Build => &[],
            Self::Lab => &[packages::LAB],
            Self::Conformance => &[packages::LAB, packages::CONFORMANCE],
            Self::Kernels => &[packages::KERNELS],
        };
        needs.iter().copied().flatten().copied()
    }
}

/// Whether to ask before anything is installed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Consent {
    Ask,
    Given,
}

/// Finds what `scope` needs, and installs what is missing.
pub fn ensure(
    workspace: &Workspace,
    steps: &mut Steps,
    scope: Scope,
    consent: Consent,
) -> Result<BpfTools> {
    let missing = Missing::look(workspace, scope);
    if missing.is_nothing() {
        return missing.into_tools(workspace);
    }
    let packages = missing.packages();
    refuse_unless_installable(&missing, &packages)?;
    eprintln!("{}", missing.plan());
    agree(consent)?;
    if !packages.is_empty() {
        packages::install(steps, &packages, &missing.services())?;
    }
    let toolchain = toolchain::find().map_err(Refused::into_refusal)?;
    let linker = Linker::of(workspace, &toolchain.llvm);
    if !linker.works() {
        linker.build(workspace, steps, &toolchain.llvm)?;
    }
    Ok(BpfTools { toolchain, linker })
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

pub fn refuse_unless_root(purpose: &str) -> Result<(), Refusal> {
    if is_root() {
        return Ok(());
    }
    Err(Refusal::new(
        Status::NotPermitted,
        format!(
            "{purpose} takes root: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo {}",
            command_line()
        ),
    ))
}

fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("xtask {}", arguments.join(" "))
}

#[derive(Debug)]
struct Missing {
    toolchain: Result<Toolchain, Refused>,
    linker: Option<Linker>,
    programs: Vec<Need>,
}

impl Missing {
    fn look(workspace: &Workspace, scope: Scope) -> Self {
        let toolchain = toolchain::find();
        let linker = match &toolchain {
            Ok(toolchain) => {
                Some(Linker::of(workspace, &toolchain.llvm)).filter(|linker| !linker.works())
            }
            Err(_) => None,
        };
        Self {
            toolchain,
            linker,
            programs: scope.needs().filter(Need::is_missing).collect(),
        }
    }

    fn is_nothing(&self) -> bool {
        self.toolchain.is_ok() && self.linker.is_none() && self.programs.is_empty()
    }

    fn into_tools(self, workspace: &Workspace) -> Result<BpfTools> {
        let toolchain = self.toolchain.map_err(Refused::into_refusal)?;
        let linker = Linker::of(workspace, &toolchain.llvm);
        Ok(BpfTools { toolchain, linker })
    }

    fn packages(&self) -> Vec<&'static str> {
        let compiler = if self.toolchain.is_err() {
            packages::COMPILER
        } else {
            &[]
        };
        let mut packages = compiler.to_vec();
        packages.extend(self.programs.iter().map(|need| need.package));
        packages
    }

    fn services(&self) -> Vec<&'static str> {
        self.programs
            .iter()
            .filter_map(|need| need.service)
            .collect()
    }

    fn plan(&self) -> String {
        let mut lines = vec!["to be installed:".to_owned()];
        if self.toolchain.is_err() {
            lines.push(format!(
                "  {} (compiler of the BPF object, about 850 MB)",
                packages::COMPILER.join(" ")
            ));
        }
        if !self.programs.is_empty() {
            let names: Vec<&str> = self.programs.iter().map(|need| need.package).collect();
            lines.push(format!("  {} (programs that are run)", names.join(" ")));
        }
        for service in self.services() {
            lines.push(format!(
                "    the service {service} is not started by this, nor at boot"
            ));
        }
        match &self.linker {
            Some(linker) => lines.push(format!(
                "  bpf-linker {} in {} (built once, about a minute)",
                linker::VERSION,
                linker.directory().display()
            )),
            None if self.toolchain.is_err() => lines.push(format!(
                "  bpf-linker {} in the cache directory (built once, about a minute)",
                linker::VERSION
            )),
            None => {}
        }
        lines.join("\n")
    }
}

fn refuse_unless_installable(missing: &Missing, packages: &[&str]) -> Result<(), Refusal> {
    if packages.is_empty() {
        return Ok(());
    }
    if let Err(refused) = &missing.toolchain
        && !(refused.curable_by_packages() && program("apt-get").is_some())
    {
        return Err(Refusal::new(Status::NoCompiler, refused.to_string()));
    }
    if program("apt-get").is_none() {
        let names: Vec<&str> = missing.programs.iter().map(|need| need.program).collect();
        return Err(Refusal::new(
            Status::Failed,
            format!(
                "there is no apt-get here: install what brings these programs: {}",
                names.join(" ")
            ),
        ));
    }
    refuse_unless_root(&format!("installing {}", packages.join(" ")))
}

fn agree(consent: Consent) -> Result<()> {
    let asks = io::stdin().is_terminal() && io::stderr().is_terminal();
    if consent == Consent::Given || !asks {
        return Ok(());
    }
    eprint!("go on? [Y/n] ");
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    if matches!(answer.trim(), "" | "y" | "Y" | "yes") && !answer.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(Status::Failed, "nothing was installed").into())
}
