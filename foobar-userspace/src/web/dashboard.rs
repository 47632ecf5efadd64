//! The dashboard: one page from this binary, and a stream of what happens each second.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;

use super::Newest;
use crate::monitor::{Snapshot, view::view};

pub fn routes() -> Router<Newest> {
    let history = History::default();
    Router::new()
        .route(
            "/",
            get(|| async {
                page(
                    "text/html; charset=utf-8",
                    include_str!("dashboard/index.html"),
                )
            }),
        )
        .route(
            "/style.css",
            get(|| async {
                page(
                    "text/css; charset=utf-8",
                    include_str!("dashboard/style.css"),
                )
            }),
        )
        .route(
            "/dashboard.js",
            get(|| async {
                page(
                    "text/javascript; charset=utf-8",
                    include_str!("dashboard/dashboard.js"),
                )
            }),
        )
        .route(
            "/events",
            get(move |State(newest): State<Newest>| events(history.clone(), newest)),
        )
}

/// Nothing from elsewhere, nothing inline, in nobody's frame.
fn page(content_type: &'static str, text: &'static str) -> Response {
    (
        [
            (header::CONTENT_TYPE, content_type),
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            ),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        text,
    )
        .into_response()
}

/// Five minutes of what was drawn, so that a page that opens is not empty.
#[derive(Clone, Debug, Default)]
struct History(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    frames: VecDeque<Arc<str>>,
    begun: bool,
}

impl History {
    /// Follows the snapshots from the first visitor on: a dashboard that nobody opens costs nothing.
    fn begin(&self, newest: &Newest) {
        let mut kept = self.lock();
        if kept.begun {
            return;
        }
        kept.begun = true;
        let history = self.clone();
        let mut newest = newest.clone();
        tokio::spawn(async move {
            while newest.changed().await.is_ok() {
                if let Some(frame) = frame(&newest) {
                    let mut kept = history.lock();
                    kept.frames.push_back(frame);
                    if kept.frames.len() > KEPT {
                        kept.frames.pop_front();
                    }
                }
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> String {
        let kept = self.lock();
        let frames: Vec<&str> = kept.frames.iter().map(AsRef::as_ref).collect();
        format!("[{}]", frames.join(","))
    }
}

async fn events(
    history: History,
    newest: Newest,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    history.begin(&newest);
    let past = Event::default().event("history").data(history.all());
    let live = stream::unfold(newest, |mut newest| async move {
        loop {
            newest.changed().await.ok()?;
            if let Some(frame) = frame(&newest) {
                return Some((Event::default().event("frame").data(frame.as_ref()), newest));
            }
        }
    });
    Sse::new(stream::iter([past]).chain(live).map(Ok)).keep_alive(KeepAlive::default())
}

fn frame(newest: &watch::Receiver<Option<Arc<Snapshot>>>) -> Option<Arc<str>> {
    let snapshot = newest.borrow().clone()?;
    serde_json::to_string(&view(&snapshot)).ok().map(Arc::from)
}

const KEPT: usize = 300;
