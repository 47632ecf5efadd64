//! What a server says of itself that is dear to ask: kept until the connection or the role is another, renewed by surveys.
//!
//! `SHOW GLOBAL STATUS` adds up six hundred counters of all threads: 0.4 of the 0.7 ms that the statements of a check took.

use mysql_async::Row;
use tokio::time::Instant;

use super::{Talk, now, talk::text};
use crate::mysql::Failure;

/// Rows of names and values, and when the server started.
#[derive(Debug)]
pub struct Status {
    values: Vec<(String, String)>,
    /// At the latest, in microseconds since 1970; nothing where it may have been started again since.
    pub started: Option<u64>,
}

impl Status {
    fn read(rows: &[Row]) -> Result<Self, Failure> {
        let values: Vec<_> = rows
            .iter()
            .map(|row| (text(row, 0), text(row, 1)))
            .collect();
        let mut status = Self {
            values,
            started: None,
        };
        status.started = Some(started(status.value("Uptime"))?);
        Ok(status)
    }

    /// Nothing where there is none.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        let known = self.values.iter();
        let mut known = known.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        known.next().map_or("", |(_, value)| value)
    }
}

/// When a server started at the latest that says for how many seconds it has run: it reckons in whole ones.
fn started(uptime: &str) -> Result<u64, Failure> {
    let seconds: u64 = uptime
        .parse()
        .map_err(|_| Failure::Ours(format!("an uptime of `{uptime}`")))?;
    Ok(now().saturating_sub(seconds.saturating_sub(1).saturating_mul(1_000_000)))
}

/// What a change of roles changes, in whatever words a make has for it.
pub type Role = [bool; 4];

/// The status of one server as it was asked for last.
#[derive(Debug, Default)]
pub struct Standing {
    known: Option<Known>,
    /// The question was not answered in time: a disk that hangs may hang it, and each that waits holds a session. Until a
    /// survey is answered, checks do not ask.
    hangs: bool,
}

#[derive(Debug)]
struct Known {
    /// No server is started again while a connection to it lasts.
    connection: u64,
    role: Role,
    status: Status,
}

impl Standing {
    /// What is known, or the answer to `question` where that is of another connection or another role. One that does not
    /// come in time leaves what is known of that role, but for the start: the server may be another by now.
    pub async fn of(
        &mut self,
        role: Role,
        talk: &mut Talk,
        question: &str,
        until: Instant,
    ) -> Result<&Status, Failure> {
        let known = match self.known.take().filter(|known| known.role == role) {
            Some(known) if known.connection == talk.connection() => known,
            other => self.anew(other, role, talk, question, until).await?,
        };
        Ok(&self.known.insert(known).status)
    }

    async fn anew(
        &mut self,
        known: Option<Known>,
        role: Role,
        talk: &mut Talk,
        question: &str,
        until: Instant,
    ) -> Result<Known, Failure> {
        let unsure = |mut known: Known| {
            known.status.started = None;
            known
        };
        match known {
            Some(known) if self.hangs => Ok(unsure(known)),
            Some(known) => match self.ask(role, talk, question, until).await {
                Err(Failure::TimedOut) => Ok(unsure(known)),
                told => told,
            },
            None => self.ask(role, talk, question, until).await,
        }
    }

    /// Asks anew; a role that was not asked for yet is left to a check.
    pub async fn renew(
        &mut self,
        talk: &mut Talk,
        question: &str,
        until: Instant,
    ) -> Result<(), Failure> {
        let Some(role) = self.known.as_ref().map(|known| known.role) else {
            return Ok(());
        };
        self.known = Some(self.ask(role, talk, question, until).await?);
        Ok(())
    }

    /// It is about to change: the next check asks.
    pub fn forget(&mut self) {
        self.known = None;
    }

    async fn ask(
        &mut self,
        role: Role,
        talk: &mut Talk,
        question: &str,
        until: Instant,
    ) -> Result<Known, Failure> {
        let rows = talk.rows(question, until).await;
        self.hangs = matches!(rows, Err(Failure::TimedOut));
        let rows = rows?;
        Ok(Known {
            connection: talk.connection(),
            role,
            status: Status::read(&rows)?,
        })
    }
}
