//! Requests as lines of the access log.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use tokio::sync::{broadcast, mpsc, watch};

use super::facts::Facts;
use crate::{
    config::AccessFormat,
    monitor::lines::{Line, Stream},
    proxy::AccessRecord,
};

pub async fn run(
    mut records: mpsc::Receiver<AccessRecord>,
    facts: watch::Receiver<Arc<Facts>>,
    lines: broadcast::Sender<Arc<Line>>,
) {
    let mut number: u64 = 0;
    while let Some(record) = records.recv().await {
        let terms = facts.borrow().config.log.access.clone();
        number += 1;
        // Errors are always written: they are what one looks for.
        if record.status < 500 && !number.is_multiple_of(terms.sample.into()) {
            continue;
        }
        let text = match terms.format {
            AccessFormat::Combined => combined(&record),
            AccessFormat::Json => as_json(&record),
        };
        let at = since(record.at).as_nanos();
        // Nobody may be listening.
        let _ = lines.send(Arc::new(Line {
            at: u64::try_from(at).unwrap_or_default(),
            stream: Stream::Access,
            text,
        }));
    }
}

fn as_json(record: &AccessRecord) -> String {
    json!({
        "time": humantime::format_rfc3339_millis(record.at).to_string(),
        "site": format!("l7.{}", record.site),
        "client": record.client.ip(),
        "method": record.method,
        "host": record.host,
        "path": record.path,
        "version": record.version,
        "status": record.status,
        "bytes-in": record.bytes_in,
        "bytes-out": record.bytes_out,
        "seconds": (record.took.as_secs_f64() * 1e6).round() / 1e6,
        "backend": record.backend.as_deref(),
        "attempts": record.attempts,
        "referer": record.referer,
        "user-agent": record.user_agent,
        "encrypted": record.is_encrypted,
        "remark": record.remark,
    })
    .to_string()
}

/// As web servers write it, with the site's host in front and the seconds and the backend behind.
fn combined(record: &AccessRecord) -> String {
    format!(
        "{} - - [{}] \"{} {} {}\" {} {} \"{}\" \"{}\" {} {:.3} {}",
        record.client.ip(),
        clock(record.at),
        escaped(&record.method),
        escaped(&record.path),
        record.version,
        record.status,
        record.bytes_out,
        or_dash(&record.referer),
        or_dash(&record.user_agent),
        or_dash(&record.host),
        record.took.as_secs_f64(),
        record.backend.as_deref().unwrap_or("-"),
    )
}

fn or_dash(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => escaped(text),
    }
}

/// What would end the quotes or the line is written as `\xNN`, as web servers do.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter == '"' || letter == '\\' || letter.is_control() {
            let _ = write!(safe, "\\x{:02X}", u32::from(letter));
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// `24/Nov/2026:23:59:59 +0000`
fn clock(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let month = part(5, 7)
        .parse::<usize>()
        .ok()
        .and_then(|month| MONTHS.get(month - 1))
        .unwrap_or(&"???");
    format!(
        "{}/{month}/{}:{} +0000",
        part(8, 10),
        part(0, 4),
        part(11, 19)
    )
}

fn since(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AccessRecord {
        AccessRecord {
            at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
            site: "www".into(),
            client: "198.51.100.7:51000".parse().expect("an address"),
            method: "GET".to_owned(),
            host: "www.foobar.com".to_owned(),
            path: "/a?b=\"c\"".to_owned(),
            version: "HTTP/1.1",
            status: 200,
            bytes_in: 120,
            bytes_out: 4_321,
            took: Duration::from_micros(1_500),
            backend: Some("web1:8444".into()),
            attempts: 1,
            referer: String::new(),
            user_agent: "curl/7\nX".to_owned(),
            is_encrypted: true,
            remark: None,
        }
    }

    #[test]
    fn the_combined_format_is_what_web_servers_write() {
        assert_eq!(
            combined(&record()),
            "198.51.100.7 - - [14/Nov/2023:22:13:20 +0000] \"GET /a?b=\\x22c\\x22 HTTP/1.1\" 200 4321 \"-\" \
             \"curl/7\\x0AX\" www.foobar.com 0.002 web1:8444"
        );
    }

    #[test]
    fn the_json_format_is_one_line_with_everything() {
        let text = as_json(&record());
        assert!(!text.contains('\n'), "{text}");
        let fields: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(fields["status"], 200);
        assert_eq!(fields["site"], "l7.www");
        assert_eq!(fields["seconds"], 0.0015);
        assert_eq!(fields["client"], "198.51.100.7");
        assert_eq!(fields["time"], "2023-11-14T22:13:20.250Z");
    }
}
