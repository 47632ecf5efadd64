//! A backend that costs next to nothing, so that on few cores the proxy is the bound and not what stands behind it, and
//! the client that asks through the proxy.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    peers::pinned,
    questions::{Answer, Question},
};

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

/// What may be asked for.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) enum Path {
    Small,
    Large,
}

impl Path {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Small => "/1k",
            Self::Large => "/64k",
        }
    }

    pub(super) const fn body(self) -> &'static [u8] {
        match self {
            Self::Small => &[b'k'; 1024],
            Self::Large => &[b'K'; 65_536],
        }
    }
}

/// Serves until its input ends.
pub(super) fn run(options: &Options) -> Result<()> {
    let acceptor = acceptor(options)?;
    let answers = Arc::new(Responses::new()?);
    let mut questions = questions();
    runtime(options.threads)?.block_on(async {
        let clear = TcpListener::bind(options.clear).await?;
        let encrypted = TcpListener::bind(options.mutual_tls).await?;
        loop {
            let answers = Arc::clone(&answers);
            tokio::select! {
                question = questions.recv() => match question {
                    Some(question) => drop(tokio::spawn(say(question))),
                    None => return Ok(()),
                },
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

/// What comes by the input, a line each.
fn questions() -> mpsc::UnboundedReceiver<Question> {
    let (questions, asked) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lines() {
            let question = serde_json::from_str(&line?)?;
            questions.send(question)?;
        }
        anyhow::Ok(())
    });
    asked
}

/// One line; an error is an answer too.
async fn say(question: Question) {
    let answer = question.answer().await;
    let answer = answer.map_err(|error| format!("{error:#}"));
    println!("{}", serde_json::json!(answer));
}

/// One on a single core saves itself the threads.
pub(super) fn runtime(threads: usize) -> Result<Runtime> {
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
struct Responses {
    small: Response,
    large: Response,
}

/// In memory, and in a file that the kernel sends without a copy.
struct Response {
    bytes: Vec<u8>,
    file: File,
}

/// A connection, and how a large answer leaves on it.
trait Connection {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize>;
    async fn send(&mut self, answer: &Response) -> io::Result<()>;
}

struct Clear(TcpStream);

struct Encrypted(TlsStream<TcpStream>);

impl Connection for Clear {
    async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room).await
    }

    async fn send(&mut self, answer: &Response) -> io::Result<()> {
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

    async fn send(&mut self, answer: &Response) -> io::Result<()> {
        self.0.write_all(&answer.bytes).await
    }
}

impl Responses {
    fn new() -> Result<Self> {
        Ok(Self {
            small: Response::new(Path::Small.body())?,
            large: Response::new(Path::Large.body())?,
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

impl Response {
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

/// The backend as a process that is asked by its input and answers by its output.
pub(super) struct Backend {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Backend {
    pub(super) fn start(
        cores: &str,
        threads: usize,
        (clear, mutual_tls): (u16, u16),
        directory: &std::path::Path,
    ) -> Result<Self> {
        let mut command = pinned(cores, std::env::current_exe()?.as_os_str());
        command.args(["proxy", "backend", "--threads", &threads.to_string()]);
        command.args(["--clear", &format!("127.0.0.1:{clear}")]);
        command.args(["--mutual-tls", &format!("127.0.0.1:{mutual_tls}")]);
        command.arg("--directory").arg(directory);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the backend")?;
        let questions = process.stdin.take().context("no input")?;
        let answers = BufReader::new(process.stdout.take().context("no output")?);
        Ok(Self {
            process,
            questions,
            answers,
        })
    }

    pub(super) fn ask(&mut self, question: &Question) -> Result<Answer> {
        writeln!(self.questions, "{}", serde_json::to_string(question)?)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Result<Answer, String> =
            serde_json::from_str(&line).context("the backend is gone")?;
        answer.map_err(|error| anyhow!(error))
    }
}

/// Below it a copy is cheaper than the kernel's splice.
const WORTH_A_FILE: usize = 16 * 1024;
