//! Whom a request is for.

use super::characters;

/// Whether it is a name, an IPv4 address or an IPv6 address in brackets, with or without a port; nothing else.
#[must_use]
pub fn is_host(authority: &[u8]) -> bool {
    let Some((host, port)) = split(authority) else {
        return false;
    };
    let port_is_right = port.is_none_or(|port| {
        port.is_empty() || characters::decimal(port).is_some_and(|port| port <= 65_535)
    });
    let host_is_right = match host {
        [b'[', address @ .., b']'] => {
            address.len() >= 2 && address.len() <= 45 && characters::IPV6.has_all(address)
        }
        name => !name.is_empty() && name.len() <= 255 && characters::NAME.has_all(name),
    };
    port_is_right && host_is_right && host != b"." && !host.starts_with(b".")
}

/// The host without its port and without the dot of a fully qualified name.
#[must_use]
pub fn bare_host(authority: &[u8]) -> &[u8] {
    let host = split(authority).map_or(authority, |(host, _)| host);
    host.strip_suffix(b".").unwrap_or(host)
}

fn split(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let from = if authority.first() == Some(&b'[') {
        memchr::memchr(b']', authority)?
    } else {
        0
    };
    match memchr::memchr(b':', &authority[from..]) {
        Some(colon) => Some((
            &authority[..from + colon],
            Some(&authority[from + colon + 1..]),
        )),
        None => Some((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for right in [
            "www.foobar.com",
            "www.foobar.com:443",
            "www.foobar.com.",
            "a_b.c",
            "10.0.0.1:80",
            "[2001:db8::1]",
            "[::1]:8443",
            "a:",
        ] {
            assert!(is_host(right.as_bytes()), "{right}");
        }
        for wrong in [
            "",
            ":80",
            "a@b",
            "user:pw@b",
            "a b",
            "a/b",
            "a:b",
            "a:99999",
            "a:80:80",
            "[::1",
            "::1",
            "[::1]x",
            "a,b",
            "a%41",
            "[]",
            ".",
            ".a",
            "a#b",
            "a?b",
            "\u{e4}",
            "[fe80::1%eth0]",
        ] {
            assert!(!is_host(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn the_bare_host_has_neither_port_nor_last_dot() {
        assert_eq!(bare_host(b"a.b.:80"), b"a.b");
        assert_eq!(bare_host(b"[::1]:80"), b"[::1]");
    }
}
