//! What keeps `promote` from acting, told of real servers with what mends it. Needs root.

use std::fs;

use foobar_lab::{
    databases,
    estate::Estate,
    patience::{holds_within, within},
};

#[test]
fn each_lack_is_told_with_its_cure_and_the_cure_mends_it() {
    let estate = Estate::up();
    mended(&estate);

    databases::sql(
        "web2",
        "STOP SLAVE; CHANGE MASTER TO MASTER_HEARTBEAT_PERIOD = 30; START SLAVE",
    )
    .expect("changed");
    let cure = lack(&estate, "sends a heartbeat every 30 s");
    databases::sql("web2", &cure).expect("the cure is SQL");
    mended(&estate);

    databases::sql("web1", "SET GLOBAL innodb_flush_log_at_trx_commit = 1").expect("set");
    let cure = lack(&estate, "innodb_flush_log_at_trx_commit is 1");
    let (sql, _) = cure.split_once(';').expect("SQL, and what else");
    databases::sql("web1", sql).expect("the cure is SQL");
    mended(&estate);

    databases::sql("web3", "SET GLOBAL sync_binlog = 0").expect("set");
    let cure = lack(&estate, "sync_binlog is 0");
    let (sql, _) = cure.split_once(';').expect("SQL, and what else");
    databases::sql("web3", sql).expect("the cure is SQL");
    mended(&estate);

    let monitor = databases::MONITOR.0;
    for statement in [
        format!("GRANT SELECT ON mysql.* TO {monitor}@'%'"),
        "CREATE USER boss@'%'".to_owned(),
        "GRANT SUPER, READ_ONLY ADMIN ON *.* TO boss@'%'".to_owned(),
    ] {
        databases::sql("web1", &statement).expect("said");
    }
    // What an account may is read when it logs in.
    for server in ["web1", "web2", "web3"] {
        let _ = databases::sql(server, &format!("KILL USER {monitor}"));
    }
    lack(&estate, "'boss'@'%' may write past read_only");
    databases::sql("web1", "DROP USER boss@'%'").expect("dropped");
    mended(&estate);

    let config = databases::home("web3").join("my.cnf");
    let text = fs::read_to_string(&config).expect("a configuration");
    let opens = text.replace("read-only = 1\n", "");
    assert_ne!(text, opens);
    fs::write(&config, opens).expect("written");
    restart(&estate);
    let cure = lack(&estate, "at start it is writable");
    assert!(cure.contains("read_only = 1"), "{cure}");
    fs::write(&config, text).expect("written");
    restart(&estate);
    mended(&estate);
}

/// Of web3's database.
fn restart(estate: &Estate) {
    estate
        .lab
        .signal_database("web3", libc::SIGTERM)
        .expect("it runs");
    let has_ended = || !estate.lab.is_database_running("web3");
    estate
        .lab
        .wait_long("it has ended", has_ended)
        .expect("ended");
    estate.lab.start_database("web3").expect("started");
}

fn lacks(estate: &Estate) -> Vec<(String, String)> {
    let cluster = estate.lab.cluster().expect("the balancer answers");
    let lacks = cluster.lacks.into_iter();
    lacks.map(|lack| (lack.what, lack.cure)).collect()
}

/// Waits until it is told; its cure.
fn lack(estate: &Estate, what: &str) -> String {
    let cure = within(60, what, || {
        let mut lacks = lacks(estate).into_iter();
        lacks.find(|(told, _)| told.contains(what))
    });
    holds_within(60, "doctor tells it", || {
        let told = estate.ask(&["doctor"]);
        String::from_utf8_lossy(&told.stdout).contains(what)
    });
    cure.1
}

fn mended(estate: &Estate) {
    let holds = || lacks(estate).is_empty();
    estate
        .lab
        .wait("the preflight holds", holds)
        .expect("mended");
}
