//! The lab's databases: which set-up there is, and what a test does to its servers.

mod galera;
mod mariadb;
mod mysql;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use foobar::config::{Config, Host};

use crate::{STATE, in_namespace, processes::Processes, servers, template};

/// Which databases the servers of the lab run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Databases {
    None,
    /// A primary and two replicas: GTID, semi-synchronous.
    #[default]
    Mariadb,
    /// Three nodes that certify each other's writes.
    Galera,
    /// MySQL 9.7: a primary and two replicas, GTID, semi-synchronous.
    Mysql,
    /// MySQL 9.7: three nodes in single-primary mode.
    GroupReplication,
}

/// Names and passwords of the lab's accounts.
pub const MONITOR: (&str, &str) = ("foobar_monitor", "lab-monitor");
pub const ADMIN: (&str, &str) = ("foobar_admin", "lab-admin");
pub const REPLICATION: (&str, &str) = ("foobar_replication", "lab-replication");
pub const APPLICATION: (&str, &str) = ("app", "lab-app");

impl Databases {
    /// Starts them; on return the first server takes writes and the others follow it.
    ///
    /// # Errors
    /// When a server cannot be started or does not come into service.
    pub fn start(self, config: &Config, processes: &Processes) -> Result<()> {
        let servers: Vec<&Host> = servers::of(config).collect();
        match self {
            Self::None => Ok(()),
            Self::Mariadb => mariadb::start(&servers, processes),
            Self::Galera => galera::start(&servers, processes),
            Self::Mysql => mysql::start_replication(&servers, processes),
            Self::GroupReplication => mysql::start_group(&servers, processes),
        }
    }

    /// The configuration for this set-up: who decides among the databases is what is decided with.
    #[must_use]
    pub fn adapt(self, config: &str) -> String {
        match self {
            Self::None | Self::Mariadb | Self::Mysql => config.to_owned(),
            Self::Galera | Self::GroupReplication => config
                .lines()
                .filter(|line| !OF_PROMOTE.iter().any(|key| line.starts_with(key)))
                .map(|line| line.replace("mode = \"promote\"", "mode = \"consensus\"") + "\n")
                .collect(),
        }
    }

    /// Why it cannot be had on this machine, if so.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Mysql | Self::GroupReplication => mysql::missing(),
            Self::None | Self::Mariadb | Self::Galera => None,
        }
    }

    /// Starts one server again after a test ended it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(self, server: &str, processes: &Processes) -> Result<()> {
        match self {
            Self::None => bail!("this lab has no databases"),
            Self::Mariadb => mariadb::spawn(server, processes),
            Self::Galera => {
                galera::bring_up(server, processes, galera::Join::Others, ("SELECT 1", "1"))
            }
            Self::Mysql | Self::GroupReplication => mysql::spawn(server, processes),
        }?;
        wait_for(server)
    }
}

impl Databases {
    /// Makes a replica anew from the primary, as an operator does with one that has what nobody acknowledged.
    ///
    /// # Errors
    /// When it does not come to follow, or this set-up never needs it.
    pub fn rebuild(self, server: &str, primary: &str, processes: &Processes) -> Result<()> {
        match self {
            Self::Mysql => mysql::rebuild(server, primary, processes),
            _ => bail!("{server} is to be rebuilt, and this set-up never comes to that"),
        }
    }
}

/// Where foobar finds the passwords, as systemd would give them.
#[must_use]
pub fn credentials() -> PathBuf {
    Path::new(STATE).join("credentials")
}

pub(crate) fn write_credentials() -> Result<()> {
    let directory = credentials();
    fs::create_dir_all(&directory)?;
    for (name, secret) in [
        ("mysql-monitor", MONITOR.1),
        ("mysql-admin", ADMIN.1),
        ("mysql-replication", REPLICATION.1),
    ] {
        fs::write(directory.join(name), secret)?;
    }
    Ok(())
}

/// The name of a server's database among the lab's processes.
#[must_use]
pub fn process(server: &str) -> String {
    format!("database-{server}")
}

/// Where a server's database keeps its files.
#[must_use]
pub fn home(server: &str) -> PathBuf {
    Path::new(STATE).join(format!("database-{server}"))
}

/// Runs SQL as root through the server's own socket: what it answered, tab-separated without headings.
///
/// # Errors
/// What the server said.
pub fn sql(server: &str, text: &str) -> Result<String> {
    let output = client(server)
        .args(["--batch", "--skip-column-names", "--execute", text])
        .stdin(Stdio::null())
        .output()
        .context("cannot start the client mariadb")?;
    if !output.status.success() {
        bail!(
            "{server}: {text}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs SQL as the account that moves roles, by the port that has connections of its own.
///
/// # Errors
/// What the server said.
pub fn administer(server: &str, text: &str) -> Result<()> {
    let mut command = in_namespace(server, "timeout");
    command
        .args(["15", "mariadb", "--no-defaults", "--connect-timeout=3"])
        .arg(format!("--host=10.0.0.{}", server_id(server)))
        .args(["--port=3308", &format!("--user={}", ADMIN.0)])
        .arg(format!("--password={}", ADMIN.1))
        .args(["--execute", text]);
    template::run(&mut command).with_context(|| format!("{server}: {text}"))
}

fn client(server: &str) -> Command {
    let mut command = in_namespace(server, "timeout");
    command
        .args(["15", "mariadb", "--no-defaults", "--user=root"])
        .arg("--connect-timeout=3")
        .arg(format!(
            "--socket={}",
            home(server).join("socket").display()
        ));
    command
}

/// Waits until a server answers.
fn wait_for(server: &str) -> Result<()> {
    wait_until(server, "SELECT 1", "1")
}

/// Waits until a query answers as wanted.
fn wait_until(server: &str, query: &str, wanted: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let found = sql(server, query);
        if found.as_deref().is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let log = fs::read_to_string(home(server).join("error.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            bail!(
                "{server}: `{query}` is not `{wanted}` within {PATIENCE:?} but {found:?}\n{}",
                lines[lines.len().saturating_sub(15)..].join("\n")
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The address that the others know a server by.
fn address(server: &Host) -> Result<Ipv4Addr> {
    server
        .private
        .v4
        .with_context(|| format!("{} has no private IPv4 address", server.name))
}

/// `11` for `web1`.
fn server_id(server: &str) -> String {
    format!(
        "1{}",
        server.trim_start_matches(|letter: char| !letter.is_ascii_digit())
    )
}

/// The tables of foobar's own and of the application, as the primary gets them.
fn schema() -> String {
    format!(
        "{}\n\
         CREATE DATABASE shop;\n\
         CREATE TABLE shop.orders (id BIGINT UNSIGNED PRIMARY KEY, writer INT UNSIGNED NOT NULL, term BIGINT UNSIGNED \
         NOT NULL) ENGINE=InnoDB;\n\
         CREATE TABLE shop.visits (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, who VARCHAR(40) NOT NULL) \
         ENGINE=InnoDB;\n",
        foobar::mysql::preflight::SCHEMA
    )
}

/// Lines of `[mysql.app]` that only `mode = "promote"` may have.
const OF_PROMOTE: [&str; 5] = [
    "admin = ",
    "replication = ",
    "on-write-stall = ",
    "rejoin = ",
    "cool-down = ",
];
/// How many of the application's tables have arrived.
const SHOP: &str = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'shop'";
const PATIENCE: Duration = Duration::from_secs(60);
