//! The lab: the estate of `config/foobar.toml` in network namespaces, with real servers.
//!
//! `client` is the internet: clients, a router, the name server of foobar.com. `lb1` has a leg there (`eth0`) and one in
//! the servers' network (`eth1`), a bridge in `foobar-lan`; `web1` to `web3` run nginx in front of gunicorn, and a database
//! each. The application has an address of its own beside each server (`app1` to `app3`), as in a container: what a
//! balancer sends back to the machine it came from must not be that machine's own address.

pub mod arena;
pub mod databases;
pub mod debian;
pub mod disks;
pub mod estate;
pub mod ledger;
pub mod nemesis;
pub mod network;
mod passing;
pub mod patience;
pub mod pki;
pub mod processes;
pub mod quantiles;
pub mod servers;
pub mod soak;
pub mod template;
pub mod trials;

use std::{
    fs::{self, File, TryLockError},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use foobar::{
    admin::{
        api::{ClusterStatus, MysqlCommand, Request, Response},
        client,
    },
    config::{self, Config},
};

use crate::{databases::Databases, disks::Disks, network::Network, processes::Processes};

/// Where the lab keeps its files while it is up.
pub const STATE: &str = "/run/foobar-lab";
/// The servers, each with a database.
pub const SERVERS: [&str; 3] = ["web1", "web2", "web3"];
/// How long servers may take to answer, and the product to find them healthy.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Options {
    pub config: PathBuf,
    /// The product, or a lab without it.
    pub foobar: Option<PathBuf>,
    pub databases: Databases,
}

/// The lab as it stands on this machine; it outlives the value.
#[derive(Debug)]
pub struct Lab {
    pub config: Config,
    foobar: Option<PathBuf>,
    databases: Databases,
    disks: Disks,
    processes: Processes,
}

impl Lab {
    /// Brings the lab up, after taking down what a crash left. `progress` hears each step.
    ///
    /// # Errors
    /// What failed; what came up until then is taken down.
    pub fn up(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::up_on(Disks::Shared, options, progress)
    }

    /// As [`Self::up`], with the databases on such disks.
    ///
    /// # Errors
    /// As [`Self::up`].
    pub fn up_on(disks: Disks, options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        let config = config::load(&options.config)
            .map_err(|errors| anyhow!("{}", errors.render(false, 120)))?;
        if Path::new(STATE).exists() {
            progress("taking down the lab that was left");
            Self::down(options.foobar.as_deref())?;
        }
        let lab = Self {
            processes: Processes::new(STATE)?,
            foobar: options.foobar.clone(),
            databases: options.databases,
            disks,
            config,
        };
        match lab.build(&options.config, progress) {
            Ok(()) => Ok(lab),
            Err(error) => {
                // The first error is the one to tell.
                let _ = Self::down(options.foobar.as_deref());
                Err(error)
            }
        }
    }

    fn build(&self, config: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
        progress("network namespaces");
        Network::new(&self.config)?.create()?;
        progress("name server");
        servers::start_names(&self.config, &self.processes)?;
        databases::write_credentials()?;
        progress("nginx and gunicorn on three servers");
        let certificates = Path::new(STATE).join("tls");
        let names: Vec<&str> = servers::of(&self.config)
            .map(|server| server.name.as_str())
            .collect();
        pki::write(&certificates, &names)?;
        fs::copy(certificates.join("ca.pem"), Path::new(STATE).join("ca.pem"))?;
        for server in servers::of(&self.config) {
            servers::start_web(server, &certificates, &self.processes)?;
        }
        for server in servers::of(&self.config) {
            self.wait(&format!("{} answers", server.name), || {
                self.succeeds(
                    &server.name,
                    &["curl", "-fsS", "-m1", "http://127.0.0.1/healthz"],
                )
            })?;
        }
        if self.foobar.is_some() {
            let text = fs::read_to_string(config)?;
            fs::write(Self::config_path(), self.databases.adapt(&text))?;
            for node in self.config.nodes.keys() {
                progress(&format!("foobar on {node}"));
                self.start_foobar(node)?;
            }
            self.wait("the service answers", || {
                self.succeeds(
                    "client",
                    &["curl", "-fsS", "-m1", "http://203.0.113.10:8080/healthz"],
                ) && self.succeeds(
                    "client",
                    &["curl", "-fsS", "-m1", "http://[2001:db8::10]:8080/healthz"],
                ) && self.succeeds(
                    "client",
                    &[
                        "curl",
                        "-fsS",
                        "-m1",
                        "--cacert",
                        "/run/foobar-lab/ca.pem",
                        "--resolve",
                        "www.foobar.com:443:203.0.113.10",
                        "https://www.foobar.com/healthz",
                    ],
                )
            })?;
            self.start_databases(progress)?;
            if self.databases != Databases::None {
                progress("roles of the databases");
                self.wait_for_databases()?;
            }
        } else {
            self.start_databases(progress)?;
        }
        Ok(())
    }

    /// After foobar: what replicas have open when a firewall comes, it does not know.
    fn start_databases(&self, progress: &mut dyn FnMut(&str)) -> Result<()> {
        if self.databases != Databases::None {
            progress("databases on three servers");
        }
        if self.disks == Disks::Own {
            for server in servers::of(&self.config) {
                disks::mount(&databases::home(&server.name))?;
            }
        }
        self.databases.start(&self.config, &self.processes)
    }

    /// The copy of the configuration that the lab's nodes read.
    #[must_use]
    pub fn config_path() -> PathBuf {
        Path::new(STATE).join("foobar.toml")
    }

    /// Takes everything down that the lab made; no lab is fine.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn down(foobar: Option<&Path>) -> Result<()> {
        disks::thaw_all(&SERVERS);
        Processes::new(STATE)?.end_all()?;
        for server in SERVERS {
            disks::release(&databases::home(server));
        }
        for node in ["lb1", network::SECOND, "web1", "web2", "web3"] {
            if let Some(foobar) = foobar {
                // A node that never had programs has nothing to detach.
                let _ = Command::new(foobar)
                    .args(["detach", "--all", "--node", node])
                    .output();
            }
        }
        network::remove()?;
        fs::remove_dir_all(STATE).with_context(|| format!("cannot remove {STATE}"))
    }

    /// Starts the product on a node; it goes on when this process ends.
    ///
    /// # Errors
    /// When there is no product, or it does not start.
    pub fn start_foobar(&self, node: &str) -> Result<()> {
        let foobar = self.foobar.as_ref().context("a lab without foobar")?;
        let mut command = in_namespace(node, foobar);
        command
            .args(["run", "--node", node, "-c"])
            .arg(Self::config_path())
            .env("FOOBAR_STATE", Path::new(STATE).join("state"))
            .env("CREDENTIALS_DIRECTORY", databases::credentials());
        self.processes
            .spawn(&format!("foobar-{node}"), &mut command)?;
        self.wait(&format!("foobar on {node} has attached"), || {
            if !self.processes.is_running(&format!("foobar-{node}")) {
                return false;
            }
            Path::new("/sys/fs/bpf/foobar")
                .join(node)
                .join("links")
                .exists()
        })
    }

    /// Makes another process the product's controller on a node, after an upgrade.
    ///
    /// # Errors
    /// When it does not run.
    pub fn adopt_foobar(&self, node: &str, pid: u32) -> Result<()> {
        self.processes.adopt(&format!("foobar-{node}"), pid)
    }

    /// Ends the product's controller on a node with a signal (`KILL`, `TERM`, `HUP`).
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal_foobar(&self, node: &str, signal: i32) -> Result<()> {
        self.processes.signal(&format!("foobar-{node}"), signal)
    }

    /// Whether a controller has the node's lock: one that was killed has it until the last of its threads has ended, which is
    /// later than that of its process id.
    #[must_use]
    pub fn is_node_locked(node: &str) -> bool {
        let lock = File::open(Path::new("/run/foobar").join(format!("{node}.lock")));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Stops a server's nginx.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop_web(&self, server: &str) -> Result<()> {
        self.processes.end(&format!("nginx-{server}"))
    }

    /// Kills a server's nginx with all its workers, in the middle of whatever it does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_web(&self, server: &str) -> Result<()> {
        self.processes.kill(&format!("nginx-{server}"))
    }

    /// Starts a server's nginx again.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_web(&self, server: &str) -> Result<()> {
        servers::start_nginx(server, &self.processes)
    }

    /// Waits until the balancer leads writes to a primary and reads to two replicas, and would replace the primary where
    /// that is its mode.
    ///
    /// # Errors
    /// When it is not so in time.
    pub fn wait_for_databases(&self) -> Result<()> {
        self.wait("the databases have their roles", || {
            self.cluster().is_some_and(|cluster| {
                let readers = cluster
                    .members
                    .iter()
                    .filter(|member| member.reads == "yes")
                    .count();
                // Of two balancers one leads, whichever it is.
                let leads = cluster.leads || self.config.nodes.contains_key(network::SECOND);
                let ready = cluster.mode != "promote" || cluster.armed && leads;
                cluster.writer.is_some() && readers == 2 && ready && cluster.operation.is_none()
            })
        })
    }

    /// The database cluster as the balancer sees it.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterStatus> {
        self.cluster_of("lb1")
    }

    /// The database cluster as a balancer sees it.
    #[must_use]
    pub fn cluster_of(&self, node: &str) -> Option<ClusterStatus> {
        let socket = self.config.admin.socket_of(node);
        match client::ask(
            &socket,
            &Request::Mysql {
                cluster: None,
                command: MysqlCommand::Status,
            },
        ) {
            Ok(Response::Clusters(clusters)) => clusters.into_iter().next(),
            _ => None,
        }
    }

    /// Has the balancer do something with the database cluster.
    ///
    /// # Errors
    /// What it says against it.
    pub fn command_cluster(&self, command: MysqlCommand) -> Result<String> {
        let socket = self.config.admin.socket_of("lb1");
        match client::ask(
            &socket,
            &Request::Mysql {
                cluster: None,
                command,
            },
        )? {
            Response::Done { message } => Ok(message),
            other => bail!("another answer: {other:?}"),
        }
    }

    /// Signals a server's database: `KILL`, `STOP`, `CONT`, `TERM`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal_database(&self, server: &str, signal: i32) -> Result<()> {
        self.processes.signal(&databases::process(server), signal)
    }

    /// Starts a server's database again after it was ended.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_database(&self, server: &str) -> Result<()> {
        self.databases.start_again(server, &self.processes)
    }

    /// Makes a server's database anew from the primary.
    ///
    /// # Errors
    /// When it does not come to follow.
    pub fn rebuild_database(&self, server: &str, primary: &str) -> Result<()> {
        self.databases.rebuild(server, primary, &self.processes)
    }

    #[must_use]
    pub fn is_database_running(&self, server: &str) -> bool {
        self.processes.is_running(&databases::process(server))
    }

    /// Runs a command in a namespace to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, namespace: &str, command: &[&str]) -> Result<Output> {
        let [program, arguments @ ..] = command else {
            bail!("no command");
        };
        in_namespace(namespace, program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {program} in {namespace}"))
    }

    /// Whether a command in a namespace ends well.
    #[must_use]
    pub fn succeeds(&self, namespace: &str, command: &[&str]) -> bool {
        self.run(namespace, command)
            .is_ok_and(|output| output.status.success())
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// When it is not so in time; tells the end of all logs.
    pub fn wait(&self, what: &str, is_so: impl FnMut() -> bool) -> Result<()> {
        self.wait_for(PATIENCE, what, is_so)
    }

    /// As [`Self::wait`], for what takes its time: a database that ends in good order, or that waits for room on its disk.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_long(&self, what: &str, is_so: impl FnMut() -> bool) -> Result<()> {
        self.wait_for(PATIENCE * 3, what, is_so)
    }

    fn wait_for(
        &self,
        patience: Duration,
        what: &str,
        mut is_so: impl FnMut() -> bool,
    ) -> Result<()> {
        let begun = Instant::now();
        while !is_so() {
            if begun.elapsed() > patience {
                bail!(
                    "not within {patience:?}: {what}\n{}",
                    self.processes.tails()
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// A command in the network of a namespace and in nothing else: `ip netns exec` would hide the machine's bpffs.
#[must_use]
pub fn in_namespace(namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("--")
        .arg(program);
    command
}

/// Takes the machine's lab for this process; tells who has it otherwise.
///
/// # Errors
/// When another process brings the lab up or down.
pub fn lock() -> Result<File> {
    let path = "/run/foobar-lab.lock";
    let file = File::create(path).with_context(|| format!("cannot write {path}; are you root?"))?;
    file.try_lock().map_err(|_| {
        anyhow!(
            "another process is at the lab (lock {path}, descriptor {}); wait for it, or end it",
            file.as_raw_fd()
        )
    })?;
    Ok(file)
}
