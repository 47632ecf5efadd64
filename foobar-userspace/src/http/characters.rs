//! Which byte may stand where.

/// A set of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Class([bool; 256]);

impl Class {
    const fn of(bytes: &[u8]) -> Self {
        Self([false; 256]).with(bytes)
    }

    const fn with(mut self, bytes: &[u8]) -> Self {
        let mut at = 0;
        while at < bytes.len() {
            self.0[bytes[at] as usize] = true;
            at += 1;
        }
        self
    }

    const fn with_range(mut self, first: u8, last: u8) -> Self {
        let mut byte = first as usize;
        while byte <= last as usize {
            self.0[byte] = true;
            byte += 1;
        }
        self
    }

    #[must_use]
    pub const fn has(&self, byte: u8) -> bool {
        self.0[byte as usize]
    }

    #[must_use]
    pub fn has_all(&self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| self.has(*byte))
    }
}

const LETTERS_AND_DIGITS: Class = Class::of(&[])
    .with_range(b'a', b'z')
    .with_range(b'A', b'Z')
    .with_range(b'0', b'9');

/// RFC 9110 5.6.2.
pub const TOKEN: Class = LETTERS_AND_DIGITS.with(b"!#$%&'*+-.^_`|~");

/// RFC 9110 5.5: visible characters, space, tab, and obsolete text, which is opaque.
pub const VALUE: Class = Class::of(b"\t")
    .with_range(b' ', b'~')
    .with_range(0x80, 0xff);

/// RFC 3986's pchar and `/`, and what browsers send in a path without encoding it.
pub const PATH: Class = LETTERS_AND_DIGITS
    .with(b"-._~!$&'()*+,;=:@/%")
    .with(b"[]|^");

/// The same of a query: WHATWG URL encodes control characters, space, `"`, `#`, `<` and `>` only.
pub const QUERY: Class = PATH.with(b"?`{}\\");

/// Of a registered name or an IPv4 address, as DNS and hosts files have them.
pub const NAME: Class = LETTERS_AND_DIGITS.with(b"-._");

/// Inside the brackets of an IPv6 address, without a zone.
pub const IPV6: Class = Class::of(b":.")
    .with_range(b'0', b'9')
    .with_range(b'a', b'f')
    .with_range(b'A', b'F');

pub const METHOD: Class = Class::of(b"-_").with_range(b'A', b'Z');

/// Without the spaces and tabs around it.
#[must_use]
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A number in plain decimal digits: no sign, no space, nothing that would not fit 63 bits.
#[must_use]
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 18 {
        return None;
    }
    bytes.iter().try_fold(0, |number: u64, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u64::from(byte - b'0'))
    })
}

/// A number in plain hexadecimal digits, at most fifteen of them.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 15 {
        return None;
    }
    bytes.iter().try_fold(0, |number: u64, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(number * 16 + u64::from(digit))
    })
}

/// The items of a comma-separated list, trimmed, without empty ones.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"00042"), Some(42));
        for wrong in [
            "",
            "+3",
            "-1",
            " 1",
            "1 ",
            "0x10",
            "1,1",
            "1234567890123456789",
        ] {
            assert_eq!(decimal(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(hexadecimal(b"fF"), Some(255));
        for wrong in ["", "0x1", "g", "1 ", "-1", "1234567890abcdef"] {
            assert_eq!(hexadecimal(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn space_around_a_value_is_no_part_of_it() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(list(b"a, ,b ,,c").collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    }
}
