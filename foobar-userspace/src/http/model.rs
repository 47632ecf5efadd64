//! The grammar once more, written to be obviously right and slow: what the real readers are compared with.

use std::sync::LazyLock;

use regex::bytes::Regex;

/// What a chunked body is.
#[derive(Debug)]
pub(crate) enum Chunks {
    /// With the length of its whole encoding.
    Body(Vec<u8>, usize),
    Incomplete,
    Wrong,
}

/// By splitting, without a state.
pub(crate) fn chunked(input: &[u8]) -> Chunks {
    let mut body = Vec::new();
    let mut rest = input;
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return Chunks::Incomplete;
        };
        let size = &rest[..end];
        let is_size = (1..=15).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
        if !is_size {
            return Chunks::Wrong;
        }
        let text = std::str::from_utf8(size).unwrap();
        let size = usize::from_str_radix(text, 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        if rest.len() < size.saturating_add(2) {
            return Chunks::Incomplete;
        }
        if &rest[size..size + 2] != b"\r\n" {
            return Chunks::Wrong;
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return Chunks::Incomplete;
        };
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if line.is_empty() {
            return Chunks::Body(body, input.len() - rest.len());
        }
        if !FIELD.is_match(line) || FORBIDDEN_TRAILER.is_match(line) {
            return Chunks::Wrong;
        }
    }
}

/// Whether RFC 9112 and our rules allow this head: line by line, by regular expressions.
pub(crate) fn allows(head: &[u8]) -> bool {
    let Some(text) = head.strip_suffix(b"\r\n\r\n") else {
        return false;
    };
    let lines: Vec<&[u8]> = split(text);
    if lines
        .iter()
        .any(|line| line.contains(&b'\n') || line.contains(&b'\r'))
    {
        return false;
    }
    let Some((first, fields)) = lines.split_first() else {
        return false;
    };
    if !REQUEST_LINE.is_match(first) || DOTS.is_match(first) || NOT_SERVED.is_match(first) {
        return false;
    }
    if !fields.iter().all(|line| FIELD.is_match(line)) {
        return false;
    }
    let of = |pattern: &Regex| fields.iter().filter(|line| pattern.is_match(line)).count();
    let hosts = of(&HOST);
    let lengths = of(&LENGTH);
    let encodings = of(&ENCODING);
    hosts == 1
        && of(&RIGHT_HOST) == 1
        && lengths + encodings <= 1
        && lengths == of(&RIGHT_LENGTH)
        && encodings == of(&RIGHT_ENCODING)
        && of(&DISGUISED) == 0
        && !(encodings == 1 && first.ends_with(b"HTTP/1.0"))
}

fn split(mut text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(end) = text.windows(2).position(|two| two == b"\r\n") {
        lines.push(&text[..end]);
        text = &text[end + 2..];
    }
    lines.push(text);
    lines
}

macro_rules! pattern {
    ($name:ident, $pattern:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).unwrap());
    };
}

pattern!(
    REQUEST_LINE,
    r"(?-u)^[A-Z_-]{1,32} /([A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]|^]|%[2-7][0-9A-Ea-e]|%[2-6][Ff]|%[89A-Fa-f][0-9A-Fa-f])*(\?[A-Za-z0-9\-._~!$&'()*+,;=:@/%?\[\]|^`{}\\]*)? HTTP/1\.[01]$"
);
pattern!(NOT_SERVED, r"(?-u)^(CONNECT|TRACE|TRACK|PRI) ");
pattern!(
    DOTS,
    r"(?-u)^[A-Z_-]+ [^? ]*(/|%2[Ff]|%5[Cc])(\.|%2[Ee]){1,2}(/|%2[Ff]|%5[Cc]|;|%3[Bb]|\?| )"
);
pattern!(
    FIELD,
    r"(?-u)^[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*$"
);
pattern!(HOST, r"(?-u)^(?i:host):");
pattern!(
    RIGHT_HOST,
    r"(?-u)^(?i:host):[ \t]*(([0-9A-Za-z_-][0-9A-Za-z_.-]*)|\[[0-9A-Fa-f:.]{2,45}\])(:([0-9]{0,4}|0*[1-5][0-9]{4}|0*6[0-4][0-9]{3}))?[ \t]*$"
);
pattern!(LENGTH, r"(?-u)^(?i:content-length):");
pattern!(
    RIGHT_LENGTH,
    r"(?-u)^(?i:content-length):[ \t]*[0-9]{1,18}[ \t]*$"
);
pattern!(ENCODING, r"(?-u)^(?i:transfer-encoding):");
pattern!(
    RIGHT_ENCODING,
    r"(?-u)^(?i:transfer-encoding):[ \t]*(?i:chunked)[ \t]*$"
);
pattern!(
    DISGUISED,
    r"(?-u)^(?i:transfer_encoding|content_length|x_forwarded[_\-].*|x-forwarded_.*):"
);
pattern!(
    FORBIDDEN_TRAILER,
    r"(?-u)^(?i:content-.*|host|transfer-encoding|x-forwarded-.*):"
);
