//! `foobar conns`: connections, one by one or counted.

use std::io::{self, Write as _};

use foobar::admin::api::{Connections, Request, Response};

use super::{
    another_answer,
    arguments::Arguments,
    ask,
    failure::Failure,
    output::{Columns, number, present, text},
};

/// What is listed of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listing {
    Counts,
    Lines { limit: u32 },
}

pub fn run(arguments: &Arguments, filter: Option<&str>, listing: Listing) -> Result<(), Failure> {
    let limit = match listing {
        Listing::Counts => 0,
        Listing::Lines { limit } => limit,
    };
    let request = Request::Connections {
        filter: filter.map(str::to_owned),
        limit: Some(limit),
    };
    let Response::Connections(connections) = ask(arguments, &request)? else {
        return Err(another_answer());
    };
    present(arguments.output, "conns", &connections, || match listing {
        Listing::Counts => counts(&connections),
        Listing::Lines { .. } => lines(&connections),
    })?;
    let shown = connections.connections.len() as u64;
    let note = match listing {
        _ if connections.total == 0 => NONE.to_owned(),
        Listing::Lines { .. } if shown < connections.total => format!(
            "{shown} of {} are listed; give a filter, or more with -n",
            connections.total
        ),
        _ => return Ok(()),
    };
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "{note}");
    Ok(())
}

const NONE: &str = "no connection is known; services of layer 4 remember flows only with on-backend-loss = \"reset\", or \
                    while backends change";

fn counts(connections: &Connections) -> String {
    let mut columns = Columns::new(&["KIND", "SERVICE", "BACKEND", "CONNS"]);
    for count in &connections.counts {
        columns.row(vec![
            text(count.kind.name()),
            text(or_dash(count.service.as_deref())),
            text(or_dash(count.backend.as_deref())),
            number(count.connections),
        ]);
    }
    columns.row(vec![
        text("all"),
        text(""),
        text(""),
        number(connections.total),
    ]);
    columns.text()
}

fn lines(connections: &Connections) -> String {
    let mut columns = Columns::new(&["KIND", "PROTO", "FROM", "TO", "SERVICE", "BACKEND", "IDLE"]);
    for line in &connections.connections {
        let idle = line
            .idle_seconds
            .map_or_else(|| "-".to_owned(), |idle| format!("{idle}s"));
        columns.row(vec![
            text(line.kind.name()),
            text(or_dash(line.protocol.as_deref())),
            text(&line.from),
            text(&line.to),
            text(or_dash(line.service.as_deref())),
            text(or_dash(line.backend.as_deref())),
            number(idle),
        ]);
    }
    columns.text()
}

fn or_dash(text: Option<&str>) -> &str {
    text.unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use foobar::admin::api::{ConnectionCount, ConnectionKind, ConnectionLine};

    use super::*;

    #[test]
    fn connections_are_lines_or_counts() {
        let connections = Connections {
            total: 1,
            counts: vec![ConnectionCount {
                kind: ConnectionKind::Session,
                service: Some("mysql.app".to_owned()),
                backend: Some("web1:3306".to_owned()),
                connections: 1,
            }],
            connections: vec![ConnectionLine {
                kind: ConnectionKind::Session,
                protocol: Some("tcp".to_owned()),
                from: "10.0.0.12:40000".to_owned(),
                to: "10.0.0.10:3306".to_owned(),
                service: Some("mysql.app".to_owned()),
                backend: Some("web1:3306".to_owned()),
                idle_seconds: Some(3),
            }],
        };
        assert_eq!(
            lines(&connections),
            "KIND     PROTO  FROM             TO              SERVICE    BACKEND    IDLE\n\
             session  tcp    10.0.0.12:40000  10.0.0.10:3306  mysql.app  web1:3306    3s\n"
        );
        assert_eq!(
            counts(&connections),
            "KIND     SERVICE    BACKEND    CONNS\n\
             session  mysql.app  web1:3306      1\n\
             all                                1\n"
        );
    }
}
