//! The socket's end in a command.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request as HttpRequest, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, runtime, time};

use super::{
    api::{Refusal, Request, Response},
    question,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no controller answers at {path}; start it with `foobar run`, or name another socket with --socket"
    )]
    NotRunning { path: String, source: io::Error },
    #[error(
        "{path} may not be used by you; try again as root, or as a member of the group that [admin] names"
    )]
    NotPermitted { path: String, source: io::Error },
    #[error("the conversation on {path} broke off")]
    Broken { path: String, source: io::Error },
    #[error("the controller speaks another version; restart it")]
    Version(#[source] serde_json::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A reload of a large configuration is the longest that a controller thinks about.
const PATIENCE: Duration = Duration::from_secs(60);

/// # Errors
/// When nobody answers, or the controller refuses.
pub fn ask(socket: &Path, request: &Request) -> Result<Response, ClientError> {
    let (name, fields) = question::write(request);
    let body = serde_json::to_vec(&fields).map_err(ClientError::Version)?;
    let (status, answer) = patiently(socket, async {
        let response = send(socket, Method::POST, &format!("/v1/{name}"), body).await?;
        let status = response.status();
        let answer = response.into_body().collect().await;
        let answer = answer.map_err(|error| broken(socket, error))?;
        Ok((status, answer.to_bytes()))
    })?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&answer).map_err(ClientError::Version);
    }
    let refusal: Refusal = serde_json::from_slice(&answer).map_err(ClientError::Version)?;
    Err(refusal.into())
}

fn patiently<T>(
    socket: &Path,
    conversation: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    runtime()
        .map_err(|error| broken(socket, error))?
        .block_on(async {
            time::timeout(PATIENCE, conversation)
                .await
                .unwrap_or_else(|_| Err(broken(socket, io::ErrorKind::TimedOut)))
        })
}

fn runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

async fn send(
    socket: &Path,
    method: Method,
    route: &str,
    body: Vec<u8>,
) -> Result<hyper::Response<Incoming>, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let path = socket.display().to_string();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path, source },
            _ => ClientError::NotRunning { path, source },
        }
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(socket, error))?;
    tokio::spawn(connection);
    let request = HttpRequest::builder()
        .method(method)
        .uri(route)
        .header(header::HOST, "foobar")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| broken(socket, io::Error::other(error)))?;
    sender
        .send_request(request)
        .await
        .map_err(|error| broken(socket, error))
}

fn broken(socket: &Path, error: impl Into<BrokenBy>) -> ClientError {
    ClientError::Broken {
        path: socket.display().to_string(),
        source: error.into().0,
    }
}

struct BrokenBy(io::Error);

impl From<io::Error> for BrokenBy {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl From<io::ErrorKind> for BrokenBy {
    fn from(kind: io::ErrorKind) -> Self {
        Self(kind.into())
    }
}

impl From<hyper::Error> for BrokenBy {
    fn from(error: hyper::Error) -> Self {
        Self(io::Error::other(error))
    }
}
