//! Real handshakes: a site's front against rustls as a client, a backend's side against rustls as a server.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection,
    pki_types::{PrivateKeyDer, ServerName},
};

use super::*;
use crate::{
    config::{self, Config},
    proxy::material::{Material, TicketBook},
};

/// An authority and the files that it signs, in a directory of its own.
struct Pki {
    directory: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("signed");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
        Self {
            directory,
            authority,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, names: &[&str]) {
        self.issue_until(name, names, 2040);
    }

    fn issue_until(&self, name: &str, names: &[&str], year: i32) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("signed");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("written");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    fn config(&self, services: &str) -> Config {
        let text = format!(
            "version = 1\n[hosts]\nlb1 = {{ private = \"10.0.0.10\" }}\nweb1 = {{ private = \"10.0.0.11\" }}\n\
             web2 = {{ private = \"10.0.0.12\" }}\n[nodes]\nlb1 = {{ lan = {{ dev = \"eth0\" }} }}\n{services}"
        );
        config::parse(&text, &self.path("foobar.toml"))
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
    }

    fn material(&self, services: &str) -> Result<Material, Vec<Flaw>> {
        let mut tickets = TicketBook::default();
        self.material_with(services, &mut tickets)
    }

    fn material_with(
        &self,
        services: &str,
        tickets: &mut TicketBook,
    ) -> Result<Material, Vec<Flaw>> {
        let now = SystemTime::now();
        Material::read(
            &self.config(services),
            "lb1",
            &BTreeMap::new(),
            tickets,
            now,
        )
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.authority.der().clone())
            .expect("an authority");
        roots
    }

    fn client(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }
}

fn service(name: &str, hosts: &str, tls: &str, rest: &str) -> String {
    format!(
        "[l7.{name}]\non = \"lb1\"\nlisten = \"private:443\"\nhosts = {hosts}\ntls = {tls}\n\
         backends = [{{ host = \"web1\", port = 8443 }}, {{ host = \"web2\", port = 8443 }}]\n{rest}\n"
    )
}

fn pair(name: &str) -> String {
    format!("{{ cert = \"{name}.pem\", key = {{ file = \"{name}.key\" }} }}")
}

fn endpoint() -> SocketAddr {
    "10.0.0.10:443".parse().expect("an endpoint")
}

/// Both sides to the end of the handshake and of what follows it at once.
fn shake(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
) -> Result<(), rustls::Error> {
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let mut read = &wire[..];
        while !read.is_empty() {
            server.read_tls(&mut read).expect("memory");
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        let mut read = &wire[..];
        while !read.is_empty() {
            client.read_tls(&mut read).expect("memory");
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn meet(
    material: &Material,
    client: &Arc<ClientConfig>,
    name: &'static str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let front = material
        .fronts
        .front(endpoint(), Some(name))
        .expect("a site");
    let offered: Vec<CipherSuite> = client
        .crypto_provider()
        .cipher_suites
        .iter()
        .map(SupportedCipherSuite::suite)
        .collect();
    let mut server = ServerConnection::new(front.terms(&offered).clone())?;
    let server_name = ServerName::try_from(name).expect("a name");
    let mut client = ClientConnection::new(client.clone(), server_name)?;
    shake(&mut client, &mut server)?;
    Ok((client, server))
}

fn told(flaws: &[Flaw]) -> String {
    flaws
        .iter()
        .map(|flaw| format!("{}: {} ({})\n", flaw.place.line, flaw.message, flaw.cure))
        .collect()
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate() {
    let pki = Pki::new();
    pki.issue("www", &["www.foobar.com", "foobar.com"]);
    pki.issue("any", &["*.foobar.com"]);
    let services = service(
        "www",
        "[\"www.foobar.com\", \"foobar.com\"]",
        &pair("www"),
        "",
    ) + &service("any", "\"*.foobar.com\"", &pair("any"), "");
    let material = pki.material(&services).expect("good");
    let client = Arc::new(pki.client());
    for name in ["www.foobar.com", "foobar.com", "app.foobar.com"] {
        let (client, _) = meet(&material, &client, name).expect("trusted");
        assert_eq!(client.alpn_protocol(), None);
    }
    let front = |asked| {
        let front = material.fronts.front(endpoint(), asked);
        front.map(|front| front.service.as_str())
    };
    assert_eq!(front(Some("WWW.foobar.com")), Some("www"));
    assert_eq!(front(Some("a.b.foobar.com")), None, "nobody's name");
    assert_eq!(
        front(None),
        Some("any"),
        "someone answers who asks for no name"
    );
}

#[test]
fn the_cheapest_strong_cipher_is_taken_unless_the_client_has_no_hardware_for_aes() {
    let pki = Pki::new();
    pki.issue("www", &["www.foobar.com"]);
    let services = service("www", "\"www.foobar.com\"", &pair("www"), "");
    let material = pki.material(&services).expect("good");
    let chosen = |first: CipherSuite| {
        let mut provider = (*provider()).clone();
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != first);
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(pki.roots())
            .with_no_client_auth();
        let (client, _) = meet(&material, &Arc::new(client), "www.foobar.com").expect("met");
        client.negotiated_cipher_suite().map(|suite| suite.suite())
    };
    let (aes_128, aes_256, chacha) = (
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    );
    assert_eq!(chosen(aes_256), Some(aes_128));
    assert_eq!(chosen(aes_128), Some(aes_128));
    assert_eq!(chosen(chacha), Some(chacha));
}

#[test]
fn a_session_is_resumed_by_a_ticket_under_rotating_keys() {
    let pki = Pki::new();
    pki.issue("www", &["www.foobar.com"]);
    let mut tickets = TicketBook::default();
    let services = service("www", "\"www.foobar.com\"", &pair("www"), "");
    let mut material = pki.material_with(&services, &mut tickets).expect("good");
    for versions in [
        &[&rustls::version::TLS13][..],
        &[&rustls::version::TLS12][..],
    ] {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(pki.roots())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let kind = |material: &Material| {
            let (client, server) = meet(material, &config, "www.foobar.com").expect("met");
            assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
            server.handshake_kind()
        };
        assert_eq!(kind(&material), Some(HandshakeKind::Full));
        assert_eq!(kind(&material), Some(HandshakeKind::Resumed));
        material = pki
            .material_with(&services, &mut tickets)
            .expect("read again");
        assert_eq!(
            kind(&material),
            Some(HandshakeKind::Resumed),
            "a reload keeps the keys"
        );
        let later = SystemTime::now() + Duration::from_secs(13 * 3_600);
        tickets.refresh(later).expect("randomness");
        assert_eq!(
            kind(&material),
            Some(HandshakeKind::Resumed),
            "the key before still opens"
        );
        tickets
            .refresh(later + Duration::from_secs(13 * 3_600))
            .expect("randomness");
        tickets
            .refresh(later + Duration::from_secs(26 * 3_600))
            .expect("randomness");
        assert_eq!(kind(&material), Some(HandshakeKind::Full));
        assert_eq!(kind(&material), Some(HandshakeKind::Resumed));
        tickets = TicketBook::default();
        material = pki.material_with(&services, &mut tickets).expect("good");
    }
}

#[test]
fn a_session_with_a_client_s_certificate_is_never_resumed() {
    let pki = Pki::new();
    pki.issue("www", &["www.foobar.com"]);
    pki.issue("alice", &["alice"]);
    let tls = "{ cert = \"www.pem\", key = { file = \"www.key\" }, client-ca = \"ca.pem\" }";
    let material = pki
        .material(&service("www", "\"www.foobar.com\"", tls, ""))
        .expect("good");
    let stranger = Arc::new(pki.client());
    assert!(
        meet(&material, &stranger, "www.foobar.com").is_err(),
        "no certificate"
    );
    let alice = Arc::new(
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(pki.roots())
            .with_client_auth_cert(
                pem::chain(PLACE, &pki.path("alice.pem")).expect("a chain"),
                key(&pki.path("alice.key")),
            )
            .expect("hers"),
    );
    for _ in 0..3 {
        let (_, server) = meet(&material, &alice, "www.foobar.com").expect("known");
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1));
    }
}

#[test]
fn backends_are_known_by_name_and_know_the_proxy() {
    let pki = Pki::new();
    pki.issue("www", &["www.foobar.com"]);
    pki.issue("lb1", &["lb1"]);
    pki.issue("web1", &["web1"]);
    let rest =
        "backend-tls = { ca = \"ca.pem\", cert = \"lb1.pem\", key = { file = \"lb1.key\" } }";
    let services = service("www", "\"www.foobar.com\"", &pair("www"), rest);
    let material = pki.material(&services).expect("good");
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(pki.roots()),
        provider(),
    );
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("roots"))
        .with_single_cert(
            pem::chain(PLACE, &pki.path("web1.pem")).expect("a chain"),
            key(&pki.path("web1.key")),
        )
        .expect("a pair");
    let server = Arc::new(server);
    let greet = |host: &str| {
        let port = std::num::NonZeroU16::new(8443).expect("a port");
        let upstream = material.backends["www"].of(host, port).expect("encrypted");
        let mut client = ClientConnection::new(upstream.config.clone(), upstream.name.clone())?;
        let mut server = ServerConnection::new(server.clone())?;
        shake(&mut client, &mut server)?;
        Ok::<_, rustls::Error>(server.peer_certificates().is_some())
    };
    assert_eq!(greet("web1"), Ok(true));
    let wrong = greet("web2").expect_err("web1 is not web2");
    assert!(
        matches!(wrong, rustls::Error::InvalidCertificate(_)),
        "{wrong}"
    );
}

#[test]
fn each_flaw_of_a_file_is_told_with_its_place_and_cure() {
    let pki = Pki::new();
    pki.issue("www", &["www.foobar.com"]);
    pki.issue("other", &["www.foobar.com"]);
    fs::write(pki.path("empty.pem"), "nothing").expect("written");
    fs::write(pki.path("short.key"), [0; 10]).expect("written");
    let flaws = [
        (
            "{ cert = \"none.pem\", key = { file = \"www.key\" } }",
            "none.pem: there is no such file",
            "put it there",
        ),
        (
            "{ cert = \"www.pem\", key = { file = \"none.key\" } }",
            "none.key",
            "readable by foobar alone",
        ),
        (
            "{ cert = \"www.pem\", key = { credential = \"www-key\" } }",
            "no systemd credential `www-key`",
            "readable by foobar",
        ),
        (
            "{ cert = \"empty.pem\", key = { file = \"www.key\" } }",
            "holds no certificate",
            "BEGIN CERTIFICATE",
        ),
        (
            "{ cert = \"www.pem\", key = { file = \"empty.pem\" } }",
            "no private key",
            "BEGIN PRIVATE KEY",
        ),
        (
            "{ cert = \"www.pem\", key = { file = \"other.key\" } }",
            "the key does not belong to",
            "requested with",
        ),
        (
            "{ cert = \"www.pem\", key = { file = \"www.key\" }, ocsp = \"empty.pem\" }",
            "not a DER OCSP response",
            "-respout",
        ),
        (
            "{ cert = \"www.pem\", key = { file = \"www.key\" }, client-ca = \"empty.pem\" }",
            "holds no certificate",
            "PEM",
        ),
        (
            "{ cert = \"www.pem\", key = { file = \"www.key\" }, ticket-keys = \"short.key\" }",
            "holds 10 bytes, not 80",
            "/dev/urandom",
        ),
    ];
    for (tls, message, cure) in flaws {
        let found = pki
            .material(&service("www", "\"www.foobar.com\"", tls, ""))
            .expect_err("a flaw");
        assert_eq!(found.len(), 1, "{}", told(&found));
        let [flaw] = &found[..] else { unreachable!() };
        assert!(
            flaw.message.contains(message) && flaw.cure.contains(cure) && flaw.place.line == 12,
            "{tls}: {}",
            told(&found)
        );
    }
}

#[test]
fn a_certificate_that_ended_or_names_another_is_doubted_and_served() {
    let pki = Pki::new();
    pki.issue_until("old", &["www.foobar.com"], 2020);
    let material = pki
        .material(&service(
            "www",
            "[\"www.foobar.com\", \"shop.foobar.com\"]",
            &pair("old"),
            "",
        ))
        .expect("served");
    let doubts = told(&material.doubts);
    assert!(doubts.contains("ended on 2020-01-01"), "{doubts}");
    assert!(
        doubts.contains("is for `shop.foobar.com`; it is for `www.foobar.com`"),
        "{doubts}"
    );
}

#[test]
fn a_site_that_waits_for_acme_shows_a_certificate_of_its_own() {
    let pki = Pki::new();
    let rest = "http-redirect = \"private:80\"";
    let material = pki
        .material(&service("www", "\"www.foobar.com\"", "{ acme = {} }", rest))
        .expect("served");
    let front = &material.by_service["www"];
    assert!(front.identities[0].covers("www.foobar.com"));
}

fn key(path: &Path) -> PrivateKeyDer<'static> {
    pem::private_key(PLACE, &config::Secret::File(path.to_owned())).expect("a key")
}

const PLACE: config::Place = config::Place { line: 1, column: 1 };

#[test]
fn a_name_is_proved_to_a_client_that_offers_nothing_else() {
    use std::{io::Read as _, net::TcpListener, process::Command};
    let config = Arc::new(Identity::proving("www.foobar.com", &[7; 32]).expect("made"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut connection = ServerConnection::new(config).expect("a configuration");
        let mut tls = rustls::Stream::new(&mut connection, &mut stream);
        let _ = tls.read(&mut [0; 16]);
    });
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-alpn",
            "acme-tls/1",
            "-servername",
            "www.foobar.com",
            "-connect",
        ])
        .arg(address.to_string())
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl");
    server.join().expect("served");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ALPN protocol: acme-tls/1"), "{text}");
    assert!(
        text.contains("subject=CN = rcgen self signed cert"),
        "{text}"
    );
}
