//! Heads as the proxy writes them: its own reading of the message, and who the client is.

use std::{io::Write as _, net::IpAddr};

use super::{AnswerBody, Body, Field, Request, Response, Trailer, Version};

/// What the backend is told about the client of a connection; written once, used for each request.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `Via`.
    own: Vec<u8>,
    /// `Forwarded`, up to the host.
    standard: Vec<u8>,
    pub client: String,
    pub protocol: &'static str,
}

impl Forwarded {
    #[must_use]
    pub fn new(client: IpAddr, is_encrypted: bool) -> Self {
        let client = client.to_canonical();
        let protocol = if is_encrypted { "https" } else { "http" };
        let node = match client {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        Self {
            own: format!(
                "x-forwarded-for: {client}\r\nx-forwarded-proto: {protocol}\r\nvia: {VIA}\r\nx-forwarded-host: "
            )
            .into_bytes(),
            standard: format!("\r\nforwarded: for={node};proto={protocol};host=\"").into_bytes(),
            client: client.to_string(),
            protocol,
        }
    }

    /// The value of `Forwarded` for a request to `host`.
    #[must_use]
    pub fn standard(&self, host: &[u8]) -> Vec<u8> {
        let value = self.standard.splitn(2, |byte| *byte == b' ').nth(1);
        let mut value = value.unwrap_or_default().to_vec();
        value.extend_from_slice(host);
        value.push(b'"');
        value
    }
}

/// What stands in `Via`.
pub const VIA: &str = "1.1 foobar";

/// The head of an HTTP/1.1 request to a backend.
pub fn write_request(request: &Request<'_>, forwarded: &Forwarded, out: &mut Vec<u8>) {
    out.extend_from_slice(request.method);
    out.push(b' ');
    out.extend_from_slice(request.path);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(request.host);
    out.extend_from_slice(b"\r\n");
    for field in &request.fields {
        write_field(*field, out);
    }
    if let Some((first, more)) = request.cookies.split_first() {
        out.extend_from_slice(b"cookie: ");
        out.extend_from_slice(first);
        for cookie in more {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(cookie);
        }
        out.extend_from_slice(b"\r\n");
    }
    match request.body {
        Body::None => {}
        Body::Length(length) => write_length(length, out),
        Body::Chunked => out.extend_from_slice(CHUNKED),
    }
    match (request.wants_trailers, request.upgrade) {
        (true, None) => out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n"),
        // What follows a change of protocols has no trailers.
        (_, Some(protocol)) => write_upgrade(protocol, out),
        (false, None) => {}
    }
    out.extend_from_slice(&forwarded.own);
    out.extend_from_slice(request.host);
    out.extend_from_slice(&forwarded.standard);
    out.extend_from_slice(request.host);
    out.extend_from_slice(b"\"\r\n\r\n");
}

/// What the client's connection says in an answer's head.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    pub version: Version,
    pub keeps_alive: bool,
    /// Whether the client gets what comes after a body.
    pub takes_trailers: bool,
}

/// The head of an HTTP/1.1 answer to a client, without the empty line at its end: there may be more to say.
pub fn write_response(response: &Response<'_>, answering: Answering, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(u64::from(response.status), out);
    out.push(b' ');
    out.extend_from_slice(response.reason);
    out.extend_from_slice(b"\r\n");
    for field in &response.fields {
        if answering.takes_trailers || !field.is_trailer() {
            write_field(*field, out);
        }
    }
    match response.body {
        AnswerBody::None { said: Some(length) } | AnswerBody::Length(length) => {
            write_length(length, out);
        }
        AnswerBody::Chunked | AnswerBody::UntilClose if answering.version == Version::Http11 => {
            out.extend_from_slice(CHUNKED);
        }
        AnswerBody::None { said: None } | AnswerBody::Chunked | AnswerBody::UntilClose => {}
    }
    if let Some(protocol) = response.upgrade {
        write_upgrade(protocol, out);
    } else if !answering.keeps_alive {
        out.extend_from_slice(b"connection: close\r\n");
    }
}

/// The end of a chunked body.
pub fn write_last_chunk(trailers: &[Trailer], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        write_field(Field { name, value }, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(field: Field<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(field.name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value);
    out.extend_from_slice(b"\r\n");
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    write_number(length, out);
    out.extend_from_slice(b"\r\n");
}

fn write_upgrade(protocol: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
    out.extend_from_slice(protocol);
    out.extend_from_slice(b"\r\n");
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    // A vector takes every write.
    let _ = write!(out, "{number}");
}

const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Limits, parse_request};

    const LIMITS: Limits = Limits {
        head: 16_384,
        fields: 100,
        target: 8_192,
    };

    fn onward(head: &str, client: &str) -> String {
        let request = parse_request(head.as_bytes(), &LIMITS, true).unwrap();
        let mut out = Vec::new();
        write_request(
            &request,
            &Forwarded::new(client.parse().unwrap(), true),
            &mut out,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_backend_hears_of_the_client_from_the_proxy_alone() {
        let written = onward(
            "GET /a?b HTTP/1.1\r\nHost: www.foobar.com\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
             X-Real-IP: 6.6.6.6\r\nVia: 1.1 evil\r\nAccept: */*\r\nConnection: close, x-own\r\nX-Own: 1\r\n\
             Keep-Alive: 5\r\nProxy: http://evil\r\nTE: trailers\r\nmy_own: 1\r\n\r\n",
            "::ffff:192.0.2.1",
        );
        assert_eq!(
            written,
            "GET /a?b HTTP/1.1\r\nhost: www.foobar.com\r\nAccept: */*\r\nte: trailers\r\nconnection: te\r\n\
             x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\nvia: 1.1 foobar\r\n\
             x-forwarded-host: www.foobar.com\r\nforwarded: for=192.0.2.1;proto=https;host=\"www.foobar.com\"\r\n\r\n"
        );
    }

    #[test]
    fn a_change_of_protocols_has_the_connection_for_itself() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, upgrade\r\nUpgrade: websocket\r\n\r\n";
        let written = onward(head, "192.0.2.1");
        assert!(written.contains("\r\nconnection: upgrade\r\nupgrade: websocket\r\n"));
        assert!(!written.contains("te: "), "{written}");
    }

    #[test]
    fn several_cookies_become_one_and_a_length_stands_last() {
        let written = onward(
            "PUT / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nContent-Length: 007\r\nCookie: b=2\r\n\r\n",
            "2001:db8::1",
        );
        assert!(written.contains("\r\ncookie: a=1; b=2\r\ncontent-length: 7\r\n"));
        assert!(written.contains("for=\"[2001:db8::1]\";"));
    }
}
