//! Metrics and log lines as an HTTP source of Sumo Logic takes them: text in the format of Prometheus without comments,
//! or plain lines; at most a megabyte a request.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _};

use flate2::{Compression, write::GzEncoder};

use super::{
    catalogue::{Value, families},
    lines::Line,
};
use crate::admin::api::Snapshot;

/// Without it, metrics are stored as log lines and answered with 200.
pub const METRICS_TYPE: &str = "application/vnd.sumologic.prometheus";
pub const LOGS_TYPE: &str = "text/plain; charset=utf-8";

/// Texts of at most a megabyte each, before compression.
#[must_use]
pub fn metrics(
    snapshot: &Snapshot,
    milliseconds: u64,
    labels: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut lines = Vec::new();
    for family in families(snapshot) {
        let name = family.full_name();
        for series in &family.series {
            let own = series
                .labels
                .iter()
                .map(|(key, value)| (*key, value.as_ref()));
            let common = labels
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()));
            let labels: Vec<_> = own
                .chain([("node", snapshot.node.as_str())])
                .chain(common)
                .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
                .collect();
            let labels = labels.join(",");
            let mut line = |suffix: &str, more: &str, value: f64| {
                // Lines with NaN or an infinity would be rejected.
                if value.is_finite() {
                    lines.push(format!(
                        "{name}{suffix}{{{labels}{more}}} {value} {milliseconds}"
                    ));
                }
            };
            match &series.value {
                Value::Whole(value) => line("", "", real(*value)),
                Value::Real(value) => line("", "", *value),
                Value::Buckets { below, sum } => {
                    for (bound, count) in below {
                        let bound = if bound.is_finite() {
                            bound.to_string()
                        } else {
                            "+Inf".to_owned()
                        };
                        line("_bucket", &format!(",le=\"{bound}\""), real(*count));
                    }
                    line(
                        "_count",
                        "",
                        below.last().map_or(0.0, |(_, count)| real(*count)),
                    );
                    line("_sum", "", *sum);
                }
            }
        }
    }
    packed(lines.iter().map(String::as_str))
}

/// Texts of at most a megabyte each, before compression.
#[must_use]
pub fn logs(lines: &[Line]) -> Vec<String> {
    packed(lines.iter().map(|line| line.text.as_str()))
}

/// `key=value` lists, as `X-Sumo-Dimensions` and `X-Sumo-Fields` take them.
#[must_use]
pub fn list(pairs: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        let separator = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{separator}{key}={}", value.replace([',', '\n'], " "));
    }
    text
}

/// # Panics
/// Never: memory takes all that is written to it.
#[must_use]
pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(text)
        .and_then(|()| encoder.finish())
        .expect("memory takes all that is written to it")
}

fn packed<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for line in lines {
        match texts.last_mut() {
            Some(text) if text.len() + line.len() < LONGEST => {
                text.push_str(line);
                text.push('\n');
            }
            _ => texts.push(format!("{line}\n")),
        }
    }
    texts
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[expect(clippy::cast_precision_loss, reason = "the format knows floats alone")]
fn real(value: u64) -> f64 {
    value as f64
}

const LONGEST: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::monitor::{lines::Stream, samples};

    #[test]
    fn there_are_no_comments_and_every_line_has_labels_and_a_time() {
        let labels = BTreeMap::from([("environment".to_owned(), "prod".to_owned())]);
        let texts = metrics(&samples::snapshot(), 1_700_000_000_250, &labels);
        assert_eq!(texts.len(), 1);
        for line in texts[0].lines() {
            assert!(!line.starts_with('#'), "{line}");
            assert!(line.contains("node=\"lb1\""), "{line}");
            assert!(line.contains("environment=\"prod\""), "{line}");
            assert!(line.ends_with(" 1700000000250"), "{line}");
        }
        assert!(
            texts[0].contains("foobar_backend_bytes_total{service=\"l4.plain\","),
            "{}",
            texts[0]
        );
    }

    #[test]
    fn many_lines_become_several_requests() {
        let lines: Vec<Line> = (0..30_000)
            .map(|number| Line {
                at: number,
                stream: Stream::Drops,
                text: "x".repeat(99),
            })
            .collect();
        let texts = logs(&lines);
        assert_eq!(texts.len(), 3);
        assert!(texts.iter().all(|text| text.len() <= LONGEST));
        assert_eq!(texts.iter().map(String::len).sum::<usize>(), 3_000_000);
    }

    #[test]
    fn a_value_cannot_break_the_list_of_dimensions() {
        let pairs = BTreeMap::from([
            ("a".to_owned(), "x,y".to_owned()),
            ("b".to_owned(), "z".to_owned()),
        ]);
        assert_eq!(list(&pairs), "a=x y,b=z");
    }

    #[test]
    fn what_is_packed_unpacks() {
        let mut text = String::new();
        flate2::read::GzDecoder::new(gzip(b"hello").as_slice())
            .read_to_string(&mut text)
            .expect("gzip");
        assert_eq!(text, "hello");
    }
}
