//! A backend that costs next to nothing, so that on few cores the proxy is the bound and not what stands behind it.

use std::{
    fs::File,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[arg(long)]
    clear: SocketAddr,
    #[arg(long)]
    mutual_tls: SocketAddr,
    /// Where the certificates are.
    #[arg(long)]
    directory: PathBuf,
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Serves until it is killed.
pub(super) fn run(options: &Options) -> Result<()> {
    let acceptor = acceptor(options)?;
    let answers = Arc::new(Answers::new()?);
    runtime(options.threads)?.block_on(async {
        let clear = TcpListener::bind(options.clear).await?;
        let encrypted = TcpListener::bind(options.mutual_tls).await?;
        loop {
            let answers = Arc::clone(&answers);
            tokio::select! {
                accepted = clear.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    tokio::spawn(async move { answers.serve(Clear(stream)).await });
                }
                accepted = encrypted.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        let stream = acceptor.accept(stream).await.ok()?;
                        answers.serve(Encrypted(stream)).await
                    });
                }
            }
        }
    })
}

fn runtime(threads: usize) -> Result<Runtime> {
    let runtime = match threads {
        1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    };
    Ok(runtime?)
}

fn acceptor(options: &Options) -> Result<TlsAcceptor> {
    let file = |name| options.directory.join(name);
    let mut authorities = RootCertStore::empty();
    authorities.add(CertificateDer::from_pem_file(file("ca.pem"))?)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(authorities)).build()?;
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(file("web1.pem"))?],
            PrivateKeyDer::from_pem_file(file("web1.key"))?,
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What a static nginx says, made once.
struct Answers {
    small: Answer,
    large: Answer,
}

/// In memory, and in a file that the kernel sends without a copy.
struct Answer {
    bytes: Vec<u8>,
    file: File,
}

/// A connection, and how a large answer leaves on it.
trait Connection {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize>;
    async fn send(&mut self, answer: &Answer) -> io::Result<()>;
}

struct Clear(TcpStream);

struct Encrypted(TlsStream<TcpStream>);

impl Connection for Clear {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room).await
    }

    async fn send(&mut self, answer: &Answer) -> io::Result<()> {
        if answer.bytes.len() < WORTH_A_FILE {
            return self.0.write_all(&answer.bytes).await;
        }
        let mut offset = 0;
        while let Some(left @ 1..) = answer
            .bytes
            .len()
            .checked_sub(usize::try_from(offset).unwrap_or(usize::MAX))
        {
            let send = || Ok(sendfile(&self.0, &answer.file, Some(&mut offset), left)?);
            self.0.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }
}

impl Connection for Encrypted {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room).await
    }

    async fn send(&mut self, answer: &Answer) -> io::Result<()> {
        self.0.write_all(&answer.bytes).await
    }
}

impl Answers {
    fn new() -> Result<Self> {
        Ok(Self {
            small: Answer::new(&[b'k'; 1024])?,
            large: Answer::new(&[b'K'; 65_536])?,
        })
    }

    /// Requests have no body, and come one at a time on a connection. Nothing when the client is gone.
    async fn serve(&self, mut connection: impl Connection) -> Option<()> {
        let mut request = [0; 8192];
        let mut length = 0;
        loop {
            length += match connection.read(request.get_mut(length..)?).await.ok()? {
                0 => return None,
                count => count,
            };
            if !request[..length].ends_with(b"\r\n\r\n") {
                continue;
            }
            let answer = match request.starts_with(b"GET /64k ") {
                true => &self.large,
                false => &self.small,
            };
            connection.send(answer).await.ok()?;
            length = 0;
        }
    }
}

impl Answer {
    fn new(body: &[u8]) -> Result<Self> {
        let bytes = whole(body);
        let mut file = File::from(memfd_create("answer", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        Ok(Self { bytes, file })
    }
}

fn whole(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Wed, 25 Nov 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\nLast-Modified: Wed, 25 Nov 2026 00:00:00 GMT\r\nConnection: keep-alive\r\n\
         ETag: \"67439e00-400\"\r\nAccept-Ranges: bytes\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub(super) fn command(
    clear: u16,
    mutual_tls: u16,
    directory: &Path,
    threads: usize,
) -> Result<Vec<String>> {
    let directory = directory.to_str().context("a directory that is no text")?;
    Ok([
        "proxy",
        "backend",
        "--clear",
        &format!("127.0.0.1:{clear}"),
        "--mutual-tls",
        &format!("127.0.0.1:{mutual_tls}"),
        "--directory",
        directory,
        "--threads",
        &threads.to_string(),
    ]
    .map(str::to_owned)
    .to_vec())
}

/// Below it a copy is cheaper than the kernel's splice.
const WORTH_A_FILE: usize = 16 * 1024;
