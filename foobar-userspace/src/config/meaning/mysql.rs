//! `[mysql]`

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{endpoints, hosts::Hosts, many, read as read_word, secret, section, text, whole};
use crate::config::{
    Account, Fallback, Host, L4Service, MysqlBalancer, MysqlCheck, MysqlMember, MysqlMode,
    MysqlService, OnWriteStall, Protocol, RejoinWish,
    diagnostics::{Problem, Problems},
    tree::{Entry, Name},
    words::{FilePath, Lease, Member, Period},
};

pub(super) fn read(
    root: Entry<'_>,
    path: &Path,
    hosts: &Hosts,
    l4: &BTreeMap<String, L4Service>,
    problems: &mut Problems,
) -> BTreeMap<String, MysqlService> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut services: BTreeMap<String, MysqlService> = BTreeMap::new();
    for (name, entry) in section(root, "mysql") {
        let Some(service) = service(name, entry, root, folder, hosts, problems) else {
            continue;
        };
        taken(&service, entry, l4, &services, problems);
        services.insert(service.name.clone(), service);
    }
    services
}

fn service(
    name: Name<'_>,
    entry: Entry<'_>,
    root: Entry<'_>,
    folder: &Path,
    hosts: &Hosts,
    problems: &mut Problems,
) -> Option<MysqlService> {
    let balancers = balancers(entry, hosts, problems);
    let members = members(name, entry, hosts, problems);
    let check = entry
        .at("check")
        .and_then(|check| self::check(check, folder, problems))?;
    let service = MysqlService {
        name: name.text.to_owned(),
        lease: lease(entry, balancers.len(), problems),
        guard: read_word(entry, "guard").map(|Period(guard)| guard),
        balancers,
        members,
        check,
        mode: match entry.at("mode").and_then(Entry::text) {
            Some("promote") => MysqlMode::Promote,
            Some("consensus") => MysqlMode::Consensus,
            _ => MysqlMode::Observe,
        },
        admin: account(entry, "admin", folder),
        replication: account(entry, "replication", folder),
        fallback: match entry.at("fallback").and_then(Entry::text) {
            Some("none") => Fallback::None,
            _ => Fallback::LeastLagged,
        },
        on_write_stall: match entry.at("on-write-stall").and_then(Entry::text) {
            Some("failover") => OnWriteStall::Failover,
            _ => OnWriteStall::Alarm,
        },
        rejoin: match entry.at("rejoin").and_then(Entry::text) {
            Some("manual") => RejoinWish::Manual,
            _ => RejoinWish::Automatic,
        },
        cool_down: duration(entry, "cool-down", COOL_DOWN),
        hook: file(entry, "hook", folder),
        place: problems.place(name.span().start),
    };
    if !problems.touch(&entry.extent()) {
        promotion(&service, entry, problems);
        guard(&service, entry, root, problems);
        balanced(&service, entry, problems);
    }
    Some(service)
}

type Addressed = fn(&mut MysqlBalancer) -> &mut Vec<SocketAddr>;

/// The nodes under `on`, each once, with the addresses that are theirs.
fn balancers(entry: Entry<'_>, hosts: &Hosts, problems: &mut Problems) -> Vec<MysqlBalancer> {
    let mut balancers: Vec<MysqlBalancer> = Vec::new();
    let mut nodes = Vec::new();
    for written in many(entry, "on") {
        let Some(node) = written.text() else {
            continue;
        };
        if balancers.iter().any(|known| known.node == node) {
            problems.report(
                Problem::new(written.span(), format!("`{node}` stands twice"))
                    .help("keep one: each node has the addresses once"),
            );
            continue;
        }
        let host = hosts.get(node).filter(|_| !hosts.doubtful(node));
        nodes.extend(host);
        balancers.push(MysqlBalancer {
            node: node.to_owned(),
            addresses: host.map(|host| host.private.clone()).unwrap_or_default(),
            write: Vec::new(),
            read: Vec::new(),
        });
    }
    let under: [(_, Addressed); 2] = [
        ("write", |balancer| &mut balancer.write),
        ("read", |balancer| &mut balancer.read),
    ];
    for (key, of) in under {
        for (host, address) in addresses(entry, key, &nodes, problems) {
            let owner = balancers.iter_mut().find(|known| known.node == host.name);
            if let Some(owner) = owner {
                of(owner).push(address);
            }
        }
    }
    balancers
}

/// What is written under `key`, as it is meant on each node: one address of each family.
fn addresses<'h>(
    entry: Entry<'_>,
    key: &str,
    nodes: &[&'h Host],
    problems: &mut Problems,
) -> Vec<(&'h Host, SocketAddr)> {
    let mut found: Vec<(&Host, SocketAddr)> = Vec::new();
    for written in many(entry, key) {
        for (node, address) in endpoints::resolve_on(written, nodes, problems) {
            let is_second = |(other, known): &(&Host, SocketAddr)| {
                other.name == node.name && known.is_ipv4() == address.is_ipv4()
            };
            if found.iter().any(is_second) {
                problems.report(
                    Problem::new(
                        written.span(),
                        format!("a second address of one family for `{key}`"),
                    )
                    .help(
                        "an answer must tell which address it belongs to: keep one of each family",
                    ),
                );
                return found;
            }
            found.push((node, address));
        }
    }
    found
}

/// With several balancers none may go on by itself: a failover by one waits until the others' word has run out.
fn lease(entry: Entry<'_>, balancers: usize, problems: &mut Problems) -> Option<Duration> {
    let written = entry.at("lease");
    let lease = match read_word(entry, "lease") {
        Some(Lease(lease)) => lease,
        None => (balancers > 1).then_some(LEASE),
    };
    if lease.is_none()
        && balancers > 1
        && let Some(written) = written
    {
        problems.report(
            Problem::new(written.span(), "several balancers and no lease").help(
                "one that is cut off would lead writers to a primary that another has deposed: write `lease = \"1s\"`",
            ),
        );
    }
    if let Some(written) = written
        && lease.is_some_and(|lease| lease < LEAST_LEASE)
    {
        problems.report(
            Problem::new(
                written.span(),
                "`lease` is shorter than a few checks may take",
            )
            .help("write at least `lease = \"500ms\"`"),
        );
    }
    lease
}

fn members(
    name: Name<'_>,
    entry: Entry<'_>,
    hosts: &Hosts,
    problems: &mut Problems,
) -> Vec<MysqlMember> {
    let written = many(entry, "members");
    if let Some(members) = entry.at("members")
        && written.is_empty()
    {
        problems.report(
            Problem::new(
                members.span(),
                format!("`mysql.{}` has no member", name.text),
            )
            .help("write `members = [\"web1:3306\", \"web2:3306\", \"web3:3306\"]`"),
        );
    }
    let mut members: Vec<MysqlMember> = Vec::new();
    for written in written {
        let Some(Member { host, port }) = written.read() else {
            continue;
        };
        let Some(host) = hosts.get(&host) else {
            continue;
        };
        if members
            .iter()
            .any(|member| member.host == host.name && member.port == port)
        {
            problems.report(
                Problem::new(
                    written.span(),
                    format!("member `{}:{port}` stands twice", host.name),
                )
                .help("keep one: a majority is counted over all members"),
            );
            continue;
        }
        if host.private.iter().next().is_none() && !hosts.doubtful(&host.name) {
            problems.report(
                Problem::new(
                    written.span(),
                    format!("host `{}` has no private address", host.name),
                )
                .help(format!(
                    "add `private = \"10.0.0.11\"` to `{}` under `[hosts]`",
                    host.name
                )),
            );
        }
        members.push(MysqlMember {
            host: host.name.clone(),
            addresses: host.private.clone(),
            port,
        });
    }
    members
}

fn check(entry: Entry<'_>, folder: &Path, problems: &mut Problems) -> Option<MysqlCheck> {
    let max_lag = duration(entry, "max-lag", MAX_LAG);
    let hard_lag = duration(entry, "hard-lag", max_lag.max(Duration::from_secs(1)) * 10);
    if let Some(written) = entry.at("hard-lag")
        && hard_lag < max_lag
    {
        problems.report(
            Problem::new(written.span(), "`hard-lag` is below `max-lag`").help(
                "`max-lag` keeps new readers away, `hard-lag` cuts those that are there: write a longer time here",
            ),
        );
    }
    let every = duration(entry, "every", EVERY);
    if let Some(written) = entry.at("every")
        && every < LEAST_EVERY
    {
        problems.report(
            Problem::new(written.span(), "`every` is shorter than a check may take")
                .help("write at least `every = \"20ms\"`"),
        );
    }
    let probe = match entry.at("probe").and_then(Entry::text) {
        Some("never") => None,
        _ => Some(duration(entry, "probe-every", PROBE)),
    };
    Some(MysqlCheck {
        account: self::account_of(entry, folder)?,
        every,
        timeout: duration(entry, "timeout", TIMEOUT),
        fall: whole(entry, "fall").unwrap_or(3),
        max_lag,
        hard_lag,
        heartbeat: duration(entry, "heartbeat", HEARTBEAT),
        probe,
        probe_timeout: duration(entry, "probe-timeout", PROBE_TIMEOUT),
        admin_port: whole::<u16>(entry, "admin-port").and_then(std::num::NonZeroU16::new),
        ca: file(entry, "ca", folder),
    })
}

fn account(entry: Entry<'_>, key: &str, folder: &Path) -> Option<Account> {
    account_of(entry.at(key)?, folder)
}

fn account_of(entry: Entry<'_>, folder: &Path) -> Option<Account> {
    Some(Account {
        user: text(entry, "user")?,
        password: match secret::read(entry, "password")? {
            crate::config::Secret::File(path) => crate::config::Secret::File(folder.join(path)),
            other => other,
        },
    })
}

/// What a mode needs, and what has no meaning without it.
fn promotion(service: &MysqlService, entry: Entry<'_>, problems: &mut Problems) {
    let mode = entry.at("mode").map_or_else(|| entry.span(), Entry::span);
    if service.mode != MysqlMode::Promote {
        for key in [
            "admin",
            "replication",
            "on-write-stall",
            "rejoin",
            "cool-down",
        ] {
            if let Some(written) = entry.at(key) {
                problems.report(
                    Problem::new(
                        written.span(),
                        format!("`{key}` is of `mode = \"promote\"`"),
                    )
                    .help("take it out, or write `mode = \"promote\"`"),
                );
            }
        }
        return;
    }
    for (key, account) in [
        ("admin", &service.admin),
        ("replication", &service.replication),
    ] {
        if account.is_none() {
            problems.report(
                Problem::new(mode.clone(), format!("`mode = \"promote\"` needs `{key}`")).help(format!(
                    "add `{key} = {{ user = \"…\", password = {{ credential = \"…\" }} }}`, an account of its own"
                )),
            );
        }
    }
    if service
        .admin
        .as_ref()
        .is_some_and(|admin| admin.user == service.check.account.user)
        && let Some(written) = entry.at("admin")
    {
        problems.report(
            Problem::new(written.span(), "the monitor and the admin are one account").help(
                "who may change read_only writes past it: a write probe that comes late would then part a replica from its \
                 primary. Make a second account",
            ),
        );
    }
    if service.members.len() != 3
        && let Some(written) = entry.at("members")
    {
        problems.report(
            Problem::new(written.span(), format!("`mode = \"promote\"` needs three members, not {}", service.members.len()))
                .help("a write that one of two replicas acknowledged is on two of three; other numbers need other proofs. Use `observe`"),
        );
    }
    if service.check.probe.is_none()
        && let Some(written) = entry.at("check").and_then(|check| check.at("probe"))
    {
        problems.report(
            Problem::new(written.span(), "`mode = \"promote\"` needs the write probe")
                .help("it tells lag, and a disk that hangs: take `probe = \"never\"` out"),
        );
    }
}

/// A member is guarded by its own node, and by beats that come often enough.
fn guard(service: &MysqlService, entry: Entry<'_>, root: Entry<'_>, problems: &mut Problems) {
    let (Some(written), Some(guard)) = (entry.at("guard"), service.guard) else {
        return;
    };
    let nodes = section(root, "nodes");
    for member in &service.members {
        if !nodes.iter().any(|(name, _)| name.text == member.host) {
            problems.report(
                Problem::new(written.span(), format!("nobody guards `{}`", member.host)).help(
                    format!("run foobar there and name its interface under `[nodes]`: `{} = {{ lan = {{ dev = \"eth0\" }} }}`", member.host),
                ),
            );
            return;
        }
    }
    let least = service.check.probe.map(|every| every * 3);
    if least.is_none_or(|least| guard < least) {
        problems.report(
            Problem::new(
                written.span(),
                "`guard` is shorter than three beats of the write probe",
            )
            .help("write `guard = \"3s\"`, with a `probe-every` of a second at most"),
        );
    }
}

/// Members are reached by their private addresses of the family of each address.
fn balanced(service: &MysqlService, entry: Entry<'_>, problems: &mut Problems) {
    for member in &service.members {
        if service.balancer(&member.host).is_some()
            && let Some(written) = entry.at("members")
        {
            problems.report(
                Problem::new(
                    written.span(),
                    format!("`{}` cannot balance to itself", member.host),
                )
                .help("what XDP sends leaves the machine; name other hosts"),
            );
        }
    }
    for (_, key, addresses) in keyed(service) {
        for address in addresses {
            let served = service.members.iter().all(|member| {
                member
                    .addresses
                    .iter()
                    .any(|other| other.is_ipv4() == address.is_ipv4())
            });
            if !served && let Some(written) = entry.at(key) {
                problems.report(
                    Problem::new(written.span(), format!("a member has no private address of the family of `{address}`"))
                        .help("whoever becomes primary must be reachable by it: add the address, or name only the other family"),
                );
                return;
            }
        }
    }
}

/// Addresses and servers that are given away already.
fn taken(
    service: &MysqlService,
    entry: Entry<'_>,
    l4: &BTreeMap<String, L4Service>,
    before: &BTreeMap<String, MysqlService>,
    problems: &mut Problems,
) {
    let tcp = || l4.values().filter(|other| other.protocol == Protocol::Tcp);
    for (balancer, key, addresses) in keyed(service) {
        for address in addresses {
            let owner = tcp()
                .find(|other| other.vips.contains(address))
                .map(|other| format!("l4.{}", other.name))
                .or_else(|| {
                    let other = before.values().find(|other| {
                        keyed(other).any(|(_, _, addresses)| addresses.contains(address))
                    })?;
                    Some(format!("mysql.{}", other.name))
                })
                .or_else(|| {
                    (key == "read" && balancer.write.contains(address))
                        .then(|| "its own `write`".to_owned())
                });
            if let (Some(owner), Some(written)) = (owner, entry.at(key)) {
                problems.report(
                    Problem::new(written.span(), format!("`{address}` is taken by {owner}"))
                        .help("give one of the two another port"),
                );
            }
        }
    }
    for member in &service.members {
        let same = |host: &str, port| host == member.host && port == member.port;
        let owner = tcp()
            .filter(|other| service.balancer(&other.on).is_some())
            .find(|other| {
                other
                    .backends
                    .iter()
                    .any(|backend| same(&backend.host, backend.port))
            })
            .map(|other| format!("l4.{}", other.name))
            .or_else(|| {
                let other = before
                    .values()
                    .filter(|other| {
                        let on = |balancer: &MysqlBalancer| other.balancer(&balancer.node);
                        service
                            .balancers
                            .iter()
                            .any(|balancer| on(balancer).is_some())
                    })
                    .find(|other| {
                        other
                            .members
                            .iter()
                            .any(|other| same(&other.host, other.port))
                    })?;
                Some(format!("mysql.{}", other.name))
            });
        if let (Some(owner), Some(written)) = (owner, entry.at("members")) {
            problems.report(
                Problem::new(
                    written.span(),
                    format!(
                        "member `{}:{}` already answers for {owner}",
                        member.host, member.port
                    ),
                )
                .help(
                    "an answer is known by the server's address and port alone: take it out there",
                ),
            );
        }
    }
}

/// The addresses of each balancer, and the key that they stand under.
fn keyed(
    service: &MysqlService,
) -> impl Iterator<Item = (&MysqlBalancer, &'static str, &Vec<SocketAddr>)> {
    service.balancers.iter().flat_map(|balancer| {
        [
            (balancer, "write", &balancer.write),
            (balancer, "read", &balancer.read),
        ]
    })
}

fn duration(entry: Entry<'_>, key: &str, default: Duration) -> Duration {
    read_word(entry, key).map_or(default, |Period(duration)| duration)
}

fn file(entry: Entry<'_>, key: &str, folder: &Path) -> Option<PathBuf> {
    read_word(entry, key).map(|FilePath(path)| folder.join(path))
}

const EVERY: Duration = Duration::from_millis(100);
const LEAST_EVERY: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_millis(250);
const MAX_LAG: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_millis(300);
const PROBE: Duration = Duration::from_millis(500);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const LEASE: Duration = Duration::from_secs(1);
const LEAST_LEASE: Duration = Duration::from_millis(500);
const COOL_DOWN: Duration = Duration::from_secs(600);
