//! Conversations with database servers: one persistent connection for each member and purpose, every call under a deadline.
//!
//! A check logs in fully and stays: half a handshake counts against this host until the server blocks it.

mod hand;
mod mariadb;
mod mysql;
mod probe;
mod standing;
mod survey;
mod talk;
mod watch;

pub use self::{
    hand::{Hand, Heard, Peer, Stage},
    probe::{Beat, now, probe},
    talk::{Endpoint, Talk},
    watch::{Rhythm, Seen, listen, watch},
};
