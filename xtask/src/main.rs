//! Set-up, build, lab, tests, checks and benches of foobar: `cargo xtask --help`.

mod linker;
mod object;
mod packages;
mod product;
mod refusal;
mod setup;
mod steps;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::{
    product::Product,
    refusal::{Refusal, Status},
    setup::{Consent, Scope},
    steps::Steps,
    workspace::{Profile, Workspace},
};

/// Set-up, build, lab, tests, checks and benches of foobar.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what building, the lab and the tests need, and nothing else
    Setup(Agreement),
    /// Build the BPF object and the binaries with it inside
    Build {
        #[command(flatten)]
        agreement: Agreement,
        #[command(flatten)]
        optimisation: Optimisation,
    },
}

#[derive(Args, Clone, Copy, Debug)]
struct Agreement {
    /// Install what is missing without asking (also when there is no terminal to ask at)
    #[arg(short, long)]
    yes: bool,
}

#[derive(Args, Clone, Copy, Debug)]
struct Optimisation {
    /// Build the optimised binaries
    #[arg(long)]
    release: bool,
}

impl Agreement {
    fn consent(self) -> Consent {
        if self.yes {
            Consent::Given
        } else {
            Consent::Ask
        }
    }
}

impl Optimisation {
    fn profile(self) -> Profile {
        if self.release {
            Profile::Release
        } else {
            Profile::Dev
        }
    }
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let status = error
                .downcast_ref::<Refusal>()
                .map_or(Status::Failed, |refusal| refusal.status);
            ExitCode::from(status as u8)
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let mut steps = Steps::new(workspace.logs())?;
    match task {
        Task::Setup(agreement) => {
            let tools = setup::ensure(&workspace, &mut steps, Scope::Lab, agreement.consent())?;
            println!(
                "ready: {} ({}, LLVM {}), {}",
                tools.toolchain.rustc.display(),
                tools.toolchain.release,
                tools.toolchain.llvm.major,
                tools.linker.program().display()
            );
        }
        Task::Build {
            agreement,
            optimisation,
        } => {
            let tools = setup::ensure(&workspace, &mut steps, Scope::Build, agreement.consent())?;
            let product = Product::build(&workspace, &mut steps, &tools, optimisation.profile())?;
            println!(
                "{}\n{}\n{}",
                product.object.display(),
                product.foobar.display(),
                product.lab.display()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
