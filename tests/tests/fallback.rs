//! Reads that go to the primary while no replica is good enough, and away again. Needs root.

use std::collections::BTreeSet;

use foobar_lab::{databases, estate::Estate};

#[test]
fn without_a_good_replica_the_primary_answers_by_both_addresses() {
    let estate = Estate::up_as(|text| {
        let (from, to) = ("fallback = \"least-lagged\"", "fallback = \"primary\"");
        assert!(text.contains(from));
        text.replace(from, to)
    });
    assert_eq!(readers(&estate), BTreeSet::from([12, 13]));
    assert_eq!(asked(&estate, "3306"), Some(11));

    for replica in ["web2", "web3"] {
        // It still receives and acknowledges.
        databases::sql(replica, "STOP SLAVE SQL_THREAD").expect("stopped");
    }
    let falls_back = || asked(&estate, "3307") == Some(11);
    estate
        .lab
        .wait("reads go to the primary", falls_back)
        .expect("they do");
    assert_eq!(readers(&estate), BTreeSet::from([11]));
    assert_eq!(asked(&estate, "3306"), Some(11), "writes go on");

    for replica in ["web2", "web3"] {
        databases::sql(replica, "START SLAVE SQL_THREAD").expect("started");
    }
    let is_back = || readers(&estate) == BTreeSet::from([12, 13]);
    estate
        .lab
        .wait("reads go to the replicas", is_back)
        .expect("they do");
}

fn readers(estate: &Estate) -> BTreeSet<u32> {
    (0..12).filter_map(|_| asked(estate, "3307")).collect()
}

/// Who answers at the balancer's port.
fn asked(estate: &Estate, port: &str) -> Option<u32> {
    let (user, password) = databases::APPLICATION;
    let output = estate
        .lab
        .run(
            "app2",
            &[
                "mariadb",
                "--no-defaults",
                "--connect-timeout=2",
                "--host=10.0.0.10",
                &format!("--port={port}"),
                &format!("--user={user}"),
                &format!("--password={password}"),
                "--batch",
                "--skip-column-names",
                "--execute=SELECT @@server_id",
            ],
        )
        .expect("mariadb");
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
