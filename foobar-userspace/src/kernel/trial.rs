//! A packet sent through the loaded program, to see what it decides.

use std::time::Duration;

use aya::{TestRun, TestRunOptions, programs::ProgramError};
use foobar_ebpf::abi::Trace;

use super::{
    Deployment, Direction, KernelError,
    device::Device,
    object::{self, Purpose},
};

/// What the program made of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trial {
    /// The action, as the program returned it.
    pub returned: u32,
    /// Its reason is [`Trace::NONE`] where the program told nothing.
    pub trace: Trace,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    pub duration: Duration,
    pub program: u32,
}

/// Room that a rewritten frame may need beyond the one sent.
const HEADROOM: usize = 256;

impl Deployment {
    /// Sends `frame` through the program of `interface`, on the tables as they are; counts and changes nothing.
    ///
    /// # Errors
    /// When no such interface is served, or the kernel refuses the run.
    pub fn try_frame(
        &mut self,
        interface: &str,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Trial, KernelError> {
        let Some(loaded) = self.loaded.get(interface) else {
            return Err(KernelError::NotAttached {
                node: self.pins.node(),
                interface: interface.to_owned(),
                present: self
                    .loaded
                    .keys()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        };
        let hook = loaded.hook.clone();
        let device = Device::named(&hook.device)?.ok_or_else(|| KernelError::NoDevice {
            interface: hook.interface.clone(),
            device: hook.device.clone(),
        })?;
        if !self.trials.contains_key(interface) {
            let object = self
                .blueprint
                .load(&self.maps, hook.id, &self.keys, Purpose::Explain)?;
            self.trials.insert(interface.to_owned(), object);
        }
        let Some(object) = self.trials.get_mut(interface) else {
            unreachable!("inserted above");
        };
        self.tables.trace.set(
            0,
            Trace {
                reason: Trace::NONE,
                ..Trace::default()
            },
        )?;
        let mut out = vec![0; frame.len() + HEADROOM];
        let context = match direction {
            Direction::Ingress => xdp_context(frame.len(), device.index),
            Direction::Egress => skb_context(device.index),
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let failed = |source: ProgramError| KernelError::TestRun {
            source: source.into(),
        };
        let (result, program) = match direction {
            Direction::Ingress => {
                let program = object::ingress(object)?;
                (program.test_run(options), program.info())
            }
            Direction::Egress => {
                let program = object::egress(object)?;
                (program.test_run(options), program.info())
            }
        };
        let result = result.map_err(failed)?;
        out.truncate(result.data_size_out as usize);
        Ok(Trial {
            returned: result.return_value,
            trace: self.tables.trace.get(0)?,
            frame: out,
            duration: result.duration,
            program: program.map_err(failed)?.id(),
        })
    }
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
pub(super) fn xdp_context(length: usize, ifindex: u32) -> Vec<u8> {
    let end = u32::try_from(length).unwrap_or(u32::MAX);
    [0, end, 0, ifindex, 0, 0]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect()
}

/// The first eleven words of `struct __sk_buff`, of which the last is `ifindex`.
fn skb_context(ifindex: u32) -> Vec<u8> {
    let mut words = [0; 11];
    words[10] = ifindex;
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}
