//! The look-ups and notes that a decision may make: the seam between the packet path and its maps.

use crate::{
    abi::{
        Backend, FirstFragment, NextHop, Remembered, Return, Session, SetInfo, Slot, Trace, Vip,
    },
    family::Family,
    verdict::Reason,
};

/// The compiled ruleset; immutable once it can be seen.
pub trait Ruleset: Copy {
    fn words<const N: usize>(&self, at: u32) -> Option<&[u64; N]>;
}

/// The way of a packet through an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Direction {
    Ingress = crate::abi::INGRESS,
    Egress = crate::abi::EGRESS,
}

/// Which way a balanced packet goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    ToBackend { opens: bool },
    ToClient,
}

/// What the kernel's routing table says of a destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    Via(NextHop),
    /// On a link, but its hardware address is not known.
    NoNeighbour,
    None,
}

pub trait Tables {
    type Ruleset<'a>: Ruleset
    where
        Self: 'a;

    fn ruleset(&self) -> Option<Self::Ruleset<'_>>;
    /// Slot of the interface that the packet came through.
    fn interface(&self) -> u32;
    /// Index of the device that the packet came by.
    fn device(&self) -> u32;
    /// One of the [`crate::abi::HASH_KEYS`] words.
    fn hash_key(&self, index: usize) -> u64;
    /// Coarse monotonic clock, nanoseconds.
    fn now(&self) -> u64;
    fn ring_slot(&self, vip: u32, slot: u32) -> Option<Slot>;
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// Until when a vip may be served, nanoseconds of [`Tables::now`].
    fn lease(&self, vip: u32) -> u64;
    fn next_hop(&self, id: u32) -> Option<&NextHop>;
    fn set(&self, id: u32) -> Option<&SetInfo>;

    /// Calls `step` until it returns false, `times` at most.
    fn repeat(&self, times: u32, step: impl FnMut() -> bool);

    /// Replaces a rule's bucket (0: empty) by what `update` makes of it.
    fn bucket_of_rule(&mut self, rule: u32, update: impl FnOnce(u64) -> u64);
    fn count_rule(&mut self, rule: u32, bytes: u32);
    fn count_verdict(&mut self, direction: Direction, reason: Reason, bytes: u32);
    fn count_balanced(&mut self, backend: u32, way: Way, bytes: u32);
    /// Notes for `explain`; nothing otherwise.
    fn trace(&mut self, note: impl FnOnce(&mut Trace));
}

pub trait TablesOf<F: Family> {
    fn vip(&self, endpoint: &F::Endpoint) -> Option<&Vip>;
    fn backend_return(&self, endpoint: &F::Endpoint) -> Option<&Return>;
    fn is_local(&self, address: F::Address) -> bool;
    /// Index of a next hop; 0: ask [`TablesOf::kernel_route`].
    fn route(&self, destination: F::Address) -> u32;
    fn kernel_route(&self, source: F::Address, destination: F::Address) -> Route;
    /// Asks user space to have the address resolved.
    fn want(&mut self, address: F::Address);

    fn remembered(&self, client: &F::Client) -> Option<Remembered>;
    fn remember(&mut self, client: &F::Client, remembered: Remembered);

    /// Looks at a session, and changes it, in its place.
    fn with_session<R>(
        &mut self,
        client: &F::Client,
        follow: impl FnOnce(&mut Session) -> R,
    ) -> Option<R>;
    fn begin_session(&mut self, client: &F::Client, session: Session);

    /// When the flow was seen last, in seconds.
    fn flow(&self, flow: &F::Flow) -> Option<u32>;
    fn note_flow(&mut self, flow: &F::Flow, seconds: u32);

    fn first_fragment(&self, datagram: &F::Datagram) -> Option<FirstFragment>;
    fn note_first_fragment(&mut self, datagram: &F::Datagram, first: FirstFragment);

    /// Mask of the sets that have a prefix around the address.
    fn sets_around(&self, address: F::Address) -> u64;
    fn is_host_of_set(&self, member: &F::Member) -> bool;
    /// Until when the address is in the set, nanoseconds of the coarse clock.
    fn timed_member(&self, member: &F::Member) -> Option<u64>;
    fn add_timed_member(&mut self, member: &F::Member, expires: u64);

    /// Replaces a source's bucket (0: empty) by what `update` makes of it.
    fn bucket_of_source(&mut self, bucket: &F::Bucket, update: impl FnOnce(u64) -> u64);
}
