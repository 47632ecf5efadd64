//! What people are told of the proxy: its certificates, and what is not as it should be.

use std::time::{Duration, SystemTime};

use super::{Proxying, workers};
use crate::{admin::api::CertificateLine, controller::balancing::Remark};

impl Proxying {
    pub fn certificates(&self) -> Vec<CertificateLine> {
        let rfc3339 = |moment| humantime::format_rfc3339_seconds(moment).to_string();
        let fronts = self.material.by_service.iter();
        fronts
            .flat_map(|(service, front)| {
                front.identities.iter().map(move |identity| {
                    let facts = &identity.facts;
                    let left = facts.not_after.duration_since(SystemTime::now());
                    CertificateLine {
                        service: format!("l7.{service}"),
                        path: facts.path.display().to_string(),
                        names: facts.names.clone(),
                        issuer: facts.issuer.clone(),
                        serial: facts.serial.clone(),
                        algorithm: facts.algorithm.to_owned(),
                        not_before: rfc3339(facts.not_before),
                        not_after: rfc3339(facts.not_after),
                        days_left: left.map_or(0, |left| left.as_secs() / DAY.as_secs()),
                        stapled: facts.stapled,
                    }
                })
            })
            .collect()
    }

    pub fn remarks(&self) -> Vec<Remark> {
        let mut remarks = self.upstreams.remarks();
        let doubts = self.material.doubts.iter();
        remarks
            .extend(doubts.map(|flaw| Remark::grave(format!("{}; {}", flaw.message, flaw.cure))));
        let now = SystemTime::now();
        for (service, front) in &self.material.by_service {
            for identity in &front.identities {
                let facts = &identity.facts;
                let Ok(left) = facts.not_after.duration_since(now) else {
                    continue;
                };
                let lifetime = facts
                    .not_after
                    .duration_since(facts.not_before)
                    .unwrap_or_default();
                if left < SOON.min(lifetime / 4) {
                    remarks.push(Remark::note(format!(
                        "l7.{service}: {} ends in {} days; renew it",
                        facts.path.display(),
                        left.as_secs() / DAY.as_secs()
                    )));
                }
            }
        }
        for (service, why) in &self.acme_troubles {
            remarks.push(Remark::grave(format!(
                "l7.{service}: no certificate could be obtained, it is tried again: {why}"
            )));
        }
        if let Some(crew) = &self.crew {
            let faults = crew.admission().faults();
            if faults > 0 {
                remarks.push(Remark::grave(format!(
                    "the proxy: {faults} connections ended by a fault of foobar's own; please report it"
                )));
            }
            let wanted = workers(&self.config);
            if wanted != crew.size() {
                remarks.push(Remark::note(format!(
                    "the proxy runs {} workers, not the {wanted} that are configured: its endpoints could not be bound \
                     once more, as the log says; reload again",
                    crew.size()
                )));
            }
        }
        remarks
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const SOON: Duration = Duration::from_secs(14 * 86_400);
