//! The PROXY protocol, as it is said to backends that ask for it.

use std::net::{IpAddr, SocketAddr};

use crate::config::ProxyProtocol;

/// What goes before everything else on a connection.
#[must_use]
pub fn announce(version: ProxyProtocol, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (client, local) = same_family(client, local);
    match version {
        ProxyProtocol::V1 => format!(
            "PROXY {} {} {} {} {}\r\n",
            if client.is_ipv4() { "TCP4" } else { "TCP6" },
            client.ip(),
            local.ip(),
            client.port(),
            local.port()
        )
        .into_bytes(),
        ProxyProtocol::V2 => binary(client, local),
    }
}

fn binary(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    let mut addresses = Vec::new();
    for address in [client, local] {
        match address.ip() {
            IpAddr::V4(address) => addresses.extend(address.octets()),
            IpAddr::V6(address) => addresses.extend(address.octets()),
        }
    }
    addresses.extend(client.port().to_be_bytes());
    addresses.extend(local.port().to_be_bytes());
    // TCP over IPv4 or IPv6.
    header.push(if client.is_ipv4() { 0x11 } else { 0x21 });
    header.push(0);
    // 12 or 36 bytes.
    header.push(u8::try_from(addresses.len()).unwrap_or(u8::MAX));
    header.extend(addresses);
    header
}

/// Both as IPv6 where one of them is: the protocol has one family for both.
fn same_family(client: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, local) = (canonical(client), canonical(local));
    if client.is_ipv4() == local.is_ipv4() {
        return (client, local);
    }
    let six = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (six(client), six(local))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(version: ProxyProtocol, client: &str, local: &str) -> Vec<u8> {
        announce(version, client.parse().unwrap(), local.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        assert_eq!(
            said(ProxyProtocol::V1, "192.0.2.1:1234", "203.0.113.10:443"),
            b"PROXY TCP4 192.0.2.1 203.0.113.10 1234 443\r\n"
        );
        assert_eq!(
            said(ProxyProtocol::V1, "[2001:db8::1]:1", "[2001:db8::2]:2"),
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"
        );
    }

    #[test]
    fn version_2_is_binary() {
        assert_eq!(
            said(
                ProxyProtocol::V2,
                "[::ffff:192.0.2.1]:258",
                "203.0.113.10:443"
            ),
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xcb\0\x71\x0a\x01\x02\x01\xbb"
        );
        assert_eq!(
            said(ProxyProtocol::V2, "[::1]:1", "192.0.2.1:2").len(),
            16 + 36
        );
    }
}
