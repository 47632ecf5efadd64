//! Balancers that hang, die or are cut off: none feeds an old primary, and nothing acknowledged is lost. Needs root.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use foobar_lab::{
    arena::BROKEN,
    databases,
    estate::Estate,
    ledger::{self, Ack, Ledger, Writer},
    network::{SECOND, SECOND_CLIENT},
    patience::holds_within,
};

const SERVERS: [&str; 3] = ["web1", "web2", "web3"];
const ON: &str = "on = \"lb1\"\nwrite = \"private:3306\"";

#[test]
fn a_controller_that_hangs_stops_being_served_by_its_packet_path_and_begins_again_when_it_wakes() {
    let estate = Estate::up_as(|text| {
        let leased = format!("{ON}\nlease = \"1s\"");
        assert!(text.contains(ON));
        text.replace(ON, &leased)
    });
    let writer = writer(FIRST, "app2");
    acknowledged(&writer, "before");

    estate
        .lab
        .signal_foobar("lb1", libc::SIGSTOP)
        .expect("it runs");
    let stopped = ledger::now();
    thread::sleep(LEASE + GRACE);
    let connect = ["curl", "-sS", "-m2", "telnet://10.0.0.10:3306"];
    let is_refused = || {
        estate
            .lab
            .run("app2", &connect)
            .expect("curl")
            .status
            .code()
            == Some(7)
    };
    holds_within(60, "a SYN is refused", is_refused);
    thread::sleep(Duration::from_secs(1));
    let woken = ledger::now();
    estate
        .lab
        .signal_foobar("lb1", libc::SIGCONT)
        .expect("it runs");
    let begun = Instant::now();
    let goes_on = || {
        let ledger = writer.so_far().expect("a ledger");
        ledger.acks.iter().any(|ack| ack.sent > woken)
    };
    estate
        .lab
        .wait("it goes on", goes_on)
        .expect("served again");
    eprintln!("served again {:?} after it woke", begun.elapsed());
    let ledger = writer.stop().expect("a ledger");
    let lapsed = stopped + micros(LEASE + GRACE);
    let late = |ack: &&Ack| (lapsed..woken).contains(&ack.sent);
    assert_eq!(
        ledger.acks.iter().find(late),
        None,
        "{BROKEN}: nobody is served after the lease"
    );
    assert_eq!(ledger.two_writer_instants(), 0, "{BROKEN}");
    let cluster = estate.lab.cluster().expect("it answers");
    assert_eq!(
        (cluster.failovers, cluster.writer.as_deref()),
        (0, Some("web1"))
    );
}

#[test]
fn a_follower_finishes_what_a_leader_that_hangs_in_a_failover_began() {
    let estate = two_balancers();
    let writers = [writer(FIRST, "app2"), writer(OTHER, SECOND_CLIENT)];
    for (writer, name) in writers.iter().zip(["by the first", "by the second"]) {
        acknowledged(writer, name);
    }
    let (leader, follower) = match estate.lab.cluster().expect("it answers").leads {
        true => ("lb1", SECOND),
        false => (SECOND, "lb1"),
    };

    estate
        .lab
        .signal_database("web1", libc::SIGKILL)
        .expect("it runs");
    let begun = Instant::now();
    // Or over already, on a machine that looks rarely.
    holds_within(60, "a failover is under way", || {
        let cluster = estate.lab.cluster_of(leader);
        cluster.is_some_and(|cluster| cluster.operation.is_some() || cluster.failovers > 0)
    });
    estate
        .lab
        .signal_foobar(leader, libc::SIGSTOP)
        .expect("it runs");
    let is_another = |node: &'static str| {
        let cluster = estate.lab.cluster_of(node);
        cluster
            .and_then(|cluster| cluster.writer)
            .is_some_and(|writer| writer != "web1")
    };
    estate
        .lab
        .wait("the follower leads to another", || is_another(follower))
        .expect("finished");
    eprintln!(
        "{follower} leads to another {:?} after the kill",
        begun.elapsed()
    );
    thread::sleep(Duration::from_secs(1));
    estate
        .lab
        .signal_foobar(leader, libc::SIGCONT)
        .expect("it runs");
    estate
        .lab
        .wait("the old leader leads there too", || is_another(leader))
        .expect("it sees");
    written_elsewhere(&estate, &writers);
    nothing_lost(writers.map(|writer| writer.stop().expect("a ledger")));
}

#[test]
fn a_failover_waits_for_a_balancer_that_still_sees_the_old_primary_alone() {
    let estate = two_balancers();
    let writers = [writer(FIRST, "app2"), writer(OTHER, SECOND_CLIENT)];
    for (writer, name) in writers.iter().zip(["by the first", "by the second"]) {
        acknowledged(writer, name);
    }
    let leader = match estate.lab.cluster().expect("it answers").leads {
        true => "lb1",
        false => SECOND,
    };
    // The primary hears from nobody but the follower and its clients.
    let follower = if leader == "lb1" {
        "10.0.0.20"
    } else {
        "10.0.0.10"
    };
    for source in ["10.0.0.10", "10.0.0.20", "10.0.0.12", "10.0.0.13"] {
        if source != follower {
            for rule in [["INPUT", "-s"], ["OUTPUT", "-d"]] {
                let [chain, side] = rule;
                let words = [
                    "iptables", "-w", "-A", chain, side, source, "-p", "tcp", "-j", "DROP",
                ];
                assert!(estate.lab.succeeds("web1", &words));
            }
        }
    }
    let is_another = || {
        let cluster = estate.lab.cluster_of(leader);
        cluster
            .and_then(|cluster| cluster.writer)
            .is_some_and(|writer| writer != "web1")
    };
    estate
        .lab
        .wait("another primary", is_another)
        .expect("a failover");
    thread::sleep(Duration::from_secs(2));
    assert!(estate.lab.succeeds("web1", &["iptables", "-w", "-F"]));
    written_elsewhere(&estate, &writers);
    nothing_lost(writers.map(|writer| writer.stop().expect("a ledger")));
}

#[test]
fn a_database_host_closes_to_clients_once_no_beat_is_acknowledged_and_opens_again() {
    let estate = Estate::up_as(|text| {
        let guarded = format!("{ON}\nguard = \"3s\"");
        assert!(text.contains(ON));
        text.replace(ON, &guarded)
    });
    let lab = &estate.lab;
    // Past the balancer, straight to the primary, from another server's application.
    let reaches = |server: &str| {
        let url = format!("telnet://10.0.0.1{}:3306", &server[3..]);
        let output = lab
            .run("app2", &["curl", "-sS", "-m2", &url])
            .expect("curl");
        // Not 7, which is refused; a server that greets and waits times out.
        output.status.code() == Some(28)
    };
    lab.wait("beats open the primary", || reaches("web1"))
        .expect("open");

    lab.signal_foobar("lb1", libc::SIGSTOP).expect("it runs");
    lab.wait("it closes without beats", || !reaches("web1"))
        .expect("closed");
    holds_within(60, "peers are let in", || {
        databases::sql("web2", "SHOW ALL SLAVES STATUS")
            .is_ok_and(|replicates| replicates.contains("\tYes\tYes\t"))
    });
    lab.signal_foobar("lb1", libc::SIGCONT).expect("it runs");
    lab.wait("it opens again", || reaches("web1"))
        .expect("open");

    // The dead man's hand: the guard itself is gone.
    lab.signal_foobar("web1", libc::SIGSTOP).expect("it runs");
    lab.wait("it closes without its guard", || !reaches("web1"))
        .expect("closed");
    lab.signal_foobar("web1", libc::SIGCONT).expect("it runs");
    lab.wait("it opens again", || reaches("web1"))
        .expect("open");
}

/// The estate with `lb2` beside `lb1`, and clients behind it.
fn two_balancers() -> Estate {
    let estate = Estate::up_as(|text| {
        let mut text = text;
        for (from, to) in [
            (
                "web1 = { private",
                "lb2 = { private = [\"10.0.0.20\"] }\nweb1 = { private",
            ),
            ("\"10.0.1.0/24\", ", "\"10.0.1.0/24\", \"10.0.2.0/24\", "),
            (
                "web1 = { lan =",
                "lb2 = { wan = { dev = \"eth0\", ingress = \"inside\", egress = \"out\" }, \
                 lan = { dev = \"eth1\", ingress = \"inside\", egress = \"out\" } }\nweb1 = { lan =",
            ),
            (ON, "on = [\"lb1\", \"lb2\"]\nwrite = \"private:3306\""),
        ] {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        text
    });
    let lab = &estate.lab;
    let both_lead_there = || {
        ["lb1", SECOND].iter().all(|node| {
            let cluster = lab.cluster_of(node);
            cluster.is_some_and(|cluster| {
                let vouched = !cluster
                    .alarms
                    .iter()
                    .any(|alarm| alarm.contains("no lease"));
                cluster.writer.as_deref() == Some("web1") && cluster.armed && vouched
            })
        })
    };
    lab.wait("both balancers lead to the primary", both_lead_there)
        .expect("they do");
    estate
}

fn writer(address: &str, namespace: &str) -> Writer {
    let address: SocketAddr = address.parse().expect("an address");
    let program = Path::new(env!("CARGO_BIN_EXE_foobar-lab"));
    Writer::start_at(address, program, namespace, 2, 0).expect("a writer")
}

fn acknowledged(writer: &Writer, when: &str) {
    holds_within(60, &format!("writes are acknowledged {when}"), || {
        writer.acked() >= 5
    });
}

/// Waits until a server other than the first acknowledges, by each address.
fn written_elsewhere(estate: &Estate, writers: &[Writer]) {
    let elsewhere = |writer: &Writer| {
        let ledger = writer.so_far().expect("a ledger");
        ledger.acks.iter().any(|ack| ack.server != 11)
    };
    let lab = &estate.lab;
    lab.wait("writes go on elsewhere", || writers.iter().all(elsewhere))
        .expect("they do");
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).expect("a short time")
}

/// Of all that was acknowledged by either address, and never by two servers at once.
fn nothing_lost(ledgers: [Ledger; 2]) {
    let mut all = Ledger::default();
    for ledger in ledgers {
        all.acks.extend(ledger.acks);
    }
    all.acks.sort_by_key(|ack| ack.acked);
    assert_eq!(all.two_writer_instants(), 0, "{BROKEN}");
    let servers: BTreeSet<u64> = all.acks.iter().map(|ack| ack.server).collect();
    assert!(servers.len() > 1, "writes went on elsewhere: {servers:?}");
    let last = all.acks.last().expect("some").server;
    let primary = SERVERS[usize::try_from(last - 11).expect("11 to 13")];
    let rows = ledger::rows(primary, 0).expect("rows");
    assert_eq!(all.missing(&rows), [0; 0], "{BROKEN}");
}

const FIRST: &str = "10.0.0.10:3306";
const OTHER: &str = "10.0.0.20:3306";
const LEASE: Duration = Duration::from_secs(1);
/// A look that was under way, and the coarse clock.
const GRACE: Duration = Duration::from_millis(500);
