//! A request's head, from HTTP/1.1 or HTTP/2, with one meaning.

#[cfg(test)]
mod tests;

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
    intake.kept.drop_named(&intake.connection);
    if body != Body::Chunked {
        intake.kept.drop_announced();
    }
    let upgrade = upgrade(&intake, version, body)?;
    Ok(Request {
        method,
        path: target.path,
        host,
        version,
        body,
        keeps_alive: version == Version::Http11 && !intake.connection.is_closing,
        expects_continue: intake.expects_continue && version == Version::Http11,
        wants_trailers: intake.wants_trailers && version == Version::Http11,
        upgrade,
        fields: intake.kept.into_fields(),
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
    if body != Body::Chunked {
        intake.kept.drop_announced();
    }
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
        fields: intake.kept.into_fields(),
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
