//! `[monitor]`, `[[alert]]`, `[notify]`, `[log]` and `[admin]` in effect, as TOML.

use std::fmt::Write as _;

use super::{Keys, key, secret, section};
use crate::config::{
    AccessFormat, Admin, Alert, Config, Listen, Log, LogFile, Monitor, Notify, NotifyBy, Side,
    Signals, tree::quoted, words::Size,
};

pub(super) fn show(config: &Config) -> String {
    let mut text = String::new();
    section(&mut text, "monitor", monitor(&config.monitor).into_iter());
    for each in &config.alerts {
        text.push_str(&alert(each));
    }
    section(&mut text, "notify", config.notify.values().map(notify));
    section(&mut text, "log", log(&config.log).into_iter());
    section(&mut text, "admin", admin(&config.admin).into_iter());
    text
}

fn monitor(monitor: &Monitor) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    if let Some(listens) = monitor.prometheus {
        let mut keys = Keys::default();
        keys.text("listen", &listen(listens));
        lines.push(("prometheus".to_owned(), keys.table()));
    }
    if let Some(otlp) = &monitor.otlp {
        let mut keys = Keys::default();
        keys.add("endpoint", secret(&otlp.endpoint));
        keys.duration("interval", otlp.interval);
        signals(&mut keys, otlp.signals);
        keys.text("buffer", &Size(otlp.buffer).to_string());
        lines.push(("otlp".to_owned(), keys.table()));
    }
    if let Some(sumologic) = &monitor.sumologic {
        let mut keys = Keys::default();
        keys.add("url", secret(&sumologic.url));
        keys.optional("category", sumologic.category.as_deref());
        keys.duration("interval", sumologic.interval);
        signals(&mut keys, sumologic.signals);
        keys.text("buffer", &Size(sumologic.buffer).to_string());
        lines.push(("sumologic".to_owned(), keys.table()));
    }
    if !monitor.labels.is_empty() {
        let mut keys = Keys::default();
        for (name, value) in &monitor.labels {
            keys.text(&key(name), value);
        }
        lines.push(("labels".to_owned(), keys.table()));
    }
    lines
}

fn listen(listen: Listen) -> String {
    match listen {
        Listen::At(address) => address.to_string(),
        Listen::Private(port) => format!("private:{port}"),
        Listen::Public(port) => format!("public:{port}"),
    }
}

fn signals(keys: &mut Keys, signals: Signals) {
    let words = [(signals.metrics, "metrics"), (signals.logs, "logs")];
    let words = words
        .into_iter()
        .filter(|(there, _)| *there)
        .map(|(_, word)| word.to_owned());
    keys.list("signals", words);
}

fn alert(alert: &Alert) -> String {
    let unit = alert.metric.unit();
    let mut text = format!(
        "\n[[alert]]\nname = {}\nmetric = {}\n",
        quoted(&alert.name),
        quoted(alert.metric.name())
    );
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    if let Some(of) = &alert.of {
        line("of", quoted(of));
    }
    if let Some(reason) = &alert.reason {
        line("reason", quoted(reason));
    }
    let (fires, clears) = match alert.threshold.side {
        Side::Above => ("above", "clear-below"),
        Side::Below => ("below", "clear-above"),
    };
    line(fires, alert.threshold.fires.written(unit));
    line(clears, alert.threshold.clears.written(unit));
    if !alert.lasting.is_zero() {
        line(
            "for",
            quoted(&humantime::format_duration(alert.lasting).to_string()),
        );
    }
    line("severity", quoted(alert.severity.name()));
    let names: Vec<_> = std::iter::once("journal")
        .chain(alert.notify.iter().map(String::as_str))
        .map(quoted)
        .collect();
    line("notify", format!("[{}]", names.join(", ")));
    text
}

fn notify(notify: &Notify) -> (String, String) {
    let mut keys = Keys::default();
    match &notify.by {
        NotifyBy::Alertmanager(url) => keys.text("alertmanager", url),
        NotifyBy::Command(words) => keys.list("command", words.iter().cloned()),
        NotifyBy::Webhook(url) => keys.add("webhook", secret(url)),
    }
    keys.duration("repeat", notify.repeat);
    (notify.name.clone(), keys.table())
}

fn log(log: &Log) -> Vec<(String, String)> {
    let mut access = Keys::default();
    log_file(&mut access, &log.access.file);
    access.text(
        "format",
        match log.access.format {
            AccessFormat::Combined => "combined",
            AccessFormat::Json => "json",
        },
    );
    access.add("sample", log.access.sample);
    let mut drops = Keys::default();
    log_file(&mut drops, &log.drops.file);
    drops.add("per-second", log.drops.per_second);
    let mut audit = Keys::default();
    log_file(&mut audit, &log.audit);
    vec![
        ("access".to_owned(), access.table()),
        ("drops".to_owned(), drops.table()),
        ("audit".to_owned(), audit.table()),
    ]
}

fn log_file(keys: &mut Keys, file: &LogFile) {
    keys.text("to", &file.to.to_string());
    keys.text("max-size", &Size(file.max_size).to_string());
    keys.add("keep", file.keep);
}

fn admin(admin: &Admin) -> Vec<(String, String)> {
    let mut lines = vec![("socket".to_owned(), quoted(&admin.socket.to_string_lossy()))];
    if let Some(group) = &admin.group {
        lines.push(("group".to_owned(), quoted(group)));
    }
    if let Some(dashboard) = admin.dashboard {
        lines.push(("dashboard".to_owned(), quoted(&listen(dashboard))));
    }
    lines
}
