//! Requests' heads, against a corpus, a slow model and a second parser.

use proptest::prelude::*;

use super::*;
use crate::http::{End, corpus, end_of_head, model};

const LIMITS: Limits = Limits {
    head: 16_384,
    fields: 100,
    target: 8_192,
};

/// As the proxy reads it: the end of the head, the head, what came with it.
fn read(bytes: &[u8]) -> Result<Option<Request<'_>>, Refusal> {
    let End::At(end) = end_of_head(bytes, 0)? else {
        return Ok(None);
    };
    let (head, following) = bytes.split_at(end);
    let request = parse_request(head, &LIMITS, true)?;
    request.followed_by(following)?;
    Ok(Some(request))
}

#[test]
fn every_request_of_the_corpus_is_refused_with_its_status() {
    let cases = corpus::cases();
    assert!(cases.len() >= 80, "{}", cases.len());
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let found = read(&case.bytes);
            let status = found.as_ref().err().map(|refusal| refusal.status());
            (status != Some(case.status)).then(|| format!("{}: {found:?}", case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_slow_model_refuses_the_heads_of_the_corpus_too() {
    for case in corpus::cases() {
        let Ok(End::At(end)) = end_of_head(&case.bytes, 0) else {
            continue;
        };
        let ours = parse_request(&case.bytes[..end], &LIMITS, true);
        let is_beyond_the_model = ours.as_ref().is_err_and(|refusal| {
            matches!(
                refusal,
                Refusal::ConnectionNames
                    | Refusal::Expectation
                    | Refusal::HostMismatch
                    | Refusal::ListOfValues
                    | Refusal::Upgrade
            )
        });
        if !is_beyond_the_model {
            assert_eq!(
                ours.is_ok(),
                model::allows(&case.bytes[..end]),
                "{}",
                case.name
            );
        }
    }
}

#[test]
fn ordinary_requests_are_understood() {
    let request = read(
        b"POST /a?b=c HTTP/1.1\r\nHost: www.foobar.com:8443\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\
          Cookie: a=1; foobar=xyz\r\nX-Own:  spaced \t\r\n\r\nabc",
    )
    .unwrap()
    .unwrap();
    assert_eq!(request.method, b"POST");
    assert_eq!(request.path, b"/a?b=c");
    assert_eq!(request.host, b"www.foobar.com:8443");
    assert_eq!(request.body, Body::Length(3));
    assert!(request.keeps_alive && request.expects_continue && !request.is_idempotent());
    assert_eq!(request.field("x-own"), Some(&b"spaced"[..]));
    assert_eq!(request.cookie("foobar"), Some(&b"xyz"[..]));
    assert_eq!(request.cookie("foo"), None);
}

#[test]
fn an_upgrade_needs_connection_to_say_so() {
    let with = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(
        read(with).unwrap().unwrap().upgrade,
        Some(&b"websocket"[..])
    );
    for without in [
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    ] {
        let request = read(without.as_bytes()).unwrap().unwrap();
        assert_eq!((request.upgrade, request.fields.len()), (None, 0));
    }
}

#[test]
fn limits_have_statuses_of_their_own() {
    let limits = Limits {
        head: 100,
        fields: 2,
        target: 10,
    };
    for (head, status) in [
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(10)),
            414,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(80)),
            431,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n".to_owned(),
            431,
        ),
    ] {
        let refusal = parse_request(head.as_bytes(), &limits, true).unwrap_err();
        assert_eq!(refusal.status(), status, "{head:?}");
    }
}

fn http2<'b>(pseudo: Pseudo<'b>, fields: &'b [(&'b str, &'b str)]) -> Result<Request<'b>, Refusal> {
    let fields = fields.iter().map(|(name, value)| Field {
        name: name.as_bytes(),
        value: value.as_bytes(),
    });
    from_http2(pseudo, fields, &LIMITS)
}

const PSEUDO: Pseudo<'_> = Pseudo {
    method: b"GET",
    scheme: Some(b"https"),
    authority: Some(b"a.test"),
    path: b"/",
    ends_stream: true,
};

#[test]
fn what_comes_by_http_2_passes_the_same_screen() {
    let open = Pseudo {
        ends_stream: false,
        ..PSEUDO
    };
    for (name, pseudo, fields, refusal) in [
        (
            "authority against host",
            PSEUDO,
            &[("host", "b.test")][..],
            Refusal::HostMismatch,
        ),
        (
            "no authority",
            Pseudo {
                authority: None,
                ..PSEUDO
            },
            &[],
            Refusal::NoHost,
        ),
        (
            "authority with user",
            Pseudo {
                authority: Some(b"u@a"),
                ..PSEUDO
            },
            &[],
            Refusal::BadHost,
        ),
        (
            "authority empty",
            Pseudo {
                authority: Some(b""),
                ..PSEUDO
            },
            &[],
            Refusal::BadHost,
        ),
        (
            "two hosts",
            PSEUDO,
            &[("host", "a.test"), ("host", "a.test")],
            Refusal::ManyHosts,
        ),
        (
            "no scheme",
            Pseudo {
                scheme: None,
                ..PSEUDO
            },
            &[],
            Refusal::PseudoField,
        ),
        (
            "other scheme",
            Pseudo {
                scheme: Some(b"ftp"),
                ..PSEUDO
            },
            &[],
            Refusal::Scheme,
        ),
        (
            "path empty",
            Pseudo {
                path: b"",
                ..PSEUDO
            },
            &[],
            Refusal::Target,
        ),
        (
            "path absolute",
            Pseudo {
                path: b"https://a.test/",
                ..PSEUDO
            },
            &[],
            Refusal::Target,
        ),
        (
            "dots",
            Pseudo {
                path: b"/../x",
                ..PSEUDO
            },
            &[],
            Refusal::DotSegment,
        ),
        (
            "fragment",
            Pseudo {
                path: b"/#x",
                ..PSEUDO
            },
            &[],
            Refusal::Fragment,
        ),
        (
            "line end in path",
            Pseudo {
                path: b"/ HTTP/1.1\r\nX: y",
                ..PSEUDO
            },
            &[],
            Refusal::Target,
        ),
        (
            "lower-case method",
            Pseudo {
                method: b"get",
                ..PSEUDO
            },
            &[],
            Refusal::Method,
        ),
        (
            "line end in method",
            Pseudo {
                method: b"GET / HTTP/1.1\r\n",
                ..PSEUDO
            },
            &[],
            Refusal::Method,
        ),
        (
            "trace",
            Pseudo {
                method: b"TRACE",
                ..PSEUDO
            },
            &[],
            Refusal::MethodNotServed,
        ),
        (
            "connect",
            Pseudo {
                method: b"CONNECT",
                ..PSEUDO
            },
            &[],
            Refusal::MethodNotServed,
        ),
        (
            "encoding",
            open,
            &[("transfer-encoding", "chunked")],
            Refusal::StrayConnectionField,
        ),
        (
            "connection",
            PSEUDO,
            &[("connection", "close")],
            Refusal::StrayConnectionField,
        ),
        (
            "keep-alive",
            PSEUDO,
            &[("keep-alive", "5")],
            Refusal::StrayConnectionField,
        ),
        (
            "proxy-connection",
            PSEUDO,
            &[("proxy-connection", "x")],
            Refusal::StrayConnectionField,
        ),
        (
            "upgrade",
            PSEUDO,
            &[("upgrade", "websocket")],
            Refusal::StrayConnectionField,
        ),
        (
            "te",
            PSEUDO,
            &[("te", "gzip")],
            Refusal::StrayConnectionField,
        ),
        (
            "upper-case name",
            PSEUDO,
            &[("X-Y", "z")],
            Refusal::FieldName,
        ),
        (
            "name with line end",
            PSEUDO,
            &[("x\r\ny", "z")],
            Refusal::FieldName,
        ),
        (
            "name with colon",
            PSEUDO,
            &[("x:y", "z")],
            Refusal::FieldName,
        ),
        (
            "value with line end",
            PSEUDO,
            &[("x", "a\r\nb: c")],
            Refusal::FieldValue,
        ),
        (
            "value with space around",
            PSEUDO,
            &[("x", " a")],
            Refusal::FieldValue,
        ),
        (
            "two lengths",
            open,
            &[("content-length", "3"), ("content-length", "3")],
            Refusal::ManyLengths,
        ),
        (
            "length no number",
            open,
            &[("content-length", "+3")],
            Refusal::BadLength,
        ),
        (
            "length without body",
            PSEUDO,
            &[("content-length", "3")],
            Refusal::ContradictedLength,
        ),
        (
            "encoding disguised",
            open,
            &[("transfer_encoding", "chunked")],
            Refusal::Underscore,
        ),
        (
            "client disguised",
            PSEUDO,
            &[("x_forwarded_for", "10.0.0.1")],
            Refusal::Underscore,
        ),
    ] {
        assert_eq!(http2(pseudo, fields).err(), Some(refusal), "{name}");
    }
    let request = http2(
        open,
        &[
            ("te", "trailers"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-real-ip", "1"),
        ],
    )
    .unwrap();
    assert_eq!(request.body, Body::Chunked);
    assert!(request.wants_trailers && request.fields.is_empty());
    assert_eq!(request.cookie("b"), Some(&b"2"[..]));
}

/// Heads near the edge of what is allowed: good parts with bad ones among them.
fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
    let method =
        prop_oneof![8 => Just("GET"), 1 => Just("get"), 1 => Just("POST"), 1 => Just("TRACE")];
    let path = prop_oneof![
        6 => "/[a-z0-9.%/;]{0,6}",
        2 => "/[ -~]{0,4}",
        1 => Just("/a?b=[c]".to_owned()),
    ];
    let version = prop_oneof![8 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0"), 1 => Just("HTTP/1.2"), 1 => Just("")];
    let field = prop_oneof![
        6 => "[A-Za-z-]{1,8}: ?[ -~]{0,8}",
        3 => Just("Host: a.test".to_owned()),
        1 => "Host: ?[a-c:@., ]{0,4}",
        1 => "Content-Length:[ +0-9]{0,3}",
        1 => Just("Transfer-Encoding: chunked".to_owned()),
        1 => "Transfer-Encoding: [chunked,]{5,9}",
        1 => "[ -~]{0,6}",
        1 => "[a-zA-Z_ :\r\t]{0,8}",
    ];
    let end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    (
        method,
        path,
        version,
        proptest::collection::vec((field, end), 0..5),
    )
        .prop_map(|(method, path, version, fields)| {
            let mut text = format!("{method} {path} {version}\r\nHost: a.test\r\n");
            if fields.len() == 3 {
                text = text.replace("Host: a.test\r\n", "");
            }
            for (field, end) in fields {
                text += &field;
                text += end;
            }
            (text + "\r\n").into_bytes()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_reader_agrees_with_the_slow_model(head in nearly_a_head()) {
        if let Ok(End::At(end)) = end_of_head(&head, 0) {
            let ours = parse_request(&head[..end], &LIMITS, true);
            match ours {
                // The model does not know these.
                Err(Refusal::ConnectionNames | Refusal::Expectation | Refusal::ListOfValues | Refusal::Upgrade) => {}
                _ => prop_assert_eq!(ours.is_ok(), model::allows(&head[..end]), "{:?}", ours),
            }
        }
    }

    #[test]
    fn what_is_accepted_a_second_parser_reads_alike(head in nearly_a_head()) {
        let Ok(End::At(end)) = end_of_head(&head, 0) else { return Ok(()) };
        let Ok(request) = parse_request(&head[..end], &LIMITS, true) else { return Ok(()) };
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Request::new(&mut fields);
        prop_assert_eq!(other.parse(&head), Ok(httparse::Status::Complete(end)));
        prop_assert_eq!(other.method.map(str::as_bytes), Some(request.method));
        prop_assert_eq!(other.path.map(str::as_bytes), Some(request.path));
        for field in &request.fields {
            let is_there = other.headers.iter().any(|header| {
                header.name.as_bytes() == field.name && header.value == field.value
            });
            prop_assert!(is_there, "{:?}", field);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(head: Vec<u8>) {
        let _ = read(&head);
        let _ = parse_request(&head, &LIMITS, true);
    }
}
