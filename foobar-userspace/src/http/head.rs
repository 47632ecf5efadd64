//! Where a head ends, and its lines.

use super::Refusal;

/// What a head may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole head.
    pub head: usize,
    pub fields: usize,
    /// Bytes of the target.
    pub target: usize,
}

/// Whether a whole head is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// With its empty line it is so many bytes.
    At(usize),
    /// Not yet; the next search may begin at this byte.
    Beyond(usize),
}

/// Looks for the empty line, from byte `from` on; every line must end in CRLF.
///
/// # Errors
///
/// A LF without CR.
pub fn end_of_head(bytes: &[u8], from: usize) -> Result<End, Refusal> {
    let mut at = from;
    while let Some(offset) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        let line_feed = at + offset;
        if line_feed == 0 || bytes[line_feed - 1] != b'\r' {
            return Err(Refusal::BareLineEnd);
        }
        if bytes[..line_feed - 1].ends_with(b"\r\n") {
            return Ok(End::At(line_feed + 1));
        }
        at = line_feed + 1;
    }
    Ok(End::Beyond(bytes.len().max(from)))
}

/// The lines of a head that [`end_of_head`] found, without their ends and without the empty one.
pub(super) fn lines(head: &[u8]) -> Lines<'_> {
    Lines { rest: head }
}

pub(super) struct Lines<'b> {
    rest: &'b [u8],
}

impl<'b> Iterator for Lines<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let line = &self.rest[..end.saturating_sub(1)];
        self.rest = &self.rest[end + 1..];
        (!line.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_empty_line_however_it_arrives() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        for cut in 0..text.len() {
            let mut from = 0;
            if let End::Beyond(next) = end_of_head(&text[..cut], 0).unwrap() {
                from = next;
            }
            assert_eq!(end_of_head(text, from.min(27)), Ok(End::At(27)), "{cut}");
        }
    }

    #[test]
    fn a_line_feed_alone_ends_nothing() {
        for text in ["\n", "a\n", "a\r\n\n", "a\r\nb: c\n\r\n"] {
            assert_eq!(
                end_of_head(text.as_bytes(), 0),
                Err(Refusal::BareLineEnd),
                "{text:?}"
            );
        }
    }
}
