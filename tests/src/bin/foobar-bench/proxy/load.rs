//! What is asked of a proxy: by wrk, h2load, and clients of our own for large answers, latency, handshakes and idle
//! connections.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    backend::Path,
    peers::{Bench, pinned},
    questions::{Pace, Question},
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A load on one proxy.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) cores: String,
    pub(super) seconds: u64,
    pub(super) port: u16,
}

impl Load {
    /// Requests for 1 KB a second, and how many there were.
    pub(super) fn rate(&self, protocol: Protocol) -> Result<(f64, u64)> {
        let url = format!("https://127.0.0.1:{}{}", self.port, Path::Small.name());
        match protocol {
            Protocol::Http1 => self.wrk(&url),
            Protocol::Http2 => self.h2load(&url),
        }
    }

    /// The same of what our own client asks for, as often as the proxy answers.
    pub(super) fn own_rate(&self, bench: &mut Bench, path: Path) -> Result<(f64, u64)> {
        let answer = bench.ask(&self.question(path, Pace::Full))?;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        Ok((
            answer.requests as f64 / answer.seconds,
            answer.requests_in_all,
        ))
    }

    /// Microseconds that 99 % of the requests do not exceed, at `rate` requests a second.
    pub(super) fn p99(&self, bench: &mut Bench, path: Path, rate: f64) -> Result<f64> {
        Ok(bench.ask(&self.question(path, Pace::Even(rate)))?.p99_us)
    }

    const fn question(&self, path: Path, pace: Pace) -> Question {
        Question {
            port: self.port,
            path,
            pace,
            seconds: self.seconds,
        }
    }

    fn wrk(&self, url: &str) -> Result<(f64, u64)> {
        let mut command = pinned(&self.cores, "wrk");
        command.args(["-t1", "-c50", &format!("-d{}s", self.seconds)]);
        command.args(["-H", "Host: www.foobar.com", url]);
        let text = output(&mut command)?;
        if text.contains("Non-2xx") || text.contains("Socket errors") {
            bail!("wrk met errors:\n{text}");
        }
        let count = field(&text, " requests in ", Side::Before)?;
        Ok((field(&text, "Requests/sec:", Side::After)?, whole(count)))
    }

    fn h2load(&self, url: &str) -> Result<(f64, u64)> {
        let mut command = pinned(&self.cores, "h2load");
        command.args([
            "-t1",
            "-c50",
            "-m10",
            "--warm-up-time=0",
            "-D",
            &self.seconds.to_string(),
        ]);
        command.args(["-H", ":authority: www.foobar.com", url]);
        let text = output(&mut command)?;
        let failed = field(&text, " failed,", Side::Before)?;
        let count = field(&text, " succeeded,", Side::Before)?;
        let rate = field(&text, " req/s", Side::Before)?;
        if failed > 0.0 || count < 1.0 {
            bail!("h2load met errors:\n{text}");
        }
        Ok((rate, whole(count)))
    }

    /// Handshakes a second, and how many there were.
    pub(super) fn handshakes(&self, resumed: bool) -> Result<(f64, u64)> {
        let mut command = ourselves(&self.cores)?;
        command.args(["handshakes", "--port", &self.port.to_string()]);
        command.args(["--seconds", &self.seconds.to_string()]);
        if resumed {
            command.arg("--resumed");
        }
        let text = output(&mut command)?;
        let count: u64 = text
            .trim()
            .parse()
            .with_context(|| format!("not a count: {text}"))?;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        Ok((count as f64 / self.seconds as f64, count))
    }
}

/// So many requests that buffers and caches are what they will be.
pub(super) fn warm_up(cores: &str, port: u16) -> Result<()> {
    let load = Load {
        cores: cores.to_owned(),
        seconds: 1,
        port,
    };
    load.rate(Protocol::Http1).map(drop)
}

/// Connections that had one answer and are idle as long as this lives.
pub(super) struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn hold(cores: &str, port: u16, connections: usize) -> Result<Held> {
    let mut command = ourselves(cores)?;
    command.args(["idle", "--port", &port.to_string()]);
    command.args(["--connections", &connections.to_string()]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("no output")?;
    let held = Held(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() != "ready" {
        bail!("the idle client did not get its connections: {line}");
    }
    Ok(held)
}

fn ourselves(cores: &str) -> Result<Command> {
    let mut command = pinned(cores, std::env::current_exe()?.as_os_str());
    command.arg("proxy");
    Ok(command)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?} failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}

enum Side {
    After,
    Before,
}

/// The number beside a mark.
fn field(text: &str, mark: &str, side: Side) -> Result<f64> {
    let found = match side {
        Side::After => text
            .split_once(mark)
            .and_then(|(_, rest)| rest.split_whitespace().next()),
        Side::Before => text
            .split_once(mark)
            .and_then(|(before, _)| before.split([' ', '\n', ',']).next_back()),
    };
    found
        .and_then(|number| number.trim().parse().ok())
        .with_context(|| format!("no number at {mark:?} in\n{text}"))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count that was printed as one"
)]
const fn whole(count: f64) -> u64 {
    count as u64
}
