//! A TLS connection that asks one thing over and over, and costs less than the proxy that it measures.
//!
//! Every answer's length is checked by the headers of its records; what they hold is decrypted where it is asked for, and
//! dropped elsewhere: of a large answer in the kernel, uncopied.

use std::{io, ops::Range};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{RecvFlags, recv};
use rustls::{
    ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    crypto::cipher::{
        AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
        OutboundPlainMessage,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{backend::Path, client};

pub(super) struct Caller {
    stream: TcpStream,
    request: Vec<u8>,
    path: Path,
    /// Bytes of every answer, its head included.
    length: usize,
    sealer: Box<dyn MessageEncrypter>,
    /// Records so far.
    sealed: u64,
    opener: Box<dyn MessageDecrypter>,
    opened: u64,
    room: Box<[u8]>,
    /// What of the room was received and not looked at.
    ahead: Range<usize>,
    /// What was decrypted of an answer.
    answer: Vec<u8>,
}

/// What is done with an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    Count,
    Decrypt,
}

impl Caller {
    /// Greets, and asks for the first time by rustls alone.
    pub(super) async fn connect(connector: &TlsConnector, port: u16, path: Path) -> Result<Self> {
        let mut stream = client::connect(connector, port).await?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: www.foobar.com\r\n\r\n",
            path.name()
        );
        stream.write_all(request.as_bytes()).await?;
        let answer = first_answer(&mut stream, path).await?;
        let (stream, connection) = stream.into_inner();
        let suite = connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.tls13())
            .context("not TLS 1.3")?;
        let secrets = connection.dangerous_extract_secrets()?;
        let (sealed, (key, iv)) = (secrets.tx.0, key_of(secrets.tx.1)?);
        let sealer = suite.aead_alg.encrypter(key, iv);
        let (opened, (key, iv)) = (secrets.rx.0, key_of(secrets.rx.1)?);
        let opener = suite.aead_alg.decrypter(key, iv);
        let mut caller = Self {
            stream,
            request: request.into_bytes(),
            path,
            length: answer.len(),
            sealer,
            sealed: 0,
            opener,
            opened,
            room: vec![0; 2 * MOST].into_boxed_slice(),
            ahead: 0..0,
            answer,
        };
        // AWS-LC counts a key's records from its first, which has to be number 0. This one is sent to nobody.
        caller.seal()?;
        caller.sealed = sealed;
        Ok(caller)
    }

    /// Asks, and takes the whole answer.
    pub(super) async fn ask(&mut self, look: Look) -> Result<()> {
        let request = self.seal()?;
        self.stream.write_all(&request).await?;
        self.answer.clear();
        let mut taken = 0;
        while taken < self.length {
            taken += match look {
                Look::Count => self.count().await?,
                Look::Decrypt => self.decrypt().await?,
            };
        }
        ensure!(
            taken == self.length,
            "an answer of {taken} bytes instead of {}",
            self.length
        );
        match look {
            Look::Count => Ok(()),
            Look::Decrypt => check(&self.answer, self.path),
        }
    }

    fn seal(&mut self) -> Result<Vec<u8>> {
        let plain = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(&self.request),
        };
        let record = self.sealer.encrypt(plain, self.sealed)?;
        self.sealed += 1;
        Ok(record.encode())
    }

    /// Drops a record; how many bytes of the answer it held.
    async fn count(&mut self) -> Result<usize> {
        let length = self.header().await?;
        self.take(length, RecvFlags::TRUNC).await?;
        Ok(length - OVERHEAD)
    }

    async fn decrypt(&mut self) -> Result<usize> {
        let length = self.header().await?;
        let place = self.take(length, RecvFlags::empty()).await?;
        let sealed = InboundOpaqueMessage::new(
            ContentType::ApplicationData,
            ProtocolVersion::TLSv1_2,
            &mut self.room[place],
        );
        let plain = self.opener.decrypt(sealed, self.opened - 1)?;
        ensure!(
            plain.typ == ContentType::ApplicationData,
            "{:?} in an answer",
            plain.typ
        );
        self.answer.extend_from_slice(plain.payload);
        Ok(plain.payload.len())
    }

    /// Takes a record's header; how many bytes follow.
    async fn header(&mut self) -> Result<usize> {
        let place = self.take(HEADER, RecvFlags::empty()).await?;
        let [kind, _, _, high, low] = self.room[place] else {
            bail!("no header");
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        ensure!(kind == APPLICATION_DATA, "a record of kind {kind}");
        ensure!(
            (OVERHEAD..=MOST).contains(&length),
            "a record of {length} bytes"
        );
        self.opened += 1;
        Ok(length)
    }

    /// The next bytes of the stream, and where in the room they are. Of a small answer all that has come is received at
    /// once.
    async fn take(&mut self, length: usize, flags: RecvFlags) -> Result<Range<usize>> {
        if matches!(self.path, Path::Large) {
            receive(&self.stream, &mut self.room[..length], flags).await?;
            return Ok(0..length);
        }
        if self.ahead.is_empty() {
            self.ahead = 0..0;
        }
        while self.ahead.len() < length {
            let room = &mut self.room[self.ahead.end..];
            self.ahead.end += receive_some(&self.stream, room, RecvFlags::empty()).await?;
        }
        let place = self.ahead.start..self.ahead.start + length;
        self.ahead.start = place.end;
        Ok(place)
    }
}

/// Fills the room; with [`RecvFlags::TRUNC`] nothing is copied, tcp(7).
async fn receive(stream: &TcpStream, room: &mut [u8], flags: RecvFlags) -> Result<()> {
    let mut filled = 0;
    while filled < room.len() {
        filled += receive_some(stream, &mut room[filled..], flags).await?;
    }
    Ok(())
}

async fn receive_some(stream: &TcpStream, room: &mut [u8], flags: RecvFlags) -> Result<usize> {
    let read = || Ok(recv(stream, &mut *room, flags)?.1);
    match stream.async_io(Interest::READABLE, read).await? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        count => Ok(count),
    }
}

async fn first_answer(stream: &mut TlsStream<TcpStream>, path: Path) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    let end = loop {
        if let Some(head) = answer.windows(4).position(|part| part == b"\r\n\r\n") {
            break head + 4 + path.body().len();
        }
        ensure!(stream.read_buf(&mut answer).await? > 0, "no answer");
    };
    while answer.len() < end {
        ensure!(stream.read_buf(&mut answer).await? > 0, "no whole answer");
    }
    check(&answer, path)?;
    Ok(answer)
}

fn check(answer: &[u8], path: Path) -> Result<()> {
    let is_good = answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(path.body());
    ensure!(
        is_good,
        "a wrong answer: {}",
        String::from_utf8_lossy(&answer[..answer.len().min(500)])
    );
    Ok(())
}

fn key_of(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv)> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => Ok((key, iv)),
        _ => bail!("another cipher than the bench asks for"),
    }
}

/// RFC 8446 5.1.
const APPLICATION_DATA: u8 = 23;
/// RFC 8446 5.2.
const HEADER: usize = 5;
/// The inner type and the tag of AES-GCM, RFC 8446 5.2.
const OVERHEAD: usize = 1 + 16;
/// RFC 8446 5.2.
const MOST: usize = 16 * 1024 + 256;
