use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config as Runs, TestRunner},
};

use super::{
    interpreter::{Walked, walk},
    model::{Decision, Direction, ModelPacket, decide},
    samples::{self, NODE, classbench, classbench_path, estate, policies, policy, rule},
    *,
};
use crate::config::{Action, Peer, PortRange, TcpFlags, Traffic};

fn compiled(policy: Policy) -> (Config, Labels, Ruleset) {
    let config = estate(policy);
    let mut labels = Labels::default();
    let ruleset = compile(&config, NODE, &mut labels, 1).expect("compiles");
    (config, labels, ruleset)
}

/// What the ruleset says, told as the model tells it, and the steps that it takes.
fn ask(labels: &Labels, ruleset: &Ruleset, packet: &ModelPacket) -> (Walked, u32) {
    let is_member = |set: u32, address: IpAddr| {
        samples::is_member(labels.name(Kind::Set, set).expect("a set's id"), address)
    };
    walk(&ruleset.words, ruleset.interfaces[0], 0, packet, &is_member)
}

fn expected(config: &Config, labels: &Labels, packet: &ModelPacket) -> Walked {
    let decision = decide(
        config,
        NODE,
        "wan",
        Direction::Ingress,
        packet,
        &samples::is_member,
    );
    let number = |action| match action {
        Action::Allow => ruleset::ALLOW,
        Action::Drop => ruleset::DROP,
    };
    match decision {
        Decision::NoPolicy => Walked::NoPolicy,
        Decision::Default(policy) => Walked::Default(number(policy.default)),
        Decision::Rule { rule, .. } => Walked::Rule {
            slot: decision.slot(labels).expect("the rule has a slot"),
            action: number(rule.action),
        },
    }
}

fn worst_steps(ruleset: &Ruleset, packet: &ModelPacket) -> u32 {
    let report = &ruleset.report["edge"];
    match packet.source {
        IpAddr::V4(_) => report.v4.worst_steps,
        IpAddr::V6(_) => report.v6.worst_steps,
    }
}

proptest! {
    #![proptest_config(Runs { cases: 300, ..Runs::default() })]

    #[test]
    fn the_ruleset_decides_as_the_policy_says(
        policy in policies(24),
        aims in prop::collection::vec(samples::aims(), 64),
    ) {
        let (config, labels, ruleset) = compiled(policy);
        let policy = &config.policies["edge"];
        for aim in aims {
            for packet in [aim.at(policy), aim.anywhere()] {
                let (walked, steps) = ask(&labels, &ruleset, &packet);
                prop_assert_eq!(walked, expected(&config, &labels, &packet), "{:?}", packet);
                prop_assert!(steps <= worst_steps(&ruleset, &packet));
                prop_assert!(steps <= ruleset::BUDGET);
            }
        }
    }

    #[test]
    fn many_rules_decide_as_the_policy_says(
        policy in policies(150),
        aims in prop::collection::vec(samples::aims(), 200),
    ) {
        let config = estate(policy);
        let mut labels = Labels::default();
        // So many random rules may overlap too much; then they must be refused, not cut short.
        let Ok(ruleset) = compile(&config, NODE, &mut labels, 1) else {
            return Ok(());
        };
        let policy = &config.policies["edge"];
        for packet in aims.iter().map(|aim| aim.at(policy)) {
            let (walked, steps) = ask(&labels, &ruleset, &packet);
            prop_assert_eq!(walked, expected(&config, &labels, &packet), "{:?}", packet);
            prop_assert!(steps <= worst_steps(&ruleset, &packet));
        }
    }
}

/// Compiles a ClassBench set, compares it with the model, and says what it costs.
fn measure(path: &Path, v6: bool, packets: usize) -> (ForestReport, Duration) {
    let policy = classbench(path, v6);
    let config = estate(policy);
    let mut labels = Labels::default();
    let begun = Instant::now();
    let ruleset = compile(&config, NODE, &mut labels, 1).expect("compiles");
    let took = begun.elapsed();
    let policy = &config.policies["edge"];
    let report = &ruleset.report["edge"];
    let report = if v6 { report.v6 } else { report.v4 };
    let mut runner = TestRunner::deterministic();
    let mut steps = 0;
    let mut walks = 0;
    for _ in 0..packets {
        let aim = samples::aims()
            .new_tree(&mut runner)
            .expect("an aim")
            .current();
        let packet = aim.at(policy);
        if packet.source.is_ipv6() != v6 || packet.destination.is_ipv6() != v6 {
            continue;
        }
        let (walked, own) = ask(&labels, &ruleset, &packet);
        assert_eq!(walked, expected(&config, &labels, &packet), "{packet:?}");
        assert!(own <= report.worst_steps);
        steps += own;
        walks += 1;
    }
    println!(
        "{} {}: {} records, {} trees, {} words, worst {} steps, average {:.1} of {walks}, {took:?}",
        path.display(),
        if v6 { "IPv6" } else { "IPv4" },
        report.records,
        report.trees,
        report.words,
        report.worst_steps,
        f64::from(steps) / f64::from(walks.max(1)),
    );
    (report, took)
}

#[test]
fn a_thousand_rules_of_classbench_fit_and_decide_as_they_say() {
    for name in ["acl1_1k", "fw1_1k", "ipc1_1k"] {
        for v6 in [false, true] {
            let (report, _) = measure(&classbench_path(name), v6, 4000);
            assert!(report.worst_steps <= ruleset::BUDGET);
            assert!(
                report.words < ruleset::WORDS as usize / 4,
                "{name}: {report:?}"
            );
        }
    }
}

#[test]
#[ignore = "takes a directory with acl1_10k, fw1_10k and ipc1_10k in $FOOBAR_CLASSBENCH"]
fn ten_thousand_rules_of_classbench_fit_and_decide_as_they_say() {
    let directory = std::env::var("FOOBAR_CLASSBENCH").expect("$FOOBAR_CLASSBENCH");
    for name in ["acl1_10k", "fw1_10k", "ipc1_10k"] {
        for v6 in [false, true] {
            let (report, _) = measure(&Path::new(&directory).join(name), v6, 4000);
            assert!(report.worst_steps <= ruleset::BUDGET);
        }
    }
}
