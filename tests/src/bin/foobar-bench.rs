//! `cargo xtask bench`: what a packet costs, beside floors measured in the same run; what the proxy costs, beside others.

#[path = "foobar-bench/proxy/mod.rs"]
mod proxy;

use std::{
    collections::HashMap,
    env,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, ProgramArray},
    programs::Xdp,
};
use clap::{Parser, Subcommand, ValueEnum};
use foobar::{
    balancer::{self, Availability, Member, VipRing},
    config, firewall,
    kernel::{self, Deployment, HashKeys, Sizes, Table as _},
    labels::Labels,
};
use foobar_ebpf::abi::{self, Backend, MemberV4, SetInfo};
use foobar_lab::{
    databases::Databases,
    ledger,
    nemesis::Nemesis,
    trials::{self, Plan},
};
use mimalloc::MiMalloc;

/// As `foobar` has it: the proxy that is measured is a part of this program.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Debug, Parser)]
#[command(
    name = "foobar-bench",
    about = "Measures the packet path, the proxy, and what databases do under faults"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Nanoseconds per packet by BPF_PROG_TEST_RUN, cases interleaved.
    Packet {
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Rounds of each case; minimum and median are shown.
        #[arg(long, default_value_t = 11)]
        rounds: usize,
        /// Packets of a round.
        #[arg(long, default_value_t = 200_000)]
        packets: u32,
    },
    /// Requests, handshakes, latency and memory of foobar, nginx and HAProxy, rounds interleaved.
    Proxy(proxy::Options),
    /// Faults of the lab's databases under a writer that remembers every acknowledgement.
    Mysql {
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[arg(long, default_value_t = 20)]
        trials: usize,
        /// `mariadb`, or `mysql` for MySQL 9.7.
        #[arg(long, value_enum, default_value_t)]
        databases: Databases,
        /// Only these, in turn; all by default.
        #[arg(long, value_enum)]
        nemesis: Vec<Nemesis>,
        /// Clients that wait for an answer meanwhile.
        #[arg(long, default_value_t = 50)]
        idle: u32,
        /// Switchovers after that, for the time in which nobody may write.
        #[arg(long, default_value_t = 0)]
        switchovers: usize,
        /// Trials in which a thousand clients lose a primary that hangs.
        #[arg(long, default_value_t = 0)]
        crowds: usize,
        /// Minutes with a starved processor, lost packets and a controller that stands still: nobody may be promoted.
        #[arg(long, default_value_t = 0)]
        soak: u64,
    },
    /// The writer of `mysql`, in the namespace where it is started.
    #[command(hide = true)]
    Write {
        #[arg(long, default_value_t = ledger::WRITER)]
        at: std::net::SocketAddr,
        #[arg(long)]
        writers: u32,
        #[arg(long)]
        idle: u32,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("foobar-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Packet {
            output,
            rounds,
            packets,
        } => measure_packets(output, rounds, packets),
        Command::Mysql {
            output,
            trials,
            databases,
            nemesis,
            idle,
            switchovers,
            crowds,
            soak,
        } => {
            let plan = Plan {
                databases,
                trials,
                only: nemesis,
                idle,
                switchovers,
                crowds,
                soak: Duration::from_secs(soak * 60),
            };
            let report = trials::run(&plan, &mut |line| eprintln!("{line}"))?;
            match output {
                Output::Table => print!("{}", report.table()),
                Output::Json => println!("{:#}", serde_json::to_value(&report)?),
            }
            report.verdict()
        }
        Command::Proxy(options) => proxy::run(options),
        Command::Write { at, writers, idle } => ledger::write(at, writers, idle),
    }
}

fn measure_packets(output: Output, rounds: usize, packets: u32) -> Result<()> {
    let mut bench = Bench::new()?;
    let mut cases = cases(&mut bench)?;
    for _ in 0..rounds.max(9) {
        for case in &mut cases {
            case.measure(packets)?;
        }
    }
    match output {
        Output::Table => print!("{}", table(&cases)),
        Output::Json => println!("{}", json(&cases)),
    }
    Ok(())
}

/// A program under test behind its wrapper, with what it took in each round.
struct Case {
    name: String,
    wrapper: Ebpf,
    _under_test: Option<Ebpf>,
    frame: Vec<u8>,
    /// What it must return: a case that measures something else is no case.
    returns: u32,
    nanoseconds: Vec<u64>,
}

impl Case {
    fn measure(&mut self, packets: u32) -> Result<()> {
        let length = u32::try_from(self.frame.len())?;
        let context: Vec<u8> = [0, length, 0, LOOPBACK, 0, 0]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        let wrapper: &mut Xdp = program(&mut self.wrapper, "wrapper")?;
        let mut out = vec![0; 512];
        let run = wrapper.test_run(TestRunOptions {
            data_in: Some(&self.frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::default()
        })?;
        if run.return_value != self.returns {
            bail!(
                "{} returned {}, should return {}",
                self.name,
                run.return_value,
                self.returns
            );
        }
        self.nanoseconds
            .push(u64::try_from(run.duration.as_nanos())?);
        Ok(())
    }

    fn minimum(&self) -> u64 {
        self.nanoseconds.iter().copied().min().unwrap_or(0)
    }

    fn median(&self) -> u64 {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    object
        .program_mut(name)
        .ok_or_else(|| anyhow!("the object has no program {name}"))?
        .try_into()
        .with_context(|| format!("{name} is no XDP program"))
}

/// The index of `lo`, which every network namespace has.
const LOOPBACK: u32 = 1;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const ONE: u64 = 0;
const FLOWS_64K: u64 = (1 << 16) - 1;
const FLOWS_1M: u64 = (1 << 20) - 1;

fn cases(bench: &mut Bench) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (family, suffix) in [(Family::V4, ""), (Family::V6, "-ipv6")] {
        let client = family.client();
        let vip = frame(client, family.vip(), ACK);
        let host = frame(client, family.host(), ACK);
        for (name, floor, returns) in [
            ("floor-drop", "floor_drop", XDP_DROP),
            ("floor-tx", "floor_tx", XDP_TX),
            ("floor-parse-swap-tx", "floor_parse_swap_tx", XDP_TX),
        ] {
            cases.push(bench.floor(&format!("{name}{suffix}"), floor, &vip, family, returns)?);
        }
        let mut add = |name: &str, node, frame: &[u8], flows, returns| -> Result<()> {
            let name = format!("{name}{suffix}");
            cases.push(bench.product(&name, node, frame, family, flows, returns)?);
            Ok(())
        };
        add("not-vip-pass", RULES_16, &host, ONE, XDP_PASS)?;
        add("vip-dnat-1-flow", RULES_16, &vip, ONE, XDP_TX)?;
        add("vip-dnat-64k-flows", RULES_16, &vip, FLOWS_64K, XDP_TX)?;
        add("vip-dnat-1m-flows", RULES_16, &vip, FLOWS_1M, XDP_TX)?;
        let syn = frame_of(client, family.vip(), SYN);
        add("syn-new-flow-each", RULES_16, &syn, (1 << 26) - 1, XDP_TX)?;
        if matches!(family, Family::V4) {
            let denied = frame("198.51.100.66:51000".parse()?, family.host(), ACK);
            add("deny-set-hit", RULES_16, &denied, ONE, XDP_DROP)?;
        }
        add("rules-16", RULES_16, &host, FLOWS_64K, XDP_PASS)?;
        add("rules-1000", RULES_1000, &host, FLOWS_64K, XDP_PASS)?;
    }
    Ok(cases)
}

fn frame_of(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    frame(from, to, flags)
}

#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn endpoint(v4: &str, v6: &str, family: Self) -> SocketAddr {
        match family {
            Self::V4 => v4.parse().expect("written above"),
            Self::V6 => v6.parse().expect("written above"),
        }
    }

    fn client(self) -> SocketAddr {
        Self::endpoint("198.51.100.7:51000", "[2001:db8:c::7]:51000", self)
    }

    fn vip(self) -> SocketAddr {
        Self::endpoint("203.0.113.10:8080", "[2001:db8::10]:8080", self)
    }

    fn host(self) -> SocketAddr {
        Self::endpoint("203.0.113.10:9000", "[2001:db8::10]:9000", self)
    }

    const fn number(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

const SYN: u8 = 2;
const ACK: u8 = 16;
/// As the wrapper's template.
const LENGTH: usize = 80;

/// Nodes of the bench's estate; each has a policy of its own.
const RULES_16: &str = "lb1";
const RULES_1000: &str = "lb2";

fn estate() -> String {
    let mut text = String::from(
        r#"version = 1
[hosts]
lb1 = { public = ["203.0.113.10", "2001:db8::10"], private = "10.0.0.10" }
lb2 = { public = ["203.0.113.20", "2001:db8::20"], private = "10.0.0.20" }
web1 = { private = ["10.0.0.11", "fd00::11"] }
web2 = { private = ["10.0.0.12", "fd00::12"] }
web3 = { private = ["10.0.0.13", "fd00::13"] }
[sets]
denied = { max = 65536 }
[nodes]
lb1 = { wan = { dev = "lo", ingress = "edge" } }
lb2 = { wan = { dev = "lo", ingress = "large" } }
[l4.plain]
on = "lb1"
vip = ["public:8080"]
proto = "tcp"
backends = [{ host = "web1", port = 80 }, { host = "web2", port = 80 }, { host = "web3", port = 80 }]
[firewall]
"#,
    );
    text.push_str("edge = { policy = \"drop\", rules = [\n");
    text.push_str("  { name = \"denied\", drop = \"any\", from = [\"@denied\"] },\n");
    for rule in 0..13 {
        let _ = writeln!(
            text,
            "  {{ name = \"port-{rule}\", allow = [\"tcp/{}\"], from = [\"192.0.{rule}.0/24\", \"2001:db8:{rule:x}00::/40\"] }},",
            2000 + rule
        );
    }
    text.push_str("  { name = \"web\", allow = [\"tcp/8080\"] },\n");
    text.push_str("  { name = \"host\", allow = [\"tcp/9000\"] } ] }\n");
    text.push_str("large = { policy = \"drop\", rules = [\n");
    for rule in 0..999 {
        let _ = writeln!(
            text,
            "  {{ name = \"rule-{rule}\", allow = [\"tcp/{}\"], from = [\"10.{}.{}.0/24\", \"2001:db8:{:x}::/48\"] }},",
            1000 + rule % 97,
            rule / 250,
            rule % 250,
            0x1000 + rule
        );
    }
    text.push_str("  { name = \"host\", allow = [\"tcp/9000\"] } ] }\n");
    text
}

/// The product's maps, filled once for each node of the estate.
struct Bench {
    product: PathBuf,
    floors: Vec<u8>,
    keys: HashKeys,
    nodes: HashMap<&'static str, Deployment>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for node in self.nodes.keys() {
            // Nothing is attached; the maps go with their pins.
            let _ = kernel::detach(&pin_name(node), &kernel::Which::All);
        }
    }
}

fn pin_name(node: &str) -> String {
    format!("bench-{node}")
}

impl Bench {
    fn new() -> Result<Self> {
        let object = |variable: &str| {
            env::var_os(variable)
                .map(PathBuf::from)
                .ok_or_else(|| anyhow!("{variable} is not set; run `cargo xtask bench packet`"))
        };
        let mut bench = Self {
            product: object("FOOBAR_EBPF_OBJECT")?,
            floors: fs::read(object("FOOBAR_BENCH_EBPF_OBJECT")?)?,
            keys: HashKeys(std::array::from_fn(|index| {
                foobar::stable::mix(index as u64 + 1)
            })),
            nodes: HashMap::new(),
        };
        let config = config::parse(&estate(), Path::new("bench.toml"))
            .map_err(|errors| anyhow!("{errors}"))?;
        for node in [RULES_16, RULES_1000] {
            let deployment = bench.deploy(&config, node)?;
            bench.nodes.insert(node, deployment);
        }
        Ok(bench)
    }

    fn deploy(&self, config: &config::Config, node: &str) -> Result<Deployment> {
        // Left over from a run that was killed, or not there.
        let _ = kernel::detach(&pin_name(node), &kernel::Which::All);
        let mut deployment = Deployment::open(&pin_name(node), self.keys, Sizes::default())?;
        let tables = deployment.tables_mut();
        let mut labels = Labels::default();
        let ruleset = firewall::compile(config, node, &mut labels, 1)?;
        let plan = balancer::plan(config, node, &mut labels)?;
        tables.set_ruleset(&ruleset.words)?;
        for (id, backend) in &plan.backends {
            let value = Backend {
                address: backend.words,
                port: u32::from(backend.port.to_be()),
                sum: backend.sum,
                flags: Backend::ALIVE | Backend::RESOLVED,
                ifindex: LOOPBACK,
                macs: [2, 3, 4],
                mtu: 1500,
                epoch: 0,
            };
            tables.backends.set(*id, value)?;
        }
        for (id, vip) in &plan.vips {
            let members: Vec<_> = vip
                .members
                .iter()
                .map(|backend| Member {
                    backend: *backend,
                    name: plan.backends[backend].label.clone(),
                    weight: 1,
                    availability: Availability::Up,
                })
                .collect();
            let ring = VipRing::new(&members, std::time::Instant::now());
            tables.set_ring(*id, ring.slots())?;
        }
        tables.vips_v4.become_exactly(&plan.vips_v4)?;
        tables.vips_v6.become_exactly(&plan.vips_v6)?;
        tables.returns_v4.become_exactly(&plan.returns_v4)?;
        tables.returns_v6.become_exactly(&plan.returns_v6)?;
        if let Some(set) = labels.find(foobar::labels::Kind::Set, "denied") {
            let info = SetInfo {
                tables: SetInfo::HOSTS,
                zero: 0,
                timeout: 0,
            };
            tables.sets.set(set, info)?;
            let member = |address: [u8; 4]| MemberV4 {
                set,
                address: u32::from_ne_bytes(address),
            };
            for host in 0..10_000_u16 {
                let [high, low] = host.to_be_bytes();
                tables
                    .set_hosts_v4
                    .insert(member([172, 16, high, low]), FOREVER)?;
            }
            tables
                .set_hosts_v4
                .insert(member([198, 51, 100, 66]), FOREVER)?;
        }
        Ok(deployment)
    }

    fn wrapper(&self, frame: &[u8], family: Family, flows: u64) -> Result<Ebpf> {
        let mut wrapper = EbpfLoader::new()
            .override_global("FLOWS", &flows, true)
            .override_global("FAMILY", &family.number(), true)
            .load(&self.floors)?;
        let mut words = [0_u64; LENGTH / 8];
        for (word, bytes) in words.iter_mut().zip(frame.chunks(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        let template = wrapper.map_mut("TEMPLATE").context("no TEMPLATE")?;
        Array::<_, [u64; LENGTH / 8]>::try_from(template)?.set(0, words, 0)?;
        program(&mut wrapper, "wrapper")?.load()?;
        Ok(wrapper)
    }

    fn floor(
        &self,
        name: &str,
        floor: &str,
        frame: &[u8],
        family: Family,
        returns: u32,
    ) -> Result<Case> {
        let mut wrapper = self.wrapper(frame, family, ONE)?;
        let under_test = program(&mut wrapper, floor)?;
        under_test.load()?;
        let descriptor = under_test.fd()?.try_clone()?;
        let programs = wrapper.map_mut("UNDER_TEST").context("no UNDER_TEST")?;
        ProgramArray::try_from(programs)?.set(0, &descriptor, 0)?;
        Ok(case(name, wrapper, None, frame, returns))
    }

    fn product(
        &mut self,
        name: &str,
        node: &str,
        frame: &[u8],
        family: Family,
        flows: u64,
        returns: u32,
    ) -> Result<Case> {
        let mut wrapper = self.wrapper(frame, family, flows)?;
        let directory = Path::new("/sys/fs/bpf/foobar")
            .join(pin_name(node))
            .join("maps");
        let mut loader = EbpfLoader::new();
        loader.override_global(abi::global::HASH_KEYS, &self.keys.0, true);
        let pins: Vec<_> = fs::read_dir(&directory)?.collect::<Result<_, _>>()?;
        for pin in &pins {
            if let Some(name) = pin.file_name().to_str() {
                loader.map_pin_path(name.to_owned().leak(), pin.path());
            }
        }
        let mut product = loader.load_file(&self.product)?;
        let under_test = program(&mut product, abi::program::INGRESS)?;
        under_test.load()?;
        let descriptor = under_test.fd()?.try_clone()?;
        let programs = wrapper.map_mut("UNDER_TEST").context("no UNDER_TEST")?;
        ProgramArray::try_from(programs)?.set(0, &descriptor, 0)?;
        Ok(case(name, wrapper, Some(product), frame, returns))
    }
}

const FOREVER: abi::Member = abi::Member { expires: u64::MAX };

fn case(name: &str, wrapper: Ebpf, under_test: Option<Ebpf>, frame: &[u8], returns: u32) -> Case {
    Case {
        name: name.to_owned(),
        wrapper,
        _under_test: under_test,
        frame: frame.to_vec(),
        returns,
        nanoseconds: Vec::new(),
    }
}

/// A TCP segment, padded to the template's length. Its checksums do not matter to the packet path, which updates them.
fn frame(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0x12, 0x34]);
            frame.extend(from.ip().octets());
            frame.extend(to.ip().octets());
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            frame.extend(from.ip().octets());
            frame.extend(to.ip().octets());
        }
        _ => unreachable!("both ends are of one family"),
    }
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend([
        0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0x56, 0x78, 0, 0,
    ]);
    frame.resize(LENGTH, 0);
    frame
}

/// Bars: minimum over the minimum of another case of the same run.
const BARS: &[(&str, &str, f64)] = &[
    ("not-vip-pass", "floor-parse-swap-tx", 3.0),
    ("vip-dnat-1-flow", "floor-parse-swap-tx", 5.0),
    ("vip-dnat-1m-flows", "vip-dnat-1-flow", 1.25),
    ("not-vip-pass-ipv6", "floor-parse-swap-tx-ipv6", 3.0),
    ("vip-dnat-1-flow-ipv6", "floor-parse-swap-tx-ipv6", 5.0),
    ("vip-dnat-1m-flows-ipv6", "vip-dnat-1-flow-ipv6", 1.25),
];

fn table(cases: &[Case]) -> String {
    let mut text = String::new();
    let minimum = |name: &str| {
        cases
            .iter()
            .find(|case| case.name == name)
            .map_or(0, Case::minimum)
    };
    let _ = writeln!(
        text,
        "{:26} {:>8} {:>10}   over its bar's floor",
        "case", "min ns", "median ns"
    );
    for case in cases {
        let _ = write!(
            text,
            "{:26} {:>8} {:>10}",
            case.name,
            case.minimum(),
            case.median()
        );
        if let Some((_, floor, bar)) = BARS.iter().find(|(name, ..)| *name == case.name) {
            let ratio = case.minimum() as f64 / minimum(floor).max(1) as f64;
            let holds = if ratio <= *bar { "holds" } else { "MISSED" };
            let _ = write!(text, "   {ratio:.2} x {floor}, bar {bar}: {holds}");
        }
        text.push('\n');
    }
    text
}

fn json(cases: &[Case]) -> serde_json::Value {
    let cases: Vec<_> = cases
        .iter()
        .map(|case| {
            serde_json::json!({
                "name": case.name,
                "min_ns": case.minimum(),
                "median_ns": case.median(),
            })
        })
        .collect();
    serde_json::json!({ "schema": "foobar/bench-packet/v1", "cases": cases })
}
