//! A simulated cluster under random faults, and the contract as properties of what balancers do to it.
//!
//! Three servers with semi-synchronous replication, one balancer or two that see them through checks and move them through
//! tasks, and a clock that jumps a check at a time.

mod balancer;
mod server;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use self::{
    server::Tail,
    world::{Event, Fault, World},
};
use super::{cluster::Command, lag::Readable};

const LEASE: Option<Duration> = Some(Duration::from_secs(1));

fn alone() -> World {
    let mut world = World::new(1, None);
    world.settle();
    world
}

fn pair() -> World {
    let mut world = World::new(2, LEASE);
    world.settle();
    assert_eq!((world.writer(0), world.writer(1)), (Some(0), Some(0)));
    world
}

fn of_first(fault: Fault) -> Event {
    Event::Balancer(0, fault)
}

fn event(balancers: usize) -> impl Strategy<Value = Event> {
    let member = || 0_usize..3;
    let of_balancer = (0..balancers, fault()).prop_map(|(own, fault)| Event::Balancer(own, fault));
    prop_oneof![
        3 => member().prop_map(Event::Kill),
        3 => (member(), prop_oneof![Just(Tail::Cut), Just(Tail::Kept)]).prop_map(|(m, tail)| Event::Start(m, tail)),
        2 => member().prop_map(Event::Cut),
        3 => member().prop_map(Event::Join),
        1 => member().prop_map(Event::Lag),
        2 => member().prop_map(Event::CatchUp),
        1 => member().prop_map(Event::Deny),
        2 => member().prop_map(Event::Admit),
        15 => of_balancer,
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let member = || 0_usize..3;
    prop_oneof![
        2 => member().prop_map(Fault::Hide),
        3 => member().prop_map(Fault::Show),
        1 => Just(Fault::LoseLocks),
        2 => Just(Fault::TakeLocks),
        1 => (1_u8..40).prop_map(Fault::Sleep),
        1 => Just(Fault::Restart),
        2 => Just(Fault::Command(Command::Resume)),
        1 => Just(Fault::Command(Command::Failover)),
        2 => member().prop_map(|m| Fault::Command(Command::Switchover { to: format!("web{}", m + 1) })),
        1 => member().prop_map(|m| Fault::Command(Command::Rejoin { member: format!("web{}", m + 1) })),
    ]
}

#[test]
fn a_killed_primary_is_replaced_once_and_comes_back_as_a_replica() {
    let mut world = alone();
    assert_eq!(world.writer(0), Some(0));
    world.happen(&Event::Kill(0));
    world.run(15);
    assert_eq!(world.writer(0), Some(1));
    world.assert_nothing_lost();
    assert_eq!(world.automatic, 1);
    world.happen(&Event::Start(0, Tail::Cut));
    world.run(100);
    assert_eq!(world.servers[0].source, Some(1), "it follows again");
    assert_eq!(
        world.balancers[0].cluster.steering().reads,
        [Readable::Yes, Readable::No, Readable::Yes]
    );
    world.happen(&Event::Kill(1));
    world.run(50);
    assert_eq!(world.writer(0), None, "N4: a human has not said resume");
}

#[test]
fn a_member_that_kept_what_nobody_acknowledged_stays_out() {
    let mut world = alone();
    world.happen(&Event::Cut(0));
    world.run(5);
    world.happen(&Event::Kill(0));
    world.happen(&Event::Join(0));
    world.run(30);
    assert_eq!(world.writer(0), Some(1));
    world.happen(&Event::Start(0, Tail::Kept));
    world.run(60);
    assert_eq!(world.servers[0].source, None, "N6");
    let reads = world.balancers[0].cluster.steering().reads;
    assert_eq!(reads[0], Readable::No);
    world.assert_nothing_lost();
}

#[test]
fn a_primary_cut_from_this_controller_alone_stays() {
    for mut world in [alone(), pair()] {
        world.happen(&of_first(Fault::Hide(0)));
        world.run(50);
        assert_eq!((world.writer(0), world.automatic), (Some(0), 0));
    }
}

#[test]
fn a_primary_and_a_replica_lost_together_promote_nobody() {
    let mut world = alone();
    world.happen(&Event::Kill(0));
    world.happen(&Event::Kill(2));
    world.run(50);
    assert_eq!((world.writer(0), world.automatic), (None, 0));
}

#[test]
fn a_replica_that_forgot_what_it_alone_had_acknowledged_is_no_witness() {
    let mut world = alone();
    only_witness_forgets(&mut world);
    world.run(100);
    assert_eq!((world.writer(0), world.automatic), (None, 0), "N2");
    world.happen(&Event::Start(0, Tail::Cut));
    world.run(30);
    assert_eq!(world.writer(0), Some(0), "the old primary has it");
    world.assert_nothing_lost();
}

#[test]
fn a_replica_that_was_started_again_is_a_witness_once_it_shows_a_later_beat() {
    let mut world = alone();
    world.happen(&Event::Kill(1));
    world.run(20);
    world.happen(&Event::Start(1, Tail::Cut));
    world.run(20);
    world.happen(&Event::Kill(0));
    world.run(30);
    assert_eq!((world.writer(0), world.automatic), (Some(1), 1));
    world.assert_nothing_lost();
}

/// The first replica alone acknowledges and applies nothing; it crashes with the primary and comes back first.
fn only_witness_forgets(world: &mut World) {
    world.happen(&Event::Cut(2));
    world.happen(&Event::Lag(1));
    world.run(3);
    for member in [0, 1] {
        world.happen(&Event::Kill(member));
    }
    world.happen(&Event::Join(2));
    world.happen(&Event::CatchUp(1));
    world.run(5);
    world.happen(&Event::Start(1, Tail::Cut));
}

#[test]
fn a_survey_between_the_loss_and_its_being_seen_disarms_nothing() {
    for turn in 0..3 {
        let mut world = alone();
        world.run(turn);
        world.happen(&Event::Kill(0));
        world.run(15);
        assert_eq!(world.writer(0), Some(1), "turn {turn}");
    }
}

#[test]
fn a_primary_that_its_replicas_vouched_for_and_that_came_up_closed_is_opened_again() {
    for down in 1..12 {
        let mut world = alone();
        world.happen(&of_first(Fault::LoseLocks));
        world.happen(&Event::Kill(0));
        world.run(down);
        world.happen(&Event::Start(0, Tail::Cut));
        world.run(1);
        world.happen(&of_first(Fault::TakeLocks));
        world.run(40);
        assert_eq!(world.writer(0), Some(0), "down for {down} checks");
        world.assert_nothing_lost();
    }
}

#[test]
fn a_primary_that_dies_with_the_controller_is_replaced() {
    for mut world in [alone(), pair()] {
        world.happen(&of_first(Fault::Restart));
        world.happen(&Event::Kill(0));
        world.run(60);
        assert_eq!((world.writer(0), world.automatic), (Some(1), 1));
        world.assert_nothing_lost();
    }
}

#[test]
fn a_primary_that_restarts_while_the_controller_stands_still_or_restarts_is_opened_again() {
    for fault in [Fault::Sleep(30), Fault::Restart] {
        let mut world = alone();
        world.happen(&of_first(fault.clone()));
        world.happen(&Event::Kill(0));
        world.run(1);
        world.happen(&Event::Start(0, Tail::Cut));
        world.run(80);
        assert_eq!(world.writer(0), Some(0), "{fault:?}");
    }
}

#[test]
fn a_replica_that_was_away_when_the_primary_died_is_waited_for() {
    let mut world = alone();
    world.happen(&of_first(Fault::Hide(2)));
    world.run(20);
    world.happen(&Event::Kill(0));
    world.run(20);
    assert_eq!((world.writer(0), world.automatic), (None, 0), "N3");
    world.happen(&of_first(Fault::Show(2)));
    world.run(50);
    assert_eq!((world.writer(0), world.automatic), (Some(1), 1));
    world.assert_nothing_lost();
}

#[test]
fn a_wrong_password_and_a_sleeping_controller_are_no_deaths() {
    let mut world = alone();
    for member in 0..3 {
        world.happen(&Event::Deny(member));
    }
    world.run(50);
    assert_eq!((world.writer(0), world.automatic), (Some(0), 0), "N9");
    for member in 0..3 {
        world.happen(&Event::Admit(member));
    }
    world.run(3);
    world.happen(&of_first(Fault::Sleep(40)));
    world.run(60);
    assert_eq!((world.writer(0), world.automatic), (Some(0), 0));
}

#[test]
fn a_fast_restart_takes_its_writes_again_without_a_failover() {
    let mut world = alone();
    world.happen(&of_first(Fault::LoseLocks));
    world.happen(&Event::Kill(0));
    world.run(4);
    world.happen(&Event::Start(0, Tail::Cut));
    world.run(2);
    world.happen(&of_first(Fault::TakeLocks));
    world.run(30);
    assert_eq!((world.writer(0), world.automatic), (Some(0), 0));
    assert!(world.servers[0].armed);
}

#[test]
fn a_switchover_moves_the_writes_and_loses_none() {
    for mut world in [alone(), pair()] {
        world.happen(&of_first(Fault::Command(Command::Switchover {
            to: "web3".to_owned(),
        })));
        world.run(20);
        for balancer in 0..world.balancers.len() {
            assert_eq!(world.writer(balancer), Some(2));
        }
        assert_eq!(world.servers[0].source, Some(2));
        world.assert_nothing_lost();
    }
}

#[test]
fn a_controller_that_stands_still_serves_no_longer_than_its_lease_and_proves_before_it_serves_again()
 {
    let mut world = pair();
    world.happen(&of_first(Fault::Sleep(60)));
    world.run(9);
    assert_eq!(world.writer(0), Some(0), "within the lease");
    world.run(2);
    assert_eq!(world.writer(0), None, "after it");
    assert_eq!(world.writer(1), Some(0), "the other goes on");
    world.happen(&Event::Kill(0));
    world.run(45);
    assert_eq!(world.writer(1), Some(1));
    world.run(10);
    assert_eq!(world.writer(0), Some(1), "it woke and saw who it is now");
    world.assert_nothing_lost();
}

#[test]
fn a_failover_waits_until_the_other_balancer_serves_the_lost_primary_no_more() {
    // The second sees the old primary alone, which nobody else reaches.
    let mut world = pair();
    world.happen(&of_first(Fault::Hide(0)));
    world.happen(&Event::Cut(0));
    for replica in [1, 2] {
        world.happen(&Event::Balancer(1, Fault::Hide(replica)));
    }
    world.run(60);
    assert_eq!(
        (world.writer(0), world.writer(1), world.automatic),
        (Some(1), None, 1)
    );
    world.assert_nothing_lost();
}

#[test]
fn a_follower_finishes_the_failover_of_a_leader_that_died_in_the_middle() {
    let mut finished = 0;
    for steps in 1..25 {
        let mut world = pair();
        world.happen(&Event::Kill(0));
        world.run(steps);
        world.happen(&of_first(Fault::Sleep(200)));
        world.run(100);
        finished += u32::from(world.writer(1).is_some_and(|writer| writer > 0));
        world.assert_nothing_lost();
    }
    assert_eq!(finished, 24, "whenever the leader died");
}

#[test]
fn a_leader_that_wakes_with_a_term_of_its_own_in_hand_sees_who_proved_it() {
    let mut world = pair();
    world.happen(&Event::Kill(0));
    let phase = |world: &World| world.balancers[0].cluster.status().operation;
    for _ in 0..30 {
        if phase(&world).as_deref() == Some("a failover: lapse") {
            break;
        }
        world.run(1);
    }
    assert_eq!(phase(&world).as_deref(), Some("a failover: lapse"));
    world.happen(&of_first(Fault::Sleep(60)));
    world.run(100);
    assert_eq!((world.writer(0), world.writer(1)), (Some(1), Some(1)));
}

#[test]
fn who_leads_gets_the_locks_of_all_even_when_they_were_torn() {
    let mut world = pair();
    world.servers[2].lock = Some(1);
    world.run(5);
    let locks = |world: &World| [0, 1, 2].map(|member| world.servers[member].lock);
    assert_eq!(locks(&world), [Some(0); 3]);
    world.servers[2].lock = Some(1);
    world.happen(&Event::Kill(0));
    world.run(80);
    assert_eq!(world.writer(0), Some(1), "one lock each was no majority");
}

#[test]
fn a_failover_of_one_balancer_is_one_of_the_other_too() {
    let mut world = pair();
    world.happen(&Event::Kill(0));
    world.run(40);
    assert_eq!(world.automatic, 1);
    world.happen(&Event::Start(0, Tail::Cut));
    world.run(60);
    world.happen(&of_first(Fault::LoseLocks));
    world.run(5);
    world.happen(&Event::Kill(1));
    world.run(60);
    assert_eq!(world.automatic, 1, "N4: a human has not said resume");
}

#[test]
fn a_candidate_that_was_started_again_waits_for_nobody_and_is_not_opened() {
    for steps in 1..25 {
        let mut world = pair();
        world.settle();
        world.happen(&Event::Cut(0));
        world.happen(&of_first(Fault::Hide(0)));
        world.run(steps);
        world.happen(&Event::Kill(1));
        world.happen(&Event::Start(1, Tail::Cut));
        world.run(30);
        world.assert_nothing_lost();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn no_history_breaks_the_contract(
        history in proptest::collection::vec((event(1), 0_u32..25), 1..40),
    ) {
        endure(World::new(1, None), &history);
    }

    #[test]
    fn no_history_of_two_balancers_breaks_it_either(
        history in proptest::collection::vec((event(2), 0_u32..25), 1..40),
    ) {
        endure(World::new(2, LEASE), &history);
    }
}

fn endure(mut world: World, history: &[(Event, u32)]) {
    world.settle();
    for (event, checks) in history {
        world.happen(event);
        world.run(*checks);
        world.assert_nothing_lost();
    }
    world.heal();
    world.run(100);
    world.assert_nothing_lost();
}
