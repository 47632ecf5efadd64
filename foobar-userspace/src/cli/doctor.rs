//! `foobar doctor`: looks at the machine, the names and the controller, and tells what pure judgement makes of it.

mod devices;

use std::{fs, io, time::SystemTime};

use foobar::{
    admin::{
        api::{Maps, Request, Response, Status as NodeStatus},
        client::{self, ClientError},
    },
    config::Config,
    doctor::{self, Finding, Grade},
    kernel::{self, KernelError, Seat, clock, pinned},
    names::{self, NameServer, NamesError},
    proxy::material::Material,
    snapshot,
};
use serde::Serialize;

use super::{
    arguments::Arguments,
    failure::{Failure, Status, chain},
    output::{self, Columns, text},
};

#[derive(Serialize)]
struct Report<'a> {
    node: &'a str,
    findings: &'a [Finding],
}

/// `names`: who resolves the names of the file; nobody when there is to be no question on the network.
pub fn run(arguments: &Arguments, names: Option<NameServer>) -> Result<(), Failure> {
    let node = super::node(arguments)?;
    let config = super::load(arguments)?;
    let mut findings = machine();
    findings.extend(interfaces(&config, &node)?);
    let flaws = Material::flaws(&config, &node, SystemTime::now());
    findings.extend(doctor::standing::files(&flaws));
    if let Some(server) = names {
        findings.extend(of_names(&config, server)?);
    }
    findings.extend(controller(arguments, &config, &node)?);
    output::present(
        arguments.output,
        "doctor",
        &Report {
            node: &node,
            findings: &findings,
        },
        || table(&findings),
    )?;
    let failures = findings
        .iter()
        .filter(|finding| finding.grade == Grade::Fail)
        .count();
    match failures {
        0 => Ok(()),
        1 => Err(Failure::told(Status::Failed, "1 finding must be mended")),
        many => Err(Failure::told(
            Status::Failed,
            format!("{many} findings must be mended"),
        )),
    }
}

fn machine() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path);
    vec![
        doctor::kernel(&read("/proc/sys/kernel/osrelease").unwrap_or_default()),
        doctor::capabilities(&read("/proc/self/status").unwrap_or_default()),
        doctor::bpf_compiler(read("/proc/sys/net/core/bpf_jit_enable").ok().as_deref()),
    ]
    .into_iter()
    .chain(clock::discipline().map(|discipline| doctor::standing::clock(&discipline)))
    .collect()
}

fn interfaces(config: &Config, node: &str) -> Result<Vec<Finding>, Failure> {
    let Some(known) = config.nodes.get(node) else {
        return Err(super::no_such_node(config, node));
    };
    let mut findings = Vec::new();
    let mut mtus = Vec::new();
    for interface in &known.interfaces {
        let device = &interface.device;
        match kernel::seat(node, &interface.name, device) {
            Ok(Seat::NoDevice) => findings.push(doctor::interface(interface, &Seat::NoDevice)),
            Ok(seat) => {
                findings.push(doctor::interface(interface, &seat));
                let traits = devices::traits(device, seat == Seat::Foobar { native: true });
                mtus.extend(traits.mtu.map(|mtu| (device.clone(), mtu)));
                let found = doctor::device::findings(&interface.name, device, &traits);
                findings.extend(found);
            }
            Err(error) => findings.push(Finding::fail(
                format!("interface {}", interface.name),
                chain(&error),
                "run as root",
            )),
        }
    }
    findings.extend(doctor::device::mtus(&mtus));
    Ok(findings)
}

fn of_names(config: &Config, server: NameServer) -> Result<Vec<Finding>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error: io::Error| Failure::failed(&error))?;
    let named = config
        .hosts
        .values()
        .flat_map(|host| host.names.iter().map(move |name| (name, &host.public)));
    Ok(named
        .map(|(name, public)| {
            let answer = runtime
                .block_on(names::addresses(name, server))
                .map_err(|error: NamesError| chain(&error));
            doctor::name(name, public, &answer)
        })
        .collect())
}

fn controller(arguments: &Arguments, config: &Config, node: &str) -> Result<Vec<Finding>, Failure> {
    let socket = arguments
        .socket
        .clone()
        .unwrap_or_else(|| config.admin.socket_of(node));
    let mut findings = match client::ask(&socket, &Request::Status) {
        Ok(Response::Status(status)) => {
            let mut findings = of_status(&status);
            if let Ok(Response::Certificates(served)) = client::ask(&socket, &Request::Certificates)
            {
                findings.extend(doctor::standing::certificates(&served));
            }
            findings
        }
        Ok(_) => Vec::new(),
        Err(ClientError::NotRunning { .. }) => vec![not_running(node)],
        Err(error) => return Err(error.into()),
    };
    match snapshot::of_pins(node, Maps::Counted) {
        Ok(snapshot) => findings.extend(doctor::maps(&snapshot.maps)),
        Err(KernelError::NotDeployed { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(findings)
}

fn of_status(status: &NodeStatus) -> Vec<Finding> {
    let mut findings = doctor::controller(status, env!("CARGO_PKG_VERSION"));
    findings.extend(foobar::mysql::findings::findings(&status.clusters));
    findings
}

fn not_running(node: &str) -> Finding {
    if pinned::labels(node).is_ok() {
        Finding::fail(
            "controller",
            "does not run; the packet path serves on without it",
            format!("start it: foobar run --node {node}"),
        )
    } else {
        Finding::warn(
            "controller",
            "does not run, and nothing of this node is in the kernel",
            format!("start it: foobar run --node {node}"),
        )
    }
}

fn table(findings: &[Finding]) -> String {
    let mut columns = Columns::new(&["", "SUBJECT", "FINDING"]);
    for finding in findings {
        columns.row(vec![
            match finding.grade {
                Grade::Ok => output::good("ok"),
                Grade::Warn => output::doubtful("warn"),
                Grade::Fail => output::bad("FAIL"),
            },
            text(&finding.subject),
            text(&finding.text),
        ]);
        if let Some(repair) = &finding.repair {
            columns.row(vec![text(""), text(""), text(format!("cure: {repair}"))]);
        }
    }
    columns.text()
}
