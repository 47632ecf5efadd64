//! Set-up, build, lab, tests, checks and benches of foobar: `cargo xtask --help`.

mod bench;
mod check;
mod conformance;
mod kernels;
mod lab;
mod linker;
mod machine;
mod object;
mod package;
mod packages;
mod processes;
mod product;
mod refusal;
mod setup;
mod stack;
mod steps;
mod suite;
mod toolchain;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

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
    /// Install what building, the lab and the tests need
    ///
    /// The other commands do this by themselves, each as far as it needs it. Debian packages are installed without
    /// starting their services; the BPF linker is built into ~/.cache/foobar (or $FOOBAR_CACHE). Nothing is
    /// downloaded by rustup. $EBPF_RUSTC names the compiler of the BPF object, when it is not to be searched for.
    Setup(Agreement),

    /// Build the BPF object, and the binaries with it inside
    Build {
        #[command(flatten)]
        agreement: Agreement,
        #[command(flatten)]
        optimisation: Optimisation,
    },

    /// Bring the lab up with foobar on it, until Ctrl-C
    ///
    /// Sets up, builds, and starts the estate of config/foobar.toml in network namespaces: a client, the balancer
    /// and three web servers. With arguments after `--` there is no lab: `foobar run ARGS` is started on this
    /// machine's own interfaces, for instance `cargo xtask run -- -c /etc/foobar/foobar.toml --node lb1`.
    Run {
        #[command(flatten)]
        agreement: Agreement,
        #[command(flatten)]
        optimisation: Optimisation,
        /// Leave the lab running and return; `cargo xtask lab down` ends it
        #[arg(long, conflicts_with = "arguments")]
        detach: bool,
        /// For `foobar run`, on this machine instead of a lab
        #[arg(last = true, value_name = "ARGS")]
        arguments: Vec<OsString>,
    },

    /// Bring the lab up or down, ask about it, run commands on its nodes
    Lab {
        #[command(subcommand)]
        task: LabTask,
    },

    /// Run every test: host, packet table through the kernel, whole lab
    ///
    /// Nothing is skipped: on a machine that cannot run the root tests this fails, and says what the machine lacks.
    Test {
        #[command(flatten)]
        agreement: Agreement,
        /// Instead of all that, try foobar under every kernel that Debian offers, each in a virtual machine
        #[arg(long)]
        kernels: bool,
        /// Only tests whose names contain this, or kernels whose version begins with it
        filter: Option<String>,
    },

    /// Run the slow suites against the sites: sslyze, testssl.sh, broken handshakes, frames of HTTP/2, a browser
    Conformance {
        #[command(flatten)]
        agreement: Agreement,
        /// Only suites whose names contain this
        filter: Option<String>,
    },

    /// Check format, lints, layering, documentation and dependencies
    Check,

    /// Build the Debian package: target/debian/foobar.deb
    Package {
        #[command(flatten)]
        agreement: Agreement,
        #[command(flatten)]
        optimisation: Optimisation,
    },

    /// Measure the optimised build: `bench packet [-o json] [--rounds N]`
    Bench {
        #[command(flatten)]
        agreement: Agreement,
        /// What to measure, and how: handed to foobar-bench as it stands
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        #[arg(value_names = ["NAME", "ARGS"], num_args = 1..)]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum LabTask {
    /// Set up, build and bring it up; it stays up
    Up {
        #[command(flatten)]
        agreement: Agreement,
        #[command(flatten)]
        optimisation: Optimisation,
    },
    /// Take it down, whatever is left of it
    Down,
    /// Say what is up
    Status,
    /// Run a command on a node: `cargo xtask lab exec web2 -- ss -tln`
    Exec {
        /// client, lb1, web1, web2 or web3
        node: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        #[arg(value_names = ["COMMAND", "ARGS"], num_args = 1..)]
        command: Vec<OsString>,
    },
}

#[derive(Args, Clone, Copy, Debug)]
struct Agreement {
    /// Install what is missing without asking (where there is no terminal, nobody is asked)
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
    let workspace = &Workspace::find()?;
    let steps = &mut Steps::new(workspace.logs())?;
    match task {
        Task::Setup(agreement) => {
            let tools = setup::ensure(workspace, steps, Scope::Lab, agreement.consent())?;
            println!("{tools}");
            Ok(ExitCode::SUCCESS)
        }
        Task::Build {
            agreement,
            optimisation,
        } => {
            let tools = setup::ensure(workspace, steps, Scope::Build, agreement.consent())?;
            let product = Product::build(workspace, steps, &tools, optimisation.profile())?;
            println!("{product}");
            Ok(ExitCode::SUCCESS)
        }
        Task::Run {
            agreement,
            optimisation,
            detach,
            arguments,
        } => {
            let (consent, profile) = (agreement.consent(), optimisation.profile());
            if !arguments.is_empty() {
                lab::on_this_machine(workspace, steps, consent, profile, &arguments)
            } else if detach {
                lab::up(workspace, steps, consent, profile)
            } else {
                lab::up_until_interrupted(workspace, steps, consent, profile)
            }
        }
        Task::Lab { task } => match task {
            LabTask::Up {
                agreement,
                optimisation,
            } => lab::up(
                workspace,
                steps,
                agreement.consent(),
                optimisation.profile(),
            ),
            LabTask::Down => lab::down(workspace, steps),
            LabTask::Status => lab::status(workspace, steps),
            LabTask::Exec { node, command } => lab::exec(workspace, steps, node, command),
        },
        Task::Test {
            agreement,
            kernels,
            filter,
        } => {
            let run = if kernels { kernels::run } else { suite::run };
            run(workspace, steps, agreement.consent(), filter.as_deref())
        }
        Task::Conformance { agreement, filter } => {
            conformance::run(workspace, steps, agreement.consent(), filter.as_deref())
        }
        Task::Check => check::run(workspace, steps),
        Task::Package {
            agreement,
            optimisation,
        } => package::run(
            workspace,
            steps,
            agreement.consent(),
            optimisation.profile(),
        ),
        Task::Bench {
            agreement,
            arguments,
        } => bench::run(workspace, steps, agreement.consent(), &arguments),
    }
}
