//! `foobar stats tls`: handshakes of the sites, and how long their certificates are good for.

use foobar::admin::api::{SiteCounters, Snapshot};

use crate::cli::output::{self, Columns, number, short_total, text};

pub fn table(snapshot: &Snapshot) -> String {
    let mut columns = Columns::new(&[
        "SITE",
        "OPEN",
        "HANDSHAKES",
        "RESUMED",
        "FAILED",
        "DAYS LEFT",
    ]);
    for site in &snapshot.sites {
        let counted = |name: &str| site.requests.counts.get(name).copied().unwrap_or_default();
        let open = counted("connections_opened").saturating_sub(counted("connections_closed"));
        let failed = counted("handshakes_failed");
        columns.row(vec![
            text(&site.name),
            number(short_total(open)),
            number(short_total(counted("handshakes"))),
            number(share(counted("resumptions"), counted("handshakes"))),
            number(short_total(failed)),
            days_left(snapshot, site),
        ]);
    }
    columns.text()
}

fn share(part: u64, whole: u64) -> String {
    match part.saturating_mul(100).checked_div(whole) {
        Some(percent) => format!("{percent}%"),
        None => "-".to_owned(),
    }
}

/// Of the certificate that ends first.
fn days_left(snapshot: &Snapshot, site: &SiteCounters) -> comfy_table::Cell {
    let first = snapshot
        .certificates
        .iter()
        .filter(|certificate| certificate.service == site.name)
        .map(|certificate| certificate.seconds_left / 86_400.0)
        .min_by(f64::total_cmp);
    match first {
        None => text("-"),
        Some(days) if days < 0.0 => output::bad("ENDED"),
        Some(days) if days < 14.0 => output::doubtful(format!("{days:.0}")),
        Some(days) => number(format!("{days:.0}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use foobar::admin::api::{CertificateExpiry, RequestCount};

    use super::*;

    #[test]
    fn a_site_tells_its_handshakes_and_the_days_of_its_certificate() {
        let counts = BTreeMap::from([
            ("handshakes".to_owned(), 8),
            ("resumptions".to_owned(), 6),
            ("connections_opened".to_owned(), 9),
            ("connections_closed".to_owned(), 4),
        ]);
        let expiry = |days: f64| CertificateExpiry {
            service: "l7.www".to_owned(),
            path: String::new(),
            seconds_left: days * 86_400.0,
        };
        let snapshot = Snapshot {
            sites: vec![SiteCounters {
                name: "l7.www".to_owned(),
                requests: RequestCount {
                    counts,
                    ..RequestCount::default()
                },
                backends: Vec::new(),
            }],
            certificates: vec![expiry(80.0), expiry(40.0)],
            ..Snapshot::default()
        };
        let table = table(&snapshot);
        let row: Vec<&str> = table
            .lines()
            .nth(1)
            .expect("a row")
            .split_whitespace()
            .collect();
        assert_eq!(row, ["l7.www", "5", "8", "75%", "0", "40"], "{table}");
    }
}
