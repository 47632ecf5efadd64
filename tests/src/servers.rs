//! The lab's real servers: nginx in front of gunicorn, of a WebSocket and of a gRPC service; dnsmasq for foobar.com.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use foobar::config::{Config, Host};

use crate::{STATE, databases, in_namespace, processes::Processes};

/// Debian packages that the lab runs.
pub const PACKAGES: &[&str] = &[
    "curl",
    "dnsmasq-base",
    "ethtool",
    "galera-4",
    "gunicorn",
    "iproute2",
    "iptables",
    "iputils-ping",
    "mariadb-server",
    "nginx",
    "python3-pymysql",
    "rsync",
    "python3-grpcio",
    "python3-websockets",
    "util-linux",
];

/// Debian's, which has Debian's modules.
pub const PYTHON: &str = "/usr/bin/python3";

/// The web servers among the hosts.
pub fn of(config: &Config) -> impl Iterator<Item = &Host> {
    config
        .hosts
        .values()
        .filter(|host| host.name.starts_with("web"))
}

/// Starts the name server of foobar.com in `client`.
///
/// # Errors
/// When it cannot be started.
pub fn start_names(config: &Config, processes: &Processes) -> Result<()> {
    let mut command = in_namespace("client", "dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--bind-interfaces",
        "--listen-address=203.0.113.1,127.0.0.1",
        "--pid-file",
        "--user=root",
    ]);
    if let Some(balancer) = config.hosts.get("lb1") {
        for address in balancer.public.iter() {
            command.arg(format!("--address=/foobar.com/{address}"));
        }
    }
    processes.spawn("dnsmasq", &mut command)
}

/// Starts gunicorn and nginx of a server.
///
/// # Errors
/// When one cannot be started.
pub fn start_web(server: &Host, certificates: &Path, processes: &Processes) -> Result<()> {
    let name = &server.name;
    let home = home(name);
    for directory in ["static", "tmp"] {
        fs::create_dir_all(home.join(directory))
            .with_context(|| format!("cannot make {}", home.display()))?;
    }
    fs::write(home.join("static/1k"), vec![b'k'; 1024])?;
    fs::write(home.join("static/64k"), vec![b'K'; 65_536])?;
    fs::write(home.join("application.py"), APPLICATION)?;
    let application = application_address(name)?;
    fs::write(
        home.join("nginx.conf"),
        nginx_configuration(&home, name, certificates, application),
    )?;
    fs::write(home.join("websocket.py"), WEBSOCKET)?;
    fs::write(home.join("grpc_echo.py"), GRPC)?;
    let mut command = in_namespace(&self::application(name), "gunicorn");
    command
        .args([
            "--workers=1",
            &format!("--threads={THREADS}"),
            &format!("--bind={application}:8000"),
            "application:application",
        ])
        .current_dir(&home)
        .env("SERVER", name)
        .env("DATABASE", BALANCER)
        .env("DATABASE_USER", databases::APPLICATION.0)
        .env("DATABASE_PASSWORD", databases::APPLICATION.1)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    processes.spawn(&format!("gunicorn-{name}"), &mut command)?;
    for program in ["websocket", "grpc_echo"] {
        let mut command = in_namespace(name, PYTHON);
        command
            .arg(format!("{program}.py"))
            .current_dir(&home)
            .env("SERVER", name)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        processes.spawn(&format!("{program}-{name}"), &mut command)?;
    }
    start_nginx(name, processes)
}

/// # Errors
/// When it cannot be started.
pub fn start_nginx(server: &str, processes: &Processes) -> Result<()> {
    let home = home(server);
    let mut command: Command = in_namespace(server, "nginx");
    command
        .arg("-p")
        .arg(&home)
        .arg("-e")
        .arg(home.join("error.log"))
        .arg("-c")
        .arg(home.join("nginx.conf"));
    processes.spawn(&format!("nginx-{server}"), &mut command)
}

fn home(server: &str) -> PathBuf {
    Path::new(STATE).join(server)
}

/// The namespace of a server's application: `app1` beside `web1`.
#[must_use]
pub fn application(server: &str) -> String {
    server.replace("web", "app")
}

/// # Errors
/// When the server has no number.
pub fn application_address(server: &str) -> Result<Ipv4Addr> {
    let number: u8 = server
        .trim_start_matches("web")
        .parse()
        .with_context(|| format!("{server} is not web1, web2, …"))?;
    Ok(Ipv4Addr::new(10, 0, 1, 10 + number))
}

/// 80 and 8443 (the certificate of the public name) for what XDP balances; 8444 and 8445 (HTTP/2, for gRPC) with mutual
/// TLS for the proxy.
fn nginx_configuration(
    home: &Path,
    server: &str,
    certificates: &Path,
    application: Ipv4Addr,
) -> String {
    let home = home.display();
    let tls = certificates.display();
    let inside = format!(
        "ssl_certificate {tls}/{server}.pem; ssl_certificate_key {tls}/{server}.key;\n\
             ssl_client_certificate {tls}/internal-ca.pem; ssl_verify_client on;\n"
    );
    let locations = format!(
        "location /static/ {{ root {home}; }}\n\
             location /websocket {{\n\
               proxy_pass http://127.0.0.1:8001;\n\
               proxy_http_version 1.1;\n\
               proxy_set_header Upgrade $http_upgrade;\n\
               proxy_set_header Connection upgrade;\n\
               proxy_read_timeout 1h;\n\
             }}\n\
             location / {{\n\
               proxy_pass http://{application}:8000;\n\
               proxy_http_version 1.1;\n\
               proxy_set_header Host $host;\n\
               proxy_set_header X-Peer $remote_addr;\n\
               proxy_set_header X-Certificate $ssl_client_s_dn;\n\
             }}\n"
    );
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {home}/nginx.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off;\n\
           keepalive_requests 1000000;\n\
           client_max_body_size 64m;\n\
           client_body_temp_path {home}/tmp; proxy_temp_path {home}/tmp;\n\
           fastcgi_temp_path {home}/tmp; uwsgi_temp_path {home}/tmp; scgi_temp_path {home}/tmp;\n\
           server {{\n\
             listen 80; listen [::]:80; listen 8443 ssl; listen [::]:8443 ssl;\n\
             ssl_certificate {tls}/www.pem; ssl_certificate_key {tls}/www.key;\n\
             {locations}\
           }}\n\
           server {{\n\
             listen 8444 ssl; listen [::]:8444 ssl;\n\
             {inside}\
             {locations}\
           }}\n\
           server {{\n\
             listen 8445 ssl http2; listen [::]:8445 ssl http2;\n\
             {inside}\
             location = /healthz {{ return 200; }}\n\
             location / {{ grpc_pass grpc://127.0.0.1:8002; }}\n\
           }}\n\
         }}\n"
    )
}

/// Where the application finds its databases: writes at 3306, reads at 3307.
const BALANCER: &str = "10.0.0.10";
/// Of each gunicorn: no fewer than the slow requests that a test has under way at once, wherever they are steered.
const THREADS: usize = 32;

/// Says back what it is told; `who` asks for the server's name.
const WEBSOCKET: &str = r#"import asyncio, os
import websockets

async def echo(socket):
    async for message in socket:
        await socket.send(os.environ["SERVER"] if message == "who" else message)

async def main():
    async with websockets.serve(echo, "127.0.0.1", 8001):
        await asyncio.Future()

asyncio.run(main())
"#;

/// Says back what it is told, once or often, and fails on request; bytes stand for messages, so that no compiler of
/// protocol buffers is needed.
const GRPC: &str = r#"import concurrent.futures, grpc

def echo(request, context):
    context.set_trailing_metadata((("x-length", str(len(request))),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as was asked")
    return request

def chat(requests, context):
    for request in requests:
        yield request

server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Echo", {
    "Once": grpc.unary_unary_rpc_method_handler(echo),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}),))
server.add_insecure_port("127.0.0.1:8002")
server.start()
server.wait_for_termination()
"#;

const APPLICATION: &str = r#"import json, os, time
from urllib.parse import parse_qs
import pymysql

SERVER = os.environ["SERVER"]

def database(port):
    return pymysql.connect(host=os.environ["DATABASE"], port=port, user=os.environ["DATABASE_USER"],
        password=os.environ["DATABASE_PASSWORD"], database="shop", connect_timeout=2, read_timeout=5, write_timeout=5,
        autocommit=True)

def write():
    with database(3306) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO visits (who) VALUES (%s)", (SERVER,))
        written = cursor.lastrowid
        cursor.execute("SELECT @@server_id")
        return {"wrote": written, "database": cursor.fetchone()[0]}

def read():
    with database(3307) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*), @@server_id FROM visits")
        rows, server = cursor.fetchone()
        return {"rows": rows, "database": server}

def application(environ, start_response):
    path = environ["PATH_INFO"]
    status, kind, body = "200 OK", "text/plain", b"ok\n"
    if path == "/whoami":
        headers = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
        body = json.dumps({"server": SERVER, "peer": headers.get("x-peer"), "headers": headers}).encode() + b"\n"
        kind = "application/json"
    elif path == "/slow":
        time.sleep(int(parse_qs(environ["QUERY_STRING"]).get("ms", ["0"])[0]) / 1000)
    elif path == "/echo":
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        kind = environ.get("CONTENT_TYPE") or "application/octet-stream"
    elif path in ("/db/write", "/db/read"):
        kind = "application/json"
        try:
            body = json.dumps(write() if path == "/db/write" else read()).encode() + b"\n"
        except pymysql.MySQLError as error:
            status, body = "503 Service Unavailable", json.dumps({"error": str(error)}).encode() + b"\n"
    elif path != "/healthz":
        status, body = "404 Not Found", b"not here\n"
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
"#;
