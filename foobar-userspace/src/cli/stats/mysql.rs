//! `foobar stats mysql`: what the members of database clusters do.

use foobar::admin::api::{ClusterStatus, MemberStatus, Snapshot};

use crate::cli::output::{self, Columns, number, short_rate, text};

pub fn table(snapshot: &Snapshot) -> String {
    let mut columns = Columns::new(&[
        "CLUSTER / MEMBER",
        "ROLE",
        "STATE",
        "QPS",
        "CONNS",
        "LAG",
        "CHECK",
        "FAILOVERS",
    ]);
    for cluster in &snapshot.clusters {
        columns.row(vec![
            text(&cluster.name),
            text(&cluster.mode),
            match &cluster.writer {
                Some(writer) => output::good(format!("writes: {writer}")),
                None => output::bad("NO WRITER"),
            },
            number(short_rate(sum(cluster))),
            text(""),
            text(""),
            text(""),
            number(cluster.failovers),
        ]);
        for member in &cluster.members {
            columns.row(row(member));
        }
    }
    columns.text()
}

fn sum(cluster: &ClusterStatus) -> Option<f64> {
    cluster
        .members
        .iter()
        .filter_map(|member| member.qps)
        .reduce(|sum, qps| sum + qps)
}

fn row(member: &MemberStatus) -> Vec<comfy_table::Cell> {
    let or_dash = |value: Option<String>| number(value.unwrap_or_else(|| "-".to_owned()));
    vec![
        text(format!("  -> {}:{}", member.host, member.port)),
        text(&member.role),
        match member.state.as_str() {
            "up" => output::good("up"),
            "gone" => output::bad("GONE"),
            other => output::doubtful(other),
        },
        number(short_rate(member.qps)),
        or_dash(member.connections.map(|count| count.to_string())),
        or_dash(member.lag_seconds.map(|lag| format!("{lag:.1}s"))),
        or_dash(member.check_milliseconds.map(|took| format!("{took:.1}ms"))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_tells_its_writer_and_its_members_their_lag() {
        let member = |host: &str, role: &str, lag| MemberStatus {
            host: host.to_owned(),
            port: 3306,
            role: role.to_owned(),
            state: "up".to_owned(),
            qps: Some(20.0),
            lag_seconds: lag,
            ..MemberStatus::default()
        };
        let snapshot = Snapshot {
            clusters: vec![ClusterStatus {
                name: "mysql.app".to_owned(),
                writer: Some("web1".to_owned()),
                members: vec![
                    member("web1", "primary", None),
                    member("web2", "replica", Some(0.25)),
                ],
                ..ClusterStatus::default()
            }],
            ..Snapshot::default()
        };
        let table = table(&snapshot);
        for part in ["writes: web1", "40", "-> web2:3306", "0.2s"] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
    }
}
