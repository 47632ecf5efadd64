//! Who is let in, and who is sent elsewhere.

use std::{collections::HashMap, path::PathBuf, rc::Rc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::spawn_local,
};

use super::{Backend, Proxy, Reply, run};
use crate::{
    config::{ClientCertificateNeed, ClientCertificates, Place},
    proxy::{Peer, Site, Sites, TlsFacts, redirect, samples},
    tally::SiteCell,
};

#[test]
fn a_handshake_for_one_name_does_not_open_a_site_that_asks_for_certificates() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("inside")).await;
        let address = backend.address;
        let proxy = Proxy::of(move |listen| {
            let open = samples::service_with("open", listen, "hosts = \"open.test\"");
            let mut closed = samples::service_with("closed", listen, "hosts = \"a.test\"");
            closed.tls.client = Some(ClientCertificates {
                ca: PathBuf::from("/ca.pem"),
                need: ClientCertificateNeed::Required,
                place: Place { line: 0, column: 0 },
            });
            vec![(open, vec![address]), (closed, vec![address])]
        })
        .await;
        for (sni, status) in [
            (Some("open.test"), "421"),
            (None, "421"),
            (Some("a.test"), "200"),
        ] {
            proxy.tls.replace(Some(TlsFacts {
                sni: sni.map(str::to_owned),
                ..TlsFacts::default()
            }));
            assert_eq!(&proxy.get("/").await[9..12], status, "{sni:?}");
        }
    });
}

#[test]
fn plain_http_is_sent_to_https_and_proves_names() {
    run(async {
        let backend = Backend::new(|_| Reply::ok("x")).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let before = proxy.worker.sites();
        let mut service = before.all()[0].service.clone();
        service.redirect = vec![local];
        service.hosts = vec!["a.test".to_owned()];
        let site = Site {
            name: "www".into(),
            id: 0,
            backends: Vec::new(),
            pages: Default::default(),
            maintenance_page: None,
            service,
        };
        let challenges = HashMap::from([("token".to_owned(), "token.proof".to_owned())]);
        proxy
            .worker
            .adopt(Sites::new(2, vec![site], challenges).into());
        let worker = Rc::clone(&proxy.worker);
        spawn_local(async move {
            while let Ok((stream, client)) = listener.accept().await {
                let peer = Peer {
                    client,
                    local,
                    tls: None,
                };
                spawn_local(redirect(stream, peer, Rc::clone(&worker)));
            }
        });
        let port = proxy.address.port();
        for (request, start) in [
            (
                "GET /a?b HTTP/1.1\r\nHost: a.test:80\r\n\r\n",
                format!(
                    "HTTP/1.1 308 Permanent Redirect\r\nlocation: https://a.test:{port}/a?b\r\n"
                ),
            ),
            (
                "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n",
                "HTTP/1.1 404 ".to_owned(),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a.test\n\r\n",
                "HTTP/1.1 400 ".to_owned(),
            ),
            (
                "GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: a.test\r\n\r\n",
                "HTTP/1.1 200 OK\r\n".to_owned(),
            ),
            (
                "GET /.well-known/acme-challenge/other HTTP/1.1\r\nHost: a.test\r\n\r\n",
                "HTTP/1.1 308 ".to_owned(),
            ),
        ] {
            let mut client = tokio::net::TcpStream::connect(local).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&start), "{request:?}: {answer}");
            assert_eq!(answer.ends_with("token.proof"), start.contains("200"));
        }
        assert_eq!(proxy.tally.site(0, SiteCell::Redirects), 2);
    });
}
