//! What becomes of requests when backends fail.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::{Backend, Proxy, Reply, run};
use crate::{
    proxy::Report,
    tally::{BackendCell, SiteCell},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

async fn good() -> Backend {
    Backend::new(|_| Reply::ok("good")).await
}

/// Where nobody listens.
async fn nobody() -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = Backend::at(listener, |_| Reply::Die);
    let mut stream = tokio::net::TcpStream::connect(backend.address)
        .await
        .unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    while tokio::net::TcpStream::connect(backend.address)
        .await
        .is_ok()
    {
        tokio::task::yield_now().await;
    }
    backend
}

#[test]
fn a_refused_connection_is_tried_elsewhere_whatever_the_method() {
    run(async {
        let (dead, live) = (nobody().await, good().await);
        let proxy = Proxy::new(
            "balance = \"round-robin\"\nretries = { least = 100 }",
            &[&dead, &live],
        )
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..4 {
            let answer = proxy
                .send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
                .await;
            assert!(answer.ends_with("good"), "{answer}");
        }
        assert!(proxy.tally.site(0, SiteCell::Retries) >= 1);
        assert!(matches!(
            proxy.reports.borrow_mut().try_recv(),
            Ok(Report::Lost { .. })
        ));
    });
}

#[test]
fn who_could_not_be_reached_uses_up_no_retry() {
    run(async {
        // Gone, alive but of no use, and good: the second of them is left by a repetition, the first by none.
        for turn in 0..3 {
            let mut backends = [
                nobody().await,
                Backend::new(|_| Reply::Reset).await,
                good().await,
            ];
            backends.rotate_left(turn);
            let [one, two, three] = &backends;
            let more = "balance = \"round-robin\"\nretries = { most = 1, least = 100 }";
            let proxy = Proxy::new(more, &[one, two, three]).await;
            for _ in 0..3 {
                let answer = proxy.get("/").await;
                assert!(answer.ends_with("good"), "{answer}");
            }
            assert_eq!(proxy.tally.site(0, SiteCell::Lost), 0);
        }
    });
}

#[test]
fn a_request_whose_answer_ends_within_its_head_is_repeated_if_that_is_safe() {
    run(async {
        let broken =
            Backend::new(|_| Reply::SayAndClose("HTTP/1.1 200 OK\r\nX: unfini".into())).await;
        let fine = good().await;
        let more = "balance = \"round-robin\"\nretries = { least = 100 }";
        let proxy = Proxy::new(more, &[&broken, &fine]).await;
        for _ in 0..4 {
            assert!(proxy.get("/").await.ends_with("good"));
        }
        assert!(broken.asked() >= 1);
        assert_eq!(proxy.tally.site(0, SiteCell::Lost), 0);
    });
}

#[test]
fn every_request_that_a_dying_connection_took_with_it_is_counted() {
    run(async {
        let resetting = Backend::new(|_| Reply::Reset).await;
        let fine = good().await;
        let more = "balance = \"round-robin\"\nejection = { at-most = 0 }";
        let proxy = Proxy::new(more, &[&resetting, &fine]).await;
        let mut failed = 0;
        for _ in 0..6 {
            let answer = proxy
                .send(b"POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                .await;
            failed += u64::from(answer.starts_with("HTTP/1.1 502 "));
        }
        assert!(failed > 0);
        assert_eq!(proxy.tally.site(0, SiteCell::Lost), failed);
        // The answer had begun.
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello";
        let cutting = Backend::new(move |_| Reply::SayAndClose(cut.into())).await;
        let proxy = Proxy::new("", &[&cutting]).await;
        assert!(proxy.get("/").await.ends_with("hello"));
        assert_eq!(proxy.tally.site(0, SiteCell::Lost), 1);
    });
}

#[test]
fn an_idle_connection_that_the_backend_closed_costs_no_request() {
    run(async {
        // Closes each connection at its second request, without an answer.
        let count = Rc::new(Cell::new(0));
        let backend = Backend::new(move |_| {
            count.set(count.get() + 1);
            if count.get() % 2 == 0 {
                Reply::Reset
            } else {
                Reply::Say(OK.into())
            }
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        for _ in 0..3 {
            assert!(proxy.get("/").await.starts_with("HTTP/1.1 200"));
        }
        assert!(proxy.tally.backend(0, BackendCell::Resets) >= 1);
        // What has a side effect is not repeated: the backend may have done it.
        let request = b"POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(proxy.send(request).await[9..12].to_owned());
        }
        assert!(statuses.contains(&"502".to_owned()), "{statuses:?}");
    });
}

#[test]
fn a_request_that_kills_a_backend_is_not_offered_to_the_next_and_its_like_are_held_back() {
    run(async {
        let poison = |head: &str| {
            if head.starts_with("GET /poison") {
                Reply::Die
            } else {
                Reply::ok("good")
            }
        };
        let backends = [
            Backend::new(poison).await,
            Backend::new(poison).await,
            Backend::new(poison).await,
        ];
        let proxy = Proxy::new("", &[&backends[0], &backends[1], &backends[2]]).await;
        assert!(proxy.get("/poison?x").await.starts_with("HTTP/1.1 502 "));
        let killed = backends.iter().map(Backend::asked).sum::<usize>();
        assert_eq!(killed, 1);
        for _ in 0..5 {
            let answer = proxy.get("/poison?y").await;
            assert!(
                answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "),
                "{answer}"
            );
        }
        assert_eq!(backends.iter().map(Backend::asked).sum::<usize>(), 1);
        assert_eq!(proxy.tally.site(0, SiteCell::HeldBack), 5);
        assert_eq!(proxy.tally.site(0, SiteCell::Lost), 1);
        // Others are served by those that live.
        for _ in 0..10 {
            assert!(proxy.get("/").await.ends_with("good"));
        }
    });
}

#[test]
fn a_request_whose_like_was_answered_a_moment_ago_survives_the_death_of_its_backend() {
    run(async {
        let dying = Rc::new(Cell::new(false));
        let is_dying = Rc::clone(&dying);
        let first = Backend::new(move |_| {
            if is_dying.get() {
                Reply::Die
            } else {
                Reply::ok("first")
            }
        })
        .await;
        let second = good().await;
        let proxy = Proxy::new(
            "balance = \"round-robin\"\nretries = { least = 100 }",
            &[&first, &second],
        )
        .await;
        for _ in 0..4 {
            assert!(proxy.get("/").await.starts_with("HTTP/1.1 200"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        dying.set(true);
        for _ in 0..4 {
            assert!(proxy.get("/").await.ends_with("good"));
        }
        assert_eq!(proxy.tally.backend(0, BackendCell::Deaths), 1);
        assert_eq!(proxy.tally.site(0, SiteCell::Lost), 0);
    });
}

#[test]
fn a_backend_that_says_nothing_is_given_up_on() {
    run(async {
        let backend = Backend::new(|_| Reply::Wait(Duration::from_secs(20), OK.into())).await;
        let proxy = Proxy::new("[l7.www.timeouts]\nattempt = \"100ms\"", &[&backend]).await;
        assert!(proxy.get("/").await.starts_with("HTTP/1.1 504 "));
        assert_eq!(proxy.tally.backend(0, BackendCell::Timeouts), 1);
    });
}

#[test]
fn statuses_are_asked_for_again_only_where_that_is_wanted() {
    run(async {
        let busy = || {
            Backend::new(|_| Reply::Say("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".into()))
        };
        for (on, expected) in [("[\"connect\"]", 2), ("[\"connect\", \"503\"]", 0)] {
            let (bad, fine) = (busy().await, good().await);
            let more = format!("balance = \"round-robin\"\nretries = {{ least = 100, on = {on} }}");
            let proxy = Proxy::new(&more, &[&bad, &fine]).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut failed = 0;
            for _ in 0..4 {
                if proxy.get("/").await.starts_with("HTTP/1.1 503 ") {
                    failed += 1;
                }
            }
            assert_eq!(failed, expected, "{on}");
        }
    });
}

#[test]
fn a_backend_that_only_fails_is_left_out() {
    run(async {
        let bad =
            Backend::new(|_| Reply::Say("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".into()))
                .await;
        let fine = good().await;
        let more = "balance = \"round-robin\"\nejection = { failures = 3 }";
        let proxy = Proxy::new(more, &[&bad, &fine]).await;
        for _ in 0..20 {
            proxy.get("/").await;
        }
        assert_eq!(bad.asked(), 3);
        assert_eq!(proxy.tally.backend(0, BackendCell::Ejections), 1);
    });
}

#[test]
fn answers_that_are_none_are_not_passed_on() {
    run(async {
        for bad in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "hello\r\n\r\n",
            "HTTP/1.1 101 Surprise\r\nUpgrade: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: unfinished",
        ] {
            let backend = Backend::new(move |_| Reply::SayAndClose(bad.into())).await;
            let proxy = Proxy::new("", &[&backend]).await;
            let answer = proxy.get("/").await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{bad:?}: {answer}");
        }
    });
}

#[test]
fn an_answer_that_breaks_off_is_not_made_to_look_whole() {
    run(async {
        for (broken, end) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
                "\r\n\r\nhello",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                "5\r\nhello\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5;x\r\nhello\r\n0\r\n\r\n",
                "5\r\nhello\r\n",
            ),
        ] {
            let backend = Backend::new(move |_| Reply::SayAndClose(broken.into())).await;
            let proxy = Proxy::new("", &[&backend]).await;
            let answer = proxy.get("/").await;
            assert!(
                answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(end),
                "{answer:?}"
            );
        }
    });
}

#[test]
fn what_follows_an_answer_is_given_to_nobody() {
    run(async {
        let backend = Backend::new(|_| {
            Reply::Say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".into())
        })
        .await;
        let proxy = Proxy::new("", &[&backend]).await;
        for _ in 0..3 {
            let answer = proxy.get("/").await;
            assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        }
        assert_eq!(backend.connections.get(), 3);
    });
}

#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    run(async {
        let backend = Backend::new(|_| Reply::Wait(Duration::from_secs(20), OK.into())).await;
        let proxy = Proxy::new("", &[&backend]).await;
        let mut client = proxy.client().await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await
            .unwrap();
        while backend.asked() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        while proxy.worker.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(proxy.tally.site(0, SiteCell::ClientGone), 1);
        assert_eq!(
            proxy.tally.backend(0, BackendCell::Begun),
            proxy.tally.backend(0, BackendCell::Ended)
        );
    });
}
