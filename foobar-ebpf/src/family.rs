//! What differs between IPv4 and IPv6: addresses, keys, rule records.

use core::{fmt::Debug, hash::Hash};

use crate::abi::{
    BucketV4, BucketV6, ClientV4, ClientV6, DatagramV4, DatagramV6, EndpointV4, EndpointV6, FlowV4,
    FlowV6, MemberV4, MemberV6, ruleset,
};

pub trait Family: 'static {
    type Address: Copy + Debug + Eq + Hash;
    type Endpoint: Copy + Eq + Hash;
    type Client: Copy + Eq + Hash;
    type Flow: Copy + Eq + Hash;
    type Datagram: Copy + Eq + Hash;
    type Member: Copy + Eq + Hash;
    type Bucket: Copy + Eq + Hash;
    /// The fields that cuts select, by dim, in host order.
    type Fields: AsRef<[u32]>;

    /// Dim of the source port; destination port and protocol follow it.
    const PORTS: usize;
    /// Words of a rule record before the three common ones.
    const RECORD_ADDRESSES: u32;
    /// Offset of this family's forest in a policy.
    const FOREST: u32;

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
    fn hash(keys: &[u64; crate::abi::HASH_KEYS], client: &Self::Client) -> u64;
    fn fields(
        source: Self::Address,
        destination: Self::Address,
        ports: (u16, u16),
        protocol: u8,
    ) -> Self::Fields;
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
    type Fields = [u32; 8];

    const PORTS: usize = 2;
    const RECORD_ADDRESSES: u32 = ruleset::RECORD_V4 - 3;
    const FOREST: u32 = 1;

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
    fn hash(keys: &[u64; crate::abi::HASH_KEYS], client: &ClientV4) -> u64 {
        let [k0, k1, k2, ..] = keys;
        let tail = u64::from(client.port) | u64::from(client.vip) << 16;
        k0.wrapping_add(k1.wrapping_mul(u64::from(client.address)))
            .wrapping_add(k2.wrapping_mul(tail))
    }

    #[inline(always)]
    fn fields(source: u32, destination: u32, ports: (u16, u16), protocol: u8) -> [u32; 8] {
        [
            u32::from_be(source),
            u32::from_be(destination),
            u32::from(u16::from_be(ports.0)),
            u32::from(u16::from_be(ports.1)),
            u32::from(protocol),
            0,
            0,
            0,
        ]
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
    type Fields = [u32; 16];

    const PORTS: usize = 8;
    const RECORD_ADDRESSES: u32 = ruleset::RECORD_V6 - 3;
    const FOREST: u32 = 2;

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
    fn flow(
        source: [u32; 4],
        destination: [u32; 4],
        ports: (u16, u16),
        protocol: u8,
    ) -> FlowV6 {
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
    fn hash(keys: &[u64; crate::abi::HASH_KEYS], client: &ClientV6) -> u64 {
        let [k0, k1, k2, k3, k4, k5, ..] = keys;
        let [a, b, c, d] = client.address;
        let tail = u64::from(client.port) | u64::from(client.vip) << 16;
        k0.wrapping_add(k1.wrapping_mul(u64::from(a)))
            .wrapping_add(k2.wrapping_mul(u64::from(b)))
            .wrapping_add(k3.wrapping_mul(u64::from(c)))
            .wrapping_add(k4.wrapping_mul(u64::from(d)))
            .wrapping_add(k5.wrapping_mul(tail))
    }

    #[inline(always)]
    fn fields(
        source: [u32; 4],
        destination: [u32; 4],
        ports: (u16, u16),
        protocol: u8,
    ) -> [u32; 16] {
        let [s0, s1, s2, s3] = source;
        let [d0, d1, d2, d3] = destination;
        [
            u32::from_be(s0),
            u32::from_be(s1),
            u32::from_be(s2),
            u32::from_be(s3),
            u32::from_be(d0),
            u32::from_be(d1),
            u32::from_be(d2),
            u32::from_be(d3),
            u32::from(u16::from_be(ports.0)),
            u32::from(u16::from_be(ports.1)),
            u32::from(protocol),
            0,
            0,
            0,
            0,
            0,
        ]
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
