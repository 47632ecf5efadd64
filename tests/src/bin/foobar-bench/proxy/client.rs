//! A TLS client that only greets, and one that only waits.

use std::{
    io::Read as _,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{backend, same_share::SameShare};

#[derive(Debug, Args)]
pub(super) struct Handshakes {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    seconds: u64,
    #[arg(long)]
    resumed: bool,
}

#[derive(Debug, Args)]
pub(super) struct Idle {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    connections: usize,
}

/// Prints how many handshakes there were.
pub(super) fn handshakes(options: &Handshakes) -> Result<()> {
    let Handshakes {
        port,
        seconds,
        resumed,
    } = *options;
    runtime()?.block_on(async move {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            // A ticket serves once: each client keeps its own.
            let connector = connector(resumed)?;
            clients.spawn(async move {
                let mut count = 0_u64;
                while Instant::now() < end {
                    let mut stream = connect(&connector, port).await?;
                    if resumed {
                        // Tickets come after the handshake, with the first answer at the latest.
                        ask(&mut stream).await?;
                    }
                    count += 1;
                }
                anyhow::Ok(count)
            });
        }
        let mut total = 0;
        while let Some(count) = clients.join_next().await {
            total += count??;
        }
        println!("{total}");
        anyhow::Ok(())
    })
}

/// Opens connections, asks once on each, and waits until its input ends.
pub(super) fn idle(options: &Idle) -> Result<()> {
    let Idle { port, connections } = *options;
    runtime()?.block_on(async move {
        let connector = connector(false)?;
        let mut streams = Vec::with_capacity(connections);
        while streams.len() < connections {
            let mut opening = JoinSet::new();
            for _ in 0..(connections - streams.len()).min(100) {
                let connector = connector.clone();
                opening.spawn(async move {
                    let mut stream = connect(&connector, port).await?;
                    ask(&mut stream).await?;
                    anyhow::Ok(stream)
                });
            }
            while let Some(stream) = opening.join_next().await {
                streams.push(stream??);
            }
        }
        println!("ready");
        let _ = std::io::stdin().read(&mut [0; 1]);
        anyhow::Ok(())
    })
}

pub(super) async fn connect(connector: &TlsConnector, port: u16) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    // No TIME_WAIT: ports would run out.
    stream.set_zero_linger()?;
    let name = ServerName::try_from("www.foobar.com")?;
    connector.connect(name, stream).await.context("handshake")
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> Result<()> {
    stream
        .write_all(b"GET /1k HTTP/1.1\r\nHost: www.foobar.com\r\n\r\n")
        .await?;
    let mut answer = [0; 4096];
    let mut length = 0;
    while length < 1024 {
        let count = stream.read(&mut answer[length..]).await?;
        anyhow::ensure!(count > 0, "no answer");
        length += count;
    }
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "a bad answer");
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    backend::runtime(thread::available_parallelism()?.get())
}

/// The server is the one under test: checking it would measure the client.
pub(super) fn connector(resumes: bool) -> Result<TlsConnector> {
    // AES-128 first, as browsers have it; whoever follows the client's order is spared SHA-384. X25519 alone: OpenSSL 3.0,
    // which is under nginx and HAProxy, has no ML-KEM, and foobar would do more work than they.
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![&SameShare],
        ..(*foobar::proxy::tls::provider()).clone()
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked))
        .with_no_client_auth();
    // For [`super::caller`], which goes on without rustls.
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = if resumes {
        Resumption::in_memory_sessions(4)
    } else {
        Resumption::disabled()
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}

const CLIENTS: usize = 32;
