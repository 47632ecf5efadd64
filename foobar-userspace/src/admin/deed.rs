//! What was changed by command: who, what, and what came of it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::{
    access::Caller,
    accounts,
    api::{Refusal, Request},
    question,
};

/// A line of the audit log.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deed {
    /// Unix nanoseconds.
    #[serde(skip)]
    pub at: u64,
    /// RFC 3339, UTC.
    pub time: String,
    #[serde(flatten)]
    pub caller: Caller,
    pub user: Option<String>,
    pub request: String,
    pub fields: Value,
    /// `done`, or why not.
    pub result: String,
}

impl Deed {
    pub(super) fn new(caller: Caller, request: &Request, refusal: Option<&Refusal>) -> Self {
        let (name, fields) = question::write(request);
        let now = SystemTime::now();
        Self {
            at: now
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| u64::try_from(since.as_nanos()).ok())
                .unwrap_or_default(),
            time: humantime::format_rfc3339_millis(now).to_string(),
            caller,
            user: accounts::user_of(caller.uid),
            request: name,
            fields,
            result: refusal.map_or_else(|| "done".to_owned(), first_line),
        }
    }
}

fn first_line(refusal: &Refusal) -> String {
    let text = refusal.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
