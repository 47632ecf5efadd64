//! Writes lines into the files that `[log]` names.

use std::{path::PathBuf, sync::Arc};

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
        let LogTo::File(path) = &terms.to else {
            continue;
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

fn terms(log: &Log, stream: Stream) -> Option<&LogFile> {
    match stream {
        Stream::Access => Some(&log.access.file),
        Stream::Audit => Some(&log.audit),
        Stream::Drops => Some(&log.drops.file),
        // The journal has them.
        Stream::Alerts => None,
    }
}
