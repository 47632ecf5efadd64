//! Starts, restarts and losses of services whose checks are values.

use std::{convert::Infallible, path::Path};

use super::*;
use crate::{config, labels::Labels};

#[test]
fn a_start_without_a_ring_waits_for_the_checks_and_needs_no_transition() {
    let now = Instant::now();
    let mut balancing = fresh(now);
    assert_eq!(owners(&balancing), BTreeSet::from([abi::Slot::NOBODY]));
    assert!(!balancing.knows_all());
    for id in ids(&balancing) {
        assert!(balancing.observe(seen(id, Ok(())), now));
    }
    assert!(balancing.knows_all());
    balancing.enter_service();
    assert_eq!(owners(&balancing), ids(&balancing));
    assert!(tracked(&balancing) == 0, "nobody had a flow before");
}

#[test]
fn a_restart_moves_no_slot_and_a_failure_in_service_is_a_transition() {
    let now = Instant::now();
    let mut before = fresh(now);
    for id in ids(&before) {
        before.observe(seen(id, Ok(())), now);
    }
    before.enter_service();
    let mut after = restarted(&before, BTreeMap::new(), now);
    assert_eq!(after.rings(), before.rings());
    assert!(
        after.knows_all(),
        "who has slots is up until the checks say otherwise"
    );

    let dead = *ids(&after).first().expect("there are three");
    for _ in 0..3 {
        after.observe(seen(dead, Err("refused".to_owned())), now);
    }
    assert!(!owners(&after).contains(&dead));
    assert!(tracked(&after) > 0);
    let hops = BTreeMap::new();
    assert_eq!(after.backends(&hops)[&dead].flags & abi::Backend::ALIVE, 0);
    let again = restarted(&after, BTreeMap::new(), now);
    assert_eq!(
        again.state(dead),
        BackendState::Down,
        "it needs all of `rise` again"
    );
}

#[test]
fn every_loss_begins_an_epoch_that_outlives_a_restart() {
    let now = Instant::now();
    let mut balancing = fresh(now);
    for id in ids(&balancing) {
        balancing.observe(seen(id, Ok(())), now);
    }
    let epoch = |balancing: &Balancing, id: u32| balancing.backends(&BTreeMap::new())[&id].epoch;
    let first = *ids(&balancing).first().expect("there are three");
    assert_eq!(epoch(&balancing, first), 0);
    for _ in 0..3 {
        balancing.observe(seen(first, Err("refused".to_owned())), now);
    }
    assert_eq!(epoch(&balancing, first), 1);
    balancing = restarted(&balancing, BTreeMap::new(), now);
    assert_eq!(epoch(&balancing, first), 1, "it was lost once");
    for _ in 0..2 {
        balancing.observe(seen(first, Ok(())), now);
    }
    assert_eq!(epoch(&balancing, first), 1, "coming back is no loss");
    balancing
        .wish("plain", "web1", BackendWish::Disable, now)
        .expect("there");
    assert_eq!(epoch(&balancing, first), 2);
}

#[test]
fn a_wish_is_heard_by_name_and_outlives_a_restart() {
    let now = Instant::now();
    let mut balancing = fresh(now);
    for id in ids(&balancing) {
        balancing.observe(seen(id, Ok(())), now);
    }
    balancing.enter_service();
    let answer = balancing.wish("l4.plain", "web2:80", BackendWish::Drain, now);
    assert!(
        answer
            .expect("there")
            .contains("web2:80 of l4.plain drains")
    );
    assert_eq!(owners(&balancing).len(), 2);
    let wishes = balancing.wishes().clone();
    let after = restarted(&balancing, wishes, now);
    assert_eq!(after.rings(), balancing.rings());
    for (service, backend) in [("plain", "web9"), ("plain", "web2:81"), ("other", "web2")] {
        let refusal = balancing.wish(service, backend, BackendWish::Drain, now);
        assert!(
            matches!(refusal, Err(Refusal::NotFound { .. })),
            "{refusal:?}"
        );
    }
}

#[test]
fn a_recycled_id_does_not_inherit_a_ring() {
    let now = Instant::now();
    let before = fresh(now);
    let labels = HashMap::new();
    let balancing = Balancing::restore(
        before.plan.clone(),
        BTreeMap::new(),
        &labels,
        |_| panic!("nobody may ask for it"),
        |_| panic!("nobody may ask for it"),
        now,
    );
    let balancing: Result<Balancing, Infallible> = balancing;
    assert!(!balancing.expect("infallible").knows_all());
}

#[test]
fn of_two_addresses_of_a_host_the_worse_is_told() {
    let now = Instant::now();
    let text = r#"
version = 1
[hosts]
lb1 = { public = ["203.0.113.10", "2001:db8::10"] }
web1 = { private = ["10.0.0.11", "fd00::11"] }
web2 = { private = ["10.0.0.12", "fd00::12"] }
[nodes]
lb1 = { wan = { dev = "eth0" } }
[l4.plain]
on = "lb1"
vip = ["public:8080"]
backends = [{ host = "web1", port = 80 }, { host = "web2", port = 80 }]
check = { tcp = true, every = "1s", rise = 1, fall = 1 }
"#;
    let mut balancing = of(text, now);
    for (id, planned) in balancing.plan.backends.clone() {
        let result = match planned.address.to_string().as_str() {
            "fd00::11" => Err("refused".to_owned()),
            _ => Ok(()),
        };
        balancing.observe(seen(id, result), now);
    }
    let [service] = balancing.services().try_into().expect("one service");
    let told: Vec<_> = service
        .backends
        .iter()
        .map(|told| (told.host.as_str(), told.state, told.detail.as_deref()))
        .collect();
    let expected = [
        ("web1", BackendState::Down, Some("fd00::11: refused")),
        ("web2", BackendState::Up, None),
    ];
    assert_eq!(told, expected);
}

fn fresh(now: Instant) -> Balancing {
    let text = r#"
version = 1
[hosts]
lb1 = { public = "203.0.113.10", private = "10.0.0.10" }
web1 = { private = "10.0.0.11" }
web2 = { private = "10.0.0.12" }
web3 = { private = "10.0.0.13" }
[nodes]
lb1 = { wan = { dev = "eth0" } }
[l4.plain]
on = "lb1"
vip = ["public:8080"]
proto = "tcp"
backends = [{ host = "web1", port = 80 }, { host = "web2", port = 80 }, { host = "web3", port = 80 }]
check = { tcp = true, every = "1s", rise = 2, fall = 3 }
"#;
    of(text, now)
}

fn of(text: &str, now: Instant) -> Balancing {
    let config = config::parse(text, Path::new("test.toml")).expect("a good configuration");
    let plan = crate::balancer::plan(&config, "lb1", &mut Labels::default()).expect("room");
    let none = |_| Ok::<_, Infallible>(None);
    let backend = |_| Ok(NO_BACKEND);
    let Ok(balancing) =
        Balancing::restore(plan, BTreeMap::new(), &HashMap::new(), none, backend, now);
    balancing
}

fn restarted(before: &Balancing, wishes: Wishes, now: Instant) -> Balancing {
    let labels = before.plan.labels(&Labels::default()).into_iter().collect();
    let rings = before.rings();
    let ring = |id: u32| Ok::<_, Infallible>(rings.get(&id).cloned());
    let hops = BTreeMap::new();
    let backends = before.backends(&hops);
    let backend = |id: u32| Ok(backends[&id]);
    let Ok(after) = Balancing::restore(before.plan.clone(), wishes, &labels, ring, backend, now);
    after
}

fn ids(balancing: &Balancing) -> BTreeSet<u32> {
    balancing.plan.backends.keys().copied().collect()
}

fn owners(balancing: &Balancing) -> BTreeSet<u32> {
    let rings = balancing.rings().into_values();
    rings
        .flat_map(|ring| ring.map(abi::Slot::current))
        .collect()
}

fn tracked(balancing: &Balancing) -> usize {
    let rings = balancing.rings().into_values();
    rings
        .flat_map(|ring| *ring)
        .filter(|slot| slot.tracked())
        .count()
}

fn seen(target: u32, result: Result<(), String>) -> Observation<u32> {
    Observation {
        target,
        result: result.map(|()| Duration::from_millis(1)),
    }
}
