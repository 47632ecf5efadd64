//! MySQL 9.7, unpacked privately from Debian sid: replication with GTID and semi-synchronous acknowledgements, or a group.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use foobar::config::Host;

use super::{
    ADMIN, APPLICATION, MONITOR, PATIENCE, REPLICATION, SHOP, address, home, process, schema,
    server_id, sql, wait_for, wait_until,
};
use crate::{debian, in_namespace, processes::Processes, template};

/// Why there is no MySQL here: it is in no stable Debian, and a mirror may not be at hand.
pub fn missing() -> Option<String> {
    root().err().map(|error| format!("{error:#}"))
}

pub fn start_replication(servers: &[&Host], processes: &Processes) -> Result<()> {
    start(servers, processes, REPLICATED)?;
    let [primary, replicas @ ..] = servers else {
        bail!("no servers");
    };
    sql(
        &primary.name,
        "SET GLOBAL super_read_only = 0; SET GLOBAL read_only = 0; SET GLOBAL rpl_semi_sync_replica_enabled = 0",
    )?;
    sql(&primary.name, &(accounts() + &schema()))?;
    for replica in replicas {
        follow(&replica.name, &address(primary)?.to_string())?;
        wait_until(&replica.name, SHOP, "2")?;
    }
    sql(&primary.name, "SET GLOBAL rpl_semi_sync_source_enabled = 1").map(drop)
}

fn follow(replica: &str, primary: &str) -> Result<()> {
    let text = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='{primary}', SOURCE_USER='{}', SOURCE_PASSWORD='{}', \
         SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400, \
         SOURCE_HEARTBEAT_PERIOD=0.3; START REPLICA",
        REPLICATION.0, REPLICATION.1
    );
    sql(replica, &text).map(drop)
}

/// By CLONE, which ends the server when it has all files. Whom it follows then is for foobar to say.
pub fn rebuild(server: &str, primary: &str, processes: &Processes) -> Result<()> {
    let donor = format!("10.0.0.{}", server_id(primary));
    let (user, password) = REPLICATION;
    // It says that nobody restarts it, as an error.
    let _ = sql(
        server,
        &format!(
            "STOP REPLICA; SET GLOBAL super_read_only = 0; SET GLOBAL clone_valid_donor_list = '{donor}:3306'; \
             CLONE INSTANCE FROM {user}@'{donor}':3306 IDENTIFIED BY '{password}'"
        ),
    );
    let name = process(server);
    let begun = Instant::now();
    while processes.is_running(&name) {
        ensure!(
            begun.elapsed() < PATIENCE,
            "{server} does not clone {primary}"
        );
        thread::sleep(Duration::from_millis(50));
    }
    spawn(server, processes)?;
    wait_for(server)
}

pub fn start_group(servers: &[&Host], processes: &Processes) -> Result<()> {
    let seeds = servers
        .iter()
        .map(|server| Ok(format!("{}:33061", address(server)?)))
        .collect::<Result<Vec<_>>>()?
        .join(",");
    start(servers, processes, &GROUP.replace("{seeds}", &seeds))?;
    let [first, others @ ..] = servers else {
        bail!("no servers");
    };
    for server in servers {
        sql(
            &server.name,
            &format!(
                "SET GLOBAL super_read_only = 0; SET GLOBAL read_only = 0; SET sql_log_bin = 0; {} \
                 SET sql_log_bin = 1; RESET BINARY LOGS AND GTIDS; \
                 CHANGE REPLICATION SOURCE TO SOURCE_USER='{}', SOURCE_PASSWORD='{}' \
                 FOR CHANNEL 'group_replication_recovery'",
                accounts(),
                REPLICATION.0,
                REPLICATION.1
            ),
        )?;
    }
    sql(
        &first.name,
        "SET GLOBAL group_replication_bootstrap_group = ON; START GROUP_REPLICATION; \
         SET GLOBAL group_replication_bootstrap_group = OFF",
    )?;
    sql(&first.name, &schema())?;
    for server in others {
        sql(&server.name, "START GROUP_REPLICATION")?;
    }
    for server in servers {
        wait_until(&server.name, ONLINE, "3")?;
        wait_until(&server.name, SHOP, "2")?;
    }
    Ok(())
}

fn start(servers: &[&Host], processes: &Processes, more: &str) -> Result<()> {
    for server in servers {
        prepare(server, more)?;
        spawn(&server.name, processes)?;
    }
    servers.iter().try_for_each(|server| wait_for(&server.name))
}

pub fn spawn(server: &str, processes: &Processes) -> Result<()> {
    let mut command = in_namespace(server, loader()?);
    command
        .arg("--library-path")
        .arg(root()?.join("usr/lib/x86_64-linux-gnu"))
        .arg(root()?.join("usr/sbin/mysqld"))
        .arg(format!(
            "--defaults-file={}",
            home(server).join("my.cnf").display()
        ));
    processes.spawn(&process(server), &mut command)
}

fn prepare(server: &Host, more: &str) -> Result<()> {
    let home = home(&server.name);
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    template::copy(&datadir()?, &home.join("data"))?;
    let text = (COMMON.to_owned() + more)
        .replace("{home}", &home.display().to_string())
        .replace("{root}", &root()?.display().to_string())
        .replace("{id}", &server_id(&server.name))
        .replace("{address}", &address(server)?.to_string());
    fs::write(home.join("my.cnf"), text)?;
    Ok(())
}

fn datadir() -> Result<PathBuf> {
    template::cached("mysql-9.7-data", |directory| {
        let root = root()?;
        template::run(
            Command::new(loader()?)
                .arg("--library-path")
                .arg(root.join("usr/lib/x86_64-linux-gnu"))
                .arg(root.join("usr/sbin/mysqld"))
                .args(["--no-defaults", "--initialize-insecure", "--user=root"])
                .arg("--innodb-redo-log-capacity=8M")
                .arg(format!("--basedir={}", root.join("usr").display()))
                .arg(format!("--datadir={}", directory.display()))
                .arg(format!(
                    "--lc-messages-dir={}",
                    root.join("usr/share/mysql").display()
                )),
        )?;
        // With it every copy would be the same server.
        fs::remove_file(directory.join("auto.cnf")).context("no auto.cnf")
    })
}

/// Its own loader: the libraries of this machine are older than it wants.
fn loader() -> Result<PathBuf> {
    Ok(root()?.join("usr/lib64/ld-linux-x86-64.so.2"))
}

fn root() -> Result<&'static Path> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        debian::unpacked("mysql-9.7", "sid", &["mysql-server-core"])
            .map_err(|error| format!("{error:#}"))
    });
    match root {
        Ok(root) => Ok(root),
        Err(error) => bail!("no MySQL 9.7 from Debian sid: {error}"),
    }
}

fn accounts() -> String {
    let mut text = String::new();
    for ((user, password), grants) in [
        (
            MONITOR,
            "REPLICATION CLIENT, PROCESS, SERVICE_CONNECTION_ADMIN, CONNECTION_ADMIN ON *.*;SELECT ON performance_schema.*;SELECT, INSERT, UPDATE ON foobar.*",
        ),
        (
            ADMIN,
            "REPLICATION CLIENT, PROCESS, RELOAD, SERVICE_CONNECTION_ADMIN, CONNECTION_ADMIN, REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN ON *.*;SELECT ON performance_schema.*;SELECT, INSERT, UPDATE ON foobar.*",
        ),
        (
            REPLICATION,
            "REPLICATION SLAVE, BACKUP_ADMIN, CONNECTION_ADMIN, GROUP_REPLICATION_STREAM ON *.*",
        ),
        (
            APPLICATION,
            "SELECT, INSERT, UPDATE, DELETE ON shop.*;SELECT ON foobar.*",
        ),
    ] {
        // Whoever logged in before the rights came would not have them.
        text += &format!("CREATE USER {user}@'%' IDENTIFIED BY '{password}' ACCOUNT LOCK;\n");
        for grant in grants.split(';') {
            text += &format!("GRANT {grant} TO {user}@'%';\n");
        }
        text += &format!("ALTER USER {user}@'%' ACCOUNT UNLOCK;\n");
    }
    text
}

const ONLINE: &str = "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'";

const COMMON: &str = "\
[mysqld]
user = root
basedir = {root}/usr
datadir = {home}/data
plugin_dir = {root}/usr/lib/mysql/plugin
lc_messages_dir = {root}/usr/share/mysql
socket = {home}/socket
pid_file = {home}/pid
log_error = {home}/error.log
tmpdir = {home}
port = 3306
server_id = {id}
report_host = {address}
admin_address = {address}
admin_port = 3308
skip_name_resolve = ON
secure_file_priv = NULL
mysqlx = 0
gtid_mode = ON
enforce_gtid_consistency = ON
log_bin = bin
log_replica_updates = ON
sync_binlog = 1
innodb_flush_log_at_trx_commit = 1
relay_log_recovery = ON
replica_net_timeout = 4
innodb_buffer_pool_size = 64M
innodb_redo_log_capacity = 8M
innodb_use_native_aio = 0
key_buffer_size = 1M
table_open_cache = 200
max_connections = 1200
performance_schema_max_table_instances = 200
performance_schema_max_thread_instances = 200
performance_schema_events_statements_history_long_size = 10
performance_schema_digests_size = 10
";

const REPLICATED: &str = "\
super_read_only = ON
plugin_load_add = mysql_clone.so
plugin_load_add = semisync_source.so
plugin_load_add = semisync_replica.so
rpl_semi_sync_replica_enabled = 1
rpl_semi_sync_source_enabled = 0
rpl_semi_sync_source_wait_point = AFTER_SYNC
rpl_semi_sync_source_timeout = 3600000
";

const GROUP: &str = "\
plugin_load_add = group_replication.so
group_replication_group_name = 5ca1ab1e-0000-4000-8000-00000000f00b
group_replication_start_on_boot = OFF
group_replication_local_address = {address}:33061
group_replication_group_seeds = {seeds}
group_replication_recovery_get_public_key = ON
group_replication_consistency = BEFORE_ON_PRIMARY_FAILOVER
group_replication_member_expel_timeout = 0
";
