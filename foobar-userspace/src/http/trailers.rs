//! Fields after a body: few, small, and none that decides about anything (RFC 9110 6.5.1).

use super::{Field, Refusal, meaning::Meaning, request::screen};

/// Name and value.
pub type Trailer = (Vec<u8>, Vec<u8>);

/// Whether a field may stand after a body: nothing that decides about the message, its route, its client, who may see
/// it or for how long, however servers spell it.
pub(super) fn may_trail(name: &[u8]) -> bool {
    let hyphens: Vec<u8> = name
        .iter()
        .map(|byte| if *byte == b'_' { b'-' } else { *byte })
        .collect();
    let is_early = EARLY
        .iter()
        .any(|early| hyphens.eq_ignore_ascii_case(early.as_bytes()));
    Meaning::of(&hyphens).may_trail() && !is_early
}

/// The fields that followed a body by HTTP/2.
///
/// # Errors
///
/// What a head would be refused for, what may not trail, and too much of it.
pub fn trailers_of_http2<'b>(
    fields: impl Iterator<Item = Field<'b>>,
) -> Result<Vec<Trailer>, Refusal> {
    let mut size = 0;
    fields
        .map(|field| {
            size += field.name.len() + field.value.len() + LINE;
            screen(field)?;
            if !may_trail(field.name) || size > MOST {
                return Err(Refusal::Trailer);
            }
            Ok((field.name.to_vec(), field.value.to_vec()))
        })
        .collect()
}

/// Without those that servers which make environment variables of fields take for others, as of a request's head.
#[must_use]
pub fn without_underscores(mut trailers: Vec<Trailer>) -> Vec<Trailer> {
    trailers.retain(|(name, _)| !name.contains(&b'_'));
    trailers
}

/// Bytes of all trailers of a message, each with colon, space and line end.
pub(super) const MOST: usize = 4096;
const LINE: usize = 4;

/// What a reader must know before the body, beside what [`Meaning`] knows.
const EARLY: &[&str] = &[
    "age",
    "expires",
    "max-forwards",
    "pragma",
    "retry-after",
    "vary",
    "warning",
    "www-authenticate",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<usize, Refusal> {
        let fields = fields.iter().map(|(name, value)| Field {
            name: name.as_bytes(),
            value: value.as_bytes(),
        });
        trailers_of_http2(fields).map(|trailers| trailers.len())
    }

    #[test]
    fn what_only_sums_up_a_body_may_follow_it() {
        let fields = [("grpc-status", "0"), ("x-sum", "7"), ("my_sum", "7")];
        assert_eq!(read(&fields), Ok(3));
        let kept = trailers_of_http2(fields.iter().map(|(name, value)| Field {
            name: name.as_bytes(),
            value: value.as_bytes(),
        }));
        assert_eq!(without_underscores(kept.unwrap()).len(), 2);
    }

    #[test]
    fn what_decides_about_a_message_may_not() {
        for name in [
            "authorization",
            "cache-control",
            "content-length",
            "content_length",
            "content-type",
            "cookie",
            "expect",
            "expires",
            "forwarded",
            "host",
            "set-cookie",
            "trailer",
            "vary",
            "www-authenticate",
            "x-forwarded-for",
            "x_forwarded_for",
        ] {
            assert_eq!(read(&[(name, "1")]), Err(Refusal::Trailer), "{name}");
        }
        assert_eq!(
            read(&[("transfer-encoding", "chunked")]),
            Err(Refusal::StrayConnectionField)
        );
        assert_eq!(read(&[("X-Sum", "7")]), Err(Refusal::FieldName));
        assert_eq!(read(&[("x-sum", "a\r\nb")]), Err(Refusal::FieldValue));
        let long = "x".repeat(MOST);
        assert_eq!(read(&[("x-sum", &long)]), Err(Refusal::Trailer));
    }
}
