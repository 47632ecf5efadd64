//! Frames of user space's own making, sent past the stack: no socket, no capability beyond those for BPF, no policy.

use aya::{TestRun, TestRunAttrs, TestRunOptions};
use foobar_ebpf::abi::Emission;

use super::{Deployment, KernelError, object};

/// Frames that the driver takes at once.
const DRIVER_BATCH: u32 = 64;

impl Deployment {
    /// Sends frames out of the devices that they name; with none, only gets ready, which takes the verifier a while.
    ///
    /// # Errors
    /// When the kernel refuses; frames before may have been sent.
    pub fn emit(&mut self, frames: &[Emission]) -> Result<(), KernelError> {
        if self.emitter.is_none() {
            self.emitter = Some(self.blueprint.load_emitter(&self.maps)?);
        }
        for batch in frames.chunks(Emission::BATCH as usize) {
            self.emit_batch(batch)?;
        }
        Ok(())
    }

    fn emit_batch(&mut self, frames: &[Emission]) -> Result<(), KernelError> {
        let (Some(first), Some(object)) = (frames.first(), &mut self.emitter) else {
            return Ok(());
        };
        for (index, frame) in (0..).zip(frames) {
            self.tables.emissions.set(index, *frame)?;
        }
        self.tables.emitted.set(0, 0)?;
        let blank = [0; Emission::LENGTH];
        let context = super::trial::xdp_context(blank.len(), first.ifindex);
        let count = u32::try_from(frames.len()).unwrap_or(Emission::BATCH);
        let options = TestRunOptions {
            data_in: Some(&blank),
            ctx_in: Some(&context),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(DRIVER_BATCH.min(count)),
            ..TestRunOptions::default()
        };
        object::emit(object)?
            .test_run(options)
            .map(drop)
            .map_err(|source| KernelError::TestRun {
                source: source.into(),
            })
    }
}
