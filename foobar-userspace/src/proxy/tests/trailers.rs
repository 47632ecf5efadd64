//! Fields after bodies, in both directions and from protocol to protocol.

use bytes::Bytes;

use super::{
    Backend, Proxy, Reply,
    http2::{Answer, Grpc, before, http2, whole},
    run,
};

const CHUNKED: &str = "POST /x HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
                       Connection: close\r\n\r\n2\r\nab\r\n0\r\n";

/// A request by HTTP/2 of two messages, and fields after them.
async fn stream(proxy: &Proxy, trailers: &[(&'static str, &str)]) -> Result<Answer, h2::Error> {
    let sender = http2(proxy).await;
    let request = http::Request::post("https://a.test/Sum/Up")
        .header("te", "trailers")
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
            Reply::Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n".into())
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        let ask = async |te: &str| {
            let request =
                format!("GET / HTTP/1.1\r\nHost: a.test\r\n{te}Connection: close\r\n\r\n");
            proxy.send(request.as_bytes()).await
        };
        let answer = ask("TE: trailers\r\n").await;
        assert!(answer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
        let answer = ask("").await;
        assert!(answer.ends_with("ok\r\n0\r\n\r\n"), "{answer}");
    });
}
