//! What `foobar doctor` says of database clusters.

use super::status::ClusterStatus;
use crate::doctor::Finding;

/// A finding for each thing that keeps a cluster from its mode, with the SQL that mends it; one line where all is well.
#[must_use]
pub fn findings(clusters: &[ClusterStatus]) -> Vec<Finding> {
    clusters.iter().flat_map(of_cluster).collect()
}

fn of_cluster(cluster: &ClusterStatus) -> Vec<Finding> {
    let name = &cluster.name;
    let promotes = cluster.mode == "promote";
    let mut findings = Vec::new();
    if cluster.writer.is_none() {
        findings.push(Finding::fail(
            name.clone(),
            "the writer address leads to nobody",
            "`foobar mysql status` says of each member why",
        ));
    }
    for lack in &cluster.lacks {
        let subject = match &lack.member {
            Some(member) => format!("{name} {member}"),
            None => name.clone(),
        };
        let text = format!("`promote` needs more: {}", lack.what);
        findings.push(if promotes {
            Finding::fail(subject, text, lack.cure.clone())
        } else {
            Finding::warn(subject, text, lack.cure.clone())
        });
    }
    for hint in cluster.hints.iter().filter(|_| promotes) {
        let member = hint.member.as_deref().unwrap_or_default();
        findings.push(Finding::warn(
            format!("{name} {member}"),
            hint.what.clone(),
            hint.cure.clone(),
        ));
    }
    if let Some(paused) = &cluster.paused {
        findings.push(Finding::warn(
            name.clone(),
            paused.clone(),
            "foobar mysql resume",
        ));
    }
    if promotes && !cluster.leads {
        findings.push(Finding::warn(
            name.clone(),
            "another controller leads, or too few members answer",
            "nothing, if another one shall; else give the admin account its privileges on every member",
        ));
    }
    for member in cluster
        .members
        .iter()
        .filter(|member| member.errant.is_some())
    {
        findings.push(Finding::fail(
            format!("{name} {}", member.host),
            format!(
                "has transactions that the primary lacks: {}",
                member.errant.as_deref().unwrap_or_default()
            ),
            "keep a copy if they matter, then rebuild it from the primary",
        ));
    }
    if findings.is_empty() {
        let writer = cluster.writer.as_deref().unwrap_or_default();
        findings.push(Finding::ok(
            name.clone(),
            format!("{writer} is primary, mode {}", cluster.mode),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::Grade, mysql::status::LackStatus};

    #[test]
    fn what_promotion_lacks_fails_only_where_it_is_wanted() {
        let mut cluster = ClusterStatus {
            name: "mysql.app".to_owned(),
            mode: "observe".to_owned(),
            writer: Some("web1".to_owned()),
            lacks: vec![LackStatus {
                member: Some("web2".to_owned()),
                what: "sync_binlog is 0".to_owned(),
                cure: "SET GLOBAL sync_binlog = 1".to_owned(),
            }],
            leads: true,
            ..ClusterStatus::default()
        };
        let told = findings(std::slice::from_ref(&cluster));
        assert_eq!((told.len(), told[0].grade), (1, Grade::Warn));
        assert_eq!(told[0].subject, "mysql.app web2");
        cluster.mode = "promote".to_owned();
        assert_eq!(
            findings(std::slice::from_ref(&cluster))[0].grade,
            Grade::Fail
        );
        cluster.lacks.clear();
        assert_eq!(findings(&[cluster])[0].grade, Grade::Ok);
    }
}
