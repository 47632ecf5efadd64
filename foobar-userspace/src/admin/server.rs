//! The socket's end in the controller: a line of JSON in, a line of JSON out, one question a connection.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::PermissionsExt as _, net},
    },
    path::Path,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::AbortHandle,
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
pub fn listen(path: &Path) -> Result<net::UnixListener, ListenError> {
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
    let listener = net::UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Where questions come in; closed for a while when another process shall answer them.
#[derive(Debug)]
pub struct Door {
    listener: net::UnixListener,
    questions: mpsc::Sender<Question>,
    open: Option<AbortHandle>,
}

impl Door {
    /// Needs a runtime.
    ///
    /// # Errors
    /// When the socket cannot be listened on.
    pub fn open(listener: net::UnixListener) -> io::Result<(Self, mpsc::Receiver<Question>)> {
        listener.set_nonblocking(true)?;
        let (questions, inbox) = mpsc::channel(16);
        let mut door = Self {
            listener,
            questions,
            open: None,
        };
        door.reopen()?;
        Ok((door, inbox))
    }

    /// # Errors
    /// When the socket cannot be listened on.
    pub fn reopen(&mut self) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let task = tokio::spawn(serve(listener, self.questions.clone()));
        self.close();
        self.open = Some(task.abort_handle());
        Ok(())
    }

    /// Who asks from now on waits.
    pub fn close(&mut self) {
        if let Some(task) = self.open.take() {
            task.abort();
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Hands questions to the controller until it is gone.
async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>) {
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
