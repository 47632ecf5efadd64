//! Why a request is not served, and the status that says so.

use thiserror::Error;

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
pub enum Refusal {
    #[error("a line ends in LF without CR, or holds a CR of its own")]
    BareLineEnd,
    #[error("the host is not a name or an address, or has more than a port beside it")]
    BadHost,
    #[error("Content-Length is not a plain number")]
    BadLength,
    #[error("the body is larger than this site takes")]
    BodyTooLarge,
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    #[error("the size of a chunk is not a plain hexadecimal number, or has an extension")]
    ChunkSize,
    #[error("Connection names a field that is not between two neighbours only")]
    ConnectionNames,
    #[error("the body is longer or shorter than Content-Length says")]
    ContradictedLength,
    #[error("the path has a segment `.` or `..`")]
    DotSegment,
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    EncodingBeforeHttp11,
    #[error("the only expectation is 100-continue")]
    Expectation,
    #[error("the name of a field is empty or has characters that names do not have")]
    FieldName,
    #[error("the value of a field has control characters")]
    FieldValue,
    #[error("a field goes on in the next line")]
    Folded,
    #[error("the target has a fragment")]
    Fragment,
    #[error("the head is larger than this site takes")]
    HeadTooLarge,
    #[error("the target and Host name different hosts")]
    HostMismatch,
    #[error("Transfer-Encoding and Content-Length together")]
    LengthAndEncoding,
    #[error("a list of parameters stands where one value belongs")]
    ListOfValues,
    #[error("Transfer-Encoding more than once")]
    ManyEncodings,
    #[error("Host more than once")]
    ManyHosts,
    #[error("Content-Length more than once")]
    ManyLengths,
    #[error("the method is not a word in upper-case letters")]
    Method,
    #[error("this method is not served here")]
    MethodNotServed,
    #[error("no Host")]
    NoHost,
    #[error("a pseudo-header is missing, unknown, or does not belong here")]
    PseudoField,
    #[error("the request line is not method, target and version, each after one space")]
    RequestLine,
    #[error("the target is for another scheme")]
    Scheme,
    #[error("space before the colon of a field")]
    SpaceBeforeColon,
    #[error("a field of a connection that HTTP/2 does not have")]
    StrayConnectionField,
    #[error("the target has characters that belong percent-encoded, or is none")]
    Target,
    #[error("the target is longer than this site takes")]
    TargetTooLong,
    #[error("more fields than this site takes")]
    TooManyFields,
    #[error("a trailer is malformed, too long, or does not belong after a body")]
    Trailer,
    #[error("an underscore makes a field look like one that decides about the message")]
    Underscore,
    #[error("a transfer coding other than chunked")]
    UnknownEncoding,
    #[error("an upgrade with a body, or followed by bytes before the answer")]
    Upgrade,
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
}

impl Refusal {
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BodyTooLarge => 413,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::MethodNotServed => 405,
            Self::TargetTooLong => 414,
            Self::UnknownEncoding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }
}
