//! One connection that is opened when it is needed and given up when it disappoints.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use mysql_async::{
    Conn, Error, IoError, OptsBuilder, Row, SslOpts, Value, from_value_opt, prelude::Queryable as _,
};
use tokio::time::{self, Instant, error::Elapsed};

use crate::mysql::{Failure, observation::Make};

/// Where and as whom.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub user: String,
    pub password: String,
    pub ca: Option<PathBuf>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}@{}", self.user, self.address)
    }
}

#[derive(Debug)]
pub struct Talk {
    endpoint: Endpoint,
    /// Statements on every new connection.
    opening: Vec<String>,
    connection: Option<Conn>,
    /// Connections so far.
    opened: u64,
}

impl Talk {
    #[must_use]
    pub const fn new(endpoint: Endpoint, opening: Vec<String>) -> Self {
        Self {
            endpoint,
            opening,
            connection: None,
            opened: 0,
        }
    }

    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Which connection this is: what one said of the server may not hold for the next.
    #[must_use]
    pub const fn connection(&self) -> u64 {
        self.opened
    }

    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Who is there: what the server says of itself in its greeting.
    pub async fn make(&mut self, until: Instant) -> Result<Make, Failure> {
        let rows = self.rows("SELECT VERSION()", until).await?;
        let version: String = rows.first().map(|row| text(row, 0)).unwrap_or_default();
        Ok(if version.contains("MariaDB") {
            Make::Mariadb
        } else {
            Make::Mysql
        })
    }

    /// Asks, on a connection that is there or a new one.
    ///
    /// # Errors
    /// A connection that was found dead says nothing of the server: a new one does.
    pub async fn rows(&mut self, sql: &str, until: Instant) -> Result<Vec<Row>, Failure> {
        let had = self.connection.is_some();
        match self.rows_once(sql, until).await {
            Err(Trouble::Lost) if had => self.rows_once(sql, until).await.map_err(Trouble::failure),
            other => other.map_err(Trouble::failure),
        }
    }

    /// Asks several questions in one way there and back. The last may be one that the server refuses: nothing is its answer.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub async fn answers<const N: usize>(
        &mut self,
        questions: [&str; N],
        until: Instant,
    ) -> Result<[Vec<Row>; N], Failure> {
        let had = self.connection.is_some();
        match self.answers_once(questions, until).await {
            Err(Trouble::Lost) if had => self.answers_once(questions, until).await,
            other => other,
        }
        .map_err(Trouble::failure)
    }

    async fn answers_once<const N: usize>(
        &mut self,
        questions: [&str; N],
        until: Instant,
    ) -> Result<[Vec<Row>; N], Trouble> {
        self.open(until).await?;
        let Some(connection) = self.connection.as_mut() else {
            return Err(Trouble::Lost);
        };
        let mut answers = [const { Vec::new() }; N];
        let asked = time::timeout_at(until, async {
            let mut result = connection.query_iter(questions.join(";")).await?;
            for (number, answer) in (1..).zip(&mut answers) {
                match result.for_each(|row| answer.push(row)).await {
                    // That a question is refused is told at the end of the answer before it.
                    Err(error) if number + 1 >= N && is_refusal(&error) => break,
                    told => told?,
                }
            }
            Ok(())
        });
        let asked = asked.await;
        self.settle(asked).map(|()| answers)
    }

    /// Asks on the connection that is there and on no other: what holds a lock must not be said by another.
    ///
    /// # Errors
    /// As [`Self::rows`], and when there is none.
    pub async fn rows_here(&mut self, sql: &str, until: Instant) -> Result<Vec<Row>, Failure> {
        if self.connection.is_none() {
            return Err(Failure::Ours("the connection was lost".to_owned()));
        }
        self.rows_once(sql, until).await.map_err(Trouble::failure)
    }

    async fn rows_once(&mut self, sql: &str, until: Instant) -> Result<Vec<Row>, Trouble> {
        self.open(until).await?;
        let Some(connection) = self.connection.as_mut() else {
            return Err(Trouble::Lost);
        };
        let asked = time::timeout_at(until, connection.query::<Row, _>(sql)).await;
        self.settle(asked)
    }

    /// Gives the connection up where it is of no more use.
    fn settle<T>(&mut self, asked: Result<Result<T, Error>, Elapsed>) -> Result<T, Trouble> {
        match asked {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(error)) => {
                let trouble = Trouble::of(&error);
                if !matches!(error, Error::Server(_)) || trouble.is_evidence() {
                    self.connection = None;
                }
                Err(trouble)
            }
            Err(_) => {
                // An answer that comes late must not be taken for that of the next question.
                self.connection = None;
                Err(Trouble::Told(Failure::TimedOut))
            }
        }
    }

    async fn open(&mut self, until: Instant) -> Result<(), Trouble> {
        if self.connection.is_some() {
            return Ok(());
        }
        let opened = time::timeout_at(until, async {
            let mut connection = Conn::new(self.options()).await?;
            for statement in &self.opening {
                connection.query_drop(statement).await?;
            }
            Ok::<_, Error>(connection)
        });
        match opened.await {
            Ok(Ok(connection)) => {
                self.connection = Some(connection);
                self.opened += 1;
                Ok(())
            }
            Ok(Err(error)) => Err(match Trouble::of(&error) {
                // Accepted and closed at once: somebody is there who cannot serve.
                Trouble::Lost => {
                    Trouble::Told(Failure::Ours(format!("closed while logging in: {error}")))
                }
                told => told,
            }),
            Err(_) => Err(Trouble::Told(Failure::TimedOut)),
        }
    }

    fn options(&self) -> OptsBuilder {
        let tls = self.endpoint.ca.as_ref().map(|ca| {
            SslOpts::default()
                .with_root_certs(vec![ca.clone().into()])
                .with_disable_built_in_roots(true)
        });
        OptsBuilder::default()
            .ip_or_hostname(self.endpoint.address.ip().to_string())
            .tcp_port(self.endpoint.address.port())
            .user(Some(&self.endpoint.user))
            .pass(Some(&self.endpoint.password))
            // Each of these saves a question after the login.
            .prefer_socket(false)
            .max_allowed_packet(Some(1 << 24))
            .wait_timeout(Some(28_800))
            .stmt_cache_size(0)
            .tcp_nodelay(true)
            .ssl_opts(tls)
    }
}

enum Trouble {
    /// The connection broke; that may be of the past.
    Lost,
    Told(Failure),
}

impl Trouble {
    fn of(error: &Error) -> Self {
        match error {
            Error::Server(error) => Self::Told(Failure::of_server(error.code, &error.message)),
            Error::Io(IoError::Io(error)) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Self::Told(Failure::Refused),
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => Self::Lost,
                io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable => Self::Told(Failure::TimedOut),
                _ => Self::Told(Failure::Ours(error.to_string())),
            },
            Error::Driver(mysql_async::DriverError::ConnectionClosed) => Self::Lost,
            other => Self::Told(Failure::Ours(other.to_string())),
        }
    }

    const fn is_evidence(&self) -> bool {
        matches!(self, Self::Told(failure) if failure.is_evidence())
    }

    fn failure(self) -> Failure {
        match self {
            Self::Lost => Failure::Refused,
            Self::Told(failure) => failure,
        }
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Server(_)) && !Trouble::of(error).is_evidence()
}

/// A column as text; empty where it is null or none.
pub fn text(row: &Row, column: usize) -> String {
    maybe(row, column).unwrap_or_default()
}

pub fn maybe(row: &Row, column: usize) -> Option<String> {
    match row.as_ref(column)? {
        Value::NULL => None,
        value => match from_value_opt::<Vec<u8>>(value.clone()) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(_) => from_value_opt::<i64>(value.clone())
                .ok()
                .map(|number| number.to_string()),
        },
    }
}

/// A column by name, as text.
pub fn named(row: &Row, name: &str) -> Option<String> {
    let column = row
        .columns_ref()
        .iter()
        .position(|column| column.name_str().eq_ignore_ascii_case(name))?;
    maybe(row, column)
}

pub fn is_on(value: &str) -> bool {
    matches!(value, "1" | "ON" | "YES" | "Yes")
}

/// As SQL writes it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Seconds until then, for a server that is to wait itself.
pub fn seconds_until(until: Instant) -> f64 {
    until
        .saturating_duration_since(Instant::now())
        .saturating_sub(Duration::from_millis(100))
        .as_secs_f64()
        .max(0.1)
}
