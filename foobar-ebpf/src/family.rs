//! What differs between IPv4 and IPv6: addresses, keys, rule records.

use core::{fmt::Debug, hash::Hash};

use crate::abi::{
    BucketV4, BucketV6, ClientV4, ClientV6, DatagramV4, DatagramV6, EndpointV4, EndpointV6, FlowV4,
    FlowV6, MemberV4, MemberV6, ruleset,
};
use crate::{frame::Header, tables::Ruleset};

pub trait Family: 'static {
    type Address: Header + Debug + Eq + Hash;
    type Endpoint: Copy + Eq + Hash;
    type Client: Copy + Eq + Hash;
    type Flow: Copy + Eq + Hash;
    type Datagram: Copy + Eq + Hash;
    type Member: Copy + Eq + Hash;
    type Bucket: Copy + Eq + Hash;

    /// Words of a rule record before the three common ones.
    const RECORD_ADDRESSES: u32;
    /// Offset of this family's forest in a policy.
    const FOREST: u32;
    /// A power of two above the last dim.
    const DIMS: u32;

    fn endpoint(address: Self::Address, port: u16, protocol: u8) -> Self::Endpoint;
    fn client(address: Self::Address, port: u16, vip: u32) -> Self::Client;
    fn flow(
        source: Self::Address,
        destination: Self::Address,
        ports: (u16, u16),
        protocol: u8,
    ) -> Self::Flow;
    fn datagram(
        source: Self::Address,
        destination: Self::Address,
        identification: u32,
        protocol: u8,
    ) -> Self::Datagram;
    fn member(set: u32, address: Self::Address) -> Self::Member;
    fn bucket(rule: u32, source: Self::Address) -> Self::Bucket;
    /// Multilinear hash (Lemire and Kaser, "Strongly universal string hashing is fast", 2014).
    fn hash(key: impl Fn(usize) -> u64, client: &Self::Client) -> u64;
    /// Whether the addresses of the record at `at` match; `None` if it lies outside.
    fn matches_addresses<R: Ruleset>(
        ruleset: &R,
        at: u32,
        source: &Self::Address,
        destination: &Self::Address,
    ) -> Option<bool>;
    /// The 32 bits of the addresses that a dim names, in host order; `Err`: dims after the addresses, from 0.
    fn address_field(
        source: &Self::Address,
        destination: &Self::Address,
        dim: u32,
    ) -> Result<u32, u32>;
    /// The address in the first words of an ABI value.
    fn address(words: &[u32; 4]) -> Self::Address;
    fn words(address: Self::Address) -> [u32; 4];
}

#[derive(Clone, Copy, Debug)]
pub struct V4;

impl Family for V4 {
    type Address = u32;
    type Endpoint = EndpointV4;
    type Client = ClientV4;
    type Flow = FlowV4;
    type Datagram = DatagramV4;
    type Member = MemberV4;
    type Bucket = BucketV4;

    const RECORD_ADDRESSES: u32 = ruleset::RECORD_V4 - 3;
    const FOREST: u32 = 1;
    const DIMS: u32 = 8;

    #[inline(always)]
    fn endpoint(address: u32, port: u16, protocol: u8) -> EndpointV4 {
        EndpointV4 {
            address,
            port,
            protocol,
            zero: 0,
        }
    }

    #[inline(always)]
    fn client(address: u32, port: u16, vip: u32) -> ClientV4 {
        ClientV4 {
            address,
            port,
            vip: vip as u16,
        }
    }

    #[inline(always)]
    fn flow(source: u32, destination: u32, ports: (u16, u16), protocol: u8) -> FlowV4 {
        FlowV4 {
            source,
            destination,
            source_port: ports.0,
            destination_port: ports.1,
            protocol: u32::from(protocol),
        }
    }

    #[inline(always)]
    fn datagram(source: u32, destination: u32, identification: u32, protocol: u8) -> DatagramV4 {
        DatagramV4 {
            source,
            destination,
            identification,
            protocol: u32::from(protocol),
        }
    }

    #[inline(always)]
    fn member(set: u32, address: u32) -> MemberV4 {
        MemberV4 { set, address }
    }

    #[inline(always)]
    fn bucket(rule: u32, source: u32) -> BucketV4 {
        BucketV4 { rule, source }
    }

    #[inline(always)]
    fn hash(key: impl Fn(usize) -> u64, client: &ClientV4) -> u64 {
        let tail = u64::from(client.port) | u64::from(client.vip) << 16;
        key(0)
            .wrapping_add(key(1).wrapping_mul(u64::from(client.address)))
            .wrapping_add(key(2).wrapping_mul(tail))
    }

    #[inline(always)]
    fn matches_addresses<R: Ruleset>(
        ruleset: &R,
        at: u32,
        source: &u32,
        destination: &u32,
    ) -> Option<bool> {
        let [from, to] = ruleset.words::<2>(at)?;
        Some(
            (u32::from_be(*source) ^ *from as u32) & (*from >> 32) as u32 == 0
                && (u32::from_be(*destination) ^ *to as u32) & (*to >> 32) as u32 == 0,
        )
    }

    #[inline(always)]
    fn address_field(source: &u32, destination: &u32, dim: u32) -> Result<u32, u32> {
        match dim {
            0 => Ok(u32::from_be(*source)),
            1 => Ok(u32::from_be(*destination)),
            other => Err(other - 2),
        }
    }

    #[inline(always)]
    fn address(words: &[u32; 4]) -> u32 {
        words[0]
    }

    #[inline(always)]
    fn words(address: u32) -> [u32; 4] {
        [address, 0, 0, 0]
    }
}

#[derive(Clone, Copy, Debug)]
pub struct V6;

impl Family for V6 {
    type Address = [u32; 4];
    type Endpoint = EndpointV6;
    type Client = ClientV6;
    type Flow = FlowV6;
    type Datagram = DatagramV6;
    type Member = MemberV6;
    type Bucket = BucketV6;

    const RECORD_ADDRESSES: u32 = ruleset::RECORD_V6 - 3;
    const FOREST: u32 = 2;
    const DIMS: u32 = 16;

    #[inline(always)]
    fn endpoint(address: [u32; 4], port: u16, protocol: u8) -> EndpointV6 {
        EndpointV6 {
            address,
            port,
            protocol,
            zero: 0,
        }
    }

    #[inline(always)]
    fn client(address: [u32; 4], port: u16, vip: u32) -> ClientV6 {
        ClientV6 {
            address,
            port,
            vip: vip as u16,
        }
    }

    #[inline(always)]
    fn flow(source: [u32; 4], destination: [u32; 4], ports: (u16, u16), protocol: u8) -> FlowV6 {
        FlowV6 {
            source,
            destination,
            source_port: ports.0,
            destination_port: ports.1,
            protocol: u32::from(protocol),
        }
    }

    #[inline(always)]
    fn datagram(
        source: [u32; 4],
        destination: [u32; 4],
        identification: u32,
        protocol: u8,
    ) -> DatagramV6 {
        DatagramV6 {
            source,
            destination,
            identification,
            protocol: u32::from(protocol),
        }
    }

    #[inline(always)]
    fn member(set: u32, address: [u32; 4]) -> MemberV6 {
        MemberV6 { set, address }
    }

    #[inline(always)]
    fn bucket(rule: u32, source: [u32; 4]) -> BucketV6 {
        let [first, second, ..] = source;
        BucketV6 {
            rule,
            source: [first, second],
        }
    }

    #[inline(always)]
    fn hash(key: impl Fn(usize) -> u64, client: &ClientV6) -> u64 {
        let [a, b, c, d] = client.address;
        let tail = u64::from(client.port) | u64::from(client.vip) << 16;
        key(0)
            .wrapping_add(key(1).wrapping_mul(u64::from(a)))
            .wrapping_add(key(2).wrapping_mul(u64::from(b)))
            .wrapping_add(key(3).wrapping_mul(u64::from(c)))
            .wrapping_add(key(4).wrapping_mul(u64::from(d)))
            .wrapping_add(key(5).wrapping_mul(tail))
    }

    #[inline(always)]
    fn matches_addresses<R: Ruleset>(
        ruleset: &R,
        at: u32,
        source: &[u32; 4],
        destination: &[u32; 4],
    ) -> Option<bool> {
        let [s0, s1, sm0, sm1, d0, d1, dm0, dm1] = ruleset.words::<8>(at)?;
        let [a, b, c, d] = *source;
        let [e, f, g, h] = *destination;
        Some(
            (pair(a, b) ^ *s0) & *sm0 == 0
                && (pair(c, d) ^ *s1) & *sm1 == 0
                && (pair(e, f) ^ *d0) & *dm0 == 0
                && (pair(g, h) ^ *d1) & *dm1 == 0,
        )
    }

    #[inline(always)]
    fn address_field(source: &[u32; 4], destination: &[u32; 4], dim: u32) -> Result<u32, u32> {
        let address = if dim < 4 { source } else { destination };
        if dim < 8 {
            let word = address.get((dim & 3) as usize).copied().unwrap_or(0);
            Ok(u32::from_be(word))
        } else {
            Err(dim - 8)
        }
    }

    #[inline(always)]
    fn address(words: &[u32; 4]) -> [u32; 4] {
        *words
    }

    #[inline(always)]
    fn words(address: [u32; 4]) -> [u32; 4] {
        address
    }
}

#[inline(always)]
fn pair(high: u32, low: u32) -> u64 {
    u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low))
}
