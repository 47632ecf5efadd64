//! The chunked transfer coding, read strictly.

use std::ops::Range;

use super::{
    Field, Refusal, characters,
    trailers::{MOST, Trailer, may_trail},
};

/// Where in a chunked body the reader stands.
#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    /// Lines after the last chunk, each with its CRLF.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// What the next bytes are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// So much of the body; these bytes of the input.
    Data(Range<usize>),
    /// The body is over; so many bytes of the input belonged to it.
    End(usize),
    /// So many bytes are done with; the rest says nothing before more has come.
    Incomplete(usize),
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::Size,
            trailers: Vec::new(),
        }
    }
}

impl Chunked {
    /// The next piece; what it covers is not to be given again.
    ///
    /// # Errors
    ///
    /// Anything but plain sizes, CRLF, and trailers that may be.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, Refusal> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Size => match line(rest, MAX_SIZE_LINE).ok_or(Refusal::ChunkSize)?? {
                    Some(size) => {
                        at += size.len() + 2;
                        let size = characters::hexadecimal(size).ok_or(Refusal::ChunkSize)?;
                        self.state = match size {
                            0 => State::Trailers,
                            size => State::Data(size),
                        };
                    }
                    None => return Ok(Piece::Incomplete(at)),
                },
                State::Data(left) => {
                    if rest.is_empty() {
                        return Ok(Piece::Incomplete(at));
                    }
                    let length =
                        usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    self.state = match left - length as u64 {
                        0 => State::DataEnd,
                        left => State::Data(left),
                    };
                    return Ok(Piece::Data(at..at + length));
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Piece::Incomplete(at)),
                    _ => return Err(Refusal::ChunkEnd),
                },
                State::Trailers => match line(rest, MOST).ok_or(Refusal::Trailer)?? {
                    Some(b"") => {
                        self.state = State::Done;
                        return Ok(Piece::End(at + 2));
                    }
                    Some(trailer) => {
                        at += trailer.len() + 2;
                        self.take(trailer)?;
                    }
                    None => return Ok(Piece::Incomplete(at)),
                },
                State::Done => return Ok(Piece::End(at)),
            }
        }
    }

    /// The fields after the last chunk; none of them says anything about the message, its route or its client.
    pub fn trailers(&self) -> impl Iterator<Item = Field<'_>> {
        super::head::lines(&self.trailers).filter_map(|line| Field::parse(line).ok())
    }

    /// The same as name, in lower case, and value.
    #[must_use]
    pub fn owned_trailers(&self) -> Vec<Trailer> {
        self.trailers()
            .map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()))
            .collect()
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let field = Field::parse(line)?;
        if !may_trail(field.name) {
            return Err(Refusal::Trailer);
        }
        if self.trailers.len() + line.len() + 2 > MOST {
            return Err(Refusal::Trailer);
        }
        self.trailers.extend_from_slice(line);
        self.trailers.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// The line that begins here, if its end has come; nothing when it is longer than `most`.
type Line<'b> = Option<Result<Option<&'b [u8]>, Refusal>>;

fn line(input: &[u8], most: usize) -> Line<'_> {
    let seen = &input[..input.len().min(most + 2)];
    match memchr::memchr(b'\n', seen) {
        Some(end) if end > 0 && input[end - 1] == b'\r' => Some(Ok(Some(&input[..end - 1]))),
        Some(_) => Some(Err(Refusal::BareLineEnd)),
        None if seen.len() == most + 2 => None,
        None => Some(Ok(None)),
    }
}

const MAX_SIZE_LINE: usize = 15;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::model;

    /// Body and what is left, fed in pieces of `step` bytes.
    fn decode(input: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
        let (mut chunked, mut body, mut at) = (Chunked::default(), Vec::new(), 0);
        let mut seen = 0;
        loop {
            match chunked.next(&input[at..seen])? {
                Piece::Data(range) => {
                    body.extend_from_slice(&input[at + range.start..at + range.end]);
                    at += range.end;
                }
                Piece::End(length) => return Ok(Some((body, at + length))),
                Piece::Incomplete(length) => {
                    at += length;
                    if seen == input.len() {
                        return Ok(None);
                    }
                    seen = (seen + step).min(input.len());
                }
            }
        }
    }

    #[test]
    fn chunks_make_a_body_however_they_arrive() {
        let input = b"3\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nrest";
        for step in 1..input.len() {
            assert_eq!(
                decode(input, step),
                Ok(Some((b"abc0123456789".to_vec(), input.len() - 4))),
                "{step}"
            );
        }
    }

    #[test]
    fn trailers_are_kept_apart() {
        let mut chunked = Chunked::default();
        let piece = chunked.next(b"0\r\ngrpc-status: 0\r\nX: y\r\n\r\n");
        assert_eq!(piece, Ok(Piece::End(27)));
        let names: Vec<_> = chunked
            .trailers()
            .map(|field| field.name.to_vec())
            .collect();
        assert_eq!(names, [b"grpc-status".to_vec(), b"X".to_vec()]);
    }

    #[test]
    fn everything_else_is_refused() {
        for (input, refusal) in [
            ("3;a=b\r\nabc\r\n", Refusal::ChunkSize),
            ("3 \r\nabc\r\n", Refusal::ChunkSize),
            (" 3\r\nabc\r\n", Refusal::ChunkSize),
            ("0x3\r\nabc\r\n", Refusal::ChunkSize),
            ("+3\r\nabc\r\n", Refusal::ChunkSize),
            ("-1\r\n", Refusal::ChunkSize),
            ("\r\n", Refusal::ChunkSize),
            ("1234567890abcdef1\r\n", Refusal::ChunkSize),
            ("00000000000000000000", Refusal::ChunkSize),
            ("3\nabc\r\n", Refusal::BareLineEnd),
            ("3\r\nabc\n0\r\n\r\n", Refusal::ChunkEnd),
            ("3\r\nabcd\r\n", Refusal::ChunkEnd),
            ("3\r\nabcX\r\n", Refusal::ChunkEnd),
            ("0\r\nContent-Length: 5\r\n\r\n", Refusal::Trailer),
            ("0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::Trailer),
            ("0\r\nHost: a\r\n\r\n", Refusal::Trailer),
            ("0\r\nX-Forwarded-For: a\r\n\r\n", Refusal::Trailer),
            ("0\r\nX_Forwarded_For: a\r\n\r\n", Refusal::Trailer),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", Refusal::FieldName),
            ("0\r\n folded\r\n\r\n", Refusal::Folded),
            ("0\r\na: b\n\r\n", Refusal::BareLineEnd),
        ] {
            assert_eq!(decode(input.as_bytes(), 100), Err(refusal), "{input:?}");
        }
    }

    fn nearly_chunked() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            8 => (0_usize..20).prop_map(|length| format!("{length:x}\r\n{}\r\n", "x".repeat(length))),
            2 => Just("0\r\n\r\n".to_owned()),
            1 => "[0-9a-f;+ \r\n]{0,6}",
            1 => Just("A: b\r\n".to_owned()),
        ];
        proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn the_decoder_agrees_with_the_slow_model(input in nearly_chunked(), step in 1_usize..9) {
            let mine = decode(&input, step);
            match model::chunked(&input) {
                model::Chunks::Body(body, length) => prop_assert_eq!(mine, Ok(Some((body, length)))),
                model::Chunks::Incomplete => prop_assert!(!matches!(mine, Ok(Some(_)))),
                model::Chunks::Wrong => prop_assert!(!matches!(mine, Ok(Some(_)))),
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_stand_still(input: Vec<u8>, step in 1_usize..9) {
            let _ = decode(&input, step);
        }
    }
}
