//! The files that the sites name, and when each was changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{config, controller::upstreams::SitePlan};

/// When each file that the sites name was changed last.
pub(super) fn stamps(plan: &SitePlan) -> BTreeMap<PathBuf, Option<SystemTime>> {
    let mut files: BTreeSet<&Path> = BTreeSet::new();
    for site in &plan.sites {
        let tls = &site.service.tls;
        for certificate in &tls.certificates {
            files.insert(&certificate.cert);
            files.extend(certificate.ocsp.as_deref());
            if let config::Secret::File(path) = &certificate.key {
                files.insert(path);
            }
        }
        files.extend(tls.client.as_ref().map(|client| client.ca.as_path()));
        if let Some(tls) = &site.service.backend_tls {
            files.insert(&tls.ca);
            if let Some((cert, key)) = &tls.identity {
                files.insert(cert);
                if let config::Secret::File(path) = key {
                    files.insert(path);
                }
            }
        }
        files.extend(site.service.pages.errors.values().map(PathBuf::as_path));
        files.extend(site.service.pages.maintenance.as_deref());
    }
    let changed = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    };
    files
        .into_iter()
        .map(|path| (path.to_owned(), changed(path)))
        .collect()
}
