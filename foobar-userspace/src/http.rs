//! What HTTP allows: bytes and fields into a request or a response that has one meaning only, or a refusal.
//!
//! The proxy's own HTTP/1.1 stands on this module alone, and what comes by HTTP/2 passes through the same screen. What
//! two readers could read in two ways is refused, never repaired: a proxy that repairs hands on its own reading.

mod announce;
pub mod characters;
mod chunked;
mod fields;
mod frames;
mod head;
mod host;
mod kept;
mod length;
mod meaning;
mod onward;
mod refusal;
mod request;
mod response;
mod target;
mod trailers;

#[cfg(test)]
pub(crate) mod corpus;
#[cfg(test)]
mod model;

pub use self::{
    announce::announce,
    chunked::{Chunked, Piece},
    fields::Field,
    frames::{Flood, Meter},
    head::{End, Limits, end_of_head},
    host::{bare_host, is_host},
    onward::{Answering, Forwarded, VIA, write_last_chunk, write_request, write_response},
    refusal::Refusal,
    request::{Body, Pseudo, Request, Version, from_http2, parse_request},
    response::{AnswerBody, Asked, BadAnswer, Response, from_http2_answer, parse_response},
    trailers::{Trailer, trailers_of_http2, without_underscores},
};
