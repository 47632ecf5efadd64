//! The lab's real servers: nginx in front of gunicorn, and dnsmasq for foobar.com.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use foobar::config::{Config, Host};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{STATE, in_namespace, processes::Processes};

/// Debian packages that the lab runs.
pub const PACKAGES: &[&str] = &[
    "curl",
    "dnsmasq-base",
    "ethtool",
    "gunicorn",
    "iproute2",
    "iputils-ping",
    "nginx",
    "util-linux",
];

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

/// Certificate and key of www.foobar.com; the authority is left as `ca.pem`.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// # Errors
/// When a file cannot be written.
pub fn write_certificates(directory: &Path) -> Result<Certificate> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "foobar lab");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = ["www.foobar.com".to_owned(), "foobar.com".to_owned()];
    let leaf = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let certificate = Certificate {
        chain: directory.join("www.pem"),
        key: directory.join("www.key"),
    };
    fs::write(directory.join("ca.pem"), authority.pem())?;
    fs::write(&certificate.chain, leaf.pem())?;
    fs::write(&certificate.key, key.serialize_pem())?;
    Ok(certificate)
}

/// Starts gunicorn and nginx of a server.
///
/// # Errors
/// When one cannot be started.
pub fn start_web(server: &Host, certificate: &Certificate, processes: &Processes) -> Result<()> {
    let name = &server.name;
    let home = home(name);
    for directory in ["static", "tmp"] {
        fs::create_dir_all(home.join(directory))
            .with_context(|| format!("cannot make {}", home.display()))?;
    }
    fs::write(home.join("static/1k"), vec![b'k'; 1024])?;
    fs::write(home.join("static/64k"), vec![b'K'; 65_536])?;
    fs::write(home.join("application.py"), APPLICATION)?;
    fs::write(
        home.join("nginx.conf"),
        nginx_configuration(&home, certificate),
    )?;
    let mut command = in_namespace(name, "gunicorn");
    command
        .args([
            "--workers=1",
            "--threads=8",
            "--bind=127.0.0.1:8000",
            "application:application",
        ])
        .current_dir(&home)
        .env("SERVER", name)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    processes.spawn(&format!("gunicorn-{name}"), &mut command)?;
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

fn nginx_configuration(home: &Path, certificate: &Certificate) -> String {
    let home = home.display();
    let chain = certificate.chain.display();
    let key = certificate.key.display();
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {home}/nginx.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off;\n\
           client_body_temp_path {home}/tmp; proxy_temp_path {home}/tmp;\n\
           fastcgi_temp_path {home}/tmp; uwsgi_temp_path {home}/tmp; scgi_temp_path {home}/tmp;\n\
           server {{\n\
             listen 80; listen [::]:80; listen 8443 ssl; listen [::]:8443 ssl;\n\
             ssl_certificate {chain}; ssl_certificate_key {key};\n\
             location /static/ {{ root {home}; }}\n\
             location / {{\n\
               proxy_pass http://127.0.0.1:8000;\n\
               proxy_set_header Host $host;\n\
               proxy_set_header X-Peer $remote_addr;\n\
             }}\n\
           }}\n\
         }}\n"
    )
}

const APPLICATION: &str = r#"import json, os, time
from urllib.parse import parse_qs

SERVER = os.environ["SERVER"]

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
    elif path != "/healthz":
        status, body = "404 Not Found", b"not here\n"
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
"#;
