//! What becomes of a session whose backend is not to be used any more.

use crate::model::{Affinity, OnBackendDown};
use crate::reason::EndReason;

/// Why a session is to leave its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The network said that nobody is there, it was silent for too long, or it was found down.
    Down,
    /// It left its pool, and the time to finish is over.
    Removed,
    /// It is a backup, and others are well again.
    Failback,
}

/// What the client's next datagram meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same session at the same backend.
    Stay,
    /// The same session at another backend.
    Move,
    /// A session of its own: this one is over.
    End(EndReason),
}

/// What a session does, by the pool's policy. `Keep` means that no session moves: of a backend that is gone for good it
/// ends. Where nothing stays with a backend (`Affinity::None`) there is nothing to move.
pub const fn next(cause: Cause, policy: OnBackendDown, affinity: Affinity) -> Next {
    match (cause, policy) {
        (Cause::Down, OnBackendDown::Keep) => Next::Stay,
        (_, OnBackendDown::Move) if !matches!(affinity, Affinity::None) => Next::Move,
        (Cause::Down, _) => Next::End(EndReason::BackendDown),
        (Cause::Removed, _) => Next::End(EndReason::BackendRemoved),
        (Cause::Failback, _) => Next::End(EndReason::Failback),
    }
}
