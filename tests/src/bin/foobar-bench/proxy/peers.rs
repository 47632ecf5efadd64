//! The proxies under test and the backend behind them.

use std::{
    collections::HashMap,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::{
    backend::Backend,
    load,
    questions::{Answer, Question},
};

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Peer {
    Foobar,
    Nginx,
    Haproxy,
}

/// How the backend is reached.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Behind {
    Clear,
    MutualTls,
}

impl Peer {
    pub(super) const ALL: [Self; 3] = [Self::Foobar, Self::Nginx, Self::Haproxy];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Foobar => "foobar",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}

/// The backend, and the proxies that were needed so far.
pub(super) struct Bench {
    directory: PathBuf,
    client_cores: String,
    backend: Backend,
    backend_port: u16,
    backend_tls_port: u16,
    proxies: HashMap<(Peer, Behind), (Process, u16)>,
}

/// A process of the bench, ended with it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A proxy that is being measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) port: u16,
    pid: u32,
}

impl Target {
    /// Processor time so far.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let (_, fields) = stat.rsplit_once(')').context("no stat")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory in KB.
    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("no VmRSS")?.parse()?)
    }
}

impl Bench {
    pub(super) fn start(directory: &Path, cores: usize) -> Result<Self> {
        allow_files()?;
        certificates(directory)?;
        fs::create_dir_all(directory.join("tmp"))?;
        let client_cores = if cores == 2 {
            "1".to_owned()
        } else {
            format!("1-{}", cores - 1)
        };
        let (backend_port, backend_tls_port) = (free_port()?, free_port()?);
        let threads = (cores - 1).min(2);
        let ports = (backend_port, backend_tls_port);
        let backend = Backend::start(&client_cores, threads, ports, directory)?;
        let bench = Self {
            directory: directory.to_owned(),
            client_cores,
            backend,
            backend_port,
            backend_tls_port,
            proxies: HashMap::new(),
        };
        wait_for(backend_port).context("no backend")?;
        Ok(bench)
    }

    pub(super) fn client_cores(&self) -> String {
        self.client_cores.clone()
    }

    pub(super) fn ask(&mut self, question: &Question) -> Result<Answer> {
        self.backend.ask(question)
    }

    pub(super) fn target(&mut self, peer: Peer, behind: Behind) -> Result<Target> {
        if !self.proxies.contains_key(&(peer, behind)) {
            let started = self.proxy(peer, behind)?;
            self.proxies.insert((peer, behind), started);
        }
        let (process, port) = &self.proxies[&(peer, behind)];
        Ok(Target {
            port: *port,
            pid: process.0.id(),
        })
    }

    /// KB that an idle connection costs.
    pub(super) fn idle(&self, peer: Peer, connections: usize) -> Result<f64> {
        let (process, port) = self.proxy(peer, Behind::Clear)?;
        let target = Target {
            port,
            pid: process.0.id(),
        };
        load::warm_up(&self.client_cores, port)?;
        let before = target.memory()?;
        let client = load::hold(&self.client_cores, port, connections)?;
        thread::sleep(Duration::from_secs(1));
        let after = target.memory()?;
        drop(client);
        #[expect(clippy::cast_precision_loss, reason = "a number of connections")]
        Ok((after - before) / connections as f64)
    }

    fn proxy(&self, peer: Peer, behind: Behind) -> Result<(Process, u16)> {
        let port = free_port()?;
        let (backend, directory) = (self.backend_port(behind), &self.directory);
        let name = format!("{}-{behind:?}-{port}", peer.name());
        let process = match peer {
            Peer::Nginx => nginx(
                directory,
                &name,
                &nginx_proxy(directory, port, backend, behind),
                PROXY_CORE,
            )?,
            Peer::Haproxy => {
                let file = directory.join(format!("{name}.cfg"));
                fs::write(&file, haproxy(directory, port, backend, behind))?;
                start(
                    pinned(PROXY_CORE, "haproxy").arg("-f").arg(file),
                    directory,
                    &name,
                )?
            }
            Peer::Foobar => {
                let program = std::env::current_exe()?;
                let mut command = pinned(PROXY_CORE, program.as_os_str());
                command.args(["proxy", "serve", "--listen", &format!("127.0.0.1:{port}")]);
                command.args(["--backend", &format!("127.0.0.1:{backend}")]);
                command.arg("--directory").arg(directory);
                if behind == Behind::MutualTls {
                    command.arg("--mutual-tls");
                }
                start(&mut command, directory, &name)?
            }
        };
        wait_for(port).with_context(|| {
            let log = fs::read_to_string(directory.join(format!("{name}.log")));
            format!("{name} did not start: {}", log.unwrap_or_default())
        })?;
        Ok((process, port))
    }

    const fn backend_port(&self, behind: Behind) -> u16 {
        match behind {
            Behind::Clear => self.backend_port,
            Behind::MutualTls => self.backend_tls_port,
        }
    }
}

const PROXY_CORE: &str = "0";

/// The one that foobar chooses: wrk and h2load would have the others take AES-256 with SHA-384, which costs more.
const CIPHER: &str = "TLS_AES_128_GCM_SHA256";

/// Ten thousand connections are more files than a shell gives; what we start inherits the limit.
fn allow_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

/// A command that runs on these cores alone.
pub(super) fn pinned(cores: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command
}

fn start(command: &mut Command, directory: &Path, name: &str) -> Result<Process> {
    let log = fs::File::create(directory.join(format!("{name}.log")))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    Ok(Process(child))
}

fn nginx(directory: &Path, name: &str, text: &str, cores: &str) -> Result<Process> {
    let file = directory.join(format!("{name}.conf"));
    fs::write(&file, text)?;
    let mut command = pinned(cores, "nginx");
    command.arg("-p").arg(directory).arg("-c").arg(&file);
    command
        .arg("-e")
        .arg(directory.join(format!("{name}.error")));
    start(&mut command, directory, name)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for(port: u16) -> Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if begun.elapsed() > Duration::from_secs(10) {
            bail!("nobody listens on port {port}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// An authority, the site's certificate, the backend's, and the proxy's own; ECDSA P-256.
fn certificates(directory: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "foobar bench");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    fs::write(directory.join("ca.pem"), authority.pem())?;
    for name in ["www.foobar.com", "web1", "lb1"] {
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &authority)?;
        fs::write(directory.join(format!("{name}.pem")), leaf.pem())?;
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem())?;
        let both = leaf.pem() + &key.serialize_pem();
        fs::write(directory.join(format!("{name}.both.pem")), both)?;
    }
    Ok(())
}

fn preamble(directory: &Path, pid: u16) -> String {
    let home = directory.display();
    format!(
        "daemon off; user root; pid {home}/{pid}.pid; worker_rlimit_nofile 65536;\n\
         events {{ worker_connections 32768; }}\n\
         http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_timeout 300s; keepalive_requests 1000000000;\n\
         client_body_temp_path {home}/tmp; proxy_temp_path {home}/tmp; fastcgi_temp_path {home}/tmp;\n\
         uwsgi_temp_path {home}/tmp; scgi_temp_path {home}/tmp; default_type text/plain;\n"
    )
}

fn nginx_proxy(directory: &Path, port: u16, backend: u16, behind: Behind) -> String {
    let home = directory.display();
    let (scheme, tls) = match behind {
        Behind::Clear => ("http", String::new()),
        Behind::MutualTls => (
            "https",
            format!(
                "proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {home}/lb1.pem; proxy_ssl_certificate_key {home}/lb1.key;\n\
                 proxy_ssl_trusted_certificate {home}/ca.pem; proxy_ssl_verify on; proxy_ssl_name web1;\n"
            ),
        ),
    };
    format!(
        "worker_processes 1; master_process off;\n{}\
         upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port} ssl http2 backlog=4096; server_name www.foobar.com;\n\
         ssl_protocols TLSv1.3; ssl_certificate {home}/www.foobar.com.pem; ssl_certificate_key {home}/www.foobar.com.key;\n\
         ssl_session_tickets on; ssl_conf_command Ciphersuites {CIPHER};\n\
         location / {{ proxy_pass {scheme}://backend; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https;\n\
         proxy_buffer_size 16k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;\n{tls} }} }} }}\n",
        preamble(directory, port)
    )
}

fn haproxy(directory: &Path, port: u16, backend: u16, behind: Behind) -> String {
    let home = directory.display();
    let tls = match behind {
        Behind::Clear => String::new(),
        Behind::MutualTls => format!(
            " ssl crt {home}/lb1.both.pem ca-file {home}/ca.pem verify required verifyhost web1 sni str(web1)"
        ),
    };
    format!(
        "global\n nbthread 1\n maxconn 20000\n no strict-limits\n tune.h2.max-concurrent-streams 100\n\
         defaults\n mode http\n timeout client 300s\n timeout server 60s\n timeout connect 2s\n timeout http-request 10s\n\
         timeout http-keep-alive 300s\n option http-keep-alive\n http-reuse always\n option forwardfor\n\
         frontend www\n bind 127.0.0.1:{port} backlog 4096 ssl crt {home}/www.foobar.com.both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3 ciphersuites {CIPHER}\n\
         http-request set-header X-Forwarded-Proto https\n default_backend web\n\
         backend web\n server web1 127.0.0.1:{backend}{tls}\n"
    )
}
