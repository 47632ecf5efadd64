//! The metrics of MySQL clusters.

use super::{Family, Kind, Labels, Series, Unit, Value, truth};
use crate::{
    admin::api::Snapshot,
    mysql::status::{ClusterStatus, MemberStatus},
};

pub fn of_clusters(snapshot: &Snapshot) -> Vec<Family<'_>> {
    let of = |value: fn(&ClusterStatus) -> Value| {
        snapshot
            .clusters
            .iter()
            .map(|cluster| Series {
                labels: vec![("cluster", cluster.name.as_str().into())],
                value: value(cluster),
            })
            .collect()
    };
    let family = |name, kind, help, series| Family {
        name,
        unit: Unit::None,
        kind,
        help,
        series,
    };
    vec![
        family(
            "foobar_mysql_has_writer",
            Kind::Gauge,
            "1 if a member takes the writes; 0 is not normal",
            of(|cluster| truth(cluster.writer.is_some())),
        ),
        family(
            "foobar_mysql_armed",
            Kind::Gauge,
            "1 if a failover would take place by itself; 0 is normal unless the mode is promote",
            of(|cluster| truth(cluster.armed)),
        ),
        family(
            "foobar_mysql_paused",
            Kind::Gauge,
            "1 after a failover, until a human says resume; 1 is not normal",
            of(|cluster| truth(cluster.paused.is_some())),
        ),
        family(
            "foobar_mysql_alarms",
            Kind::Gauge,
            "What needs a human; anything but 0 is not normal",
            of(|cluster| Value::Whole(cluster.alarms.len() as u64)),
        ),
        family(
            "foobar_mysql_failovers",
            Kind::Counter,
            "Automatic failovers; each is worth a look",
            of(|cluster| Value::Whole(cluster.failovers)),
        ),
        family(
            "foobar_mysql_switchovers",
            Kind::Counter,
            "Switchovers by command",
            of(|cluster| Value::Whole(cluster.switchovers)),
        ),
        family(
            "foobar_mysql_role_changes",
            Kind::Counter,
            "Changes of the member that takes the writes, whoever made them",
            of(|cluster| Value::Whole(cluster.role_changes)),
        ),
    ]
}

pub fn of_members(snapshot: &Snapshot) -> Vec<Family<'_>> {
    let of = |value: fn(&MemberStatus) -> Option<Value>| {
        snapshot
            .clusters
            .iter()
            .flat_map(|cluster| {
                cluster.members.iter().filter_map(move |member| {
                    Some(Series {
                        labels: labels(cluster, member),
                        value: value(member)?,
                    })
                })
            })
            .collect()
    };
    vec![
        Family {
            name: "foobar_mysql_member_up",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the member answers its checks; 0 is not normal",
            series: of(|member| Some(truth(member.state == "up"))),
        },
        Family {
            name: "foobar_mysql_member_primary",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the member says that it is primary; more than one of a cluster is not normal",
            series: of(|member| Some(truth(member.role == "primary"))),
        },
        Family {
            name: "foobar_mysql_member_reads",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the member takes reads",
            series: of(|member| Some(truth(member.reads == "yes"))),
        },
        Family {
            name: "foobar_mysql_member_lag",
            unit: Unit::Seconds,
            kind: Kind::Gauge,
            help: "How far the replica is behind; beyond max-lag it gets no reads",
            series: of(|member| member.lag_seconds.map(Value::Real)),
        },
        Family {
            name: "foobar_mysql_member_queries_per_second",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "Queries a second, as the server counts them",
            series: of(|member| member.qps.map(Value::Real)),
        },
    ]
}

fn labels<'a>(cluster: &'a ClusterStatus, member: &MemberStatus) -> Labels<'a> {
    vec![
        ("cluster", cluster.name.as_str().into()),
        ("member", format!("{}:{}", member.host, member.port).into()),
    ]
}
