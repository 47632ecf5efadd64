//! What a request asks for: a path and a query, in one form only.

use super::{Refusal, characters};

/// A target taken apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Target<'b> {
    /// Path and query, or `*`.
    pub(super) path: &'b [u8],
    /// Of a target in absolute form: whether it says https, and its host.
    pub(super) absolute: Option<(Scheme, &'b [u8])>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl<'b> Target<'b> {
    pub(super) fn parse(target: &'b [u8], method: &[u8]) -> Result<Self, Refusal> {
        if target == b"*" {
            return if method == b"OPTIONS" {
                Ok(Self {
                    path: target,
                    absolute: None,
                })
            } else {
                Err(Refusal::Target)
            };
        }
        let (path, absolute) = if target.first() == Some(&b'/') {
            (target, None)
        } else {
            let (scheme, rest) = Scheme::strip(target).ok_or(Refusal::Target)?;
            let slash = memchr::memchr(b'/', rest).ok_or(Refusal::Target)?;
            let (host, path) = rest.split_at(slash);
            (path, Some((scheme, host)))
        };
        check(path)?;
        Ok(Self { path, absolute })
    }
}

impl Scheme {
    fn strip(target: &[u8]) -> Option<(Self, &[u8])> {
        [(Self::Http, "http://"), (Self::Https, "https://")]
            .into_iter()
            .find_map(|(scheme, prefix)| {
                let (start, rest) = target.split_at_checked(prefix.len())?;
                start
                    .eq_ignore_ascii_case(prefix.as_bytes())
                    .then_some((scheme, rest))
            })
    }
}

/// A path and its query, as they go on: nothing in them may become another path on the way.
fn check(target: &[u8]) -> Result<(), Refusal> {
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(mark) => (&target[..mark], &target[mark + 1..]),
        None => (target, &[][..]),
    };
    if let Some(wrong) = path.iter().find(|byte| !characters::PATH.has(**byte)) {
        return Err(stray(*wrong));
    }
    if let Some(wrong) = query.iter().find(|byte| !characters::QUERY.has(**byte)) {
        return Err(stray(*wrong));
    }
    if memchr::memchr2(b'.', b'%', path).is_some() {
        path.split(|byte| *byte == b'/').try_for_each(segment)?;
    }
    Ok(())
}

const fn stray(byte: u8) -> Refusal {
    match byte {
        b'#' => Refusal::Fragment,
        _ => Refusal::Target,
    }
}

/// A segment must not be a step to the same or the upper level, in whatever encoding, nor hold an encoded control
/// character.
fn segment(segment: &[u8]) -> Result<(), Refusal> {
    let mut rest = segment;
    let (mut dots, mut others) = (0_usize, 0_usize);
    while let [byte, after @ ..] = rest {
        let (decoded, after) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let byte = characters::hexadecimal(&[*high, *low]).ok_or(Refusal::Target)?;
                (byte, after)
            }
            (b'%', _) => return Err(Refusal::Target),
            (byte, after) => (u64::from(*byte), after),
        };
        match decoded {
            0..=0x1f | 0x7f => return Err(Refusal::Target),
            0x2e => dots += 1,
            // An encoded slash or backslash ends a segment for who decodes before he splits.
            0x2f | 0x5c => {
                if others == 0 && (dots == 1 || dots == 2) {
                    return Err(Refusal::DotSegment);
                }
                (dots, others) = (0, 0);
            }
            _ => others += 1,
        }
        // `..;x` is `..` to servlet containers.
        if decoded == u64::from(b';') && others == 1 && (dots == 1 || dots == 2) {
            return Err(Refusal::DotSegment);
        }
        rest = after;
    }
    if others == 0 && (dots == 1 || dots == 2) {
        return Err(Refusal::DotSegment);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> Result<(), Refusal> {
        Target::parse(target.as_bytes(), b"GET").map(drop)
    }

    #[test]
    fn what_browsers_send_is_served() {
        for right in [
            "/",
            "/a/b.c?d=e&f",
            "/a..b/...",
            "/%41%2f",
            "/?q=%",
            "/?a={b}|c\\",
            "//a",
            "/~u/;p=1",
            "/a?/../",
            "/.well-known/x",
        ] {
            assert_eq!(get(right), Ok(()), "{right}");
        }
    }

    #[test]
    fn steps_upwards_are_refused_in_every_spelling() {
        for wrong in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/",
            "/.%2E",
            "/a/..%2fb",
            "/a%2f..",
            "/..;a/b",
            "/a/..?q",
            "/..%5cb",
        ] {
            assert_eq!(get(wrong), Err(Refusal::DotSegment), "{wrong}");
        }
    }

    #[test]
    fn what_belongs_encoded_is_refused() {
        for wrong in [
            "/a b", "/\u{e4}", "/a\"", "/<", "/a\\b", "/%", "/%4", "/%zz", "/%00", "/%0a",
            "/a\u{7f}", "a", "*", "", "ftp://a/", "http://a",
        ] {
            assert_eq!(get(wrong), Err(Refusal::Target), "{wrong}");
        }
        assert_eq!(get("/a#b"), Err(Refusal::Fragment));
        assert_eq!(get("/a?b#c"), Err(Refusal::Fragment));
    }

    #[test]
    fn the_absolute_form_is_taken_apart() {
        let target = Target::parse(b"HTTPS://a:1/b?c", b"GET").unwrap();
        assert_eq!(target.path, b"/b?c");
        assert_eq!(target.absolute, Some((Scheme::Https, &b"a:1"[..])));
    }
}
