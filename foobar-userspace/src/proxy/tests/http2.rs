//! What HTTP/2 clients get, and what HTTP/2 backends are asked.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use super::{Backend, Proxy, Reply, run};
use crate::{
    config::HttpVersion,
    proxy::samples,
    tally::{BackendCell, SiteCell},
};

pub(super) async fn http2(proxy: &Proxy) -> SendRequest<Bytes> {
    proxy.speak_http2();
    let stream = proxy.client().await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    spawn_local(async move {
        let _ = connection.await;
    });
    sender.ready().await.unwrap()
}

fn get(path: &str) -> http::Request<()> {
    let uri = format!("https://a.test{path}");
    http::Request::get(uri).body(()).unwrap()
}

pub(super) struct Answer {
    pub(super) head: http::response::Parts,
    body: Vec<u8>,
    pub(super) trailers: http::HeaderMap,
}

pub(super) async fn whole(response: http::Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        let _ = stream.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    Ok(Answer {
        head,
        body,
        trailers: stream.trailers().await?.unwrap_or_default(),
    })
}

async fn ask(
    sender: &SendRequest<Bytes>,
    request: http::Request<()>,
    body: Option<&[u8]>,
) -> Result<Answer, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (response, mut stream) = sender.send_request(request, body.is_none())?;
    if let Some(body) = body {
        stream.send_data(Bytes::copy_from_slice(body), true)?;
    }
    whole(response.await?).await
}

#[test]
fn requests_by_http_2_reach_http_1_backends() {
    run(async {
        let backend = Backend::new(|head| Reply::ok(head.lines().next().unwrap())).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let sender = http2(&proxy).await;
        let answers =
            futures::future::join_all(["/1", "/2", "/3"].map(|path| ask(&sender, get(path), None)))
                .await;
        for (answer, path) in answers.into_iter().zip(["/1", "/2", "/3"]) {
            let answer = answer.unwrap();
            assert_eq!(answer.head.status, 200);
            assert_eq!(answer.head.headers["content-length"], "15");
            assert_eq!(answer.body, format!("GET {path} HTTP/1.1").into_bytes());
        }
        let request = http::Request::post("https://a.test/p")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        ask(&sender, request, Some(b"hello")).await.unwrap();
        let heads = backend.heads.borrow();
        let head = heads.last().unwrap();
        assert!(
            head.contains("\r\ncookie: a=1; b=2\r\ntransfer-encoding: chunked\r\n"),
            "{head}"
        );
        assert_eq!(
            backend.bodies.borrow().last().unwrap(),
            b"5\r\nhello\r\n0\r\n\r\n"
        );
        assert_eq!(proxy.tally.site(0, SiteCell::Requests), 4);
    });
}

#[test]
fn large_bodies_go_both_ways_as_the_windows_allow() {
    run(async {
        let size = 3_000_000;
        let backend = Backend::new(move |_| Reply::ok(&"x".repeat(size))).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let sender = http2(&proxy).await;
        let request = http::Request::put("https://a.test/")
            .header("content-length", size)
            .body(())
            .unwrap();
        let answer = ask(&sender, request, Some(&vec![b'y'; size]))
            .await
            .unwrap();
        assert_eq!(answer.body.len(), size);
        assert_eq!(backend.bodies.borrow()[0].len(), size);
    });
}

#[test]
fn what_is_ambiguous_by_http_2_reaches_no_backend() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("reached")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let sender = http2(&proxy).await;
        let with = |name: &str, value: &str| {
            let mut request = get("/");
            request.headers_mut().append(
                http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
            request
        };
        let mut lengths = with("content-length", "3");
        lengths
            .headers_mut()
            .append("content-length", "3".parse().unwrap());
        let requests = [
            with("host", "b.test"),
            with("x_forwarded_for", "10.0.0.1"),
            with("transfer_encoding", "chunked"),
            get("/../x"),
            get("/%2e%2e/x"),
            lengths,
            http::Request::builder()
                .method("TRACE")
                .uri("https://a.test/")
                .body(())
                .unwrap(),
            http::Request::builder()
                .method("get")
                .uri("https://a.test/")
                .body(())
                .unwrap(),
        ];
        for request in requests {
            let told = format!("{request:?}");
            match ask(&sender, request, None).await {
                Ok(answer) => assert!(
                    answer.head.status.is_client_error(),
                    "{told}: {:?}",
                    answer.head
                ),
                Err(error) => assert!(error.is_reset(), "{told}: {error}"),
            }
        }
        // A body that contradicts its length ends the stream, and the backend's request is never whole.
        for body in [&b"ab"[..], b"abcd"] {
            let request = http::Request::post("https://a.test/")
                .header("content-length", 3)
                .body(())
                .unwrap();
            assert!(
                ask(&sender, request, Some(body))
                    .await
                    .is_err_and(|error| error.is_reset())
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(backend.bodies.borrow().iter().all(|body| body.len() < 3));
        assert!(ask(&sender, get("/"), None).await.is_ok());
    });
}

/// Raw frames after the preface; reads until the proxy hangs up.
async fn frames(proxy: &Proxy, frames: &[u8], times: usize) -> usize {
    proxy.speak_http2();
    let mut client = proxy.client().await;
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    all.extend(frames.repeat(times));
    let (mut read, mut write) = client.split();
    let writing = async {
        let _ = write.write_all(&all).await;
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut bytes = Vec::new();
        let _ = read.read_to_end(&mut bytes).await;
        bytes.len()
    };
    tokio::select! {
        () = writing => unreachable!(),
        count = reading => count,
    }
}

#[test]
fn floods_of_frames_end_the_connection() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("x")).await;
        let proxy = Proxy::new("jail = \"jail\"\njail-after = 4", &[&backend]).await;
        let ping = b"\0\0\x08\x06\0\0\0\0\0abcdefgh";
        let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x09";
        let priority = b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10";
        for flood in [&ping[..], settings, priority] {
            frames(&proxy, flood, 3_000).await;
        }
        assert_eq!(proxy.tally.site(0, SiteCell::Floods), 3);
        assert!(proxy.reports.borrow_mut().try_recv().is_err());
        // Streams opened and taken back at once.
        let mut rapid = Vec::new();
        for id in (1_u32..4_000).step_by(2) {
            // GET https a.test /, by the static table and one literal.
            let head = b"\x82\x87\x84\x41\x06a.test";
            rapid.extend([0, 0, u8::try_from(head.len()).unwrap(), 1, 5]);
            rapid.extend(id.to_be_bytes());
            rapid.extend(head);
            rapid.extend([0, 0, 4, 3, 0]);
            rapid.extend(id.to_be_bytes());
            rapid.extend([0, 0, 0, 8]);
        }
        frames(&proxy, &rapid, 1).await;
        let report = proxy.reports.borrow_mut().try_recv();
        assert!(report.is_ok() || proxy.tally.site(0, SiteCell::Floods) == 3);
        assert!(backend.asked() < 400, "{}", backend.asked());
    });
}

#[test]
fn a_client_that_opens_no_window_is_not_waited_for() {
    run(async {
        let backend = Backend::new(|_| Reply::ok(&"x".repeat(1_000_000))).await;
        let proxy = Proxy::new("[l7.www.timeouts]\nwrite = \"200ms\"", &[&backend]).await;
        let sender = http2(&proxy).await;
        let mut ready = sender.ready().await.unwrap();
        let (response, _) = ready.send_request(get("/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut received = 0;
        let end = loop {
            match body.data().await {
                Some(Ok(piece)) => received += piece.len(),
                Some(Err(error)) => break error,
                None => panic!("the answer ended"),
            }
        };
        assert!(end.is_reset() && received < 1_000_000);
        assert_eq!(proxy.tally.site(0, SiteCell::ClientSlow), 1);
    });
}

#[test]
fn a_draining_worker_lets_streams_end() {
    run(async {
        let slow = Duration::from_millis(200);
        let backend = Backend::new(move |_| {
            Reply::Wait(
                slow,
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".into(),
            )
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        let sender = http2(&proxy).await;
        let asking = ask(&sender, get("/"), None);
        let draining = async {
            while backend.asked() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            proxy.worker.drain();
        };
        let (answer, ()) = futures::join!(asking, draining);
        assert_eq!(answer.unwrap().body, b"late");
        while proxy.worker.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let again = ask(&sender, get("/"), None).await;
        assert!(again.is_err());
    });
}

/// An HTTP/2 backend on bare sockets: what it says to the start of a stream, by connection and stream.
pub(super) async fn bare_backend(say: impl Fn(usize, u32) -> Vec<u8> + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let say = Rc::new(say);
    spawn_local(async move {
        let mut connections = 0;
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(bare_talk(stream, connections, Rc::clone(&say)));
            connections += 1;
        }
    });
    address
}

async fn bare_talk(
    mut stream: TcpStream,
    connection: usize,
    say: Rc<impl Fn(usize, u32) -> Vec<u8>>,
) -> Option<()> {
    stream.read_exact(&mut [0; 24]).await.ok()?;
    stream.write_all(&frame(4, 0, 0, b"")).await.ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let [_, high, low, kind, flags, id @ ..] = head;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        stream.read_exact(&mut payload).await.ok()?;
        if kind == 4 && flags == 0 {
            stream.write_all(&frame(4, 1, 0, b"")).await.ok()?;
        }
        if kind == 1 {
            let said = say(connection, u32::from_be_bytes(id));
            stream.write_all(&said).await.ok()?;
        }
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0, length[0], length[1], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `:status: 200` and the end of the stream.
pub(super) fn fine(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, &[0x88])
}

#[test]
fn a_backend_s_farewell_costs_no_request_whatever_its_method() {
    run(async {
        // The first connection is at its end with the first stream: the second was not looked at.
        let address = bare_backend(|connection, stream| match (connection, stream) {
            (0, 3) => frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
            (_, stream) => fine(stream),
        })
        .await;
        let proxy = before(address).await;
        for _ in 0..4 {
            let answer = proxy
                .send(b"POST /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                .await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        assert_eq!(proxy.tally.backend(0, BackendCell::Connects), 2);
        assert_eq!(proxy.tally.site(0, SiteCell::Lost), 0);
    });
}

#[test]
fn a_refused_stream_is_sent_elsewhere_only_while_its_body_is_whole() {
    run(async {
        let refused = |stream| frame(3, 0, stream, &[0, 0, 0, 7]);
        let whole = Rc::new(RefCell::new(0));
        let reached = Rc::clone(&whole);
        let fine = bare_backend(move |_, stream| {
            *reached.borrow_mut() += 1;
            fine(stream)
        })
        .await;
        let refusing = bare_backend(move |_, stream| refused(stream)).await;
        let proxy = Proxy::of(move |listen| {
            let more = "balance = \"round-robin\"\nejection = { at-most = 0 }";
            let mut service = samples::service_with("www", listen, more);
            service.backend_protocol = HttpVersion::Http2;
            vec![(service, vec![refusing, fine])]
        })
        .await;
        for _ in 0..4 {
            let answer = proxy
                .send(b"POST /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                .await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        assert_eq!(*whole.borrow(), 4);
        // What was read of a body is gone: half of it is not offered to the next.
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let mut client = proxy.client().await;
            client
                .write_all(b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\nConnection: close\r\n\r\nabc")
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = client.write_all(b"def").await;
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer).await;
            statuses.push(String::from_utf8_lossy(&answer[9..12]).into_owned());
        }
        statuses.sort();
        assert_eq!(statuses, ["200", "200", "502", "502"]);
    });
}

/// A gRPC-like service: says the path and the body back, and a status in the trailers.
pub(super) struct Grpc {
    pub(super) address: SocketAddr,
    pub(super) heads: Rc<RefCell<Vec<http::request::Parts>>>,
}

impl Grpc {
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = Self {
            address: listener.local_addr().unwrap(),
            heads: Rc::default(),
        };
        let heads = Rc::clone(&grpc.heads);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(serve_grpc(stream, Rc::clone(&heads)));
            }
        });
        grpc
    }
}

async fn serve_grpc(stream: TcpStream, heads: Rc<RefCell<Vec<http::request::Parts>>>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let heads = Rc::clone(&heads);
        spawn_local(async move {
            let (head, mut body) = request.into_parts();
            let path = head.uri.path().to_owned();
            heads.borrow_mut().push(head);
            let response = http::Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(Bytes::from(path), false).unwrap();
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                stream.send_data(piece, false).unwrap();
            }
            // What followed the request follows the answer.
            let mut trailers = body.trailers().await.unwrap_or(None).unwrap_or_default();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        });
    }
}

pub(super) async fn before(address: SocketAddr) -> Proxy {
    Proxy::of(move |listen| {
        let mut service = samples::service("www", listen);
        service.backend_protocol = HttpVersion::Http2;
        vec![(service, vec![address])]
    })
    .await
}

#[test]
fn grpc_streams_both_ways_and_keeps_its_trailers() {
    run(async {
        let grpc = Grpc::new().await;
        let proxy = before(grpc.address).await;
        let sender = http2(&proxy).await;
        let request = http::Request::post("https://a.test/Echo/Say")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("x-forwarded-for", "10.0.0.1")
            .body(())
            .unwrap();
        let mut ready = sender.clone().ready().await.unwrap();
        let (response, mut stream) = ready.send_request(request, false).unwrap();
        // The answer begins before the request ends.
        let response = response.await.unwrap();
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "/Echo/Say");
        for message in ["one", "two"] {
            stream.send_data(Bytes::from(message), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), message);
        }
        stream.send_data(Bytes::new(), true).unwrap();
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        let heads = grpc.heads.borrow();
        assert_eq!(heads[0].headers["te"], "trailers");
        assert_eq!(heads[0].headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(heads[0].uri.authority().unwrap(), "a.test");
    });
}

#[test]
fn http_1_clients_reach_http_2_backends() {
    run(async {
        let grpc = Grpc::new().await;
        let proxy = before(grpc.address).await;
        let answer = proxy
            .send(b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            .await;
        assert!(
            answer.contains("content-type: application/grpc\r\n"),
            "{answer}"
        );
        assert!(
            answer.ends_with("\r\n0\r\n\r\n") && answer.contains("hello"),
            "{answer}"
        );
        for _ in 0..10 {
            assert!(proxy.get("/y").await.contains("/y"));
        }
        assert_eq!(proxy.tally.backend(0, BackendCell::Connects), 1);
    });
}

#[test]
fn a_body_whose_beginning_came_with_its_head_reaches_an_http_2_backend_whole() {
    run(async {
        let grpc = Grpc::new().await;
        let proxy = before(grpc.address).await;
        for (framing, parts) in [
            ("Content-Length: 6", ["abc", "def"]),
            (
                "Transfer-Encoding: chunked",
                ["3\r\nabc\r\n3\r\nd", "ef\r\n0\r\n\r\n"],
            ),
        ] {
            let mut client = proxy.client().await;
            let [first, second] = parts;
            let start = format!(
                "POST /x HTTP/1.1\r\nHost: a.test\r\n{framing}\r\nConnection: close\r\n\r\n{first}"
            );
            client.write_all(start.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            client.write_all(second.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            let answer = String::from_utf8_lossy(&answer);
            let said: String = answer
                .lines()
                .filter(|line| ["abc", "d", "ef", "def", "abcd"].contains(line))
                .collect();
            assert_eq!(said, "abcdef", "{framing}: {answer}");
        }
    });
}

#[test]
fn trailers_of_http_1_backends_reach_http_2_clients() {
    run(async {
        let backend = Backend::new(|_| {
            Reply::Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n".into())
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        let sender = http2(&proxy).await;
        let answer = ask(&sender, get("/"), None).await.unwrap();
        assert_eq!(answer.body, b"ok");
        assert_eq!(answer.trailers["x-sum"], "7");
    });
}

#[test]
fn a_broken_answer_resets_the_stream_and_a_missing_one_is_told() {
    run(async {
        let backend = Backend::new(|head| {
            Reply::SayAndClose(if head.contains("/broken") {
                "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello".into()
            } else {
                "nonsense\r\n\r\n".into()
            })
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        let sender = http2(&proxy).await;
        assert!(
            ask(&sender, get("/broken"), None)
                .await
                .is_err_and(|error| error.is_reset())
        );
        let answer = ask(&sender, get("/"), None).await.unwrap();
        assert_eq!(answer.head.status, 502);
    });
}
