//! A service that resets: whoever loses a backend hears of it at once, on both ends, idle or not. Needs root.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    time::SystemTime,
};

use foobar_lab::{
    estate::Estate,
    in_namespace,
    patience::{holds_within, within},
};
use serde::Deserialize;

/// Connections that say nothing.
const CLIENTS: usize = 900;

#[test]
fn idle_clients_of_a_lost_backend_are_reset_and_the_others_are_not() {
    let estate = Estate::up();
    estate.rewrite(
        "on-backend-loss = \"resteer\"",
        "on-backend-loss = \"reset\"",
    );
    estate.foobar(&["reload"]);
    let mut clients = Clients::connect(CLIENTS);
    let connections = || ["web1", "web2", "web3"].map(|server| estate.connections_of(server));
    let [first, lost, third] = within(60, "the servers have them all", || {
        let found = connections();
        (found.iter().sum::<usize>() == CLIENTS).then_some(found)
    });

    let cut = now();
    estate.foobar(&["backend", "disable", "plain", "web2"]);
    let heard = clients.wait_for_resets(lost);

    assert_eq!((heard.resets, heard.others), (lost, 0));
    holds_within(60, "the server heard of it too", || {
        estate.connections_of("web2") == 0
    });
    assert_eq!(estate.connections_of("web1"), first);
    assert_eq!(estate.connections_of("web3"), third);
    drop(clients);
    println!(
        "{lost} clients reset {:.1} to {:.1} ms after the command began",
        (heard.first - cut) * 1e3,
        (heard.last - cut) * 1e3
    );

    let refused = |estate: &Estate| {
        let url = "http://203.0.113.10:8080/healthz";
        let output = estate
            .lab
            .run("client", &["curl", "-sS", "-m3", url])
            .expect("curl");
        // Not 28, which would be a time-out.
        output.status.code() == Some(7)
    };
    assert!(!refused(&estate), "two servers are left");
    for server in ["web1", "web3"] {
        estate.foobar(&["backend", "disable", "plain", server]);
    }
    holds_within(
        60,
        "nobody is left, and a client is told so at once",
        || refused(&estate),
    );
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_secs_f64()
}

/// Many connections from the internet, held by a process there.
struct Clients(Child);

#[derive(Debug, Deserialize)]
struct Heard {
    resets: usize,
    /// Connections that ended in another way, or said something.
    others: usize,
    /// Unix seconds.
    first: f64,
    last: f64,
}

impl Clients {
    fn connect(count: usize) -> Self {
        let mut child = in_namespace("client", "python3")
            .args(["-c", HOLD, &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("piped");
        // One byte at a time: what comes later is for another reader.
        BufReader::with_capacity(1, out)
            .read_line(&mut line)
            .expect("UTF-8");
        assert_eq!(line, "connected\n");
        Self(child)
    }

    /// What is heard until so many were reset, and for a second more; or within a minute.
    fn wait_for_resets(&mut self, expected: usize) -> Heard {
        use std::io::Write as _;
        let order = self.0.stdin.as_mut().expect("piped");
        writeln!(order, "{expected}").expect("it listens");
        let mut line = String::new();
        let out = self.0.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("UTF-8");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const HOLD: &str = r#"
import json, select, socket, sys, threading, time
held = {}
watch = select.epoll()
for _ in range(int(sys.argv[1])):
    s = socket.create_connection(("203.0.113.10", 8080), 30)
    s.setblocking(False)
    held[s.fileno()] = s
    watch.register(s, select.EPOLLIN)
print("connected", flush=True)
heard = {"resets": 0, "others": 0, "first": 0.0, "last": 0.0}
expected, end = [], None
threading.Thread(target=lambda: expected.append((int(sys.stdin.readline()), time.time() + 60)), daemon=True).start()
while end is None or time.time() < end:
    if expected and end is None and (heard["resets"] >= expected[0][0] or time.time() > expected[0][1]):
        end = time.time() + 1
    for fd, _ in watch.poll(0.05):
        try:
            held[fd].recv(1)
            heard["others"] += 1
        except ConnectionResetError:
            heard["resets"] += 1
            heard["last"] = time.time()
            heard["first"] = heard["first"] or heard["last"]
        watch.unregister(fd)
print(json.dumps(heard), flush=True)
time.sleep(60)
"#;
