//! What the controller answers to the questions of its administration.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use tokio::task;

use super::{Controller, now, refusal, rules, samples::Samples};
use crate::{
    admin::{
        Question,
        api::{Maps, Packet, Refusal, Request, Response},
    },
    config,
    connections::{self, Listener},
    explain,
    kernel::{Direction, KernelError, clock},
};

impl Controller {
    pub(super) fn answer(&mut self, question: Question) {
        if let Request::Snapshot { maps } = question.request {
            // The counters may be many: they are read beside the loop.
            self.tell_monitoring();
            let samples = self.monitoring.samples();
            tokio::spawn(async move {
                let _ = question.answer.send(snapshot_of(&samples, maps).await);
            });
            return;
        }
        if let Request::Connections { filter, limit } = question.request {
            // There may be many of them, too.
            let node = self.options.node.clone();
            let listeners = self.listeners();
            task::spawn_blocking(move || {
                let connections = connections_of(&node, &listeners, filter.as_deref(), limit);
                let _ = question.answer.send(connections);
            });
            return;
        }
        if let Request::Mysql { cluster, command } = question.request {
            self.clusters
                .command(cluster.as_deref(), command, question.answer);
            return;
        }
        if let Request::Upgrade = question.request {
            // The answer comes when the other process serves, or does not.
            let answer = question.answer;
            task::block_in_place(|| self.raise(Some(answer)));
            return;
        }
        let answer = task::block_in_place(|| self.respond(question.request));
        // The one who asked may have gone.
        let _ = question.answer.send(answer);
    }

    pub(super) fn respond(&mut self, request: Request) -> Result<Response, Refusal> {
        match request {
            Request::Status => self
                .status()
                .map(|status| Response::Status(Box::new(status))),
            Request::Snapshot { .. } | Request::Connections { .. } => Err(Refusal::Failed {
                message: "this is answered beside the loop".to_owned(),
            }),
            Request::Confirm => self.confirm(),
            Request::AlertTest { name } => self.rehearse(&name),
            Request::Reload { apply } => self.reload(apply).map(Response::Reloaded),
            Request::Rules => self.rule_lines().map(Response::Rules),
            Request::Sets => self
                .members
                .lines(self.deployment.tables(), clock::coarse())
                .map(Response::Sets)
                .map_err(|error| refusal(&error)),
            Request::SetElements { set } => self
                .members
                .elements(&set, self.deployment.tables(), now())
                .map(Response::SetElements),
            Request::SetAdd {
                set,
                elements,
                timeout,
            } => self.change_members(|members, tables| {
                members.add(&set, &elements, timeout, now(), tables)
            }),
            Request::SetDelete { set, elements } => {
                self.change_members(|members, tables| members.delete(&set, &elements, tables))
            }
            Request::SetFlush { set } => {
                self.change_members(|members, tables| members.flush(&set, tables))
            }
            Request::BackendState {
                service,
                backend,
                wish,
            } if self.is_site(&service) => {
                let message = self
                    .proxying
                    .upstreams_mut()
                    .wish(&service, &backend, wish)?;
                self.proxying.tell();
                self.keep_memory();
                tracing::info!("{message}");
                Ok(Response::Done { message })
            }
            Request::BackendState {
                service,
                backend,
                wish,
            } => {
                let message = self
                    .balancing
                    .wish(&service, &backend, wish, Instant::now())?;
                self.bring_balancing();
                self.keep_memory();
                tracing::info!("{message}");
                Ok(Response::Done { message })
            }
            Request::Explain(packet) => self.explain(&packet),
            Request::Mysql { .. } => Ok(Response::Clusters(self.clusters.status())),
            Request::Certificates => Ok(Response::Certificates(self.proxying.certificates())),
            Request::TlsReload => self.refresh_tls(),
            Request::Upgrade => Err(Refusal::Failed {
                message: "an upgrade is answered by the other process".to_owned(),
            }),
            Request::ConfigShow => Ok(Response::ConfigText(config::show(&self.estate.config))),
        }
    }

    /// Where the proxy listens, each endpoint with all of its sites.
    fn listeners(&self) -> Vec<Listener> {
        let mut sites: BTreeMap<SocketAddr, Vec<&str>> = BTreeMap::new();
        for service in self.estate.config.l7.values() {
            if service.on != self.options.node {
                continue;
            }
            for endpoint in service.listen.iter().chain(&service.redirect) {
                sites.entry(*endpoint).or_default().push(&service.name);
            }
        }
        sites
            .into_iter()
            .map(|(endpoint, names)| Listener {
                endpoint,
                sites: names
                    .iter()
                    .map(|name| format!("l7.{name}"))
                    .collect::<Vec<_>>()
                    .join(","),
            })
            .collect()
    }

    fn rehearse(&self, name: &str) -> Result<Response, Refusal> {
        let targets = self.monitoring.rehearse(name).ok_or_else(|| {
            let alerts = self.estate.config.alerts.iter();
            let known: Vec<&str> = alerts.map(|alert| alert.name.as_str()).collect();
            Refusal::NotFound {
                message: format!("there is no alert `{name}`; there is {}", known.join(", ")),
            }
        })?;
        Ok(Response::Done {
            message: format!(
                "told {} that {name} fires, and that it ended",
                targets.join(", ")
            ),
        })
    }

    /// `l7.www`; `www` where no `l4.www` is.
    fn is_site(&self, service: &str) -> bool {
        let is_l4 = self.estate.services().any(|known| known.name == service);
        self.proxying.upstreams().has(service) && !service.starts_with("l4.") && !is_l4
    }

    fn rule_lines(&self) -> Result<Vec<crate::admin::api::RuleLine>, Refusal> {
        rules::lines(
            &self.estate.config,
            self.estate.interfaces(),
            &self.estate.labels,
            |slot| {
                let tally = self.deployment.tables().rules.get(slot)?;
                Ok(crate::admin::api::Count {
                    packets: tally.packets,
                    bytes: tally.bytes,
                    per_second: None,
                })
            },
        )
        .map_err(|error: KernelError| refusal(&error))
    }

    fn explain(&mut self, packet: &Packet) -> Result<Response, Refusal> {
        let interfaces = self.estate.interfaces();
        let interface = match &packet.interface {
            None => interfaces.first(),
            Some(name) => interfaces
                .iter()
                .find(|interface| interface.name == *name || interface.device == *name),
        }
        .cloned()
        .ok_or_else(|| Refusal::NotFound {
            message: format!(
                "node {} has no interface `{}`; it has {}",
                self.options.node,
                packet.interface.as_deref().unwrap_or_default(),
                interfaces
                    .iter()
                    .map(|interface| format!("`{}` ({})", interface.name, interface.device))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        })?;
        let frame = explain::frame(packet).map_err(|error| Refusal::Conflict {
            message: error.to_string(),
        })?;
        let direction = match packet.egress {
            true => Direction::Egress,
            false => Direction::Ingress,
        };
        let trial = self
            .deployment
            .try_frame(&interface.name, direction, &frame)
            .map_err(|error| refusal(&error))?;
        Ok(Response::Explained(Box::new(rules::explanation(
            &interface,
            direction,
            &trial,
            &self.estate.labels,
            self.rule_lines()?,
        ))))
    }
}

fn connections_of(
    node: &str,
    listeners: &[Listener],
    filter: Option<&str>,
    limit: Option<u32>,
) -> Result<Response, Refusal> {
    let lines = connections::of_node(node, listeners).map_err(|error| refusal(&error))?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    Ok(Response::Connections(connections::told(
        lines, filter, limit,
    )))
}

async fn snapshot_of(samples: &Samples, maps: Maps) -> Result<Response, Refusal> {
    let snapshot = samples
        .recent(maps)
        .await
        .map_err(|error| refusal(&error))?;
    let mut snapshot = Arc::unwrap_or_clone(snapshot);
    if maps == Maps::LeftOut {
        snapshot.maps.clear();
    }
    Ok(Response::Snapshot(Box::new(snapshot)))
}
