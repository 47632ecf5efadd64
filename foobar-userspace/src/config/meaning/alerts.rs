//! `[[alert]]` and `[notify]`

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    time::Duration,
};

use foobar_ebpf::verdict::Reason;

use super::{many, monitor::period, secret, section, text};
use crate::config::{
    Alert, Metric, Notify, NotifyBy, Quantity, Severity, Side, Threshold,
    diagnostics::{Problem, Problems},
    nearest::suggest,
    places::Url,
    quantity::WrittenQuantity,
    tree::Entry,
};

pub(super) fn read(root: Entry<'_>, problems: &mut Problems) -> Vec<Alert> {
    let mut names = HashMap::new();
    many(root, "alert")
        .into_iter()
        .filter_map(|entry| alert(entry, &mut names, problems))
        .collect()
}

fn alert(
    entry: Entry<'_>,
    names: &mut HashMap<String, Range<usize>>,
    problems: &mut Problems,
) -> Option<Alert> {
    let name = entry.at("name")?;
    let text_of_name = name.text()?.to_owned();
    if let Some(first) = names.insert(text_of_name.clone(), name.span()) {
        problems.report(
            Problem::new(name.span(), format!("alert `{text_of_name}` stands twice"))
                .related(first, "here already")
                .help("give one of the two another name"),
        );
    }
    let metric = Metric::named(entry.at("metric")?.text()?)?;
    scope(entry, metric, problems);
    let threshold = threshold(entry, metric, problems)?;
    Some(Alert {
        name: text_of_name,
        metric,
        of: text(entry, "of"),
        reason: reason(entry, metric, problems),
        threshold,
        lasting: period(entry, "for").unwrap_or(Duration::ZERO),
        severity: match entry.at("severity").and_then(Entry::text) {
            Some("critical") => Severity::Critical,
            Some("info") => Severity::Info,
            _ => Severity::Warning,
        },
        notify: many(entry, "notify")
            .into_iter()
            .filter_map(Entry::text)
            .filter(|target| *target != "journal")
            .map(str::to_owned)
            .collect(),
        place: problems.place(name.span().start),
    })
}

fn scope(alert: Entry<'_>, metric: Metric, problems: &mut Problems) {
    let Some(written) = alert.at("of") else {
        return;
    };
    let kind = written
        .text()
        .and_then(|of| of.split_once('.'))
        .map(|(kind, _)| kind);
    match (metric.kinds(), kind) {
        (_, None) => {}
        ([], Some(_)) => problems.report(
            Problem::new(
                written.span(),
                format!("`{}` is of a whole node", metric.name()),
            )
            .help("take `of` out"),
        ),
        (kinds, Some(kind)) if !kinds.contains(&kind) => problems.report(
            Problem::new(
                written.span(),
                format!("an {kind} service has no `{}`", metric.name()),
            )
            .help(match kinds {
                ["l7"] => "name an `l7` service, which reads requests and answers; at layer 4 there is `qps`, `backends-up`, `backends-down`",
                _ => "name a `mysql` service",
            }),
        ),
        _ => {}
    }
}

fn reason(alert: Entry<'_>, metric: Metric, problems: &mut Problems) -> Option<String> {
    let written = alert.at("reason")?;
    let reason = written.text()?;
    if metric != Metric::Drops {
        problems.report(
            Problem::new(written.span(), "only `drops` have a reason")
                .help("take `reason` out, or write `metric = \"drops\"`"),
        );
    } else if !drop_reasons().any(|known| known == reason) {
        problems.report(
            Problem::new(written.span(), format!("nothing is dropped for `{reason}`"))
                .help(suggest(reason, "reasons there are", drop_reasons())),
        );
    }
    Some(reason.to_owned())
}

fn drop_reasons() -> impl Iterator<Item = &'static str> + Clone {
    Reason::ALL
        .into_iter()
        .filter(|reason| reason.drops())
        .map(Reason::name)
}

fn threshold(alert: Entry<'_>, metric: Metric, problems: &mut Problems) -> Option<Threshold> {
    let (side, key, clear, other_clear) = match (alert.at("above"), alert.at("below")) {
        (Some(_), None) => (Side::Above, "above", "clear-below", "clear-above"),
        (None, Some(_)) => (Side::Below, "below", "clear-above", "clear-below"),
        _ => {
            if alert.value().is_table() && !problems.touch(&alert.extent()) {
                problems.report(
                    Problem::new(alert.span(), "an alert has one threshold").help(format!(
                        "write either `above = {0}` or `below = {0}`",
                        metric.unit().example()
                    )),
                );
            }
            return None;
        }
    };
    if let Some(stray) = alert.at(other_clear) {
        problems.report(
            Problem::new(
                stray.span(),
                format!("`{other_clear}` does not go with `{key}`"),
            )
            .help(format!("write `{clear}`")),
        );
    }
    let fires = quantity(alert.at(key)?, metric, problems)?;
    let clears = match alert.at(clear) {
        Some(written) => {
            let clears = quantity(written, metric, problems)?;
            let inverted = match side {
                Side::Above => clears > fires,
                Side::Below => clears < fires,
            };
            if inverted {
                problems.report(
                    Problem::new(
                        written.span(),
                        format!("the alert would end while it still fires: `{clear}` is on the wrong side of `{key}`"),
                    )
                    .help(format!(
                        "write {} {}",
                        match side {
                            Side::Above => "at most",
                            Side::Below => "at least",
                        },
                        fires.written(metric.unit())
                    )),
                );
            }
            clears
        }
        None => fires,
    };
    Some(Threshold {
        side,
        fires,
        clears,
    })
}

fn quantity(written: Entry<'_>, metric: Metric, problems: &mut Problems) -> Option<Quantity> {
    let quantity = WrittenQuantity::of(written)?.ok()?;
    match quantity.meant(metric.unit()) {
        Ok(quantity) => Some(quantity),
        Err(misread) => {
            problems.report(
                Problem::new(
                    written.span(),
                    format!("`{}`: {}", metric.name(), misread.message),
                )
                .help(misread.cure),
            );
            None
        }
    }
}

pub(super) fn notify(root: Entry<'_>, problems: &mut Problems) -> BTreeMap<String, Notify> {
    let mut targets = BTreeMap::new();
    for (name, entry) in section(root, "notify") {
        if name.text == "journal" {
            problems.report(
                Problem::new(name.span(), "`journal` is always there")
                    .help("take it out, or give this target another name"),
            );
        }
        if let Some(by) = by(entry, problems) {
            let target = Notify {
                name: name.text.to_owned(),
                by,
                repeat: period(entry, "repeat").unwrap_or(REPEAT),
            };
            targets.insert(target.name.clone(), target);
        }
    }
    targets
}

fn by(entry: Entry<'_>, problems: &mut Problems) -> Option<NotifyBy> {
    let ways = ["alertmanager", "command", "webhook"]
        .into_iter()
        .filter(|key| entry.at(key).is_some());
    if ways.count() != 1 {
        if entry.value().is_table() && !problems.touch(&entry.extent()) {
            problems.report(
                Problem::new(entry.span(), "a notify target tells in one way").help(
                    "write one of `webhook = { credential = \"…\" }`, `alertmanager = \"http://127.0.0.1:9093\"`, `command = [\"/usr/local/bin/page\"]`",
                ),
            );
        }
        return None;
    }
    if entry.at("webhook").is_some() {
        return secret::read(entry, "webhook").map(NotifyBy::Webhook);
    }
    if let Some(alertmanager) = entry.at("alertmanager") {
        return alertmanager
            .read()
            .map(|Url(url)| NotifyBy::Alertmanager(url));
    }
    command(entry, problems).map(NotifyBy::Command)
}

fn command(entry: Entry<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let words: Vec<_> = many(entry, "command")
        .into_iter()
        .filter_map(|word| word.text().map(str::to_owned))
        .collect();
    let written = entry.at("command")?;
    match words.first() {
        Some(program) if program.starts_with('/') && !program.contains(' ') => Some(words),
        Some(program) => {
            problems.report(
                Problem::new(written.span(), format!("`{program}` is not the path of a program"))
                    .help("write the whole path and each argument by itself: `command = [\"/usr/bin/logger\", \"-t\", \"foobar\"]`"),
            );
            None
        }
        None => {
            if !problems.touch(&written.extent()) {
                problems.report(
                    Problem::new(written.span(), "this command is empty")
                        .help("write `command = [\"/usr/local/bin/page\"]`"),
                );
            }
            None
        }
    }
}

const REPEAT: Duration = Duration::from_secs(4 * 3_600);
