//! What the bench asks its backend to ask of a proxy: as much as it can take, or so much a second.
//!
//! Client and backend share an event loop. As two processes on one core they would wait for each other, and the
//! scheduler's slices would be the latency of whoever is faster.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt as _, net::unix::pipe::Receiver, sync::Mutex, task::JoinSet};

use super::{
    backend::Path,
    caller::{Caller, Look},
    client::connector,
};

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Question {
    pub(super) port: u16,
    pub(super) path: Path,
    pub(super) pace: Pace,
    pub(super) seconds: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) enum Pace {
    /// Each caller asks as soon as it has its answer.
    Full,
    /// Requests a second, at even distances, whatever became of those before.
    Even(f64),
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Answer {
    pub(super) requests: u64,
    pub(super) seconds: f64,
    /// With those before and after the stretch that counts: the proxy's core worked for them too.
    pub(super) requests_in_all: u64,
    /// From the moment that a request was due, not from the one in which a caller came to it.
    pub(super) p99_us: f64,
}

impl Question {
    pub(super) async fn answer(self) -> Result<Answer> {
        let callers = self.callers().await?;
        let Done {
            callers,
            times: warm_up,
        } = self.all(callers, Turns::until(WARM_UP)).await?;
        let turns = match self.pace {
            Pace::Full => Turns::until(Duration::from_secs(self.seconds)),
            Pace::Even(rate) => Turns::even(rate, self.seconds)?,
        };
        let begun = Instant::now();
        let mut done = self.all(callers, turns).await?;
        let seconds = begun.elapsed().as_secs_f64();
        // None was broken on the way.
        for caller in &mut done.callers {
            caller.ask(Look::Decrypt).await?;
        }
        Ok(Answer {
            requests: done.times.len() as u64,
            requests_in_all: (done.times.len() + warm_up.len() + 2 * CALLERS) as u64,
            seconds,
            p99_us: p99(done.times).context("no request")?.as_secs_f64() * 1e6,
        })
    }

    async fn callers(&self) -> Result<Vec<Caller>> {
        let connector = connector(false)?;
        let mut callers = Vec::with_capacity(CALLERS);
        for _ in 0..CALLERS {
            callers.push(Caller::connect(&connector, self.port, self.path).await?);
        }
        Ok(callers)
    }

    async fn all(&self, callers: Vec<Caller>, turns: Turns) -> Result<Done> {
        let turns = Arc::new(turns);
        let mut asking = JoinSet::new();
        for caller in callers {
            asking.spawn(ask(caller, Arc::clone(&turns), self.decrypts()));
        }
        let mut done = Done::default();
        while let Some(ended) = asking.join_next().await {
            let (caller, times) = ended??;
            done.callers.push(caller);
            done.times.extend(times);
        }
        Ok(done)
    }

    /// Of how many answers one is decrypted. Latency ends where the client can read the answer; a rate is to be bounded
    /// by the proxy.
    const fn decrypts(&self) -> usize {
        match self.pace {
            Pace::Full => 32,
            Pace::Even(_) => 1,
        }
    }
}

#[derive(Default)]
struct Done {
    callers: Vec<Caller>,
    times: Vec<Duration>,
}

async fn ask(
    mut caller: Caller,
    turns: Arc<Turns>,
    decrypts: usize,
) -> Result<(Caller, Vec<Duration>)> {
    let mut times = Vec::new();
    while let Some(due) = turns.next().await? {
        let look = match times.len() % decrypts {
            0 => Look::Decrypt,
            _ => Look::Count,
        };
        caller.ask(look).await?;
        times.push(due.elapsed());
    }
    Ok((caller, times))
}

/// When the next request is due, for whichever caller is free.
enum Turns {
    Until(Instant),
    Even(Mutex<Schedule>),
}

struct Schedule {
    /// A descriptor to wait for and read, as a pipe is.
    timer: Receiver,
    begun: Instant,
    apart: f64,
    given: u32,
    all: u32,
}

impl Turns {
    fn until(time: Duration) -> Self {
        Self::Until(Instant::now() + time)
    }

    fn even(rate: f64, seconds: u64) -> Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a number of requests"
        )]
        let all = (rate * seconds as f64) as u32;
        Ok(Self::Even(Mutex::new(Schedule {
            timer: Receiver::from_owned_fd_unchecked(timer)?,
            begun: Instant::now(),
            apart: rate.recip(),
            given: 0,
            all,
        })))
    }

    /// Waits for it; nothing when there is none.
    async fn next(&self) -> Result<Option<Instant>> {
        match self {
            Self::Until(end) => {
                let now = Instant::now();
                Ok((now < *end).then_some(now))
            }
            // Who is free first waits first.
            Self::Even(schedule) => Ok(schedule.lock().await.next().await?),
        }
    }
}

impl Schedule {
    async fn next(&mut self) -> io::Result<Option<Instant>> {
        if self.given == self.all {
            return Ok(None);
        }
        let due = self.begun + Duration::from_secs_f64(self.apart * f64::from(self.given));
        self.given += 1;
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            self.sleep(left).await?;
        }
        Ok(Some(due))
    }

    /// tokio's own timer counts in milliseconds.
    async fn sleep(&mut self, time: Duration) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(time).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        // How often it went off is 8 bytes; who asks for more is told that nothing is left.
        self.timer.read(&mut [0; 16]).await.map(drop)
    }
}

fn p99(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied()
}

/// As many as wrk and h2load have.
const CALLERS: usize = 50;
/// Until the proxy's connections to its backend are open.
const WARM_UP: Duration = Duration::from_millis(200);
