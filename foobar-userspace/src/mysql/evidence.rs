//! Who may take writes, by all the evidence that the servers give together.

use std::{collections::BTreeSet, time::Instant};

use super::observation::{Failure, Picture, ServerId};

/// A member as the evidence is read from.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    pub name: &'a str,
    /// The last picture, if it is fresh enough to count.
    pub picture: Option<&'a Picture>,
    /// When the picture was taken, and when its term was seen there first.
    pub taken: Option<Instant>,
    pub term_since: Option<Instant>,
    /// Of the last check, where that failed.
    pub failure: Option<&'a Failure>,
    /// Something came from its source within the limit.
    pub hears: bool,
    /// Enough failures in a row that speak against it.
    pub gone: bool,
    /// Deposed by this controller, not seen clean since.
    pub fenced: bool,
    /// It took the writes until now.
    pub incumbent: bool,
}

/// Where writes go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Writer {
    One(usize),
    /// Nobody may: steer to none.
    Nobody,
    /// Several claim it: steer to none, and call for help (N1).
    Several(Vec<usize>),
}

/// Why a member may not take writes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unfit {
    #[error("not seen yet")]
    Unknown,
    #[error("gone: {0}")]
    Gone(Failure),
    #[error("read-only")]
    ReadOnly,
    #[error("offline")]
    Offline,
    #[error("replicates from {0}")]
    Replica(String),
    #[error("deposed; `foobar mysql rejoin` brings it back")]
    Fenced,
    #[error(
        "open, but no term of its own has begun; who opened it by hand adds a row to foobar.term"
    )]
    Unproved,
    #[error("its term {own} is over: {highest} has begun")]
    OldTerm { own: u64, highest: u64 },
    #[error("no replica hears from it")]
    Unheard,
    #[error("not ONLINE and PRIMARY in its group")]
    NotGroupPrimary,
    #[error("its group view is a minority ({reachable} of {members})")]
    Minority { reachable: usize, members: usize },
    #[error("a majority of the group names another primary")]
    Contradicted,
    #[error("not a synced and ready node of the primary component")]
    NotSynced,
    #[error("another node takes the writes")]
    NotChosen,
}

/// Reads all the evidence at once.
#[must_use]
pub fn judge(witnesses: &[Witness<'_>]) -> (Writer, Vec<Result<(), Unfit>>) {
    let mut verdicts: Vec<_> = (0..witnesses.len())
        .map(|index| fitness(index, witnesses))
        .collect();
    if is_galera(witnesses) {
        choose_one(witnesses, &mut verdicts);
    }
    let fit: Vec<usize> = (0..verdicts.len())
        .filter(|index| verdicts[*index].is_ok())
        .collect();
    let writer = match fit.as_slice() {
        [] => Writer::Nobody,
        [one] => Writer::One(*one),
        _ => Writer::Several(fit),
    };
    (writer, verdicts)
}

/// The highest term that any member shows.
#[must_use]
pub fn highest_term<'a>(pictures: impl IntoIterator<Item = &'a Picture>) -> u64 {
    pictures
        .into_iter()
        .filter_map(|picture| picture.term.as_ref())
        .map(|term| term.number)
        .max()
        .unwrap_or(0)
}

fn fitness(index: usize, witnesses: &[Witness<'_>]) -> Result<(), Unfit> {
    let witness = &witnesses[index];
    if witness.gone {
        return Err(Unfit::Gone(
            witness.failure.cloned().unwrap_or(Failure::TimedOut),
        ));
    }
    let picture = witness.picture.ok_or(Unfit::Unknown)?;
    if picture.read_only || picture.super_read_only {
        return Err(Unfit::ReadOnly);
    }
    if picture.offline {
        return Err(Unfit::Offline);
    }
    if witness.fenced {
        return Err(Unfit::Fenced);
    }
    not_a_replica_of_a_member(picture, witnesses)?;
    newest_term(witness, picture, witnesses)?;
    match (&picture.group, &picture.galera) {
        (Some(_), _) => allegiance_of_group(index, picture, witnesses),
        (None, Some(galera)) if galera.is_synced() => Ok(()),
        (None, Some(_)) => Err(Unfit::NotSynced),
        (None, None) => allegiance_of_replicas(index, picture, witnesses),
    }
}

fn not_a_replica_of_a_member(picture: &Picture, witnesses: &[Witness<'_>]) -> Result<(), Unfit> {
    let Some(replication) = &picture.replication else {
        return Ok(());
    };
    let source = witnesses.iter().find(|other| {
        other
            .picture
            .is_some_and(|other| replication.source.as_ref() == Some(&other.server))
    });
    match source {
        Some(source) => Err(Unfit::Replica(source.name.to_owned())),
        // A stopped channel to an unknown source is no role of its own; a running one is.
        None if replication.receiving => Err(Unfit::Replica(match &replication.source {
            Some(source) => format!("server {source}"),
            None => "a server that does not answer".to_owned(),
        })),
        None => Ok(()),
    }
}

/// A term that others showed only after this picture was taken may have begun on this very member.
fn newest_term(
    witness: &Witness<'_>,
    picture: &Picture,
    witnesses: &[Witness<'_>],
) -> Result<(), Unfit> {
    let before = |other: &&Witness<'_>| match (witness.taken, other.term_since) {
        (Some(taken), Some(since)) => since <= taken,
        _ => true,
    };
    let highest = highest_term(
        witnesses
            .iter()
            .filter(before)
            .filter_map(|other| other.picture),
    );
    let own = picture.term.as_ref().map_or(0, |term| term.number);
    if own < highest {
        return Err(Unfit::OldTerm { own, highest });
    }
    Ok(())
}

/// Asynchronous and semi-synchronous: another member hears from it, or it has the writes and nobody else can be asked.
fn allegiance_of_replicas(
    index: usize,
    picture: &Picture,
    witnesses: &[Witness<'_>],
) -> Result<(), Unfit> {
    let others = || {
        witnesses
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .map(|(_, other)| other)
    };
    let is_heard = others().any(|other| other.hears && follows(other, &picture.server));
    let alone = others().all(|other| other.picture.is_none());
    if is_heard || alone && (witness_is_incumbent(witnesses, index) || witnesses.len() == 1) {
        Ok(())
    } else {
        Err(Unfit::Unheard)
    }
}

fn witness_is_incumbent(witnesses: &[Witness<'_>], index: usize) -> bool {
    witnesses
        .get(index)
        .is_some_and(|witness| witness.incumbent)
}

/// Whether the member receives from `server`.
#[must_use]
pub fn follows(witness: &Witness<'_>, server: &ServerId) -> bool {
    witness
        .picture
        .and_then(|picture| picture.replication.as_ref())
        .is_some_and(|replication| {
            replication.receiving && replication.source.as_ref() == Some(server)
        })
}

fn allegiance_of_group(
    index: usize,
    picture: &Picture,
    witnesses: &[Witness<'_>],
) -> Result<(), Unfit> {
    let Some(view) = &picture.group else {
        return Err(Unfit::NotGroupPrimary);
    };
    if !view.online || !view.primary {
        return Err(Unfit::NotGroupPrimary);
    }
    if !view.is_majority() {
        return Err(Unfit::Minority {
            reachable: view.reachable,
            members: view.members,
        });
    }
    let contradicted = witnesses.iter().enumerate().any(|(other, witness)| {
        other != index
            && witness
                .picture
                .and_then(|picture| picture.group.as_ref())
                .is_some_and(|view| {
                    view.online
                        && view.is_majority()
                        && view
                            .of_primary
                            .as_ref()
                            .is_some_and(|named| *named != picture.server)
                })
    });
    if contradicted {
        return Err(Unfit::Contradicted);
    }
    Ok(())
}

fn is_galera(witnesses: &[Witness<'_>]) -> bool {
    witnesses.iter().any(|witness| {
        witness
            .picture
            .is_some_and(|picture| picture.galera.is_some())
    })
}

/// Every synced node of Galera takes writes: one is kept, the incumbent or else the first in the file. Nodes of two clusters
/// stay several.
fn choose_one(witnesses: &[Witness<'_>], verdicts: &mut [Result<(), Unfit>]) {
    let fit: Vec<usize> = (0..verdicts.len())
        .filter(|index| verdicts[*index].is_ok())
        .collect();
    let clusters: BTreeSet<&str> = fit
        .iter()
        .filter_map(|index| witnesses[*index].picture?.galera.as_ref())
        .map(|view| view.cluster.as_str())
        .collect();
    if clusters.len() > 1 {
        return;
    }
    let chosen = fit
        .iter()
        .find(|index| witnesses[**index].incumbent)
        .or(fit.first());
    for index in &fit {
        if Some(index) != chosen {
            verdicts[*index] = Err(Unfit::NotChosen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::gtid::GtidSet;
    use crate::mysql::observation::{
        GaleraView, GroupView, Make, Origin, Replication, SemiSync, Term,
    };

    fn picture(server: &str) -> Picture {
        Picture {
            server: ServerId(server.to_owned()),
            make: Make::Mariadb,
            version: "10.11".to_owned(),
            read_only: false,
            super_read_only: false,
            offline: false,
            replication: None,
            executed: GtidSet::Mariadb(Default::default()),
            term: None,
            beat: None,
            started: Some(0),
            semi_sync: SemiSync::default(),
            group: None,
            galera: None,
        }
    }

    fn replica(server: &str, source: &str) -> Picture {
        Picture {
            read_only: true,
            replication: Some(Replication {
                source: Some(ServerId(source.to_owned())),
                receiving: true,
                applying: true,
                pulse: 1,
                behind: None,
                received: GtidSet::Mariadb(Default::default()),
                error: None,
            }),
            ..picture(server)
        }
    }

    fn grouped(server: &str, primary: &str, reachable: usize) -> Picture {
        Picture {
            make: Make::Mysql,
            read_only: server != primary,
            group: Some(GroupView {
                online: true,
                primary: server == primary,
                of_primary: Some(ServerId(primary.to_owned())),
                reachable,
                members: 3,
            }),
            ..picture(server)
        }
    }

    fn synced(server: &str) -> Picture {
        Picture {
            galera: Some(GaleraView {
                primary_component: true,
                state: 4,
                ready: true,
                cluster: "c".to_owned(),
                size: 3,
            }),
            ..picture(server)
        }
    }

    fn witness(picture: &Picture) -> Witness<'_> {
        Witness {
            name: "member",
            picture: Some(picture),
            taken: None,
            term_since: None,
            failure: None,
            hears: true,
            gone: false,
            fenced: false,
            incumbent: false,
        }
    }

    fn writer(pictures: &[Picture]) -> Writer {
        judge(&pictures.iter().map(witness).collect::<Vec<_>>()).0
    }

    #[test]
    fn the_one_that_is_writable_and_heard_takes_the_writes() {
        assert_eq!(
            writer(&[picture("1"), replica("2", "1"), replica("3", "1")]),
            Writer::One(0)
        );
    }

    #[test]
    fn writable_is_not_enough() {
        let unheard = [picture("1"), replica("2", "3"), picture("3")];
        assert_eq!(writer(&unheard), Writer::One(2), "only one is heard");
        let mut silent = unheard.iter().map(witness).collect::<Vec<_>>();
        silent[1].hears = false;
        assert_eq!(judge(&silent).0, Writer::Nobody);
        let mut fenced = unheard.iter().map(witness).collect::<Vec<_>>();
        fenced[2].fenced = true;
        assert_eq!(judge(&fenced).0, Writer::Nobody);
    }

    #[test]
    fn two_that_are_heard_both_get_nothing() {
        let pictures = [
            picture("1"),
            picture("2"),
            replica("3", "1"),
            replica("4", "2"),
        ];
        assert_eq!(writer(&pictures), Writer::Several(vec![0, 1]));
    }

    #[test]
    fn a_term_that_is_over_never_comes_back() {
        let mut old = picture("1");
        old.term = Some(Term {
            number: 1,
            server: ServerId("1".to_owned()),
            origin: Origin::Planned,
        });
        let mut new = replica("2", "1");
        new.term = Some(Term {
            number: 2,
            server: ServerId("2".to_owned()),
            origin: Origin::Planned,
        });
        let (writer, verdicts) = judge(&[witness(&old), witness(&new)]);
        assert_eq!(writer, Writer::Nobody);
        assert_eq!(verdicts[0], Err(Unfit::OldTerm { own: 1, highest: 2 }));
    }

    #[test]
    fn a_term_seen_elsewhere_a_moment_after_the_last_look_is_no_verdict_yet() {
        let now = Instant::now();
        let later = now + std::time::Duration::from_millis(50);
        let old = picture("1");
        let mut new = replica("2", "1");
        new.term = Some(Term {
            number: 1,
            server: ServerId("1".to_owned()),
            origin: Origin::Planned,
        });
        let own = Witness {
            taken: Some(now),
            ..witness(&old)
        };
        let other = Witness {
            taken: Some(later),
            term_since: Some(later),
            ..witness(&new)
        };
        assert_eq!(judge(&[own, other]).0, Writer::One(0));
        let looked_again = Witness {
            taken: Some(later),
            ..own
        };
        assert_eq!(judge(&[looked_again, other]).0, Writer::Nobody);
    }

    #[test]
    fn the_incumbent_stays_while_nobody_else_can_be_asked_and_nobody_becomes_one_then() {
        let alone = picture("1");
        let unknown = Witness {
            picture: None,
            hears: false,
            ..witness(&alone)
        };
        assert_eq!(
            judge(&[witness(&alone), unknown, unknown]).0,
            Writer::Nobody
        );
        let incumbent = Witness {
            incumbent: true,
            ..witness(&alone)
        };
        assert_eq!(judge(&[incumbent, unknown, unknown]).0, Writer::One(0));
        let detached = replica("2", "9");
        assert_eq!(
            judge(&[incumbent, witness(&detached), unknown]).0,
            Writer::Nobody
        );
    }

    #[test]
    fn a_group_primary_in_a_minority_takes_nothing() {
        let old = grouped("1", "1", 1);
        let rest = [grouped("2", "2", 2), grouped("3", "2", 2)];
        assert_eq!(
            writer(&[old.clone(), rest[0].clone(), rest[1].clone()]),
            Writer::One(1)
        );
        assert_eq!(writer(&[old]), Writer::Nobody);
        let not_yet_aware = grouped("1", "1", 3);
        assert_eq!(
            writer(&[not_yet_aware, rest[1].clone()]),
            Writer::Nobody,
            "a majority names another"
        );
    }

    #[test]
    fn of_galera_nodes_one_is_kept() {
        let nodes = [synced("1"), synced("2"), synced("3")];
        assert_eq!(writer(&nodes), Writer::One(0));
        let mut witnesses = nodes.iter().map(witness).collect::<Vec<_>>();
        witnesses[2].incumbent = true;
        assert_eq!(judge(&witnesses).0, Writer::One(2));
        let mut donor = nodes.clone();
        if let Some(view) = &mut donor[0].galera {
            view.state = 2;
        }
        assert_eq!(writer(&donor), Writer::One(1));
        let mut torn = nodes;
        if let Some(view) = &mut torn[1].galera {
            view.cluster = "d".to_owned();
        }
        assert_eq!(writer(&torn), Writer::Several(vec![0, 1, 2]));
    }
}
