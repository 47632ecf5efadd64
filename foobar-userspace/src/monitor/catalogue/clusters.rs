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
            "foobar_mysql_rival_writers",
            Kind::Gauge,
            "Members that all claim to be primary; anything but 0 is not normal, and writes go to none",
            of(|cluster| Value::Whole(cluster.rivals.len() as u64)),
        ),
        family(
            "foobar_mysql_leads",
            Kind::Gauge,
            "1 if this balancer holds the locks of a majority; of several one does",
            of(|cluster| truth(cluster.leads)),
        ),
        family(
            "foobar_mysql_preflight_lacks",
            Kind::Gauge,
            "What keeps promote from acting; 0 is normal where that is the mode",
            of(|cluster| Value::Whole(cluster.lacks.len() as u64)),
        ),
        Family {
            name: "foobar_mysql_operation",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 for the phase of a failover, a switchover or a rejoin that is under way",
            series: operations(snapshot),
        },
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
            "foobar_mysql_failovers_given_up",
            Kind::Counter,
            "Failovers that ended before anybody took over; each needs a human",
            of(|cluster| Value::Whole(cluster.failovers_given_up)),
        ),
        family(
            "foobar_mysql_flows_reset",
            Kind::Counter,
            "Flows that were cut because their member lost its role",
            of(|cluster| Value::Whole(cluster.flows_reset)),
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

fn operations(snapshot: &Snapshot) -> Vec<Series<'_>> {
    let clusters = snapshot.clusters.iter();
    clusters
        .filter_map(|cluster| {
            let (operation, phase) = cluster.operation.as_deref()?.split_once(": ")?;
            Some(Series {
                labels: vec![
                    ("cluster", cluster.name.as_str().into()),
                    ("operation", operation.into()),
                    ("phase", phase.into()),
                ],
                value: truth(true),
            })
        })
        .collect()
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
        Family {
            name: "foobar_mysql_member_connections",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "Connections that are open, as the server counts them",
            series: of(|member| member.connections.map(Value::Whole)),
        },
        Family {
            name: "foobar_mysql_member_semi_sync_degraded",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the primary no longer waits for an acknowledgement; 1 is not normal",
            series: of(|member| {
                let semi_sync = member.semi_sync.as_deref()?;
                Some(truth(semi_sync == "degraded"))
            }),
        },
        Family {
            name: "foobar_mysql_member_writes_stalled",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the write probe does not come back, as on a hung or full disk; 1 is not normal",
            series: of(|member| Some(truth(member.writes_stalled))),
        },
    ]
}

fn labels<'a>(cluster: &'a ClusterStatus, member: &MemberStatus) -> Labels<'a> {
    vec![
        ("cluster", cluster.name.as_str().into()),
        ("member", format!("{}:{}", member.host, member.port).into()),
    ]
}
