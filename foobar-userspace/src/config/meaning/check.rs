//! `check = { … }`

use std::time::Duration;

use super::{read as read_word, whole};
use crate::config::{
    Check, Probe, ProxyProtocol,
    diagnostics::{Problem, Problems},
    tree::Entry,
    words::{Period, UrlPath},
};

pub(super) fn read(entry: Entry<'_>, problems: &mut Problems) -> Option<Check> {
    let probe = probe(entry, problems)?;
    Some(timed(entry, probe, problems))
}

/// Of an L7 service: an `http` check goes as its requests go.
pub(super) fn read_l7(
    entry: Entry<'_>,
    encrypted: bool,
    announced: Option<ProxyProtocol>,
    problems: &mut Problems,
) -> Option<Check> {
    let probe = match entry.at("https") {
        Some(https) => secure(entry, https, encrypted, problems)?,
        None => match probe(entry, problems)? {
            Probe::Http { path, expect } if encrypted => Probe::Https { path, expect },
            probe => probe,
        },
    };
    Some(Check {
        announced,
        ..timed(entry, probe, problems)
    })
}

fn secure(
    entry: Entry<'_>,
    https: Entry<'_>,
    encrypted: bool,
    problems: &mut Problems,
) -> Option<Probe> {
    for other in ["tcp", "http"] {
        if let Some(other) = entry.at(other) {
            problems.report(
                Problem::new(other.span(), "a check is one of `tcp`, `http` and `https`")
                    .help("keep `https`: it connects by TCP anyway"),
            );
            return None;
        }
    }
    if !encrypted {
        problems.report(
            Problem::new(https.span(), "an `https` check needs to know whom to trust")
                .help("add `backend-tls = { ca = \"/etc/foobar/tls/internal-ca.pem\" }` to the service, or write `http`"),
        );
    }
    let UrlPath(path) = read_word(entry, "https")?;
    let expect = whole(entry, "expect").unwrap_or(200);
    Some(Probe::Https { path, expect })
}

fn timed(entry: Entry<'_>, probe: Probe, problems: &mut Problems) -> Check {
    let every = read_word(entry, "every").map_or(EVERY, |Period(every)| every);
    let timeout = read_word(entry, "timeout").map(|Period(timeout)| timeout);
    if let (Some(timeout), Some(written)) = (timeout, entry.at("timeout"))
        && timeout > every
    {
        problems.report(
            Problem::new(written.span(), "`timeout` is longer than `every`").help(format!(
                "checks would overlap: write at most `timeout = \"{}\"`",
                humantime::format_duration(every)
            )),
        );
    }
    Check {
        probe,
        every,
        timeout: timeout.unwrap_or(TIMEOUT.min(every)),
        rise: whole(entry, "rise").unwrap_or(2),
        fall: whole(entry, "fall").unwrap_or(3),
        announced: None,
    }
}

fn probe(entry: Entry<'_>, problems: &mut Problems) -> Option<Probe> {
    match (entry.at("tcp"), entry.at("http")) {
        (Some(tcp), None) => {
            if tcp.truth() == Some(false) {
                problems.report(
                    Problem::new(tcp.span(), "`tcp = false` checks nothing")
                        .help("write `tcp = true`, `http = \"/healthz\"`, or no check"),
                );
            }
            if let Some(expect) = entry.at("expect") {
                problems.report(
                    Problem::new(expect.span(), "`expect` is of an `http` check")
                        .help("take it out, or write `http = \"/healthz\"` for `tcp = true`"),
                );
            }
            Some(Probe::Tcp)
        }
        (None, Some(_)) => {
            let UrlPath(path) = read_word(entry, "http")?;
            let expect = whole(entry, "expect").unwrap_or(200);
            Some(Probe::Http { path, expect })
        }
        (Some(_), Some(http)) => {
            problems.report(
                Problem::new(http.span(), "a check is either `tcp` or `http`")
                    .help("keep `http`: it connects by TCP anyway"),
            );
            None
        }
        (None, None) => {
            if entry.value().is_table() && !problems.touch(&entry.extent()) {
                problems.report(
                    Problem::new(entry.span(), "this check does not say what to check")
                        .help("add `tcp = true` or `http = \"/healthz\"`"),
                );
            }
            None
        }
    }
}

const EVERY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
