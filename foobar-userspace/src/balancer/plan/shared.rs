//! Two vips with the same servers behind them: of a server's answers its session says by which of the two it goes back.

use foobar_ebpf::abi::Return;

use super::{Endpoint, Plan};
use crate::config::{Answers, Config, L4Service};

/// Tells each of two such vips which the other is.
pub fn link(plan: &mut Plan, config: &Config, node: &str) {
    for service in config.mysql.values() {
        let mut endpoints = service.endpoints(node);
        let (Some(one), Some(two)) = (endpoints.next(), endpoints.next()) else {
            continue;
        };
        if one.answers == Answers::ByEndpoint {
            continue;
        }
        for vip in &one.vips {
            let like = two.vips.iter().find(|like| like.is_ipv4() == vip.is_ipv4());
            let ids = like.and_then(|like| {
                let id = |address| {
                    let mut vips = plan.vips.iter();
                    vips.find(|(_, vip)| vip.address == address)
                        .map(|(id, _)| *id)
                };
                Some((id(*vip)?, id(*like)?))
            });
            if let Some((one, two)) = ids {
                plan.pair(one, two);
            }
        }
    }
}

impl Plan {
    fn pair(&mut self, one: u32, two: u32) {
        for vip in self.vips_v4.values_mut().chain(self.vips_v6.values_mut()) {
            if vip.vip == one {
                vip.other = two;
            } else if vip.vip == two {
                vip.other = one;
            }
        }
    }

    /// The writer's address is looked for first.
    pub(super) fn add_second_return(
        &mut self,
        service: &L4Service,
        endpoint: Endpoint,
        back: Return,
    ) {
        let is_first = service.name.ends_with(".write");
        let place = if is_first { 0 } else { Return::SECOND };
        match endpoint {
            Endpoint::V4(mut key) => {
                key.protocol |= place;
                self.returns_v4.insert(key, back);
            }
            Endpoint::V6(mut key) => {
                key.protocol |= place;
                self.returns_v6.insert(key, back);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use foobar_ebpf::abi::Vip;

    use super::*;
    use crate::{config, labels::Labels};

    #[test]
    fn a_server_that_may_take_reads_beside_writes_has_a_way_back_to_each() {
        let text = r#"
version = 1
[hosts]
lb1 = { private = "10.0.0.10" }
web1 = { private = "10.0.0.11" }
web2 = { private = "10.0.0.12" }
[nodes]
lb1 = { lan = { dev = "eth0" } }
[mysql.app]
on = "lb1"
write = "private:3306"
read = "private:3307"
members = ["web1:3306", "web2:3306"]
check = { user = "m", password = { env = "P" } }
fallback = "primary"
"#;
        let config = config::parse(text, Path::new("test.toml")).expect("a good configuration");
        let plan = super::super::plan(&config, "lb1", &mut Labels::default()).expect("room");
        assert_eq!(plan.returns_v4.len(), 4);
        let second = |protocol: u8| protocol & Return::SECOND != 0;
        for (key, back) in &plan.returns_v4 {
            let service = &plan.vips[&back.vip].service;
            assert_eq!(
                second(key.protocol),
                service.ends_with(".read"),
                "{service}"
            );
        }
        for vip in plan.vips_v4.values() {
            assert!(vip.flags & Vip::SHARED != 0);
            assert_ne!(vip.other, vip.vip);
            assert!(plan.vips.contains_key(&vip.other));
        }
    }
}
