//! `foobar stats --total`: all rows of what was asked for, added up.

use foobar::admin::api::{Count, Snapshot};
use serde::Serialize;

use crate::cli::output::{Columns, number, short_rate, short_total, text};

/// Of the rows that are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Total {
    /// Requests of the proxy, and those answered with 5xx.
    pub requests: Sum,
    pub errors: Sum,
    /// Connections at layer 4.
    pub connections: Sum,
    /// From and to clients, at both layers.
    pub bytes_in: Sum,
    pub bytes_out: Sum,
    /// Of all interfaces and directions.
    pub packets: Sum,
    pub dropped: Sum,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sum {
    pub total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
}

impl Sum {
    fn add(&mut self, total: u64, per_second: Option<f64>) {
        self.total += total;
        if let Some(more) = per_second {
            self.per_second = Some(self.per_second.unwrap_or_default() + more);
        }
    }

    fn add_packets(&mut self, count: &Count) {
        self.add(count.packets, count.per_second.map(|rate| rate.packets));
    }
}

impl Total {
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut sum = Self::default();
        for site in &snapshot.sites {
            let rate = site.requests.per_second;
            let counted = |name: &str| site.requests.counts.get(name).copied().unwrap_or_default();
            let errors = rate.map(|rate| rate.error_rate.unwrap_or_default() * rate.qps);
            sum.requests
                .add(counted("requests"), rate.map(|rate| rate.qps));
            sum.errors.add(counted("status_5xx"), errors);
            sum.bytes_in
                .add(counted("bytes_in"), rate.map(|rate| rate.bytes_in));
            sum.bytes_out
                .add(counted("bytes_out"), rate.map(|rate| rate.bytes_out));
        }
        for service in &snapshot.services {
            let traffic = &service.traffic;
            let rate = traffic.per_second;
            sum.connections
                .add(traffic.connections, rate.map(|rate| rate.qps));
            sum.bytes_in
                .add(traffic.bytes_in, rate.map(|rate| rate.bytes_in));
            sum.bytes_out
                .add(traffic.bytes_out, rate.map(|rate| rate.bytes_out));
        }
        for verdict in super::verdicts(snapshot) {
            sum.packets.add_packets(verdict.count);
            if super::drops(verdict.reason) {
                sum.dropped.add_packets(verdict.count);
            }
        }
        sum
    }

    pub fn table(&self) -> String {
        let mut columns = Columns::new(&["TOTAL", "/s", "SO FAR"]);
        for (name, sum) in [
            ("requests", self.requests),
            ("5xx", self.errors),
            ("connections", self.connections),
            ("bytes in", self.bytes_in),
            ("bytes out", self.bytes_out),
            ("packets", self.packets),
            ("dropped", self.dropped),
        ] {
            columns.row(vec![
                text(name),
                number(short_rate(sum.per_second)),
                number(short_total(sum.total)),
            ]);
        }
        columns.text()
    }
}

#[cfg(test)]
mod tests {
    use foobar::admin::api::{ServiceCounters, TrafficCount, TrafficRate};

    use super::*;

    #[test]
    fn totals_and_rates_are_those_of_all_rows() {
        let service = |connections, qps| ServiceCounters {
            name: "l4.plain".to_owned(),
            vip: String::new(),
            traffic: TrafficCount {
                connections,
                per_second: Some(TrafficRate {
                    qps,
                    ..TrafficRate::default()
                }),
                ..TrafficCount::default()
            },
            backends: Vec::new(),
        };
        let snapshot = Snapshot {
            services: vec![service(7, 1.5), service(5, 2.5)],
            ..Snapshot::default()
        };
        let total = Total::of(&snapshot);
        assert_eq!(total.connections.total, 12);
        assert_eq!(total.connections.per_second, Some(4.0));
        assert_eq!(total.packets, Sum::default());
        assert!(
            total.table().contains("connections   4      12"),
            "{}",
            total.table()
        );
    }
}
