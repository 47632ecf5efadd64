//! Servers that monitoring talks to: one that answers as it is told, and faithful to Sumo Logic's rules where asked.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::SystemTime,
};

use foobar_lab::debian;

/// What came in, unpacked.
#[derive(Clone, Debug)]
pub struct Request {
    pub kind: String,
    pub headers: BTreeMap<String, String>,
    pub path: String,
    pub text: Vec<u8>,
    pub at: SystemTime,
}

#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    /// What the real service would have thrown away without a word.
    complaint: Option<String>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            complaint: None,
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Request>,
    complaints: Vec<String>,
}

type Answers = dyn FnMut(&Request) -> Reply + Send;

/// An HTTP server in a namespace of the lab, which it may be older than.
pub struct Collector {
    namespace: &'static str,
    address: &'static str,
    reply: Arc<Mutex<Answers>>,
    seen: Arc<Mutex<Seen>>,
}

impl Collector {
    pub fn in_namespace(
        namespace: &'static str,
        address: &'static str,
        reply: impl FnMut(&Request) -> Reply + Send + 'static,
    ) -> Self {
        Self {
            namespace,
            address,
            reply: Arc::new(Mutex::new(reply)),
            seen: Arc::default(),
        }
    }

    /// Begins to listen.
    pub fn open(&self) {
        let (namespace, address) = (self.namespace, self.address);
        // A socket keeps the namespace that it was made in.
        let listener = within_namespace(namespace, || TcpListener::bind(address).expect("bound"));
        let (reply, seen) = (self.reply.clone(), self.seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (reply, seen) = (reply.clone(), seen.clone());
                thread::spawn(move || converse(stream, &reply, &seen));
            }
        });
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic").requests.clone()
    }

    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.requests()
            .into_iter()
            .map(|request| request.text)
            .collect()
    }

    pub fn complaints(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").complaints.clone()
    }
}

/// What `act` answers in a namespace of the lab, on a thread of its own: a namespace is a thread's.
pub fn within_namespace<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            let file = File::open(Path::new("/run/netns").join(namespace)).expect("a namespace");
            enter(&file);
            act()
        });
        done.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn enter(namespace: &File) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: takes a descriptor, which is open, and a flag.
    let result = unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn converse(stream: TcpStream, reply: &Mutex<Answers>, seen: &Mutex<Seen>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    let mut stream = stream;
    while let Some(request) = read(&mut reader) {
        let reply = (reply.lock().expect("no panic"))(&request);
        let mut seen = seen.lock().expect("no panic");
        seen.complaints.extend(reply.complaint.clone());
        if (200..300).contains(&reply.status) {
            seen.requests.push(request);
        }
        drop(seen);
        let mut text = format!("HTTP/1.1 {} x\r\ncontent-length: 0\r\n", reply.status);
        for (name, value) in &reply.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if stream.write_all(format!("{text}\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl std::io::BufRead) -> Option<Request> {
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
            None => break,
        }
    }
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let text = match headers.get("content-encoding").map(String::as_str) {
        Some("gzip") => {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(body.as_slice())
                .read_to_end(&mut text)
                .ok()?;
            text
        }
        _ => body,
    };
    Some(Request {
        kind: headers.get("content-type").cloned().unwrap_or_default(),
        headers,
        path,
        text,
        at: SystemTime::now(),
    })
}

/// An HTTP source of Sumo Logic by its documentation: 503 at first, then 429 once; what it would drop is a complaint.
pub fn sumo_logic() -> impl FnMut(&Request) -> Reply + Send {
    let mut asked = 0;
    move |request| {
        asked += 1;
        if !request.path.ends_with("/s3cret") {
            return Reply::status(401);
        }
        match asked {
            1 => return Reply::status(503),
            2 => {
                return Reply {
                    headers: vec![("retry-after", "1".to_owned())],
                    ..Reply::status(429)
                };
            }
            _ => {}
        }
        Reply {
            complaint: complaint(request),
            ..Reply::status(200)
        }
    }
}

fn complaint(request: &Request) -> Option<String> {
    if request.text.len() > 1_000_000 {
        return Some(format!(
            "{} bytes, more than a megabyte",
            request.text.len()
        ));
    }
    if request.headers.get("x-sumo-category").map(String::as_str) != Some("test/foobar") {
        return Some("no category".to_owned());
    }
    if request.headers.get("content-encoding").map(String::as_str) != Some("gzip") {
        return Some("not compressed".to_owned());
    }
    let text = String::from_utf8_lossy(&request.text);
    match request.kind.as_str() {
        "application/vnd.sumologic.prometheus" => text
            .lines()
            .find(|line| !is_sample(line))
            .map(|line| format!("this line is dropped: {line}")),
        "text/plain; charset=utf-8" => text
            .contains("foobar_build_info")
            .then(|| "metrics are stored as logs".to_owned()),
        other => Some(format!("stored as logs for its type: {other}")),
    }
}

/// `name{label="value",…} number milliseconds`
fn is_sample(line: &str) -> bool {
    let Some((head, rest)) = line.rsplit_once("} ") else {
        return false;
    };
    let mut words = rest.split(' ');
    let number = words.next().and_then(|word| word.parse::<f64>().ok());
    let time = words.next().and_then(|word| word.parse::<u64>().ok());
    !line.starts_with('#')
        && head.contains("=\"")
        && number.is_some_and(f64::is_finite)
        && time.is_some_and(|time| time > 1_600_000_000_000)
}

/// A store that takes OTLP: Debian 12 has none, the next one has (1.112).
pub fn victoria_metrics() -> Command {
    let root = debian::unpacked("victoria-metrics", "trixie", &["victoria-metrics"])
        .unwrap_or_else(|error| panic!("no VictoriaMetrics from Debian: {error:#}"));
    debian::program(&root, "usr/bin/victoria-metrics")
}
