//! Where things are sent and written, as words of the language: URLs without secrets, places for logs.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{LogTo, words::Misread};

/// `http://127.0.0.1:9093`
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Url(pub String);

impl FromStr for Url {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        let host = rest
            .and_then(|rest| rest.split(['/', '?', '#']).next())
            .unwrap_or_default();
        if host.contains('@') {
            return Err(Misread::new(
                "a password in a URL does not belong in this file",
                "write the URL without `user:password@`; a target with a secret is a `webhook`",
            ));
        }
        let valid = !host.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !valid {
            return Err(Misread::new(
                format!("`{text}` is not a URL"),
                "write one like `http://127.0.0.1:9093`",
            ));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl FromStr for LogTo {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        match text {
            "journal" => Ok(Self::Journal),
            "none" => Ok(Self::Nowhere),
            path if path.starts_with('/') && !path.ends_with('/') && !path.contains('\0') => {
                Ok(Self::File(PathBuf::from(path)))
            }
            _ => Err(Misread::new(
                format!("`{text}` is not a place for a log"),
                "write `journal`, `none` or a file from the root, as `/var/log/foobar/access.log`",
            )),
        }
    }
}

impl fmt::Display for LogTo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Journal => formatter.write_str("journal"),
            Self::Nowhere => formatter.write_str("none"),
        }
    }
}
