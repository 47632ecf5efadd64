//! Asks the domain name system for addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolveHosts,
        ResolverConfig, ResolverOpts,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
};

/// Who is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameServer {
    /// Those of /etc/resolv.conf.
    OfThisMachine,
    At(SocketAddr),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    #[error("cannot read /etc/resolv.conf")]
    Setup(#[source] NetError),
    #[error("no answer to a question for its addresses")]
    Lookup(#[source] NetError),
}

/// The addresses of a name, of both families; the machine's own hosts file is not asked.
///
/// # Errors
/// When there is no name server, no answer, or no such name.
pub async fn addresses(name: &str, server: NameServer) -> Result<Vec<IpAddr>, NamesError> {
    let resolver = resolver(server).map_err(NamesError::Setup)?;
    // With the final dot no search domain is tried.
    let answer = resolver
        .lookup_ip(format!("{}.", name.trim_end_matches('.')))
        .await
        .map_err(NamesError::Lookup)?;
    Ok(answer.iter().collect())
}

fn resolver(server: NameServer) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        NameServer::OfThisMachine => TokioResolver::builder_tokio()?,
        NameServer::At(server) => TokioResolver::builder_with_config(
            ResolverConfig::from_parts(None, Vec::new(), vec![at(server)]),
            TokioRuntimeProvider::default(),
        ),
    };
    patient(builder.options_mut());
    builder.build()
}

fn at(server: SocketAddr) -> NameServerConfig {
    let connection = |protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = server.port();
        connection
    };
    NameServerConfig::new(
        server.ip(),
        true,
        vec![
            connection(ProtocolConfig::Udp),
            connection(ProtocolConfig::Tcp),
        ],
    )
}

fn patient(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
}
