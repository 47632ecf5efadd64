//! Carries messages out: HTTP requests to collectors and webhooks, and programs that take one on their standard input.

use std::{io, process::Stdio, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Uri, body::Bytes, header};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};
use tokio::{io::AsyncWriteExt as _, process::Command, time};

use crate::config::Revealed;

/// Keeps its connections between messages.
#[derive(Clone, Debug)]
pub struct Courier {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What is sent. Where to is a secret: whoever knows the URL may write there.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub url: Revealed,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
}

/// Why a message did not arrive. No variant holds the URL.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    #[error("the secret is not a URL; it begins with http:// or https://")]
    Url,
    #[error("a header cannot be sent")]
    Header(#[source] hyper::http::Error),
    #[error("nobody answers")]
    NoAnswer(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off")]
    BrokenAnswer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} seconds", PATIENCE.as_secs())]
    Slow,
    #[error("cannot start {program}")]
    Start { program: String, source: io::Error },
    #[error("{program} ended with {status}")]
    Ended { program: String, status: String },
    #[error("{program} did not end within {} seconds and was killed", PATIENCE.as_secs())]
    Endless { program: String },
}

impl Courier {
    /// Trusts the certificate authorities of this machine.
    #[must_use]
    pub fn new() -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls())
            .https_or_http()
            .enable_http1()
            .build();
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_idle_timeout(Duration::from_secs(90))
                .build(connector),
        }
    }

    /// # Errors
    /// When no answer came; one that refuses is an answer.
    pub async fn post(&self, parcel: Parcel) -> Result<Answer, CourierError> {
        let uri: Uri = parcel.url.expose().parse().map_err(|_| CourierError::Url)?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(CourierError::Url);
        }
        let mut request = Request::post(uri).header(header::USER_AGENT, USER_AGENT);
        for (name, value) in parcel.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(parcel.body)))
            .map_err(CourierError::Header)?;
        let conversation = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(CourierError::NoAnswer)?;
            let answer = Answer {
                status: response.status().as_u16(),
                retry_after: response
                    .headers()
                    .get(header::RETRY_AFTER)
                    .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                    .map(Duration::from_secs),
            };
            // Read to its end, so that the connection serves again.
            Limited::new(response.into_body(), LONGEST_ANSWER)
                .collect()
                .await
                .map_err(CourierError::BrokenAnswer)?;
            Ok(answer)
        };
        time::timeout(PATIENCE, conversation)
            .await
            .unwrap_or(Err(CourierError::Slow))
    }

    /// Runs a program, without a shell, until it ends.
    ///
    /// # Errors
    /// When it does not start, ends badly or does not end.
    pub async fn run(&self, words: &[String], input: &[u8]) -> Result<(), CourierError> {
        let [program, arguments @ ..] = words else {
            return Ok(());
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| CourierError::Start {
                program: program.clone(),
                source,
            })?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read ends by itself.
            let _ = stdin.write_all(input).await;
        }
        match time::timeout(PATIENCE, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(CourierError::Ended {
                program: program.clone(),
                status: status.to_string(),
            }),
            Ok(Err(source)) => Err(CourierError::Start {
                program: program.clone(),
                source,
            }),
            Err(_) => Err(CourierError::Endless {
                program: program.clone(),
            }),
        }
    }
}

impl Default for Courier {
    fn default() -> Self {
        Self::new()
    }
}

/// A machine without certificate authorities still reaches what is not encrypted.
fn tls() -> ClientConfig {
    let provider = std::sync::Arc::new(provider());
    let builder = || {
        ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for TLS 1.2 and 1.3")
    };
    match builder().with_native_roots() {
        Ok(builder) => builder.with_no_client_auth(),
        Err(error) => {
            tracing::warn!("no certificate authorities on this machine: {error}");
            builder()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth()
        }
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

const USER_AGENT: &str = concat!("foobar/", env!("CARGO_PKG_VERSION"));
const PATIENCE: Duration = Duration::from_secs(15);
const LONGEST_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request with this text; the request is what comes out.
    async fn collector(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/secret", listener.local_addr().expect("bound"));
        let request = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut request = vec![0; 4_096];
            let length = stream.read(&mut request).await.expect("read");
            stream.write_all(answer.as_bytes()).await.expect("written");
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (url, request)
    }

    fn parcel(url: String) -> Parcel {
        Parcel {
            url: url.into(),
            headers: vec![("x-test", "1".to_owned())],
            body: b"hello".to_vec(),
        }
    }

    #[tokio::test]
    async fn an_answer_tells_its_status_and_when_to_come_back() {
        let (url, request) =
            collector("HTTP/1.1 429 Slow down\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n")
                .await;
        let answer = Courier::new().post(parcel(url)).await.expect("an answer");
        assert_eq!(
            answer,
            Answer {
                status: 429,
                retry_after: Some(Duration::from_secs(7))
            }
        );
        let request = request.await.expect("no panic").to_lowercase();
        assert!(request.starts_with("post /secret http/1.1"), "{request}");
        assert!(request.contains("x-test: 1"), "{request}");
    }

    #[tokio::test]
    async fn no_error_tells_the_url() {
        for url in [
            "http://127.0.0.1:1/s3cret",
            "ftp://127.0.0.1/s3cret",
            "s3cret",
            "http://[s3cret",
        ] {
            let error = Courier::new()
                .post(parcel(url.to_owned()))
                .await
                .expect_err("nobody there");
            let mut text = format!("{error} {error:?}");
            let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
            while let Some(error) = cause {
                text = format!("{text} {error} {error:?}");
                cause = error.source();
            }
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_program_gets_the_message_and_its_failure_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("got");
        let words = [
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            format!("cat > {}", path.display()),
        ];
        let courier = Courier::new();
        courier.run(&words, b"hello").await.expect("run");
        assert_eq!(std::fs::read(&path).expect("written"), b"hello");
        let error = courier
            .run(&["/bin/false".to_owned()], b"")
            .await
            .expect_err("false");
        assert!(error.to_string().contains("/bin/false"), "{error}");
    }
}
