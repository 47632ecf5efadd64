//! The socket's end in a command.

use std::{io, ops::ControlFlow, path::Path, time::Duration};

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
use crate::monitor::lines::Stream;

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

/// Hands over the lines of a log as they come, until `each` breaks off or the controller ends.
///
/// # Errors
/// When nobody answers, or there is no such log.
pub fn follow(
    socket: &Path,
    log: Stream,
    mut each: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<(), ClientError> {
    runtime()
        .map_err(|error| broken(socket, error))?
        .block_on(async {
            let route = format!("/v1/follow/{}", log.name());
            let response = send(socket, Method::GET, &route, Vec::new()).await?;
            let status = response.status();
            let mut body = response.into_body();
            let mut waiting = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| broken(socket, error))?;
                waiting.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
                while status == StatusCode::OK
                    && let Some(end) = waiting.iter().position(|byte| *byte == b'\n')
                {
                    let line: Vec<u8> = waiting.drain(..=end).collect();
                    if each(String::from_utf8_lossy(&line).trim_end()).is_break() {
                        return Ok(());
                    }
                }
            }
            match status {
                StatusCode::OK => Ok(()),
                _ => Err(ClientError::Refused(
                    serde_json::from_slice(&waiting).map_err(ClientError::Version)?,
                )),
            }
        })
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
