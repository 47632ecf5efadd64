//! The language as data: every key, its type, whether it is needed, and what a later version brings.
//!
//! The checker walks a file by it and the JSON schema is written from it, so that the two cannot disagree.

macro_rules! word {
    ($name:ident, $type:ty, $what:literal, $($example:literal),+) => {
        pub(super) static $name: Word = Word {
            what: $what,
            examples: &[$($example),+],
            read: |text| text.parse::<$type>().map(drop),
        };
    };
}

mod l7;
mod monitor;
mod mysql;

use self::{
    monitor::{ALERT, LOG, MONITOR, NOTIFY},
    mysql::MYSQL_SERVICES,
};
use super::{
    PortRange, TcpFlags, Traffic,
    words::{
        Device, DnsName, Element, Endpoint, FilePath, HostAddress, Label, Lease, Misread, Period,
        Rate, UrlPath,
    },
};

/// A table with fixed keys.
#[derive(Debug)]
pub(super) struct Table {
    /// "a rule"
    pub what: &'static str,
    pub about: &'static str,
    pub keys: &'static [Key],
    /// Keys of which exactly one must be there.
    pub one_of: &'static [&'static str],
}

#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub about: &'static str,
    pub kind: Kind,
    pub needed: bool,
    /// Not built yet; what to do instead.
    pub later: Option<&'static str>,
}

/// What may stand behind a key.
#[derive(Debug)]
pub(super) enum Kind {
    Text,
    Word(&'static Word),
    Whole {
        least: i64,
        most: i64,
    },
    Truth,
    Choice(&'static [Choice]),
    /// The name of something defined elsewhere in the file.
    Name(Realm),
    /// An address, a prefix, `@set` or a host.
    Peer,
    /// A host and a port, `web1:3306`.
    Member,
    /// A port or a range; a single one may be a number.
    Ports,
    OneOrMany(&'static Kind),
    Many(&'static Kind),
    Table(&'static Table),
    /// A table whose keys the user chooses.
    Named(&'static Named),
    /// A threshold: a number, or a number and its unit in quotes.
    Quantity,
    /// `{ credential | file | env }`, never the secret itself.
    Secret,
}

#[derive(Debug)]
pub(super) struct Named {
    /// "a set"
    pub what: &'static str,
    pub about: &'static str,
    pub kind: Kind,
}

/// A word with a grammar of its own.
#[derive(Debug)]
pub(super) struct Word {
    /// "a duration"
    pub what: &'static str,
    pub examples: &'static [&'static str],
    pub read: fn(&str) -> Result<(), Misread>,
}

#[derive(Debug)]
pub(super) struct Choice {
    pub word: &'static str,
    pub later: Option<&'static str>,
}

/// Where names are defined.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Realm {
    Host,
    Limit,
    Node,
    Notify,
    Policy,
    Service,
    Set,
}

impl Realm {
    pub const ALL: [Self; 7] = [
        Self::Host,
        Self::Limit,
        Self::Node,
        Self::Notify,
        Self::Policy,
        Self::Service,
        Self::Set,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Limit => "limit",
            Self::Node => "node",
            Self::Notify => "notify target",
            Self::Policy => "policy",
            Self::Service => "service",
            Self::Set => "set",
        }
    }

    /// The sections that define its names.
    pub const fn sections(self) -> &'static [&'static str] {
        match self {
            Self::Host => &["hosts"],
            Self::Limit => &["limits"],
            Self::Node => &["nodes"],
            Self::Notify => &["notify"],
            Self::Policy => &["firewall"],
            Self::Service => &["l4", "l7", "mysql"],
            Self::Set => &["sets"],
        }
    }
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key {
        name,
        about,
        kind,
        needed: false,
        later: None,
    }
}

impl Key {
    const fn needed(self) -> Self {
        Self {
            needed: true,
            ..self
        }
    }

    const fn later(self, cure: &'static str) -> Self {
        Self {
            later: Some(cure),
            ..self
        }
    }
}

const fn now(word: &'static str) -> Choice {
    Choice { word, later: None }
}

const fn later(word: &'static str, cure: &'static str) -> Choice {
    Choice {
        word,
        later: Some(cure),
    }
}

word!(
    ADDRESS,
    HostAddress,
    "an IP address",
    "203.0.113.10",
    "2001:db8::10"
);
word!(DEVICE, Device, "a network device", "eth0");
word!(LEASE, Lease, "a duration or `never`", "1s", "never");
word!(DNS_NAME, DnsName, "a DNS name", "www.foobar.com");
word!(DURATION, Period, "a duration", "100ms", "2s", "10m");
word!(
    ELEMENT,
    Element,
    "an address or a prefix",
    "198.51.100.7",
    "2001:db8::/32"
);
word!(
    ENDPOINT,
    Endpoint,
    "an address and a port",
    "public:443",
    "private:3306",
    "203.0.113.10:443"
);
word!(FILE, FilePath, "a path", "/etc/foobar/blocklist.txt");
word!(FLAGS, TcpFlags, "TCP flags", "syn,!ack", "rst");
word!(NAME, Label, "a name", "ssh");
word!(
    PORTS,
    PortRange,
    "a port or a range of ports",
    "53",
    "1024-65535"
);
word!(RATE, Rate, "a rate", "100/s", "20k/s", "6/m");
word!(
    TRAFFIC,
    Traffic,
    "a kind of traffic",
    "any",
    "tcp/22",
    "udp/1000-2000",
    "icmp/echo-request",
    "icmp6",
    "proto/47"
);
word!(URL_PATH, UrlPath, "a path of a request", "/healthz");

pub(super) static FILE_TABLE: Table = Table {
    what: "the file",
    about: "foobar's configuration: one file for every node of the estate",
    keys: &[
        key(
            "version",
            Kind::Whole { least: 1, most: 1 },
            "Version of this language.",
        )
        .needed(),
        key("hosts", Kind::Named(&HOSTS), "The machines of the estate."),
        key(
            "sets",
            Kind::Named(&SETS),
            "Sets of addresses that rules name as `@set`.",
        ),
        key("limits", Kind::Named(&LIMITS), "Rates that rules name."),
        key(
            "nodes",
            Kind::Named(&NODES),
            "The hosts that run foobar, and their interfaces.",
        ),
        key(
            "firewall",
            Kind::Named(&POLICIES),
            "Policies: ordered rules that interfaces name.",
        ),
        key(
            "l4",
            Kind::Named(&L4_SERVICES),
            "Services balanced by XDP, packet by packet.",
        ),
        key(
            "l7",
            Kind::Named(&l7::L7_SERVICES),
            "Sites behind the TLS-terminating proxy.",
        ),
        key(
            "proxy",
            Kind::Table(&l7::PROXY),
            "What the proxy of every node shares among its sites.",
        ),
        key(
            "mysql",
            Kind::Named(&MYSQL_SERVICES),
            "Database clusters: a writer and a reader address.",
        ),
        key(
            "monitor",
            Kind::Table(&MONITOR),
            "Where metrics and logs go.",
        ),
        key(
            "alert",
            Kind::Many(&Kind::Table(&ALERT)),
            "Thresholds that tell someone.",
        ),
        key("notify", Kind::Named(&NOTIFY), "Whom alerts tell."),
        key(
            "log",
            Kind::Table(&LOG),
            "What is written of requests, drops and administration, and where to.",
        ),
        key(
            "admin",
            Kind::Table(&ADMIN),
            "How this node is administered.",
        ),
    ],
    one_of: &[],
};

static HOSTS: Named = Named {
    what: "a host",
    about: "A machine: its public and its private address, each at most one of IPv4 and one of IPv6.",
    kind: Kind::Table(&HOST),
};

static HOST: Table = Table {
    what: "a host",
    about: "A machine of the estate.",
    keys: &[
        key(
            "public",
            Kind::OneOrMany(&Kind::Word(&ADDRESS)),
            "Where clients reach it: at most one IPv4 and one IPv6 address.",
        ),
        key(
            "private",
            Kind::OneOrMany(&Kind::Word(&ADDRESS)),
            "Where the estate's own machines reach it: at most one IPv4 and one IPv6 address.",
        ),
        key(
            "names",
            Kind::OneOrMany(&Kind::Word(&DNS_NAME)),
            "DNS names that lead to its public addresses; `foobar doctor` asks whether they do.",
        ),
    ],
    one_of: &[],
};

static SETS: Named = Named {
    what: "a set",
    about: "A set of addresses and prefixes; the command line and `jail` may add to it while running.",
    kind: Kind::Table(&SET),
};

static SET: Table = Table {
    what: "a set",
    about: "A set of addresses and prefixes.",
    keys: &[
        key(
            "elements",
            Kind::Many(&Kind::Word(&ELEMENT)),
            "Its constant elements.",
        ),
        key(
            "file",
            Kind::Word(&FILE),
            "A file with one element a line and `#` comments, read at load and reload; a relative path begins where this file stands.",
        ),
        key(
            "max",
            Kind::Whole {
                least: 1,
                most: 16_777_216,
            },
            "The most elements it may hold; 65536 by default.",
        ),
        key(
            "timeout",
            Kind::Word(&DURATION),
            "Elements added while running leave after this long; needed for a jail.",
        ),
    ],
    one_of: &[],
};

static LIMITS: Named = Named {
    what: "a limit",
    about: "A rate of packets.",
    kind: Kind::Table(&LIMIT),
};

static LIMIT: Table = Table {
    what: "a limit",
    about: "A rate of packets; what exceeds it is dropped.",
    keys: &[
        key(
            "rate",
            Kind::Word(&RATE),
            "Packets per second, minute, hour or day.",
        )
        .needed(),
        key(
            "burst",
            Kind::Whole {
                least: 1,
                most: 1_000_000_000,
            },
            "Packets that may come at once; by default as many as the rate's number.",
        ),
        key(
            "per",
            Kind::Choice(&[now("rule"), now("source")]),
            "Who shares it: all packets of the rule (default), or each source (IPv6: each /64) alone.",
        ),
    ],
    one_of: &[],
};

static NODES: Named = Named {
    what: "a node",
    about: "A host that runs foobar: its interfaces by a name of your choice.",
    kind: Kind::Named(&INTERFACES),
};

static INTERFACES: Named = Named {
    what: "an interface",
    about: "A network device with a firewall.",
    kind: Kind::Table(&INTERFACE),
};

static INTERFACE: Table = Table {
    what: "an interface",
    about: "A network device with a firewall.",
    keys: &[
        key(
            "dev",
            Kind::Word(&DEVICE),
            "The device, as `ip link` names it.",
        )
        .needed(),
        key(
            "xdp",
            Kind::Choice(&[now("auto"), now("native"), now("generic")]),
            "How XDP attaches: `auto` (default) is native where the driver can, else generic with a warning.",
        ),
        key(
            "ingress",
            Kind::Name(Realm::Policy),
            "The policy for what arrives; none: all passes.",
        ),
        key(
            "egress",
            Kind::Name(Realm::Policy),
            "The policy for what leaves; none: all passes.",
        ),
    ],
    one_of: &[],
};

static POLICIES: Named = Named {
    what: "a policy",
    about: "Ordered rules; the first that matches decides.",
    kind: Kind::Table(&POLICY),
};

static POLICY: Table = Table {
    what: "a policy",
    about: "Ordered rules; the first that matches decides. ARP, neighbour discovery, path-MTU messages and answers to this node's own connections pass in any case.",
    keys: &[
        key(
            "policy",
            Kind::Choice(&[now("allow"), now("drop")]),
            "What happens to a packet that no rule matches.",
        )
        .needed(),
        key(
            "rules",
            Kind::Many(&Kind::Table(&RULE)),
            "First match wins.",
        ),
    ],
    one_of: &[],
};

static RULE: Table = Table {
    what: "a rule",
    about: "Which packets, and what happens to them; exactly one of `allow` and `drop`.",
    keys: &[
        key(
            "name",
            Kind::Word(&NAME),
            "Names its counter and its drop reason; unique in the policy.",
        )
        .needed(),
        key(
            "allow",
            Kind::OneOrMany(&Kind::Word(&TRAFFIC)),
            "Traffic that passes.",
        ),
        key(
            "drop",
            Kind::OneOrMany(&Kind::Word(&TRAFFIC)),
            "Traffic that is dropped.",
        ),
        key(
            "from",
            Kind::OneOrMany(&Kind::Peer),
            "Sources: addresses, prefixes, `@set`, or a host (all of its addresses); from anywhere by default.",
        ),
        key(
            "to",
            Kind::OneOrMany(&Kind::Peer),
            "Destinations, written like `from`; to anywhere by default.",
        ),
        key("sport", Kind::Ports, "Source ports of TCP or UDP."),
        key(
            "flags",
            Kind::Word(&FLAGS),
            "TCP flags that must be set, or with `!` must not.",
        ),
        key(
            "limit",
            Kind::Name(Realm::Limit),
            "With `allow`: packets beyond this limit are dropped.",
        ),
        key(
            "jail",
            Kind::Name(Realm::Set),
            "With `limit`: the set (without `@`) that sources beyond the limit are put into.",
        ),
        key(
            "log",
            Kind::Choice(&[now("all"), now("new"), now("none")]),
            "Which packets are logged.",
        )
        .later("take it out; `foobar stats` counts every rule"),
        key(
            "mode",
            Kind::Choice(&[now("enforce"), now("audit")]),
            "`audit`: count, but go on.",
        )
        .later("take it out; a rule's counter in `foobar rule list` tells what it meets"),
        key(
            "syn-cookies",
            Kind::Word(&RATE),
            "SYN cookies beyond this rate.",
        )
        .later("take it out and give the rule a `limit`"),
        key(
            "fragments",
            Kind::Choice(&[now("pass"), now("drop"), now("track")]),
            "What to do with fragments.",
        )
        .later("take it out; fragments follow their first one"),
    ],
    one_of: &["allow", "drop"],
};

static L4_SERVICES: Named = Named {
    what: "an l4 service",
    about: "Balanced by XDP.",
    kind: Kind::Table(&L4_SERVICE),
};

static L4_SERVICE: Table = Table {
    what: "an l4 service",
    about: "What clients connect to, and the backends behind it.",
    keys: &[
        key("on", Kind::Name(Realm::Node), "The node that balances it.").needed(),
        key(
            "vip",
            Kind::OneOrMany(&Kind::Word(&ENDPOINT)),
            "Addresses and ports that clients connect to: `public:…` and `private:…` mean the node's addresses of both families; at most one vip per family.",
        )
        .needed(),
        key("proto", Kind::Choice(&[now("tcp"), now("udp")]), "`tcp` by default."),
        key(
            "mode",
            Kind::Choice(&[
                now("dnat"),
                later("dsr-l2", USE_DNAT),
                later("ipip", USE_DNAT),
            ]),
            "How packets reach a backend: `dnat` (default) rewrites the destination; answers come back through the balancer.",
        ),
        key(
            "balance",
            Kind::Choice(&[
                now("hrw"),
                later("maglev", "write `balance = \"hrw\"`, which moves fewer flows up to some thirty backends"),
            ]),
            "How flows are spread: `hrw` (default, rendezvous hashing by weight).",
        ),
        key(
            "on-backend-loss",
            Kind::Choice(&[
                now("resteer"),
                now("keep"),
                now("reset"),
            ]),
            "What happens to the flows of a dead backend: `resteer` (default) sends them to another, `keep` leaves them to it, `reset` ends them on both sides with a RST (TCP; such a service knows each of its flows, which costs a look-up a packet).",
        ),
        key("backends", Kind::Many(&Kind::Table(&BACKEND)), "Where connections go.").needed(),
        key("check", Kind::Table(&CHECK), "How a backend's health is told; without it all count as healthy."),
        key("shuffle", Kind::Whole { least: 1, most: 64 }, "How many backends one client may reach.")
            .later("take it out; a client may reach every backend"),
        key("slow-start", Kind::Word(&DURATION), "How long a new backend takes to its full weight.")
            .later("take it out; raise a backend's `weight` step by step instead"),
        key("affinity", Kind::Choice(&[now("flow"), now("source")]), "What is hashed.")
            .later("take it out; the whole flow is hashed"),
    ],
    one_of: &[],
};

const USE_DNAT: &str = "write `mode = \"dnat\"`, with the balancer as the backends' way back";

static BACKEND: Table = Table {
    what: "a backend",
    about: "A host and a port behind a service.",
    keys: &[
        key(
            "host",
            Kind::Name(Realm::Host),
            "Its private address is used.",
        )
        .needed(),
        key(
            "port",
            Kind::Whole {
                least: 1,
                most: 65_535,
            },
            "Its port.",
        )
        .needed(),
        key(
            "weight",
            Kind::Whole {
                least: 1,
                most: 1_000,
            },
            "Its share against the others; 1 by default.",
        ),
        key(
            "kind",
            Kind::Text,
            "What it shares its weaknesses with; `status` warns when all healthy ones share one.",
        ),
    ],
    one_of: &[],
};

static CHECK: Table = Table {
    what: "a check",
    about: "How a backend's health is told: exactly one of `tcp` and `http`.",
    keys: &[
        key(
            "tcp",
            Kind::Truth,
            "`true`: healthy when it accepts a connection.",
        ),
        key(
            "http",
            Kind::Word(&URL_PATH),
            "Healthy when a GET of this path is answered with `expect`.",
        ),
        key(
            "expect",
            Kind::Whole {
                least: 100,
                most: 599,
            },
            "The status that means healthy; 200 by default.",
        ),
        key(
            "every",
            Kind::Word(&DURATION),
            "Time between checks; 2s by default.",
        ),
        key(
            "timeout",
            Kind::Word(&DURATION),
            "When a check has failed; 1s by default, never more than `every`.",
        ),
        key(
            "rise",
            Kind::Whole {
                least: 1,
                most: 1_000,
            },
            "Good checks in a row that bring it back; 2 by default.",
        ),
        key(
            "fall",
            Kind::Whole {
                least: 1,
                most: 1_000,
            },
            "Bad checks in a row that take it out; 3 by default.",
        ),
    ],
    one_of: &["http", "tcp"],
};

static ADMIN: Table = Table {
    what: "`[admin]`",
    about: "How this node is administered.",
    keys: &[
        key(
            "socket",
            Kind::Word(&FILE),
            "The Unix socket of the command line; `{node}` stands for the node's name; /run/foobar/admin.sock by default.",
        ),
        key(
            "group",
            Kind::Text,
            "The group whose members may ask on the socket; changes take root. Nobody else may ask by default.",
        ),
        key(
            "dashboard",
            Kind::Word(&ENDPOINT),
            "Where each node shows its dashboard, read-only and without a password: best `127.0.0.1:9100`, reached by `ssh -L`.",
        ),
    ],
    one_of: &[],
};

/// What a secret is written as.
pub(super) static SECRET: Table = Table {
    what: "a secret",
    about: "Where the secret is found; it never stands in this file. Exactly one key.",
    keys: &[
        key(
            "credential",
            Kind::Text,
            "The name of a systemd credential.",
        ),
        key("file", Kind::Word(&FILE), "A file that holds it."),
        key("env", Kind::Text, "An environment variable that holds it."),
    ],
    one_of: &["credential", "env", "file"],
};
