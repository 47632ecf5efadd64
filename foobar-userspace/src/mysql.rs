//! MySQL clusters: how they stand.

pub mod status;
