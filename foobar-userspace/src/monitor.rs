//! From a snapshot to what is shown, pushed and told: pure; time comes in, messages go out.

pub mod alert;
pub mod catalogue;
pub mod drops;
pub mod exposition;
pub mod lines;
pub mod measure;
pub mod notice;
pub mod otlp;
pub mod outbox;
pub mod sumologic;
pub mod view;
pub mod watch;

#[cfg(test)]
pub mod samples;

pub use crate::admin::api::Snapshot;
