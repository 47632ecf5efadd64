//! The corpus of requests to refuse, read from its table.

/// One request that must reach no backend.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) status: u16,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn cases() -> Vec<Case> {
    include_str!("corpus.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (title, bytes) = line.split_once(" | ").unwrap();
            let (status, name) = title.split_once(' ').unwrap();
            Case {
                name,
                status: status.parse().unwrap(),
                bytes: unescape(bytes),
            }
        })
        .collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().unwrap() {
            b'r' => bytes.push(b'\r'),
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
            }
            other => panic!("no such escape: {other}"),
        }
    }
    bytes
}
