//! MySQL 9.7 with replication, MySQL 9.7 in a group, Galera: foobar knows their roles, and what was acknowledged is there
//! after their primary is lost. Needs root.

use std::{collections::BTreeSet, path::Path, thread, time::Duration};

use foobar_lab::{
    SERVERS,
    arena::{Arena, BROKEN, FEW},
    databases::{self, Databases},
    estate::Estate,
    ledger::{self, Writer},
    nemesis::{Expected, Nemesis},
};

#[test]
fn mysql_is_failed_over_and_switched_over_without_a_loss() {
    let Some(estate) = Estate::up_if_possible("mysql", Databases::Mysql) else {
        return;
    };
    assert_roles(&estate, "9.7", ["source", "replica", "replica"]);
    let arena = Arena {
        lab: &estate.lab,
        writer: Path::new(env!("CARGO_BIN_EXE_foobar-lab")).to_owned(),
        crowd: FEW,
    };
    for nemesis in [
        Nemesis::Switchover,
        Nemesis::KillWitness,
        Nemesis::Freeze,
        Nemesis::Kill,
    ] {
        let trial = arena
            .trial(nemesis)
            .unwrap_or_else(|error| panic!("{nemesis:?}: {error:#}\n{:#?}", arena.audit()));
        eprintln!("{trial:?}");
        trial.assert_contract();
        if nemesis.expected() == Expected::Failover {
            assert!(trial.outage_ms.is_some(), "{trial:?}");
        }
    }
}

#[test]
fn the_address_follows_the_primary_of_a_group() {
    let Some(estate) = Estate::up_if_possible("group", Databases::GroupReplication) else {
        return;
    };
    assert_roles(&estate, "9.7", ["group"; 3]);
    let moved = follow(&estate, |primary| {
        let next = another(primary);
        let id = databases::sql(next, "SELECT @@server_uuid").expect("its name");
        let text = format!("SELECT group_replication_set_as_primary('{id}')");
        databases::sql(primary, &text).expect("the group agrees");
    });
    assert_ne!(moved, "web1");
    let lost = moved.clone();
    let moved = follow(&estate, |primary| kill(&estate, primary));
    assert_ne!(moved, lost);
    estate.lab.start_database(&lost).expect("it starts again");
    databases::sql(&lost, "START GROUP_REPLICATION").expect("the group takes it in");
    assert_eq!(assert_whole(&estate), moved);
}

#[test]
fn the_address_leads_to_one_node_of_galera_and_moves_when_it_is_lost() {
    let estate = Estate::up_if_possible("galera", Databases::Galera).expect("Debian has it");
    assert_roles(&estate, "MariaDB", ["galera"; 3]);
    let first = writer(&estate);
    let moved = follow(&estate, |primary| kill(&estate, primary));
    assert_ne!(moved, first);
    estate.lab.start_database(&first).expect("it starts again");
    // Whoever gives the returned one its state takes no writes meanwhile, and that may be the one that has them.
    let now = assert_whole(&estate);
    assert_ne!(follow(&estate, |primary| terminate(&estate, primary)), now);
}

/// Writes by the address, does something to the primary, and waits until another acknowledges: that one, when all that was
/// acknowledged by either is there, and the first acknowledged nothing after the second.
fn follow(estate: &Estate, act: impl FnOnce(&str)) -> String {
    estate.lab.wait_for_databases().expect("their roles");
    let primary = writer(estate);
    let program = Path::new(env!("CARGO_BIN_EXE_foobar-lab"));
    let writer = Writer::start(program, "app3", FEW.busy, 0).expect("a writer");
    estate
        .lab
        .wait("the writer writes", || writer.acked() > 50)
        .expect("it writes");
    let fault = ledger::now();
    act(&primary);
    let servers = || -> BTreeSet<u64> {
        let ledger = writer.so_far().expect("a ledger");
        ledger.acks.iter().map(|ack| ack.server).collect()
    };
    estate
        .lab
        .wait_long("another acknowledges", || servers().len() > 1)
        .unwrap_or_else(|error| panic!("{error:#}\n{:#?}", estate.lab.cluster()));
    thread::sleep(Duration::from_secs(1));
    let ledger = writer.stop().expect("a ledger");
    let next = self::writer(estate);
    let first = ledger.acks.iter().map(|ack| ack.id).min().expect("acks");
    let rows = ledger::rows(&next, first).expect("rows");
    eprintln!("{primary} -> {next}: outage {:?}", ledger.outage(fault));
    assert_eq!(ledger.missing(&rows), Vec::<u64>::new(), "{BROKEN}");
    assert_eq!(ledger.changes_of_server(), 1);
    next
}

fn kill(estate: &Estate, server: &str) {
    estate
        .lab
        .signal_database(server, libc::SIGKILL)
        .expect("it ran");
}

fn terminate(estate: &Estate, server: &str) {
    estate
        .lab
        .signal_database(server, libc::SIGTERM)
        .expect("it ran");
}

fn writer(estate: &Estate) -> String {
    let mut found = None;
    let is_found = || {
        found = estate.lab.cluster().and_then(|cluster| cluster.writer);
        found.is_some()
    };
    estate.lab.wait("a primary", is_found).expect("a primary");
    found.expect("a primary")
}

fn another(primary: &str) -> &'static str {
    SERVERS
        .into_iter()
        .find(|server| *server != primary)
        .expect("three servers")
}

/// One primary, two that are read from, each of that version and of that part in replication, the primary first.
fn assert_roles(estate: &Estate, version: &str, parts: [&str; 3]) {
    estate.lab.wait_for_databases().expect("their roles");
    let mut members = estate.lab.cluster().expect("an answer").members;
    members.sort_by_key(|member| member.role != "primary");
    let roles: Vec<_> = members.iter().map(|member| member.role.as_str()).collect();
    assert_eq!(roles, ["primary", "replica", "replica"], "{members:#?}");
    let found: Vec<_> = members
        .iter()
        .map(|member| member.semi_sync.as_deref().unwrap_or_default())
        .collect();
    assert_eq!(found, parts);
    for member in &members {
        let said = member.version.as_deref().unwrap_or_default();
        assert!(said.contains(version), "{said}");
    }
}

/// All three have their roles again; the one that has the writes.
fn assert_whole(estate: &Estate) -> String {
    let found = || {
        estate.lab.cluster().is_some_and(|cluster| {
            let readers = cluster
                .members
                .iter()
                .filter(|member| member.reads == "yes");
            cluster.writer.is_some() && readers.count() == 2
        })
    };
    estate
        .lab
        .wait_long("all three are back", found)
        .unwrap_or_else(|error| panic!("{error:#}\n{:#?}", estate.lab.cluster()));
    ledger::wait_until_equal(&SERVERS, Duration::from_secs(60)).expect("equal");
    writer(estate)
}
