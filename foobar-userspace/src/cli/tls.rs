//! `foobar tls`: the certificates of the sites.

use std::fmt::Write as _;

use foobar::admin::api::{CertificateLine, Request, Response};

use super::{
    another_answer,
    answers::certificates,
    arguments::{Arguments, TlsCommand},
    ask,
    failure::{Failure, Status},
    output::{Rows, present},
    short_name, show,
};

pub fn run(arguments: &Arguments, command: &TlsCommand) -> Result<(), Failure> {
    let lines = match command {
        TlsCommand::Reload => return show(arguments, ask(arguments, &Request::TlsReload)?),
        TlsCommand::List | TlsCommand::Show { .. } => all(arguments)?,
    };
    let TlsCommand::Show { service } = command else {
        return present(arguments.output, "tls-list", &Rows { rows: &lines }, || {
            certificates(&lines)
        });
    };
    let found: Vec<CertificateLine> = lines
        .iter()
        .filter(|line| line.service == *service || short_name(&line.service) == service)
        .cloned()
        .collect();
    if found.is_empty() {
        let mut known: Vec<&str> = lines.iter().map(|line| line.service.as_str()).collect();
        known.dedup();
        return Err(Failure::told(
            Status::Failed,
            format!(
                "no certificate of `{service}`; there are those of {}",
                known.join(", ")
            ),
        ));
    }
    present(arguments.output, "tls-show", &Rows { rows: &found }, || {
        found.iter().map(described).collect()
    })
}

fn all(arguments: &Arguments) -> Result<Vec<CertificateLine>, Failure> {
    match ask(arguments, &Request::Certificates)? {
        Response::Certificates(lines) => Ok(lines),
        _ => Err(another_answer()),
    }
}

fn described(line: &CertificateLine) -> String {
    let mut text = String::new();
    let stapled = if line.stapled { "yes" } else { "no" };
    for (name, value) in [
        ("service", line.service.clone()),
        ("file", line.path.clone()),
        ("names", line.names.join(", ")),
        ("issuer", line.issuer.clone()),
        ("serial", line.serial.clone()),
        ("key", line.algorithm.clone()),
        ("from", line.not_before.clone()),
        (
            "until",
            format!("{} ({} days)", line.not_after, line.days_left),
        ),
        ("ocsp staple", stapled.to_owned()),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12} {value}");
    }
    text.push('\n');
    text
}
