//! Writes lines where `[log]` says: into files, or into the journal with their fields.

use std::{path::PathBuf, sync::Arc};

use serde_json::{Map, Value as Json};
use tokio::{
    sync::{broadcast, watch},
    task,
};

use super::{chain, facts::Facts};
use crate::{
    config::{Log, LogFile, LogTo},
    logbook::Logbook,
    monitor::lines::{Line, Stream},
};

pub async fn run(
    node: String,
    facts: watch::Receiver<Arc<Facts>>,
    mut lines: broadcast::Receiver<Arc<Line>>,
) {
    let mut logbook = Logbook::default();
    let mut failed = false;
    loop {
        let line = match lines.recv().await {
            Ok(line) => line,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                tracing::warn!(
                    "the logs could not be written as fast as they came: {lost} lines are lost"
                );
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let config = facts.borrow().config.clone();
        let Some(terms) = terms(&config.log, line.stream) else {
            continue;
        };
        let path = match &terms.to {
            LogTo::File(path) => path,
            LogTo::Journal => {
                journal(&line);
                continue;
            }
            LogTo::Nowhere => continue,
        };
        let path = PathBuf::from(path.to_string_lossy().replace("{node}", &node));
        let written = task::block_in_place(|| logbook.write(line.stream, &path, terms, &line.text));
        match written {
            Ok(()) => failed = false,
            // Once, until it goes well again: a full disk must not fill the journal too.
            Err(error) if !failed => {
                failed = true;
                tracing::error!("{}", chain(&error));
            }
            Err(_) => {}
        }
    }
}

/// The fields of a line become those of the journal: `journalctl TARGET=access STATUS=502`.
fn journal(line: &Line) {
    let fields: Map<String, Json> = serde_json::from_str(&line.text).unwrap_or_default();
    let text = |name: &str| fields.get(name).and_then(Json::as_str);
    let number = |name: &str| fields.get(name).and_then(Json::as_u64);
    let seconds = fields.get("seconds").and_then(Json::as_f64);
    let given = fields.get("fields").map(tracing::field::display);
    match line.stream {
        // The combined format has no fields.
        Stream::Access if fields.is_empty() => tracing::info!(target: "access", "{}", line.text),
        Stream::Access => tracing::info!(
            target: "access",
            service = text("site"),
            client = text("client"),
            method = text("method"),
            host = text("host"),
            path = text("path"),
            status = number("status"),
            backend = text("backend"),
            seconds,
            bytes_in = number("bytes-in"),
            bytes_out = number("bytes-out"),
            user_agent = text("user-agent"),
            remark = text("remark"),
            "answered",
        ),
        Stream::Audit => tracing::info!(
            target: "audit",
            user = text("user").unwrap_or("?"),
            uid = number("uid"),
            pid = number("pid"),
            request = text("request"),
            fields = given,
            result = text("result"),
            "asked",
        ),
        Stream::Drops => tracing::info!(
            target: "drops",
            interface = text("interface"),
            reason = text("reason"),
            rule = text("rule"),
            src = text("src"),
            dst = text("dst"),
            proto = text("proto"),
            sport = number("sport"),
            dport = number("dport"),
            "dropped",
        ),
        Stream::Alerts => {}
    }
}

fn terms(log: &Log, stream: Stream) -> Option<&LogFile> {
    match stream {
        Stream::Access => Some(&log.access.file),
        Stream::Audit => Some(&log.audit),
        Stream::Drops => Some(&log.drops.file),
        // The journal was told by who tells everyone.
        Stream::Alerts => None,
    }
}
