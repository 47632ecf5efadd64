//! The commands: what was asked, and who answers it.

mod answers;
mod arguments;
mod conns;
mod doctor;
mod drops;
mod failure;
mod local;
mod log;
mod manual;
mod mysql;
mod output;
mod stats;
mod tls;
mod top;

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use clap::{CommandFactory as _, Parser as _};
use foobar::{
    admin::{
        api::{Apply, BackendWish, Maps, Packet, Request, Response, ServiceStatus, Snapshot},
        client,
    },
    config::{self, Config},
    kernel::Which,
    names::NameServer,
    snapshot,
};

use self::{
    arguments::{
        AlertCommand, Arguments, BackendCommand, Command, ConfigCommand, Element, Output, Part,
        RuleCommand, ServiceCommand, SetCommand, Watch,
    },
    failure::{Failure, Status},
    output::{Rows, present, say},
};

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    output::choose_colors(arguments.color);
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                // Nobody is left to tell when standard error is closed.
                let _ = writeln!(io::stderr(), "{}", failure.text.trim_end());
            }
            ExitCode::from(failure.status as u8)
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Run { dry_run: false } => local::run(arguments),
        Command::Run { dry_run: true } => local::dry_run(arguments),
        Command::Check => local::check(arguments),
        Command::Reload { dry_run, confirm } => {
            let apply = match confirm {
                _ if *dry_run => Apply::DryRun,
                Some(seconds) => Apply::OnTrial { seconds: *seconds },
                None => Apply::Now,
            };
            show(arguments, ask(arguments, &Request::Reload { apply })?)
        }
        Command::Confirm => show(arguments, ask(arguments, &Request::Confirm)?),
        Command::Status { watch } => again(*watch, || {
            show(arguments, ask(arguments, &Request::Status)?)
        }),
        Command::Doctor { dns, offline } => {
            let names = match (dns, offline) {
                (_, true) => None,
                (Some(server), false) => Some(NameServer::At(*server)),
                (None, false) => Some(NameServer::OfThisMachine),
            };
            doctor::run(arguments, names)
        }
        Command::Stats {
            part,
            filter,
            watch,
            from_maps,
            total,
        } => {
            let mut earlier = None;
            again(*watch, || {
                let mut snapshot = take_snapshot(arguments, *part, *from_maps)?;
                if *from_maps {
                    remember_and_rate(&mut earlier, &mut snapshot);
                }
                stats::narrow(&mut snapshot, *part, filter.as_deref());
                if let Some(filter) = filter
                    && watch.every.is_none()
                    && matches!(arguments.output, Output::Table | Output::Wide)
                    && stats::is_empty(&snapshot)
                {
                    return Err(Failure::told(
                        Status::Failed,
                        format!("nothing of this is called `{filter}`"),
                    ));
                }
                let told = Told {
                    total: total.then(|| stats::Total::of(&snapshot)),
                    snapshot: &snapshot,
                };
                present(arguments.output, "stats", &told, || {
                    let tables = stats::tables(&snapshot, *part, arguments.output);
                    let total = told.total.map(|total| format!("\n{}", total.table()));
                    tables + &total.unwrap_or_default()
                })
            })
        }
        Command::Explain {
            protocol,
            source,
            destination,
            iface,
            egress,
        } => {
            let packet = packet(protocol, source, destination, iface.clone(), *egress)?;
            show(arguments, ask(arguments, &Request::Explain(packet))?)
        }
        Command::Rule { what } => rule(arguments, what),
        Command::Set { what } => show(arguments, ask(arguments, &set_request(what))?),
        Command::Service { what } => service(arguments, what),
        Command::Backend { what } => backend(arguments, what),
        Command::Mysql { cluster, what } => mysql::run(arguments, cluster.as_deref(), what),
        Command::Top => top::run(arguments),
        Command::Drops {
            follow: _,
            reason,
            src,
            pcap,
        } => drops::follow(
            arguments,
            &drops::Wanted {
                reason: reason.clone(),
                source: src.map(|element| element.0),
                pcap: pcap.clone(),
            },
        ),
        Command::Conns {
            filter,
            count_only,
            limit,
        } => {
            let listing = match count_only {
                true => conns::Listing::Counts,
                false => conns::Listing::Lines { limit: *limit },
            };
            conns::run(arguments, filter.as_deref(), listing)
        }
        Command::Alert { what } => alert(arguments, what),
        Command::Log {
            log,
            follow,
            status,
            grep,
            since,
        } => log::run(
            arguments,
            *log,
            *follow,
            &log::Filter {
                status: status.clone(),
                text: grep.clone(),
                since: *since,
            },
        ),
        Command::Tls { what } => tls::run(arguments, what),
        Command::Upgrade => show(arguments, ask(arguments, &Request::Upgrade)?),
        Command::Detach { interfaces, all } => {
            let which = if *all {
                Which::All
            } else {
                Which::Interfaces(interfaces.clone())
            };
            local::detach(arguments, &which)
        }
        Command::Config { what } => match what {
            ConfigCommand::Show => say(&config::show(&load(arguments)?)),
            ConfigCommand::Diff => {
                let apply = Apply::DryRun;
                show(arguments, ask(arguments, &Request::Reload { apply })?)
            }
            ConfigCommand::Example => say(config::example()),
            ConfigCommand::Schema => say(&format!("{:#}\n", config::schema())),
        },
        Command::Man { directory } => manual::write(directory),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "foobar", &mut script);
            say(&String::from_utf8_lossy(&script))
        }
    }
}

/// Once, or again and again; a terminal is redrawn in place, anything else gets one answer below the other.
fn again(watch: Watch, mut show: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
    let Some(every) = watch.every else {
        return show();
    };
    let redraws = io::stdout().is_terminal();
    let mut round = 0;
    loop {
        if redraws {
            say(HOME_AND_CLEAR)?;
        }
        match show() {
            // A node that is not healthy is watched on, and so is one whose controller restarts.
            Err(failure) if !failure.text.is_empty() && is_passing(failure.status) => {
                let _ = writeln!(io::stderr(), "{}", failure.text);
            }
            other => other?,
        }
        round += 1;
        if watch.rounds == Some(round) {
            return Ok(());
        }
        thread::sleep(every);
    }
}

/// A snapshot, with its sums where they were asked for.
#[derive(serde::Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<stats::Total>,
}

const HOME_AND_CLEAR: &str = "\x1b[H\x1b[2J";

fn is_passing(status: Status) -> bool {
    matches!(status, Status::Failed | Status::NotRunning)
}

fn take_snapshot(
    arguments: &Arguments,
    part: Option<Part>,
    from_maps: bool,
) -> Result<Snapshot, Failure> {
    let maps = if part == Some(Part::Maps) {
        Maps::Counted
    } else {
        Maps::LeftOut
    };
    if from_maps {
        return Ok(snapshot::of_pins(&node(arguments)?, maps)?);
    }
    match ask(arguments, &Request::Snapshot { maps })? {
        Response::Snapshot(snapshot) => Ok(*snapshot),
        _ => Err(another_answer()),
    }
}

/// Rates against the round before; the controller tells them itself.
fn remember_and_rate(earlier: &mut Option<Snapshot>, snapshot: &mut Snapshot) {
    let now = snapshot.clone();
    if let Some(earlier) = earlier {
        snapshot::rate(earlier, snapshot);
    }
    *earlier = Some(now);
}

fn rule(arguments: &Arguments, command: &RuleCommand) -> Result<(), Failure> {
    let Response::Rules(mut rules) = ask(arguments, &Request::Rules)? else {
        return Err(another_answer());
    };
    let name = |line: &foobar::admin::api::RuleLine| format!("{}/{}", line.policy, line.rule);
    match command {
        RuleCommand::List { filter } => {
            let filter = filter.as_deref().unwrap_or_default();
            rules.retain(|line| name(line).contains(filter));
            present(
                arguments.output,
                "rule-list",
                &Rows { rows: &rules },
                || answers::rules(&rules),
            )
        }
        RuleCommand::Show { rule } => {
            let line = rules
                .iter()
                .find(|line| name(line) == *rule)
                .ok_or_else(|| {
                    let known: Vec<String> = rules.iter().map(name).collect();
                    let known = known.join(", ");
                    Failure::told(
                        Status::Failed,
                        format!("there is no rule `{rule}`; there is {known}"),
                    )
                })?;
            present(arguments.output, "rule-show", line, || answers::rule(line))
        }
    }
}

fn service(arguments: &Arguments, command: &ServiceCommand) -> Result<(), Failure> {
    let services = services(arguments)?;
    match command {
        ServiceCommand::List => present(
            arguments.output,
            "service-list",
            &Rows { rows: &services },
            || answers::services(&services),
        ),
        ServiceCommand::Show { service } => {
            let found = services
                .iter()
                .find(|known| known.name == *service || short_name(&known.name) == service)
                .ok_or_else(|| {
                    let known: Vec<&str> =
                        services.iter().map(|known| known.name.as_str()).collect();
                    let known = known.join(", ");
                    Failure::told(
                        Status::Failed,
                        format!("there is no service `{service}`; there is {known}"),
                    )
                })?;
            present(arguments.output, "service-show", found, || {
                answers::services_with_backends(std::slice::from_ref(found))
            })
        }
    }
}

/// `plain` of `l4.plain`.
fn short_name(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, short)| short)
}

fn services(arguments: &Arguments) -> Result<Vec<ServiceStatus>, Failure> {
    match ask(arguments, &Request::Status)? {
        Response::Status(status) => Ok(status.services),
        _ => Err(another_answer()),
    }
}

fn backend(arguments: &Arguments, command: &BackendCommand) -> Result<(), Failure> {
    let (service, backend, wish) = match command {
        BackendCommand::List => {
            let services = services(arguments)?;
            return present(
                arguments.output,
                "backend-list",
                &Rows { rows: &services },
                || answers::backends(&services),
            );
        }
        BackendCommand::Drain { service, backend } => (service, backend, BackendWish::Drain),
        BackendCommand::Enable { service, backend } => (service, backend, BackendWish::Enable),
        BackendCommand::Disable { service, backend } => (service, backend, BackendWish::Disable),
        BackendCommand::Weight {
            service,
            backend,
            weight,
        } => (service, backend, BackendWish::Weight(*weight)),
    };
    let request = Request::BackendState {
        service: service.clone(),
        backend: backend.clone(),
        wish,
    };
    show(arguments, ask(arguments, &request)?)
}

fn alert(arguments: &Arguments, command: &AlertCommand) -> Result<(), Failure> {
    match command {
        AlertCommand::List => {
            let snapshot = take_snapshot(arguments, None, false)?;
            present(
                arguments.output,
                "alert-list",
                &Rows {
                    rows: &snapshot.alerts,
                },
                || answers::alerts(&snapshot.alerts),
            )
        }
        AlertCommand::Test { name } => {
            let name = name.clone();
            show(arguments, ask(arguments, &Request::AlertTest { name })?)
        }
    }
}

fn set_request(command: &SetCommand) -> Request {
    let prefixes = |elements: &[Element]| elements.iter().map(|element| element.0).collect();
    match command {
        SetCommand::List => Request::Sets,
        SetCommand::Show { set } => Request::SetElements { set: set.clone() },
        SetCommand::Add {
            set,
            elements,
            timeout,
        } => Request::SetAdd {
            set: set.clone(),
            elements: prefixes(elements),
            timeout: *timeout,
        },
        SetCommand::Del { set, elements } => Request::SetDelete {
            set: set.clone(),
            elements: prefixes(elements),
        },
        SetCommand::Flush { set } => Request::SetFlush { set: set.clone() },
    }
}

fn packet(
    protocol: &str,
    source: &str,
    destination: &str,
    interface: Option<String>,
    egress: bool,
) -> Result<Packet, Failure> {
    let (source, source_port) = endpoint(source, 51_000)?;
    let (destination, port) = endpoint(destination, 0)?;
    let is_icmp = protocol.starts_with("icmp");
    Ok(Packet {
        protocol: protocol.to_owned(),
        source,
        source_port,
        destination,
        destination_port: if is_icmp { port << 8 } else { port },
        flags: SYN,
        interface,
        egress,
    })
}

const SYN: u8 = 2;

/// `ADDRESS` or `ADDRESS:PORT`.
fn endpoint(text: &str, port: u16) -> Result<(IpAddr, u16), Failure> {
    if let Ok(endpoint) = text.parse::<SocketAddr>() {
        return Ok((endpoint.ip(), endpoint.port()));
    }
    text.parse().map(|address| (address, port)).map_err(|_| {
        Failure::told(
            Status::Usage,
            format!(
                "`{text}` is no address; write 198.51.100.7, 198.51.100.7:443 or [2001:db8::7]:443"
            ),
        )
    })
}

fn ask(arguments: &Arguments, request: &Request) -> Result<Response, Failure> {
    Ok(client::ask(&socket(arguments)?, request)?)
}

fn another_answer() -> Failure {
    Failure::told(
        Status::Failed,
        "the controller answered another question; restart it, it is of another version",
    )
}

/// Answers that are shown as they come.
fn show(arguments: &Arguments, response: Response) -> Result<(), Failure> {
    let output = arguments.output;
    match response {
        Response::Status(status) => {
            present(output, "status", &*status, || answers::status(&status))?;
            if status.healthy {
                return Ok(());
            }
            Err(Failure::told(
                Status::Failed,
                format!("{} is not healthy", status.node),
            ))
        }
        Response::Snapshot(snapshot) => present(output, "stats", &*snapshot, || {
            stats::tables(&snapshot, None, output)
        }),
        Response::Reloaded(reloaded) => {
            present(output, "reload", &reloaded, || answers::reloaded(&reloaded))
        }
        Response::Rules(rules) => present(output, "rule-list", &Rows { rows: &rules }, || {
            answers::rules(&rules)
        }),
        Response::Sets(sets) => present(output, "set-list", &Rows { rows: &sets }, || {
            answers::sets(&sets)
        }),
        Response::Certificates(lines) => {
            present(output, "tls-list", &Rows { rows: &lines }, || {
                answers::certificates(&lines)
            })
        }
        Response::SetElements(elements) => {
            present(output, "set-show", &Rows { rows: &elements }, || {
                answers::elements(&elements)
            })
        }
        Response::Done { message } => present(output, "done", &Done { message: &message }, || {
            format!("{message}\n")
        }),
        Response::Explained(explanation) => present(output, "explain", &*explanation, || {
            answers::explanation(&explanation)
        }),
        Response::ConfigText(text) => say(&text),
        Response::Clusters(clusters) => mysql::show(output, &clusters),
        Response::Connections(_) => Err(another_answer()),
    }
}

#[derive(serde::Serialize)]
struct Done<'a> {
    message: &'a str,
}

fn load(arguments: &Arguments) -> Result<Config, Failure> {
    Ok(config::load(&arguments.config)?)
}

/// Where the controller answers. Someone who is editing the file must reach it all the same.
fn socket(arguments: &Arguments) -> Result<PathBuf, Failure> {
    if let Some(socket) = &arguments.socket {
        return Ok(socket.clone());
    }
    let errors = match config::load(&arguments.config) {
        Ok(config) => return Ok(config.admin.socket_of(&node(arguments)?)),
        Err(errors) => errors,
    };
    let node = arguments.node.clone().unwrap_or_else(machine_name);
    let usual = ["/run/foobar/{node}.sock", "/run/foobar/admin.sock"];
    let found = usual
        .map(|path| PathBuf::from(path.replace("{node}", &node)))
        .into_iter()
        .find(|path| path.exists());
    match found {
        Some(socket) => {
            let _ = writeln!(
                io::stderr(),
                "foobar: {} has errors (`foobar check` tells them); asking {}",
                arguments.config.display(),
                socket.display()
            );
            Ok(socket)
        }
        None => Err(errors.into()),
    }
}

fn machine_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The node that was named, or the only one that it can be.
fn node(arguments: &Arguments) -> Result<String, Failure> {
    if let Some(node) = &arguments.node {
        return Ok(node.clone());
    }
    let config = load(arguments)?;
    let machine = machine_name();
    let mut nodes = config.nodes.keys();
    match (nodes.next(), nodes.next()) {
        _ if config.nodes.contains_key(&machine) => Ok(machine),
        (Some(only), None) => Ok(only.clone()),
        _ => Err(no_such_node(&config, &machine)),
    }
}

fn no_such_node(config: &Config, node: &str) -> Failure {
    let known: Vec<&str> = config.nodes.keys().map(String::as_str).collect();
    Failure::told(
        Status::Usage,
        format!(
            "{} has no node `{node}`; name one of {} with --node",
            config.path.display(),
            known.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_with_or_without_a_port() {
        let v6: IpAddr = "2001:db8::7".parse().expect("an address");
        assert_eq!(endpoint("[2001:db8::7]:443", 1).expect("good"), (v6, 443));
        assert_eq!(endpoint("2001:db8::7", 1).expect("good"), (v6, 1));
        let failure = endpoint("public:443", 1).expect_err("a word is no address");
        assert_eq!(failure.status, Status::Usage);
    }

    #[test]
    fn a_service_goes_by_its_short_name_too() {
        assert_eq!(short_name("l4.plain"), "plain");
        assert_eq!(short_name("plain"), "plain");
    }
}
