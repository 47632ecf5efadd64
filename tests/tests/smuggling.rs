//! Every request of the smuggling corpus through the real listener, before real servers that must see none. Needs root.

use std::{fs, path::Path};

use foobar_lab::{STATE, estate::Estate, in_namespace, patience::holds_within};

const SERVERS: [&str; 3] = ["web1", "web2", "web3"];

#[test]
fn no_ambiguous_request_reaches_a_server() {
    let estate = Estate::up();
    // The client would end in the jail before it was through.
    estate.rewrite("jail = \"jail\"\n\n# gRPC", "\n# gRPC");
    estate.foobar(&["reload"]);
    SERVERS.iter().for_each(|server| record(server));
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = in_namespace("client", foobar_lab::servers::PYTHON)
        .arg(tests.join("tests/smuggling/client.py"))
        .arg(format!("{STATE}/ca.pem"))
        .arg(tests.join("../foobar-userspace/src/http/corpus.txt"))
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.trim(), "ok", "{complaint}");
    let mut reached: Vec<String> = SERVERS.iter().flat_map(|server| recorded(server)).collect();
    reached.retain(|line| !line.contains("GET /healthz "));
    assert_eq!(reached.len(), 1, "{reached:#?}");
    assert!(
        reached[0].contains("\"GET /good HTTP/1.1\" 404"),
        "{reached:?}"
    );
}

/// Has a server's nginx write down what it is asked.
fn record(server: &str) {
    let home = format!("{STATE}/{server}");
    let file = format!("{home}/nginx.conf");
    let text = fs::read_to_string(&file).expect("a configuration of nginx");
    assert!(text.contains("access_log off;"));
    let text = text.replace("access_log off;", &format!("access_log {home}/access.log;"));
    fs::write(&file, text).expect("written");
    let status = in_namespace(server, "nginx")
        .args([
            "-p",
            &home,
            "-c",
            &file,
            "-e",
            &format!("{home}/error.log"),
            "-s",
            "reload",
        ])
        .status()
        .expect("nginx");
    assert!(status.success());
    // The health checks of the balancer are the first that new workers write down.
    holds_within(
        60,
        &format!("{server} writes down what it is asked"),
        || {
            recorded(server)
                .iter()
                .any(|line| line.contains("/healthz"))
        },
    );
}

fn recorded(server: &str) -> Vec<String> {
    let log = fs::read_to_string(format!("{STATE}/{server}/access.log")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}
