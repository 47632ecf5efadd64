//! Connections that the proxy accepted, as the kernel's table of TCP sockets has them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::Listener;
use crate::admin::api::{ConnectionKind, ConnectionLine};

/// Established connections to these endpoints; none where the kernel does not tell.
pub fn accepted(listeners: &[Listener]) -> Vec<ConnectionLine> {
    if listeners.is_empty() {
        return Vec::new();
    }
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| to_listeners(&table, listeners))
        .collect()
}

fn to_listeners(table: &str, listeners: &[Listener]) -> Vec<ConnectionLine> {
    let own = |local: SocketAddr| {
        listeners.iter().find(|listener| {
            let endpoint = listener.endpoint;
            endpoint.port() == local.port()
                && (endpoint.ip() == local.ip() || endpoint.ip().is_unspecified())
        })
    };
    table
        .lines()
        .skip(1)
        .filter_map(established)
        .filter_map(|(local, remote)| {
            let listener = own(local)?;
            Some(ConnectionLine {
                kind: ConnectionKind::Proxied,
                protocol: Some("tcp".to_owned()),
                from: remote.to_string(),
                to: local.to_string(),
                service: Some(listener.sites.clone()),
                backend: None,
                idle_seconds: None,
            })
        })
        .collect()
}

/// `  0: 0100007F:1F90 0200007F:C350 01 …`: this end, the other end.
fn established(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = endpoint(words.next()?)?;
    let remote = endpoint(words.next()?)?;
    (words.next()? == ESTABLISHED).then_some((local, remote))
}

/// Words of the address in the machine's order, the port as a number.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = address
        .as_bytes()
        .chunks(8)
        .map(|word| {
            let word = std::str::from_utf8(word).ok()?;
            Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
        })
        .collect::<Option<_>>()?;
    let address: IpAddr = match words.as_slice() {
        [word] => Ipv4Addr::from(*word).into(),
        words => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
    };
    Some(SocketAddr::new(address, port))
}

const ESTABLISHED: &str = "01";

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n\
        \x20  0: 0A7100CB:01BB 076433C6:C738 01 00000000:00000000 00:00000000\n\
        \x20  1: 0A7100CB:01BB 086433C6:C739 06 00000000:00000000 00:00000000\n\
        \x20  2: 0A7100CB:0016 086433C6:C73A 01 00000000:00000000 00:00000000\n";

    #[test]
    fn established_connections_to_a_site_are_its_own() {
        let listeners = [Listener {
            endpoint: "203.0.113.10:443".parse().expect("an endpoint"),
            sites: "l7.www".to_owned(),
        }];
        let lines = to_listeners(TABLE, &listeners);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].from, "198.51.100.7:51000");
        assert_eq!(lines[0].service.as_deref(), Some("l7.www"));
    }

    #[test]
    fn an_ipv6_endpoint_is_read_word_by_word() {
        assert_eq!(
            endpoint("B80D0120000000000000000010000000:01BB"),
            Some("[2001:db8::10]:443".parse().expect("an endpoint"))
        );
        assert_eq!(endpoint("nonsense"), None);
    }
}
