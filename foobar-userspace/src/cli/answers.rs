//! The controller's answers as text.

use foobar::admin::api::{
    AlertLine, AlertState, CertificateLine, ElementLine, Explanation, Reloaded, RuleLine,
    ServiceStatus, SetLine, Status,
};

use super::{
    output::{self, Columns, number, short_total, text},
    stats,
};

pub fn status(status: &Status) -> String {
    let health = if status.healthy {
        "healthy"
    } else {
        "NOT HEALTHY"
    };
    let mut answer = format!(
        "{} {health}, generation {} of {} (foobar {}, pid {}, up {})\n",
        status.node,
        status.generation,
        status.configuration,
        status.version,
        status.pid,
        humantime::format_duration(std::time::Duration::from_secs(status.uptime_seconds))
    );
    answer += "\n";
    answer += &interfaces(status);
    if !status.services.is_empty() {
        answer += "\n";
        answer += &services_with_backends(&status.services);
    }
    for warning in &status.warnings {
        answer += &format!("\nwarning: {warning}");
    }
    if !status.warnings.is_empty() {
        answer += "\n";
    }
    answer
}

fn interfaces(status: &Status) -> String {
    let mut columns = Columns::new(&["IFACE", "DEV", "XDP", "INGRESS", "EGRESS", "BY"]);
    for interface in &status.interfaces {
        let policy = |policy: &Option<String>| text(policy.as_deref().unwrap_or("-"));
        columns.row(vec![
            text(&interface.name),
            text(&interface.device),
            match interface.xdp.as_str() {
                "native" => output::good("native"),
                "generic" => output::doubtful("generic!"),
                other => output::bad(other),
            },
            policy(&interface.ingress_policy),
            policy(&interface.egress_policy),
            text(&interface.egress),
        ]);
    }
    columns.text()
}

/// Services, each followed by its backends.
pub fn services_with_backends(services: &[ServiceStatus]) -> String {
    let mut columns = Columns::new(&["SERVICE / BACKEND", "WT", "STATE", "CHECK", ""]);
    for service in services {
        columns.row(vec![
            text(format!("{} {}", service.name, service.vips.join(" "))),
            text(""),
            up_of(service),
        ]);
        for backend in &service.backends {
            columns.row(vec![
                text(format!("  -> {}:{}", backend.host, backend.port)),
                number(backend.weight),
                stats::state(Some(backend.state)),
                text(check_time(backend.check_milliseconds)),
                text(backend.detail.as_deref().unwrap_or_default()),
            ]);
        }
    }
    columns.text()
}

pub fn services(services: &[ServiceStatus]) -> String {
    let mut columns = Columns::new(&["SERVICE", "UP", "VIPS"]);
    for service in services {
        columns.row(vec![
            text(&service.name),
            up_of(service),
            text(service.vips.join(" ")),
        ]);
    }
    columns.text()
}

pub fn backends(services: &[ServiceStatus]) -> String {
    let mut columns = Columns::new(&["SERVICE", "BACKEND", "WT", "STATE", "CHECK", ""]);
    for service in services {
        for backend in &service.backends {
            columns.row(vec![
                text(&service.name),
                text(format!("{}:{}", backend.host, backend.port)),
                number(backend.weight),
                stats::state(Some(backend.state)),
                text(check_time(backend.check_milliseconds)),
                text(backend.detail.as_deref().unwrap_or_default()),
            ]);
        }
    }
    columns.text()
}

fn up_of(service: &ServiceStatus) -> comfy_table::Cell {
    use foobar::admin::api::BackendState;
    let all = service.backends.len();
    let up = service
        .backends
        .iter()
        .filter(|backend| backend.state == BackendState::Up)
        .count();
    let told = format!("{up}/{all}");
    match up {
        0 => output::bad(told),
        some if some < all => output::doubtful(told),
        _ => output::good(told),
    }
}

fn check_time(milliseconds: Option<f64>) -> String {
    milliseconds.map_or_else(|| "-".to_owned(), |took| format!("{took:.1}ms"))
}

pub fn reloaded(reloaded: &Reloaded) -> String {
    let done = if reloaded.applied {
        "in force"
    } else {
        "not applied (dry run)"
    };
    let changes: String = reloaded
        .changes
        .iter()
        .map(|change| format!("{change}\n"))
        .collect();
    let changes = if changes.is_empty() {
        "nothing changes\n".to_owned()
    } else {
        changes
    };
    let trial = reloaded
        .reverts_in_seconds
        .map_or_else(String::new, |seconds| {
            format!("; `foobar confirm` within {seconds} s, or what ran before comes back")
        });
    format!(
        "{changes}generation {}, {done}{trial}\n",
        reloaded.generation
    )
}

pub fn rules(rules: &[RuleLine]) -> String {
    let mut columns = Columns::new(&["RULE", "PKTS", "BYTES", "PLACE", ""]);
    for rule in rules {
        columns.row(vec![
            text(format!("{}/{}", rule.policy, rule.rule)),
            number(short_total(rule.count.packets)),
            number(short_total(rule.count.bytes)),
            text(&rule.place),
            text(&rule.text),
        ]);
    }
    columns.text()
}

pub fn rule(rule: &RuleLine) -> String {
    format!(
        "{}/{}, number {} of its policy, at {}\n  {}\n  {} packets, {} bytes\n",
        rule.policy,
        rule.rule,
        rule.order,
        rule.place,
        rule.text,
        rule.count.packets,
        rule.count.bytes
    )
}

pub fn sets(sets: &[SetLine]) -> String {
    let mut columns = Columns::new(&["SET", "ELEMENTS", "OF", "TIMEOUT"]);
    for set in sets {
        let timeout = set.timeout_seconds.map_or_else(
            || "-".to_owned(),
            |seconds| {
                humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
            },
        );
        columns.row(vec![
            text(&set.name),
            number(set.elements),
            number(set.max),
            text(timeout),
        ]);
    }
    columns.text()
}

pub fn certificates(lines: &[CertificateLine]) -> String {
    let mut columns = Columns::new(&["SERVICE", "NAMES", "KEY", "UNTIL", "DAYS", "FILE"]);
    for line in lines {
        columns.row(vec![
            text(&line.service),
            text(line.names.join(", ")),
            text(&line.algorithm),
            text(line.not_after.split('T').next().unwrap_or_default()),
            number(line.days_left),
            text(&line.path),
        ]);
    }
    columns.text()
}

pub fn elements(elements: &[ElementLine]) -> String {
    let mut columns = Columns::new(&["ELEMENT", "FROM", "LEFT"]);
    for element in elements {
        let left = element
            .expires_in_seconds
            .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s"));
        columns.row(vec![
            text(element.element),
            text(&element.source),
            text(left),
        ]);
    }
    columns.text()
}

pub fn explanation(explanation: &Explanation) -> String {
    let mut answer = format!(
        "{}: {} ({}, {} ns) on {}\n",
        explanation.verdict,
        explanation.reason,
        explanation.returned,
        explanation.nanoseconds,
        explanation.interface
    );
    if let Some(rule) = &explanation.rule {
        answer += &format!(
            "  rule {}/{} at {}: {}\n",
            rule.policy, rule.rule, rule.place, rule.text
        );
    } else if let Some(policy) = &explanation.policy {
        answer += &format!("  no rule of {policy} matches\n");
    }
    let tokens = explanation
        .tokens_left
        .map(|tokens| format!("{tokens} tokens left"));
    for (what, value) in [
        ("set", &explanation.set),
        ("limit", &tokens),
        ("vip", &explanation.vip),
        ("backend", &explanation.backend),
        ("leaves as", &explanation.rewritten),
    ] {
        if let Some(value) = value {
            answer += &format!("  {what} {value}\n");
        }
    }
    answer
}
pub fn alerts(alerts: &[AlertLine]) -> String {
    let mut columns = Columns::new(&["ALERT", "STATE", "VALUE", "FIRES", "SEVERITY", "OF"]);
    for alert in alerts {
        let state = match alert.state {
            AlertState::Calm => output::good("calm"),
            AlertState::Pending => output::doubtful("pending"),
            AlertState::Firing => output::bad("FIRING"),
        };
        columns.row(vec![
            text(&alert.name),
            state,
            text(alert.said.as_deref().unwrap_or("-")),
            text(&alert.threshold),
            text(&alert.severity),
            text(alert.of.as_deref().unwrap_or("-")),
        ]);
    }
    columns.text()
}
