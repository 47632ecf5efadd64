//! The socket's end in the controller: HTTP over a Unix socket, one route a request.

use std::{
    convert::Infallible,
    fmt, fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::{self as unix, PermissionsExt as _},
            net,
        },
    },
    path::Path,
    sync::Arc,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        ConnectInfo, DefaultBodyLimit, Path as RoutePath, Query, State,
        connect_info::Connected,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
    routing::get,
    serve::IncomingStream,
};
use futures::stream;
use schemars::schema_for;
use serde_json::{Map, Value, json};
use tokio::{
    net::UnixListener,
    sync::{broadcast, mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    Deed, Feeds, Question,
    access::{Access, Caller},
    accounts,
    api::{Refusal, Request, Response},
    question,
};
use crate::monitor::lines::Stream;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {path}; name another with [admin] socket")]
    Bind { path: String, source: io::Error },
    #[error(
        "there is no group `{group}`; create it (`groupadd --system {group}`) or name another with [admin] group"
    )]
    NoGroup { group: String },
    #[error("cannot give {path} to the group `{group}`; run as root, or as a member of it")]
    Group {
        path: String,
        group: String,
        source: io::Error,
    },
}

/// Longest question, in bytes: a block list by `set-add` is the longest.
const LONGEST: usize = 16 << 20;

/// Takes the socket over from a controller that ended. Only who holds the node's lock may call this.
///
/// # Errors
/// When the path cannot be bound, or given to the group.
pub fn listen(path: &Path, group: Option<&str>) -> Result<net::UnixListener, ListenError> {
    let shown = || path.display().to_string();
    let failed = |source| ListenError::Bind {
        path: shown(),
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
    if let Some(group) = group {
        let gid = accounts::gid_of(group).ok_or_else(|| ListenError::NoGroup {
            group: group.to_owned(),
        })?;
        unix::chown(path, None, Some(gid)).map_err(|source| ListenError::Group {
            path: shown(),
            group: group.to_owned(),
            source,
        })?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    }
    Ok(listener)
}

/// Where questions come in; closed for a while when another process shall answer them.
#[derive(Debug)]
pub struct Door {
    listener: net::UnixListener,
    desk: Arc<Desk>,
    open: Option<AbortHandle>,
}

impl Door {
    /// `record` is told of every change that was asked for, `feeds` are followed. Needs a runtime.
    ///
    /// # Errors
    /// When the socket cannot be listened on.
    pub fn open(
        listener: net::UnixListener,
        record: impl Fn(Deed) + Send + Sync + 'static,
        feeds: Feeds,
    ) -> io::Result<(Self, mpsc::Receiver<Question>)> {
        listener.set_nonblocking(true)?;
        let (questions, inbox) = mpsc::channel(16);
        let desk = Desk {
            questions,
            own_uid: rustix::process::geteuid().as_raw(),
            record: Box::new(record),
            feeds,
        };
        let mut door = Self {
            listener,
            desk: Arc::new(desk),
            open: None,
        };
        door.reopen()?;
        Ok((door, inbox))
    }

    /// # Errors
    /// When the socket cannot be listened on.
    pub fn reopen(&mut self) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let task = tokio::spawn(serve(listener, self.desk.clone()));
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
async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    let ended = {
        let questions = desk.questions.clone();
        async move { questions.closed().await }
    };
    let service = routes(desk).into_make_service_with_connect_info::<Caller>();
    let served = axum::serve(listener, service).with_graceful_shutdown(ended);
    if let Err(error) = served.await {
        tracing::error!("the administration socket serves no more: {error}");
    }
}

fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1", get(describe))
        .route("/v1/follow/{stream}", get(follow))
        .route("/v1/{request}", get(read).post(write))
        .layer(DefaultBodyLimit::max(LONGEST))
        .with_state(desk)
}

struct Desk {
    questions: mpsc::Sender<Question>,
    own_uid: u32,
    record: Box<dyn Fn(Deed) + Send + Sync>,
    feeds: Feeds,
}

impl fmt::Debug for Desk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(credentials) => Self {
                uid: credentials.uid(),
                gid: credentials.gid(),
                pid: credentials.pid(),
            },
            // Whom the kernel does not name may change nothing.
            Err(_) => Self {
                uid: u32::MAX,
                gid: u32::MAX,
                pid: None,
            },
        }
    }
}

/// The API itself, as JSON schemas.
async fn describe() -> HttpResponse {
    axum::Json(json!({
        "schema": "foobar/api/v1",
        "use": "GET /v1/NAME?FIELD=VALUE reads; POST /v1/NAME with the fields as a JSON object reads or changes",
        "requests": schema_for!(Request),
        "responses": schema_for!(Response),
        "refusals": schema_for!(Refusal),
    }))
    .into_response()
}

/// Lines of a log as they come, one JSON object each, until the one who asked leaves.
async fn follow(State(desk): State<Arc<Desk>>, RoutePath(name): RoutePath<String>) -> HttpResponse {
    let Some(wanted) = Stream::named(&name) else {
        let known = Stream::ALL.map(Stream::name).join(", ");
        return answer(Err(Refusal::NotFound {
            message: format!("there is no log `{name}`; there is {known}"),
        }));
    };
    let lines = match wanted {
        Stream::Drops => desk.feeds.drops.subscribe(),
        Stream::Access | Stream::Alerts | Stream::Audit => desk.feeds.lines.subscribe(),
    };
    let body = stream::unfold(lines, move |mut lines| async move {
        loop {
            match lines.recv().await {
                Ok(line) if line.stream == wanted => {
                    let text = format!("{}\n", line.text);
                    return Some((Ok::<_, Infallible>(text), lines));
                }
                // One who reads too slowly misses some; the files have them.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    (
        [(header::CONTENT_TYPE, "application/jsonl")],
        Body::from_stream(body),
    )
        .into_response()
}

async fn read(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    RoutePath(name): RoutePath<String>,
    query: Result<Query<Map<String, Value>>, QueryRejection>,
) -> HttpResponse {
    let fields = match query {
        Ok(Query(fields)) => Some(Value::Object(fields)),
        Err(rejection) => return answer(Err(unreadable(&rejection))),
    };
    answer(desk.ask(caller, &Method::GET, &name, fields).await)
}

async fn write(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    RoutePath(name): RoutePath<String>,
    body: Result<Bytes, BytesRejection>,
) -> HttpResponse {
    let fields = match body {
        Ok(body) if body.is_empty() => None,
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(fields) => Some(fields),
            Err(error) => return answer(Err(unreadable(&error))),
        },
        Err(rejection) => return answer(Err(unreadable(&rejection))),
    };
    answer(desk.ask(caller, &Method::POST, &name, fields).await)
}

fn unreadable(error: &dyn std::error::Error) -> Refusal {
    Refusal::Conflict {
        message: format!("the question cannot be read: {error}"),
    }
}

impl Desk {
    async fn ask(
        &self,
        caller: Caller,
        method: &Method,
        name: &str,
        fields: Option<Value>,
    ) -> Result<Response, Refusal> {
        let request = question::read(name, fields)?;
        let access = request.access();
        if access == Access::Read {
            return self.forward(request).await;
        }
        let result = match (caller.may(access, self.own_uid), method) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), &Method::GET) => Err(Refusal::Conflict {
                message: format!("/v1/{name} changes something: POST it"),
            }),
            (Ok(()), _) => self.forward(request.clone()).await,
        };
        (self.record)(Deed::new(caller, &request, result.as_ref().err()));
        result
    }

    async fn forward(&self, request: Request) -> Result<Response, Refusal> {
        let ended = || Refusal::Failed {
            message: "the controller is ending".to_owned(),
        };
        let (answer, answered) = oneshot::channel();
        self.questions
            .send(Question { request, answer })
            .await
            .map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn answer(result: Result<Response, Refusal>) -> HttpResponse {
    let (status, body) = match &result {
        Ok(response) => (StatusCode::OK, serde_json::to_vec(response)),
        Err(refusal) => (status(refusal), serde_json::to_vec(refusal)),
    };
    match body {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::NotFound { .. } => StatusCode::NOT_FOUND,
        Refusal::Conflict { .. } => StatusCode::CONFLICT,
        Refusal::BadConfiguration { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::NotPermitted { .. } => StatusCode::FORBIDDEN,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        path::PathBuf,
        sync::Mutex,
    };

    use tokio::task;

    use super::*;
    use crate::admin::client::{self, ClientError};

    /// A controller that knows one set.
    fn office() -> (tempfile::TempDir, PathBuf, Arc<Mutex<Vec<Deed>>>) {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("admin.sock");
        let listener = listen(&socket, None).expect("listening");
        let deeds = Arc::new(Mutex::new(Vec::new()));
        let book = deeds.clone();
        let record = move |deed| book.lock().expect("one writer").push(deed);
        let (door, mut asked) = Door::open(listener, record, Feeds::new(1)).expect("a door");
        tokio::spawn(async move {
            let _door = door;
            while let Some(question) = asked.recv().await {
                let answer = match question.request {
                    Request::SetFlush { set } if set == "jail" => Ok(Response::Done {
                        message: "flushed".to_owned(),
                    }),
                    Request::ConfigShow => Ok(Response::ConfigText("version = 1\n".to_owned())),
                    _ => Err(Refusal::NotFound {
                        message: "no such set".to_owned(),
                    }),
                };
                let _ = question.answer.send(answer);
            }
        });
        (directory, socket, deeds)
    }

    async fn ask(socket: &Path, request: Request) -> Result<Response, ClientError> {
        let socket = socket.to_owned();
        task::spawn_blocking(move || client::ask(&socket, &request))
            .await
            .expect("no panic")
    }

    async fn raw(socket: &Path, question: &'static str) -> String {
        let socket = socket.to_owned();
        task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(socket).expect("connected");
            stream.write_all(question.as_bytes()).expect("asked");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            answer
        })
        .await
        .expect("no panic")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_is_answered_and_written_down_with_who_asked() {
        let (_directory, socket, deeds) = office();
        let flush = |set: &str| Request::SetFlush {
            set: set.to_owned(),
        };
        let answer = ask(&socket, flush("jail")).await.expect("an answer");
        assert!(matches!(answer, Response::Done { message } if message == "flushed"));
        let refused = ask(&socket, flush("gaol")).await.expect_err("a refusal");
        assert!(matches!(
            refused,
            ClientError::Refused(Refusal::NotFound { .. })
        ));
        ask(&socket, Request::ConfigShow).await.expect("an answer");
        let deeds = deeds.lock().expect("one writer");
        let told: Vec<_> = deeds
            .iter()
            .map(|deed| (deed.request.as_str(), deed.result.as_str(), deed.caller.uid))
            .collect();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(
            told,
            [
                ("set-flush", "done", own),
                ("set-flush", "no such set", own)
            ],
            "reading is not written down"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn plain_http_reads_and_a_get_changes_nothing() {
        let (_directory, socket, _) = office();
        let read = raw(
            &socket,
            "GET /v1/config-show HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(read.starts_with("HTTP/1.1 200"), "{read}");
        assert!(
            read.ends_with("{\"config-text\":\"version = 1\\n\"}"),
            "{read}"
        );
        let change = raw(
            &socket,
            "GET /v1/set-flush?set=jail HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(change.starts_with("HTTP/1.1 409"), "{change}");
        assert!(change.contains("POST it"), "{change}");
        let api = raw(
            &socket,
            "GET /v1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(api.contains("foobar/api/v1"), "{api}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_socket_is_for_its_owner_alone_unless_a_group_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let mode = || {
            let metadata = fs::metadata(&path).expect("there");
            metadata.permissions().mode() & 0o777
        };
        let _listener = listen(&path, None).expect("listening");
        assert_eq!(mode(), 0o600);
        let refused = listen(&path, Some("no-such-group")).expect_err("no group");
        assert!(refused.to_string().contains("groupadd"), "{refused}");
        if rustix::process::geteuid().is_root() {
            let _listener = listen(&path, Some("daemon")).expect("listening");
            assert_eq!(mode(), 0o660);
        }
    }
}
