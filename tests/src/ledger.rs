//! A writer that remembers every acknowledgement, and the checks of what it remembers against the servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use mysql_async::{Conn, Error, OptsBuilder, prelude::Queryable as _};
use tokio::time;

use crate::{databases, in_namespace};

/// One write, by what became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// Acknowledged, by this server in this term.
    Acked(Ack),
    /// Sent, and the connection broke at this time: it may be there or not.
    Unknown { id: u64, sent: u64, at: u64 },
    /// Sent, and given up without an answer.
    Silent { id: u64, sent: u64 },
    /// Answered by an error: it is not there.
    Refused { id: u64, sent: u64 },
    /// A connection that says nothing more waits from now on.
    Waits { connection: u64 },
    /// Such a connection was told that it is over.
    Cut { connection: u64, at: u64 },
}

/// Times are microseconds since 1970.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ack {
    pub id: u64,
    pub server: u64,
    pub term: u64,
    pub sent: u64,
    pub acked: u64,
}

/// What a run of the writer wrote down.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub acks: Vec<Ack>,
    pub unknown: Vec<u64>,
    pub refused: usize,
    /// When connections were cut, of those that waited and of those that wrote.
    pub cuts: Vec<u64>,
    pub broken: Vec<u64>,
}

/// A writer under way in a namespace.
#[derive(Debug)]
pub struct Writer {
    child: Child,
    path: PathBuf,
}

impl Writer {
    /// Starts `program write` in a namespace: `writers` connections that write without a pause, and `idle` ones that wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, namespace: &str, writers: u32, idle: u32) -> Result<Self> {
        Self::start_at(WRITER, program, namespace, writers, idle)
    }

    /// As [`Self::start`], by another balancer's address.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_at(
        address: SocketAddr,
        program: &Path,
        namespace: &str,
        writers: u32,
        idle: u32,
    ) -> Result<Self> {
        let path = Path::new(crate::STATE).join(format!("ledger-{}", now()));
        let file = fs::File::create(&path)?;
        let child = in_namespace(namespace, program)
            .args([
                "write",
                "--at",
                &address.to_string(),
                "--writers",
                &writers.to_string(),
                "--idle",
                &idle.to_string(),
            ])
            .stdout(file)
            .spawn()
            .context("cannot start the writer")?;
        Ok(Self { child, path })
    }

    /// How many acknowledgements there are by now.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.lines("A ")
    }

    /// How many connections have ever waited by now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lines("W ")
    }

    fn lines(&self, kind: &str) -> usize {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(kind)).count()
    }

    /// What is written down so far; the last line may be half.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn so_far(&self) -> Result<Ledger> {
        Ledger::read(&fs::read_to_string(&self.path)?)
    }

    /// Ends it; what it wrote down.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn stop(mut self) -> Result<Ledger> {
        // It writes each line whole: nothing is lost by an end at any time, and the last write counts as unknown.
        self.child.kill().context("the writer had ended")?;
        self.child.wait()?;
        self.so_far()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ledger {
    fn read(text: &str) -> Result<Self> {
        let mut ledger = Self::default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            match Entry::parse(line).with_context(|| format!("not a line of a ledger: {line}"))? {
                Entry::Acked(ack) => ledger.acks.push(ack),
                Entry::Unknown { id, at, .. } => {
                    ledger.unknown.push(id);
                    ledger.broken.push(at);
                }
                Entry::Silent { id, .. } => ledger.unknown.push(id),
                Entry::Refused { .. } => ledger.refused += 1,
                Entry::Waits { .. } => {}
                Entry::Cut { at, .. } => ledger.cuts.push(at),
            }
        }
        ledger.acks.sort_by_key(|ack| ack.acked);
        Ok(ledger)
    }

    /// Acknowledged and not among `rows`.
    #[must_use]
    pub fn missing(&self, rows: &BTreeSet<u64>) -> Vec<u64> {
        self.acks
            .iter()
            .map(|ack| ack.id)
            .filter(|id| !rows.contains(id))
            .collect()
    }

    /// Acknowledgements after one of a later term, or of a term that another server acknowledged in, or of an id that
    /// was acknowledged before.
    #[must_use]
    pub fn two_writer_instants(&self) -> usize {
        let (mut highest, mut count) = (0, 0);
        let mut owners: BTreeMap<u64, u64> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for ack in &self.acks {
            let owner = *owners.entry(ack.term).or_insert(ack.server);
            count += usize::from(ack.term < highest || owner != ack.server || !ids.insert(ack.id));
            highest = highest.max(ack.term);
        }
        count
    }

    /// The longest silence of the acknowledgements after `fault`; a server that ends gracefully may go on for a while.
    #[must_use]
    pub fn outage(&self, fault: u64) -> Option<Duration> {
        let mut before = fault;
        let mut longest = 0;
        for ack in self.acks.iter().filter(|ack| ack.acked > fault) {
            longest = longest.max(ack.acked - before);
            before = ack.acked;
        }
        (longest >= NOTICED).then(|| Duration::from_micros(longest))
    }

    /// How often another server acknowledged than the one before, in the order of time.
    #[must_use]
    pub fn changes_of_server(&self) -> usize {
        self.acks
            .windows(2)
            .filter(|pair| matches!(pair, [one, next] if one.server != next.server))
            .count()
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let mut number = || words.next()?.parse().ok();
        Some(match kind {
            "A" => Self::Acked(Ack {
                id: number()?,
                server: number()?,
                term: number()?,
                sent: number()?,
                acked: number()?,
            }),
            "U" => Self::Unknown {
                id: number()?,
                sent: number()?,
                at: number()?,
            },
            "S" => Self::Silent {
                id: number()?,
                sent: number()?,
            },
            "W" => Self::Waits {
                connection: number()?,
            },
            "R" => Self::Refused {
                id: number()?,
                sent: number()?,
            },
            "C" => Self::Cut {
                connection: number()?,
                at: number()?,
            },
            _ => return None,
        })
    }
}

/// The ids from `first` on that a server has.
///
/// # Errors
/// What the server said.
pub fn rows(server: &str, first: u64) -> Result<BTreeSet<u64>> {
    let query = format!("SELECT id FROM shop.orders WHERE id >= {first}");
    databases::sql(server, &query)?
        .lines()
        .map(|line| line.parse().context("not an id"))
        .collect()
}

/// Waits until all servers hold the same; what they hold otherwise.
///
/// # Errors
/// When they differ for too long.
pub fn wait_until_equal(servers: &[&str], patience: Duration) -> Result<()> {
    wait_until_equal_from(0, servers, patience)
}

/// As [`wait_until_equal`], for the rows from `first` on.
///
/// # Errors
/// As [`wait_until_equal`].
pub fn wait_until_equal_from(first: u64, servers: &[&str], patience: Duration) -> Result<()> {
    let query = format!(
        "SELECT COUNT(*), BIT_XOR(CRC32(CONCAT_WS(' ', id, writer, term))) FROM shop.orders WHERE id >= {first};\
         CHECKSUM TABLE foobar.term"
    );
    let begun = SystemTime::now();
    loop {
        let sums: Vec<_> = servers
            .iter()
            .map(|server| databases::sql(server, &query))
            .collect();
        let equal = sums
            .windows(2)
            .all(|pair| matches!(pair, [Ok(one), Ok(other)] if one == other));
        if equal && sums.iter().all(Result::is_ok) {
            return Ok(());
        }
        if begun.elapsed().unwrap_or_default() > patience {
            bail!("{servers:?} do not hold the same: {sums:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The writer itself, in the namespace where it was started; ends with its process.
///
/// # Errors
/// When tokio does not start.
pub fn write(address: SocketAddr, writers: u32, idle: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for writer in 0..writers {
            tokio::spawn(write_on(address, u64::from(writer)));
        }
        for connection in 0..idle {
            tokio::spawn(wait_on(address, u64::from(connection)));
        }
        std::future::pending::<()>().await;
    });
    Ok(())
}

/// Writes, one after the other, on one connection as long as it lasts.
async fn write_on(address: SocketAddr, writer: u64) {
    let mut next = (now() << 10) | writer;
    loop {
        let Ok(Ok((mut connection, server, term))) = time::timeout(CONNECT, connect(address)).await
        else {
            time::sleep(PAUSE).await;
            continue;
        };
        loop {
            next += 1 << 10;
            let (id, sent) = (next, now());
            let sql = format!(
                "INSERT INTO shop.orders (id, writer, term) VALUES ({id}, {writer}, {term})"
            );
            match time::timeout(ANSWER, connection.query_drop(sql)).await {
                Ok(Ok(())) => println!("A {id} {server} {term} {sent} {}", now()),
                Ok(Err(Error::Server(_))) => {
                    println!("R {id} {sent}");
                    break;
                }
                Ok(Err(_)) => {
                    println!("U {id} {sent} {}", now());
                    break;
                }
                Err(_) => {
                    println!("S {id} {sent}");
                    break;
                }
            }
        }
        drop(connection);
        time::sleep(PAUSE).await;
    }
}

/// A client that is blocked in a long question, as pools and reports are.
async fn wait_on(address: SocketAddr, number: u64) {
    loop {
        if let Ok(Ok((mut connection, ..))) = time::timeout(CONNECT * 8, connect(address)).await {
            println!("W {number}");
            let _ = connection.query_drop("SELECT SLEEP(3600)").await;
            println!("C {number} {}", now());
        }
        time::sleep(PAUSE * 10).await;
    }
}

/// A connection, the server at its end, and the term there.
async fn connect(address: SocketAddr) -> Result<(Conn, u64, u64), Error> {
    let options = OptsBuilder::default()
        .ip_or_hostname(address.ip().to_string())
        .tcp_port(address.port())
        .user(Some(databases::APPLICATION.0))
        .pass(Some(databases::APPLICATION.1))
        .prefer_socket(false)
        .max_allowed_packet(Some(1 << 20))
        .wait_timeout(Some(28_800));
    let mut connection = Conn::new(options).await?;
    let row: Option<(u64, Option<u64>)> = connection
        .query_first("SELECT @@server_id, (SELECT MAX(term) FROM foobar.term)")
        .await?;
    let (server, term) = row.unwrap_or_default();
    Ok((connection, server, term.unwrap_or(0)))
}

/// Microseconds since 1970.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The writer address of the lab's balancer.
pub const WRITER: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 10)),
    3306,
);
/// A client that tries again soon: the kernel's own second for a lost SYN would be most of an outage.
const CONNECT: Duration = Duration::from_millis(250);
const ANSWER: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);
/// A silence that is shorter, in microseconds, is the load of the machine.
const NOTICED: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(text: &str) -> Ledger {
        Ledger::read(text).expect("a ledger")
    }

    #[test]
    fn a_late_ack_of_an_old_term_and_a_second_server_in_one_are_found() {
        let good = "A 1 11 0 10 20\nA 2 12 1 30 40\nU 3 50 55\nS 8 57\nR 4 60\nW 7\nC 7 70\nA 5 1";
        let good = ledger(good);
        assert_eq!(
            (
                good.acks.len(),
                good.unknown.len(),
                good.refused,
                good.cuts.len()
            ),
            (2, 2, 1, 1)
        );
        assert_eq!(good.broken, [55]);
        assert_eq!(
            (good.two_writer_instants(), good.changes_of_server()),
            (0, 1)
        );
        assert_eq!(
            ledger("A 1 11 0 10 50\nA 2 12 1 30 40\n").two_writer_instants(),
            1
        );
        assert_eq!(
            ledger("A 1 11 1 10 20\nA 2 12 1 30 40\n").two_writer_instants(),
            1
        );
        assert_eq!(
            ledger("A 1 11 1 10 20\nA 1 11 1 30 40\n").two_writer_instants(),
            1
        );
    }

    #[test]
    fn an_outage_is_the_longest_silence_after_the_fault() {
        let ledger = ledger(
            "A 1 11 0 10 20\nA 2 11 0 100 110\nA 3 12 1 200000 200010\nA 4 12 1 200020 200030\n",
        );
        assert_eq!(
            ledger.outage(105),
            Some(Duration::from_micros(200_010 - 110))
        );
        assert_eq!(ledger.missing(&BTreeSet::from([1, 2, 4])), [3]);
    }
}
