//! What someone is told about an alert, and the bodies that carry it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::alert::News;
use crate::config::{Alert, Side};

/// One piece of news for one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub target: String,
    pub news: News,
    pub node: String,
    pub alert: String,
    pub metric: &'static str,
    pub of: Option<String>,
    pub severity: &'static str,
    /// `qps of l4.plain is 6012/s, above 5000/s`
    pub summary: String,
    pub value: Option<f64>,
    /// Unix seconds.
    pub starts_at: f64,
    /// Of one that ended.
    pub ends_at: Option<f64>,
    /// `[monitor] labels`.
    pub labels: BTreeMap<String, String>,
}

impl Notice {
    /// As the body of an Alertmanager's webhook, version 4: receivers for it understand this one too.
    #[must_use]
    pub fn webhook(&self) -> Value {
        let status = match self.news {
            News::Fires | News::StillFires => "firing",
            News::Ends => "resolved",
        };
        let alert = json!({
            "status": status,
            "labels": self.labels(),
            "annotations": self.annotations(),
            "startsAt": rfc3339(self.starts_at),
            "endsAt": self.ends_at.map_or_else(|| NO_END.to_owned(), rfc3339),
            "generatorURL": "",
            "fingerprint": self.fingerprint(),
        });
        json!({
            "version": "4",
            "groupKey": format!("{}/{}", self.node, self.alert),
            "truncatedAlerts": 0,
            "status": status,
            "receiver": self.target,
            "groupLabels": { "alertname": self.alert },
            "commonLabels": self.labels(),
            "commonAnnotations": self.annotations(),
            "externalURL": "",
            "alerts": [alert],
        })
    }

    /// As `POST /api/v2/alerts` of an Alertmanager takes it.
    #[must_use]
    pub fn alertmanager(&self) -> Value {
        let mut alert = json!({
            "labels": self.labels(),
            "annotations": self.annotations(),
            "startsAt": rfc3339(self.starts_at),
        });
        if let Some(ends_at) = self.ends_at {
            alert["endsAt"] = json!(rfc3339(ends_at));
        }
        json!([alert])
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        let own = [
            ("alertname", self.alert.as_str()),
            ("node", self.node.as_str()),
            ("severity", self.severity),
            ("metric", self.metric),
        ];
        labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
        if let Some(of) = &self.of {
            labels.insert("service".to_owned(), of.clone());
        }
        labels
    }

    fn annotations(&self) -> BTreeMap<&'static str, String> {
        let mut annotations = BTreeMap::from([("summary", self.summary.clone())]);
        if let Some(value) = self.value {
            annotations.insert("value", value.to_string());
        }
        annotations
    }

    /// The same for all news of one alert: FNV-1a of its labels.
    fn fingerprint(&self) -> String {
        let hash = self
            .labels()
            .iter()
            .flat_map(|(key, value)| [key.as_bytes(), b"\xff", value.as_bytes(), b"\xff"])
            .flatten()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        format!("{hash:016x}")
    }
}

/// `above 5000/s`
#[must_use]
pub fn threshold(alert: &Alert) -> String {
    let side = match alert.threshold.side {
        Side::Above => "above",
        Side::Below => "below",
    };
    let unit = alert.metric.unit();
    format!("{side} {}", alert.threshold.fires.spoken(unit))
}

/// `qps of l4.plain is 6012/s, above 5000/s`
#[must_use]
pub fn summary(alert: &Alert, said: Option<&str>) -> String {
    let of = alert
        .of
        .as_ref()
        .map_or_else(String::new, |of| format!(" of {of}"));
    let reason = alert
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(" for {reason}"));
    let metric = alert.metric.name();
    match said {
        Some(said) => format!(
            "{metric}{of}{reason} is {said}, to fire {}",
            threshold(alert)
        ),
        None => format!("{metric}{of}{reason} cannot be measured now"),
    }
}

fn rfc3339(unix: f64) -> String {
    let since = std::time::Duration::try_from_secs_f64(unix.max(0.0)).unwrap_or_default();
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}

/// What Alertmanager sends for an alert that goes on.
const NO_END: &str = "0001-01-01T00:00:00Z";

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(news: News) -> Notice {
        Notice {
            target: "ops".to_owned(),
            news,
            node: "lb1".to_owned(),
            alert: "busy".to_owned(),
            metric: "qps",
            of: Some("l4.plain".to_owned()),
            severity: "warning",
            summary: "qps of l4.plain is 6000/s, to fire above 5000/s".to_owned(),
            value: Some(6_000.0),
            starts_at: 1_700_000_000.0,
            ends_at: (news == News::Ends).then_some(1_700_000_060.0),
            labels: BTreeMap::from([("environment".to_owned(), "prod".to_owned())]),
        }
    }

    #[test]
    fn the_webhook_has_the_shape_that_receivers_of_alertmanager_know() {
        let body = notice(News::Fires).webhook();
        assert_eq!(body["version"], "4");
        assert_eq!(body["status"], "firing");
        assert_eq!(body["commonLabels"]["alertname"], "busy");
        assert_eq!(body["commonLabels"]["environment"], "prod");
        assert_eq!(body["alerts"][0]["labels"]["service"], "l4.plain");
        assert_eq!(body["alerts"][0]["startsAt"], "2023-11-14T22:13:20.000Z");
        assert_eq!(body["alerts"][0]["endsAt"], NO_END);
    }

    #[test]
    fn news_of_one_alert_have_one_fingerprint() {
        let fires = notice(News::Fires).webhook();
        let ends = notice(News::Ends).webhook();
        assert_eq!(ends["status"], "resolved");
        assert_eq!(
            fires["alerts"][0]["fingerprint"],
            ends["alerts"][0]["fingerprint"]
        );
    }

    #[test]
    fn alertmanager_hears_of_the_end() {
        let ends = notice(News::Ends).alertmanager();
        assert_eq!(ends[0]["endsAt"], "2023-11-14T22:14:20.000Z");
        assert!(notice(News::Fires).alertmanager()[0]["endsAt"].is_null());
    }
}
