//! What the proxy counted, under its labels, and its rates.

use std::{collections::BTreeMap, time::Duration};

use super::Names;
use crate::{
    admin::api::{RequestCount, RequestRate, SiteBackendCounters, SiteCounters},
    tally::{BUCKETS, BackendCell, DoorCell, Latency, SiteCell, Tally},
};

pub fn read(names: &Names, tally: &Tally) -> Vec<SiteCounters> {
    let backends: Vec<(String, SiteBackendCounters)> = names
        .site_backends
        .iter()
        .filter_map(|(id, label)| {
            let (site, host, port) = parse(label)?;
            let counts = BackendCell::ALL
                .iter()
                .map(|cell| (cell.name().to_owned(), tally.backend(*id, *cell)));
            let backend = SiteBackendCounters {
                host: host.to_owned(),
                port,
                weight: None,
                state: None,
                requests: RequestCount {
                    counts: counts.collect(),
                    latency: trimmed(&tally.backend_latency(*id)),
                    per_second: None,
                },
            };
            Some((site.to_owned(), backend))
        })
        .collect();
    names
        .sites
        .iter()
        .map(|(id, name)| {
            let counts = SiteCell::ALL
                .iter()
                .map(|cell| (cell.name().to_owned(), tally.site(*id, *cell)));
            SiteCounters {
                name: name.clone(),
                requests: RequestCount {
                    counts: counts.collect(),
                    latency: trimmed(&tally.site_latency(*id)),
                    per_second: None,
                },
                backends: backends
                    .iter()
                    .filter(|(site, _)| site == name)
                    .map(|(_, backend)| backend.clone())
                    .collect(),
            }
        })
        .collect()
}

/// Of all sites together.
pub fn door(tally: &Tally) -> BTreeMap<String, u64> {
    DoorCell::ALL
        .iter()
        .map(|cell| (cell.name().to_owned(), tally.at_door(*cell)))
        .collect()
}

/// `l7.www web1:8444`
fn parse(label: &str) -> Option<(&str, &str, u16)> {
    let (site, rest) = label.split_once(' ')?;
    let (host, port) = rest.split(' ').next()?.rsplit_once(':')?;
    Some((site, host, port.parse().ok()?))
}

fn trimmed(latency: &Latency) -> Vec<u64> {
    let used = latency
        .counts
        .iter()
        .rposition(|count| *count > 0)
        .map_or(0, |last| last + 1);
    latency.counts[..used].to_vec()
}

pub fn rate(earlier: &[SiteCounters], later: &mut [SiteCounters], seconds: f64) {
    for site in later {
        let before = earlier.iter().find(|known| known.name == site.name);
        let nothing = RequestCount::default();
        let was = before.map_or(&nothing, |before| &before.requests);
        site.requests.per_second = Some(between(was, &site.requests, seconds));
        for backend in &mut site.backends {
            let was = before
                .and_then(|before| {
                    let mut known = before.backends.iter();
                    known.find(|known| known.host == backend.host && known.port == backend.port)
                })
                .map_or(&nothing, |before| &before.requests);
            backend.requests.per_second = Some(between(was, &backend.requests, seconds));
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than 52 bits"
)]
fn between(was: &RequestCount, is: &RequestCount, seconds: f64) -> RequestRate {
    let grown = |cell: &str| {
        let count = |counts: &BTreeMap<String, u64>| counts.get(cell).copied().unwrap_or_default();
        let (was, is) = (count(&was.counts), count(&is.counts));
        // A counter that fell belongs to something new of the same name.
        is.checked_sub(was).unwrap_or(is) as f64
    };
    let answers: f64 = CLASSES.iter().map(|class| grown(class)).sum();
    let recent = whole(&is.latency).since(&whole(&was.latency));
    let quantile = |share| recent.quantile(share).as_ref().map(Duration::as_secs_f64);
    RequestRate {
        qps: grown(SiteCell::Requests.name()) / seconds,
        bytes_in: grown(SiteCell::BytesIn.name()) / seconds,
        bytes_out: grown(SiteCell::BytesOut.name()) / seconds,
        error_rate: (answers > 0.0).then(|| grown(SiteCell::Status5xx.name()) / answers),
        p50: quantile(0.5),
        p90: quantile(0.9),
        p95: quantile(0.95),
        p99: quantile(0.99),
        p999: quantile(0.999),
    }
}

fn whole(counts: &[u64]) -> Latency {
    let mut latency = Latency::default();
    for (whole, count) in latency.counts.iter_mut().zip(counts.iter().take(BUCKETS)) {
        *whole = *count;
    }
    latency
}

const CLASSES: [&str; 4] = ["status_2xx", "status_3xx", "status_4xx", "status_5xx"];

#[cfg(test)]
mod tests {
    use foobar_ebpf::abi::LabelKey;

    use super::*;

    fn names() -> Names {
        let labels = [
            (LabelKey::SITE, 3, "l7.www"),
            (LabelKey::SITE_BACKEND, 1, "l7.www web1:8444"),
            (LabelKey::SITE_BACKEND, 2, "l7.other web1:8444"),
        ];
        Names::new(labels.map(|(kind, id, label)| (LabelKey { kind, id }, label.to_owned())))
    }

    #[test]
    fn a_sites_backends_stand_below_it() {
        let tally = Tally::private();
        tally.add(3, SiteCell::Requests, 5);
        tally.add_to_backend(1, BackendCell::Requests, 4);
        let sites = read(&names(), &tally);
        assert_eq!(sites[0].requests.counts["requests"], 5);
        assert_eq!(sites[0].backends.len(), 1);
        assert_eq!(sites[0].backends[0].requests.counts["requests"], 4);
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let tally = Tally::private();
        tally.add(3, SiteCell::Requests, 100);
        tally.answered(3, 200, Duration::from_secs(9));
        let earlier = read(&names(), &tally);
        tally.add(3, SiteCell::Requests, 20);
        for _ in 0..15 {
            tally.answered(3, 200, Duration::from_millis(3));
        }
        for _ in 0..5 {
            tally.answered(3, 503, Duration::from_millis(30));
        }
        let mut later = read(&names(), &tally);
        rate(&earlier, &mut later, 2.0);
        let rate = later[0].requests.per_second.expect("a rate");
        assert_eq!(rate.qps, 10.0);
        assert_eq!(rate.error_rate, Some(0.25));
        let p50 = rate.p50.expect("answers");
        assert!((0.003..0.005).contains(&p50), "{p50}");
        let p99 = rate.p99.expect("answers");
        assert!((0.03..0.05).contains(&p99), "{p99}");
    }

    #[test]
    fn without_an_answer_there_is_no_share_of_errors() {
        let tally = Tally::private();
        let earlier = read(&names(), &tally);
        let mut later = earlier.clone();
        rate(&earlier, &mut later, 1.0);
        let rate = later[0].requests.per_second.expect("a rate");
        assert_eq!((rate.error_rate, rate.p99), (None, None));
    }
}
