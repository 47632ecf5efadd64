//! What the name of a field says about how the proxy must treat it.

/// How the proxy treats a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Meaning {
    Connection,
    ContentLength,
    Cookie,
    /// Handed on as it is.
    EndToEnd,
    /// As [`Meaning::EndToEnd`], and no `Connection` may take it away.
    EndToEndProtected,
    Expect,
    /// Says who the client is; believed from nobody, set anew.
    Identity,
    /// Between two neighbours, and of no use to the next.
    HopByHop,
    Host,
    Te,
    /// Names what comes after the body; handed on where that is.
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
}

impl Meaning {
    /// Of a name in any case.
    pub(super) fn of(name: &[u8]) -> Self {
        let Some((first, _)) = name.split_first() else {
            return Self::EndToEnd;
        };
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match first | 0x20 {
            b'a' if is("authorization") || is("accept-encoding") => Self::EndToEndProtected,
            b'c' if is("connection") => Self::Connection,
            b'c' if is("content-length") => Self::ContentLength,
            b'c' if is("cookie") => Self::Cookie,
            b'c' if is("cache-control") || name.len() > 8 && starts(name, "content-") => {
                Self::EndToEndProtected
            }
            b'd' if is("date") => Self::EndToEndProtected,
            b'e' if is("expect") => Self::Expect,
            b'f' if is("forwarded") => Self::Identity,
            b'h' if is("host") => Self::Host,
            b'h' if is("http2-settings") => Self::HopByHop,
            b'i' if starts(name, "if-") => Self::EndToEndProtected,
            b'k' if is("keep-alive") => Self::HopByHop,
            b'l' if is("location") => Self::EndToEndProtected,
            b'o' if is("origin") => Self::EndToEndProtected,
            // `Proxy` becomes HTTP_PROXY in a CGI's environment.
            b'p' if is("proxy-connection")
                || is("proxy-authorization")
                || is("proxy-authenticate")
                || is("proxy") =>
            {
                Self::HopByHop
            }
            b'r' if is("range") || is("referer") => Self::EndToEndProtected,
            b's' if is("set-cookie") => Self::EndToEndProtected,
            b't' if is("te") => Self::Te,
            b't' if is("trailer") => Self::Trailer,
            b't' if is("transfer-encoding") => Self::TransferEncoding,
            b't' if is("true-client-ip") => Self::Identity,
            b'u' if is("upgrade") => Self::Upgrade,
            b'v' if is("via") => Self::Via,
            b'x' if starts(name, "x-forwarded-")
                || is("x-real-ip")
                || is("x-client-ip")
                || is("x-cluster-client-ip")
                || is("x-original-forwarded-for") =>
            {
                Self::Identity
            }
            _ => Self::EndToEnd,
        }
    }

    /// Of a name with underscores, which CGI and WSGI servers cannot tell from hyphens.
    pub(super) fn of_underscored(name: &[u8]) -> Self {
        let hyphens: Vec<u8> = name
            .iter()
            .map(|byte| if *byte == b'_' { b'-' } else { *byte })
            .collect();
        Self::of(&hyphens)
    }

    /// Whether `Connection` may name it: such a name makes a proxy throw away what the backend relies on.
    pub(super) fn may_be_named(self) -> bool {
        matches!(
            self,
            Self::EndToEnd | Self::HopByHop | Self::Te | Self::Trailer | Self::Upgrade
        )
    }

    /// Whether it may stand after a body: nothing that decides about the message, its route or its client.
    pub(super) fn may_trail(self) -> bool {
        self == Self::EndToEnd
    }
}

fn starts(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_the_same_in_any_case() {
        assert_eq!(Meaning::of(b"TRANSFER-encoding"), Meaning::TransferEncoding);
        assert_eq!(Meaning::of(b"x-ForWarded-anything"), Meaning::Identity);
        assert_eq!(Meaning::of(b"X-Forwarded"), Meaning::EndToEnd);
        assert_eq!(Meaning::of(b"Content-Type"), Meaning::EndToEndProtected);
        assert_eq!(Meaning::of(b""), Meaning::EndToEnd);
    }

    #[test]
    fn an_underscore_is_read_as_what_it_may_become() {
        assert_eq!(
            Meaning::of_underscored(b"Content_Length"),
            Meaning::ContentLength
        );
        assert_eq!(Meaning::of_underscored(b"my_field"), Meaning::EndToEnd);
    }
}
