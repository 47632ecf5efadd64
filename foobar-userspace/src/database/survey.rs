//! What is asked more rarely: settings, counters, the clock, and who may write past `read_only`.

use tokio::time::Instant;

use super::{
    Talk, now,
    standing::Standing,
    talk::{named, quoted, text},
};
use crate::mysql::{
    Failure,
    observation::{Make, Survey},
    preflight,
};

/// In the words of one make; the rest both understand.
pub struct Questions {
    pub make: Make,
    /// What a [`Standing`] keeps.
    pub status: &'static str,
    /// Answers one of the words of [`preflight::AT_START`].
    pub at_start: &'static str,
    pub heartbeat: &'static str,
    pub heartbeat_column: &'static str,
    pub unbound: &'static str,
}

pub async fn survey_of(
    talk: &mut Talk,
    standing: &mut Standing,
    questions: &Questions,
    until: Instant,
) -> Result<Survey, Failure> {
    standing.renew(talk, questions.status, until).await?;
    let mut survey = Survey::default();
    let wanted: Vec<_> = preflight::settings(questions.make).map(quoted).collect();
    let variables = format!(
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})",
        wanted.join(", ")
    );
    for row in talk.rows(&variables, until).await? {
        survey
            .settings
            .insert(text(&row, 0).to_ascii_lowercase(), text(&row, 1));
    }
    for row in talk.rows(COUNTERS, until).await? {
        if let Ok(count) = text(&row, 1).parse() {
            survey
                .counters
                .insert(text(&row, 0).to_ascii_lowercase(), count);
        }
    }
    for (setting, question) in [
        (preflight::TABLES, TABLES),
        (preflight::AT_START, questions.at_start),
    ] {
        let rows = talk.rows(question, until).await?;
        let answer = rows.first().map(|row| text(row, 0)).unwrap_or_default();
        survey.settings.insert(setting.to_owned(), answer);
    }
    let replication = talk.rows(questions.heartbeat, until).await?;
    let period = replication
        .first()
        .and_then(|row| named(row, questions.heartbeat_column));
    if let Some(period) = period {
        survey
            .settings
            .insert(preflight::HEARTBEAT.to_owned(), period);
    }
    survey.ahead = ahead(talk, until).await?;
    survey.unbound = unbound(talk, questions, until).await?;
    Ok(survey)
}

/// The server's clock against the middle of asking for it; nothing where that took so long that the middle says little.
async fn ahead(talk: &mut Talk, until: Instant) -> Result<Option<i64>, Failure> {
    let before = now();
    let rows = talk.rows(CLOCK, until).await?;
    let after = now();
    if after.saturating_sub(before) > SURE {
        return Ok(None);
    }
    let middle = before.midpoint(after);
    let theirs = rows
        .first()
        .and_then(|row| text(row, 0).parse::<u64>().ok());
    Ok(theirs.and_then(|theirs| {
        let (theirs, ours) = (i64::try_from(theirs).ok()?, i64::try_from(middle).ok()?);
        Some(theirs - ours)
    }))
}

/// A monitor that may not read the accounts sees its own grants alone.
async fn unbound(
    talk: &mut Talk,
    questions: &Questions,
    until: Instant,
) -> Result<Option<Vec<String>>, Failure> {
    let rows = talk.rows(GRANTEES, until).await?;
    let seen: u64 = rows
        .first()
        .and_then(|row| text(row, 0).parse().ok())
        .unwrap_or(0);
    if seen < 2 {
        return Ok(None);
    }
    let rows = talk.rows(questions.unbound, until).await?;
    Ok(Some(rows.iter().map(|row| text(row, 0)).collect()))
}

/// In microseconds.
const SURE: u64 = 200_000;
const COUNTERS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_select', 'Com_insert', 'Com_update', \
    'Com_delete', 'Com_replace', 'Com_commit', 'Threads_connected', 'Threads_running', 'Uptime')";
const TABLES: &str = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'foobar' \
    AND TABLE_NAME IN ('heartbeat', 'term')";
const CLOCK: &str = "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED)";
const GRANTEES: &str = "SELECT COUNT(DISTINCT GRANTEE) FROM information_schema.USER_PRIVILEGES";
