//! The metrics as OpenMetrics text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit as MetricUnit},
};

use super::catalogue::{Family, Kind, Unit, Value, families};
use crate::admin::api::Snapshot;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// # Errors
/// When memory for the text runs out.
pub fn render(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Taken(snapshot)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Taken(Snapshot);

impl Collector for Taken {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in families(&self.0) {
            encode(&family, &mut encoder)?;
        }
        Ok(())
    }
}

fn encode(family: &Family<'_>, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let unit = match family.unit {
        Unit::Bytes => Some(MetricUnit::Bytes),
        Unit::None => None,
        Unit::Ratio => Some(MetricUnit::Ratios),
        Unit::Seconds => Some(MetricUnit::Seconds),
    };
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    // The format wants a sentence.
    let help = format!("{}.", family.help);
    let mut metric = encoder.encode_descriptor(family.name, &help, unit.as_ref(), kind)?;
    if let [alone] = family.series.as_slice()
        && alone.labels.is_empty()
    {
        return value(family.kind, &alone.value, metric);
    }
    for series in &family.series {
        let labels: Vec<(&str, &str)> = series
            .labels
            .iter()
            .map(|(key, value)| (*key, value.as_ref()))
            .collect();
        let labels = labels.as_slice();
        value(family.kind, &series.value, metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge beyond 52 bits is not exact anyway"
)]
fn value(kind: Kind, value: &Value, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => ConstCounter::new(*value).encode(encoder),
        (Kind::Counter, Value::Real(value)) => ConstCounter::new(*value).encode(encoder),
        (_, Value::Whole(value)) => ConstGauge::new(*value as f64).encode(encoder),
        (_, Value::Real(value)) => ConstGauge::new(*value).encode(encoder),
        (_, Value::Buckets { below, sum }) => {
            let mut before = 0;
            // The encoder adds the buckets up again.
            let own: Vec<(f64, u64)> = below
                .iter()
                .map(|(bound, count)| {
                    let own = count.saturating_sub(before);
                    before = *count;
                    (*bound, own)
                })
                .collect();
            encoder.encode_histogram::<NoLabelSet>(*sum, before, &own, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::samples;

    #[test]
    fn the_text_has_types_units_help_and_an_end() {
        let text = render(samples::snapshot()).expect("memory");
        for line in [
            "# HELP foobar_backend_bytes Bytes of the backend, in towards it and out towards the clients.",
            "# TYPE foobar_backend_bytes counter",
            "# UNIT foobar_backend_bytes bytes",
            "foobar_backend_bytes_total{service=\"l4.plain\",vip=\"203.0.113.10:8080\",backend=\"web1:80\",direction=\"in\"} 1200",
            "foobar_build_info{version=\"0.1.0\"} 1.0",
            "foobar_start_time_seconds 1000.5",
            "# TYPE foobar_backend_up gauge",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let mut snapshot = samples::snapshot();
        snapshot.rules[0].rule = "a\"b\\c\nd".into();
        let text = render(snapshot).expect("memory");
        assert!(text.contains("rule=\"a\\\"b\\\\c\\nd\""), "{text}");
    }
}
