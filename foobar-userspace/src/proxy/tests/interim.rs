//! Heads that go before an answer's own.

use std::{future::poll_fn, time::Duration};

use super::{
    Backend, Proxy, Reply,
    http2::{bare_backend, before, fine, frame, http2},
    run,
};
use crate::tally::BackendCell;

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn hinting(times: usize) -> Backend {
    let said = format!(
        "HTTP/1.1 100 Continue\r\n\r\n{}{ANSWER}",
        HINTS.repeat(times)
    );
    Backend::new(move |_| Reply::Say(said.clone())).await
}

#[test]
fn early_hints_reach_http_1_clients_before_the_answer() {
    run(async {
        let backend = hinting(2).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        let answer = proxy.get("/").await;
        assert!(
            answer.starts_with(&format!("{hint}{hint}HTTP/1.1 200 ")),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        let old = proxy.send(b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
        assert!(old.starts_with("HTTP/1.1 200 "), "{old}");
        assert_eq!(proxy.tally.backend(0, BackendCell::Connects), 1);
    });
}

/// The link of the first hint, and the status of the answer.
async fn hinted(proxy: &Proxy) -> (String, http::StatusCode) {
    let mut sender = http2(proxy).await;
    let request = http::Request::get("https://a.test/").body(()).unwrap();
    let (mut response, _) = sender.send_request(request, true).unwrap();
    let hint = poll_fn(|context| response.poll_informational(context)).await;
    let hint = hint.unwrap().unwrap();
    assert_eq!(hint.status(), 103);
    assert!(!hint.headers().contains_key("x-hop"));
    let link = hint.headers()["link"].to_str().unwrap().to_owned();
    (link, response.await.unwrap().status())
}

#[test]
fn early_hints_reach_http_2_clients_from_backends_of_either_kind() {
    run(async {
        let expected = ("</a.css>; rel=preload".to_owned(), http::StatusCode::OK);
        let backend = hinting(1).await;
        let proxy = Proxy::new("", &[&backend]).await;
        assert_eq!(hinted(&proxy).await, expected);
        // `:status: 103` and a link, both as literals.
        let hint = b"\x08\x03103\x00\x04link\x15</a.css>; rel=preload";
        let address =
            bare_backend(move |_, stream| [frame(1, 4, stream, hint), fine(stream)].concat()).await;
        let proxy = before(address).await;
        assert_eq!(hinted(&proxy).await, expected);
    });
}

#[test]
fn hints_without_end_are_no_answer() {
    run(async {
        let backend = hinting(20).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let answer = proxy.get("/").await;
        assert!(
            answer.contains("HTTP/1.1 502 ") && answer.matches("HTTP/1.1 103 ").count() < 20,
            "{answer}"
        );
        assert_eq!(proxy.tally.backend(0, BackendCell::BadAnswers), 1);
        let hint = b"\x08\x03103";
        let address = bare_backend(move |_, stream| frame(1, 4, stream, hint).repeat(100)).await;
        let proxy = before(address).await;
        let answer = tokio::time::timeout(Duration::from_secs(5), proxy.get("/")).await;
        assert!(answer.unwrap().contains("HTTP/1.1 502 "));
    });
}
