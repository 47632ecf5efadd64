//! What must be so before a failover may be trusted, and the SQL that mends what is not.

use std::time::Duration;

use super::observation::{Make, Picture, Survey};

/// The tables that foobar writes to: beats by which lag is told and hung disks are found, and terms. The operator makes
/// them; foobar never does.
pub const SCHEMA: &str = "\
CREATE DATABASE IF NOT EXISTS foobar;
CREATE TABLE IF NOT EXISTS foobar.heartbeat (node VARCHAR(64) NOT NULL PRIMARY KEY, at BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS foobar.term (term BIGINT UNSIGNED NOT NULL PRIMARY KEY, server VARCHAR(64) NOT NULL, who \
VARCHAR(64) NOT NULL, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB;";

/// A point that is not as it must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lack {
    /// None: of the cluster as a whole.
    pub member: Option<usize>,
    pub what: String,
    /// SQL, or what else to do.
    pub cure: String,
}

/// A member as the preflight looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub picture: Option<&'a Picture>,
    pub survey: Option<&'a Survey>,
    pub is_primary: bool,
    /// It ran replication a moment ago: the loss of a primary must not disarm what it is armed for.
    pub ran_lately: bool,
}

/// Everything that keeps `promote` from being armed.
#[must_use]
pub fn for_promotion(members: &[Candidate<'_>], own: &[String]) -> Vec<Lack> {
    let mut lacks = Vec::new();
    if members.len() != 3 {
        lacks.push(Lack {
            member: None,
            what: format!(
                "{} members: the arithmetic of acknowledgements is that of three",
                members.len()
            ),
            cure: "name a primary and two replicas under `members`".to_owned(),
        });
    }
    if !members.iter().any(|member| member.is_primary) {
        lacks.push(Lack {
            member: None,
            what: "no primary is known".to_owned(),
            cure: "`foobar mysql status` says why no member may take writes".to_owned(),
        });
    }
    for (index, member) in members.iter().enumerate() {
        let (Some(picture), Some(survey)) = (member.picture, member.survey) else {
            lacks.push(Lack {
                member: Some(index),
                what: "not seen yet, or gone".to_owned(),
                cure: "it must answer the monitor's account".to_owned(),
            });
            continue;
        };
        let points = match picture.make {
            Make::Mariadb => MARIADB,
            Make::Mysql => MYSQL,
        };
        lacks.extend(
            points
                .iter()
                .filter(|point| !point.holds(survey))
                .map(|point| Lack {
                    member: Some(index),
                    what: point.told(survey),
                    cure: point.cure.to_owned(),
                }),
        );
        let more = role(member, picture)
            .into_iter()
            .chain(heartbeat(picture.make, survey))
            .chain(clock(survey))
            .chain(unbound(survey, own));
        lacks.extend(more.map(|(what, cure)| Lack {
            member: Some(index),
            what,
            cure,
        }));
    }
    lacks
}

/// What is worth knowing and keeps nothing from being done.
#[must_use]
pub fn hints(members: &[Candidate<'_>]) -> Vec<Lack> {
    let blind = |member: &Candidate<'_>| {
        let survey = member.survey;
        survey.is_some_and(|survey| survey.unbound.is_none())
    };
    (0..members.len())
        .filter(|index| blind(&members[*index]))
        .map(|index| Lack {
            member: Some(index),
            what: "the monitor does not see which accounts write past read_only".to_owned(),
            cure: "GRANT SELECT ON mysql.* to its account for a while, and look again".to_owned(),
        })
        .collect()
}

/// Silence is told from quiet by heartbeats: they must come faster than a failover is to begin.
fn heartbeat(make: Make, survey: &Survey) -> Option<(String, String)> {
    let period: f64 = survey.settings.get(HEARTBEAT)?.parse().ok()?;
    let is_fast = period > 0.0 && period <= SLOWEST_HEARTBEAT.as_secs_f64();
    (!is_fast).then(|| {
        let cure = match make {
            Make::Mariadb => {
                "STOP SLAVE; CHANGE MASTER TO MASTER_HEARTBEAT_PERIOD = 0.3; START SLAVE"
            }
            Make::Mysql => {
                "STOP REPLICA; CHANGE REPLICATION SOURCE TO SOURCE_HEARTBEAT_PERIOD = 0.3; START REPLICA"
            }
        };
        (
            format!("its source sends a heartbeat every {period} s"),
            cure.to_owned(),
        )
    })
}

fn clock(survey: &Survey) -> Option<(String, String)> {
    let off = Duration::from_micros(survey.ahead?.unsigned_abs());
    (off > MOST_SKEW).then(|| {
        let side = if survey.ahead < Some(0) {
            "behind"
        } else {
            "ahead of"
        };
        (
            format!("its clock is {:.1} s {side} this node's", off.as_secs_f64()),
            "keep time on both: `systemctl enable --now chrony`".to_owned(),
        )
    })
}

/// `own`: foobar's accounts, which must.
fn unbound(survey: &Survey, own: &[String]) -> Option<(String, String)> {
    let is_own = |account: &&String| {
        own.iter()
            .any(|user| account.starts_with(&format!("'{user}'@")))
    };
    let others: Vec<&String> = survey
        .unbound
        .as_ref()?
        .iter()
        .filter(|account| !is_own(account))
        .collect();
    let first = others.first()?;
    let list: Vec<&str> = others.iter().map(|account| account.as_str()).collect();
    Some((
        format!("{} may write past read_only", list.join(" and ")),
        format!(
            "REVOKE SUPER, READ_ONLY ADMIN, CONNECTION_ADMIN ON *.* FROM {first}, as far as the server knows them"
        ),
    ))
}

/// What a primary and what a replica must be, beside their settings.
fn role(member: &Candidate<'_>, picture: &Picture) -> Option<(String, String)> {
    let is_primary = member.is_primary;
    let (source, replica) = match picture.make {
        Make::Mariadb => (
            "rpl_semi_sync_master_enabled",
            "rpl_semi_sync_slave_enabled",
        ),
        Make::Mysql => (
            "rpl_semi_sync_source_enabled",
            "rpl_semi_sync_replica_enabled",
        ),
    };
    if is_primary && !(picture.semi_sync.armed && picture.semi_sync.in_effect) {
        return Some((
            "semi-synchronous replication is not in effect".to_owned(),
            format!("once a replica is connected: SET GLOBAL {source} = 1"),
        ));
    }
    if !is_primary && !picture.semi_sync.acknowledges {
        return Some((
            "the replica does not acknowledge".to_owned(),
            format!(
                "SET GLOBAL {replica} = 1, then restart its receiver; and the same in its configuration"
            ),
        ));
    }
    let stopped = picture
        .replication
        .as_ref()
        .is_none_or(|replication| !replication.is_running());
    if !is_primary && stopped && !member.ran_lately {
        return Some((
            "replication does not run".to_owned(),
            "START REPLICA (START SLAVE), after mending what stopped it".to_owned(),
        ));
    }
    None
}

#[derive(Clone, Copy, Debug)]
struct Point {
    setting: &'static str,
    wanted: Wanted,
    cure: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    On,
    Off,
    Word(&'static str),
    AtLeast(u64),
    Exactly(u64),
    /// The first is best.
    OneOf(&'static [&'static str]),
}

impl Point {
    fn holds(&self, survey: &Survey) -> bool {
        let Some(value) = survey.settings.get(self.setting) else {
            return false;
        };
        match self.wanted {
            Wanted::On => matches!(value.as_str(), "1" | "ON"),
            Wanted::Off => matches!(value.as_str(), "0" | "OFF"),
            Wanted::Word(word) => value.eq_ignore_ascii_case(word),
            Wanted::AtLeast(least) => value.parse::<u64>().is_ok_and(|value| value >= least),
            Wanted::Exactly(wanted) => value.parse() == Ok(wanted),
            Wanted::OneOf(words) => words.contains(&value.as_str()),
        }
    }

    fn told(&self, survey: &Survey) -> String {
        match survey.settings.get(self.setting) {
            Some(value) => format!("{} is {value}", self.setting),
            None => format!("{} is not there", self.setting),
        }
    }
}

const fn point(setting: &'static str, wanted: Wanted, cure: &'static str) -> Point {
    Point {
        setting,
        wanted,
        cure,
    }
}

/// The least time that a primary must wait for an acknowledgement rather than go on without.
const LONG: u64 = Duration::from_secs(3600).as_millis() as u64;

const MARIADB: &[Point] = &[
    point(
        "gtid_strict_mode",
        Wanted::On,
        "SET GLOBAL gtid_strict_mode = 1; and in its configuration",
    ),
    point(
        "log_bin",
        Wanted::On,
        "log-bin in its configuration, then restart",
    ),
    point(
        "log_slave_updates",
        Wanted::On,
        "log-slave-updates in its configuration, then restart",
    ),
    point(
        "binlog_format",
        Wanted::Word("ROW"),
        "SET GLOBAL binlog_format = 'ROW'; and in its configuration",
    ),
    point(
        "sync_binlog",
        Wanted::Exactly(1),
        "SET GLOBAL sync_binlog = 1; and in its configuration",
    ),
    // At 1 a commit of a group is not flushed, and a crash with init-rpl-role=SLAVE cuts off what was acknowledged.
    point(
        "innodb_flush_log_at_trx_commit",
        Wanted::Exactly(3),
        "SET GLOBAL innodb_flush_log_at_trx_commit = 3; and in its configuration",
    ),
    point(
        "rpl_semi_sync_master_wait_point",
        Wanted::Word("AFTER_SYNC"),
        "SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC'; and in its configuration",
    ),
    point(
        "rpl_semi_sync_master_timeout",
        Wanted::AtLeast(LONG),
        "SET GLOBAL rpl_semi_sync_master_timeout = 3600000; and in its configuration",
    ),
    point(
        "rpl_semi_sync_slave_kill_conn_timeout",
        Wanted::Exactly(1),
        "SET GLOBAL rpl_semi_sync_slave_kill_conn_timeout = 1; else a failover from a hung primary waits for it",
    ),
    point(
        AT_START,
        Wanted::OneOf(AT_START_WANTED),
        "read_only = 1 in my.cnf: after a crash it must come up closed",
    ),
    point(
        "foobar_tables",
        Wanted::Exactly(2),
        "on the primary, the two tables of foobar: `foobar mysql status --schema` prints them",
    ),
];

const MYSQL: &[Point] = &[
    point(
        "gtid_mode",
        Wanted::On,
        "SET PERSIST gtid_mode = ON, by its steps",
    ),
    point(
        "enforce_gtid_consistency",
        Wanted::On,
        "SET PERSIST enforce_gtid_consistency = ON",
    ),
    point(
        "log_bin",
        Wanted::On,
        "log_bin in its configuration, then restart",
    ),
    point(
        "log_replica_updates",
        Wanted::On,
        "log_replica_updates = ON in its configuration, then restart",
    ),
    point(
        "binlog_format",
        Wanted::Word("ROW"),
        "SET PERSIST binlog_format = 'ROW'",
    ),
    point(
        "sync_binlog",
        Wanted::Exactly(1),
        "SET PERSIST sync_binlog = 1",
    ),
    point(
        "innodb_flush_log_at_trx_commit",
        Wanted::Exactly(1),
        "SET PERSIST innodb_flush_log_at_trx_commit = 1",
    ),
    point(
        "rpl_semi_sync_source_wait_point",
        Wanted::Word("AFTER_SYNC"),
        "SET PERSIST rpl_semi_sync_source_wait_point = 'AFTER_SYNC'",
    ),
    point(
        "rpl_semi_sync_source_timeout",
        Wanted::AtLeast(LONG),
        "SET PERSIST rpl_semi_sync_source_timeout = 3600000",
    ),
    point(
        "rpl_semi_sync_source_wait_for_replica_count",
        Wanted::Exactly(1),
        "SET PERSIST rpl_semi_sync_source_wait_for_replica_count = 1",
    ),
    point(
        "relay_log_recovery",
        Wanted::On,
        "relay_log_recovery = ON in its configuration, then restart",
    ),
    point(
        AT_START,
        Wanted::OneOf(AT_START_WANTED),
        "super_read_only = ON in my.cnf, or SET PERSIST_ONLY super_read_only = ON: after a crash it must come up closed",
    ),
    point("offline_mode", Wanted::Off, "SET GLOBAL offline_mode = 0"),
    point(
        "foobar_tables",
        Wanted::Exactly(2),
        "on the primary, the two tables of foobar: `foobar mysql status --schema` prints them",
    ),
];

/// The settings that a survey must bring.
pub fn settings(make: Make) -> impl Iterator<Item = &'static str> {
    let points = match make {
        Make::Mariadb => MARIADB,
        Make::Mysql => MYSQL,
    };
    points
        .iter()
        .map(|point| point.setting)
        .filter(|setting| ![TABLES, AT_START].contains(setting))
}

/// Whether it takes writes after a restart, as far as it tells: what was set since hides what its configuration says.
pub const AT_START: &str = "at start it";
pub const READ_ONLY: &str = "read-only";
/// Not wanted is `writable`.
const AT_START_WANTED: &[&str] = &[READ_ONLY, "unknown"];
/// Of a replica, in seconds.
pub const HEARTBEAT: &str = "heartbeat period";
const SLOWEST_HEARTBEAT: Duration = Duration::from_millis(500);
const MOST_SKEW: Duration = Duration::from_millis(500);

/// How many of foobar's tables are there; no variable of the server.
pub const TABLES: &str = "foobar_tables";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::{
        gtid::GtidSet,
        observation::{Replication, SemiSync, ServerId},
    };

    fn good(make: Make) -> Survey {
        let mut survey = Survey::default();
        let points = match make {
            Make::Mariadb => MARIADB,
            Make::Mysql => MYSQL,
        };
        for point in points {
            let value = match point.wanted {
                Wanted::On => "1".to_owned(),
                Wanted::Off => "0".to_owned(),
                Wanted::Word(word) => word.to_owned(),
                Wanted::AtLeast(value) | Wanted::Exactly(value) => value.to_string(),
                Wanted::OneOf(words) => words[0].to_owned(),
            };
            survey.settings.insert(point.setting.to_owned(), value);
        }
        survey
    }

    fn picture(make: Make, is_primary: bool) -> Picture {
        let none = GtidSet::Mariadb(Default::default());
        Picture {
            server: ServerId("1".to_owned()),
            make,
            version: String::new(),
            read_only: !is_primary,
            super_read_only: false,
            offline: false,
            replication: (!is_primary).then(|| Replication {
                source: None,
                receiving: true,
                applying: true,
                pulse: 0,
                behind: None,
                received: none.clone(),
                error: None,
            }),
            executed: none,
            term: None,
            beat: None,
            started: Some(0),
            semi_sync: SemiSync {
                armed: is_primary,
                in_effect: is_primary,
                replicas: 2,
                acknowledges: !is_primary,
            },
            group: None,
            galera: None,
        }
    }

    #[test]
    fn three_good_members_lack_nothing_and_every_point_counts() {
        for make in [Make::Mariadb, Make::Mysql] {
            let pictures = [true, false, false].map(|is_primary| picture(make, is_primary));
            let survey = good(make);
            let lacks = |survey: &Survey| {
                let members: Vec<_> = pictures
                    .iter()
                    .map(|picture| Candidate {
                        picture: Some(picture),
                        survey: Some(survey),
                        is_primary: !picture.read_only,
                        ran_lately: false,
                    })
                    .collect();
                for_promotion(&members, &[])
            };
            assert_eq!(lacks(&survey), []);
            for setting in survey.settings.keys() {
                let mut worse = survey.clone();
                worse.settings.insert(setting.clone(), "7".to_owned());
                if worse.settings[setting] == survey.settings[setting] {
                    continue;
                }
                let found = lacks(&worse);
                assert_eq!(found.len(), 3, "{setting}: {found:?}");
                assert!(
                    found
                        .iter()
                        .all(|lack| lack.what.contains(setting.as_str()) && !lack.cure.is_empty())
                );
            }
        }
    }

    #[test]
    fn a_primary_that_does_not_wait_and_a_replica_that_is_missing_are_told() {
        let survey = good(Make::Mariadb);
        let mut primary = picture(Make::Mariadb, true);
        primary.semi_sync.in_effect = false;
        let replica = picture(Make::Mariadb, false);
        let member = |picture, is_primary| Candidate {
            picture,
            survey: Some(&survey),
            is_primary,
            ran_lately: false,
        };
        let lacks = for_promotion(
            &[
                member(Some(&primary), true),
                member(Some(&replica), false),
                member(None, false),
            ],
            &[],
        );
        let told: Vec<_> = lacks
            .iter()
            .map(|lack| (lack.member, lack.what.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (Some(0), "semi-synchronous replication is not in effect"),
                (Some(2), "not seen yet, or gone")
            ]
        );
    }

    #[test]
    fn replication_that_ran_a_moment_ago_is_not_told_to_have_stopped() {
        let survey = good(Make::Mariadb);
        let mut replica = picture(Make::Mariadb, false);
        if let Some(replication) = &mut replica.replication {
            replication.receiving = false;
        }
        let lacks = |ran_lately| {
            let member = Candidate {
                picture: Some(&replica),
                survey: Some(&survey),
                is_primary: false,
                ran_lately,
            };
            let found = for_promotion(&[member], &[]).into_iter();
            found.filter(|lack| lack.member.is_some()).count()
        };
        assert_eq!((lacks(true), lacks(false)), (0, 1));
    }

    #[test]
    fn slow_heartbeats_strange_clocks_and_accounts_past_read_only_are_told_with_their_cures() {
        let mut survey = good(Make::Mariadb);
        survey.unbound = Some(vec!["'foobar_admin'@'%'".to_owned()]);
        survey.ahead = Some(-400_000);
        survey
            .settings
            .insert(HEARTBEAT.to_owned(), "0.300".to_owned());
        let pictures = [true, false, false].map(|is_primary| picture(Make::Mariadb, is_primary));
        let lacks = |survey: &Survey| {
            let members = pictures.each_ref().map(|picture| Candidate {
                picture: Some(picture),
                survey: Some(survey),
                is_primary: !picture.read_only,
                ran_lately: false,
            });
            for_promotion(&members, &["foobar_admin".to_owned()])
        };
        assert_eq!(lacks(&survey), []);
        survey
            .settings
            .insert(HEARTBEAT.to_owned(), "30.000".to_owned());
        assert!(
            lacks(&survey)[0]
                .cure
                .contains("MASTER_HEARTBEAT_PERIOD = 0.3")
        );
        survey.settings.remove(HEARTBEAT);
        survey.ahead = Some(-3_200_000);
        assert_eq!(
            lacks(&survey)[0].what,
            "its clock is 3.2 s behind this node's"
        );
        survey.ahead = None;
        survey.unbound = Some(vec!["'boss'@'%'".to_owned()]);
        let found = lacks(&survey);
        assert_eq!(found[0].what, "'boss'@'%' may write past read_only");
        assert!(found[0].cure.contains("FROM 'boss'@'%'"));
    }
}
