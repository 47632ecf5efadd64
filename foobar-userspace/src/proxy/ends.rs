//! The two ends of an exchange towards the client, whatever protocol it speaks.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{answers::Extra, link::Link};
pub(super) use crate::http::Trailer;
use crate::http::{Field, Refusal, Response};

/// A request's body on its way in.
pub(super) trait Upload {
    /// Waits for more of it; false: it is whole.
    async fn more(&mut self) -> Result<bool, Fault>;

    /// What came and was not taken yet.
    fn bytes(&self) -> &[u8];

    /// The same for who wants to own it.
    fn take(&mut self) -> Bytes;

    /// [`Upload::bytes`] were taken.
    fn taken(&mut self);

    /// Bytes of the body so far.
    fn received(&self) -> u64;

    /// What followed the body, once it is whole.
    fn trailers(&mut self) -> Vec<Trailer>;
}

/// An answer on its way out.
pub(super) trait Download {
    /// A head that goes before the answer's own, as 103 does.
    async fn interim(&mut self, answer: &Response<'_>) -> Result<(), Fault>;

    /// The head; it may wait for the first bytes of the body.
    async fn begin(&mut self, answer: &Response<'_>, extra: &Extra<'_>) -> Result<(), Fault>;

    async fn data(&mut self, bytes: &[u8]) -> Result<(), Fault>;

    /// The answer is whole.
    async fn end(&mut self, trailers: &[Trailer]) -> Result<(), Fault>;

    /// Ready when the client went away.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Bytes in both directions after a change of protocols, until both sides are done or nothing comes for `idle`.
    async fn tunnel(&mut self, link: &mut Link, idle: Duration) -> Result<(), Fault>;

    /// Bytes of the answer so far.
    fn sent(&self) -> u64;
}

/// Fields as HTTP/2 sends them; with room for what the proxy adds. All values are in one piece of memory.
pub(super) fn header_map<'f>(
    fields: impl ExactSizeIterator<Item = (&'f [u8], &'f [u8])> + Clone,
) -> ::http::HeaderMap {
    let mut map = ::http::HeaderMap::with_capacity(fields.len() + OWN);
    let total = fields.clone().map(|(_, value)| value.len()).sum();
    let mut values = BytesMut::with_capacity(total);
    fields
        .clone()
        .for_each(|(_, value)| values.extend_from_slice(value));
    let mut values = values.freeze();
    for (name, value) in fields {
        let name = ::http::HeaderName::from_bytes(name);
        let value = ::http::HeaderValue::from_maybe_shared(values.split_to(value.len()));
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

/// The other way: fields as HTTP/2 brought them.
pub(super) fn fields_of(map: &::http::HeaderMap) -> impl Iterator<Item = Field<'_>> {
    map.iter().map(|(name, value)| Field {
        name: name.as_str().as_bytes(),
        value: value.as_bytes(),
    })
}

/// HSTS, a cookie, the length.
const OWN: usize = 3;

/// What went wrong on the client's side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    Gone,
    Refused(Refusal),
    Slow,
}

impl Fault {
    pub(super) const fn remark(self) -> &'static str {
        match self {
            Self::Gone => "client gone",
            Self::Refused(_) => "refused",
            Self::Slow => "client slow",
        }
    }
}

/// The upload of a request without a body.
#[derive(Debug)]
pub(super) enum NoUpload {}

impl Upload for NoUpload {
    async fn more(&mut self) -> Result<bool, Fault> {
        match *self {}
    }

    fn bytes(&self) -> &[u8] {
        match *self {}
    }

    fn take(&mut self) -> Bytes {
        match *self {}
    }

    fn taken(&mut self) {
        match *self {}
    }

    fn received(&self) -> u64 {
        match *self {}
    }

    fn trailers(&mut self) -> Vec<Trailer> {
        match *self {}
    }
}
