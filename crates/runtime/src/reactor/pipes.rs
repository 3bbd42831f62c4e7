//! Pipes of a runtime: how many there are, and the few empty ones that are kept for whoever wants one next,
//! for some seconds at most.
//!
//! A pipe that holds bytes is never given to somebody else. Nothing of a pipe is ever in flight in the ring, so its ends
//! are closed at once. Called by `Pipe` in `ops`.

use super::Reactor;
use crate::driver::PipeEnds;
use crate::faults::{Fault, active};
use crate::time::Time;
use std::time::Duration;

/// Bytes that a pipe can hold: the most that anybody may ask for (pipe(7), pipe-max-size).
const PIPE_BYTES: u32 = 1024 * 1024;
/// Empty pipes kept.
const SPARE_MAX: usize = 4;
/// Between two attempts after one that was refused.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Pipes {
    /// Empty; the one used last is taken first.
    spare: Vec<PipeEnds>,
    /// Those that exist, spare or not.
    open: u32,
    /// None is made before.
    retry_at: Time,
}

impl Reactor {
    /// An empty pipe, if fewer than `max` are in use and there is one to be had.
    pub(crate) fn lease_pipe(&mut self, max: u32) -> Option<PipeEnds> {
        if let Some(pipe) = self.pipes.spare.pop() {
            return Some(pipe);
        }
        if self.ended || self.pipes.open >= max || self.driver.now() < self.pipes.retry_at {
            return None;
        }
        match self.driver.open_pipe(PIPE_BYTES) {
            Ok(pipe) => {
                self.pipes.open += 1;
                Some(pipe)
            }
            Err(_) => {
                self.refuse_pipes();
                None
            }
        }
    }

    /// Nobody gets a new pipe for a while: they are of no use.
    pub(crate) fn refuse_pipes(&mut self) {
        self.pipes.retry_at = self.driver.now() + RETRY;
        self.close_spare_pipes();
    }

    /// Takes a pipe back that holds so many bytes.
    pub(crate) fn return_pipe(&mut self, pipe: PipeEnds, bytes: u32) {
        let empty = bytes == 0 || active(Fault::PipeReturnedWithBytes);
        if empty && !self.ended && self.pipes.spare.len() < SPARE_MAX {
            self.pipes.spare.push(pipe);
        } else {
            self.pipes.open -= 1;
            self.driver.close_pipe(pipe);
        }
    }

    pub(crate) const fn has_spare_pipes(&self) -> bool {
        !self.pipes.spare.is_empty()
    }

    pub(crate) fn close_spare_pipes(&mut self) {
        for pipe in std::mem::take(&mut self.pipes.spare) {
            self.pipes.open -= 1;
            self.driver.close_pipe(pipe);
        }
    }

    /// Pipes in use.
    pub(crate) fn pipes(&self) -> u32 {
        self.pipes.open - self.pipes.spare.len() as u32
    }
}
