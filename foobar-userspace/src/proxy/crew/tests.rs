//! Workers that come, go and die while connections arrive.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::{
    config::{Proxy, RequestRate},
    proxy::{AccessTap, Memory, samples},
    tally::Tally,
};

async fn begin(endpoint: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream
}

async fn is_answered(mut stream: TcpStream) -> bool {
    let mut start = [0; 8];
    stream.read_exact(&mut start).await.unwrap();
    start == *b"HTTP/1.1"
}

/// One client may do all that a test does.
fn unbounded() -> Proxy {
    Proxy {
        handshakes_per_client: RequestRate {
            requests: 100_000,
            period: Duration::from_secs(1),
            burst: 100_000,
        },
        ..Proxy::default()
    }
}

fn crew() -> (Crew, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = free.local_addr().unwrap();
    drop(free);
    let (reports, _inbox) = mpsc::channel(1);
    let shared = Shared {
        tally: Tally::private(),
        reports,
        access: AccessTap::new(mpsc::channel(1).0),
        memory: Memory::new(7),
    };
    let service = samples::service("www", "192.0.2.1:443");
    let standing = Standing {
        doorway: Arc::default(),
        sites: Arc::new(samples::sites(vec![service])),
        endpoints: [(endpoint, Purpose::Redirect)].into(),
    };
    let admission = Admission::new(&unbounded(), shared.tally.clone());
    let crew = Crew::start(1, Sockets::default(), standing, admission, shared).unwrap();
    (crew, endpoint)
}

#[tokio::test]
async fn a_worker_that_dies_is_hired_again_and_who_came_meanwhile_is_served() {
    let (mut crew, endpoint) = crew();
    assert!(is_answered(begin(endpoint).await).await);
    assert_eq!(crew.look_after(), 0);
    crew.tell(0, Order::Die);
    while !crew.workers[0].thread.is_finished() {
        time::sleep(Duration::from_millis(5)).await;
    }
    let waiting = begin(endpoint).await;
    assert_eq!(crew.look_after(), 1);
    assert!(is_answered(waiting).await);
    assert_eq!(crew.admission().faults(), 1);
    crew.drain(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn workers_come_and_go_and_no_connection_is_lost() {
    let (mut crew, endpoint) = crew();
    for workers in [3, 2, 4, 1, 1, 2] {
        let waiting = futures::future::join_all((0..20).map(|_| begin(endpoint))).await;
        crew.resize(workers, Duration::from_secs(1)).unwrap();
        let came_after = futures::future::join_all((0..20).map(|_| begin(endpoint))).await;
        for stream in waiting.into_iter().chain(came_after) {
            assert!(is_answered(stream).await);
        }
        assert_eq!(crew.size(), workers);
        assert_eq!(crew.look_after(), 0);
    }
    crew.drain(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_fault_in_one_connection_is_counted_and_ends_nothing_else() {
    let admission = Admission::new(&Proxy::default(), Tally::private());
    let faulty = async { panic!("a fault") };
    contained(faulty, admission.clone()).await;
    contained(async {}, admission.clone()).await;
    assert_eq!(admission.faults(), 1);
}
