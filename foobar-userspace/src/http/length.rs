//! How long a body is, said once and in one way.

use super::{Refusal, characters};

/// `Content-Length`: once, and a plain number.
pub(super) fn content_length(known: &mut Option<u64>, value: &[u8]) -> Result<(), Refusal> {
    if known.is_some() {
        return Err(Refusal::ManyLengths);
    }
    *known = Some(characters::decimal(value).ok_or(Refusal::BadLength)?);
    Ok(())
}

/// `Transfer-Encoding`: once, and `chunked` alone.
pub(super) fn transfer_encoding(is_chunked: &mut bool, value: &[u8]) -> Result<(), Refusal> {
    if *is_chunked {
        return Err(Refusal::ManyEncodings);
    }
    if !value.eq_ignore_ascii_case(b"chunked") {
        return Err(Refusal::UnknownEncoding);
    }
    *is_chunked = true;
    Ok(())
}
