//! A request's head, from HTTP/1.1 or HTTP/2, with one meaning.

use super::{
    Chunked, Field, Limits, Piece, Refusal, characters,
    fields::Intake,
    head::lines,
    host::is_host,
    target::{Scheme, Target},
};

/// A request as it goes on: end-to-end fields only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request<'b> {
    pub method: &'b [u8],
    /// Path and query; `*` of an `OPTIONS` about the server.
    pub path: &'b [u8],
    pub host: &'b [u8],
    pub version: Version,
    pub fields: Vec<Field<'b>>,
    pub cookies: Vec<&'b [u8]>,
    pub body: Body,
    pub keeps_alive: bool,
    pub expects_continue: bool,
    pub wants_trailers: bool,
    /// The protocol that the connection shall change to.
    pub upgrade: Option<&'b [u8]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    None,
    Length(u64),
    /// Until the last chunk, or the end of the stream.
    Chunked,
}

impl Request<'_> {
    /// Whether doing it twice is as good as doing it once (RFC 9110 9.2.2).
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE"
        )
    }

    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method == b"HEAD"
    }

    /// Looks at the bytes that came with the head: none may follow an upgrade before its answer, and chunks must be
    /// chunks.
    ///
    /// # Errors
    ///
    /// What would be refused later, when a backend had seen the head.
    pub fn followed_by(&self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.upgrade.is_some() && !bytes.is_empty() {
            return Err(Refusal::Upgrade);
        }
        if self.body != Body::Chunked || self.version == Version::Http2 {
            return Ok(());
        }
        let mut chunked = Chunked::default();
        let mut at = 0;
        while let Piece::Data(range) = chunked.next(&bytes[at..])? {
            at += range.end;
        }
        Ok(())
    }

    /// The value of the first end-to-end field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    }

    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&[u8]> {
        self.cookies
            .iter()
            .flat_map(|cookies| cookies.split(|byte| *byte == b';'))
            .find_map(|pair| {
                characters::trim(pair)
                    .strip_prefix(name.as_bytes())?
                    .strip_prefix(b"=")
            })
    }
}

/// A head that ends with its empty line, as [`super::end_of_head`] found it. `is_encrypted` says how it came.
///
/// # Errors
///
/// Anything that RFC 9112 does not allow, or allows to be read in two ways.
pub fn parse_request<'b>(
    head: &'b [u8],
    limits: &Limits,
    is_encrypted: bool,
) -> Result<Request<'b>, Refusal> {
    if head.len() > limits.head {
        return Err(Refusal::HeadTooLarge);
    }
    let mut lines = lines(head);
    let line = lines.next().ok_or(Refusal::RequestLine)?;
    let (method, target, version) = request_line(line, limits)?;
    let mut intake = Intake::default();
    for line in lines {
        intake.take(Field::parse(line)?, limits)?;
    }
    let host = intake.host.ok_or(Refusal::NoHost)?;
    if let Some((scheme, named)) = target.absolute {
        if (scheme == Scheme::Https) != is_encrypted {
            return Err(Refusal::Scheme);
        }
        if !named.eq_ignore_ascii_case(host) {
            return Err(Refusal::HostMismatch);
        }
    }
    let body = body(&intake, version)?;
    intake.drop_named();
    let upgrade = upgrade(&intake, version, body)?;
    Ok(Request {
        method,
        path: target.path,
        host,
        version,
        body,
        keeps_alive: version == Version::Http11 && !intake.connection.is_closing,
        expects_continue: intake.expects_continue && version == Version::Http11,
        wants_trailers: intake.wants_trailers,
        upgrade,
        fields: intake.kept,
        cookies: intake.cookies,
    })
}

fn request_line<'b>(
    line: &'b [u8],
    limits: &Limits,
) -> Result<(&'b [u8], Target<'b>, Version), Refusal> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::RequestLine);
    };
    let method = served(method)?;
    if target.len() > limits.target {
        return Err(Refusal::TargetTooLong);
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(Refusal::Version);
        }
        _ => return Err(Refusal::RequestLine),
    };
    Ok((method, Target::parse(target, method)?, version))
}

fn served(method: &[u8]) -> Result<&[u8], Refusal> {
    if method.is_empty() || method.len() > 32 || !characters::METHOD.has_all(method) {
        return Err(Refusal::Method);
    }
    match method {
        b"CONNECT" | b"TRACE" | b"TRACK" => Err(Refusal::MethodNotServed),
        // The preface of HTTP/2, on a connection that did not agree to it.
        b"PRI" => Err(Refusal::Method),
        _ => Ok(method),
    }
}

fn body(intake: &Intake<'_>, version: Version) -> Result<Body, Refusal> {
    match (intake.length, intake.is_chunked) {
        (Some(_), true) => Err(Refusal::LengthAndEncoding),
        (None, true) if version == Version::Http10 => Err(Refusal::EncodingBeforeHttp11),
        (None, true) => Ok(Body::Chunked),
        (Some(length), false) => Ok(Body::Length(length)),
        (None, false) => Ok(Body::None),
    }
}

fn upgrade<'b>(
    intake: &Intake<'b>,
    version: Version,
    body: Body,
) -> Result<Option<&'b [u8]>, Refusal> {
    let Some(protocol) = intake.upgrade else {
        return Ok(None);
    };
    // An offer of cleartext HTTP/2 may always be declined.
    let is_offer_only = protocol.eq_ignore_ascii_case(b"h2c") || version == Version::Http10;
    if !intake.connection.is_upgrading || is_offer_only {
        return Ok(None);
    }
    if !matches!(body, Body::None | Body::Length(0)) {
        return Err(Refusal::Upgrade);
    }
    if !characters::TOKEN.has_all(protocol) {
        return Err(Refusal::ListOfValues);
    }
    Ok(Some(protocol))
}

/// A request that came by HTTP/2, whose frames and pseudo-header fields are known to be well formed.
///
/// # Errors
///
/// What RFC 9113 8 does not allow, and what HTTP/1.1 would refuse as well.
pub fn from_http2<'b>(
    pseudo: Pseudo<'b>,
    fields: impl Iterator<Item = Field<'b>>,
    limits: &Limits,
) -> Result<Request<'b>, Refusal> {
    let method = served(pseudo.method)?;
    let scheme = pseudo.scheme.ok_or(Refusal::PseudoField)?;
    if scheme != b"https" && scheme != b"http" {
        return Err(Refusal::Scheme);
    }
    if pseudo.path.len() > limits.target {
        return Err(Refusal::TargetTooLong);
    }
    let target = Target::parse(pseudo.path, method)?;
    if target.absolute.is_some() {
        return Err(Refusal::Target);
    }
    let mut intake = Intake::default();
    let mut size = 0;
    for field in fields {
        size += field.name.len() + field.value.len() + FIELD_OVERHEAD;
        if size > limits.head {
            return Err(Refusal::HeadTooLarge);
        }
        screen(field)?;
        intake.take(field, limits)?;
    }
    let host = host(pseudo.authority, intake.host)?;
    let body = match (intake.length, pseudo.ends_stream) {
        (Some(0) | None, true) => Body::None,
        (Some(_), true) => return Err(Refusal::ContradictedLength),
        (Some(length), false) => Body::Length(length),
        (None, false) => Body::Chunked,
    };
    Ok(Request {
        method,
        path: target.path,
        host,
        version: Version::Http2,
        body,
        keeps_alive: true,
        expects_continue: intake.expects_continue,
        wants_trailers: intake.wants_trailers,
        upgrade: None,
        fields: intake.kept,
        cookies: intake.cookies,
    })
}

/// The pseudo-header fields, and whether the head is all there is.
#[derive(Clone, Copy, Debug)]
pub struct Pseudo<'b> {
    pub method: &'b [u8],
    pub scheme: Option<&'b [u8]>,
    pub authority: Option<&'b [u8]>,
    pub path: &'b [u8],
    pub ends_stream: bool,
}

fn host<'b>(authority: Option<&'b [u8]>, field: Option<&'b [u8]>) -> Result<&'b [u8], Refusal> {
    match (authority, field) {
        (None, None) => Err(Refusal::NoHost),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(Refusal::HostMismatch)
        }
        (Some(host), _) | (None, Some(host)) if is_host(host) => Ok(host),
        _ => Err(Refusal::BadHost),
    }
}

/// RFC 9113 8.2.
pub(super) fn screen(field: Field<'_>) -> Result<(), Refusal> {
    if field.name.is_empty()
        || !characters::TOKEN.has_all(field.name)
        || field.name.iter().any(u8::is_ascii_uppercase)
    {
        return Err(Refusal::FieldName);
    }
    if !characters::VALUE.has_all(field.value) || characters::trim(field.value) != field.value {
        return Err(Refusal::FieldValue);
    }
    match field.name {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Err(Refusal::StrayConnectionField)
        }
        b"te" if field.value != b"trailers" => Err(Refusal::StrayConnectionField),
        _ => Ok(()),
    }
}

/// RFC 9113 10.5.1 counts so much beside name and value.
const FIELD_OVERHEAD: usize = 32;

#[cfg(test)]
mod tests {
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

    fn http2<'b>(
        pseudo: Pseudo<'b>,
        fields: &'b [(&'b str, &'b str)],
    ) -> Result<Request<'b>, Refusal> {
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
}
