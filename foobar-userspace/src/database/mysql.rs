//! The SQL of MySQL 8.4 and later.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use mysql_async::Row;
use tokio::time::Instant;

use super::{
    Talk,
    hand::Stage,
    mariadb::{own_rows, require_armed, say, term_and_beat, wait_for_replica},
    standing::Standing,
    survey::Questions,
    talk::{is_on, named, quoted, seconds_until, text},
};
use crate::mysql::{
    Failure, GtidSet, Picture, ServerId,
    observation::{GroupView, Make, Replication, SemiSync},
    task::{Position, Task},
};

pub async fn picture(
    talk: &mut Talk,
    standing: &mut Standing,
    node: &str,
    until: Instant,
) -> Result<Picture, Failure> {
    let questions = [VARIABLES, GROUP, CHANNELS, HEARTBEATS, &own_rows(node)];
    let [rows, group, channels, heartbeats, own] = talk.answers(questions, until).await?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::Ours("no variables".to_owned()))?;
    let server = ServerId(text(row, 0));
    let executed = set(&text(row, 5))?;
    let group = view(&group, &server);
    let replication = match channels.first().filter(|_| group.is_none()) {
        Some(channel) => Some(replication(channel, &heartbeats, &executed)?),
        None => None,
    };
    let (term, beat) = term_and_beat(&own);
    let (read_only, super_read_only) = (is_on(&text(row, 2)), is_on(&text(row, 3)));
    let role = [
        read_only,
        super_read_only,
        channels.is_empty(),
        group.is_some(),
    ];
    let status = standing.of(role, talk, MORE, until).await?;
    let armed = is_on(status.value("rpl_semi_sync_source_enabled"));
    let in_effect = is_on(status.value("Rpl_semi_sync_source_status"));
    let picture = Picture {
        make: Make::Mysql,
        version: text(row, 1),
        read_only,
        super_read_only,
        offline: is_on(&text(row, 4)),
        replication,
        term,
        beat,
        started: status.started,
        semi_sync: SemiSync {
            armed,
            in_effect,
            replicas: status
                .value("Rpl_semi_sync_source_clients")
                .parse()
                .unwrap_or(0),
            acknowledges: is_on(status.value("rpl_semi_sync_replica_enabled")),
        },
        group,
        galera: None,
        server,
        executed,
    };
    // Replicas come in a moment; that they are there must not be known a second later.
    if in_effect != armed {
        standing.forget();
    }
    Ok(picture)
}

/// The group as this member sees it; a group of which it was expelled shows itself alone, and OFFLINE or ERROR.
fn view(rows: &[Row], server: &ServerId) -> Option<GroupView> {
    let own = rows.iter().find(|row| text(row, 0) == server.0)?;
    let state = |row: &Row| text(row, 1);
    let reachable = |row: &&Row| matches!(state(row).as_str(), "ONLINE" | "RECOVERING");
    Some(GroupView {
        online: state(own) == "ONLINE",
        primary: text(own, 2) == "PRIMARY",
        of_primary: rows
            .iter()
            .find(|row| text(row, 2) == "PRIMARY")
            .map(|row| ServerId(text(row, 0))),
        reachable: rows.iter().filter(reachable).count(),
        members: rows.len(),
    })
}

fn replication(row: &Row, heartbeats: &[Row], executed: &GtidSet) -> Result<Replication, Failure> {
    let column = |name: &str| named(row, name).unwrap_or_default();
    let received = set(&column("Retrieved_Gtid_Set"))?
        .plus(executed)
        .map_err(ours)?;
    let mut pulse = DefaultHasher::new();
    heartbeats.first().map(|row| text(row, 0)).hash(&mut pulse);
    for name in [
        "Source_Log_File",
        "Read_Source_Log_Pos",
        "Retrieved_Gtid_Set",
    ] {
        column(name).hash(&mut pulse);
    }
    let source = column("Source_UUID");
    let error = ["Last_IO_Error", "Last_SQL_Error"]
        .map(column)
        .join(" ")
        .trim()
        .to_owned();
    Ok(Replication {
        source: (!source.is_empty()).then_some(ServerId(source)),
        receiving: column("Replica_IO_Running") == "Yes",
        applying: column("Replica_SQL_Running") == "Yes",
        pulse: pulse.finish(),
        behind: column("Seconds_Behind_Source").parse().ok(),
        received,
        error: (!error.is_empty()).then_some(error),
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
            say(talk, &["STOP REPLICA IO_THREAD"], until).await?;
        }
        Task::StopReceiving => {}
        Task::StartReceiving => say(talk, &["START REPLICA IO_THREAD"], until).await?,
        Task::Apply(set) => apply(talk, set, until).await?,
        Task::BecomeSource => {
            let steps = [
                "STOP REPLICA",
                "RESET REPLICA ALL",
                "SET GLOBAL rpl_semi_sync_replica_enabled = 0",
                "SET GLOBAL rpl_semi_sync_source_enabled = 1",
            ];
            say(talk, &steps, until).await?;
        }
        Task::Follow(member) => follow(talk, *member, stage, until).await?,
        Task::OpenWrites => {
            wait_for_replica(talk, CLIENTS, until).await?;
            require_armed(talk, "SELECT @@rpl_semi_sync_source_enabled", until).await?;
            say(
                talk,
                &["SET GLOBAL super_read_only = 0", "SET GLOBAL read_only = 0"],
                until,
            )
            .await?;
        }
        Task::CloseWrites => {
            let steps = [
                "SET SESSION lock_wait_timeout = 2",
                "SET GLOBAL super_read_only = 1",
            ];
            say(talk, &steps, until).await?;
        }
        Task::BeginTerm(term, origin) => {
            let sql = format!(
                "INSERT INTO foobar.term (term, server, who) VALUES ({term}, @@server_uuid, {})",
                quoted(&origin.noted(&stage.who))
            );
            say(talk, &[&sql], until).await?;
        }
        Task::DisarmSource => {
            say(
                talk,
                &["SET GLOBAL rpl_semi_sync_source_enabled = 0"],
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
    let rows = talk.rows_here("SELECT @@gtid_executed", until).await?;
    let executed = set(&rows.first().map(|row| text(row, 0)).unwrap_or_default())?;
    let rows = talk.rows_here(CHANNELS, until).await?;
    let received = rows
        .first()
        .and_then(|row| named(row, "Retrieved_Gtid_Set"))
        .unwrap_or_default();
    let received = set(&received)?.plus(&executed).map_err(ours)?;
    Ok(Position { executed, received })
}

async fn apply(talk: &mut Talk, set: &GtidSet, until: Instant) -> Result<(), Failure> {
    if set.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT WAIT_FOR_EXECUTED_GTID_SET('{set}', {:.1})",
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
    let was_replica = is_replica(talk, until).await?;
    let change = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = {}, SOURCE_PORT = {}, SOURCE_USER = {}, SOURCE_PASSWORD = {}, \
         SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 86400, \
         SOURCE_HEARTBEAT_PERIOD = 0.3",
        quoted(&source.ip().to_string()),
        source.port(),
        quoted(&stage.replication.user),
        quoted(&stage.replication.password)
    );
    let steps = [
        "SET GLOBAL super_read_only = 1",
        "SET GLOBAL rpl_semi_sync_replica_enabled = 1",
        "STOP REPLICA",
        &change,
        "START REPLICA",
    ];
    say(talk, &steps, until).await?;
    if !was_replica {
        // Takes a second, and nothing waits for it.
        say(
            talk,
            &["SET GLOBAL rpl_semi_sync_source_enabled = 0"],
            until,
        )
        .await?;
    }
    Ok(())
}

fn set(text: &str) -> Result<GtidSet, Failure> {
    GtidSet::mysql(text).map_err(ours)
}

fn ours(error: crate::mysql::gtid::NotAGtidSet) -> Failure {
    Failure::Ours(error.to_string())
}

const VARIABLES: &str = "SELECT @@server_uuid, @@version, @@read_only, @@super_read_only, @@offline_mode, @@gtid_executed";
/// Semi-sync is a plugin: without it some are not there.
const MORE: &str = "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.global_variables \
    WHERE VARIABLE_NAME IN ('rpl_semi_sync_source_enabled', 'rpl_semi_sync_replica_enabled') \
    UNION ALL SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.global_status \
    WHERE VARIABLE_NAME IN ('Uptime', 'Rpl_semi_sync_source_status', 'Rpl_semi_sync_source_clients')";
const CHANNELS: &str = "SHOW REPLICA STATUS";
const GROUP: &str =
    "SELECT MEMBER_ID, MEMBER_STATE, MEMBER_ROLE FROM performance_schema.replication_group_members";
const HEARTBEATS: &str = "SELECT COUNT_RECEIVED_HEARTBEATS FROM performance_schema.replication_connection_status \
    WHERE CHANNEL_NAME = ''";
const CLIENTS: &str = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_clients'";
pub const QUESTIONS: Questions = Questions {
    status: MORE,
    make: Make::Mysql,
    at_start: "SELECT CASE WHEN EXISTS (SELECT 1 FROM performance_schema.persisted_variables \
        WHERE VARIABLE_NAME = 'super_read_only' AND VARIABLE_VALUE = 'ON') THEN 'read-only' \
        WHEN VARIABLE_SOURCE = 'DYNAMIC' THEN 'unknown' WHEN @@super_read_only THEN 'read-only' ELSE 'writable' END \
        FROM performance_schema.variables_info WHERE VARIABLE_NAME = 'super_read_only'",
    heartbeat: "SELECT HEARTBEAT_INTERVAL FROM performance_schema.replication_connection_configuration \
        WHERE CHANNEL_NAME = '' AND HOST <> ''",
    heartbeat_column: "HEARTBEAT_INTERVAL",
    unbound: "SELECT DISTINCT GRANTEE FROM information_schema.USER_PRIVILEGES \
        WHERE PRIVILEGE_TYPE IN ('SUPER', 'CONNECTION_ADMIN') AND GRANTEE NOT LIKE '%@_localhost_' \
        AND GRANTEE NOT LIKE '_root_@%'",
};
