//! Listens where the configuration says that metrics and the dashboard are shown.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch, time};

use super::{facts::Facts, monitoring::Guarded};
use crate::{
    config::{Config, Listen},
    web::{self, Newest, Page},
};

pub async fn run(node: String, mut facts: watch::Receiver<Arc<Facts>>, newest: Newest) {
    let mut open: BTreeMap<(SocketAddr, Page), Guarded> = BTreeMap::new();
    loop {
        let wanted = wanted(&facts.borrow_and_update().config, &node);
        open.retain(|place, _| wanted.contains(place));
        for place in wanted {
            let newest = &newest;
            open.entry(place)
                .or_insert_with(|| Guarded::spawn(keep_open(place, newest.clone())));
        }
        if facts.changed().await.is_err() {
            return;
        }
    }
}

fn wanted(config: &Config, node: &str) -> Vec<(SocketAddr, Page)> {
    let Some(host) = config.hosts.get(node) else {
        return Vec::new();
    };
    let at = |listen: Option<Listen>, page| {
        listen
            .map(|listen| listen.addresses(host))
            .unwrap_or_default()
            .into_iter()
            .map(move |address| (address, page))
    };
    at(config.monitor.prometheus, Page::Metrics)
        .chain(at(config.admin.dashboard, Page::Dashboard))
        .collect()
}

/// An address may come after the process, or be another's for a while.
async fn keep_open((address, page): (SocketAddr, Page), newest: Newest) {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, ?page, "listening");
                told = false;
                if let Err(error) = web::serve(listener, page, newest.clone()).await {
                    tracing::warn!(%address, "stopped listening: {error}");
                }
            }
            Err(error) => {
                if !told {
                    tracing::warn!(%address, ?page, "cannot listen, tried again: {error}");
                }
                told = true;
            }
        }
        time::sleep(AGAIN).await;
    }
}

const AGAIN: Duration = Duration::from_secs(2);
