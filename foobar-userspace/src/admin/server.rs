//! The socket's end in the controller: a line of JSON in, a line of JSON out, one question a connection.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Question,
    api::{Refusal, Request, Response},
};

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}; name another with [admin] socket")]
pub struct ListenError {
    path: String,
    source: io::Error,
}

/// Longest question, in bytes: a block list by `set add` is the longest.
const LONGEST: u64 = 16 << 20;
/// How long a client may take over its question.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes the socket over from a controller that ended. Only who holds the node's lock may call this.
///
/// # Errors
/// When the path cannot be bound.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError {
        path: path.display().to_string(),
        source,
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Hands questions to the controller until it is gone.
pub async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>) {
    while !questions.is_closed() {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, questions.clone()));
            }
            Err(error) => {
                tracing::warn!("cannot accept on the administration socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: UnixStream, questions: mpsc::Sender<Question>) {
    let mut line = String::new();
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader).take(LONGEST);
    let Ok(Ok(_)) = timeout(PATIENCE, reader.read_line(&mut line)).await else {
        return;
    };
    let answer = match serde_json::from_str(&line) {
        Ok(request) => ask(request, &questions).await,
        Err(error) => Err(Refusal::Conflict {
            message: format!("not a question of this version: {error}"),
        }),
    };
    if let Ok(mut text) = serde_json::to_string(&answer) {
        text.push('\n');
        // A client that left wants no answer.
        let _ = writer.write_all(text.as_bytes()).await;
    }
}

async fn ask(request: Request, questions: &mpsc::Sender<Question>) -> Result<Response, Refusal> {
    let ended = || Refusal::Failed {
        message: "the controller is ending".to_owned(),
    };
    let (answer, answered) = oneshot::channel();
    questions
        .send(Question { request, answer })
        .await
        .map_err(|_| ended())?;
    answered.await.unwrap_or_else(|_| Err(ended()))
}
