//! Pipes as the simulated kernel has them, and splice(2) between them and connections.
//!
//! A pipe is a queue of bytes with a size. Moving never waits; how much is moved at a time is up to chance, as with
//! receives and sends, and so is whether a pipe can be had at all. Spliced connections are TCP.

use super::Sim;
use super::kernel::{Kernel, Object};
use super::wire::EndId;
use crate::driver::{Fd, PipeEnds};
use crate::errno::Errno;
use crate::slab::Token;
use crate::socket::SocketOptions;
use std::collections::VecDeque;

/// The smallest of pipes: less than the kernel would give, so that full ones are met.
const SIZE_MIN: usize = 512;

impl Sim {
    pub(crate) fn open_pipe(&mut self, size: u32) -> Result<PipeEnds, Errno> {
        let mut kernel = self.call();
        let refused = kernel.chances.pipe_refused;
        if kernel.random.chance(refused) {
            kernel.seen.pipes_refused += 1;
            return Err(Errno(libc::EMFILE));
        }
        let pipe = kernel.pipes.insert(VecDeque::new());
        let made = kernel.allocate_ends(self.ring, pipe);
        if made.is_err() {
            kernel.pipes.remove(pipe);
        }
        let (read, write) = made?;
        // All magnitudes are equally likely.
        let most = (size as usize) >> kernel.random.below(12);
        Ok(PipeEnds {
            read: Fd(read),
            write: Fd(write),
            size: most.max(SIZE_MIN) as u32,
        })
    }

    pub(crate) fn close_pipe(&mut self, pipe: PipeEnds) {
        let mut kernel = self.call();
        for end in [pipe.read, pipe.write] {
            let Some(descriptor) = kernel.descriptor(self.ring, end.0, "close of a pipe") else {
                return;
            };
            let object = descriptor.object;
            kernel.descriptors[end.0 as usize] = None;
            kernel.descriptors_open -= 1;
            let Object::Pipe(token) = object else {
                return kernel.violated(format!("descriptor {} was closed as a pipe: {object:?}", end.0));
            };
            if let Some(bytes) = kernel.pipes.remove(token) {
                kernel.seen.pipes_closed_with_bytes += u64::from(!bytes.is_empty());
            }
        }
    }

    pub(crate) fn fill_pipe(&mut self, socket: Fd, pipe: PipeEnds, max: u32) -> Result<u32, Errno> {
        let mut kernel = self.call();
        let (end, token) = kernel.spliced(self.ring, socket, pipe.write)?;
        if kernel.is_dry() {
            return Err(Errno::AGAIN);
        }
        let held = kernel.pipes.get_mut(token).map_or(0, |bytes| bytes.len());
        let space = (pipe.size as usize).saturating_sub(held);
        let connection = kernel.connection(end).ok_or(Errno(libc::ENOTCONN))?;
        let arrived = connection.pipes[end.end].arrived();
        if arrived == 0 {
            // As a receive: whoever asks first learns the error; the others see an end.
            if let Some(errno) = connection.ends[end.end].error.take() {
                return Err(errno);
            }
            let over = connection.is_readable(end.end);
            return if over { Ok(0) } else { Err(Errno::AGAIN) };
        }
        if space == 0 {
            return Err(Errno::AGAIN);
        }
        let mut amount = arrived.min(space).min(max as usize);
        let partial = kernel.chances.partial_receive;
        if amount > 1 && kernel.random.chance(partial) {
            amount = kernel.random.size(1, amount - 1);
            kernel.seen.partial_fills += 1;
        }
        let mut moved = vec![0; amount];
        if let Some(connection) = kernel.connection(end) {
            connection.pipes[end.end].read(&mut moved);
        }
        kernel.after_read(end);
        if let Some(bytes) = kernel.pipes.get_mut(token) {
            bytes.extend(moved);
        }
        kernel.seen.fills += 1;
        Ok(amount as u32)
    }

    pub(crate) fn drain_pipe(&mut self, pipe: PipeEnds, socket: Fd, max: u32) -> Result<u32, Errno> {
        let mut kernel = self.call();
        let (end, token) = kernel.spliced(self.ring, socket, pipe.read)?;
        if kernel.is_dry() {
            return Err(Errno::AGAIN);
        }
        let bytes: Vec<u8> = match kernel.pipes.get_mut(token) {
            Some(bytes) => bytes.iter().copied().take(max as usize).collect(),
            None => return Err(Errno(libc::EBADF)),
        };
        let sent = crate::errno::outcome(kernel.send_from(end, &bytes))?;
        kernel.seen.partial_drains += u64::from((sent as usize) < bytes.len());
        if let Some(bytes) = kernel.pipes.get_mut(token) {
            bytes.drain(..sent as usize);
        }
        Ok(sent)
    }
}

impl Kernel {
    fn allocate_ends(&mut self, ring: usize, pipe: Token) -> Result<(i32, i32), Errno> {
        let read = self.allocate(ring, Object::Pipe(pipe), SocketOptions::default())?;
        match self.allocate(ring, Object::Pipe(pipe), SocketOptions::default()) {
            Ok(write) => Ok((read, write)),
            Err(errno) => {
                self.descriptors[read as usize] = None;
                self.descriptors_open -= 1;
                Err(errno)
            }
        }
    }

    fn is_dry(&mut self) -> bool {
        let dry = self.chances.splice_dry;
        self.random.chance(dry)
    }

    /// What a splice is between.
    fn spliced(&mut self, ring: usize, socket: Fd, pipe: Fd) -> Result<(EndId, Token), Errno> {
        let end = self.stream_of(ring, socket, "a splice")?;
        if self.connection(end).is_some_and(|connection| !connection.tcp) {
            self.violated(format!("descriptor {} was spliced, which is a UNIX socket", socket.0));
        }
        match self
            .descriptor(ring, pipe.0, "a splice")
            .ok_or(Errno(libc::EBADF))?
            .object
        {
            Object::Pipe(token) => Ok((end, token)),
            object => {
                self.violated(format!("descriptor {} was spliced as a pipe: {object:?}", pipe.0));
                Err(Errno(libc::EINVAL))
            }
        }
    }
}
