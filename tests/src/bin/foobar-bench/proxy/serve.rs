//! foobar's proxy with one worker, from a configuration file to its listener, without the packet path.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    thread,
    time::SystemTime,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use foobar::{
    balancer::Availability,
    config::{self, Config},
    proxy::{
        AccessTap, BackendTls, Memory, Shared, Site, SiteBackend, Sites,
        admission::Admission,
        crew::{Crew, Standing},
        material::{Material, TicketBook},
        sockets::Sockets,
        welcome::{Doorway, Purpose},
    },
    tally::Tally,
};
use tokio::sync::mpsc;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    backend: SocketAddr,
    /// Where the certificates are.
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    mutual_tls: bool,
}

/// Serves until it is killed.
pub(super) fn run(options: &Options) -> Result<()> {
    let config = configuration(options)?;
    let mut tickets = TicketBook::default();
    let material = Material::read(
        &config,
        "lb1",
        &BTreeMap::new(),
        &mut tickets,
        SystemTime::now(),
    )
    .map_err(|flaws| anyhow!("{flaws:?}"))?;
    let service = config.l7.get("www").context("no site")?.clone();
    let backend = service.backends.first().context("no backend")?;
    let upstream = material
        .backends
        .get("www")
        .and_then(|side| side.of(&backend.host, backend.port));
    let site = Site {
        name: "www".into(),
        id: 0,
        backends: vec![SiteBackend {
            name: "web1".into(),
            id: 0,
            address: options.backend,
            weight: 1,
            availability: Availability::Up,
            since: None,
            tls: upstream.map(|upstream| BackendTls {
                config: upstream.config.clone(),
                name: upstream.name.clone(),
            }),
        }],
        pages: BTreeMap::new(),
        maintenance_page: None,
        service,
    };
    let standing = Standing {
        doorway: Arc::new(Doorway {
            fronts: material.fronts.clone(),
            ids: [("www".to_owned(), 0)].into(),
            ..Doorway::default()
        }),
        sites: Arc::new(Sites::new(1, vec![site], HashMap::new())),
        endpoints: [(options.listen, Purpose::Tls)].into(),
    };
    let (reports, _inbox) = mpsc::channel(1);
    let shared = Shared {
        tally: Tally::private(),
        reports,
        access: AccessTap::new(mpsc::channel(1).0),
        memory: Memory::new(7),
    };
    let _crew = Crew::start(
        1,
        Sockets::default(),
        standing,
        Admission::new(&config.proxy, shared.tally.clone()),
        shared,
    )?;
    loop {
        thread::park();
    }
}

/// The defaults, without the bounds that one benching client would meet.
fn configuration(options: &Options) -> Result<Config> {
    let home = options.directory.display();
    let behind = if options.mutual_tls {
        format!(
            "backend-tls = {{ ca = \"{home}/ca.pem\", cert = \"{home}/lb1.pem\", key = {{ file = \"{home}/lb1.key\" }} }}"
        )
    } else {
        String::new()
    };
    let text = format!(
        r#"version = 1
[hosts]
lb1 = {{ public = ["192.0.2.1"], private = "10.0.0.1" }}
web1 = {{ private = "10.0.0.11" }}
[nodes]
lb1 = {{ wan = {{ dev = "eth0" }} }}
[proxy]
max-connections-per-client = 50_000
handshakes-per-client = "1M/s"
[l7.www]
on = "lb1"
listen = "public:443"
hosts = ["www.foobar.com"]
tls = {{ cert = "{home}/www.foobar.com.pem", key = {{ file = "{home}/www.foobar.com.key" }} }}
backends = [{{ host = "web1", port = 80 }}]
limits = {{ requests-per-connection = 1_000_000_000 }}
timeouts = {{ idle = "5m" }}
{behind}
"#
    );
    let mut config = config::parse(&text, &options.directory.join("foobar.toml"))
        .map_err(|errors| anyhow!("{}", errors.render(false, 120)))?;
    let Some(service) = config.l7.get_mut("www") else {
        bail!("no site");
    };
    // The addresses of the estate are not this machine's.
    service.listen = vec![options.listen];
    Ok(config)
}
