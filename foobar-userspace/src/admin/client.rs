//! The socket's end in a command.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::api::{Refusal, Request, Response};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no controller answers at {path}; start it with `foobar run`, or name another socket with --socket"
    )]
    NotRunning { path: String, source: io::Error },
    #[error("{path} may not be used by you; try again as root")]
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
    let path = || socket.display().to_string();
    let stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted {
            path: path(),
            source,
        },
        _ => ClientError::NotRunning {
            path: path(),
            source,
        },
    })?;
    let broken = |source| ClientError::Broken {
        path: path(),
        source,
    };
    let question = serde_json::to_string(request).map_err(ClientError::Version)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    (&stream)
        .write_all(format!("{question}\n").as_bytes())
        .map_err(broken)?;
    let mut line = String::new();
    BufReader::new(&stream)
        .read_line(&mut line)
        .map_err(broken)?;
    let answer: Result<Response, Refusal> =
        serde_json::from_str(&line).map_err(ClientError::Version)?;
    Ok(answer?)
}
