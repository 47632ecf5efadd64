//! One attempt over a stream of a connection that speaks HTTP/2.

use std::{
    cell::Cell,
    future::{Future as _, poll_fn},
    pin::Pin,
    task::Poll,
    time::Instant,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};

use super::{
    ends::{Download, Fault, Trailer, Upload, fields_of, header_map},
    exchange::{Answered, Attempt, Trouble, beside},
    over_http1::MOST_INTERIM,
};
use crate::{
    http::{
        AnswerBody, Asked, BadAnswer, Forwarded, Request, Response, VIA, from_http2_answer,
        trailers_of_http2,
    },
    tally::BackendCell,
};

/// Sends the request and brings the answer to the client.
pub(super) async fn run<U: Upload, D: Download>(
    attempt: &Attempt<'_>,
    upload: &mut Option<U>,
    download: &mut D,
) -> Result<Answered, Trouble> {
    let was_open = attempt.visit.backend.streams.present().is_some();
    let result = Box::pin(attend(attempt, upload, download)).await;
    match result {
        Err(Trouble::Lost) => Box::pin(second_look(attempt, was_open, upload, download)).await,
        // Others used the connection before: it was at its end, and a new one will do.
        Err(Trouble::Unheeded) if was_open => Box::pin(attend(attempt, upload, download)).await,
        result => result,
    }
}

/// As over HTTP/1.1: a new connection tells whether the backend died, and takes the request once more if the old one may
/// have been at its end anyway.
async fn second_look<U: Upload, D: Download>(
    attempt: &Attempt<'_>,
    was_open: bool,
    upload: &mut Option<U>,
    download: &mut D,
) -> Result<Answered, Trouble> {
    attempt.visit.backend.streams.forget();
    if sender(attempt).await.is_err() {
        return Err(Trouble::Died);
    }
    if !was_open || !attempt.asked.is_idempotent || upload.is_some() {
        return Err(Trouble::Lost);
    }
    attend(attempt, upload, download).await
}

async fn attend<U: Upload, D: Download>(
    attempt: &Attempt<'_>,
    upload: &mut Option<U>,
    download: &mut D,
) -> Result<Answered, Trouble> {
    attempt.watch.set(attempt.deadline);
    let mut sender = sender(attempt).await?;
    let mut request = ::http::Request::new(());
    if let Some(parts) = &attempt.asked.parts {
        request = parts.clone();
    }
    let taken = Cell::new(false);
    let sent = sender.send_request(request, upload.is_none());
    let (response, stream) = sent.map_err(|error| lost(attempt, &error, &taken))?;
    let Some(upload) = upload else {
        let status = answer(attempt, response, download, &taken).await?;
        return Ok(Answered {
            status,
            is_whole: true,
        });
    };
    let sending = send_body(attempt, stream, upload, &taken);
    let answering = answer(attempt, response, download, &taken);
    let (result, is_whole) = beside(sending, answering).await;
    Ok(Answered {
        status: result?,
        is_whole,
    })
}

/// A connection that takes one more stream.
async fn sender(attempt: &Attempt<'_>) -> Result<SendRequest<Bytes>, Trouble> {
    let backend = &attempt.visit.backend;
    if let Some(sender) = backend.streams.present() {
        match attempt.watch.bound(sender.ready()).await {
            Ok(Ok(sender)) => return Ok(sender),
            Ok(Err(_)) => backend.streams.forget(),
            Err(_) => return Err(Trouble::Timeout),
        }
    }
    let tally = &attempt.worker.shared.tally;
    tally.add_to_backend(backend.spec.id, BackendCell::Connects, 1);
    let timeout = attempt.asked.bench.site.service.timeouts.connect;
    let connecting = backend.streams.connect(&backend.spec);
    if let Ok(Ok(sender)) = tokio::time::timeout(timeout, connecting).await
        && let Ok(Ok(sender)) = attempt.watch.bound(sender.ready()).await
    {
        return Ok(sender);
    }
    attempt.no_connection();
    Err(Trouble::NoConnection)
}

async fn send_body<U: Upload>(
    attempt: &Attempt<'_>,
    mut stream: SendStream<Bytes>,
    upload: &mut U,
    taken: &Cell<bool>,
) -> Result<(), Trouble> {
    while upload.more().await.map_err(Trouble::Client)? {
        taken.set(true);
        let mut bytes = upload.take();
        while !bytes.is_empty() {
            stream.reserve_capacity(bytes.len());
            let room = poll_fn(|context| match stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(room))) => Poll::Ready(Ok(room)),
                Poll::Ready(_) => Poll::Ready(Err(Trouble::Lost)),
                Poll::Pending => attempt.watch.poll(context).map(|_| Err(Trouble::Timeout)),
            })
            .await?;
            let piece = bytes.split_to(room.min(bytes.len()));
            stream.send_data(piece, false).map_err(|_| Trouble::Lost)?;
        }
        let timeouts = &attempt.asked.bench.site.service.timeouts;
        attempt.watch.set(Instant::now() + timeouts.attempt);
    }
    let tally = &attempt.worker.shared.tally;
    let id = attempt.visit.backend.spec.id;
    tally.add_to_backend(id, BackendCell::BytesIn, upload.received());
    let trailers = upload.trailers();
    let sent = if trailers.is_empty() {
        stream.send_data(Bytes::new(), true)
    } else {
        let fields = trailers.iter();
        stream.send_trailers(header_map(
            fields.map(|(name, value)| (&name[..], &value[..])),
        ))
    };
    sent.map_err(|_| Trouble::Lost)
}

async fn answer<D: Download>(
    attempt: &Attempt<'_>,
    mut response: ResponseFuture,
    download: &mut D,
    taken: &Cell<bool>,
) -> Result<u16, Trouble> {
    let began = Instant::now();
    let response = head(attempt, &mut response, download, taken).await?;
    let now = Instant::now();
    let (parts, mut body) = response.into_parts();
    let status = parts.status.as_u16();
    attempt.judge(status, now.saturating_duration_since(began), now);
    if attempt.asks_again(status) {
        return Err(Trouble::Status(status));
    }
    let fields = fields_of(&parts.headers);
    let (fields, length) = from_http2_answer(fields).map_err(Trouble::Bad)?;
    let head = Response {
        status,
        reason: b"",
        fields,
        body: match length {
            said if body.is_end_stream() || attempt.asked.kind == Asked::Head => {
                AnswerBody::None { said }
            }
            Some(length) => AnswerBody::Length(length),
            None => AnswerBody::Chunked,
        },
        keeps_alive: true,
        upgrade: None,
    };
    if status == 101 {
        return Err(Trouble::Bad(BadAnswer::UnaskedUpgrade));
    }
    download
        .begin(&head, &attempt.extra())
        .await
        .map_err(Trouble::Client)?;
    let trailers = pass(attempt, &mut body, download).await?;
    download.end(&trailers).await.map_err(Trouble::Client)?;
    Ok(status)
}

/// Waits for a final head; others go before it.
async fn head<D: Download>(
    attempt: &Attempt<'_>,
    response: &mut ResponseFuture,
    download: &mut D,
    taken: &Cell<bool>,
) -> Result<::http::Response<RecvStream>, Trouble> {
    for _ in 0..=MOST_INTERIM {
        let next = poll_fn(|context| {
            if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
                return Poll::Ready(Ok(Next::Interim(interim)));
            }
            if let Poll::Ready(response) = Pin::new(&mut *response).poll(context) {
                let response = response.map(Next::Answer);
                return Poll::Ready(response.map_err(|error| lost(attempt, &error, taken)));
            }
            if download.poll_gone(context).is_ready() {
                return Poll::Ready(Err(Trouble::Client(Fault::Gone)));
            }
            attempt.watch.poll(context).map(|_| Err(Trouble::Timeout))
        });
        match next.await? {
            Next::Answer(response) => return Ok(response),
            Next::Interim(head) => interim(&head, download).await?,
        }
        attempt.watch.set(attempt.deadline);
    }
    Err(Trouble::Bad(BadAnswer::TooManyInterim))
}

enum Next {
    Answer(::http::Response<RecvStream>),
    Interim(::http::Response<()>),
}

async fn interim<D: Download>(
    head: &::http::Response<()>,
    download: &mut D,
) -> Result<(), Trouble> {
    let (fields, _) = from_http2_answer(fields_of(head.headers())).map_err(Trouble::Bad)?;
    let answer = Response {
        status: head.status().as_u16(),
        reason: b"",
        fields,
        body: AnswerBody::None { said: None },
        keeps_alive: true,
        upgrade: None,
    };
    match answer.status {
        // RFC 9110 10.1.1: who expected it has it from us.
        100 => Ok(()),
        101 => Err(Trouble::Bad(BadAnswer::UnaskedUpgrade)),
        _ => download.interim(&answer).await.map_err(Trouble::Client),
    }
}

async fn pass<D: Download>(
    attempt: &Attempt<'_>,
    body: &mut RecvStream,
    download: &mut D,
) -> Result<Vec<Trailer>, Trouble> {
    let timeout = attempt.asked.bench.site.service.timeouts.answer;
    let tally = &attempt.worker.shared.tally;
    loop {
        attempt.watch.set(Instant::now() + timeout);
        let piece = attempt.watch.bound(body.data()).await;
        match piece {
            Ok(Some(Ok(piece))) => {
                let length = piece.len();
                tally.add_to_backend(
                    attempt.visit.backend.spec.id,
                    BackendCell::BytesOut,
                    length as u64,
                );
                if length > 0 {
                    download.data(&piece).await.map_err(Trouble::Client)?;
                }
                let _ = body.flow_control().release_capacity(length);
            }
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => return Err(Trouble::Cut),
        }
    }
    let trailers = attempt.watch.bound(body.trailers()).await;
    let Ok(Ok(trailers)) = trailers else {
        return Err(Trouble::Cut);
    };
    let trailers = trailers.unwrap_or_default();
    trailers_of_http2(fields_of(&trailers)).map_err(|_| Trouble::Cut)
}

/// What an error before the answer means. RFC 9113 8.7: a refused stream, and one beyond the last of a connection at its
/// end, was not looked at, and may be sent again, unless a part of its body is gone.
fn lost(attempt: &Attempt<'_>, error: &h2::Error, taken: &Cell<bool>) -> Trouble {
    if error.is_io() || error.is_go_away() {
        attempt.visit.backend.streams.forget();
    }
    let is_beyond = error.is_go_away() && error.is_remote();
    let is_untouched = match error.reason() {
        Some(Reason::REFUSED_STREAM) => true,
        Some(Reason::NO_ERROR) => is_beyond,
        _ => false,
    };
    if is_untouched && !taken.get() {
        return Trouble::Unheeded;
    }
    Trouble::Lost
}

/// The request as HTTP/2 backends get it.
pub(super) fn request(request: &Request<'_>, forwarded: &Forwarded) -> ::http::Request<()> {
    let mut built = ::http::Request::new(());
    let authority = ::http::uri::Authority::try_from(request.host);
    let path = ::http::uri::PathAndQuery::try_from(request.path);
    let method = ::http::Method::from_bytes(request.method);
    let (Ok(authority), Ok(path), Ok(method)) = (authority, path, method) else {
        // The strict reader lets nothing through that these refuse.
        return built;
    };
    let mut uri = ::http::uri::Parts::default();
    uri.scheme = Some(::http::uri::Scheme::HTTPS);
    uri.authority = Some(authority);
    uri.path_and_query = Some(path);
    *built.method_mut() = method;
    *built.uri_mut() = ::http::Uri::from_parts(uri).unwrap_or_default();
    let headers = built.headers_mut();
    let mut add = |name: &[u8], value: &[u8]| {
        let name = ::http::HeaderName::from_bytes(name);
        let value = ::http::HeaderValue::from_bytes(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    };
    for field in &request.fields {
        add(field.name, field.value);
    }
    for cookie in &request.cookies {
        add(b"cookie", cookie);
    }
    if let crate::http::Body::Length(length) = request.body {
        add(b"content-length", length.to_string().as_bytes());
    }
    if request.wants_trailers {
        add(b"te", b"trailers");
    }
    add(b"x-forwarded-for", forwarded.client.as_bytes());
    add(b"x-forwarded-proto", forwarded.protocol.as_bytes());
    add(b"x-forwarded-host", request.host);
    add(b"forwarded", &forwarded.standard(request.host));
    add(b"via", VIA.as_bytes());
    built
}
