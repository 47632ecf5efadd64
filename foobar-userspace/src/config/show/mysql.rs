//! `[mysql.…]` as TOML.

use std::net::SocketAddr;

use super::{Keys, key, quoted};
use crate::config::{
    Account, Fallback, MysqlBalancer, MysqlMode, MysqlService, OnWriteStall, RejoinWish, Secret,
};

pub(super) fn service(service: &MysqlService) -> String {
    let addresses = |of: fn(&MysqlBalancer) -> &Vec<SocketAddr>| {
        let all: Vec<_> = service
            .balancers
            .iter()
            .flat_map(of)
            .map(|address| format!("\"{address}\""))
            .collect();
        all.join(", ")
    };
    let nodes: Vec<_> = service
        .balancers
        .iter()
        .map(|balancer| quoted(&balancer.node))
        .collect();
    let members: Vec<_> = service
        .members
        .iter()
        .map(|member| quoted(&format!("{}:{}", member.host, member.port)))
        .collect();
    let mut lines = vec![
        format!("on = [{}]", nodes.join(", ")),
        format!("write = [{}]", addresses(|balancer| &balancer.write)),
        format!("read = [{}]", addresses(|balancer| &balancer.read)),
        format!("members = [{}]", members.join(", ")),
        format!("check = {}", check(service)),
    ];
    let word = |key: &str, word: &str| format!("{key} = \"{word}\"");
    lines.push(word(
        "mode",
        match service.mode {
            MysqlMode::Observe => "observe",
            MysqlMode::Consensus => "consensus",
            MysqlMode::Promote => "promote",
        },
    ));
    lines.push(word(
        "fallback",
        match service.fallback {
            Fallback::None => "none",
            Fallback::LeastLagged => "least-lagged",
        },
    ));
    if service.mode == MysqlMode::Promote {
        for (name, account) in [
            ("admin", &service.admin),
            ("replication", &service.replication),
        ] {
            lines.extend(
                account
                    .as_ref()
                    .map(|account| format!("{name} = {}", self::account(account))),
            );
        }
        lines.push(word(
            "on-write-stall",
            match service.on_write_stall {
                OnWriteStall::Alarm => "alarm",
                OnWriteStall::Failover => "failover",
            },
        ));
        lines.push(word(
            "rejoin",
            match service.rejoin {
                RejoinWish::Automatic => "automatic",
                RejoinWish::Manual => "manual",
            },
        ));
        lines.push(word(
            "cool-down",
            &humantime::format_duration(service.cool_down).to_string(),
        ));
    }
    lines.push(word(
        "lease",
        &service.lease.map_or("never".to_owned(), |lease| {
            humantime::format_duration(lease).to_string()
        }),
    ));
    if let Some(guard) = service.guard {
        lines.push(word(
            "guard",
            &humantime::format_duration(guard).to_string(),
        ));
    }
    if let Some(hook) = &service.hook {
        lines.push(format!("hook = {}", quoted(&hook.to_string_lossy())));
    }
    format!("\n[mysql.{}]\n{}\n", key(&service.name), lines.join("\n"))
}

fn check(service: &MysqlService) -> String {
    let check = &service.check;
    let mut keys = Keys::default();
    keys.text("user", &check.account.user);
    keys.add("password", secret(&check.account.password));
    keys.duration("every", check.every);
    keys.duration("timeout", check.timeout);
    keys.add("fall", check.fall);
    keys.duration("max-lag", check.max_lag);
    keys.duration("hard-lag", check.hard_lag);
    keys.duration("heartbeat", check.heartbeat);
    match check.probe {
        Some(every) => {
            keys.text("probe", "write");
            keys.duration("probe-every", every);
        }
        None => keys.text("probe", "never"),
    }
    keys.duration("probe-timeout", check.probe_timeout);
    if let Some(port) = check.admin_port {
        keys.add("admin-port", port);
    }
    if let Some(ca) = &check.ca {
        keys.text("ca", &ca.to_string_lossy());
    }
    keys.table()
}

fn account(account: &Account) -> String {
    let mut keys = Keys::default();
    keys.text("user", &account.user);
    keys.add("password", secret(&account.password));
    keys.table()
}

fn secret(secret: &Secret) -> String {
    let mut keys = Keys::default();
    match secret {
        Secret::Credential(name) => keys.text("credential", name),
        Secret::Environment(name) => keys.text("env", name),
        Secret::File(path) => keys.text("file", &path.to_string_lossy()),
    }
    keys.table()
}
