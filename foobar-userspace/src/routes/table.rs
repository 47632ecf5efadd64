//! The main table as the packet path wants it: prefixes to numbers of next hops, no more prefixes than needed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use foobar_ebpf::abi::MAX_NEXT_HOPS;
use ipnet::IpNet;

use super::picture::{Hop, Route, Via};

/// Numbers of next hops; a hop keeps its number while a route uses it.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    taken: BTreeMap<Hop, u32>,
    /// Given back in the last round: a packet may still hold one.
    resting: BTreeSet<u32>,
}

/// Ask the kernel's FIB.
const KERNEL: u32 = 0;

impl Numbers {
    /// Numbers for exactly these hops; none for those beyond [`MAX_NEXT_HOPS`].
    fn assign(&mut self, hops: &BTreeSet<Hop>) {
        let left: Vec<Hop> = self
            .taken
            .keys()
            .filter(|hop| !hops.contains(hop))
            .copied()
            .collect();
        let returned: BTreeSet<u32> = left
            .iter()
            .filter_map(|hop| self.taken.remove(hop))
            .collect();
        for hop in hops {
            if self.taken.contains_key(hop) {
                continue;
            }
            let used: BTreeSet<u32> = self.taken.values().copied().collect();
            let free = (1..MAX_NEXT_HOPS).find(|number| {
                !used.contains(number)
                    && !returned.contains(number)
                    && !self.resting.contains(number)
            });
            if let Some(number) = free {
                self.taken.insert(*hop, number);
            }
        }
        self.resting = returned;
    }

    pub fn hops(&self) -> impl Iterator<Item = (Hop, u32)> {
        self.taken.iter().map(|(hop, number)| (*hop, *number))
    }

    /// The routes as prefixes to numbers; a destination that none covers is the kernel's.
    pub fn compile(&mut self, routes: &[Route]) -> BTreeMap<IpNet, u32> {
        let chosen = best(routes);
        self.assign(&chosen.values().flatten().copied().collect());
        let numbered = chosen
            .into_iter()
            .map(|(prefix, hop)| {
                let number = hop.and_then(|hop| self.taken.get(&hop).copied());
                (prefix, number.unwrap_or(KERNEL))
            })
            .collect();
        without_redundant(&numbered)
    }
}

/// By prefix, the hop of the route with the lowest metric; `None` for what only the kernel can decide.
fn best(routes: &[Route]) -> HashMap<IpNet, Option<Hop>> {
    let mut chosen: HashMap<IpNet, (u32, Option<Hop>)> = HashMap::new();
    for route in routes {
        let hop = hop(route);
        chosen
            .entry(route.prefix)
            .and_modify(|(metric, chosen)| {
                if route.metric < *metric {
                    (*metric, *chosen) = (route.metric, hop);
                } else if route.metric == *metric && *chosen != hop {
                    // By type of service or by preference: the kernel knows.
                    *chosen = None;
                }
            })
            .or_insert((route.metric, hop));
    }
    chosen
        .into_iter()
        .map(|(prefix, (_, hop))| (prefix, hop))
        .collect()
}

fn hop(route: &Route) -> Option<Hop> {
    match route.via {
        Via::Gateway(hop) => Some(hop),
        Via::Link(interface) if route.prefix.prefix_len() == route.prefix.max_prefix_len() => {
            Some(Hop {
                interface,
                address: route.prefix.addr(),
            })
        }
        Via::Link(_) | Via::Kernel => None,
    }
}

/// Leaves out prefixes that say what the next shorter one says already.
fn without_redundant(numbered: &HashMap<IpNet, u32>) -> BTreeMap<IpNet, u32> {
    numbered
        .iter()
        .filter(|(prefix, number)| covering(numbered, **prefix) != **number)
        .map(|(prefix, number)| (*prefix, *number))
        .collect()
}

fn covering(numbered: &HashMap<IpNet, u32>, prefix: IpNet) -> u32 {
    std::iter::successors(prefix.supernet(), IpNet::supernet)
        .find_map(|shorter| numbered.get(&shorter).copied())
        .unwrap_or(KERNEL)
}

/// What [`Numbers::compile`]'s table says about one address; for tests and `explain`.
pub(super) fn look_up(routes: &BTreeMap<IpNet, u32>, address: IpAddr) -> u32 {
    std::iter::successors(Some(IpNet::from(address)), IpNet::supernet)
        .find_map(|prefix| routes.get(&prefix).copied())
        .unwrap_or(KERNEL)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gateway(last: u8) -> Hop {
        Hop {
            interface: 2,
            address: IpAddr::from([10, 0, 0, last]),
        }
    }

    fn route(prefix: &str, metric: u32, via: Via) -> Route {
        let prefix = prefix.parse().expect("a prefix");
        Route {
            prefix,
            metric,
            via,
        }
    }

    #[test]
    fn a_gateway_gets_a_number_and_a_connected_net_asks_the_kernel() {
        let mut numbers = Numbers::default();
        let table = numbers.compile(&[
            route("0.0.0.0/0", 0, Via::Gateway(gateway(1))),
            route("10.0.0.0/24", 0, Via::Link(2)),
            route("192.0.2.7/32", 0, Via::Link(2)),
        ]);
        assert_eq!(look_up(&table, [198, 51, 100, 1].into()), 1);
        assert_eq!(look_up(&table, [10, 0, 0, 7].into()), KERNEL);
        assert_ne!(look_up(&table, [192, 0, 2, 7].into()), KERNEL);
        assert_eq!(look_up(&table, "2001:db8::1".parse().expect("v6")), KERNEL);
    }

    #[test]
    fn the_lowest_metric_wins_and_a_tie_is_the_kernels() {
        let mut numbers = Numbers::default();
        let table = numbers.compile(&[
            route("10.1.0.0/16", 20, Via::Gateway(gateway(1))),
            route("10.1.0.0/16", 10, Via::Gateway(gateway(2))),
            route("10.2.0.0/16", 10, Via::Gateway(gateway(2))),
            route("10.2.0.0/16", 10, Via::Gateway(gateway(3))),
            route("0.0.0.0/0", 10, Via::Gateway(gateway(3))),
        ]);
        let hops: BTreeMap<_, _> = numbers.hops().collect();
        assert_eq!(look_up(&table, [10, 1, 0, 1].into()), hops[&gateway(2)]);
        assert_eq!(look_up(&table, [10, 2, 0, 1].into()), KERNEL);
        assert_eq!(look_up(&table, [10, 3, 0, 1].into()), hops[&gateway(3)]);
    }

    #[test]
    fn a_number_rests_for_a_round_before_another_hop_gets_it() {
        let mut numbers = Numbers::default();
        let default = |hop| [route("0.0.0.0/0", 0, Via::Gateway(hop))];
        assert_eq!(
            numbers.compile(&default(gateway(1))).into_values().next(),
            Some(1)
        );
        assert_eq!(
            numbers.compile(&default(gateway(2))).into_values().next(),
            Some(2)
        );
        assert_eq!(
            numbers.compile(&default(gateway(2))).into_values().next(),
            Some(2)
        );
        assert_eq!(
            numbers.compile(&default(gateway(3))).into_values().next(),
            Some(1)
        );
    }

    #[test]
    fn more_gateways_than_numbers_leave_the_rest_to_the_kernel() {
        let routes: Vec<_> = (0..=u8::MAX)
            .flat_map(|third| {
                (0..2).map(move |fourth| Route {
                    prefix: IpNet::from(IpAddr::from([192, 0, third, fourth])),
                    metric: 0,
                    via: Via::Gateway(Hop {
                        interface: 2,
                        address: IpAddr::from([10, 0, third, fourth]),
                    }),
                })
            })
            .collect();
        let table = Numbers::default().compile(&routes);
        assert_eq!(table.len(), MAX_NEXT_HOPS as usize - 1);
        assert!(
            table
                .values()
                .all(|number| (1..MAX_NEXT_HOPS).contains(number))
        );
    }

    proptest! {
        #[test]
        fn leaving_out_redundant_prefixes_changes_no_answer(
            routes in prop::collection::vec((any::<[u8; 4]>(), 0..=32_u8, 0..4_u8), 0..40),
            addresses in prop::collection::vec(any::<[u8; 4]>(), 0..20),
        ) {
            let routes: Vec<_> = routes
                .into_iter()
                .map(|(address, length, last)| Route {
                    prefix: IpNet::new(address.into(), length).expect("at most 32").trunc(),
                    metric: 0,
                    via: if last == 0 { Via::Kernel } else { Via::Gateway(gateway(last)) },
                })
                .collect();
            let mut numbers = Numbers::default();
            let table = numbers.compile(&routes);
            let hops: BTreeMap<_, _> = numbers.hops().collect();
            let edges = routes.iter().map(|route| route.prefix.addr());
            for address in addresses.into_iter().map(IpAddr::from).chain(edges) {
                let longest = best(&routes)
                    .into_iter()
                    .filter(|(prefix, _)| prefix.contains(&address))
                    .max_by_key(|(prefix, _)| prefix.prefix_len());
                let expected = longest.and_then(|(_, hop)| hop).map_or(KERNEL, |hop| hops[&hop]);
                prop_assert_eq!(look_up(&table, address), expected);
            }
        }
    }
}
