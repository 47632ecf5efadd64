//! Decisions of one cluster that the simulation does not meet.

use std::{collections::BTreeMap, ops::Range};

use super::*;
use crate::mysql::{
    gtid::GtidSet,
    observation::{Failure, GaleraView, Make, Picture, Replication, SemiSync},
};

pub(super) fn limits(mode: Mode) -> Limits {
    Limits {
        mode,
        every: Duration::from_millis(100),
        fall: 3,
        heartbeat: Duration::from_millis(300),
        lag: LagLimits {
            soft: Duration::from_secs(1),
            hard: Duration::from_secs(10),
        },
        fallback: Fallback::LeastLagged,
        on_write_stall: OnWriteStall::Alarm,
        rejoin: RejoinWish::Automatic,
        cool_down: Duration::from_secs(60),
        lease: None,
        balancers: 1,
        own: Vec::new(),
        who: "test".to_owned(),
    }
}

fn cluster(mode: Mode) -> Cluster {
    let names = (1..=3).map(|id| (format!("web{id}"), 3306)).collect();
    Cluster::new(limits(mode), names, Memory::default())
}

pub(super) fn picture(id: u32, source: Option<u32>, behind: u64, pulse: u64) -> Picture {
    Picture {
        server: ServerId(id.to_string()),
        make: Make::Mariadb,
        version: String::new(),
        read_only: source.is_some(),
        super_read_only: false,
        offline: false,
        replication: source.map(|source| Replication {
            source: Some(ServerId(source.to_string())),
            receiving: true,
            applying: true,
            pulse,
            behind: Some(behind),
            received: GtidSet::Mariadb(BTreeMap::new()),
            error: None,
        }),
        executed: GtidSet::Mariadb(BTreeMap::new()),
        term: None,
        beat: None,
        started: Some(0),
        semi_sync: SemiSync::default(),
        group: None,
        galera: None,
    }
}

fn see(cluster: &mut Cluster, pictures: &[(usize, Picture)], now: Now) {
    for (member, picture) in pictures {
        cluster.observe(
            *member,
            Observation::Answered(Box::new(picture.clone())),
            look(now),
            now,
        );
    }
    cluster.tick(now);
}

fn look(now: Now) -> Look {
    Look {
        begun: now.instant,
        took: Duration::ZERO,
    }
}

fn at(start: Instant, millis: u64) -> Now {
    Now {
        instant: start + Duration::from_millis(millis),
        micros: millis * 1000,
    }
}

#[test]
fn lagging_replicas_lose_new_readers_and_the_least_lagged_is_the_fallback() {
    let start = Instant::now();
    let mut cluster = cluster(Mode::Observe);
    for step in 0..4 {
        let behind = |id, seconds| (id as usize - 1, picture(id, Some(1), seconds, step));
        let pictures = [(0, picture(1, None, 0, 0)), behind(2, 3), behind(3, 5)];
        see(&mut cluster, &pictures, at(start, step * 100));
    }
    let steering = cluster.steering();
    assert_eq!(steering.writes, [Readable::Yes, Readable::No, Readable::No]);
    assert_eq!(
        steering.reads,
        [Readable::No, Readable::Yes, Readable::KeepsOnly]
    );
}

#[test]
fn observing_never_orders_anything() {
    let start = Instant::now();
    let mut cluster = cluster(Mode::Observe);
    let replica = |id| (id as usize - 1, picture(id, Some(1), 0, 1));
    see(
        &mut cluster,
        &[(0, picture(1, None, 0, 0)), replica(2), replica(3)],
        at(start, 0),
    );
    cluster.lead(true);
    for step in 1..50 {
        let now = at(start, step * 100);
        let mut effects = cluster.observe(0, Observation::Failed(Failure::Refused), look(now), now);
        for member in 1..3 {
            let (_, picture) = replica(member as u32 + 1);
            effects.extend(cluster.observe(
                member,
                Observation::Answered(Box::new(picture)),
                look(now),
                now,
            ));
        }
        effects.extend(cluster.tick(now));
        assert!(
            !effects
                .iter()
                .any(|effect| matches!(effect, Effect::Order(_))),
            "{effects:?}"
        );
    }
    assert_eq!(cluster.steering().writes, [Readable::No; 3]);
    let refused = cluster
        .command(&Command::Failover, at(start, 5_000))
        .expect_err("not in this mode");
    assert_eq!(refused, Refused::Mode);
}

#[test]
fn a_failover_that_left_all_as_it_was_is_tried_again_and_not_for_ever() {
    let start = Instant::now();
    let memory = Memory {
        sound_with: Some("1".to_owned()),
        ..Memory::default()
    };
    let names = (1..=3).map(|id| (format!("web{id}"), 3306)).collect();
    let mut cluster = Cluster::new(limits(Mode::Promote), names, memory);
    let deaf = |id: u32| {
        let mut picture = picture(id, Some(1), 0, 1);
        picture.beat = Some(1);
        (id as usize - 1, picture)
    };
    let primary = (0, picture(1, None, 0, 0));
    see(&mut cluster, &[primary, deaf(2), deaf(3)], at(start, 0));
    cluster.lead(true);
    let begun = |cluster: &mut Cluster, steps: Range<u64>| {
        let mut begun = Vec::new();
        for step in steps {
            let now = at(start, step * 100);
            let mut effects =
                cluster.observe(0, Observation::Failed(Failure::Refused), look(now), now);
            for (member, picture) in [deaf(2), deaf(3)] {
                let seen = Observation::Answered(Box::new(picture));
                effects.extend(cluster.observe(member, seen, look(now), now));
            }
            effects.extend(cluster.tick(now));
            let begins = |effect: &Effect| matches!(effect, Effect::Hook("failover", _));
            if effects.iter().any(begins) {
                begun.push(step);
                assert_eq!(cluster.memory().paused, None);
            }
        }
        begun
    };
    let first = begun(&mut cluster, 1..280);
    assert_eq!(first.len(), 3, "{first:?}");
    // Five seconds in which nobody carries the orders out, and two of rest.
    assert!(
        first.windows(2).all(|pair| pair[1] - pair[0] >= 70),
        "{first:?}"
    );
    let paused = cluster.memory().paused.clone().unwrap_or_default();
    assert!(paused.contains("given up at revoke"), "{paused}");
    let resumed = cluster.command(&Command::Resume, at(start, 28_000));
    assert!(resumed.is_ok(), "{resumed:?}");
    let again = begun(&mut cluster, 281..560);
    assert_eq!(again.len(), 3, "a human looked: {again:?}");
}

#[test]
fn a_stalled_primary_keeps_its_clients_and_gets_no_new_ones() {
    let start = Instant::now();
    let mut cluster = cluster(Mode::Observe);
    let replica = |id| (id as usize - 1, picture(id, Some(1), 0, 1));
    see(
        &mut cluster,
        &[(0, picture(1, None, 0, 0)), replica(2), replica(3)],
        at(start, 0),
    );
    cluster.probed(0, Err("no answer within 2s".to_owned()));
    assert_eq!(cluster.steering().writes[0], Readable::KeepsOnly);
    assert!(
        cluster
            .status()
            .alarms
            .iter()
            .any(|alarm| alarm.contains("does not take writes"))
    );
    cluster.probed(0, Ok(1));
    assert_eq!(cluster.steering().writes[0], Readable::Yes);
}

#[test]
fn a_cluster_of_galera_has_one_writer_that_sticks() {
    let start = Instant::now();
    let mut cluster = cluster(Mode::Consensus);
    let node = |id: u32, state| {
        let mut picture = picture(id, None, 0, 0);
        picture.galera = Some(GaleraView {
            primary_component: true,
            state,
            ready: state == 4,
            cluster: "c".to_owned(),
            size: 3,
        });
        (id as usize - 1, picture)
    };
    see(
        &mut cluster,
        &[node(1, 1), node(2, 4), node(3, 4)],
        at(start, 0),
    );
    assert_eq!(
        cluster.steering().writes,
        [Readable::No, Readable::Yes, Readable::No]
    );
    see(
        &mut cluster,
        &[node(1, 4), node(2, 4), node(3, 4)],
        at(start, 100),
    );
    let steering = cluster.steering();
    assert_eq!(
        steering.writes,
        [Readable::No, Readable::Yes, Readable::No],
        "it sticks"
    );
    assert_eq!(steering.reads, [Readable::Yes, Readable::No, Readable::Yes]);
}
