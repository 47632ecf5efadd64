//! Databases behind the balancer under faults: nothing acknowledged is lost, nobody writes beside a primary. Needs root.

use std::{collections::BTreeSet, path::Path, thread, time::Duration};

use foobar_lab::{
    SERVERS,
    arena::{Arena, FEW},
    databases::{self, Databases},
    disks::{self, Disks},
    estate::{self, Estate, SERVICE},
    ledger,
    nemesis::{Expected, Nemesis},
};

#[test]
fn the_application_writes_to_the_primary_and_reads_from_the_replicas() {
    let estate = Estate::up();
    let get = |path: &str| {
        let url = format!("{SERVICE}/db/{path}");
        let output = estate
            .lab
            .run("client", &["curl", "-sSm60", &url])
            .expect("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        answer["database"]
            .as_u64()
            .unwrap_or_else(|| panic!("{path}: {text}"))
    };
    let mut readers = BTreeSet::new();
    for _ in 0..20 {
        assert_eq!(get("write"), 11);
        readers.insert(get("read"));
    }
    assert_eq!(readers.into_iter().collect::<Vec<_>>(), [12, 13]);
    let told = estate.foobar(&["mysql", "status"]);
    assert!(
        told.contains("web1:3306") && told.contains("-> web2:3306"),
        "{told}"
    );
}

#[test]
fn a_primary_that_dies_hangs_or_is_cut_off_is_replaced_and_nothing_acknowledged_is_lost() {
    prove(&[
        Nemesis::Kill,
        Nemesis::Freeze,
        Nemesis::Isolate,
        Nemesis::IsolateFromReplicas,
        Nemesis::Terminate,
        Nemesis::Mute,
    ]);
}

#[test]
fn a_disk_that_hangs_is_told_and_moves_nothing() {
    if let Some(why) = disks::missing() {
        estate::skip("a disk that hangs", &why);
        return;
    }
    prove_on(Disks::Own, &[Nemesis::FreezeDisk]);
}

#[test]
fn what_looks_like_a_death_and_is_none_moves_nothing() {
    prove(&[
        Nemesis::IsolateFromMonitor,
        Nemesis::Exhaust,
        Nemesis::FreezeController,
        Nemesis::KillController,
    ]);
}

#[test]
fn a_switchover_loses_nothing_and_two_lost_servers_promote_nobody() {
    prove(&[Nemesis::Switchover, Nemesis::KillTwo]);
}

#[test]
fn a_replica_that_crashed_with_its_primary_is_no_witness_of_what_it_alone_had() {
    prove(&[Nemesis::KillWitness]);
}

#[test]
fn a_primary_that_dies_with_the_controller_is_replaced_and_one_that_is_back_at_once_is_not_left_closed()
 {
    prove(&[Nemesis::KillWithController, Nemesis::Restart]);
}

#[test]
fn a_wrong_password_is_an_alarm_and_no_death() {
    let estate = Estate::up();
    let user = databases::MONITOR.0;
    databases::sql(
        "web1",
        &format!("ALTER USER {user}@'%' IDENTIFIED BY 'another'"),
    )
    .expect("altered");
    // The connections that are there go on; new ones are refused.
    for server in SERVERS {
        let _ = databases::sql(server, &format!("KILL USER {user}"));
    }
    let alarmed = || {
        estate.lab.cluster().is_some_and(|cluster| {
            cluster
                .alarms
                .iter()
                .any(|alarm| alarm.contains("password is refused"))
        })
    };
    estate.lab.wait("the alarm", alarmed).expect("it is told");
    thread::sleep(Duration::from_secs(2));
    let cluster = estate.lab.cluster().expect("the balancer answers");
    assert_eq!(
        (cluster.writer.as_deref(), cluster.failovers),
        (Some("web1"), 0),
        "{cluster:#?}"
    );
}

/// Runs trials one after the other in one lab and asserts the contract of each.
fn prove(nemeses: &[Nemesis]) {
    prove_on(Disks::Shared, nemeses);
}

fn prove_on(disks: Disks, nemeses: &[Nemesis]) {
    let estate = Estate::up_with(Databases::default(), disks);
    let arena = Arena {
        lab: &estate.lab,
        writer: Path::new(env!("CARGO_BIN_EXE_foobar-lab")).to_owned(),
        crowd: FEW,
    };
    for nemesis in nemeses {
        let trial = arena
            .trial(*nemesis)
            .unwrap_or_else(|error| panic!("{nemesis:?}: {error:#}\n{:#?}", arena.audit()));
        eprintln!("{trial:?}");
        trial.assert_contract();
        if nemesis.expected() == Expected::Failover {
            assert!(trial.outage_ms.is_some(), "{trial:?}");
        }
    }
    ledger::wait_until_equal(&SERVERS, Duration::from_secs(60)).expect("equal after catch-up");
}
