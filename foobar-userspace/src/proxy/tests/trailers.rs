//! Fields after bodies, in both directions and from protocol to protocol.

use bytes::Bytes;

use super::{
    Backend, Proxy, Reply,
    http2::{Answer, Grpc, before, http2, whole},
    run,
};

const CHUNKED: &str = "POST /x HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTrailer: X-Sum\r\n\
                       Transfer-Encoding: chunked\r\n\
                       Connection: close\r\n\r\n2\r\nab\r\n0\r\n";

/// A request by HTTP/2 of two messages, and fields after them.
async fn stream(proxy: &Proxy, trailers: &[(&'static str, &str)]) -> Result<Answer, h2::Error> {
    let sender = http2(proxy).await;
    let request = http::Request::post("https://a.test/Sum/Up")
        .header("te", "trailers")
        .header("trailer", "x-sum")
        .body(())
        .unwrap();
    let mut ready = sender.ready().await.unwrap();
    let (response, mut stream) = ready.send_request(request, false).unwrap();
    for message in ["one", "two"] {
        stream.send_data(Bytes::from(message), false).unwrap();
    }
    let mut map = http::HeaderMap::new();
    for (name, value) in trailers {
        map.append(*name, value.parse().unwrap());
    }
    stream.send_trailers(map).unwrap();
    whole(response.await?).await
}

#[test]
fn trailers_of_http_1_requests_reach_backends_of_either_kind() {
    run(async {
        let request = format!("{CHUNKED}X-Sum: 7\r\nmy_sum: 7\r\n\r\n");
        let backend = Backend::new(|_| Reply::ok("x")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let answer = proxy.send(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(
            backend.bodies.borrow()[0],
            b"2\r\nab\r\n0\r\nx-sum: 7\r\n\r\n"
        );
        let grpc = Grpc::new().await;
        let proxy = before(grpc.address).await;
        let answer = proxy.send(request.as_bytes()).await;
        assert!(
            answer.contains("\r\n0\r\n") && answer.contains("x-sum: 7\r\n"),
            "{answer}"
        );
        assert!(answer.contains("grpc-status: 0\r\n"), "{answer}");
    });
}

#[test]
fn trailers_of_http_2_requests_reach_backends_of_either_kind() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("x")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        stream(&proxy, &[("x-sum", "7")]).await.unwrap();
        let body = backend.bodies.borrow()[0].clone();
        assert!(body.ends_with(b"\r\n0\r\nx-sum: 7\r\n\r\n"), "{body:?}");
        let grpc = Grpc::new().await;
        let proxy = before(grpc.address).await;
        let answer = stream(&proxy, &[("x-sum", "7")]).await.unwrap();
        assert_eq!(answer.trailers["x-sum"], "7");
        assert_eq!(answer.trailers["grpc-status"], "0");
    });
}

#[test]
fn trailers_that_decide_about_a_message_are_refused_and_its_body_is_never_whole() {
    run(async {
        for name in [
            "content-length",
            "host",
            "x-forwarded-for",
            "x_forwarded_for",
            "authorization",
        ] {
            let backend = Backend::new(|_| Reply::ok("x")).await;
            let proxy = Proxy::new("", &[&backend]).await;
            let request = format!("{CHUNKED}{name}: 1\r\n\r\n");
            let answer = proxy.send(request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
            assert_eq!(backend.asked(), 0, "{name}");
            // By HTTP/2 the body is on its way before they come.
            match stream(&proxy, &[(name, "1")]).await {
                Ok(answer) => assert_eq!(answer.head.status, 400, "{name}"),
                Err(error) => assert!(error.is_reset(), "{name}: {error}"),
            }
            let bodies = backend.bodies.borrow();
            let is_whole = |body: &Vec<u8>| body.ends_with(b"0\r\n\r\n");
            assert!(!bodies.iter().any(is_whole), "{name}: {bodies:?}");
        }
    });
}

#[test]
fn an_answer_s_trailers_go_to_who_takes_them() {
    run(async {
        let backend = Backend::new(|_| {
            Reply::Say(
                "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n"
                    .into(),
            )
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        let ask = async |te: &str| {
            let request =
                format!("GET / HTTP/1.1\r\nHost: a.test\r\n{te}Connection: close\r\n\r\n");
            proxy.send(request.as_bytes()).await
        };
        let answer = ask("TE: trailers\r\n").await;
        assert!(answer.contains("\r\nTrailer: X-Sum\r\n"), "{answer}");
        assert!(answer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
        let answer = ask("").await;
        assert!(!answer.contains("Trailer"), "{answer}");
        assert!(answer.ends_with("ok\r\n0\r\n\r\n"), "{answer}");
    });
}

#[test]
fn a_backend_hears_that_trailers_are_taken_and_which_will_come() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("x")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        proxy.send(format!("{CHUNKED}\r\n").as_bytes()).await;
        stream(&proxy, &[("x-sum", "7")]).await.unwrap();
        for head in backend.heads.borrow().iter() {
            let head = head.to_lowercase();
            assert!(
                head.contains("\r\nte: trailers\r\nconnection: te\r\n"),
                "{head}"
            );
            assert!(head.contains("\r\ntrailer: x-sum\r\n"), "{head}");
        }
        let grpc = Grpc::new().await;
        let proxy = before(grpc.address).await;
        proxy.send(format!("{CHUNKED}\r\n").as_bytes()).await;
        stream(&proxy, &[("x-sum", "7")]).await.unwrap();
        let heads = grpc.heads.borrow();
        assert_eq!(heads.len(), 2);
        for head in heads.iter() {
            assert_eq!(head.headers["te"], "trailers");
            assert_eq!(
                head.headers["trailer"].as_bytes().to_ascii_lowercase(),
                b"x-sum"
            );
        }
    });
}

#[test]
fn no_trailers_are_asked_for_or_announced_where_none_would_pass() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("x")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        for request in [
            "POST / HTTP/1.1\r\nHost: a.test\r\nTrailer: X-Sum\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
            "GET / HTTP/1.0\r\nHost: a.test\r\nTE: trailers\r\n\r\n",
        ] {
            let answer = proxy.send(request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        for head in backend.heads.borrow().iter() {
            let head = head.to_lowercase();
            assert!(
                !head.contains("\r\nte:") && !head.contains("\r\ntrailer:"),
                "{head}"
            );
        }
    });
}
