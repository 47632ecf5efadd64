//! Sites for tests, a proxy on a real socket, and backends that do as they are told.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, LocalSet, spawn_local},
};

use super::{
    AccessRecord, AccessTap, HttpVersion, Memory, Peer, Report, Shared, Site, SiteBackend, Sites,
    TlsFacts, Worker,
};
use crate::{
    balancer::Availability,
    config::{self, L7Service},
    http::{Chunked, Piece},
    tally::Tally,
};

/// A service as the configuration has it by default, which listens at `listen`.
pub(crate) fn service(name: &str, listen: &str) -> L7Service {
    service_with(name, listen, "")
}

/// The same with more lines of configuration.
pub(crate) fn service_with(name: &str, listen: &str, more: &str) -> L7Service {
    let text = format!(
        "version = 1\n[hosts]\nlb1 = {{ public = [\"192.0.2.1\"], private = \"10.0.0.1\" }}\n\
         web1 = {{ private = \"10.0.0.11\" }}\n[sets]\njail = {{ max = 100, timeout = \"1m\" }}\n\
         [nodes]\nlb1 = {{ wan = {{ dev = \"eth0\" }} }}\n[l7.{name}]\non = \"lb1\"\nlisten = \"public:443\"\n\
         tls = {{ cert = \"/c\", key = {{ file = \"/k\" }} }}\n\
         backends = [{{ host = \"web1\", port = 80 }}]\n{more}\n"
    );
    let config = config::parse(&text, "/etc/foobar/foobar.toml".as_ref())
        .map_err(|errors| errors.render(false, 120))
        .unwrap_or_else(|errors| panic!("{errors}"));
    let mut service = config.l7[name].clone();
    service.listen = vec![listen.parse().unwrap()];
    service
}

/// Each service with its backends.
pub(crate) fn sites_of(services: Vec<(L7Service, Vec<SocketAddr>)>) -> Sites {
    let mut ids = 0..;
    let sites = services
        .into_iter()
        .enumerate()
        .map(|(index, (service, backends))| Site {
            name: service.name.as_str().into(),
            id: u32::try_from(index).unwrap(),
            backends: backends
                .into_iter()
                .map(|address| backend(ids.next().unwrap(), address))
                .collect(),
            pages: BTreeMap::new(),
            maintenance_page: None,
            service,
        })
        .collect();
    Sites::new(1, sites, HashMap::new())
}

pub(crate) fn sites(services: Vec<L7Service>) -> Sites {
    sites_of(
        services
            .into_iter()
            .map(|service| (service, Vec::new()))
            .collect(),
    )
}

pub(crate) fn backend(id: u32, address: SocketAddr) -> SiteBackend {
    SiteBackend {
        name: Arc::from(address.to_string()),
        id,
        address,
        weight: 1,
        availability: Availability::Up,
        since: None,
        tls: None,
    }
}

/// Runs a test on a thread as a worker has it.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let test = async {
        tokio::time::timeout(Duration::from_secs(30), test)
            .await
            .unwrap();
    };
    LocalSet::new().block_on(&runtime, test);
}

/// A proxy at a port of its own.
pub(crate) struct Proxy {
    pub(crate) worker: Rc<Worker>,
    pub(crate) address: SocketAddr,
    pub(crate) tally: Tally,
    pub(crate) reports: RefCell<mpsc::Receiver<Report>>,
    pub(crate) records: RefCell<mpsc::Receiver<AccessRecord>>,
    /// What the next connections are taken for.
    pub(crate) tls: Rc<RefCell<Option<TlsFacts>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn new(more: &str, backends: &[&Backend]) -> Self {
        let addresses = backends.iter().map(|backend| backend.address).collect();
        Self::of(move |listen| vec![(service_with("www", listen, more), addresses)]).await
    }

    pub(crate) async fn of(
        services: impl FnOnce(&str) -> Vec<(L7Service, Vec<SocketAddr>)>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (report, reports) = mpsc::channel(100);
        let (access, records) = mpsc::channel(100);
        let access = AccessTap::new(access);
        access.open();
        let tally = Tally::private();
        let shared = Shared {
            tally: tally.clone(),
            reports: report,
            access,
            memory: Memory::new(7),
        };
        let sites = sites_of(services(&address.to_string()));
        let worker = Worker::new(Arc::new(sites), shared);
        let tls = Rc::new(RefCell::new(Some(TlsFacts::default())));
        let accepting = spawn_local(accept(listener, Rc::clone(&worker), Rc::clone(&tls)));
        Self {
            worker,
            address,
            tally,
            reports: RefCell::new(reports),
            records: RefCell::new(records),
            tls,
            accepting,
        }
    }

    pub(crate) async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(crate) fn speak_http2(&self) {
        self.tls.replace(Some(TlsFacts {
            alpn: Some(HttpVersion::Http2),
            ..TlsFacts::default()
        }));
    }

    /// Sends bytes on a new connection and reads until it ends.
    pub(crate) async fn send(&self, bytes: &[u8]) -> String {
        let mut client = self.client().await;
        client.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A GET on a new connection.
    pub(crate) async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        self.send(request.as_bytes()).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, worker: Rc<Worker>, tls: Rc<RefCell<Option<TlsFacts>>>) {
    while let Ok((stream, client)) = listener.accept().await {
        let peer = Peer {
            client,
            local: stream.local_addr().unwrap(),
            tls: tls.borrow().clone(),
        };
        stream.set_nodelay(true).unwrap();
        spawn_local(super::serve(stream, peer, Rc::clone(&worker)));
    }
}

/// What a backend does with a request.
pub(crate) enum Reply {
    /// Says this and waits for the next request.
    Say(String),
    /// Says this and closes.
    SayAndClose(String),
    /// Closes with a reset.
    Reset,
    /// Closes with a reset, and listens no more.
    Die,
    /// Says nothing for so long, then this.
    Wait(Duration, String),
    /// Says this, then sends back all that comes.
    Echo(String),
}

impl Reply {
    pub(crate) fn ok(body: &str) -> Self {
        Self::Say(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

/// A backend that notes what it was asked.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) heads: Rc<RefCell<Vec<String>>>,
    pub(crate) bodies: Rc<RefCell<Vec<Vec<u8>>>>,
    pub(crate) connections: Rc<Cell<usize>>,
    accepting: Rc<RefCell<Option<JoinHandle<()>>>>,
}

impl Backend {
    pub(crate) async fn new(reply: impl Fn(&str) -> Reply + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::at(listener, reply)
    }

    pub(crate) fn at(listener: TcpListener, reply: impl Fn(&str) -> Reply + 'static) -> Self {
        let backend = Self {
            address: listener.local_addr().unwrap(),
            heads: Rc::default(),
            bodies: Rc::default(),
            connections: Rc::default(),
            accepting: Rc::default(),
        };
        let reply: Rc<dyn Fn(&str) -> Reply> = Rc::new(reply);
        let (heads, bodies) = (Rc::clone(&backend.heads), Rc::clone(&backend.bodies));
        let connections = Rc::clone(&backend.connections);
        let own = Rc::clone(&backend.accepting);
        let accepting = spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.set(connections.get() + 1);
                let talk = Talk {
                    stream,
                    heads: Rc::clone(&heads),
                    bodies: Rc::clone(&bodies),
                    accepting: Rc::clone(&own),
                };
                spawn_local(talk.run(Rc::clone(&reply)));
            }
        });
        backend.accepting.replace(Some(accepting));
        backend
    }

    pub(crate) fn asked(&self) -> usize {
        self.heads.borrow().len()
    }
}

struct Talk {
    stream: TcpStream,
    heads: Rc<RefCell<Vec<String>>>,
    bodies: Rc<RefCell<Vec<Vec<u8>>>>,
    accepting: Rc<RefCell<Option<JoinHandle<()>>>>,
}

impl Talk {
    async fn run(mut self, reply: Rc<dyn Fn(&str) -> Reply>) {
        let mut bytes = Vec::new();
        while let Some(head) = self.head(&mut bytes).await {
            self.heads.borrow_mut().push(head.clone());
            let body = self.body(&head, &mut bytes).await;
            self.bodies.borrow_mut().push(body);
            match reply(&head) {
                Reply::Say(text) => self.stream.write_all(text.as_bytes()).await.unwrap_or(()),
                Reply::SayAndClose(text) => {
                    let _ = self.stream.write_all(text.as_bytes()).await;
                    return;
                }
                Reply::Wait(time, text) => {
                    tokio::time::sleep(time).await;
                    let _ = self.stream.write_all(text.as_bytes()).await;
                }
                Reply::Echo(text) => {
                    let _ = self.stream.write_all(text.as_bytes()).await;
                    let (mut read, mut write) = self.stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    return;
                }
                Reply::Reset => {
                    let _ = self.stream.set_zero_linger();
                    return;
                }
                Reply::Die => {
                    if let Some(accepting) = self.accepting.take() {
                        accepting.abort();
                    }
                    tokio::task::yield_now().await;
                    let _ = self.stream.set_zero_linger();
                    return;
                }
            }
        }
    }

    async fn head(&mut self, bytes: &mut Vec<u8>) -> Option<String> {
        loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = bytes.split_off(end + 4);
                let head = String::from_utf8(std::mem::replace(bytes, rest)).unwrap();
                return Some(head);
            }
            if self.stream.read_buf(bytes).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// By the length that the head says, or to the last chunk, whose coding is left as it is.
    async fn body(&mut self, head: &str, bytes: &mut Vec<u8>) -> Vec<u8> {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        loop {
            let end = match length {
                Some(length) => (bytes.len() >= length).then_some(length),
                None if head.contains("transfer-encoding: chunked") => chunked_end(bytes),
                None => Some(0),
            };
            if let Some(end) = end {
                let rest = bytes.split_off(end);
                return std::mem::replace(bytes, rest);
            }
            if self.stream.read_buf(bytes).await.unwrap_or(0) == 0 {
                return std::mem::take(bytes);
            }
        }
    }
}

/// Where a chunked body that begins here ends.
fn chunked_end(bytes: &[u8]) -> Option<usize> {
    let (mut chunked, mut at) = (Chunked::default(), 0);
    loop {
        match chunked.next(&bytes[at..]).ok()? {
            Piece::Data(range) => at += range.end,
            Piece::End(end) => return Some(at + end),
            Piece::Incomplete(_) => return None,
        }
    }
}
