//! `foobar mysql`: the topology drawn, and roles moved.

use foobar::{
    admin::api::{ClusterStatus, MemberStatus, MysqlCommand as Asked, Request, Response},
    mysql::preflight,
};

use super::{
    again, another_answer,
    arguments::{Arguments, MysqlCommand, Output},
    ask,
    failure::{Failure, Status},
    output::{self, Columns, Rows, number, present, say, text},
};

pub fn run(
    arguments: &Arguments,
    cluster: Option<&str>,
    what: &MysqlCommand,
) -> Result<(), Failure> {
    let request = |command| Request::Mysql {
        cluster: cluster.map(str::to_owned),
        command,
    };
    let command = match what {
        MysqlCommand::Status { schema: true, .. } => {
            return say(&format!("{}\n", preflight::SCHEMA));
        }
        MysqlCommand::Status {
            watch,
            schema: false,
        } => {
            return again(*watch, || match ask(arguments, &request(Asked::Status))? {
                Response::Clusters(clusters) => show(arguments.output, &clusters),
                _ => Err(another_answer()),
            });
        }
        MysqlCommand::Switchover { to, dry_run } => Asked::Switchover {
            to: to.clone(),
            dry_run: *dry_run,
        },
        MysqlCommand::Failover => Asked::Failover,
        MysqlCommand::Rejoin { member } => Asked::Rejoin {
            member: member.clone(),
        },
        MysqlCommand::Resume => Asked::Resume,
    };
    super::show(arguments, ask(arguments, &request(command))?)
}

/// Fails when a cluster has no writer, so that scripts hear of it.
pub fn show(output: Output, clusters: &[ClusterStatus]) -> Result<(), Failure> {
    present(output, "mysql-status", &Rows { rows: clusters }, || {
        let drawn: Vec<_> = clusters
            .iter()
            .map(|cluster| draw(cluster, output))
            .collect();
        if drawn.is_empty() {
            return "this node leads to no database cluster\n".to_owned();
        }
        drawn.join("\n")
    })?;
    match clusters.iter().find(|cluster| cluster.writer.is_none()) {
        Some(cluster) => Err(Failure::told(
            Status::Failed,
            format!("{}: nobody takes writes", cluster.name),
        )),
        None => Ok(()),
    }
}

/// The cluster, its members under the one they replicate from, and what is to be known or mended.
pub fn draw(cluster: &ClusterStatus, output: Output) -> String {
    let mut answer = format!(
        "{} {}, term {}{}\n  write {} -> {}\n  read  {} -> {}\n\n",
        cluster.name,
        cluster.mode,
        cluster.term,
        state(cluster),
        cluster.write.join(" "),
        cluster.writer.as_deref().unwrap_or("NOBODY"),
        cluster.read.join(" "),
        readers(cluster),
    );
    answer += &members(cluster, output);
    for alarm in cluster.alarms.iter().chain(&cluster.paused) {
        answer += &format!("\nwarning: {alarm}");
    }
    if !cluster.lacks.is_empty() {
        answer += "\nwhat `promote` needs more:\n";
        for lack in &cluster.lacks {
            let of = lack
                .member
                .as_deref()
                .map_or(String::new(), |member| format!("{member}: "));
            answer += &format!("  {of}{}\n    {}\n", lack.what, lack.cure);
        }
    } else if !answer.ends_with('\n') {
        answer += "\n";
    }
    answer
}

fn state(cluster: &ClusterStatus) -> String {
    let mut words = Vec::new();
    if cluster.mode == "promote" {
        words.push(if cluster.armed { "armed" } else { "NOT ARMED" });
        words.push(if cluster.leads {
            "leads"
        } else {
            "does not lead"
        });
    }
    words.extend(cluster.operation.as_deref());
    words.iter().map(|word| format!(", {word}")).collect()
}

fn readers(cluster: &ClusterStatus) -> String {
    let takes = |member: &&MemberStatus| member.reads == "yes";
    let names: Vec<_> = cluster
        .members
        .iter()
        .filter(takes)
        .map(|member| member.host.as_str())
        .collect();
    match names.is_empty() {
        true => "NOBODY".to_owned(),
        false => names.join(" "),
    }
}

fn members(cluster: &ClusterStatus, output: Output) -> String {
    let wide = output == Output::Wide;
    let mut heads = vec!["MEMBER", "ROLE", "STATE", "LAG", "QPS", "CONNS", "ACKS", ""];
    if wide {
        heads.extend(["CHECK", "GTID"]);
    }
    let mut columns = Columns::new(&heads);
    let hosts: Vec<_> = cluster
        .members
        .iter()
        .map(|member| member.host.as_str())
        .collect();
    let is_root = |member: &&MemberStatus| {
        member
            .source
            .as_deref()
            .is_none_or(|source| !hosts.contains(&source))
    };
    for root in cluster.members.iter().filter(is_root) {
        columns.row(cells(root, 0, wide));
        below(cluster, root, 1, wide, &mut columns);
    }
    columns.text()
}

/// Those that replicate from `source`, each with its own; a ring of replicas is drawn once round.
fn below(
    cluster: &ClusterStatus,
    source: &MemberStatus,
    depth: usize,
    wide: bool,
    columns: &mut Columns,
) {
    if depth > cluster.members.len() {
        return;
    }
    for member in &cluster.members {
        if member.source.as_ref() == Some(&source.host) {
            columns.row(cells(member, depth, wide));
            below(cluster, member, depth + 1, wide, columns);
        }
    }
}

fn cells(member: &MemberStatus, depth: usize, wide: bool) -> Vec<comfy_table::Cell> {
    let arrow = match (depth, member.receiving, member.applying) {
        (0, ..) => "",
        (_, Some(true), Some(true)) => "-> ",
        _ => "-x ",
    };
    let indent = "   ".repeat(depth.saturating_sub(1));
    let mut cells = vec![
        text(format!("{indent}{arrow}{}:{}", member.host, member.port)),
        text(&member.role),
        match member.state.as_str() {
            "up" => output::good("up"),
            "gone" => output::bad("gone"),
            other => output::doubtful(other),
        },
        number(
            member
                .lag_seconds
                .map_or("-".to_owned(), |lag| format!("{lag:.1}s")),
        ),
        number(member.qps.map_or("-".to_owned(), |qps| format!("{qps:.0}"))),
        number(
            member
                .connections
                .map_or("-".to_owned(), |count| count.to_string()),
        ),
        text(member.semi_sync.as_deref().unwrap_or("-")),
        text(reason(member)),
    ];
    if wide {
        cells.push(text(
            member
                .check_milliseconds
                .map_or("-".to_owned(), |took| format!("{took:.1}ms")),
        ));
        cells.push(text(member.executed.as_deref().unwrap_or("-")));
    }
    cells
}

/// Why it is not what one would like it to be.
fn reason(member: &MemberStatus) -> String {
    let expected = matches!(
        member.reason.as_deref(),
        Some("read-only" | "another node takes the writes")
    ) || member.role == "replica" && member.reads == "yes";
    let mut reasons: Vec<String> = Vec::new();
    reasons.extend(member.reason.clone().filter(|_| !expected));
    reasons.extend(member.detail.clone());
    if member.reads == "keeps" {
        reasons.push("lags: no new readers".to_owned());
    }
    if member.writes == "keeps" {
        reasons.push("writes are stalled: no new writers".to_owned());
    }
    reasons.extend(
        member
            .errant
            .as_ref()
            .map(|errant| format!("errant: {errant}")),
    );
    reasons.dedup();
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_stand_under_their_source() {
        let member = |host: &str, source: Option<&str>| MemberStatus {
            host: host.to_owned(),
            port: 3306,
            role: if source.is_some() {
                "replica"
            } else {
                "primary"
            }
            .to_owned(),
            state: "up".to_owned(),
            source: source.map(str::to_owned),
            receiving: source.map(|_| true),
            applying: source.map(|_| source != Some("web2")),
            reads: "yes".to_owned(),
            ..MemberStatus::default()
        };
        let cluster = ClusterStatus {
            name: "mysql.app".to_owned(),
            mode: "observe".to_owned(),
            writer: Some("web2".to_owned()),
            members: vec![
                member("web1", Some("web2")),
                member("web2", None),
                member("web3", Some("web1")),
            ],
            ..ClusterStatus::default()
        };
        let drawn = draw(&cluster, Output::Table);
        let lines: Vec<_> = drawn
            .lines()
            .filter(|line| line.contains(":3306"))
            .collect();
        assert!(lines[0].starts_with("web2:3306"), "{drawn}");
        assert!(lines[1].starts_with("-x web1:3306"), "{drawn}");
        assert!(lines[2].starts_with("   -> web3:3306"), "{drawn}");
    }
}
