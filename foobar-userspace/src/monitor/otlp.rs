//! Metrics and log lines as the bodies of OTLP/HTTP requests (protobuf).

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;

use super::{
    catalogue::{Family, Kind, Series, Unit, Value, families},
    lines::Line,
};
use crate::admin::api::Snapshot;

pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// When the counters began, and when they were read, in Unix nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub began: u64,
    pub read: u64,
}

#[must_use]
pub fn metrics(snapshot: &Snapshot, span: Span, labels: &BTreeMap<String, String>) -> Vec<u8> {
    let metrics = families(snapshot)
        .iter()
        .map(|family| metric(family, span))
        .collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(snapshot, labels)),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
    .encode_to_vec()
}

#[must_use]
pub fn logs(lines: &[Line], snapshot: &Snapshot, labels: &BTreeMap<String, String>) -> Vec<u8> {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource(snapshot, labels)),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: lines.iter().map(record).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
    .encode_to_vec()
}

fn resource(snapshot: &Snapshot, labels: &BTreeMap<String, String>) -> Resource {
    let own = [
        ("service.name", "foobar"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("host.name", snapshot.node.as_str()),
        ("node", snapshot.node.as_str()),
    ];
    let labels = labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    Resource {
        attributes: own
            .into_iter()
            .chain(labels)
            .map(|(key, value)| attribute(key, value))
            .collect(),
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "foobar".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn metric(family: &Family<'_>, span: Span) -> Metric {
    let data = match family.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: numbers(family, span),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge {
            data_points: numbers(family, span),
        }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: family
                .series
                .iter()
                .map(|series| histogram(series, span))
                .collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
    };
    Metric {
        name: format!("{}{}", family.name, family.unit.suffix()),
        description: family.help.to_owned(),
        unit: match family.unit {
            Unit::Bytes => "By",
            Unit::None | Unit::Ratio => "1",
            Unit::Seconds => "s",
        }
        .to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn numbers(family: &Family<'_>, span: Span) -> Vec<NumberDataPoint> {
    family
        .series
        .iter()
        .map(|series| NumberDataPoint {
            attributes: attributes(series),
            start_time_unix_nano: match family.kind {
                Kind::Counter | Kind::Histogram => span.began,
                Kind::Gauge => 0,
            },
            time_unix_nano: span.read,
            value: match &series.value {
                Value::Whole(value) => Some(number_data_point::Value::AsInt(
                    i64::try_from(*value).unwrap_or(i64::MAX),
                )),
                Value::Real(value) => Some(number_data_point::Value::AsDouble(*value)),
                Value::Buckets { .. } => None,
            },
            ..NumberDataPoint::default()
        })
        .collect()
}

fn histogram(series: &Series<'_>, span: Span) -> HistogramDataPoint {
    let Value::Buckets { below, sum } = &series.value else {
        return HistogramDataPoint::default();
    };
    let mut before = 0;
    let bucket_counts = below
        .iter()
        .map(|(_, count)| {
            let own = count.saturating_sub(before);
            before = *count;
            own
        })
        .collect();
    HistogramDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: span.began,
        time_unix_nano: span.read,
        count: before,
        sum: Some(*sum),
        bucket_counts,
        explicit_bounds: below
            .iter()
            .map(|(bound, _)| *bound)
            .filter(|bound| bound.is_finite())
            .collect(),
        ..HistogramDataPoint::default()
    }
}

fn attributes(series: &Series<'_>) -> Vec<KeyValue> {
    series
        .labels
        .iter()
        .map(|(key, value)| attribute(key, value))
        .collect()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(text(value)),
        ..KeyValue::default()
    }
}

fn text(value: &str) -> AnyValue {
    AnyValue {
        value: Some(any_value::Value::StringValue(value.to_owned())),
    }
}

fn record(line: &Line) -> LogRecord {
    LogRecord {
        time_unix_nano: line.at,
        observed_time_unix_nano: line.at,
        severity_number: SeverityNumber::Info.into(),
        severity_text: "INFO".to_owned(),
        body: Some(text(&line.text)),
        attributes: vec![attribute("log", line.stream.name())],
        ..LogRecord::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{lines::Stream, samples};

    const SPAN: Span = Span { began: 1, read: 5 };

    #[test]
    fn what_is_encoded_is_what_was_counted() {
        let labels = BTreeMap::from([("environment".to_owned(), "prod".to_owned())]);
        let body = metrics(&samples::snapshot(), SPAN, &labels);
        let request = ExportMetricsServiceRequest::decode(body.as_slice()).expect("protobuf");
        let resource = request.resource_metrics[0].resource.as_ref().expect("one");
        assert!(
            resource
                .attributes
                .contains(&attribute("environment", "prod"))
        );
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let bytes = metrics
            .iter()
            .find(|metric| metric.name == "foobar_backend_bytes")
            .expect("there");
        assert_eq!(bytes.unit, "By");
        let Some(metric::Data::Sum(sum)) = &bytes.data else {
            panic!("{bytes:?}");
        };
        assert!(sum.is_monotonic);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(number_data_point::Value::AsInt(1_200)));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 5));
    }

    #[test]
    fn a_histogram_tells_each_bucket_by_itself() {
        let series = Series {
            labels: Vec::new(),
            value: Value::Buckets {
                below: vec![(0.1, 2), (1.0, 5), (f64::INFINITY, 6)],
                sum: 3.5,
            },
        };
        let point = histogram(&series, SPAN);
        assert_eq!(point.bucket_counts, [2, 3, 1]);
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        assert_eq!((point.count, point.sum), (6, Some(3.5)));
    }

    #[test]
    fn log_lines_keep_their_text_and_their_time() {
        let lines = [Line {
            at: 7,
            stream: Stream::Audit,
            text: "{\"user\":\"root\"}".to_owned(),
        }];
        let body = logs(&lines, &samples::snapshot(), &BTreeMap::new());
        let request = ExportLogsServiceRequest::decode(body.as_slice()).expect("protobuf");
        let record = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(record.time_unix_nano, 7);
        assert_eq!(record.body, Some(text("{\"user\":\"root\"}")));
    }
}
