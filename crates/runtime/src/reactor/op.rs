//! What the in-flight table holds: operations, sockets, and how they answer their owners. Types only; what becomes of
//! them is decided in the files beside this one.

use crate::buffer_ring::Links;
use crate::driver::Fd;
use crate::errno::Errno;
use crate::slab::Token;
use std::collections::VecDeque;
use std::task::Waker;

/// No socket, for operations without one.
pub(super) const NO_SOCKET: Token = Token {
    slot: u32::MAX,
    generation: 0,
};

/// Names a socket of this runtime; owned by exactly one `Stream` or `Listener`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SocketSlot(pub(crate) u32);

pub(super) struct SocketEntry {
    pub(super) fd: Fd,
    /// Operations that the driver has not finished with.
    pub(super) in_flight: u32,
    /// What to do once nothing is in flight.
    pub(super) closing: Option<Closing>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    Orderly,
    Abort,
}

/// What an operation is and what it has gathered for its owner.
pub(super) enum Kind {
    /// Boxed because it would double the size of every operation in the table, most of which are receives.
    #[allow(clippy::box_collection)]
    Accept {
        accepted: Box<VecDeque<Fd>>,
    },
    /// `once`: receives so many bytes at most, then pauses by itself.
    Receive {
        received: Links,
        phase: Phase,
        once: Option<u32>,
    },
    Connect,
    /// `links` is what the kernel did not take, once the send failed or fell short.
    Send {
        links: Links,
    },
    /// A send of bytes outside of the buffer ring.
    SendBytes {
        bytes: Box<[u8]>,
        sent: u32,
    },
    /// What arrives goes to this queue, with this key.
    Datagrams {
        queue: Token,
        key: u64,
        phase: Phase,
    },
    /// `receive`: the receive of the same socket, whose queue hears of a failure.
    SendDatagram {
        links: Links,
        receive: Token,
    },
    /// Waits for one event: room to send, or something to receive.
    Ready,
    Notified,
}

/// Where a receive stands with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Armed,
    /// A cancel is under way on the owner's request; `resume` says whether to arm again once it is over.
    Pausing {
        resume: bool,
    },
    Paused,
    /// Ended by the kernel with more to come; armed again in the next turn.
    Rearming,
    /// Waits for buffers.
    Starved,
    Ended,
}

pub(super) struct Op {
    pub(super) kind: Kind,
    /// Of which it holds one in `in_flight` while in flight; may be gone otherwise, if its owner closed it first.
    pub(super) socket: Token,
    /// Completions are still to come from the driver.
    pub(super) in_flight: bool,
    /// Nobody is interested in the outcome any more.
    pub(super) orphaned: bool,
    /// The last completion's result, once there are no more to come.
    pub(super) result: i32,
    pub(super) waker: Option<Waker>,
}

/// What a receive has to say.
pub(crate) enum Received {
    /// Bytes, in order.
    Bytes(Links),
    /// The peer ended in order.
    End,
    /// The connection broke.
    Failed(Errno),
    /// Nothing yet; the waker was kept.
    Pending,
}

/// How a send went.
pub(crate) enum Sent {
    /// Not known before the end of the turn.
    Pending,
    /// Everything was taken.
    All,
    /// `links` was not taken; `error` says why, `None` for lack of room.
    Rest { links: Links, error: Option<Errno> },
    /// The same for bytes outside of the buffer ring.
    RestBytes {
        bytes: Box<[u8]>,
        sent: u32,
        error: Option<Errno>,
    },
}

/// Wakes the owner, if one waits.
pub(super) fn wake(op: &mut Op) {
    if let Some(waker) = op.waker.take() {
        waker.wake();
    }
}

/// Keeps `waker` for [`wake`].
pub(super) fn keep(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(kept) if kept.will_wake(waker) => {}
        _ => *slot = Some(waker.clone()),
    }
}
