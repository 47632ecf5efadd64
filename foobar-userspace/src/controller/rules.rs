//! Rules and trial packets as the administration shows them.

use std::path::Path;

use foobar_ebpf::{
    abi::{LabelKey, Trace},
    verdict::Reason,
};

use crate::{
    admin::api::{Count, Explanation, RuleLine},
    config::{self, Action, Config, Interface, Policy},
    explain,
    kernel::{Direction, Trial},
    labels::{self, Kind, Labels},
};

/// Every rule of the policies that these interfaces use, each policy once, with its count.
pub fn lines<E>(
    config: &Config,
    interfaces: &[Interface],
    labels: &Labels,
    count: impl Fn(u32) -> Result<Count, E>,
) -> Result<Vec<RuleLine>, E> {
    let mut lines = Vec::new();
    for policy in policies(config, interfaces) {
        for (order, rule) in (1..).zip(&policy.rules) {
            let slot = labels.find(Kind::Rule, &labels::rule(&policy.name, &rule.name));
            let count = slot.map_or(Ok(Count::default()), &count)?;
            lines.push(RuleLine {
                policy: policy.name.clone(),
                order,
                rule: rule.name.clone(),
                action: match rule.action {
                    Action::Allow => "allow",
                    Action::Drop => "drop",
                }
                .to_owned(),
                text: config::show_rule(rule),
                place: place(&config.path, rule.place),
                count,
            });
        }
    }
    Ok(lines)
}

/// The policies that interfaces name, each once, in the order of the interfaces.
pub fn policies<'a>(config: &'a Config, interfaces: &[Interface]) -> Vec<&'a Policy> {
    let mut policies: Vec<&Policy> = Vec::new();
    let names = interfaces
        .iter()
        .flat_map(|interface| [&interface.ingress, &interface.egress])
        .flatten();
    for policy in names.filter_map(|name| config.policies.get(name)) {
        if !policies.iter().any(|known| known.name == policy.name) {
            policies.push(policy);
        }
    }
    policies
}

/// What a trial tells, in the words of the configuration.
pub fn explanation(
    interface: &Interface,
    direction: Direction,
    trial: &Trial,
    labels: &Labels,
    rules: Vec<RuleLine>,
) -> Explanation {
    let name = |kind: Kind, id: u32| {
        (id != Trace::NONE)
            .then(|| labels.name(kind, id))
            .flatten()
            .map(str::to_owned)
    };
    let rule = name(Kind::Rule, trial.trace.rule);
    let verdict = Verdict::of(direction, trial.returned);
    let reason = Reason::ALL
        .into_iter()
        .find(|reason| *reason as u32 == trial.trace.reason);
    let transmitted = verdict.what == "transmit";
    Explanation {
        verdict: verdict.what.to_owned(),
        reason: reason.map_or("unknown", Reason::name).to_owned(),
        returned: verdict.name.to_owned(),
        interface: format!("{} ({})", interface.name, interface.device),
        policy: match direction {
            Direction::Ingress => interface.ingress.clone(),
            Direction::Egress => interface.egress.clone(),
        },
        rule: rules.into_iter().find(|line| {
            rule.as_deref() == Some(&*labels::fit(&labels::rule(&line.policy, &line.rule)))
        }),
        set: name(Kind::Set, trial.trace.set),
        tokens_left: (trial.trace.tokens != u64::MAX).then_some(trial.trace.tokens),
        vip: name(Kind::Vip, trial.trace.vip),
        backend: name(Kind::Backend, trial.trace.backend),
        rewritten: transmitted
            .then(|| explain::describe(&trial.frame))
            .flatten(),
        program_id: trial.program,
        nanoseconds: u32::try_from(trial.duration.as_nanos()).unwrap_or(u32::MAX),
    }
}

struct Verdict {
    what: &'static str,
    name: &'static str,
}

impl Verdict {
    fn of(direction: Direction, returned: u32) -> Self {
        let (what, name) = match (direction, returned.cast_signed()) {
            (Direction::Ingress, 0) => ("drop", "XDP_ABORTED"),
            (Direction::Ingress, 1) => ("drop", "XDP_DROP"),
            (Direction::Ingress, 2) => ("pass", "XDP_PASS"),
            (Direction::Ingress, 3) => ("transmit", "XDP_TX"),
            (Direction::Ingress, 4) => ("transmit", "XDP_REDIRECT"),
            (Direction::Egress, -1) => ("pass", "TC_ACT_UNSPEC"),
            (Direction::Egress, 0) => ("pass", "TC_ACT_OK"),
            (Direction::Egress, 2) => ("drop", "TC_ACT_SHOT"),
            (Direction::Egress, 7) => ("transmit", "TC_ACT_REDIRECT"),
            _ => ("unknown", "unknown"),
        };
        Self { what, name }
    }
}

/// `foobar.toml:38:3`
fn place(file: &Path, place: config::Place) -> String {
    let name = file.file_name().unwrap_or(file.as_os_str());
    format!("{}:{}:{}", name.to_string_lossy(), place.line, place.column)
}

/// The labels of what a ruleset counts, of those ids alone that it uses.
pub fn live_labels(
    config: &Config,
    interfaces: &[Interface],
    labels: &Labels,
) -> Vec<(LabelKey, String)> {
    let interface_names = interfaces
        .iter()
        .map(|interface| labels::interface(&interface.name, &interface.device))
        .map(|name| (Kind::Interface, name));
    let rule_names = policies(config, interfaces)
        .into_iter()
        .flat_map(|policy| {
            policy
                .rules
                .iter()
                .map(|rule| labels::rule(&policy.name, &rule.name))
        })
        .map(|name| (Kind::Rule, name));
    let set_names = config.sets.keys().map(|name| (Kind::Set, name.clone()));
    interface_names
        .chain(rule_names)
        .chain(set_names)
        .filter_map(|(kind, name)| {
            let id = labels.find(kind, &name)?;
            Some((kind.key(id), labels::fit(&name).into_owned()))
        })
        .collect()
}
