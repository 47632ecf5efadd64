//! HTTP/2's frames, counted as they arrive: floods of those that cost much and bring nothing.

use std::time::Instant;

use crate::config::H2Limits;

/// Follows the frames of one connection from the client.
#[derive(Debug)]
pub struct Meter {
    /// Of the preface or of a payload, what is still to come.
    skip: usize,
    /// The first bytes of the frame: its header, and four of its payload.
    start: [u8; START],
    have: usize,
    since: Instant,
    control: u32,
    opened: u32,
    reset: u32,
}

/// What a client sends too much of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Flood {
    #[error("frames that bring nothing")]
    Control,
    #[error("streams taken back")]
    Resets,
}

impl Meter {
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            start: [0; START],
            have: 0,
            since: now,
            control: 0,
            opened: 0,
            reset: 0,
        }
    }

    /// Takes in what was read.
    ///
    /// # Errors
    ///
    /// More than the limits allow in their window.
    pub fn feed(&mut self, mut bytes: &[u8], limits: &H2Limits, now: Instant) -> Result<(), Flood> {
        if now.saturating_duration_since(self.since) >= limits.window {
            (self.control, self.opened, self.reset, self.since) = (0, 0, 0, now);
        }
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = self.wanted();
            let taken = (wanted - self.have).min(bytes.len());
            self.start[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have >= HEADER && self.have == self.wanted() {
                self.count();
                self.skip = self.length() - (self.have - HEADER);
                self.have = 0;
            }
        }
        if self.control > limits.control_frames {
            return Err(Flood::Control);
        }
        let ended = self.opened.saturating_sub(self.reset);
        if self.reset > limits.resets.saturating_add(ended) {
            return Err(Flood::Resets);
        }
        Ok(())
    }

    /// How much of the frame must be seen to judge it.
    fn wanted(&self) -> usize {
        if self.have < HEADER {
            return HEADER;
        }
        match self.start[3] {
            WINDOW_UPDATE => HEADER + self.length().min(4),
            DATA if self.start[4] & PADDED != 0 => HEADER + self.length().min(1),
            _ => HEADER,
        }
    }

    fn length(&self) -> usize {
        let [high, middle, low, ..] = self.start;
        usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
    }

    fn count(&mut self) {
        let flags = self.start[4];
        match self.start[3] {
            HEADERS => self.opened += 1,
            RST_STREAM => self.reset += 1,
            DATA if self.is_hollow() && flags & END_STREAM == 0 => self.control += 1,
            DATA => {}
            // Nobody asked for a second one: h2 ends such a connection.
            SETTINGS if flags & ACK != 0 => {}
            WINDOW_UPDATE => {
                let [.., a, b, c, d] = self.start;
                if u32::from_be_bytes([a, b, c, d]) < LEAST_INCREMENT {
                    self.control += 1;
                }
            }
            _ => self.control += 1,
        }
    }

    /// Whether a DATA frame has nothing but padding.
    fn is_hollow(&self) -> bool {
        let padding = match self.start[4] & PADDED {
            0 => 0,
            _ => usize::from(self.start[HEADER]) + 1,
        };
        self.length() <= padding
    }
}

const PREFACE: usize = 24;
const HEADER: usize = 9;
const START: usize = HEADER + 4;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
/// Smaller ones make the proxy send crumbs.
const LEAST_INCREMENT: u32 = 128;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PRIORITY: u8 = 2;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const CONTINUATION: u8 = 9;
    const UNKNOWN: u8 = 0xbb;

    const LIMITS: H2Limits = H2Limits {
        streams: 100,
        resets: 10,
        control_frames: 20,
        window: Duration::from_secs(10),
    };

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    fn fed(frames: &[Vec<u8>], step: usize) -> Result<(), Flood> {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        all.extend(frames.concat());
        all.chunks(step)
            .try_for_each(|chunk| meter.feed(chunk, &LIMITS, now))
    }

    #[test]
    fn floods_are_told_however_they_are_cut() {
        for step in [1, 2, 3, 7, 9, 13, 1_000] {
            let many = |frame: Vec<u8>, count| vec![frame; count];
            for frame in [
                frame(PING, 0, &[0; 8]),
                frame(SETTINGS, 0, &[0, 3, 0, 0, 0, 9]),
                frame(SETTINGS, 0, &[]),
                frame(PRIORITY, 0, &[0; 5]),
                frame(DATA, 0, &[]),
                frame(DATA, PADDED, &[0]),
                frame(DATA, PADDED, &[3, 0, 0, 0]),
                frame(PING, ACK, &[0; 8]),
                frame(GOAWAY, 0, &[0; 8]),
                frame(UNKNOWN, 0, &[0; 30]),
                frame(CONTINUATION, 0, &[]),
                frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
            ] {
                assert_eq!(fed(&many(frame.clone(), 20), step), Ok(()), "{frame:?}");
                assert_eq!(
                    fed(&many(frame.clone(), 21), step),
                    Err(Flood::Control),
                    "{frame:?}"
                );
            }
        }
    }

    #[test]
    fn resets_are_weighed_against_streams_that_end() {
        let open = frame(HEADERS, 5, &[0x82; 30]);
        let reset = frame(RST_STREAM, 0, &[0, 0, 0, 8]);
        let rapid = vec![[open.clone(), reset.clone()].concat(); 11];
        assert_eq!(fed(&rapid, 50), Err(Flood::Resets));
        let patient = vec![[open.clone(), open, reset].concat(); 500];
        assert_eq!(fed(&patient, 50), Ok(()));
    }

    #[test]
    fn ordinary_traffic_is_no_flood() {
        let mut frames = Vec::new();
        for _ in 0..1_000 {
            frames.push(frame(HEADERS, 4, &[0x82; 40]));
            frames.push(frame(DATA, 1, &[7; 300]));
            frames.push(frame(DATA, PADDED, &[1, 7, 0]));
            frames.push(frame(WINDOW_UPDATE, 0, &[0, 0, 0x40, 0]));
            frames.push(frame(SETTINGS, ACK, &[]));
        }
        assert_eq!(fed(&frames, 777), Ok(()));
    }
}
