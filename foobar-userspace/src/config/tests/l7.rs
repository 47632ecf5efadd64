//! `[l7.*]` and `[proxy]`: what they mean, and what their mistakes are told.

use super::*;

const HEAD: &str = r#"version = 1
[hosts]
lb1  = { public = ["203.0.113.10", "2001:db8::10"], private = "10.0.0.10" }
web1 = { private = "10.0.0.11" }
web2 = { private = "10.0.0.12" }
web3 = { private = "10.0.0.13" }
[sets]
jail = { max = 65_536, timeout = "10m" }
closed = { max = 10 }
[nodes]
lb1 = { wan = { dev = "eth0" } }
[l4.mail]
on = "lb1"
vip = "203.0.113.10:25"
backends = [{ host = "web1", port = 25 }]
"#;

/// Section 6 of the design, word for word.
const DESIGN: &str = r#"[l7.www]                                              # the TLS-terminating proxy
on = "lb1"
listen = ["public:443"]
http-redirect = "public:80"
hosts = ["www.foobar.com", "foobar.com"]
tls = { cert = "/etc/foobar/tls/www.pem", key = { credential = "www-key" }, min = "1.2", alpn = ["h2", "http/1.1"] }
backends = [{ host = "web1", port = 8443, weight = 2 }, { host = "web2", port = 8443 }, { host = "web3", port = 8443 }]
backend-tls = { ca = "/etc/foobar/tls/internal-ca.pem", cert = "/etc/foobar/tls/lb1.pem", key = { credential = "lb1-key" } }
check = { http = "/healthz", expect = 200, every = "2s", timeout = "1s", rise = 2, fall = 3 }
"#;

/// Every key, none with its default.
const EVERYTHING: &str = r#"[proxy]
workers = 3
max-connections = 100
max-connections-per-client = 10
max-handshakes = 20
handshakes-per-client = "30/m"
handshakes-burst = 5
drain = "3s"
[l7.app]
on = "lb1"
listen = ["public:8443", "private:8443"]
http-redirect = "public:8080"
hosts = ["App.foobar.com", "*.app.foobar.com"]
paths = ["/api/", "/v1"]
backends = [{ host = "web1", port = 443, kind = "nginx" }, { host = "web2", port = 443, weight = 3 }]
backend-protocol = "h2"
balance = "hrw"
hash = "header:X-User"
shuffle = 1
slow-start = "30s"
panic = 20
maintenance = true
jail = "jail"
jail-after = 3
jail-within = "2m"
[l7.app.tls]
certificates = [
  { cert = "tls/ecdsa.pem", key = { file = "tls/ecdsa.key" }, ocsp = "tls/ecdsa.ocsp" },
  { cert = "/tls/rsa.pem", key = { env = "RSA_KEY" } },
]
min = "1.3"
alpn = ["http/1.1"]
client-ca = "/tls/clients.pem"
client-auth = "optional"
ticket-keys = "/tls/tickets"
hsts = { max-age = "730d", include-subdomains = true, preload = true }
[l7.app.backend-tls]
ca = "/tls/ca.pem"
name = "Web.internal"
[l7.app.proxy-protocol]
from = ["192.0.2.0/24", "lb1"]
to-backends = "v2"
[l7.app.check]
https = "/ready"
expect = 204
[l7.app.ejection]
failures = 1
percent = 2
requests = 3
window = "4s"
for = "5s"
at-most = 6
[l7.app.retries]
most = 7
budget = 8
least = 9
on = ["503", "timeout", "connect"]
[l7.app.breaker]
connections = 10
requests = 11
[l7.app.queue]
length = 12
wait = "13ms"
retry-after = "14s"
[l7.app.blast-radius]
after = 2
hold = "15s"
[l7.app.limits]
head = "16KB"
headers = 17
uri = "18B"
body = "1GB"
per-client = "20/m"
burst = 21
requests-per-connection = 22
h2-streams = 23
h2-resets = 24
h2-control-frames = 25
h2-window = "26s"
[l7.app.timeouts]
handshake = "1s"
head = "2s"
body = "3s"
write = "4s"
idle = "5s"
connect = "6s"
attempt = "7s"
request = "8s"
answer = "9s"
backend-idle = "10s"
tunnel = "11s"
[l7.app.pages]
502 = "pages/502.html"
maintenance = "/pages/soon.html"
[l7.open]
on = "lb1"
listen = "public:8443"
http-redirect = "public:8080"
hosts = "open.foobar.com"
tls = { acme = { directory = "https://acme.test:14000/dir", contact = "admin@foobar.com", ca = "/tls/acme.pem", challenge = "tls-alpn-01", renew-before = "20d" } }
backends = [{ host = "web3", port = 80 }]
proxy-protocol = { from = ["192.0.2.0/24", "lb1"] }
sticky = "cookie"
blast-radius = { off = true }
ejection = { at-most = 0 }
"#;

fn service(text: &str, name: &str) -> L7Service {
    let text = format!("{HEAD}{text}");
    let mut config = read(&text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    config.l7.remove(name).expect("it is there")
}

#[test]
fn the_example_of_the_design_is_read_as_written() {
    let www = service(DESIGN, "www");
    let listen: Vec<_> = www.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["203.0.113.10:443", "[2001:db8::10]:443"]);
    let redirect: Vec<_> = www.redirect.iter().map(ToString::to_string).collect();
    assert_eq!(redirect, ["203.0.113.10:80", "[2001:db8::10]:80"]);
    assert_eq!(www.hosts, ["www.foobar.com", "foobar.com"]);
    assert_eq!(www.paths, ["/"]);
    assert_eq!(www.tls.min, TlsVersion::V12);
    assert_eq!(www.tls.alpn, [HttpVersion::Http2, HttpVersion::Http1]);
    let [certificate] = &www.tls.certificates[..] else {
        panic!("one certificate");
    };
    assert_eq!(certificate.cert, Path::new("/etc/foobar/tls/www.pem"));
    assert_eq!(certificate.key, Secret::Credential("www-key".to_owned()));
    assert_eq!(www.backends[0].weight, 2);
    assert_eq!(www.backend_name(&www.backends[1]), "web2");
    let check = www.check.expect("it has one");
    assert_eq!(
        check.probe,
        Probe::Https {
            path: "/healthz".to_owned(),
            expect: 200
        },
        "a check goes as requests go"
    );
}

#[test]
fn every_key_is_read_and_shown_and_read_again_as_the_same() {
    let text = format!("{HEAD}{DESIGN}{EVERYTHING}");
    let config = read(&text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let app = &config.l7["app"];
    assert_eq!(app.hosts[0], "app.foobar.com");
    assert_eq!(app.paths, ["/api", "/v1"]);
    assert_eq!(
        app.tls.certificates[0].cert,
        Path::new("/etc/foobar/tls/ecdsa.pem"),
        "beside the file"
    );
    assert_eq!(
        app.balance,
        L7Balance::Hrw(HashKey::Header("x-user".to_owned()))
    );
    assert_eq!(app.proxy_protocol_from.len(), 4);
    assert_eq!(app.limits.body, 1 << 30);
    assert_eq!(config.l7["open"].ejection, None);
    let shown = show(&config);
    let again = read(&shown).unwrap_or_else(|diagnostics| panic!("{shown}\n{diagnostics}"));
    assert_eq!(meaning(config), meaning(again));
}

#[test]
fn a_service_of_the_same_name_and_endpoint_may_leave_tls_out() {
    let api = DESIGN
        .replace("[l7.www]", "[l7.api]\npaths = \"/api\"")
        .replace(
            "hosts = [\"www.foobar.com\", \"foobar.com\"]",
            "hosts = \"foobar.com\"",
        );
    let without: String = api
        .lines()
        .filter(|line| !line.starts_with("tls"))
        .map(|line| format!("{line}\n"))
        .collect();
    let lent = service(&format!("{DESIGN}{without}"), "api");
    assert_eq!(lent.tls.certificates.len(), 1);
    let alone = read(&format!("{HEAD}{without}")).expect_err("nobody lends");
    assert!(alone.to_string().contains("`tls` is missing"), "{alone}");
    service(&format!("{DESIGN}{api}"), "api");
}

#[test]
fn differences_of_sites_are_told_by_name() {
    let old = read(&format!("{HEAD}{DESIGN}")).expect("good");
    let new = DESIGN
        .replacen(", weight = 2", "", 1)
        .replacen(", { host = \"web3\", port = 8443 }", "", 1)
        .replacen("min = \"1.2\"", "min = \"1.3\"", 1);
    let new = read(&format!("{HEAD}\n\n{new}[proxy]\nworkers = 1\n")).expect("good");
    assert_eq!(
        diff(&old, &new),
        [
            "~ service l7.www",
            "~ backend l7.www web1:8443",
            "- backend l7.www web3:8443",
            "~ proxy"
        ]
    );
    assert!(diff(&old, &old).is_empty());
}

#[test]
fn the_schema_knows_the_proxy() {
    let schema = schema();
    let l7 = &schema["properties"]["l7"]["additionalProperties"]["properties"];
    assert!(l7["timeouts"]["properties"]["tunnel"]["description"].is_string());
    let key = &l7["tls"]["properties"]["key"];
    assert_eq!(key["type"], "object", "a secret is never a string");
    assert!(schema["properties"]["proxy"]["properties"]["workers"].is_object());
}

/// What is written instead, what it is told, and the cure.
const SLIPS: &[(&str, &str, &str, &str)] = &[
    (
        "listen = [\"public:443\"]",
        "listen = []",
        "listens nowhere",
        "public:443",
    ),
    (
        "listen = [\"public:443\"]",
        "listen = [\"public:443\", \"public:443\"]",
        "named twice",
        "keep one",
    ),
    (
        "listen = [\"public:443\"]",
        "listen = [\"203.0.113.10:25\"]",
        "is a vip of `l4.mail`",
        "another port",
    ),
    (
        "http-redirect = \"public:80\"",
        "http-redirect = \"public:443\"",
        "for TLS and for redirects",
        "public:80",
    ),
    (
        "hosts = [\"www.foobar.com\", \"foobar.com\"]",
        "hosts = [\"foobar.com\", \"FOOBAR.com\"]",
        "`foobar.com` is named twice",
        "keep one",
    ),
    (
        "hosts = [\"www.foobar.com\", \"foobar.com\"]",
        "hosts = [\"https://foobar.com\"]",
        "not a name in the DNS",
        "without scheme",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\npaths = \"api\"",
        "not the path of a request",
        "begin it with `/`",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\npaths = \"/api/*\"",
        "more than a path",
        "`/api`",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\npaths = [\"/a\", \"/a/\"]",
        "`/a` is named twice",
        "keep one",
    ),
    (
        "cert = \"/etc/foobar/tls/www.pem\", ",
        "",
        "go together",
        "add `cert",
    ),
    (
        "key = { credential = \"www-key\" }, ",
        "",
        "go together",
        "add `key",
    ),
    (
        "key = { credential = \"www-key\" }",
        "key = \"/etc/key.pem\"",
        "is a secret",
        "credential",
    ),
    (
        "cert = \"/etc/foobar/tls/www.pem\", key = { credential = \"www-key\" }, ",
        "",
        "has no certificate",
        "add `cert",
    ),
    (
        "cert = \"/etc/foobar/tls/www.pem\", key = { credential = \"www-key\" }",
        "ocsp = \"/o\", acme = {}",
        "there is no `cert`",
        "beside the `cert`",
    ),
    (
        "min = \"1.2\"",
        "min = \"1.1\"",
        "cannot be `1.1`",
        "did you mean `1.2`?",
    ),
    (
        "alpn = [\"h2\", \"http/1.1\"]",
        "alpn = []",
        "offers nothing",
        "take it out",
    ),
    (
        "alpn = [\"h2\", \"http/1.1\"]",
        "alpn = [\"h2\", \"h2\"]",
        "offered twice",
        "keep one",
    ),
    (
        "min = \"1.2\"",
        "client-auth = \"optional\"",
        "trusts nobody",
        "client-ca",
    ),
    (
        "min = \"1.2\"",
        "ticket-keys = \"/t\", ticket-rotation = \"1h\"",
        "rotated by whoever writes them",
        "take `ticket-rotation` out",
    ),
    (
        "min = \"1.2\"",
        "ticket-rotation = \"30d\"",
        "out of range",
        "7d",
    ),
    (
        "min = \"1.2\"",
        "hsts = \"365d\"",
        "`hsts` must be a table",
        "max-age",
    ),
    (
        "min = \"1.2\"",
        "hsts = { max-age = \"30d\", preload = true }",
        "do not take this name",
        "365d",
    ),
    (
        "min = \"1.2\"",
        "acme = { directory = \"http://acme.test\" }",
        "does not begin with `https://`",
        "letsencrypt",
    ),
    (
        "min = \"1.2\"",
        "acme = { contact = \"admin\" }",
        "not a mail address",
        "admin@foobar.com",
    ),
    (
        "http-redirect = \"public:80\"\nhosts = [\"www.foobar.com\", \"foobar.com\"]\ntls = { cert = \"/etc/foobar/tls/www.pem\", key = { credential = \"www-key\" }",
        "hosts = \"foobar.com\"\ntls = { acme = {}",
        "nothing listens there",
        "http-redirect",
    ),
    (
        "hosts = [\"www.foobar.com\", \"foobar.com\"]\ntls = { cert = \"/etc/foobar/tls/www.pem\", key = { credential = \"www-key\" }",
        "tls = { acme = {}",
        "for which names",
        "add `hosts",
    ),
    (
        "hosts = [\"www.foobar.com\", \"foobar.com\"]\ntls = { cert = \"/etc/foobar/tls/www.pem\", key = { credential = \"www-key\" }",
        "hosts = \"*.foobar.com\"\ntls = { acme = {}",
        "by the DNS only",
        "name each host",
    ),
    (
        "{ host = \"web2\", port = 8443 }",
        "{ host = \"web1\", port = 8443 }",
        "stands twice",
        "weight",
    ),
    (
        "{ host = \"web2\", port = 8443 }",
        "{ host = \"web4\", port = 8443 }",
        "unknown host `web4`",
        "did you mean",
    ),
    (
        "cert = \"/etc/foobar/tls/lb1.pem\", ",
        "",
        "go together",
        "lb1.pem",
    ),
    (
        ", key = { credential = \"lb1-key\" }",
        "",
        "go together",
        "lb1-key",
    ),
    (
        "ca = \"/etc/foobar/tls/internal-ca.pem\", ",
        "",
        "`ca` is missing",
        "add `ca",
    ),
    (
        "key = { credential = \"lb1-key\" }",
        "key = { credential = \"lb1-key\" }, name = \"*.internal\"",
        "not by a wildcard",
        "web.internal",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nbackend-protocol = \"http2\"",
        "cannot be `http2`",
        "it may be",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nproxy-protocol = { from = \"@jail\" }",
        "must not",
        "hosts or prefixes",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nproxy-protocol = { to-backends = \"v3\" }",
        "cannot be `v3`",
        "v1",
    ),
    (
        "check = { http = \"/healthz\"",
        "check = { http = \"/healthz\", https = \"/healthz\"",
        "is one of `tcp`",
        "keep `https`",
    ),
    (
        "backend-tls = { ca = \"/etc/foobar/tls/internal-ca.pem\", cert = \"/etc/foobar/tls/lb1.pem\", key = { credential = \"lb1-key\" } }\ncheck = { http",
        "check = { https",
        "whom to trust",
        "backend-tls",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nbalance = \"random\"",
        "cannot be `random`",
        "`round-robin`",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nhash = \"source\"",
        "only `hrw` hashes",
        "balance = \"hrw\"",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nbalance = \"hrw\"\nhash = \"path\"",
        "nothing to hash by",
        "header:NAME",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nbalance = \"hrw\"\nsticky = \"cookie\"",
        "keeps a client at its backend already",
        "take `sticky` out",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nshuffle = 4",
        "more than the 3 backends",
        "write fewer",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nretries = { on = \"404\" }",
        "no cause of a retry",
        "did you mean",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nblast-radius = { off = true, hold = \"1s\" }",
        "contradict",
        "keep one",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nlimits = { body = \"10\" }",
        "not a size",
        "16MB",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nlimits = { body = \"0KB\" }",
        "a size of nothing",
        "32KB",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nlimits = { head = \"2MB\" }",
        "held in memory",
        "1MB",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nlimits = { uri = \"64KB\" }",
        "larger than `head`",
        "make `head` larger",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\nlimits = { burst = 5 }",
        "limits nothing",
        "per-client",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\ntimeouts = { attempt = \"2m\" }",
        "longer than `request`",
        "1m",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\ntimeouts = { connect = 5 }",
        "must be a duration",
        "connect = \"5s\"",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\npages = { 302 = \"/p\" }",
        "no answer of the proxy",
        "400 to 599",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\npages = { maintenence = \"/p\" }",
        "no answer of the proxy",
        "did you mean `maintenance`?",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\njail = \"closed\"",
        "cannot be a jail",
        "timeout",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\njail-after = 2",
        "jails nobody",
        "add `jail",
    ),
    (
        "on = \"lb1\"",
        "on = \"lb1\"\ncompression = \"gzip\"",
        "not yet supported",
        "let the backends compress",
    ),
    (
        "[l7.www] ",
        "[proxy]\nworkers = 0\n[l7.www] ",
        "`workers` is out of range",
        "from 1",
    ),
    (
        "[l7.www] ",
        "[proxy]\ndrian = \"1s\"\n[l7.www] ",
        "unknown key `drian`",
        "did you mean `drain`?",
    ),
];

#[test]
fn each_slip_of_a_site_is_told_with_its_cure() {
    let mut failures = Vec::new();
    for (right, wrong, message, cure) in SLIPS {
        assert!(DESIGN.contains(right), "{right}");
        let text = format!("{HEAD}{}", DESIGN.replacen(right, wrong, 1));
        let told = match read(&text) {
            Ok(_) => Vec::new(),
            Err(diagnostics) => diagnostics.iter().cloned().collect(),
        };
        let right = told.len() == 1
            && told[0].place.is_some_and(|place| place.line >= 16)
            && told[0].message.contains(message)
            && told[0].help.iter().any(|help| help.contains(cure));
        if !right {
            failures.push(format!(
                "{wrong}\n  expected {message} ({cure}), got {told:#?}"
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{}:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn services_that_share_an_endpoint_must_agree() {
    let second = |from: &str, to: &str| {
        let other = DESIGN.replace("[l7.www]", "[l7.two]").replacen(from, to, 1);
        let text = format!("{HEAD}{DESIGN}{other}");
        read(&text).map(drop).map_err(|diagnostics| {
            diagnostics
                .iter()
                .map(|told| told.message.clone())
                .collect::<Vec<_>>()
        })
    };
    let hosts = "hosts = [\"www.foobar.com\", \"foobar.com\"]";
    assert_eq!(second(hosts, "hosts = \"two.foobar.com\""), Ok(()));
    assert_eq!(
        second("listen = [\"public:443\"]", "listen = \"private:443\""),
        Ok(())
    );
    let same = second("", "").expect_err("the same name and path");
    assert!(
        same[0].contains("answers for `www.foobar.com` and `/` already"),
        "{same:?}"
    );
    let tls = second("min = \"1.2\"", "min = \"1.3\"").expect_err("two handshakes");
    assert!(
        tls.iter()
            .any(|told| told.contains("has another `tls` in `l7.www`")),
        "{tls:?}"
    );
    let sender = second(
        hosts,
        "proxy-protocol = { from = \"192.0.2.1\" }\nhosts = \"two.com\"",
    )
    .expect_err("believes another");
    assert!(
        sender[0].contains("believe different senders"),
        "{sender:?}"
    );
}
