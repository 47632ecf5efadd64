//! Galera: three MariaDB nodes, state transfers by rsync, one set of writes.

use std::{
    fs::{self, File},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use foobar::config::Host;

use super::{PATIENCE, address, home, mariadb, process, schema, sql};
use crate::{in_namespace, processes::Processes, template};

/// How a node comes into the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Join {
    /// It is the first.
    Found,
    Others,
}

pub fn start(servers: &[&Host], processes: &Processes) -> Result<()> {
    let addresses = servers
        .iter()
        .map(|server| Ok(address(server)?.to_string()))
        .collect::<Result<Vec<_>>>()?;
    // The script of the transfers asks for the machine's own name, over and over.
    let machine = fs::read_to_string("/proc/sys/kernel/hostname")?;
    for server in servers {
        let settings = SETTINGS
            .replace("{members}", &addresses.join(","))
            .replace("{name}", &server.name)
            .replace("{address}", &address(server)?.to_string());
        mariadb::prepare(server, &settings)?;
        let names: String = servers
            .iter()
            .zip(&addresses)
            .map(|(other, address)| format!("{address} {}\n", other.name))
            .collect();
        fs::write(
            home(&server.name).join("hosts"),
            format!("127.0.0.1 localhost {}\n{names}", machine.trim()),
        )?;
    }
    let [first, others @ ..] = servers else {
        bail!("no servers");
    };
    bring_up(&first.name, processes, Join::Found, ("SELECT 1", "1"))?;
    sql(&first.name, &schema())?;
    // One after the other: a donor serves one state transfer at a time.
    for (server, size) in others.iter().zip(2..) {
        let ready = format!("{size} Synced ON");
        bring_up(&server.name, processes, Join::Others, (READY, &ready))?;
    }
    Ok(())
}

/// Starts a node until a query has its answer; again where it gives up, as a unit would: it ends when it does not find the
/// others in time.
pub fn bring_up(
    server: &str,
    processes: &Processes,
    join: Join,
    (query, wanted): (&str, &str),
) -> Result<()> {
    let name = process(server);
    for _ in 0..ATTEMPTS {
        spawn(server, processes, join)?;
        let begun = Instant::now();
        while processes.is_running(&name) {
            ensure!(
                begun.elapsed() < PATIENCE * 2,
                "{server} does not come to be ready"
            );
            if sql(server, query).is_ok_and(|found| found == wanted) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    let log = fs::read_to_string(home(server).join("error.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    bail!(
        "{server} ended {ATTEMPTS} times before it was ready\n{}",
        lines[lines.len().saturating_sub(15)..].join("\n")
    )
}

fn spawn(server: &str, processes: &Processes, join: Join) -> Result<()> {
    let mut command = in_namespace(server, "unshare");
    // Not root: the daemon of rsync would drop to nobody, and not reach the files. The daemon also asks for its clients'
    // names, ten seconds for each where nobody answers.
    command
        .args(["--mount", "--propagation=private", "sh", "-euc"])
        .arg("mount --bind \"$1\" /etc/hosts; shift; exec setpriv --reuid=mysql --regid=mysql --clear-groups \"$@\"")
        .arg("sh")
        .arg(home(server).join("hosts"))
        .arg("mariadbd")
        .arg(format!(
            "--defaults-file={}",
            home(server).join("my.cnf").display()
        ));
    if matches!(join, Join::Found) {
        command.arg("--wsrep-new-cluster");
    }
    File::create(home(server).join("error.log")).map(drop)?;
    template::run(
        Command::new("chown")
            .arg("mysql:")
            .arg(home(server).join("error.log")),
    )?;
    processes.spawn(&process(server), &mut command)
}

const ATTEMPTS: u32 = 4;
const READY: &str = "SELECT CONCAT_WS(' ', \
    (SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_cluster_size'), \
    (SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_local_state_comment'), \
    (SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_ready'))";

/// Time-outs shorter than Galera's own, which are 5 s and 15 s, and longer than a busy machine keeps a thread waiting.
const SETTINGS: &str = "\
wsrep-on = ON
wsrep-provider = /usr/lib/galera/libgalera_smm.so
wsrep-cluster-name = foobar-lab
wsrep-cluster-address = gcomm://{members}
wsrep-node-name = {name}
wsrep-node-address = {address}
wsrep-sst-method = rsync
innodb-autoinc-lock-mode = 2
wsrep-provider-options = \"gcache.size=32M;evs.keepalive_period=PT0.5S;evs.suspect_timeout=PT3S;\
evs.inactive_timeout=PT6S;evs.inactive_check_period=PT0.5S;evs.install_timeout=PT5S;pc.wait_prim_timeout=PT60S\"
";
