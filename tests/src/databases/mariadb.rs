//! MariaDB: a primary and two replicas, GTID, semi-synchronous with AFTER_SYNC.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use foobar::config::Host;

use super::{
    ADMIN, APPLICATION, MONITOR, REPLICATION, SHOP, address, home, process, schema, server_id, sql,
    wait_for, wait_until,
};
use crate::{in_namespace, processes::Processes, template};

pub fn start(servers: &[&Host], processes: &Processes) -> Result<()> {
    for server in servers {
        prepare(server, REPLICATED)?;
        spawn(&server.name, processes)?;
    }
    for server in servers {
        wait_for(&server.name)?;
    }
    let [primary, replicas @ ..] = servers else {
        bail!("no servers");
    };
    sql(&primary.name, "SET GLOBAL read_only = 0")?;
    sql(&primary.name, &schema())?;
    for replica in replicas {
        sql(
            &replica.name,
            &format!(
                "CHANGE MASTER TO MASTER_HOST='{}', MASTER_USER='{}', MASTER_PASSWORD='{}', \
                 MASTER_USE_GTID=slave_pos, MASTER_HEARTBEAT_PERIOD=0.3, MASTER_CONNECT_RETRY=1; START SLAVE",
                address(primary)?,
                REPLICATION.0,
                REPLICATION.1
            ),
        )?;
    }
    // Armed before a replica is there, the next commit would wait for one.
    wait_until(
        &primary.name,
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND = 'Binlog Dump'",
        &replicas.len().to_string(),
    )?;
    sql(&primary.name, "SET GLOBAL rpl_semi_sync_master_enabled = 1")?;
    for replica in replicas {
        wait_until(&replica.name, SHOP, "2")?;
    }
    Ok(())
}

pub fn spawn(server: &str, processes: &Processes) -> Result<()> {
    let mut command = in_namespace(server, "mariadbd");
    command.arg(format!(
        "--defaults-file={}",
        home(server).join("my.cnf").display()
    ));
    processes.spawn(&process(server), &mut command)
}

/// Fresh files for one server.
pub fn prepare(server: &Host, more: &str) -> Result<()> {
    let home = home(&server.name);
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    template::copy(&datadir()?, &home.join("data"))?;
    let text = COMMON
        .replace("{home}", &home.display().to_string())
        .replace("{id}", &server_id(&server.name))
        .replace("{address}", &address(server)?.to_string());
    fs::write(home.join("my.cnf"), text + more)?;
    template::run(Command::new("chown").arg("-R").arg("mysql:").arg(&home))
}

fn datadir() -> Result<PathBuf> {
    let version = Command::new("mariadbd")
        .arg("--version")
        .output()
        .context("cannot start mariadbd; `cargo xtask setup` installs it")?;
    let recipe = String::from_utf8_lossy(&version.stdout).into_owned() + &accounts();
    template::cached(&template::named("mariadb", &recipe), make)
}

fn make(directory: &Path) -> Result<()> {
    let datadir = format!("--datadir={}", directory.display());
    // The server's own user need not reach the cache; the files are given to it with each copy.
    template::run(Command::new("mariadb-install-db").args([
        "--no-defaults",
        "--user=root",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
        LOG_SIZE,
        &datadir,
    ]))?;
    let mut bootstrap = Command::new("mariadbd")
        .args([
            "--no-defaults",
            "--user=root",
            "--bootstrap",
            LOG_SIZE,
            &datadir,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start mariadbd")?;
    let mut input = bootstrap.stdin.take().context("no standard input")?;
    input.write_all(accounts().as_bytes())?;
    drop(input);
    if !bootstrap.wait()?.success() {
        bail!("mariadbd --bootstrap did not take the accounts");
    }
    Ok(())
}

/// One statement a line: that is how a bootstrap reads.
fn accounts() -> String {
    let mut text = String::from("FLUSH PRIVILEGES;\n");
    for ((user, password), grants) in [
        (MONITOR, MONITOR_GRANTS),
        (ADMIN, ADMIN_GRANTS),
        (REPLICATION, "REPLICATION SLAVE ON *.*"),
        (
            APPLICATION,
            "SELECT, INSERT, UPDATE, DELETE ON shop.*;SELECT ON foobar.*",
        ),
    ] {
        text += &format!("CREATE USER {user}@'%' IDENTIFIED BY '{password}';\n");
        for grant in grants.split(';') {
            text += &format!("GRANT {grant} TO {user}@'%';\n");
        }
    }
    text
}

const MONITOR_GRANTS: &str = "BINLOG MONITOR, SLAVE MONITOR, CONNECTION ADMIN, PROCESS ON *.*;\
                              SELECT, INSERT, UPDATE ON foobar.*;SELECT ON mysql.gtid_slave_pos";
const ADMIN_GRANTS: &str = "BINLOG MONITOR, SLAVE MONITOR, CONNECTION ADMIN, PROCESS, RELOAD, READ_ONLY ADMIN, \
                            REPLICATION MASTER ADMIN, REPLICATION SLAVE ADMIN ON *.*;\
                            SELECT, INSERT, UPDATE ON foobar.*";
const LOG_SIZE: &str = "--innodb-log-file-size=8M";

const COMMON: &str = "\
[mariadbd]
user = mysql
datadir = {home}/data
socket = {home}/socket
pid-file = {home}/pid
log-error = {home}/error.log
tmpdir = {home}
port = 3306
extra-port = 3308
extra-max-connections = 16
server-id = {id}
report-host = {address}
skip-name-resolve
innodb-buffer-pool-size = 32M
innodb-log-file-size = 8M
innodb-flush-log-at-trx-commit = 3
sync-binlog = 1
log-bin = bin
log-slave-updates
binlog-format = ROW
performance-schema = 0
key-buffer-size = 1M
aria-pagecache-buffer-size = 1M
max-connections = 1200
table-open-cache = 200
";

/// `init-rpl-role`: after a crash, what no replica had acknowledged is cut off rather than committed.
const REPLICATED: &str = "\
read-only = 1
gtid-strict-mode = 1
init-rpl-role = SLAVE
slave-net-timeout = 4
relay-log-recovery = 1
rpl-semi-sync-slave-enabled = 1
rpl-semi-sync-slave-kill-conn-timeout = 1
rpl-semi-sync-master-wait-point = AFTER_SYNC
rpl-semi-sync-master-timeout = 3600000
";
