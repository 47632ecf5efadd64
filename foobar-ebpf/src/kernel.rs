//! The seams on the kernel: maps, frames and clocks as the packet path sees them.

use aya_ebpf::{
    Global,
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use foobar_ebpf::{
    abi::{
        self, Backend, Bucket, BucketV4, BucketV6, ClientV4, ClientV6, DatagramV4, DatagramV6,
        EndpointV4, EndpointV6, FirstFragment, FlowState, FlowV4, FlowV6, Label, LabelKey,
        MAX_BACKENDS, MAX_INTERFACES, MAX_NEXT_HOPS, MAX_RULES, MAX_SETS, MAX_VIPS, Member,
        MemberV4, MemberV6, NextHop, RING_SLOTS, Remembered, Return, SET_HOSTS, SET_PREFIXES,
        SetInfo, Tally, Trace, Traffic, Vip, ruleset,
    },
    verdict::Reason,
};

#[unsafe(no_mangle)]
static INTERFACE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static EXPLAIN: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static HASH_KEYS: Global<[u64; abi::HASH_KEYS]> = Global::new([0; abi::HASH_KEYS]);

// Inner values are arrays of integers: kernels 5.15 to 6.1 refuse inner maps of structs that user space makes.
#[btf_map]
pub static RULESET: ArrayOfMaps<Array<[u64; ruleset::WORDS as usize], 1>, 1> = ArrayOfMaps::new();
#[btf_map]
pub static RINGS: ArrayOfMaps<Array<[u32; RING_SLOTS as usize], 1>, { MAX_VIPS as usize }> =
    ArrayOfMaps::new();

#[btf_map]
pub static VIPS_V4: HashMap<EndpointV4, Vip, { MAX_VIPS as usize }> = HashMap::new();
#[btf_map]
pub static VIPS_V6: HashMap<EndpointV6, Vip, { MAX_VIPS as usize }> = HashMap::new();
#[btf_map]
pub static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
pub static RETURNS_V4: HashMap<EndpointV4, Return, { MAX_BACKENDS as usize }> = HashMap::new();
#[btf_map]
pub static RETURNS_V6: HashMap<EndpointV6, Return, { MAX_BACKENDS as usize }> = HashMap::new();
#[btf_map]
pub static LOCAL_V4: HashMap<u32, u32, 1024> = HashMap::new();
#[btf_map]
pub static LOCAL_V6: HashMap<[u32; 4], u32, 1024> = HashMap::new();
#[btf_map]
pub static ROUTES_V4: LpmTrie<u32, u32, 4096> = LpmTrie::new();
#[btf_map]
pub static ROUTES_V6: LpmTrie<[u32; 4], u32, 4096> = LpmTrie::new();
#[btf_map]
pub static NEXT_HOPS: Array<NextHop, { MAX_NEXT_HOPS as usize }> = Array::new();
#[btf_map]
pub static REMEMBERED_V4: LruHashMap<ClientV4, Remembered, 262_144> = LruHashMap::new();
#[btf_map]
pub static REMEMBERED_V6: LruHashMap<ClientV6, Remembered, 131_072> = LruHashMap::new();

#[btf_map]
pub static WANTED_V4: LruHashMap<u32, u32, 256> = LruHashMap::new();
#[btf_map]
pub static WANTED_V6: LruHashMap<[u32; 4], u32, 256> = LruHashMap::new();

#[btf_map]
pub static FLOWS_V4: LruHashMap<FlowV4, FlowState, 131_072> = LruHashMap::new();
#[btf_map]
pub static FLOWS_V6: LruHashMap<FlowV6, FlowState, 65_536> = LruHashMap::new();
#[btf_map]
pub static FRAGMENTS_V4: LruHashMap<DatagramV4, FirstFragment, 8192> = LruHashMap::new();
#[btf_map]
pub static FRAGMENTS_V6: LruHashMap<DatagramV6, FirstFragment, 8192> = LruHashMap::new();

#[btf_map]
pub static SETS: Array<SetInfo, { MAX_SETS as usize }> = Array::new();
// A u64 value wants keys of a multiple of 8 bytes; an IPv4 key has 4.
#[btf_map]
pub static SET_PREFIXES_V4: LpmTrie<u32, [u32; 2], { SET_PREFIXES as usize }> = LpmTrie::new();
#[btf_map]
pub static SET_PREFIXES_V6: LpmTrie<[u32; 4], [u32; 2], { SET_PREFIXES as usize }> = LpmTrie::new();
#[btf_map]
pub static SET_HOSTS_V4: HashMap<MemberV4, Member, { SET_HOSTS as usize }> = HashMap::new();
#[btf_map]
pub static SET_HOSTS_V6: HashMap<MemberV6, Member, { SET_HOSTS as usize }> = HashMap::new();
#[btf_map]
pub static JAIL_V4: LruHashMap<MemberV4, Member, { SET_HOSTS as usize }> = LruHashMap::new();
#[btf_map]
pub static JAIL_V6: LruHashMap<MemberV6, Member, { SET_HOSTS as usize }> = LruHashMap::new();
#[btf_map]
pub static BUCKETS_V4: LruHashMap<BucketV4, Bucket, 131_072> = LruHashMap::new();
#[btf_map]
pub static BUCKETS_V6: LruHashMap<BucketV6, Bucket, 65_536> = LruHashMap::new();
#[btf_map]
pub static BUCKETS_RULE: Array<Bucket, { MAX_RULES as usize }> = Array::new();

#[btf_map]
pub static REASONS: PerCpuArray<Tally, { (MAX_INTERFACES * 2 * Reason::SLOTS) as usize }> =
    PerCpuArray::new();
#[btf_map]
pub static RULES: PerCpuArray<Tally, { MAX_RULES as usize }> = PerCpuArray::new();
#[btf_map]
pub static VIP_TRAFFIC: PerCpuArray<Traffic, { MAX_VIPS as usize }> = PerCpuArray::new();
#[btf_map]
pub static BACKEND_TRAFFIC: PerCpuArray<Traffic, { MAX_BACKENDS as usize }> = PerCpuArray::new();
#[btf_map]
pub static LABELS: HashMap<LabelKey, Label, 20_480> = HashMap::new();
#[btf_map]
pub static TRACE: Array<Trace, 1> = Array::new();
