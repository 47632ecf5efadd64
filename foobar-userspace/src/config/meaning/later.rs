//! What later versions build: its mistakes are told too, beside "not yet supported".

use super::{endpoints, hosts::Hosts, many, section};
use crate::config::{diagnostics::Problems, tree::Entry};

pub(super) fn check(root: Entry<'_>, hosts: &Hosts, problems: &mut Problems) {
    for (_, service) in section(root, "mysql") {
        let on = service.at("on").and_then(Entry::text);
        if let Some(host) = on
            .filter(|on| !hosts.doubtful(on))
            .and_then(|on| hosts.get(on))
        {
            for written in ["write", "read"]
                .into_iter()
                .flat_map(|key| many(service, key))
            {
                endpoints::resolve(written, host, problems);
            }
        }
    }
}
