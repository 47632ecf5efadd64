//! `[mysql.*]` as data.

use super::{DURATION, ENDPOINT, FILE, Kind, LEASE, Named, Realm, Table, key, later, now};

pub(super) static MYSQL_SERVICES: Named = Named {
    what: "a mysql service",
    about: "A database cluster: a writer address and a reader address.",
    kind: Kind::Table(&MYSQL_SERVICE),
};

static MYSQL_SERVICE: Table = Table {
    what: "a mysql service",
    about: "A writer address that follows the primary, a reader address over the healthy replicas. MySQL or MariaDB.",
    keys: &[
        key(
            "on",
            Kind::OneOrMany(&Kind::Name(Realm::Node)),
            "The node that balances it, or several, each at addresses of its own: one of them leads, by the servers' own locks.",
        )
        .needed(),
        key(
            "write",
            Kind::OneOrMany(&Kind::Word(&ENDPOINT)),
            "Where the primary is reached, and nobody when there is none or more than one.",
        )
        .needed(),
        key(
            "read",
            Kind::OneOrMany(&Kind::Word(&ENDPOINT)),
            "Where the replicas are reached.",
        ),
        key(
            "members",
            Kind::Many(&Kind::Member),
            "The servers: `host:port`.",
        )
        .needed(),
        key(
            "check",
            Kind::Table(&MYSQL_CHECK),
            "How roles and health are told.",
        )
        .needed(),
        key(
            "mode",
            Kind::Choice(&[now("observe"), now("consensus"), now("promote")]),
            "Who decides which server is primary: somebody else (`observe`, default: no server is ever changed), the engine's own majority (`consensus`: Group Replication, Galera), or foobar (`promote`: GTID and semi-synchronous replication on three servers; acts only while its preflight holds).",
        ),
        key(
            "admin",
            Kind::Table(&MYSQL_ACCOUNT),
            "With `promote`: the account that moves roles; not the monitor's.",
        ),
        key(
            "replication",
            Kind::Table(&MYSQL_ACCOUNT),
            "With `promote`: the account by which replicas connect to a new primary.",
        ),
        key(
            "fallback",
            Kind::Choice(&[
                now("none"),
                now("least-lagged"),
                later(
                    "primary",
                    "write `fallback = \"least-lagged\"`: a server's answers can belong to one of the two addresses only",
                ),
            ]),
            "Where reads go when every replica is beyond `max-lag`: to the one least behind within `hard-lag` (default), or nowhere.",
        ),
        key(
            "on-write-stall",
            Kind::Choice(&[now("alarm"), now("failover")]),
            "With `promote`: what follows when the primary answers but takes no writes (a hung or full disk): an alarm and no new writers (default), or a failover.",
        ),
        key(
            "rejoin",
            Kind::Choice(&[now("automatic"), now("manual")]),
            "With `promote`: whether a deposed server that comes back with nothing of its own follows by itself (default) or by `foobar mysql rejoin`.",
        ),
        key(
            "cool-down",
            Kind::Word(&DURATION),
            "With `promote`: the least time between two failovers, even after `foobar mysql resume`-less ones by hand; 10m by default.",
        ),
        key(
            "lease",
            Kind::Word(&LEASE),
            "How long one look at the servers lets the packet path serve the writer address: a balancer that hangs or is cut off serves nobody after that. 1s with several balancers, and a failover then waits as long; `never` (default) with one, whose packet path goes on without its controller.",
        ),
        key(
            "guard",
            Kind::Word(&DURATION),
            "With it each member's own node closes the member's ports to all but the members and the balancers, once for so long no beat of a balancer was acknowledged there: a deposed primary is closed also to clients that go past the balancers. At least three times `probe-every`.",
        ),
        key(
            "hook",
            Kind::Word(&FILE),
            "A program that is told what happens to roles: it gets the event, the cluster and the member as arguments, and is never waited for.",
        ),
    ],
    one_of: &[],
};

static MYSQL_ACCOUNT: Table = Table {
    what: "an account",
    about: "A user of the database servers.",
    keys: &[
        key("user", Kind::Text, "Its name.").needed(),
        key("password", Kind::Secret, "Its password.").needed(),
    ],
    one_of: &[],
};

static MYSQL_CHECK: Table = Table {
    what: "a mysql check",
    about: "How roles and health are told.",
    keys: &[
        key("user", Kind::Text, "The monitor's account.").needed(),
        key("password", Kind::Secret, "Its password.").needed(),
        key(
            "every",
            Kind::Word(&DURATION),
            "Time between checks; 100ms by default.",
        ),
        key(
            "timeout",
            Kind::Word(&DURATION),
            "When a check has failed; 250ms by default.",
        ),
        key(
            "max-lag",
            Kind::Word(&DURATION),
            "Replicas further behind get no new readers; 5s by default.",
        ),
        key(
            "hard-lag",
            Kind::Word(&DURATION),
            "Replicas further behind lose the readers they have; ten times `max-lag` by default.",
        ),
        key(
            "fall",
            Kind::Whole {
                least: 1,
                most: 1_000,
            },
            "Failures in a row that speak against the server and take it out; 3 by default.",
        ),
        key(
            "heartbeat",
            Kind::Word(&DURATION),
            "How often a source tells its replicas that it lives, as set there; 300ms by default.",
        ),
        key(
            "probe",
            Kind::Choice(&[now("write"), now("never")]),
            "Whether a row of `foobar.heartbeat` is written on the primary (default): it tells lag, and disks that hang.",
        ),
        key(
            "probe-every",
            Kind::Word(&DURATION),
            "Time between writes of the probe; 500ms by default.",
        ),
        key(
            "probe-timeout",
            Kind::Word(&DURATION),
            "When writes count as stalled; 2s by default.",
        ),
        key(
            "admin-port",
            Kind::Whole {
                least: 1,
                most: 65_535,
            },
            "The servers' `admin_port` (MySQL) or `extra_port` (MariaDB): it answers when connections are exhausted.",
        ),
        key(
            "ca",
            Kind::Word(&FILE),
            "Who signs the servers' certificates, PEM; with it connections are encrypted.",
        ),
    ],
    one_of: &[],
};
