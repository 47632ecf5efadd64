//! A database on this very host: open to clients while acknowledged beats arrive.

use tokio::{sync::mpsc, task::JoinSet, time};

use super::{
    Lease, Steered,
    conduct::{SECRETS_AGAIN, endpoint},
};
use crate::{config::MysqlService, database::listen, mysql::guard::Guard};

/// Guards the member on this node until nobody listens.
pub async fn guard(service: MysqlService, node: String, steered: mpsc::Sender<Steered>) {
    let (Some(member), Some(open_for)) = (service.guarded(&node), service.guard) else {
        return;
    };
    let check = &service.check;
    let endpoint = loop {
        match endpoint(check, &check.account, member) {
            Ok(endpoint) => break endpoint,
            Err(why) => {
                tracing::error!(cluster = service.name, "cannot guard: {why}");
                time::sleep(SECRETS_AGAIN).await;
            }
        }
    };
    let (sender, mut heard) = mpsc::channel(8);
    // Ends with this.
    let mut listening = JoinSet::new();
    listening.spawn(listen(endpoint, check.every, check.timeout, sender));
    let mut guard = Guard::new(open_for);
    let mut told = None;
    while let Some((beats, begun)) = heard.recv().await {
        if let Err(failure) = &beats {
            tracing::debug!(cluster = service.name, "no beats: {failure}");
        }
        let until = guard.look(beats, begun.into_std());
        if until == told {
            continue;
        }
        told = until;
        let lease = Lease {
            endpoint: service.guard_name(),
            until,
        };
        let now = Steered {
            endpoints: Vec::new(),
            lease: Some(lease),
        };
        if steered.send(now).await.is_err() {
            return;
        }
    }
}
