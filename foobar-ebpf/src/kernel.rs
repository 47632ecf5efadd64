//! The seams on the kernel: maps, frames and clocks as the packet path sees them.

use core::{ffi::c_void, ptr::from_ref};

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, bpf_fib_lookup, xdp_md},
    btf_maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key,
    },
    helpers::generated::{
        bpf_fib_lookup as fib_lookup, bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_loop,
        bpf_skb_load_bytes, bpf_skb_pull_data, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
        bpf_xdp_load_bytes,
    },
    macros::btf_map,
};
use foobar_ebpf::{
    abi::{
        self, Backend, Bucket, BucketV4, BucketV6, ClientV4, ClientV6, DatagramV4, DatagramV6,
        DropEvent, Emission, EndpointV4, EndpointV6, FirstFragment, FlowState, FlowV4, FlowV6,
        Label, LabelKey, MAX_BACKENDS, MAX_INTERFACES, MAX_NEXT_HOPS, MAX_RULES, MAX_SETS,
        MAX_VIPS, Member, MemberV4, MemberV6, NextHop, RING_SLOTS, Remembered, Return, SET_HOSTS,
        SET_PREFIXES, Session, SetInfo, Slot, Tally, Trace, Traffic, Vip, ruleset,
    },
    family::{V4, V6},
    frame::{Frame, Header},
    tables::{Direction, Route, Ruleset, Tables, TablesOf, Way},
    verdict::Reason,
    workspace::Workspaces,
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
pub static SESSIONS_V4: LruHashMap<ClientV4, Session, 65_536> = LruHashMap::new();
#[btf_map]
pub static SESSIONS_V6: LruHashMap<ClientV6, Session, 32_768> = LruHashMap::new();
#[btf_map]
pub static LEASES: Array<u64, { MAX_VIPS as usize }> = Array::new();
#[btf_map]
pub static EMISSIONS: Array<Emission, { Emission::BATCH as usize }> = Array::new();
#[btf_map]
pub static EMITTED: Array<u32, 1> = Array::new();

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
static WORKSPACES: PerCpuArray<Workspaces, 1> = PerCpuArray::new();
/// A `bpf_fib_lookup`: on the stack it would be an eighth of what all functions share.
#[btf_map]
static QUESTIONS: PerCpuArray<[u32; QUESTION_WORDS], 1> = PerCpuArray::new();
#[btf_map]
pub static TRACE: Array<Trace, 1> = Array::new();
#[btf_map]
pub static DROPS: RingBuf<DropEvent, 262_144> = RingBuf::new();
#[btf_map]
pub static DROP_SAMPLING: Array<u32, 1> = Array::new();

/// Hides a value from LLVM, so that a comparison that follows reaches the verifier as written.
#[inline(always)]
fn opaque(mut value: u64) -> u64 {
    // SAFETY: moves a register to itself.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// The part of a packet that the program may touch.
struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    #[inline(always)]
    fn pointer<H>(&self, offset: usize) -> Option<*mut H> {
        // Hidden, so that the comparison and the access are about the same register: the verifier relates no others.
        let at = opaque((self.start + offset) as u64) as usize;
        if at + size_of::<H>() > self.end {
            None
        } else {
            Some(at as *mut H)
        }
    }

    #[inline(always)]
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
        let pointer = self.pointer::<H>(offset)?;
        // SAFETY: `pointer` bounds-checked it against the packet; `Header` types are valid for any bytes. Misaligned
        // loads from packets are allowed where the JIT has them (x86-64, arm64), and `read` makes natural ones.
        Some(unsafe { pointer.read() })
    }

    #[inline(always)]
    fn write<H: Header>(&mut self, offset: usize, header: H) -> Option<()> {
        let pointer = self.pointer::<H>(offset)?;
        // SAFETY: as for `read`; the program is the only user of the packet while it runs.
        unsafe { pointer.write(header) };
        Some(())
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        self.end - self.start >= length
    }
}

pub struct XdpFrame {
    context: *mut xdp_md,
    linear: Linear,
}

impl XdpFrame {
    #[inline(always)]
    pub fn new(context: *mut xdp_md) -> Self {
        // SAFETY: the kernel gives a valid context to the entry point.
        let (start, end) = unsafe { ((*context).data, (*context).data_end) };
        Self {
            context,
            linear: Linear {
                start: start as usize,
                end: end as usize,
            },
        }
    }

    #[inline(always)]
    fn whole_length(&self) -> usize {
        // SAFETY: a helper on the program's own context.
        unsafe { bpf_xdp_get_buff_len(self.context) as usize }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
        self.linear.read(offset)
    }

    #[inline(always)]
    fn write<H: Header>(&mut self, offset: usize, header: H) -> Option<()> {
        self.linear.write(offset, header)
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        self.linear.holds(length) || self.whole_length() >= length
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.whole_length()
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) -> Option<()> {
        let change = length as i32 - self.whole_length() as i32;
        // SAFETY: a helper on the program's own context; it invalidates `linear`, which is taken anew.
        if change > 0 || unsafe { bpf_xdp_adjust_tail(self.context, change) } != 0 {
            return None;
        }
        *self = Self::new(self.context);
        Some(())
    }
}

/// A packet on its way out; it is only looked at.
pub struct TcFrame {
    length: usize,
    linear: Linear,
}

impl TcFrame {
    /// Headers that are looked at lie within this many bytes.
    const HEADERS: u32 = 256;

    #[inline(always)]
    pub fn new(context: *mut __sk_buff) -> Self {
        // SAFETY: the kernel gives a valid context to the entry point; `data` and `data_end` are loaded after the
        // helper that may move them.
        unsafe {
            let length = (*context).len;
            let wanted = length.min(Self::HEADERS);
            let start = (*context).data as usize;
            if start + wanted as usize > (*context).data_end as usize {
                bpf_skb_pull_data(context, wanted);
            }
            Self {
                length: length as usize,
                linear: Linear {
                    start: (*context).data as usize,
                    end: (*context).data_end as usize,
                },
            }
        }
    }
}

impl Frame for TcFrame {
    #[inline(always)]
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
        self.linear.read(offset)
    }

    #[inline(always)]
    fn write<H: Header>(&mut self, _offset: usize, _header: H) -> Option<()> {
        None
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        self.length >= length
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn truncate(&mut self, _length: usize) -> Option<()> {
        None
    }
}

/// This CPU's workspaces. XDP and TC programs do not interrupt each other on a CPU (both run with bottom halves
/// disabled), so whoever asks is alone with them.
#[inline(always)]
pub fn workspaces() -> Option<&'static mut Workspaces> {
    // SAFETY: see above; the element lives as long as the program, and zeros are a valid value.
    WORKSPACES
        .get_ptr_mut(0)
        .map(|workspaces| unsafe { &mut *workspaces })
}

/// The blob of rules: one inner map's only element.
#[derive(Clone, Copy)]
pub struct Blob(&'static [u64; ruleset::WORDS as usize]);

impl Ruleset for Blob {
    #[inline(always)]
    fn words<const N: usize>(&self, at: u32) -> Option<&[u64; N]> {
        let at = opaque(u64::from(at)) as usize;
        if at > self.0.len() - N {
            return None;
        }
        // SAFETY: `at + N` words lie within the array, by the comparison above.
        Some(unsafe { &*self.0.as_ptr().add(at).cast() })
    }
}

/// The maps, as one program on one interface uses them.
pub struct Maps {
    context: *mut c_void,
    ingress_ifindex: u32,
    /// The rule that counted the packet last.
    rule: u32,
}

impl Maps {
    #[inline(always)]
    pub fn new(context: *mut c_void, ingress_ifindex: u32) -> Self {
        if explains() {
            note(|trace| {
                *trace = Trace {
                    rule: Trace::NONE,
                    set: Trace::NONE,
                    vip: Trace::NONE,
                    backend: Trace::NONE,
                    tokens: u64::MAX,
                    ..Trace::default()
                };
            });
        }
        Self {
            context,
            ingress_ifindex,
            rule: Trace::NONE,
        }
    }
}

impl Maps {
    /// Tells user space of some of the packets that are dropped, when it wants to know.
    #[inline(always)]
    fn tell_drop(&self, direction: Direction, reason: Reason, bytes: u32) {
        let one_in = match DROP_SAMPLING.get(0) {
            Some(one_in) if *one_in != 0 => *one_in,
            _ => return,
        };
        // SAFETY: a helper without arguments.
        let random = unsafe { bpf_get_prandom_u32() };
        if random & one_in.wrapping_sub(1) != 0 {
            return;
        }
        // Nobody is told of what the ring has no room for.
        let Some(mut told) = DROPS.reserve(0) else {
            return;
        };
        let event = told.write(DropEvent {
            at: self.now(),
            interface: self.interface(),
            direction: direction as u32,
            reason: reason as u32,
            rule: self.rule,
            length: bytes,
            captured: 0,
            frame: [0; abi::DROP_BYTES],
        });
        let frame = event.frame.as_mut_ptr().cast();
        // The verifier wants lengths that it can see; a frame that is shorter is refused, and the next is tried.
        for length in [96_u32, 74, 54, 42] {
            // SAFETY: of a valid context into memory of at least that length.
            let result = unsafe {
                match direction {
                    Direction::Ingress => bpf_xdp_load_bytes(self.context.cast(), 0, frame, length),
                    Direction::Egress => bpf_skb_load_bytes(self.context, 0, frame, length),
                }
            };
            if result == 0 {
                event.captured = length;
                break;
            }
        }
        told.submit(0);
    }
}

#[inline(always)]
fn explains() -> bool {
    EXPLAIN.load() != 0
}

#[inline(always)]
fn note(write: impl FnOnce(&mut Trace)) {
    if let Some(trace) = TRACE.get_ptr_mut(0) {
        // SAFETY: the element of an array lives as long as its map; only explaining programs write it, one at a time.
        write(unsafe { &mut *trace });
    }
}

#[inline(always)]
fn add(tally: Option<*mut Tally>, bytes: u32) {
    if let Some(tally) = tally {
        // SAFETY: this CPU's element of a per-CPU array, in a program that no other on this CPU interrupts.
        unsafe {
            (*tally).packets += 1;
            (*tally).bytes += u64::from(bytes);
        }
    }
}

unsafe extern "C" fn call<C: FnMut() -> bool>(_index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `repeat` passes a pointer to a `C` that nothing else uses meanwhile.
    let step = unsafe { &mut *context.cast::<C>() };
    i64::from(!step())
}

#[inline(always)]
fn callback_of<C: FnMut() -> bool>(_step: &C) -> *mut c_void {
    call::<C> as *mut c_void
}

impl Tables for Maps {
    type Ruleset<'a> = Blob;

    #[inline(always)]
    fn ruleset(&self) -> Option<Blob> {
        let words = RULESET.get(0)?.get_ptr(0)?;
        // SAFETY: the kernel frees an inner map after the programs that saw it have ended (RCU).
        Some(Blob(unsafe { &*words }))
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        INTERFACE.load()
    }

    #[inline(always)]
    fn device(&self) -> u32 {
        self.ingress_ifindex
    }

    #[inline(always)]
    fn lease(&self, vip: u32) -> u64 {
        LEASES.get(vip).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn hash_key(&self, index: usize) -> u64 {
        // SAFETY: callers pass literals below `HASH_KEYS`; `Global` is transparent. Volatile, as `Global::load` is:
        // the loader replaces the value that the compiler sees.
        unsafe {
            from_ref(&HASH_KEYS)
                .cast::<u64>()
                .add(index)
                .read_volatile()
        }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn ring_slot(&self, vip: u32, slot: u32) -> Option<Slot> {
        let ring = RINGS.get(vip)?.get_ptr(0)?;
        // SAFETY: as for the ruleset.
        let ring: &[u32; RING_SLOTS as usize] = unsafe { &*ring };
        ring.get((slot & (RING_SLOTS - 1)) as usize)
            .copied()
            .map(Slot)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn next_hop(&self, id: u32) -> Option<&NextHop> {
        NEXT_HOPS.get(id)
    }

    #[inline(always)]
    fn set(&self, id: u32) -> Option<&SetInfo> {
        SETS.get(id)
    }

    #[inline(always)]
    fn repeat(&self, times: u32, mut step: impl FnMut() -> bool) {
        let callback = callback_of(&step);
        // SAFETY: the callback gets `step` back, which outlives the helper's call.
        unsafe { bpf_loop(times, callback, (&raw mut step).cast(), 0) };
    }

    #[inline(always)]
    fn bucket_of_rule(&mut self, rule: u32, update: impl FnOnce(u64) -> u64) {
        let Some(bucket) = BUCKETS_RULE.get_ptr_mut(rule) else {
            return;
        };
        // SAFETY: an aligned word of an array; CPUs that race lose a token's worth of precision, nothing else.
        unsafe {
            let arrival = update((*bucket).theoretical_arrival);
            if !explains() {
                (*bucket).theoretical_arrival = arrival;
            }
        }
    }

    #[inline(always)]
    fn count_rule(&mut self, rule: u32, bytes: u32) {
        if !explains() {
            add(RULES.get_ptr_mut(rule), bytes);
            self.rule = rule;
        }
    }

    #[inline(always)]
    fn count_verdict(&mut self, direction: Direction, reason: Reason, bytes: u32) {
        if !explains() {
            let index = (self.interface() * 2 + direction as u32) * Reason::SLOTS + reason as u32;
            add(REASONS.get_ptr_mut(index), bytes);
            if reason.drops() {
                self.tell_drop(direction, reason, bytes);
            }
        }
    }

    #[inline(always)]
    fn count_balanced(&mut self, backend: u32, way: Way, bytes: u32) {
        if explains() {
            return;
        }
        let Some(traffic) = BACKEND_TRAFFIC.get_ptr_mut(backend) else {
            return;
        };
        // SAFETY: as for `add`.
        let traffic = unsafe { &mut *traffic };
        match way {
            Way::ToBackend { opens } => {
                traffic.packets_in += 1;
                traffic.bytes_in += u64::from(bytes);
                traffic.connections += u64::from(opens);
            }
            Way::ToClient => {
                traffic.packets_out += 1;
                traffic.bytes_out += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn trace(&mut self, write: impl FnOnce(&mut Trace)) {
        if explains() {
            note(write);
        }
    }
}

/// The result codes of `bpf_fib_lookup` that matter here.
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGHBOUR: i64 = 7;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const QUESTION_WORDS: usize = size_of::<bpf_fib_lookup>() / 4;

impl Maps {
    /// Asks the kernel by a question to which `ask` gives the addresses.
    #[inline(always)]
    fn fib(&self, family: u8, ask: impl FnOnce(&mut bpf_fib_lookup)) -> Route {
        let Some(words) = QUESTIONS.get_ptr_mut(0) else {
            return Route::None;
        };
        // Not known to be zeros, of which LLVM would make a call of memset.
        let zero = opaque(0) as u32;
        // SAFETY: this CPU's own, and no program interrupts this one on it; a structure of integers as long as the words
        // and aligned to 4, as they are.
        let question = unsafe {
            *words = [zero; QUESTION_WORDS];
            &mut *words.cast::<bpf_fib_lookup>()
        };
        question.family = family;
        question.ifindex = self.ingress_ifindex;
        ask(question);
        // SAFETY: the program's own context, and a structure of the size that is given.
        let answer = unsafe {
            fib_lookup(
                self.context,
                &raw mut *question,
                size_of::<bpf_fib_lookup>() as i32,
                0,
            )
        };
        match answer {
            FIB_SUCCESS => {
                let [a, b, c, d, e, f] = question.dmac;
                let [g, h, i, j, k, l] = question.smac;
                Route::Via(NextHop {
                    macs: [
                        u32::from_ne_bytes([a, b, c, d]),
                        u32::from_ne_bytes([e, f, g, h]),
                        u32::from_ne_bytes([i, j, k, l]),
                    ],
                    ifindex: question.ifindex,
                    // The kernel compared the route's MTU with a length of 0; the driver compares the device's.
                    mtu: u32::MAX,
                    flags: Backend::RESOLVED,
                })
            }
            FIB_NO_NEIGHBOUR => Route::NoNeighbour,
            _ => Route::None,
        }
    }
}

/// Implements the look-ups of one family on its maps.
macro_rules! tables_of {
    (
        $family:ident, $address:ty, $bits:literal,
        $vips:ident, $returns:ident, $local:ident, $routes:ident, $wanted:ident, $remembered:ident, $sessions:ident,
        $flows:ident,
        $fragments:ident, $prefixes:ident, $hosts:ident, $jail:ident, $buckets:ident,
        $endpoint:ty, $client:ty, $flow:ty, $datagram:ty, $member:ty, $bucket:ty,
        $protocol:ident, $source:ident, $destination:ident
    ) => {
        impl TablesOf<$family> for Maps {
            #[inline(always)]
            fn vip(&self, endpoint: &$endpoint) -> Option<&Vip> {
                // SAFETY: the value is copied before this program writes any map.
                unsafe { $vips.get(endpoint) }
            }

            #[inline(always)]
            fn backend_return(&self, endpoint: &$endpoint) -> Option<&Return> {
                // SAFETY: as for `vip`.
                unsafe { $returns.get(endpoint) }
            }

            #[inline(always)]
            fn is_local(&self, address: $address) -> bool {
                $local.get_ptr(&address).is_some()
            }

            #[inline(always)]
            fn route(&self, destination: $address) -> u32 {
                $routes
                    .get(&Key::new($bits, destination))
                    .copied()
                    .unwrap_or(0)
            }

            #[inline(always)]
            fn kernel_route(&self, source: $address, destination: $address) -> Route {
                self.fib($protocol, |question| {
                    question.__bindgen_anon_3.$source = source;
                    question.__bindgen_anon_4.$destination = destination;
                })
            }

            #[inline(always)]
            fn want(&mut self, address: $address) {
                if !explains() {
                    // A full table means that user space is asked often enough.
                    let _ = $wanted.insert(&address, &self.ingress_ifindex, 0);
                }
            }

            #[inline(always)]
            fn remembered(&self, client: &$client) -> Option<Remembered> {
                // SAFETY: copied at once; a recycled slot gives another flow's backend, which is alive or not used.
                unsafe { $remembered.get(client) }.copied()
            }

            #[inline(always)]
            fn remember(&mut self, client: &$client, remembered: Remembered) {
                if !explains() {
                    // An LRU map makes room; when it cannot, the slot's previous backend still stands.
                    let _ = $remembered.insert(client, &remembered, 0);
                }
            }

            #[inline(always)]
            fn with_session<R>(
                &mut self,
                client: &$client,
                follow: impl FnOnce(&mut Session) -> R,
            ) -> Option<R> {
                let session = $sessions.get_ptr_mut(client)?;
                if explains() {
                    // SAFETY: copied at once.
                    return Some(follow(&mut unsafe { *session }));
                }
                // SAFETY: words of an element that lives while the program runs; a flow's packets come to one CPU, and
                // where they do not, a word is the one or the other's.
                Some(follow(unsafe { &mut *session }))
            }

            #[inline(always)]
            fn begin_session(&mut self, client: &$client, session: Session) {
                if !explains() {
                    // An LRU map makes room; a flow without a session is reset with its next packet.
                    let _ = $sessions.insert(client, &session, 0);
                }
            }

            #[inline(always)]
            fn flow(&self, flow: &$flow) -> Option<u32> {
                // SAFETY: copied at once.
                unsafe { $flows.get(flow) }.map(|state| state.seen)
            }

            #[inline(always)]
            fn note_flow(&mut self, flow: &$flow, seconds: u32) {
                if explains() {
                    return;
                }
                if let Some(state) = $flows.get_ptr_mut(flow) {
                    // SAFETY: one aligned word.
                    unsafe { (*state).seen = seconds };
                } else {
                    let state = FlowState {
                        seen: seconds,
                        zero: 0,
                    };
                    // An LRU map makes room; a flow that is not noted has its reply dropped by policy.
                    let _ = $flows.insert(flow, &state, 0);
                }
            }

            #[inline(always)]
            fn first_fragment(&self, datagram: &$datagram) -> Option<FirstFragment> {
                // SAFETY: copied at once.
                unsafe { $fragments.get(datagram) }.copied()
            }

            #[inline(always)]
            fn note_first_fragment(&mut self, datagram: &$datagram, first: FirstFragment) {
                if !explains() {
                    // Without it the later fragments have no ports.
                    let _ = $fragments.insert(datagram, &first, 0);
                }
            }

            #[inline(always)]
            fn sets_around(&self, address: $address) -> u64 {
                $prefixes
                    .get(&Key::new($bits, address))
                    .map_or(0, |[low, high]| u64::from(*high) << 32 | u64::from(*low))
            }

            #[inline(always)]
            fn is_host_of_set(&self, member: &$member) -> bool {
                $hosts.get_ptr(member).is_some()
            }

            #[inline(always)]
            fn timed_member(&self, member: &$member) -> Option<u64> {
                // SAFETY: copied at once.
                unsafe { $jail.get(member) }.map(|member| member.expires)
            }

            #[inline(always)]
            fn add_timed_member(&mut self, member: &$member, expires: u64) {
                if !explains() {
                    // An LRU map makes room.
                    let _ = $jail.insert(member, &Member { expires }, 0);
                }
            }

            #[inline(always)]
            fn bucket_of_source(&mut self, bucket: &$bucket, update: impl FnOnce(u64) -> u64) {
                if let Some(found) = $buckets.get_ptr_mut(bucket) {
                    // SAFETY: one aligned word; CPUs that race lose a token's worth of precision.
                    unsafe {
                        let theoretical_arrival = update((*found).theoretical_arrival);
                        if !explains() {
                            (*found).theoretical_arrival = theoretical_arrival;
                        }
                    }
                } else {
                    let theoretical_arrival = update(0);
                    if !explains() {
                        let found = Bucket {
                            theoretical_arrival,
                        };
                        // An LRU map makes room; a source without a bucket has a full one.
                        let _ = $buckets.insert(bucket, &found, 0);
                    }
                }
            }
        }
    };
}

tables_of!(
    V4,
    u32,
    32,
    VIPS_V4,
    RETURNS_V4,
    LOCAL_V4,
    ROUTES_V4,
    WANTED_V4,
    REMEMBERED_V4,
    SESSIONS_V4,
    FLOWS_V4,
    FRAGMENTS_V4,
    SET_PREFIXES_V4,
    SET_HOSTS_V4,
    JAIL_V4,
    BUCKETS_V4,
    EndpointV4,
    ClientV4,
    FlowV4,
    DatagramV4,
    MemberV4,
    BucketV4,
    AF_INET,
    ipv4_src,
    ipv4_dst
);

tables_of!(
    V6,
    [u32; 4],
    128,
    VIPS_V6,
    RETURNS_V6,
    LOCAL_V6,
    ROUTES_V6,
    WANTED_V6,
    REMEMBERED_V6,
    SESSIONS_V6,
    FLOWS_V6,
    FRAGMENTS_V6,
    SET_PREFIXES_V6,
    SET_HOSTS_V6,
    JAIL_V6,
    BUCKETS_V6,
    EndpointV6,
    ClientV6,
    FlowV6,
    DatagramV6,
    MemberV6,
    BucketV6,
    AF_INET6,
    ipv6_src,
    ipv6_dst
);

/// Writes the next frame of `EMISSIONS` over this one; where it goes out.
#[inline(always)]
pub fn next_emission(context: *mut xdp_md) -> Option<u32> {
    let emitted = EMITTED.get_ptr_mut(0)?;
    // SAFETY: user space runs this program on one CPU at a time, under the node's lock.
    let index = unsafe {
        let index = *emitted;
        *emitted = index + 1;
        index
    };
    let emission = EMISSIONS.get(index)?;
    XdpFrame::new(context).write(0, emission.frame)?;
    Some(emission.ifindex)
}
