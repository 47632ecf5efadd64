//! What a node shows over HTTP, read-only: metrics and health for those who fetch, the dashboard for people.

mod dashboard;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

use crate::monitor::{
    Snapshot,
    exposition::{self, CONTENT_TYPE},
};

/// The newest snapshot; nothing before the first.
pub type Newest = watch::Receiver<Option<Arc<Snapshot>>>;

/// What an address serves.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Page {
    Dashboard,
    Metrics,
}

/// Serves until it is dropped.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, page: Page, newest: Newest) -> io::Result<()> {
    let router = match page {
        Page::Dashboard => dashboard::routes(),
        Page::Metrics => Router::new().route("/metrics", get(metrics)),
    };
    let router = router
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(newest);
    axum::serve(listener, router).await
}

async fn metrics(State(newest): State<Newest>) -> Response {
    let Some(snapshot) = newest.borrow().clone() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "nothing was counted yet\n").into_response();
    };
    match exposition::render(Arc::unwrap_or_clone(snapshot)) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The process lives, and its sampler with it.
async fn health(State(mut newest): State<Newest>) -> Response {
    newest.mark_unchanged();
    match tokio::time::timeout(STALE, newest.changed()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n").into_response(),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no snapshot was taken for a while\n",
        )
            .into_response(),
    }
}

/// In service, with the configuration that was asked for.
async fn readiness(State(newest): State<Newest>) -> Response {
    let ready = newest
        .borrow()
        .as_ref()
        .and_then(|snapshot| snapshot.controller.as_ref())
        .map(|controller| !controller.reload_failed);
    match ready {
        Some(true) => (StatusCode::OK, "ready\n").into_response(),
        Some(false) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the last reload failed; what ran before goes on\n",
        )
            .into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "not in service yet\n").into_response(),
    }
}

const STALE: Duration = Duration::from_secs(3);
