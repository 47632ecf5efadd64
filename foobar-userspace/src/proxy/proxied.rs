//! The PROXY protocol, versions 1 and 2, as a trusted sender puts it before everything else: whose connection it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What the sender says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proxied {
    /// Of this client.
    Client(SocketAddr),
    /// The sender's own, as for a health check.
    Sender,
}

/// Why a connection that had to begin with a header is not served.
#[derive(Debug, thiserror::Error)]
pub enum ProxiedError {
    #[error("the connection ended within the PROXY header")]
    Ended(#[from] std::io::Error),
    #[error("it does not begin with a PROXY header")]
    NoHeader,
    #[error("its PROXY header is malformed")]
    Malformed,
}

/// Reads the header and not a byte more.
///
/// # Errors
/// No header, or not a good one.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Proxied, ProxiedError> {
    // The shortest of either version has as many bytes or more.
    let mut start = [0; SHORTEST];
    stream.read_exact(&mut start).await?;
    if start.starts_with(&SIGNATURE) {
        read_v2(stream, start).await
    } else if start.starts_with(b"PROXY ") {
        read_v1(stream, &start).await
    } else {
        Err(ProxiedError::NoHeader)
    }
}

async fn read_v1<S: AsyncRead + Unpin>(
    stream: &mut S,
    start: &[u8],
) -> Result<Proxied, ProxiedError> {
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LONGEST_V1 {
            return Err(ProxiedError::Malformed);
        }
        line.push(stream.read_u8().await?);
    }
    parse_v1(&line).ok_or(ProxiedError::Malformed)
}

fn parse_v1(line: &[u8]) -> Option<Proxied> {
    let line = str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let mut words = line.split(' ');
    (words.next()? == "PROXY").then_some(())?;
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Proxied::Sender);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, _) = (port(words.next()?)?, port(words.next()?)?);
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => (
            source.parse::<Ipv4Addr>().ok()?.into(),
            destination.parse::<Ipv4Addr>().ok()?.into(),
        ),
        "TCP6" => (
            source.parse::<Ipv6Addr>().ok()?.into(),
            destination.parse::<Ipv6Addr>().ok()?.into(),
        ),
        _ => return None,
    };
    let _ = destination;
    words
        .next()
        .is_none()
        .then(|| Proxied::Client(SocketAddr::new(source, source_port)))
}

/// Decimal without sign or leading zero.
fn port(word: &str) -> Option<u16> {
    let plain =
        word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    plain.then(|| word.parse().ok()).flatten()
}

async fn read_v2<S: AsyncRead + Unpin>(
    stream: &mut S,
    start: [u8; SHORTEST],
) -> Result<Proxied, ProxiedError> {
    let [.., version, family, high] = start;
    let low = stream.read_u8().await?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_V2 {
        return Err(ProxiedError::Malformed);
    }
    let mut addresses = vec![0; length];
    stream.read_exact(&mut addresses).await?;
    parse_v2(version, family, &addresses).ok_or(ProxiedError::Malformed)
}

fn parse_v2(version: u8, family: u8, addresses: &[u8]) -> Option<Proxied> {
    match version {
        LOCAL => return Some(Proxied::Sender),
        PROXY => {}
        _ => return None,
    }
    match family {
        UNSPECIFIED => Some(Proxied::Sender),
        TCP4 => {
            let (source, rest) = addresses.split_first_chunk::<4>()?;
            let (_, rest) = rest.split_first_chunk::<4>()?;
            client(IpAddr::from(*source), rest)
        }
        TCP6 => {
            let (source, rest) = addresses.split_first_chunk::<16>()?;
            let (_, rest) = rest.split_first_chunk::<16>()?;
            client(IpAddr::from(*source), rest)
        }
        _ => None,
    }
}

fn client(source: IpAddr, ports: &[u8]) -> Option<Proxied> {
    let (port, rest) = ports.split_first_chunk::<2>()?;
    rest.first_chunk::<2>()?;
    let address = SocketAddr::new(source.to_canonical(), u16::from_be_bytes(*port));
    Some(Proxied::Client(address))
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// `PROXY UNKNOWN\r\n`
const SHORTEST: usize = 15;
const LONGEST_V1: usize = 107;
/// Room for every extension that is in use.
const LONGEST_V2: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> Result<(Proxied, usize), ProxiedError> {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let proxied = runtime.block_on(read(&mut rest))?;
        Ok((proxied, rest.len()))
    }

    fn of(text: &str) -> Proxied {
        Proxied::Client(text.parse().expect("an address"))
    }

    fn v2(version: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).expect("short");
        let head = [version, family];
        [
            &SIGNATURE[..],
            &head,
            &length.to_be_bytes(),
            addresses,
            b"GET",
        ]
        .concat()
    }

    #[test]
    fn the_client_is_read_and_nothing_behind_it() {
        let v1 = said(b"PROXY TCP4 192.0.2.7 10.0.0.1 51000 443\r\nGET").expect("good");
        assert_eq!(v1, (of("192.0.2.7:51000"), 3));
        let v1 = said(b"PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\nGET").expect("good");
        assert_eq!(v1, (of("[2001:db8::7]:1"), 3));
        let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0, 80, 1, 187, 4, 0, 1, 9];
        assert_eq!(
            said(&v2(0x21, 0x11, &addresses)).expect("with an extension"),
            (of("192.0.2.7:80"), 3)
        );
        let mut addresses = [0; 36];
        addresses[15] = 1;
        addresses[33] = 80;
        assert_eq!(
            said(&v2(0x21, 0x21, &addresses)).expect("good"),
            (of("[::1]:80"), 3)
        );
    }

    #[test]
    fn a_sender_s_own_connection_has_no_client() {
        assert_eq!(
            said(b"PROXY UNKNOWN\r\nGET").expect("good"),
            (Proxied::Sender, 3)
        );
        assert_eq!(
            said(b"PROXY UNKNOWN ffff::1 ::1 1 1\r\nGET").expect("good"),
            (Proxied::Sender, 3)
        );
        assert_eq!(said(&v2(0x20, 0, &[])).expect("good"), (Proxied::Sender, 3));
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.7 10.0.0.1 51000\r\nGET / HTTP/1.1",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 051000 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 443\r\n",
            b"PROXY TCP4 2001:db8::7 10.0.0.1 1 443\r\n",
            b"PROXY TCP4  192.0.2.7 10.0.0.1 1 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443 x\r\n",
            b"PROXY TCP9 192.0.2.7 10.0.0.1 1 443\r\n",
            &[b'P'; 200],
            &[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x21, 0x12, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 12]),
            &v2(0x21, 0x11, &[0; 5000]),
        ] {
            assert!(said(bad).is_err(), "{bad:?}");
        }
    }
}
