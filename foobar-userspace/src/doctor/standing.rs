//! Whether clock and certificates are such that others will believe this node.

use std::time::Duration;

use super::Finding;
use crate::{
    admin::api::CertificateLine,
    kernel::clock::Discipline,
    proxy::tls::{Flaw, Severity},
};

/// Certificates, the answers of their authorities, and logs are of no use by a wrong clock.
#[must_use]
pub fn clock(discipline: &Discipline) -> Finding {
    if !discipline.is_kept {
        return Finding::warn(
            "clock",
            "nobody keeps it right: certificates, alerts and logs of several machines need one time",
            "apt install systemd-timesyncd (or chrony), and let udp/123 out",
        );
    }
    if discipline.error > LARGEST_ERROR {
        return Finding::warn(
            "clock",
            format!("it may be wrong by {:.1} s", discipline.error.as_secs_f64()),
            "see that the time servers are reached: udp/123",
        );
    }
    Finding::ok("clock", "is kept right")
}

/// What the files of the sites are like, before or while they are served.
#[must_use]
pub fn files(flaws: &[Flaw]) -> Vec<Finding> {
    flaws
        .iter()
        .map(|flaw| {
            let grade = match flaw.severity {
                Severity::Fatal | Severity::Absent => Finding::fail,
                Severity::Doubtful | Severity::Unseen => Finding::warn,
            };
            grade(
                "certificates".to_owned(),
                flaw.message.clone(),
                flaw.cure.clone(),
            )
        })
        .collect()
}

/// How long the certificates that are served are good for.
#[must_use]
pub fn certificates(served: &[CertificateLine]) -> Vec<Finding> {
    served
        .iter()
        .map(|line| {
            let subject = format!("certificate {}", line.service);
            let until = format!("{} is good for {} days", line.path, line.days_left);
            if line.days_left < FEW_DAYS {
                Finding::warn(
                    subject,
                    until,
                    "renew it, then `foobar tls reload`; or let foobar fetch it: tls = { acme = … }",
                )
            } else {
                Finding::ok(subject, until)
            }
        })
        .collect()
}

const FEW_DAYS: u64 = 14;
const LARGEST_ERROR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Place, doctor::Grade};

    #[test]
    fn a_clock_that_nobody_keeps_is_told() {
        let grade = |is_kept, error| clock(&Discipline { is_kept, error }).grade;
        assert_eq!(grade(true, Duration::from_millis(20)), Grade::Ok);
        assert_eq!(grade(true, Duration::from_secs(3)), Grade::Warn);
        assert_eq!(grade(false, Duration::ZERO), Grade::Warn);
    }

    #[test]
    fn a_certificate_that_ends_soon_is_told() {
        let line = |days_left| CertificateLine {
            service: "l7.www".to_owned(),
            path: "www.pem".to_owned(),
            names: Vec::new(),
            issuer: String::new(),
            serial: String::new(),
            algorithm: String::new(),
            not_before: String::new(),
            not_after: String::new(),
            days_left,
            stapled: false,
        };
        let findings = certificates(&[line(80), line(3)]);
        let grades: Vec<Grade> = findings.iter().map(|finding| finding.grade).collect();
        assert_eq!(grades, [Grade::Ok, Grade::Warn]);
        assert!(findings[1].repair.is_some());
    }

    #[test]
    fn a_file_that_cannot_be_served_fails_with_its_cure() {
        let flaw = |severity| Flaw {
            place: Place { line: 1, column: 1 },
            severity,
            message: "www.pem has expired".to_owned(),
            cure: "renew it".to_owned(),
        };
        let findings = files(&[flaw(Severity::Fatal), flaw(Severity::Doubtful)]);
        assert_eq!(findings[0].grade, Grade::Fail);
        assert_eq!(findings[1].grade, Grade::Warn);
        assert_eq!(findings[1].repair.as_deref(), Some("renew it"));
    }
}
