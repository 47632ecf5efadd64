//! Asks a backend whether it is well: by a TCP connection, or by a request of HTTP/1.1, in clear or encrypted.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    config::{Check, Probe},
    http,
};

/// How a backend is spoken to in secret.
#[derive(Clone, Debug)]
pub struct Secrecy {
    pub config: Arc<rustls::ClientConfig>,
    /// The name that its certificate must bear.
    pub name: ServerName<'static>,
}

/// Why a backend is not well.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFailure {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    #[error("nobody said whom to trust")]
    NoTrust,
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
pub async fn run(
    check: &Check,
    backend: SocketAddr,
    secrecy: Option<&Secrecy>,
) -> Result<Duration, ProbeFailure> {
    let begun = Instant::now();
    timeout(check.timeout, ask(check, backend, secrecy))
        .await
        .map_err(|_| ProbeFailure::TooSlow(check.timeout))??;
    Ok(begun.elapsed())
}

async fn ask(
    check: &Check,
    backend: SocketAddr,
    secrecy: Option<&Secrecy>,
) -> Result<(), ProbeFailure> {
    let mut stream = connect(check, backend)
        .await
        .map_err(ProbeFailure::Connect)?;
    match &check.probe {
        Probe::Tcp => Ok(()),
        Probe::Http { path, expect } => {
            let found = request(&mut stream, path, &backend.to_string()).await?;
            as_expected(found, *expect)
        }
        Probe::Https { path, expect } => {
            let secrecy = secrecy.ok_or(ProbeFailure::NoTrust)?;
            let mut config = (*secrecy.config).clone();
            // Whatever requests are sent by: the question is HTTP/1.1.
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let mut stream = TlsConnector::from(Arc::new(config))
                .connect(secrecy.name.clone(), stream)
                .await
                .map_err(ProbeFailure::Tls)?;
            let found = request(&mut stream, path, &secrecy.name.to_str()).await?;
            as_expected(found, *expect)
        }
    }
}

async fn connect(check: &Check, backend: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(backend).await?;
    if let Some(version) = check.announced {
        // Who asks is foobar itself; not every server takes an announcement of nobody.
        let header = http::announce(version, stream.local_addr()?, backend);
        stream.write_all(&header).await?;
    }
    Ok(stream)
}

fn as_expected(found: u16, expected: u16) -> Result<(), ProbeFailure> {
    if found == expected {
        Ok(())
    } else {
        Err(ProbeFailure::Status { found, expected })
    }
}

async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    path: &str,
    host: &str,
) -> Result<u16, ProbeFailure> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: foobar-check\r\nConnection: close\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(ProbeFailure::Broken)?;
    stream.flush().await.map_err(ProbeFailure::Broken)?;
    status(&first_line(stream).await?).ok_or(ProbeFailure::NotHttp)
}

async fn first_line<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, ProbeFailure> {
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::ProxyProtocol;

    #[tokio::test]
    async fn a_backend_that_is_told_of_its_clients_is_told_of_its_checks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = listener.local_addr().unwrap();
        let check = Check {
            probe: Probe::Http {
                path: "/healthz".to_owned(),
                expect: 200,
            },
            every: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            rise: 1,
            fall: 1,
            announced: Some(ProxyProtocol::V1),
        };
        let serve = async {
            let (mut stream, from) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            (from, String::from_utf8(heard).unwrap())
        };
        let (result, (from, heard)) = tokio::join!(run(&check, backend, None), serve);
        result.unwrap();
        let announced = format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nGET /healthz HTTP/1.1\r\n",
            from.port(),
            backend.port()
        );
        assert!(heard.starts_with(&announced), "{heard}");
    }
}
