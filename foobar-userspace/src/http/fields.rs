//! What the fields of a request's head say together.

use super::{Limits, Refusal, characters, host::is_host, kept::Kept, length, meaning::Meaning};

/// A field as it stands in a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field<'b> {
    pub name: &'b [u8],
    pub value: &'b [u8],
}

/// Taken in field by field; a contradiction is a refusal at once.
#[derive(Debug, Default)]
pub(super) struct Intake<'b> {
    /// What goes on to the backend.
    pub(super) kept: Kept<'b>,
    pub(super) cookies: Vec<&'b [u8]>,
    pub(super) host: Option<&'b [u8]>,
    pub(super) length: Option<u64>,
    pub(super) is_chunked: bool,
    pub(super) expects_continue: bool,
    pub(super) wants_trailers: bool,
    pub(super) upgrade: Option<&'b [u8]>,
    pub(super) connection: Connection<'b>,
    count: usize,
}

/// What `Connection` said.
#[derive(Debug, Default)]
pub(super) struct Connection<'b> {
    pub(super) is_closing: bool,
    pub(super) is_upgrading: bool,
    /// Fields for this neighbour only.
    pub(super) named: Vec<&'b [u8]>,
}

impl<'b> Field<'b> {
    /// A line of a head, which has neither CR nor LF at its end.
    pub(super) fn parse(line: &'b [u8]) -> Result<Self, Refusal> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Refusal::Folded);
        }
        let colon = memchr::memchr(b':', line).ok_or(Refusal::FieldName)?;
        let (name, value) = (&line[..colon], characters::trim(&line[colon + 1..]));
        if matches!(name.last(), Some(b' ' | b'\t')) {
            return Err(Refusal::SpaceBeforeColon);
        }
        if name.is_empty() || !characters::TOKEN.has_all(name) {
            return Err(Refusal::FieldName);
        }
        if !characters::VALUE.has_all(value) {
            return Err(if memchr::memchr(b'\r', value).is_some() {
                Refusal::BareLineEnd
            } else {
                Refusal::FieldValue
            });
        }
        Ok(Self { name, value })
    }

    pub(super) fn is_trailer(&self) -> bool {
        self.name.eq_ignore_ascii_case(b"trailer")
    }
}

impl<'b> Intake<'b> {
    pub(super) fn take(&mut self, field: Field<'b>, limits: &Limits) -> Result<(), Refusal> {
        self.count += 1;
        if self.count > limits.fields {
            return Err(Refusal::TooManyFields);
        }
        if memchr::memchr(b'_', field.name).is_some() {
            // Dropped: servers that make environment variables of fields take it for the one with hyphens.
            return match Meaning::of_underscored(field.name) {
                Meaning::EndToEnd
                | Meaning::EndToEndProtected
                | Meaning::HopByHop
                | Meaning::Trailer => Ok(()),
                _ => Err(Refusal::Underscore),
            };
        }
        match Meaning::of(field.name) {
            Meaning::EndToEnd | Meaning::EndToEndProtected => self.kept.push(field),
            Meaning::Cookie => self.cookies.push(field.value),
            Meaning::Host => self.host(field.value)?,
            Meaning::ContentLength => length::content_length(&mut self.length, field.value)?,
            Meaning::TransferEncoding => {
                length::transfer_encoding(&mut self.is_chunked, field.value)?;
            }
            Meaning::Connection => self.connection.take(field.value)?,
            Meaning::Upgrade => self.upgrade = Some(field.value),
            Meaning::Expect => self.expect(field.value)?,
            Meaning::Te => self.te(field.value),
            Meaning::Trailer => self.kept.push_announcement(field),
            Meaning::HopByHop | Meaning::Identity | Meaning::Via => {}
        }
        Ok(())
    }

    fn host(&mut self, value: &'b [u8]) -> Result<(), Refusal> {
        if self.host.is_some() {
            return Err(Refusal::ManyHosts);
        }
        if value.is_empty() {
            return Err(Refusal::NoHost);
        }
        if !is_host(value) {
            return Err(Refusal::BadHost);
        }
        self.host = Some(value);
        Ok(())
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::Expectation);
        }
        self.expects_continue = true;
        Ok(())
    }

    fn te(&mut self, value: &[u8]) {
        self.wants_trailers |=
            characters::list(value).any(|item| item.eq_ignore_ascii_case(b"trailers"));
    }
}

impl<'b> Connection<'b> {
    fn take(&mut self, value: &'b [u8]) -> Result<(), Refusal> {
        for option in characters::list(value) {
            if !characters::TOKEN.has_all(option) {
                return Err(Refusal::ConnectionNames);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.is_closing = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.is_upgrading = true;
            } else if !option.eq_ignore_ascii_case(b"keep-alive") {
                if !Meaning::of(option).may_be_named()
                    || !Meaning::of_underscored(option).may_be_named()
                {
                    return Err(Refusal::ConnectionNames);
                }
                self.named.push(option);
            }
        }
        Ok(())
    }

    /// Of an answer, where a name that should not be there takes nothing away.
    pub(super) fn take_answer(&mut self, value: &'b [u8]) {
        for option in characters::list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.is_closing = true;
            } else if Meaning::of(option).may_be_named() {
                self.named.push(option);
            }
        }
    }
}
