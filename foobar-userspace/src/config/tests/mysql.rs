//! What `[mysql.*]` means with several balancers and with guards, and what their mistakes are told.

use std::{path::Path, time::Duration};

use super::*;

const HOSTS: &str = r#"version = 1
[hosts]
lb1 = { private = "10.0.0.10" }
lb2 = { private = "10.0.0.20" }
web1 = { private = "10.0.0.11" }
web2 = { private = "10.0.0.12" }
web3 = { private = "10.0.0.13" }
[nodes]
lb1 = { lan = { dev = "eth0" } }
lb2 = { lan = { dev = "eth0" } }
web1 = { lan = { dev = "eth0" } }
[mysql.app]
check = { user = "m", password = { env = "P" } }
"#;

fn cluster(more: &str) -> String {
    format!("{HOSTS}{more}\n")
}

fn read(more: &str) -> crate::config::MysqlService {
    let text = cluster(more);
    let config = parse(&text, Path::new("test.toml")).unwrap_or_else(|errors| {
        panic!("{}", errors.render(false, 120));
    });
    config.mysql["app"].clone()
}

fn told(more: &str) -> String {
    match parse(&cluster(more), Path::new("test.toml")) {
        Ok(_) => String::new(),
        Err(errors) => errors.render(false, 120),
    }
}

const MEMBERS: &str = r#"members = ["web1:3306", "web2:3306", "web3:3306"]"#;

#[test]
fn each_balancer_has_addresses_of_its_own_and_a_lease() {
    let both = format!("on = [\"lb1\", \"lb2\"]\nwrite = \"private:3306\"\n{MEMBERS}");
    let service = read(&both);
    let addresses: Vec<_> = service
        .balancers
        .iter()
        .map(|balancer| (balancer.node.as_str(), balancer.write[0].to_string()))
        .collect();
    assert_eq!(
        addresses,
        [
            ("lb1", "10.0.0.10:3306".to_owned()),
            ("lb2", "10.0.0.20:3306".to_owned())
        ]
    );
    assert_eq!(service.lease, Some(Duration::from_secs(1)));
    assert_eq!(service.endpoints("lb2").count(), 2);
    assert_eq!(service.endpoints("web1").count(), 0);
    let literal = both.replace(
        "\"private:3306\"",
        "[\"10.0.0.20:3306\", \"10.0.0.10:3306\"]",
    );
    assert_eq!(read(&literal).balancers, service.balancers);
}

#[test]
fn one_balancer_has_a_lease_only_where_it_is_asked_for() {
    let one = format!("on = \"lb1\"\nwrite = \"private:3306\"\n{MEMBERS}");
    assert_eq!(read(&one).lease, None);
    let leased = read(&format!("{one}\nlease = \"2s\""));
    assert_eq!(leased.lease, Some(Duration::from_secs(2)));
    let endpoints: Vec<_> = leased.endpoints("lb1").collect();
    assert_eq!(
        endpoints
            .iter()
            .map(|service| service.tenure)
            .collect::<Vec<_>>(),
        [Tenure::ForEver, Tenure::Leased],
        "readers go on"
    );
}

#[test]
fn what_cannot_be_kept_is_told_with_its_cure() {
    let both = format!("on = [\"lb1\", \"lb2\"]\nwrite = \"private:3306\"\n{MEMBERS}");
    for (more, told_of) in [
        (
            format!("{both}\nlease = \"never\""),
            "several balancers and no lease",
        ),
        (format!("{both}\nlease = \"100ms\""), "`lease` is shorter"),
        (both.replace("lb2", "lb1"), "`lb1` stands twice"),
        (format!("{both}\nguard = \"3s\""), "nobody guards `web2`"),
        (
            format!(
                "{}\nguard = \"1s\"",
                both.replace(", \"web2:3306\", \"web3:3306\"", "")
            ),
            "`guard` is shorter than three beats",
        ),
    ] {
        let told = told(&more);
        assert!(told.contains(told_of), "{told_of}: {told}");
    }
}
