//! Asks a backend whether it is well: by a TCP connection, or by a request of HTTP/1.1.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::config::{Check, Probe};

/// Why a backend is not well.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFailure {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("it answered {found}, not {expected}")]
    Status { found: u16, expected: u16 },
    #[error("it does not speak HTTP/1.1")]
    NotHttp,
    #[error("no answer within {0:?}")]
    TooSlow(Duration),
}

/// How long the backend took.
///
/// # Errors
/// Why it is not well.
pub async fn run(check: &Check, backend: SocketAddr) -> Result<Duration, ProbeFailure> {
    let begun = Instant::now();
    timeout(check.timeout, ask(&check.probe, backend))
        .await
        .map_err(|_| ProbeFailure::TooSlow(check.timeout))??;
    Ok(begun.elapsed())
}

async fn ask(probe: &Probe, backend: SocketAddr) -> Result<(), ProbeFailure> {
    let mut stream = TcpStream::connect(backend)
        .await
        .map_err(ProbeFailure::Connect)?;
    let Probe::Http { path, expect } = probe else {
        return Ok(());
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {backend}\r\nUser-Agent: foobar-check\r\nConnection: close\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(ProbeFailure::Broken)?;
    let found = status(&first_line(&mut stream).await?).ok_or(ProbeFailure::NotHttp)?;
    if found == *expect {
        Ok(())
    } else {
        Err(ProbeFailure::Status {
            found,
            expected: *expect,
        })
    }
}

async fn first_line(stream: &mut TcpStream) -> Result<Vec<u8>, ProbeFailure> {
    let mut line = Vec::new();
    let mut chunk = [0; LONGEST_LINE];
    loop {
        let length = stream
            .read(&mut chunk)
            .await
            .map_err(ProbeFailure::Broken)?;
        line.extend(chunk.iter().take(length));
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if length == 0 || line.len() > LONGEST_LINE {
            return Err(ProbeFailure::NotHttp);
        }
    }
}

/// Of `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<u16> {
    let line = str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    rest.split_whitespace().next()?.parse().ok()
}

const LONGEST_LINE: usize = 1024;
