//! The small words of the language (`10m`, `20k/s`, `tcp/22`, `public:80`), read and written.

mod http;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;

pub(super) use self::http::{HashedBy, RetryCause, Size, Url};
use super::{Peer, PortRange, TcpFlags, Traffic, nearest::suggest};

/// Why a word cannot be read, and what to write instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}; {cure}")]
pub struct Misread {
    pub message: String,
    pub cure: String,
}

/// `10m`, `1s`, `100ms`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Period(pub Duration);

/// `1s`, or `never`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lease(pub Option<Duration>);

/// `100/s`, `20k/s`, `6/m`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Rate {
    pub packets: u64,
    pub period: Duration,
}

/// An address of a host: no port, no prefix length, usable on a wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct HostAddress(pub IpAddr);

/// An address or a prefix, as in a set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Element(pub IpNet);

/// `public:443`, `private:3306`, `203.0.113.10:8080`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Endpoint {
    Public(NonZeroU16),
    Private(NonZeroU16),
    Literal(SocketAddr),
}

/// `from` and `to` as written: the name of a host is not resolved yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum WrittenPeer {
    Prefix(IpNet),
    Set(String),
    Host(String),
}

/// `web1:3306`
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Member {
    pub host: String,
    pub port: NonZeroU16,
}

/// Name of a network device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Device(pub String);

/// Name of a rule, a set, a service, …
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Label(pub String);

/// A path that a request may ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct UrlPath(pub String);

/// A path of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct FilePath(pub String);

/// A name in the DNS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct DnsName(pub String);

impl Misread {
    pub(super) fn new(message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            cure: cure.into(),
        }
    }
}

impl FromStr for Period {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let misread = || {
            let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let cure = if bare {
                format!("add the unit: `{text}s`, `{text}ms`, `{text}m`")
            } else {
                "write a number and a unit: `100ms`, `2s`, `10m`, `1h`, `1d`".to_owned()
            };
            Misread::new(format!("`{text}` is not a duration"), cure)
        };
        let duration = humantime::parse_duration(text).map_err(|_| misread())?;
        if duration.is_zero() {
            return Err(Misread::new(
                "a duration of nothing",
                "write one longer than zero: `100ms`, `2s`, `10m`",
            ));
        }
        if duration > LONGEST {
            return Err(Misread::new(
                format!("`{text}` is more than ten years"),
                "write a shorter one, or leave it out if it shall never end",
            ));
        }
        Ok(Self(duration))
    }
}

impl FromStr for Lease {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        if text == "never" {
            return Ok(Self(None));
        }
        text.parse().map(|Period(lease)| Self(Some(lease)))
    }
}

impl FromStr for Rate {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let misread = || {
            Misread::new(
                format!("`{text}` is not a rate"),
                "write packets per second, minute, hour or day: `100/s`, `20k/s`, `6/m`",
            )
        };
        let (number, unit) = text.split_once('/').ok_or_else(misread)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(misread()),
        };
        let (digits, factor) = match number.trim() {
            number if number.ends_with(['k', 'K']) => (&number[..number.len() - 1], 1_000),
            number if number.ends_with('M') => (&number[..number.len() - 1], 1_000_000),
            number => (number, 1),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(misread());
        }
        let packets = digits
            .parse::<u64>()
            .ok()
            .and_then(|packets| packets.checked_mul(factor))
            .ok_or_else(misread)?;
        if packets == 0 {
            return Err(Misread::new(
                "a rate of nothing lets nothing through",
                "write a rate above zero, or a rule with `drop`",
            ));
        }
        if packets > seconds * FASTEST {
            return Err(Misread::new(
                format!("`{text}` is more than {FASTEST} packets a second"),
                "write a lower rate, or no limit",
            ));
        }
        let period = Duration::from_secs(seconds);
        Ok(Self { packets, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "m",
            3_600 => "h",
            _ => "d",
        };
        write!(formatter, "{}/{unit}", self.packets)
    }
}

impl FromStr for HostAddress {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let address: IpAddr = text.parse().map_err(|_| not_an_address(text))?;
        match unusable(address) {
            Some(why) => Err(Misread::new(
                format!("`{text}` {why}"),
                "write an address that other machines reach this host at",
            )),
            None => Ok(Self(address)),
        }
    }
}

fn not_an_address(text: &str) -> Misread {
    let message = format!("`{text}` is not an IP address");
    if let Ok(prefix) = text.parse::<IpNet>() {
        return Misread::new(
            message,
            format!("write it without the prefix length: `{}`", prefix.addr()),
        );
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Misread::new(
            message,
            format!("write it without the port: `{}`", socket.ip()),
        );
    }
    Misread::new(
        message,
        "write one like `203.0.113.10` or `2001:db8::10`; names are not resolved here",
    )
}

fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("is no host's address"),
        _ if address.is_multicast() => Some("is a multicast group"),
        _ if address.is_loopback() => Some("is reached by its own host only"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("is an IPv4 address in disguise"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("is valid on one link only"),
        _ => None,
    }
}

impl FromStr for Element {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let misread = || {
            Misread::new(
                format!("`{text}` is neither an address nor a prefix"),
                "write one like `198.51.100.7`, `198.51.100.0/24` or `2001:db8::/32`",
            )
        };
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| misread())?,
        };
        if matches!(net, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some()) {
            return Err(Misread::new(
                format!("`{text}` is an IPv4 address in disguise"),
                "write the IPv4 address itself",
            ));
        }
        if net.trunc() != net {
            return Err(Misread::new(
                format!("`{text}` has bits set behind its prefix length"),
                format!("write `{}` or `{}`", net.trunc(), net.addr()),
            ));
        }
        Ok(Self(net))
    }
}

impl FromStr for Endpoint {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let misread = |message: String| {
            Misread::new(
                message,
                "write `public:443`, `private:443`, `203.0.113.10:443` or `[2001:db8::10]:443`",
            )
        };
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return match NonZeroU16::new(socket.port()) {
                Some(_) => Ok(Self::Literal(socket)),
                None => Err(misread("port 0 cannot be connected to".to_owned())),
            };
        }
        let (place, port) = text
            .rsplit_once(':')
            .ok_or_else(|| misread(format!("`{text}` has no port")))?;
        let port = port_number(port)?;
        match place {
            "public" => Ok(Self::Public(port)),
            "private" => Ok(Self::Private(port)),
            _ if place.contains(':') && !place.starts_with('[') => Err(Misread::new(
                format!("an IPv6 address and its port need brackets: `{text}`"),
                "write `[2001:db8::10]:443`",
            )),
            _ => Err(Misread::new(
                format!("`{place}` is neither `public`, `private` nor an address"),
                suggest(place, "it may be", ["public", "private"]),
            )),
        }
    }
}

fn port_number(text: &str) -> Result<NonZeroU16, Misread> {
    text.parse::<NonZeroU16>().map_err(|_| no_port(text))
}

fn no_port(text: &str) -> Misread {
    let cure = match KNOWN_PORTS.iter().find(|(name, _)| *name == text) {
        Some((_, port)) => format!("ports are numbers: write {port}"),
        None => "ports are numbers from 1 to 65535".to_owned(),
    };
    Misread::new(format!("`{text}` is not a port"), cure)
}

impl FromStr for Member {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| {
            Misread::new(
                format!("`{text}` has no port"),
                format!("write the host and its port: `{text}:3306`"),
            )
        })?;
        Ok(Self {
            host: host.to_owned(),
            port: port_number(port)?,
        })
    }
}

impl FromStr for WrittenPeer {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        if let Some(set) = text.strip_prefix('@') {
            return Ok(Self::Set(set.to_owned()));
        }
        let like_an_address = text.contains([':', '/'])
            || text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
        if like_an_address {
            return text.parse().map(|Element(net)| Self::Prefix(net));
        }
        Ok(Self::Host(text.to_owned()))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(formatter, "{}", net.addr())
            }
            Self::Prefix(net) => write!(formatter, "{net}"),
            Self::Set(name) => write!(formatter, "@{name}"),
        }
    }
}

impl FromStr for PortRange {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| no_port(text));
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(Misread::new(
                format!("the range `{text}` is empty"),
                format!("write the lower port first: `{last}-{first}`"),
            ));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for Traffic {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let (protocol, rest) = match text.split_once('/') {
            Some((protocol, rest)) => (protocol, Some(rest)),
            None => (text, None),
        };
        match (protocol, rest) {
            ("any", None) => Ok(Self::Any),
            ("tcp", None) => Ok(Self::Tcp(PortRange::ANY)),
            ("udp", None) => Ok(Self::Udp(PortRange::ANY)),
            ("tcp", Some(ports)) => Ok(Self::Tcp(ports_of(protocol, ports)?)),
            ("udp", Some(ports)) => Ok(Self::Udp(ports_of(protocol, ports)?)),
            ("icmp", rest) => {
                icmp(protocol, rest, &ICMP).map(|(kind, code)| Self::Icmp(kind, code))
            }
            ("icmp6", rest) => {
                icmp(protocol, rest, &ICMP6).map(|(kind, code)| Self::Icmp6(kind, code))
            }
            ("proto", Some(number)) => number.parse::<u8>().map(Self::of_protocol).map_err(|_| {
                Misread::new(
                    format!("`{number}` is not an IP protocol's number"),
                    "write a number from 0 to 255, as `proto/47` for GRE",
                )
            }),
            (name, None) => PROTOCOLS
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, number)| Self::Protocol(*number))
                .ok_or_else(|| unknown_traffic(text, name)),
            (name, Some(_)) => Err(unknown_traffic(text, name)),
        }
    }
}

impl Traffic {
    /// One spelling of each thing: `proto/6` is `tcp`.
    fn of_protocol(number: u8) -> Self {
        match number {
            1 => Self::Icmp(None, None),
            6 => Self::Tcp(PortRange::ANY),
            17 => Self::Udp(PortRange::ANY),
            58 => Self::Icmp6(None, None),
            _ => Self::Protocol(number),
        }
    }
}

fn ports_of(protocol: &str, ports: &str) -> Result<PortRange, Misread> {
    ports.parse().map_err(|misread: Misread| Misread {
        cure: match KNOWN_PORTS.iter().find(|(name, _)| *name == ports) {
            Some((_, port)) => format!("ports are numbers: write `{protocol}/{port}`"),
            None => misread.cure,
        },
        ..misread
    })
}

fn unknown_traffic(text: &str, protocol: &str) -> Misread {
    let message = format!("`{text}` is no kind of traffic");
    let known = ["any", "tcp", "udp", "icmp", "icmp6", "proto"]
        .into_iter()
        .chain(PROTOCOLS.iter().map(|(name, _)| *name));
    let cure = match (
        protocol,
        KNOWN_PORTS.iter().find(|(name, _)| *name == protocol),
    ) {
        ("icmpv6" | "icmp-v6" | "ipv6-icmp", _) => "did you mean `icmp6`?".to_owned(),
        ("ping", _) => "write `icmp/echo-request` and `icmp6/echo-request`".to_owned(),
        (_, Some((_, port))) => format!("write the protocol and the port: `tcp/{port}`"),
        _ if protocol.parse::<u16>().is_ok() => {
            format!("write the protocol too: `tcp/{protocol}` or `udp/{protocol}`")
        }
        _ => suggest(protocol, "it begins with one of", known),
    };
    Misread::new(message, cure)
}

type IcmpFields = (Option<u8>, Option<u8>);

fn icmp(protocol: &str, rest: Option<&str>, names: &[(&str, u8)]) -> Result<IcmpFields, Misread> {
    let Some(rest) = rest else {
        return Ok((None, None));
    };
    let (kind, code) = match rest.split_once('/') {
        Some((kind, code)) => (kind, Some(code)),
        None => (rest, None),
    };
    let number = names
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, number)| *number)
        .or_else(|| kind.parse().ok())
        .ok_or_else(|| {
            let other = if protocol == "icmp" {
                &ICMP6[..]
            } else {
                &ICMP[..]
            };
            let cure = if other.iter().any(|(name, _)| *name == kind) {
                let other = if protocol == "icmp" { "icmp6" } else { "icmp" };
                format!("that is a type of `{other}`: write `{other}/{kind}`")
            } else {
                suggest(
                    kind,
                    "types are numbers or",
                    names.iter().map(|(name, _)| *name),
                )
            };
            Misread::new(format!("`{kind}` is not a type of {protocol}"), cure)
        })?;
    let code = code
        .map(|code| {
            code.parse().map_err(|_| {
                Misread::new(
                    format!("`{code}` is not a code of {protocol}"),
                    format!("codes are numbers from 0 to 255: `{protocol}/{kind}/4`"),
                )
            })
        })
        .transpose()?;
    Ok((Some(number), code))
}

impl fmt::Display for Traffic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = |formatter: &mut fmt::Formatter<'_>, name: &str, ports: PortRange| {
            if ports == PortRange::ANY {
                formatter.write_str(name)
            } else {
                write!(formatter, "{name}/{ports}")
            }
        };
        match *self {
            Self::Any => formatter.write_str("any"),
            Self::Tcp(range) => ports(formatter, "tcp", range),
            Self::Udp(range) => ports(formatter, "udp", range),
            Self::Icmp(kind, code) => write_icmp(formatter, "icmp", (kind, code), &ICMP),
            Self::Icmp6(kind, code) => write_icmp(formatter, "icmp6", (kind, code), &ICMP6),
            Self::Protocol(number) => match PROTOCOLS.iter().find(|(_, known)| *known == number) {
                Some((name, _)) => formatter.write_str(name),
                None => write!(formatter, "proto/{number}"),
            },
        }
    }
}

fn write_icmp(
    formatter: &mut fmt::Formatter<'_>,
    protocol: &str,
    (kind, code): IcmpFields,
    names: &[(&str, u8)],
) -> fmt::Result {
    formatter.write_str(protocol)?;
    if let Some(kind) = kind {
        match names.iter().find(|(_, number)| *number == kind) {
            Some((name, _)) => write!(formatter, "/{name}")?,
            None => write!(formatter, "/{kind}")?,
        }
        if let Some(code) = code {
            write!(formatter, "/{code}")?;
        }
    }
    Ok(())
}

impl FromStr for TcpFlags {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let mut flags = Self { mask: 0, value: 0 };
        for word in text.split(',').map(str::trim) {
            let (name, set) = match word.strip_prefix('!') {
                Some(name) => (name, false),
                None => (word, true),
            };
            let (_, bit) = FLAGS
                .iter()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| {
                    let known = FLAGS.iter().map(|(name, _)| *name);
                    Misread::new(
                        format!("`{name}` is not a TCP flag"),
                        suggest(name, "flags are", known),
                    )
                })?;
            if flags.mask & bit != 0 {
                return Err(Misread::new(
                    format!("`{name}` stands twice in `{text}`"),
                    "name every flag once: `syn,!ack`",
                ));
            }
            flags.mask |= bit;
            flags.value |= if set { *bit } else { 0 };
        }
        Ok(flags)
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, bit) in FLAGS.iter().filter(|(_, bit)| self.mask & bit != 0) {
            let not = if self.value & bit == 0 { "!" } else { "" };
            write!(formatter, "{separator}{not}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl FromStr for Device {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        // What the kernel's dev_valid_name() accepts.
        let valid = !text.is_empty()
            && text.len() < 16
            && !matches!(text, "." | "..")
            && !text
                .contains(|letter: char| letter == '/' || letter == ':' || letter.is_whitespace());
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Misread::new(
                format!("`{text}` cannot be the name of a network device"),
                "write one that `ip link` shows, of at most 15 bytes: `eth0`",
            ))
        }
    }
}

impl FromStr for Label {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let mut letters = text.chars();
        let valid = text.len() <= LONGEST_NAME
            && letters
                .next()
                .is_some_and(|first| first.is_ascii_alphanumeric())
            && letters.all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Misread::new(
                format!("`{text}` cannot be a name"),
                format!(
                    "names begin with a letter or a digit and go on with letters, digits, `-`, `_`, `.`; at most {LONGEST_NAME}"
                ),
            ))
        }
    }
}

impl FromStr for UrlPath {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let valid = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Misread::new(
                format!("`{text}` is not the path of a request"),
                "begin it with `/` and encode blanks: `/healthz`",
            ))
        }
    }
}

impl FromStr for FilePath {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        if text.is_empty() || text.contains('\0') {
            return Err(Misread::new(
                "this is not the path of a file",
                "write one like `/etc/foobar/blocklist.txt`",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for DnsName {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let labels = |name: &str| {
            name.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && !label.starts_with('-')
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            })
        };
        let name = text.strip_prefix("*.").unwrap_or(text);
        if text.len() <= 253 && labels(name) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Misread::new(
                format!("`{text}` is not a name in the DNS"),
                "write it without scheme and port: `www.foobar.com`",
            ))
        }
    }
}

/// Longer than any timeout that is meant.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// A nanosecond between packets.
const FASTEST: u64 = 1_000_000_000;

/// `policy/rule` and `l4.service host:port address` must fit a label of the kernel's tables.
const LONGEST_NAME: usize = 32;

const FLAGS: [(&str, u8); 6] = [
    ("fin", 1),
    ("syn", 2),
    ("rst", 4),
    ("psh", 8),
    ("ack", 16),
    ("urg", 32),
];

const PROTOCOLS: [(&str, u8); 8] = [
    ("igmp", 2),
    ("ipip", 4),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ospf", 89),
    ("vrrp", 112),
    ("sctp", 132),
];

const ICMP: [(&str, u8); 11] = [
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
];

const ICMP6: [(&str, u8); 15] = [
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("listener-query", 130),
    ("listener-report", 131),
    ("listener-done", 132),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbour-solicitation", 135),
    ("neighbour-advertisement", 136),
    ("redirect", 137),
    ("listener-report-v2", 143),
];

/// For the cure only: the language has no names of ports.
const KNOWN_PORTS: [(&str, u16); 10] = [
    ("ssh", 22),
    ("smtp", 25),
    ("dns", 53),
    ("domain", 53),
    ("http", 80),
    ("ntp", 123),
    ("https", 443),
    ("mysql", 3306),
    ("postgres", 5432),
    ("redis", 6379),
];
