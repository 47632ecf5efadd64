//! An answer's head from a backend, which is believed no more than a client's.

use thiserror::Error;

use super::{
    Field, Limits, Version, characters, fields::Connection, head::lines, kept::Kept, length,
    meaning::Meaning,
};

/// An answer as it goes on: end-to-end fields only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response<'b> {
    pub status: u16,
    pub reason: &'b [u8],
    pub fields: Vec<Field<'b>>,
    pub body: AnswerBody,
    /// Whether the backend's connection serves again.
    pub keeps_alive: bool,
    /// Of a 101.
    pub upgrade: Option<&'b [u8]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnswerBody {
    /// None follows; a length may be said all the same (HEAD, 304).
    None {
        said: Option<u64>,
    },
    Length(u64),
    Chunked,
    UntilClose,
}

/// What is wrong with a backend's answer.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BadAnswer {
    #[error("the answer's head is too large")]
    HeadTooLarge,
    #[error("the answer's length is said twice, in two ways, or is no number")]
    Length,
    #[error("the answer's head is malformed")]
    Malformed,
    #[error("the answer is not HTTP/1.1")]
    StatusLine,
    #[error("the backend says too often that its answer is to come")]
    TooManyInterim,
    #[error("the backend switches protocols unasked")]
    UnaskedUpgrade,
}

/// The head of an answer to a request that was a HEAD or not, and asked to change protocols or not.
///
/// # Errors
///
/// Anything whose end would be doubtful.
pub fn parse_response<'b>(
    head: &'b [u8],
    limits: &Limits,
    asked: Asked,
) -> Result<Response<'b>, BadAnswer> {
    if head.len() > limits.head {
        return Err(BadAnswer::HeadTooLarge);
    }
    let mut lines = lines(head);
    let (version, status, reason) = status_line(lines.next().unwrap_or_default())?;
    let mut intake = Intake::default();
    for line in lines {
        let field = Field::parse(line).map_err(|_| BadAnswer::Malformed)?;
        intake.take(field)?;
    }
    if status == 101 && (asked != Asked::Upgrade || intake.upgrade.is_none()) {
        return Err(BadAnswer::UnaskedUpgrade);
    }
    let body = match (intake.length, intake.is_chunked) {
        (Some(_), true) => return Err(BadAnswer::Length),
        (_, true) if version == Version::Http10 => return Err(BadAnswer::Length),
        (_, _) if matches!(status, 100..=199 | 204) => AnswerBody::None { said: None },
        (said, _) if status == 304 || asked == Asked::Head => AnswerBody::None { said },
        (Some(length), false) => AnswerBody::Length(length),
        (None, true) => AnswerBody::Chunked,
        (None, false) => AnswerBody::UntilClose,
    };
    let keeps_alive = version == Version::Http11
        && !intake.connection.is_closing
        && body != AnswerBody::UntilClose
        && status != 101;
    if body != AnswerBody::Chunked {
        intake.kept.drop_announced();
    }
    intake.kept.drop_named(&intake.connection);
    Ok(Response {
        status,
        reason,
        fields: intake.kept.into_fields(),
        body,
        keeps_alive,
        upgrade: intake.upgrade.filter(|_| status == 101),
    })
}

/// What the request said that decides about the answer's body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asked {
    Head,
    Plain,
    Upgrade,
}

/// The fields of an answer that came by HTTP/2, without those of a connection, and the length that it says.
///
/// # Errors
///
/// A length that is none.
pub fn from_http2_answer<'b>(
    fields: impl Iterator<Item = Field<'b>>,
) -> Result<(Vec<Field<'b>>, Option<u64>), BadAnswer> {
    let mut intake = Intake::default();
    for field in fields {
        intake.take(field)?;
    }
    if intake.length.is_some() {
        intake.kept.drop_announced();
    }
    Ok((intake.kept.into_fields(), intake.length))
}

#[derive(Default)]
struct Intake<'b> {
    kept: Kept<'b>,
    length: Option<u64>,
    is_chunked: bool,
    connection: Connection<'b>,
    upgrade: Option<&'b [u8]>,
}

impl<'b> Intake<'b> {
    fn take(&mut self, field: Field<'b>) -> Result<(), BadAnswer> {
        match Meaning::of(field.name) {
            Meaning::ContentLength => length::content_length(&mut self.length, field.value)
                .map_err(|_| BadAnswer::Length)?,
            Meaning::TransferEncoding => {
                length::transfer_encoding(&mut self.is_chunked, field.value)
                    .map_err(|_| BadAnswer::Length)?;
            }
            Meaning::Connection => self.connection.take_answer(field.value),
            Meaning::Upgrade => self.upgrade = Some(field.value),
            Meaning::HopByHop | Meaning::Te => {}
            Meaning::Trailer => self.kept.push_announcement(field),
            _ => self.kept.push(field),
        }
        Ok(())
    }
}

fn status_line(line: &[u8]) -> Result<(Version, u16, &[u8]), BadAnswer> {
    let (version, rest) = match line.split_at_checked(9) {
        Some((b"HTTP/1.1 ", rest)) => (Version::Http11, rest),
        Some((b"HTTP/1.0 ", rest)) => (Version::Http10, rest),
        _ => return Err(BadAnswer::StatusLine),
    };
    let (code, reason) = match rest.split_at_checked(3) {
        Some((code, [])) => (code, &[][..]),
        Some((code, [b' ', reason @ ..])) => (code, reason),
        _ => return Err(BadAnswer::StatusLine),
    };
    let code = characters::decimal(code)
        .and_then(|code| u16::try_from(code).ok())
        .filter(|code| (100..=599).contains(code))
        .ok_or(BadAnswer::StatusLine)?;
    if !characters::VALUE.has_all(reason) {
        return Err(BadAnswer::StatusLine);
    }
    Ok((version, code, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: 16_384,
        fields: 100,
        target: 8_192,
    };

    fn parse(head: &str, asked: Asked) -> Result<Response<'_>, BadAnswer> {
        parse_response(head.as_bytes(), &LIMITS, asked)
    }

    #[track_caller]
    fn body(head: &str, asked: Asked) -> AnswerBody {
        parse(head, asked).unwrap().body
    }

    #[test]
    fn the_end_of_an_answer_is_certain() {
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(body(length, Asked::Plain), AnswerBody::Length(5));
        assert_eq!(
            body(length, Asked::Head),
            AnswerBody::None { said: Some(5) }
        );
        let chunked = "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(body(chunked, Asked::Plain), AnswerBody::Chunked);
        let close = "HTTP/1.1 200\r\n\r\n";
        assert_eq!(body(close, Asked::Plain), AnswerBody::UntilClose);
        assert!(!parse(close, Asked::Plain).unwrap().keeps_alive);
        let nothing = "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(body(nothing, Asked::Plain), AnswerBody::None { said: None });
    }

    #[test]
    fn an_answer_of_doubtful_end_is_bad() {
        for (head, bad) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                BadAnswer::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                BadAnswer::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                BadAnswer::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
                BadAnswer::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
                BadAnswer::Malformed,
            ),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", BadAnswer::Malformed),
            ("HTTP/2 200\r\n\r\n", BadAnswer::StatusLine),
            ("HTTP/1.1 999 OK\r\n\r\n", BadAnswer::StatusLine),
            ("HTTP/1.1 20\r\n\r\n", BadAnswer::StatusLine),
            ("ICY 200 OK\r\n\r\n", BadAnswer::StatusLine),
            (
                "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
                BadAnswer::UnaskedUpgrade,
            ),
        ] {
            assert_eq!(parse(head, Asked::Plain), Err(bad), "{head:?}");
        }
    }

    #[test]
    fn what_comes_after_a_body_is_announced_where_it_can_come() {
        for (framing, is_kept) in [
            ("Transfer-Encoding: chunked\r\n", true),
            ("Content-Length: 5\r\n", false),
            ("", false),
            (
                "Transfer-Encoding: chunked\r\nConnection: trailer\r\n",
                false,
            ),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n{framing}\r\n");
            let response = parse(&head, Asked::Plain).unwrap();
            assert_eq!(!response.fields.is_empty(), is_kept, "{framing}");
        }
    }

    #[test]
    fn fields_of_the_backend_s_connection_stay_behind() {
        let response = parse(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nServer: n\r\n\
             Content-Length: 0\r\n\r\n",
            Asked::Plain,
        )
        .unwrap();
        let names: Vec<_> = response.fields.iter().map(|field| field.name).collect();
        assert_eq!(names, [b"Server"]);
        assert!(response.keeps_alive);
    }
}
