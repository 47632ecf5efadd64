//! What HTTP/1.1 clients get.

use std::{future::poll_fn, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Backend, Proxy, Reply, run};
use crate::{
    config::Hsts,
    http::corpus,
    proxy::samples,
    tally::{BackendCell, SiteCell},
};

#[test]
fn every_request_of_the_corpus_is_refused_and_reaches_no_backend() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("reached")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let mut wrong = Vec::new();
        for case in corpus::cases() {
            let answer = proxy.send(&case.bytes).await;
            let expected = format!("HTTP/1.1 {} ", case.status);
            let is_alone = answer.matches("HTTP/1.1 ").count() == 1;
            if !answer.starts_with(&expected)
                || !is_alone
                || !answer.contains("\r\nconnection: close\r\n")
            {
                wrong.push(format!("{}: {answer:?}", case.name));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!((backend.asked(), backend.connections.get()), (0, 0));
        assert_eq!(
            proxy.tally.site(0, SiteCell::Refused),
            corpus::cases().len() as u64
        );
    });
}

#[test]
fn a_request_goes_on_and_its_answer_comes_back() {
    run(async {
        let backend = Backend::new(|_| {
            Reply::Say("HTTP/1.1 200 Fine\r\nServer: test\r\nContent-Length: 5\r\nKeep-Alive: x\r\n\r\nhello".into())
        })
        .await;
        let address = backend.address;
        let proxy = Proxy::of(move |listen| {
            let mut service = samples::service("www", listen);
            service.tls.hsts = Some(Hsts {
                max_age: Duration::from_secs(86_400),
                include_subdomains: false,
                preload: false,
            });
            vec![(service, vec![address])]
        })
        .await;
        let answer = proxy.get("/a?b").await;
        assert_eq!(
            answer,
            "HTTP/1.1 200 Fine\r\nServer: test\r\ncontent-length: 5\r\nconnection: close\r\n\
             strict-transport-security: max-age=86400\r\n\r\nhello"
        );
        assert_eq!(
            backend.heads.borrow()[0],
            "GET /a?b HTTP/1.1\r\nhost: a.test\r\nx-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: https\r\n\
             via: 1.1 foobar\r\nx-forwarded-host: a.test\r\n\
             forwarded: for=127.0.0.1;proto=https;host=\"a.test\"\r\n\r\n"
        );
        let record = poll_fn(|context| proxy.records.borrow_mut().poll_recv(context))
            .await
            .unwrap();
        assert_eq!((record.status, record.bytes_out > 0), (200, true));
        assert_eq!(record.path, "/a?b");
    });
}

#[test]
fn connections_serve_again_on_both_sides() {
    run(async {
        let backend = Backend::new(|head| Reply::ok(head.lines().next().unwrap())).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let mut client = proxy.client().await;
        for index in 0..20 {
            let request = format!("GET /{index} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let answer = read_answer(&mut client).await;
            assert!(
                answer.ends_with(&format!("GET /{index} HTTP/1.1")),
                "{answer}"
            );
        }
        assert_eq!((backend.asked(), backend.connections.get()), (20, 1));
        assert_eq!(proxy.worker.connections(), 1);
    });
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    run(async {
        let backend = Backend::new(|head| Reply::ok(head.lines().next().unwrap())).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let answers = proxy
            .send(
                b"POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc\
                  POST /2 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                  GET /3 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
            )
            .await;
        let order: Vec<_> = ["POST /1", "POST /2", "GET /3"]
            .iter()
            .map(|line| answers.find(line))
            .collect();
        assert!(
            order.is_sorted() && order.iter().all(Option::is_some),
            "{answers}"
        );
        let bodies = backend.bodies.borrow();
        assert_eq!(bodies[0], b"abc");
        assert_eq!(bodies[1], b"3\r\nabc\r\n0\r\n\r\n");
    });
}

#[test]
fn a_head_that_comes_byte_by_byte_is_understood() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("fine")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let mut client = proxy.client().await;
        for byte in b"\r\nGET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\r\n" {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(read_answer(&mut client).await.ends_with("fine"));
    });
}

#[test]
fn bodies_of_every_framing_pass_without_being_held() {
    run(async {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n";
        let until_close = "HTTP/1.1 200 OK\r\n\r\nhello!";
        let backend = Backend::new(move |head| {
            if head.contains("/chunked") {
                Reply::Say(chunked.into())
            } else {
                Reply::SayAndClose(until_close.into())
            }
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        for path in ["/chunked", "/close"] {
            let answer = proxy.get(path).await;
            assert!(
                answer.contains("\r\ntransfer-encoding: chunked\r\n"),
                "{answer}"
            );
            assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
            // HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
            let old = format!("GET {path} HTTP/1.0\r\nHost: a.test\r\n\r\n");
            let answer = proxy.send(old.as_bytes()).await;
            assert!(answer.ends_with("\r\n\r\nhello!"), "{answer}");
            assert!(!answer.contains("transfer-encoding"), "{answer}");
        }
    });
}

#[test]
fn a_large_body_goes_both_ways() {
    run(async {
        let size = 3_000_000;
        let backend = Backend::new(move |_| Reply::ok(&"x".repeat(size))).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let mut request = format!(
            "PUT / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        )
        .into_bytes();
        request.extend(vec![b'y'; size]);
        let client = proxy.client().await;
        let (mut read, mut write) = client.into_split();
        let writing = tokio::task::spawn_local(async move {
            write.write_all(&request).await.unwrap();
            write
        });
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        drop(writing.await.unwrap());
        assert_eq!(backend.bodies.borrow()[0].len(), size);
        assert!(answer.len() > size && answer.ends_with(b"xxx"));
        assert!(proxy.tally.site(0, SiteCell::BytesIn) >= size as u64);
        assert_eq!(proxy.tally.backend(0, BackendCell::BytesOut), size as u64);
    });
}

#[test]
fn a_head_request_and_304_have_no_body() {
    run(async {
        let backend = Backend::new(|head| {
            let status = if head.starts_with("HEAD") {
                "200 OK"
            } else {
                "304 Not Modified"
            };
            Reply::Say(format!("HTTP/1.1 {status}\r\nContent-Length: 500\r\n\r\n"))
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        let mut client = proxy.client().await;
        for method in ["HEAD", "GET", "HEAD"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let answer = read_head(&mut client).await;
            assert!(answer.contains("content-length: 500\r\n"), "{answer}");
        }
        assert_eq!(backend.connections.get(), 1);
    });
}

#[test]
fn range_and_conditions_pass_unchanged() {
    run(async {
        let backend = Backend::new(|_| {
            Reply::Say("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/9\r\nContent-Length: 2\r\n\r\nbc".into())
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        let answer = proxy
            .send(b"GET / HTTP/1.1\r\nHost: a.test\r\nRange: bytes=1-2\r\nIf-Match: \"x\"\r\nConnection: close\r\n\r\n")
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/9\r\n")
        );
        let head = backend.heads.borrow()[0].clone();
        assert!(
            head.contains("Range: bytes=1-2\r\nIf-Match: \"x\"\r\n"),
            "{head}"
        );
    });
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("fine")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let mut client = proxy.client().await;
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(
            read_head(&mut client).await,
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
        client.write_all(b"abc").await.unwrap();
        assert!(read_answer(&mut client).await.ends_with("fine"));
        assert_eq!(backend.bodies.borrow()[0], b"abc");
        assert!(!backend.heads.borrow()[0].contains("xpect"));
        // And the connection serves again after a body.
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await
            .unwrap();
        assert!(read_answer(&mut client).await.ends_with("fine"));
    });
}

#[test]
fn a_connection_changes_to_another_protocol_and_back_flows_everything() {
    run(async {
        let backend = Backend::new(|_| {
            Reply::Echo(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: x\r\n\r\nfirst"
                    .into(),
            )
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        let mut client = proxy.client().await;
        client
            .write_all(
                b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Key: y\r\n\r\n",
            )
            .await
            .unwrap();
        let head = read_head(&mut client).await;
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
            "{head}"
        );
        assert!(
            head.contains("connection: upgrade\r\nupgrade: websocket\r\n"),
            "{head}"
        );
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"first");
        client.write_all(b"\x81\x02hi").await.unwrap();
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"\x81\x02hi");
        assert!(
            backend.heads.borrow()[0].contains("connection: upgrade\r\nupgrade: websocket\r\n")
        );
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn an_upgrade_that_the_backend_declines_is_an_ordinary_answer() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("no")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let mut client = proxy.client().await;
        for _ in 0..2 {
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await
                .unwrap();
            assert!(read_answer(&mut client).await.ends_with("no"));
        }
    });
}

#[test]
fn bodies_and_heads_over_their_limits_are_refused() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("fine")).await;
        let more = "[l7.www.limits]\nbody = \"10KB\"\nhead = \"2KB\"\nuri = \"1KB\"\nheaders = 10";
        let proxy = Proxy::new(more, &[&backend]).await;
        let answer = proxy
            .send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20000\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        let mut chunks =
            b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..20 {
            chunks.extend(b"400\r\n");
            chunks.extend([b'x'; 1024]);
            chunks.extend(b"\r\n");
        }
        let answer = proxy.send(&chunks).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        let mut one =
            b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3000\r\n"
                .to_vec();
        one.extend([b'x'; 0x3000]);
        one.extend(b"\r\n0\r\n\r\n");
        let answer = proxy.send(&one).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        for (status, head) in [
            (
                414,
                format!(
                    "GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n",
                    "x".repeat(1_500)
                ),
            ),
            (
                431,
                format!(
                    "GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n",
                    "x".repeat(3_000)
                ),
            ),
            (
                431,
                format!(
                    "GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n",
                    "X: y\r\n".repeat(20)
                ),
            ),
            (
                431,
                format!(
                    "GET / HTTP/1.1\r\nHost: a.test\r\nX: {}",
                    "x".repeat(50_000)
                ),
            ),
        ] {
            let answer = proxy.send(head.as_bytes()).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{status}: {answer}"
            );
        }
    });
}

#[test]
fn a_client_that_is_slow_with_its_head_is_not_waited_for() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("fine")).await;
        let proxy = Proxy::new(
            "[l7.www.timeouts]\nhead = \"200ms\"\nidle = \"300ms\"",
            &[&backend],
        )
        .await;
        let mut client = proxy.client().await;
        client.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert_eq!(proxy.tally.site(0, SiteCell::ClientSlow), 1);
        // One that says nothing at all is told nothing.
        let mut silent = proxy.client().await;
        let mut answer = String::new();
        silent.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "");
    });
}

#[test]
fn a_client_that_is_slow_with_its_body_is_not_waited_for() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("fine")).await;
        let proxy = Proxy::new("[l7.www.timeouts]\nbody = \"200ms\"", &[&backend]).await;
        let mut client = proxy.client().await;
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        loop {
            tokio::select! {
                read = client.read_buf(&mut answer) => if read.unwrap_or(0) == 0 { break },
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    let _ = client.write_all(b"x").await;
                }
            }
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 408 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    });
}

#[test]
fn a_client_that_takes_nothing_is_not_waited_for() {
    run(async {
        let backend = Backend::new(|_| Reply::ok(&"x".repeat(20_000_000))).await;
        let proxy = Proxy::new("[l7.www.timeouts]\nwrite = \"200ms\"", &[&backend]).await;
        let mut client = proxy.client().await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await
            .unwrap();
        while proxy.tally.site(0, SiteCell::ClientSlow) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        assert!(answer.len() < 20_000_000);
    });
}

#[test]
fn idle_connections_leave_when_the_worker_drains_busy_ones_finish_and_new_ones_are_answered() {
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
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let mut idle = proxy.client().await;
        idle.write_all(request).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"late") {
            idle.read_buf(&mut seen).await.unwrap();
        }
        let mut busy = proxy.client().await;
        busy.write_all(request).await.unwrap();
        let mut new = proxy.client().await;
        while proxy.worker.connections() < 3 || backend.asked() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.worker.drain();
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        new.write_all(request).await.unwrap();
        for (client, is_told) in [(&mut busy, false), (&mut new, true)] {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("late"), "{answer}");
            assert_eq!(answer.contains("connection: close"), is_told, "{answer}");
        }
        while proxy.worker.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn sites_are_told_apart_by_host_and_path_and_answer_with_their_pages() {
    run(async {
        let (one, two) = (
            Backend::new(|_| Reply::ok("one")).await,
            Backend::new(|_| Reply::ok("two")).await,
        );
        let (first, second) = (one.address, two.address);
        let proxy = Proxy::of(move |listen| {
            let one = samples::service_with("one", listen, "hosts = \"a.test\"");
            let two = samples::service_with("two", listen, "hosts = \"a.test\"\npaths = \"/two\"");
            let three =
                samples::service_with("three", listen, "hosts = \"c.test\"\nmaintenance = true");
            vec![
                (one, vec![first]),
                (two, vec![second]),
                (three, vec![first]),
            ]
        })
        .await;
        assert!(proxy.get("/").await.ends_with("one"));
        assert!(proxy.get("/two/x").await.ends_with("two"));
        let elsewhere = b"GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n";
        assert!(proxy.send(elsewhere).await.starts_with("HTTP/1.1 421 "));
        let closed = proxy
            .send(b"GET / HTTP/1.1\r\nHost: c.test\r\nConnection: close\r\n\r\n")
            .await;
        assert!(
            closed.starts_with("HTTP/1.1 503 ") && closed.contains("retry-after: 60\r\n"),
            "{closed}"
        );
    });
}

#[test]
fn a_client_over_its_rate_is_told_so_and_reported() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("fine")).await;
        let more = "jail = \"jail\"\njail-after = 3\nlimits = { per-client = \"1/s\", burst = 2 }";
        let proxy = Proxy::new(more, &[&backend]).await;
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(proxy.get("/").await[9..12].to_owned());
        }
        assert_eq!(statuses, ["200", "200", "429", "429", "429"]);
        let report = proxy.reports.borrow_mut().try_recv().unwrap();
        let expected = crate::proxy::Report::Jail {
            site: "www".into(),
            set: "jail".to_owned(),
            client: "127.0.0.1".parse().unwrap(),
        };
        assert_eq!(report, expected);
    });
}

async fn read_head(client: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Head and body, by its Content-Length.
async fn read_answer(client: &mut tokio::net::TcpStream) -> String {
    let head = read_head(client).await;
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}
