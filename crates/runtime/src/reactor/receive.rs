//! Receives: the one kind of operation that the kernel ends and the table starts again, in turn when buffers are short.

use super::Reactor;
use super::op::{Kind, Phase, Received, SocketSlot, keep, wake};
use crate::buffer_ring::Links;
use crate::driver::Operation;
use crate::errno::{Errno, outcome};
use crate::faults::{Fault, active};
use crate::slab::Token;
use std::task::Waker;

/// Buffers for each receive that is armed when buffers come back. Most take several; those for whom none is left were
/// armed in vain.
const BUFFERS_PER_STARVED: u16 = 4;

impl Reactor {
    pub(crate) fn receive(&mut self, socket: &SocketSlot, once: Option<u32>) -> Token {
        let (token, fd) = self.begin(
            Kind::Receive {
                received: Links::EMPTY,
                phase: Phase::Armed,
                once,
            },
            Some(socket),
        );
        self.start(Operation::Receive { fd, once }, token);
        token
    }

    /// Arms receives that the kernel ended although there is more to come. Behind the sends that tasks have started
    /// meanwhile: what was received leaves before more comes in. And behind those that wait for buffers, or one with
    /// enough to receive would take the buffers for ever.
    pub(super) fn feed_rearming(&mut self) {
        let mut rearming = std::mem::take(&mut self.rearming);
        let crowded = !self.starved.is_empty();
        for token in rearming.drain(..) {
            let Some(op) = self.ops.get_mut(token) else { continue };
            match &mut op.kind {
                Kind::Receive { phase, .. } if *phase == Phase::Rearming && crowded => {
                    *phase = Phase::Starved;
                    self.starved.push_back(token);
                }
                Kind::Receive { phase, .. } if *phase == Phase::Rearming => self.arm_receive(token),
                Kind::Datagrams { phase, .. } if *phase == Phase::Rearming => self.arm_datagrams(token),
                _ => {}
            }
        }
        self.rearming = rearming;
    }

    /// Arms some of the receives that wait for buffers, oldest first. One that finds the ring dry again goes to the end
    /// of the queue: everyone's turn comes. Those that gave up meanwhile do not count.
    pub(super) fn feed_starved(&mut self) {
        let mut room = self.buffer_ring.available().div_ceil(BUFFERS_PER_STARVED);
        while room > 0 {
            let Some(token) = self.starved.pop_front() else { break };
            let Some(op) = self.ops.get_mut(token) else { continue };
            let Kind::Receive { phase, .. } = &mut op.kind else {
                continue;
            };
            if *phase != Phase::Starved || active(Fault::StarvedNotFed) {
                continue;
            }
            self.arm_receive(token);
            room -= 1;
        }
    }

    /// Arms a receive again, unless its stream was given up meanwhile.
    fn arm_receive(&mut self, token: Token) {
        let Some(op) = self.ops.get_mut(token) else { return };
        let Kind::Receive { phase, once, .. } = &mut op.kind else {
            return;
        };
        let once = *once;
        let Some(entry) = self.sockets.get_mut(op.socket).filter(|entry| entry.closing.is_none()) else {
            *phase = Phase::Ended;
            op.result = -Errno::CANCELED.0;
            wake(op);
            return;
        };
        *phase = Phase::Armed;
        op.in_flight = true;
        entry.in_flight += 1;
        let fd = entry.fd;
        self.driver.start(Operation::Receive { fd, once }, token);
    }

    /// A multishot receive is over: because of its end, of a cancel, of a dry ring, or for reasons of the kernel's own.
    pub(super) fn receive_ended(&mut self, token: Token, result: i32) {
        self.finish(token, result);
        let Some(op) = self.ops.get_mut(token) else { return };
        let Kind::Receive { phase, once, .. } = &mut op.kind else {
            return;
        };
        match (*phase, outcome(result)) {
            (Phase::Armed | Phase::Pausing { .. }, Ok(1..)) if once.is_some() => {
                *phase = Phase::Paused;
                wake(op);
            }
            (Phase::Pausing { resume: false }, Ok(1..) | Err(Errno::CANCELED | Errno::NOBUFS)) => {
                *phase = Phase::Paused;
                // Its owner may wait for this to resume in another way.
                wake(op);
            }
            (_, Err(Errno::NOBUFS)) => {
                *phase = Phase::Starved;
                self.dry += 1;
                self.buffer_ring.ran_dry();
                if !active(Fault::NoRearmAfterNoBuffers) {
                    self.starved.push_back(token);
                }
            }
            // A cancelled one whose owner wants to go on, or one that the kernel ended for reasons of its own.
            (Phase::Armed | Phase::Pausing { resume: true }, Ok(1..) | Err(Errno::CANCELED)) => {
                if active(Fault::MoreFlagIgnored) {
                    return;
                }
                *phase = Phase::Rearming;
                self.rearming.push(token);
            }
            _ => {
                *phase = Phase::Ended;
                wake(op);
            }
        }
    }

    /// Starts a receive anew that the kernel has set aside to let others run: it may have forgotten an end or a reset of
    /// which it was told before. A new one looks for itself.
    pub(super) fn renew_receive(&mut self, token: Token) {
        let Some(op) = self.ops.get_mut(token) else { return };
        let Kind::Receive { phase, .. } = &mut op.kind else {
            return;
        };
        if *phase == Phase::Armed {
            *phase = Phase::Pausing { resume: true };
            self.driver.start(Operation::Cancel { target: token }, token);
        }
    }

    /// What a receive has gathered since the last time. Bytes come before the end or the error behind them.
    pub(crate) fn poll_receive(&mut self, token: Token, waker: &Waker) -> Received {
        let Some(op) = self.ops.get_mut(token) else {
            return Received::Failed(Errno::CANCELED);
        };
        let Kind::Receive { received, phase, .. } = &mut op.kind else {
            unreachable!("a token of another kind")
        };
        if !received.is_empty() {
            return Received::Bytes(std::mem::replace(received, Links::EMPTY));
        }
        if *phase == Phase::Ended {
            return match outcome(op.result) {
                Ok(_) => Received::End,
                Err(errno) => Received::Failed(errno),
            };
        }
        keep(&mut op.waker, waker);
        Received::Pending
    }

    /// Stops receiving; what is under way still arrives.
    pub(crate) fn pause_receive(&mut self, token: Token) {
        let Some(op) = self.ops.get_mut(token) else { return };
        let Kind::Receive { phase, .. } = &mut op.kind else {
            unreachable!("a token of another kind")
        };
        match *phase {
            Phase::Armed => {
                *phase = Phase::Pausing { resume: false };
                self.driver.start(Operation::Cancel { target: token }, token);
            }
            Phase::Pausing { .. } => *phase = Phase::Pausing { resume: false },
            // Its entry in the queue of the starved is skipped when its turn comes.
            Phase::Starved | Phase::Rearming => *phase = Phase::Paused,
            Phase::Paused | Phase::Ended => {}
        }
    }

    /// Whether nothing is received until resumed.
    pub(crate) fn is_receive_paused(&mut self, token: Token) -> bool {
        self.ops.get_mut(token).is_some_and(|op| {
            matches!(
                op.kind,
                Kind::Receive {
                    phase: Phase::Paused,
                    ..
                }
            )
        })
    }

    /// Receives again after a pause: `once` so many bytes at most, or as often as bytes come.
    pub(crate) fn resume_receive(&mut self, token: Token, limit: Option<u32>) {
        let Some(op) = self.ops.get_mut(token) else { return };
        let Kind::Receive { phase, once, .. } = &mut op.kind else {
            unreachable!("a token of another kind")
        };
        if matches!(phase, Phase::Pausing { .. } | Phase::Paused) {
            *once = limit;
        }
        match *phase {
            Phase::Pausing { .. } => *phase = Phase::Pausing { resume: true },
            Phase::Paused => self.arm_receive(token),
            Phase::Armed | Phase::Rearming | Phase::Starved | Phase::Ended => {}
        }
    }
}
