//! Who gets a request.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Backend, Proxy, Reply, run};
use crate::{
    balancer::Availability,
    proxy::{Site, Sites, samples},
    tally::{BackendCell, SiteCell},
};

async fn named(name: &'static str) -> Backend {
    Backend::new(move |_| Reply::ok(name)).await
}

#[test]
fn requests_are_spread_over_the_backends() {
    run(async {
        // p2c goes by latency: one stall of a busy machine makes one backend rare, not absent.
        for (balance, least) in [("p2c", 1), ("least-connections", 5), ("round-robin", 20)] {
            let backends = [named("one").await, named("two").await, named("three").await];
            let more = format!("balance = \"{balance}\"");
            let proxy = Proxy::new(&more, &[&backends[0], &backends[1], &backends[2]]).await;
            for _ in 0..60 {
                assert!(proxy.get("/").await.starts_with("HTTP/1.1 200"));
            }
            let asked: Vec<_> = backends.iter().map(Backend::asked).collect();
            assert_eq!(asked.iter().sum::<usize>(), 60, "{balance}");
            assert!(
                asked.iter().all(|count| *count >= least),
                "{balance}: {asked:?}"
            );
        }
    });
}

#[test]
fn what_is_hashed_keeps_requests_together() {
    run(async {
        let backends = [named("one").await, named("two").await, named("three").await];
        let more = "balance = \"hrw\"\nhash = \"header:x-user\"";
        let proxy = Proxy::new(more, &[&backends[0], &backends[1], &backends[2]]).await;
        let mut answers = std::collections::HashSet::new();
        for user in 0..20 {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: a.test\r\nX-User: {user}\r\nConnection: close\r\n\r\n"
            );
            let first = proxy.send(request.as_bytes()).await;
            for _ in 0..3 {
                assert_eq!(proxy.send(request.as_bytes()).await, first);
            }
            answers.insert(first);
        }
        assert_eq!(answers.len(), 3);
    });
}

#[test]
fn a_cookie_brings_a_client_back_even_while_its_backend_drains() {
    run(async {
        let backends = [named("one").await, named("two").await, named("three").await];
        let proxy = Proxy::new(
            "sticky = \"cookie\"",
            &[&backends[0], &backends[1], &backends[2]],
        )
        .await;
        let first = proxy.get("/").await;
        let cookie = first
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "))
            .unwrap();
        assert!(
            cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"),
            "{cookie}"
        );
        let cookie = cookie.split(';').next().unwrap();
        let with = format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nCookie: x=y; {cookie}\r\nConnection: close\r\n\r\n"
        );
        let name = first.rsplit("\r\n").next().unwrap();
        for _ in 0..10 {
            let answer = proxy.send(with.as_bytes()).await;
            assert!(
                answer.ends_with(name) && !answer.contains("set-cookie"),
                "{answer}"
            );
        }
        let mine = backends.iter().position(|backend| backend.asked() >= 10);
        change(&proxy, |site| {
            site.backends[mine.unwrap()].availability = Availability::Draining;
        });
        assert!(proxy.send(with.as_bytes()).await.ends_with(name));
        for _ in 0..10 {
            assert!(!proxy.get("/").await.ends_with(&format!("\r\n{name}")));
        }
    });
}

/// Gives the worker a table in which the site is changed.
fn change(proxy: &Proxy, edit: impl Fn(&mut Site)) {
    let listen = proxy.address.to_string();
    let before = proxy.worker.sites();
    let sites = before.all().iter().map(|site| {
        let mut site = Site {
            service: site.service.clone(),
            name: site.name.clone(),
            id: site.id,
            backends: site.backends.clone(),
            pages: site.pages.clone(),
            maintenance_page: None,
        };
        assert_eq!(site.service.listen[0].to_string(), listen);
        edit(&mut site);
        site
    });
    let sites = Sites::new(before.generation + 1, sites.collect(), Default::default());
    proxy.worker.adopt(sites.into());
}

#[test]
fn a_new_table_serves_the_next_request_of_old_connections() {
    run(async {
        let (one, two) = (named("one").await, named("two").await);
        let proxy = Proxy::new("", &[&one]).await;
        let mut client = proxy.client().await;
        let mut ask = async || {
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
                .await
                .unwrap();
            let mut answer = vec![0; 1024];
            let count = client.read(&mut answer).await.unwrap();
            String::from_utf8(answer[..count].to_vec()).unwrap()
        };
        assert!(ask().await.ends_with("one"));
        change(&proxy, |site| {
            site.backends = vec![samples::backend(1, two.address)]
        });
        assert!(ask().await.ends_with("two"));
        assert_eq!(proxy.tally.backend(1, BackendCell::Status2xx), 1);
    });
}

#[test]
fn nobody_available_is_said_at_once() {
    run(async {
        let one = named("one").await;
        let proxy = Proxy::new("", &[&one]).await;
        change(&proxy, |site| {
            site.backends[0].availability = Availability::Down
        });
        let answer = proxy.get("/").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"),
            "{answer}"
        );
        assert_eq!(proxy.tally.site(0, SiteCell::Shed), 1);
    });
}

#[test]
fn what_cannot_be_served_in_time_is_shed_at_once() {
    run(async {
        let slow = Duration::from_millis(400);
        let one = Backend::new(move |_| {
            Reply::Wait(slow, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into())
        })
        .await;
        let more = "breaker = { requests = 2 }\nqueue = { length = 2, wait = \"900ms\", retry-after = \"7s\" }";
        let proxy = Proxy::new(more, &[&one]).await;
        let all = futures::future::join_all((0..8).map(|_| proxy.get("/"))).await;
        let served = all
            .iter()
            .filter(|answer| answer.starts_with("HTTP/1.1 200"))
            .count();
        let shed = all.iter().filter(|answer| {
            answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 7\r\n")
        });
        assert_eq!((served, shed.count()), (4, 4));
        assert_eq!(proxy.tally.site(0, SiteCell::Shed), 4);
    });
}

#[test]
fn a_client_reaches_no_more_backends_than_its_shard() {
    run(async {
        let mut backends = Vec::new();
        for _ in 0..6 {
            backends.push(named("x").await);
        }
        let all: Vec<_> = backends.iter().collect();
        let proxy = Proxy::new("", &all).await;
        change(&proxy, |site| site.service.shuffle = Some(2));
        for _ in 0..60 {
            proxy.get("/").await;
        }
        let reached = backends
            .iter()
            .filter(|backend| backend.asked() > 0)
            .count();
        assert_eq!(reached, 2);
    });
}

#[test]
fn backends_that_ask_for_it_are_told_the_client_before_everything_else() {
    run(async {
        let one = named("one").await;
        let proxy = Proxy::new("proxy-protocol = { to-backends = \"v1\" }", &[&one]).await;
        let mut client = proxy.client().await;
        let port = client.local_addr().unwrap().port();
        for _ in 0..2 {
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 1024];
            assert!(client.read(&mut answer).await.unwrap() > 0);
        }
        let first = one.heads.borrow()[0].clone();
        let line = format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\nGET / ",
            proxy.address.port()
        );
        assert!(first.starts_with(&line), "{first}");
        // Its own connection serves the client again; another client gets another.
        assert_eq!(one.connections.get(), 1);
        proxy.get("/").await;
        assert_eq!(one.connections.get(), 2);
    });
}
