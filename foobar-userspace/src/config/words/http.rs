//! The small words of the proxy: `16MB`, `https://…`, `header:x-user`, `503`.

use std::{fmt, str::FromStr};

use super::Misread;
use crate::config::{HashKey, RetryOn, nearest::suggest};

/// `512`, `32KB`, `16MB`: powers of 1024.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct Size(pub u64);

/// `https://…`, without credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct Url(pub String);

#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct HashedBy(pub HashKey);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct RetryCause(pub RetryOn);

impl FromStr for Size {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let misread = || {
            Misread::new(
                format!("`{text}` is not a size"),
                "write a number and a unit: `512B`, `32KB`, `16MB`, `1GB`",
            )
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let factor: u64 = match text[digits..].trim() {
            "B" => 1,
            "KB" | "KiB" | "K" | "k" => 1 << 10,
            "MB" | "MiB" | "M" => 1 << 20,
            "GB" | "GiB" | "G" => 1 << 30,
            _ => return Err(misread()),
        };
        let bytes = text[..digits]
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .filter(|bytes| *bytes <= LARGEST)
            .ok_or_else(misread)?;
        if bytes == 0 {
            return Err(Misread::new(
                "a size of nothing lets nothing through",
                "write one above zero: `32KB`",
            ));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
        match units
            .iter()
            .find(|(factor, _)| self.0.is_multiple_of(*factor))
        {
            Some((factor, unit)) => write!(formatter, "{}{unit}", self.0 / factor),
            None => write!(formatter, "{}B", self.0),
        }
    }
}

impl FromStr for Url {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let cure = "write one like `https://acme-v02.api.letsencrypt.org/directory`";
        let Some(rest) = text.strip_prefix("https://") else {
            return Err(Misread::new(
                format!("`{text}` does not begin with `https://`"),
                cure,
            ));
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let valid = !authority.is_empty()
            && !authority.contains('@')
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Misread::new(format!("`{text}` is not a URL"), cure))
        }
    }
}

impl FromStr for HashedBy {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let cure = "write `source`, `cookie:NAME` or `header:NAME`";
        let misread = || Misread::new(format!("`{text}` is nothing to hash by"), cure);
        let key = match text.split_once(':') {
            None if text == "source" => HashKey::Source,
            Some(("cookie", name)) if token(name) => HashKey::Cookie(name.to_owned()),
            Some(("header", name)) if token(name) => HashKey::Header(name.to_ascii_lowercase()),
            _ => return Err(misread()),
        };
        Ok(Self(key))
    }
}

/// RFC 9110, 5.6.2.
fn token(name: &str) -> bool {
    let extra = b"!#$%&'*+-.^_`|~";
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
}

impl fmt::Display for HashKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => formatter.write_str("source"),
            Self::Cookie(name) => write!(formatter, "cookie:{name}"),
            Self::Header(name) => write!(formatter, "header:{name}"),
        }
    }
}

impl FromStr for RetryCause {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let cause = match text {
            "connect" => RetryOn::Connect,
            "reset" => RetryOn::Reset,
            "timeout" => RetryOn::Timeout,
            "502" => RetryOn::Status(502),
            "503" => RetryOn::Status(503),
            "504" => RetryOn::Status(504),
            _ => {
                let known = ["connect", "reset", "timeout", "502", "503", "504"];
                return Err(Misread::new(
                    format!("`{text}` is no cause of a retry"),
                    suggest(text, "causes are", known),
                ));
            }
        };
        Ok(Self(cause))
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => formatter.write_str("connect"),
            Self::Reset => formatter.write_str("reset"),
            Self::Status(status) => write!(formatter, "{status}"),
            Self::Timeout => formatter.write_str("timeout"),
        }
    }
}

/// A terabyte: longer than any body that is meant.
const LARGEST: u64 = 1 << 40;
