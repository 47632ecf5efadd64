//! A webhook that knows what it was told last.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

#[derive(Debug)]
pub struct Webhook {
    url: String,
    told: Receiver<String>,
}

impl Webhook {
    pub fn open() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tell = tell.clone();
                thread::spawn(move || converse(&stream, &tell));
            }
        });
        Ok(Self { url, told })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Until it is told this; what came before is news no more.
    pub fn wait(&self, status: &str) -> Result<()> {
        let wanted = format!("\"status\":\"{status}\"");
        let ends = Instant::now() + PATIENCE;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let body = self
                .told
                .recv_timeout(left)
                .with_context(|| format!("nobody told that it is {status}"))?;
            if body.contains(&wanted) {
                return Ok(());
            }
        }
    }
}

/// Requests of one connection, each answered and handed on.
fn converse(stream: &TcpStream, tell: &Sender<String>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        tell.send(String::from_utf8_lossy(&body).into_owned())
            .ok()?;
        writer
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
