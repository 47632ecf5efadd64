//! What is asked of a proxy: by clients of our own, and by h2load.

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

/// A load on one proxy.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) cores: String,
    pub(super) seconds: u64,
    pub(super) port: u16,
}

impl Load {
    /// Requests a second, as many as the proxy answers, and how many there were.
    pub(super) fn rate(&self, bench: &mut Bench, path: Path) -> Result<(f64, u64)> {
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

    /// Requests for 1 KB over HTTP/2 a second, and how many there were.
    pub(super) fn http2_rate(&self) -> Result<(f64, u64)> {
        let url = url(self.port);
        let mut command = pinned(&self.cores, "h2load");
        command.args([
            "-t1",
            "-c50",
            "-m10",
            "--warm-up-time=0",
            "-D",
            &self.seconds.to_string(),
        ]);
        command.args(["-H", ":authority: www.foobar.com", &url]);
        let text = output(&mut command)?;
        let failed = field(&text, " failed,")?;
        let count = field(&text, " succeeded,")?;
        let rate = field(&text, " req/s")?;
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

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}{}", Path::Small.name())
}

/// So many requests that buffers and caches are what they will be.
pub(super) fn warm_up(cores: &str, port: u16) -> Result<()> {
    let mut command = pinned(cores, "wrk");
    command.args(["-t1", "-c50", "-d1s", "-H", "Host: www.foobar.com"]);
    let text = output(command.arg(url(port)))?;
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("wrk met errors:\n{text}");
    }
    Ok(())
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

/// The number before a mark.
fn field(text: &str, mark: &str) -> Result<f64> {
    let found = text
        .split_once(mark)
        .and_then(|(before, _)| before.split([' ', '\n', ',']).next_back());
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
