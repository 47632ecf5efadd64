//! What a request may be and how long it may take; pages; the jail.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{duration, rate, whole};
use crate::config::{
    H2Limits, HttpLimits, Jail, Pages, Timeouts,
    diagnostics::{Problem, Problems},
    meaning::{read as read_word, text},
    nearest::suggest,
    tree::Entry,
    words::{FilePath, Size},
};

pub(super) fn limits(service: Entry<'_>, problems: &mut Problems) -> HttpLimits {
    let entry = service.at("limits");
    let size = |key, default| {
        entry
            .and_then(|entry| read_word(entry, key))
            .map_or(default, |Size(bytes)| bytes)
    };
    let count = |key, default| entry.and_then(|entry| whole(entry, key)).unwrap_or(default);
    let limits = HttpLimits {
        head: size("head", 32 << 10),
        headers: entry
            .and_then(|entry| whole(entry, "headers"))
            .unwrap_or(100),
        uri: size("uri", 8 << 10),
        body: size("body", 16 << 20),
        per_client: entry.and_then(|entry| rate(entry, "per-client", "burst")),
        requests_per_connection: count("requests-per-connection", 10_000),
        h2: H2Limits {
            streams: count("h2-streams", 100),
            resets: count("h2-resets", 100),
            control_frames: count("h2-control-frames", 500),
            window: entry.map_or(H2_WINDOW, |entry| duration(entry, "h2-window", H2_WINDOW)),
        },
    };
    let Some(entry) = entry else { return limits };
    if let (Some(burst), None) = (entry.at("burst"), entry.at("per-client")) {
        problems.report(
            Problem::new(burst.span(), "`burst` without `per-client` limits nothing")
                .help("add `per-client = \"100/s\"`, or take it out"),
        );
    }
    if limits.head > LARGEST_HEAD
        && let Some(head) = entry.at("head")
    {
        problems.report(
            Problem::new(
                head.span(),
                "a head is held in memory, and this is more than 1MB",
            )
            .help("write at most `head = \"1MB\"`"),
        );
    } else if limits.uri > limits.head {
        let place = entry.at("uri").or(entry.at("head")).unwrap_or(entry);
        problems.report(
            Problem::new(place.span(), "`uri` is larger than `head`, which holds it")
                .help("make `head` larger, or `uri` smaller"),
        );
    }
    limits
}

pub(super) fn timeouts(service: Entry<'_>, problems: &mut Problems) -> Timeouts {
    let entry = service.at("timeouts");
    let after =
        |key, default: Duration| entry.map_or(default, |entry| duration(entry, key, default));
    let seconds = Duration::from_secs;
    let request = after("request", seconds(60));
    let timeouts = Timeouts {
        handshake: after("handshake", seconds(10)),
        head: after("head", seconds(10)),
        body: after("body", seconds(30)),
        write: after("write", seconds(30)),
        idle: after("idle", seconds(60)),
        connect: after("connect", seconds(2).min(request)),
        attempt: after("attempt", seconds(30).min(request)),
        request,
        answer: after("answer", seconds(60)),
        backend_idle: after("backend-idle", seconds(4)),
        tunnel: after("tunnel", seconds(600)),
    };
    for (key, value) in [("connect", timeouts.connect), ("attempt", timeouts.attempt)] {
        if value > request
            && let Some(written) = entry.and_then(|entry| entry.at(key))
        {
            problems.report(
                Problem::new(written.span(), format!("`{key}` is longer than `request`")).help(
                    format!(
                        "the whole request ends first: write at most `{key} = \"{}\"`",
                        humantime::format_duration(request)
                    ),
                ),
            );
        }
    }
    timeouts
}

pub(super) fn pages(service: Entry<'_>, folder: &Path, problems: &mut Problems) -> Pages {
    let mut pages = Pages::default();
    let mut errors = BTreeMap::new();
    let entries = service.at("pages").map(Entry::entries).unwrap_or_default();
    for (name, entry) in entries {
        let Some(FilePath(path)) = entry.read() else {
            continue;
        };
        let path = folder.join(path);
        match name.text.parse::<u16>() {
            Ok(status @ 400..=599) => {
                errors.insert(status, path);
            }
            _ if name.text == "maintenance" => pages.maintenance = Some(path),
            _ => problems.report(
                Problem::new(
                    name.span(),
                    format!("`{}` is no answer of the proxy", name.text),
                )
                .help(suggest(
                    name.text,
                    "pages are for a status from 400 to 599 or",
                    ["maintenance"],
                )),
            ),
        }
    }
    pages.errors = errors;
    pages
}

pub(super) fn jail(root: Entry<'_>, service: Entry<'_>, problems: &mut Problems) -> Option<Jail> {
    let Some(written) = service.at("jail") else {
        for key in ["jail-after", "jail-within"] {
            if let Some(alone) = service.at(key) {
                problems.report(
                    Problem::new(alone.span(), format!("`{key}` without `jail` jails nobody"))
                        .help("add `jail = \"jail\"`, a set with a `timeout`"),
                );
            }
        }
        return None;
    };
    let set = text(service, "jail")?;
    if let Some(defined) = root.at("sets").and_then(|sets| sets.at(&set))
        && defined.at("timeout").is_none()
        && !problems.touch(&written.span())
    {
        problems.report(
            Problem::new(
                written.span(),
                format!("set `{set}` has no timeout and cannot be a jail"),
            )
            .related(defined.span(), "the set")
            .help("who is jailed must come free again: add `timeout = \"10m\"` to the set"),
        );
    }
    Some(Jail {
        set,
        after: whole(service, "jail-after").unwrap_or(10),
        within: duration(service, "jail-within", Duration::from_secs(60)),
    })
}

const H2_WINDOW: Duration = Duration::from_secs(10);
const LARGEST_HEAD: u64 = 1 << 20;
