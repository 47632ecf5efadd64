//! Where a packet is worked on: memory beside the stack, of which a BPF program has 512 bytes for all its functions.
//!
//! What lies here the verifier does not follow value by value, which is what keeps the programs small in its eyes.

use crate::{
    family::{Family, V4, V6},
    firewall::Walk,
    packet::Packet,
};

#[derive(Debug)]
pub struct Workspaces {
    pub v4: Workspace<V4>,
    pub v6: Workspace<V6>,
}

#[derive(Debug)]
pub struct Workspace<F: Family> {
    pub packet: Packet<F>,
    /// Another packet that the first one is about: what it quotes, answers or provokes.
    pub other: Packet<F>,
    pub walk: Walk,
}

impl Default for Workspaces {
    fn default() -> Self {
        Self {
            v4: Workspace {
                packet: Packet::nothing(0),
                other: Packet::nothing(0),
                walk: Walk::default(),
            },
            v6: Workspace {
                packet: Packet::nothing([0; 4]),
                other: Packet::nothing([0; 4]),
                walk: Walk::default(),
            },
        }
    }
}
