//! The SQL of MariaDB.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use mysql_async::Row;
use tokio::time::{self, Instant};

use super::{
    Talk,
    hand::Stage,
    standing::Standing,
    survey::Questions,
    talk::{is_on, named, quoted, seconds_until, text},
};
use crate::mysql::{
    Failure, GtidSet, Picture, ServerId,
    observation::{GaleraView, Make, Origin, Replication, SemiSync, Term},
    task::{Position, Task},
};

pub async fn picture(
    talk: &mut Talk,
    standing: &mut Standing,
    node: &str,
    until: Instant,
) -> Result<Picture, Failure> {
    let questions = [VARIABLES, CHANNELS, &own_rows(node)];
    let [rows, channels, own] = talk.answers(questions, until).await?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::Ours("no variables".to_owned()))?;
    let (is_galera, armed) = (is_on(&text(row, 6)), is_on(&text(row, 4)));
    // A component falls apart while nobody's role changes.
    if is_galera {
        standing.forget();
    }
    let role = [
        is_on(&text(row, 2)),
        armed,
        is_on(&text(row, 5)),
        channels.is_empty(),
    ];
    let status = standing.of(role, talk, STATUS, until).await?;
    let in_effect = is_on(status.value("rpl_semi_sync_master_status"));
    let count = |name: &str| status.value(name).parse().unwrap_or(0);
    let executed = set(&text(row, 3))?;
    let replication = match channels.first() {
        Some(channel) => Some(replication(channel, &executed)?),
        None => None,
    };
    let (term, beat) = term_and_beat(&own);
    let picture = Picture {
        server: ServerId(text(row, 0)),
        make: Make::Mariadb,
        version: text(row, 1),
        read_only: is_on(&text(row, 2)),
        super_read_only: false,
        offline: false,
        replication,
        term,
        beat,
        started: status.started,
        semi_sync: SemiSync {
            armed,
            in_effect,
            replicas: count("rpl_semi_sync_master_clients"),
            acknowledges: is_on(&text(row, 5)),
        },
        group: None,
        galera: is_galera.then(|| GaleraView {
            primary_component: status.value("wsrep_cluster_status") == "Primary",
            state: status.value("wsrep_local_state").parse().unwrap_or(0),
            ready: is_on(status.value("wsrep_ready")),
            cluster: status.value("wsrep_cluster_state_uuid").to_owned(),
            size: count("wsrep_cluster_size"),
        }),
        executed,
    };
    // Replicas come in a moment; that they are there must not be known a second later.
    if in_effect != armed {
        standing.forget();
    }
    Ok(picture)
}

fn replication(row: &Row, executed: &GtidSet) -> Result<Replication, Failure> {
    let column = |name: &str| named(row, name).unwrap_or_default();
    let received = set(&column("Gtid_IO_Pos"))?.plus(executed).map_err(ours)?;
    // Everything that moves when something arrives.
    let mut pulse = DefaultHasher::new();
    for name in [
        "Slave_received_heartbeats",
        "Master_Log_File",
        "Read_Master_Log_Pos",
        "Gtid_IO_Pos",
    ] {
        column(name).hash(&mut pulse);
    }
    let source = column("Master_Server_Id");
    let error = ["Last_IO_Error", "Last_SQL_Error"]
        .map(column)
        .join(" ")
        .trim()
        .to_owned();
    Ok(Replication {
        source: (!matches!(source.as_str(), "" | "0")).then_some(ServerId(source)),
        receiving: column("Slave_IO_Running") == "Yes",
        applying: column("Slave_SQL_Running") == "Yes",
        pulse: pulse.finish(),
        behind: column("Seconds_Behind_Master").parse().ok(),
        received,
        error: (!error.is_empty()).then_some(error),
    })
}

/// Asks for the newest term and this node's beat: one row, also where neither is there yet.
pub fn own_rows(node: &str) -> String {
    format!(
        "SELECT (SELECT CONCAT_WS(' ', term, server, who) FROM foobar.term ORDER BY term DESC LIMIT 1), \
         (SELECT at FROM foobar.heartbeat WHERE node = {})",
        quoted(node)
    )
}

/// Where the tables are not there, neither is either.
pub fn term_and_beat(rows: &[Row]) -> (Option<Term>, Option<u64>) {
    let Some(row) = rows.first() else {
        return (None, None);
    };
    (term(&text(row, 0)), text(row, 1).parse().ok())
}

/// `7 3 failover by lb1`: its number, the server's id, and who began it.
fn term(row: &str) -> Option<Term> {
    let mut parts = row.splitn(3, ' ');
    Some(Term {
        number: parts.next()?.parse().ok()?,
        server: ServerId(parts.next()?.to_owned()),
        origin: Origin::read(parts.next().unwrap_or_default()),
    })
}

pub async fn perform(
    talk: &mut Talk,
    task: &Task,
    stage: &Stage,
    until: Instant,
) -> Result<Position, Failure> {
    match task {
        Task::Inspect => {}
        // One that a failover before this one left without a source receives nothing.
        Task::StopReceiving if is_replica(talk, until).await? => {
            say(talk, &["STOP SLAVE IO_THREAD"], until).await?;
        }
        Task::StopReceiving => {}
        Task::StartReceiving => say(talk, &["START SLAVE IO_THREAD"], until).await?,
        Task::Apply(set) => apply(talk, set, until).await?,
        Task::BecomeSource => {
            let steps = [
                "STOP ALL SLAVES",
                "RESET SLAVE ALL",
                "SET GLOBAL rpl_semi_sync_slave_enabled = 0",
                "SET GLOBAL rpl_semi_sync_master_enabled = 1",
            ];
            say(talk, &steps, until).await?;
        }
        Task::Follow(member) => follow(talk, *member, stage, until).await?,
        Task::OpenWrites => {
            wait_for_replica(talk, CLIENTS, until).await?;
            require_armed(talk, "SELECT @@rpl_semi_sync_master_enabled", until).await?;
            say(talk, &["SET GLOBAL read_only = 0"], until).await?;
        }
        Task::CloseWrites => {
            say(
                talk,
                &[
                    "SET SESSION lock_wait_timeout = 2",
                    "SET GLOBAL read_only = 1",
                ],
                until,
            )
            .await?;
        }
        Task::BeginTerm(term, origin) => {
            let sql = format!(
                "INSERT INTO foobar.term (term, server, who) VALUES ({term}, @@server_id, {})",
                quoted(&origin.noted(&stage.who))
            );
            say(talk, &[&sql], until).await?;
        }
        Task::DisarmSource => {
            say(
                talk,
                &["SET GLOBAL rpl_semi_sync_master_enabled = 0"],
                until,
            )
            .await?
        }
    }
    position(talk, until).await
}

async fn is_replica(talk: &mut Talk, until: Instant) -> Result<bool, Failure> {
    let channels = talk.rows_here(CHANNELS, until).await?;
    Ok(!channels.is_empty())
}

async fn position(talk: &mut Talk, until: Instant) -> Result<Position, Failure> {
    let rows = talk.rows_here("SELECT @@gtid_binlog_state", until).await?;
    let executed = set(&rows.first().map(|row| text(row, 0)).unwrap_or_default())?;
    let rows = talk.rows_here(CHANNELS, until).await?;
    let received = rows
        .first()
        .and_then(|row| named(row, "Gtid_IO_Pos"))
        .unwrap_or_default();
    let received = set(&received)?.plus(&executed).map_err(ours)?;
    Ok(Position { executed, received })
}

/// In strict mode a domain's numbers only rise: the highest of each is what to wait for.
async fn apply(talk: &mut Talk, set: &GtidSet, until: Instant) -> Result<(), Failure> {
    let GtidSet::Mariadb(set) = set else {
        return Err(Failure::Ours("a GTID set of MySQL".to_owned()));
    };
    let mut highest = std::collections::BTreeMap::new();
    for ((domain, server), number) in set {
        let known = highest.entry(*domain).or_insert((*number, *server));
        *known = (*known).max((*number, *server));
    }
    let wanted: Vec<_> = highest
        .into_iter()
        .map(|(domain, (number, server))| format!("{domain}-{server}-{number}"))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    // A server that is nobody's replica waits for ever: what it has, it has.
    let is_replica = is_replica(talk, until).await?;
    if !is_replica {
        return Ok(());
    }
    let sql = format!(
        "SELECT MASTER_GTID_WAIT('{}', {:.1})",
        wanted.join(","),
        seconds_until(until)
    );
    let rows = talk.rows_here(&sql, until).await?;
    match rows.first().map(|row| text(row, 0)).as_deref() {
        Some("0") => Ok(()),
        _ => Err(Failure::Ours("not applied in time".to_owned())),
    }
}

async fn follow(
    talk: &mut Talk,
    member: usize,
    stage: &Stage,
    until: Instant,
) -> Result<(), Failure> {
    let source = stage
        .members
        .get(member)
        .ok_or_else(|| Failure::Ours("no such member".to_owned()))?;
    let is_replica = is_replica(talk, until).await?;
    let change = format!(
        "CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, MASTER_USER = {}, MASTER_PASSWORD = {}, \
         MASTER_USE_GTID = slave_pos, MASTER_HEARTBEAT_PERIOD = 0.3, MASTER_CONNECT_RETRY = 1",
        quoted(&source.ip().to_string()),
        source.port(),
        quoted(&stage.replication.user),
        quoted(&stage.replication.password)
    );
    let rows = talk.rows_here("SELECT @@read_only", until).await?;
    // To close what is closed would wait for what is being applied.
    if !rows.first().is_some_and(|row| is_on(&text(row, 0))) {
        say(talk, &["SET GLOBAL read_only = 1"], until).await?;
    }
    let mut steps = vec![
        "SET GLOBAL rpl_semi_sync_slave_enabled = 1",
        "STOP ALL SLAVES",
    ];
    if !is_replica {
        // What it wrote itself it need not be sent.
        steps.push("SET GLOBAL gtid_slave_pos = @@gtid_binlog_pos");
    }
    steps.extend([&change, "START SLAVE"]);
    say(talk, &steps, until).await?;
    if !is_replica {
        // Takes a second, and nothing waits for it.
        say(
            talk,
            &["SET GLOBAL rpl_semi_sync_master_enabled = 0"],
            until,
        )
        .await?;
    }
    Ok(())
}

/// Writes that nobody could acknowledge must not begin.
pub async fn wait_for_replica(
    talk: &mut Talk,
    clients: &str,
    until: Instant,
) -> Result<(), Failure> {
    loop {
        let rows = talk.rows_here(clients, until).await?;
        if rows
            .first()
            .is_some_and(|row| text(row, 1).parse::<u32>().is_ok_and(|count| count > 0))
        {
            return Ok(());
        }
        time::sleep(Duration::from_millis(5)).await;
        if Instant::now() + Duration::from_millis(50) > until {
            return Err(Failure::Ours("no replica came to acknowledge".to_owned()));
        }
    }
}

/// What armed it is gone where it was started again since: it would acknowledge alone (N8).
pub async fn require_armed(talk: &mut Talk, armed: &str, until: Instant) -> Result<(), Failure> {
    let rows = talk.rows_here(armed, until).await?;
    match rows.first().is_some_and(|row| is_on(&text(row, 0))) {
        true => Ok(()),
        false => Err(Failure::Ours(
            "it waits for no replica: it was started again".to_owned(),
        )),
    }
}

pub async fn say(talk: &mut Talk, statements: &[&str], until: Instant) -> Result<(), Failure> {
    for statement in statements {
        talk.rows_here(statement, until).await?;
    }
    Ok(())
}

fn set(text: &str) -> Result<GtidSet, Failure> {
    GtidSet::mariadb(text).map_err(ours)
}

fn ours(error: crate::mysql::gtid::NotAGtidSet) -> Failure {
    Failure::Ours(error.to_string())
}

const VARIABLES: &str = "SELECT @@server_id, @@version, @@read_only, @@gtid_binlog_state, \
    @@rpl_semi_sync_master_enabled, @@rpl_semi_sync_slave_enabled, @@wsrep_on";
const CHANNELS: &str = "SHOW ALL SLAVES STATUS";
const STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Uptime', 'Rpl_semi_sync_master_status', \
    'Rpl_semi_sync_master_clients', 'wsrep_cluster_status', 'wsrep_local_state', 'wsrep_ready', \
    'wsrep_cluster_state_uuid', 'wsrep_cluster_size')";
const CLIENTS: &str = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_clients'";
pub const QUESTIONS: Questions = Questions {
    status: STATUS,
    make: Make::Mariadb,
    at_start: "SELECT CASE WHEN GLOBAL_VALUE_ORIGIN = 'SQL' THEN 'unknown' WHEN GLOBAL_VALUE = 'ON' THEN 'read-only' \
        ELSE 'writable' END FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'READ_ONLY'",
    heartbeat: CHANNELS,
    heartbeat_column: "Slave_heartbeat_period",
    unbound: "SELECT DISTINCT GRANTEE FROM information_schema.USER_PRIVILEGES \
        WHERE PRIVILEGE_TYPE IN ('SUPER', 'READ_ONLY ADMIN', 'READ ONLY ADMIN') AND GRANTEE NOT LIKE '%@_localhost_' \
        AND GRANTEE NOT LIKE '_root_@%'",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_read_with_whoever_began_it() {
        let origin = Origin::FailoverByItself;
        let row = format!("7 3 {}", origin.noted("lb 1"));
        let read = term(&row).expect("a term");
        assert_eq!((read.number, read.server.0.as_str()), (7, "3"));
        assert_eq!(read.origin, origin);
        assert!(term("8 2 ").is_some());
        assert!(term("").is_none());
    }
}
