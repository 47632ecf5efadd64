//! All that crosses the kernel boundary: names, keys and values of the maps, and the layout of the ruleset blob.
//!
//! Addresses and ports in keys and values are the network's bytes: `u32::from_ne_bytes(addr.octets())`,
//! `port.to_be()`; so the packet path compares what it loads without swapping. The *ruleset blob* alone holds
//! host order, because it compares ranges.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names of the maps, as pinned under `/sys/fs/bpf/foobar/<node>/maps/`.
pub mod map {
    pub const RULESET: &str = "RULESET";
    pub const VIPS_V4: &str = "VIPS_V4";
    pub const VIPS_V6: &str = "VIPS_V6";
    pub const RINGS: &str = "RINGS";
    pub const BACKENDS: &str = "BACKENDS";
    pub const RETURNS_V4: &str = "RETURNS_V4";
    pub const RETURNS_V6: &str = "RETURNS_V6";
    pub const LOCAL_V4: &str = "LOCAL_V4";
    pub const LOCAL_V6: &str = "LOCAL_V6";
    pub const ROUTES_V4: &str = "ROUTES_V4";
    pub const ROUTES_V6: &str = "ROUTES_V6";
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    pub const REMEMBERED_V4: &str = "REMEMBERED_V4";
    pub const REMEMBERED_V6: &str = "REMEMBERED_V6";
    pub const SESSIONS_V4: &str = "SESSIONS_V4";
    pub const SESSIONS_V6: &str = "SESSIONS_V6";
    pub const LEASES: &str = "LEASES";
    pub const EMISSIONS: &str = "EMISSIONS";
    pub const EMITTED: &str = "EMITTED";
    pub const FLOWS_V4: &str = "FLOWS_V4";
    pub const FLOWS_V6: &str = "FLOWS_V6";
    pub const FRAGMENTS_V4: &str = "FRAGMENTS_V4";
    pub const FRAGMENTS_V6: &str = "FRAGMENTS_V6";
    pub const SETS: &str = "SETS";
    pub const SET_PREFIXES_V4: &str = "SET_PREFIXES_V4";
    pub const SET_PREFIXES_V6: &str = "SET_PREFIXES_V6";
    pub const SET_HOSTS_V4: &str = "SET_HOSTS_V4";
    pub const SET_HOSTS_V6: &str = "SET_HOSTS_V6";
    pub const JAIL_V4: &str = "JAIL_V4";
    pub const JAIL_V6: &str = "JAIL_V6";
    pub const BUCKETS_V4: &str = "BUCKETS_V4";
    pub const BUCKETS_V6: &str = "BUCKETS_V6";
    pub const BUCKETS_RULE: &str = "BUCKETS_RULE";
    pub const REASONS: &str = "REASONS";
    pub const RULES: &str = "RULES";
    pub const VIP_TRAFFIC: &str = "VIP_TRAFFIC";
    pub const BACKEND_TRAFFIC: &str = "BACKEND_TRAFFIC";
    /// LRU of on-link addresses whose hardware address a packet lacked (key: address, value: ifindex `u32`); user space
    /// provokes their resolution and deletes the key.
    pub const WANTED_V4: &str = "WANTED_V4";
    pub const WANTED_V6: &str = "WANTED_V6";
    pub const LABELS: &str = "LABELS";
    pub const TRACE: &str = "TRACE";
    pub const DROPS: &str = "DROPS";
    pub const DROP_SAMPLING: &str = "DROP_SAMPLING";
}

/// Names of the read-only globals that user space sets before a program is loaded.
pub mod global {
    /// Slot of the interface that this instance of the program serves, `u32`.
    pub const INTERFACE: &str = "INTERFACE";
    /// 1: count nothing, change nothing, write [`super::Trace`]; for `explain`. `u32`.
    pub const EXPLAIN: &str = "EXPLAIN";
    /// The keys of the flow hash, [`super::HASH_KEYS`] random `u64`s, drawn once per deployment.
    pub const HASH_KEYS: &str = "HASH_KEYS";
}

/// Names of the programs in the object.
pub mod program {
    pub const INGRESS: &str = "ingress";
    pub const EGRESS: &str = "egress";
    /// Sends the frames of `EMISSIONS`, one a run.
    pub const EMIT: &str = "emit";
}

/// Raised when what the maps hold changes its meaning and not its size: a new controller then does not adopt the old ones.
pub const LAYOUT: u32 = 2;
/// Words of [`global::HASH_KEYS`].
pub const HASH_KEYS: usize = 7;
pub const MAX_INTERFACES: u32 = 16;
pub const MAX_VIPS: u32 = 256;
pub const MAX_BACKENDS: u32 = 1024;
pub const MAX_NEXT_HOPS: u32 = 256;
pub const MAX_RULES: u32 = 16_384;
pub const MAX_SETS: u32 = 64;
/// Slots of a ring; a power of two.
pub const RING_SLOTS: u32 = 4096;
/// Default sizes of the tables that user space resizes at load (`map_max_entries`).
pub const SET_HOSTS: u32 = 65_536;
pub const SET_PREFIXES: u32 = 65_536;

pub const INGRESS: u32 = 0;
pub const EGRESS: u32 = 1;

/// Address, port and protocol of an IPv4 endpoint: key of `VIPS_V4` and `RETURNS_V4`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EndpointV4 {
    pub address: u32,
    pub port: u16,
    pub protocol: u8,
    pub zero: u8,
}

/// Address, port and protocol of an IPv6 endpoint: key of `VIPS_V6` and `RETURNS_V6`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EndpointV6 {
    pub address: [u32; 4],
    pub port: u16,
    pub protocol: u8,
    pub zero: u8,
}

/// Value of `VIPS_*`: one address and port that clients connect to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vip {
    /// Index into `RINGS` and `VIP_TRAFFIC`.
    pub vip: u32,
    /// [`checksum_words`] of the vip's address and port.
    pub sum: u32,
    /// Any of the flags below.
    pub flags: u32,
    pub zero: u32,
}

impl Vip {
    /// Flows of a dead backend stay with it.
    pub const KEEP: u32 = 1;
    /// Every flow is known in `SESSIONS_*`, and reset when its backend is lost.
    pub const SESSIONS: u32 = 2;
    /// With nobody to take it, a SYN is answered with a RST rather than with silence.
    pub const REFUSE: u32 = 4;
    /// Nobody is served once the deadline in `LEASES` has passed.
    pub const LEASED: u32 = 8;
    /// An endpoint of this host itself: closed to all but peers once the deadline in `LEASES` has passed.
    pub const GUARDED: u32 = 16;
    /// No endpoint but a host, by its address alone: nothing that is guarded is closed to it.
    pub const PEER: u32 = 32;
}

/// Value of `RETURNS_*`: what a packet *from* a backend's endpoint is rewritten to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Return {
    /// The vip's address; IPv4 in the first word.
    pub address: [u32; 4],
    /// The vip's port, network order, zero-extended.
    pub port: u32,
    /// [`checksum_words`] of the vip's address and port.
    pub sum: u32,
    /// [`checksum_words`] of the backend's address and port.
    pub backend_sum: u32,
    pub vip: u32,
    pub backend: u32,
    /// Of [`Vip`]: [`Vip::SESSIONS`], [`Vip::LEASED`].
    pub flags: u32,
}

/// Value of `BACKENDS`. Written whole before a ring names it; afterwards only `flags`, `ifindex`, `macs`, `mtu` and
/// `epoch` change.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend {
    /// IPv4 in the first word.
    pub address: [u32; 4],
    /// Network order, zero-extended.
    pub port: u32,
    /// [`checksum_words`] of address and port.
    pub sum: u32,
    /// [`Backend::ALIVE`] | [`Backend::RESOLVED`].
    pub flags: u32,
    /// The interface that leads to it.
    pub ifindex: u32,
    /// The first 12 bytes of the Ethernet header: destination, source.
    pub macs: [u32; 3],
    /// Of the interface, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Raised each time the backend is lost: sessions of an earlier epoch stay cut when it comes back.
    pub epoch: u32,
}

impl Backend {
    /// Established flows may still go to it (up or draining; not dead, not removed).
    pub const ALIVE: u32 = 1;
    /// `ifindex` and `macs` are known.
    pub const RESOLVED: u32 = 2;
}

/// Value of `NEXT_HOPS`; index 0 is never used by a route: it means "ask the kernel's FIB".
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NextHop {
    pub macs: [u32; 3],
    pub ifindex: u32,
    pub mtu: u32,
    /// [`Backend::RESOLVED`] or 0.
    pub flags: u32,
}

/// A slot of a ring: where new flows go, and where established flows that nobody remembers go.
///
/// Bits 0–14 `current`, bit 15 `tracked`, bits 16–30 `previous`, as backend indices; [`Slot::NOBODY`] is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Slot(pub u32);

impl Slot {
    pub const NOBODY: u32 = 0x7fff;
    const TRACKED: u32 = 0x8000;

    #[must_use]
    pub const fn new(current: u32, previous: u32, tracked: bool) -> Self {
        Self(
            (current & Self::NOBODY)
                | (previous & Self::NOBODY) << 16
                | if tracked { Self::TRACKED } else { 0 },
        )
    }
    #[must_use]
    pub const fn current(self) -> u32 {
        self.0 & Self::NOBODY
    }
    #[must_use]
    pub const fn previous(self) -> u32 {
        self.0 >> 16 & Self::NOBODY
    }
    /// `REMEMBERED_*` is consulted for this slot.
    #[must_use]
    pub const fn tracked(self) -> bool {
        self.0 & Self::TRACKED != 0
    }
}

/// Key of `REMEMBERED_V4`: a client's flow to a vip.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClientV4 {
    pub address: u32,
    pub port: u16,
    pub vip: u16,
}

/// Key of `REMEMBERED_V6`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClientV6 {
    pub address: [u32; 4],
    pub port: u16,
    pub vip: u16,
}

/// Value of `REMEMBERED_*`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Remembered {
    pub backend: u32,
    /// Coarse monotonic clock, whole seconds.
    pub seen: u32,
}

/// Value of `SESSIONS_*`, keyed by [`ClientV4`] and [`ClientV6`]: a flow of a service that resets.
///
/// Sequence numbers are in host order; the words are written one by one, by the CPU that has the flow.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Session {
    pub backend: u32,
    /// The backend's epoch when the flow began.
    pub epoch: u32,
    /// The sequence number that the client sends next: a RST with it is one that the backend heeds (RFC 5961 3.2).
    pub client_next: u32,
    /// The sequence number that the client expects next.
    pub server_next: u32,
    /// Coarse monotonic clock, whole seconds.
    pub seen: u32,
    /// The device that the client's packets come by.
    pub ifindex: u32,
    /// Of a frame *to* the client: destination, source.
    pub macs: [u32; 3],
}

/// Value of `EMISSIONS`: a frame to be sent, padded with zeros.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Emission {
    pub ifindex: u32,
    pub frame: [u32; Emission::WORDS],
}

impl Emission {
    /// A TCP header on IPv6 on Ethernet takes 74 bytes.
    pub const WORDS: usize = 20;
    pub const LENGTH: usize = Self::WORDS * 4;
    /// Frames that go out at once. Each run has the kernel wait for readers of its dispatcher (`bpf_dispatcher_update`): a
    /// thousand clients in four runs were told 27 ms apart.
    pub const BATCH: u32 = 4096;
}

/// Key of `FLOWS_V4`: a flow that this node opened, as its *replies* look.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowV4 {
    pub source: u32,
    pub destination: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u32,
}

/// Key of `FLOWS_V6`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowV6 {
    pub source: [u32; 4],
    pub destination: [u32; 4],
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u32,
}

/// Value of `FLOWS_*`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowState {
    /// Coarse monotonic clock, whole seconds.
    pub seen: u32,
    pub zero: u32,
}

/// Key of `FRAGMENTS_V4`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatagramV4 {
    pub source: u32,
    pub destination: u32,
    pub identification: u32,
    pub protocol: u32,
}

/// Key of `FRAGMENTS_V6`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatagramV6 {
    pub source: [u32; 4],
    pub destination: [u32; 4],
    pub identification: u32,
    pub protocol: u32,
}

/// Value of `FRAGMENTS_*`: what the first fragment knew.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FirstFragment {
    pub source_port: u16,
    pub destination_port: u16,
    /// Coarse monotonic clock, whole seconds; valid for [`FirstFragment::SECONDS`].
    pub seen: u32,
}

impl FirstFragment {
    /// RFC 791 suggests 15 s, Linux keeps 30.
    pub const SECONDS: u32 = 30;
}

/// Value of `SETS`, indexed by set id: which tables a look-up in this set must ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetInfo {
    /// Any of [`SetInfo::PREFIXES`], [`SetInfo::HOSTS`], [`SetInfo::TIMED`].
    pub tables: u32,
    pub zero: u32,
    /// How long an element that the packet path adds stays, in nanoseconds.
    pub timeout: u64,
}

impl SetInfo {
    /// Has elements in `SET_PREFIXES_*` (bit `id` of the longest match's mask).
    pub const PREFIXES: u32 = 1;
    /// Has elements in `SET_HOSTS_*`.
    pub const HOSTS: u32 = 2;
    /// May have elements in `JAIL_*` (set whenever the set has a timeout).
    pub const TIMED: u32 = 4;
}

/// Key of `SET_HOSTS_V4` (value [`Member`]) and `JAIL_V4` (value [`Member`]).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemberV4 {
    pub set: u32,
    pub address: u32,
}

/// Key of `SET_HOSTS_V6` and `JAIL_V6`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemberV6 {
    pub set: u32,
    pub address: [u32; 4],
}

/// Value of `SET_HOSTS_*` and `JAIL_*`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Member {
    /// Coarse monotonic clock in nanoseconds (`CLOCK_MONOTONIC_COARSE`); `u64::MAX`: for ever.
    pub expires: u64,
}

/// Bytes of a dropped frame that are told: Ethernet, a VLAN tag, IPv6 and TCP fit.
pub const DROP_BYTES: usize = 96;

/// A packet that was dropped, as the ring `DROPS` tells of it. How many are told stands in `DROP_SAMPLING`: 0, none;
/// else one in so many, a power of two.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DropEvent {
    /// Nanoseconds of the coarse monotonic clock.
    pub at: u64,
    /// Slot of the interface.
    pub interface: u32,
    /// As [`crate::tables::Direction`].
    pub direction: u32,
    pub reason: u32,
    /// Id of the rule that counted it last; [`Trace::NONE`]: none.
    pub rule: u32,
    /// Of the packet, from its network header.
    pub length: u32,
    /// How many bytes of the frame follow.
    pub captured: u32,
    pub frame: [u8; DROP_BYTES],
}

/// Key of `BUCKETS_V4`: a rule's limit per source.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BucketV4 {
    pub rule: u32,
    pub source: u32,
}

/// Key of `BUCKETS_V6`: sources share a bucket per /64, which one client owns.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BucketV6 {
    pub rule: u32,
    pub source: [u32; 2],
}

/// Value of `BUCKETS_*`: GCRA's theoretical arrival time, nanoseconds of the coarse monotonic clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    pub theoretical_arrival: u64,
}

/// Value of `REASONS` (index `(interface * 2 + direction) * Reason::SLOTS + reason`) and of `RULES` (index: the
/// rule's counter slot), per CPU.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

/// Value of `VIP_TRAFFIC` and `BACKEND_TRAFFIC`, per CPU.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Traffic {
    /// From clients.
    pub packets_in: u64,
    pub bytes_in: u64,
    /// To clients.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// SYNs forwarded.
    pub connections: u64,
}

/// Key of `LABELS`: what a dense id is called, so that counters keep their meaning without a controller.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LabelKey {
    /// [`LabelKey::RULE`], …
    pub kind: u32,
    pub id: u32,
}

impl LabelKey {
    /// `policy/rule`
    pub const RULE: u32 = 1;
    /// `l4.name address:port`
    pub const VIP: u32 = 2;
    /// `l4.name host:port address`
    pub const BACKEND: u32 = 3;
    /// `interface device`
    pub const INTERFACE: u32 = 4;
    /// the set's name
    pub const SET: u32 = 5;
    /// `l7.name`
    pub const SITE: u32 = 6;
    /// `l7.name host:port`
    pub const SITE_BACKEND: u32 = 7;
}

/// Value of `LABELS`: UTF-8, padded with zeros.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Label {
    pub text: [u8; 96],
}

/// Value of `TRACE` (one element): what an `EXPLAIN` instance of the program decided.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Trace {
    /// [`crate::verdict::Reason`] as a number.
    pub reason: u32,
    /// Counter slot of the rule that decided, or [`Trace::NONE`].
    pub rule: u32,
    /// Set whose membership made the rule match, or [`Trace::NONE`].
    pub set: u32,
    pub vip: u32,
    pub backend: u32,
    pub zero: u32,
    /// Tokens left in the bucket after this packet, or `u64::MAX` when no limit was asked.
    pub tokens: u64,
}

impl Trace {
    pub const NONE: u32 = u32::MAX;
}

/// Sum of the 16-bit words of network bytes, as the Internet checksum adds them (RFC 1071); not folded.
#[must_use]
pub const fn checksum_words(address: &[u32], port_be: u16) -> u32 {
    let mut sum = port_be as u32;
    let mut rest = address;
    while let [word, tail @ ..] = rest {
        sum += (*word & 0xffff) + (*word >> 16);
        rest = tail;
    }
    sum
}

/// The ruleset: every policy of a node compiled into one array of `u64`, swapped whole.
///
/// Word 0 is [`ruleset::MAGIC`], word 1 the generation. Word `DIRECTORY + interface * 2 + direction` is the
/// offset of that direction's policy, 0 for none (pass).
///
/// **Policy**, 3 words: default action ([`ruleset::ALLOW`] or [`ruleset::DROP`]), offset of the IPv4 forest,
/// offset of the IPv6 forest.
///
/// **Forest**: word 0 the number of trees (0..=[`ruleset::MAX_TREES`]), then a word per tree: root node's offset
/// | smallest order in the tree << 32; ascending by that order.
///
/// **Node**, 1 word. Bit 0 clear: a cut, `dim << 8 | shift << 16 | bits << 24 | base << 32`; the child is at
/// `base + (field(dim) >> shift & (1 << bits) - 1)`. Bit 0 set: a leaf, `1 | count << 8 | base << 32`: `count`
/// records from `base`, ascending by order.
///
/// **Dims**, host order, 32 bits each. IPv4: 0 source, 1 destination, 2 source port, 3 destination port,
/// 4 protocol. IPv6: 0–3 source (most significant first), 4–7 destination, 8 source port, 9 destination port,
/// 10 protocol. ICMP: the destination port is `type << 8 | code`, the source port 0. A packet without
/// ports (other protocols; later fragments nobody remembers) has 0 in both and matches no record with
/// [`ruleset::NEEDS_PORTS`].
///
/// **Record**: address words, then three common ones.
/// IPv4, 5 words: `source | source mask << 32`, `destination | mask << 32`.
/// IPv6, 11 words: source high, low; mask high, low; destination high, low; mask high, low.
/// Then `source port low | span << 16 | destination port low << 32 | span << 48` (match: `port - low <= span`);
/// `protocol | protocol mask << 8 | TCP flags mask << 16 | TCP flags value << 24 | (source set + 1) << 32 |
/// (destination set + 1) << 40 | NEEDS_PORTS`;
/// `order | action's offset << 32`.
/// A record with a flags mask matches TCP only; the compiler sets its protocol so.
///
/// **Action**, 3 words: `0 allow / 1 drop | limit kind << 8 | (jail set + 1) << 16 | counter slot << 32`;
/// GCRA interval in ns per packet; GCRA tolerance in ns (burst × interval).
/// An allowing action whose limit is exceeded drops, and puts the source into the jail.
///
/// The walk over all trees of a forest must take at most [`ruleset::BUDGET`] steps (a node or a record each) for
/// *any* packet, without pruning; the compiler proves it or refuses.
pub mod ruleset {
    pub const WORDS: u32 = 1 << 18;
    pub const MAGIC: u64 = 0x666f_6f62_6172_0001;
    pub const DIRECTORY: u32 = 16;
    pub const POLICIES: u32 = 64;
    pub const ALLOW: u64 = 0;
    pub const DROP: u64 = 1;
    pub const MAX_TREES: u32 = 6;
    pub const MAX_BITS: u32 = 12;
    pub const BUDGET: u32 = 192;
    pub const RECORD_V4: u32 = 5;
    pub const RECORD_V6: u32 = 11;
    pub const NEEDS_PORTS: u64 = 1 << 48;
    pub const LIMIT_NONE: u64 = 0;
    pub const LIMIT_RULE: u64 = 1;
    pub const LIMIT_SOURCE: u64 = 2;
}
