//! What becomes of a session whose backend is not to be used any more.

use crate::model::{Affinity, OnBackendDown};
use crate::reason::EndReason;
use std::time::Duration;

/// How long a backend on trial may leave a client without an answer, where silence says something at all; otherwise for how
/// long nobody may say that it is not there.
pub const TRIAL_MAX: Duration = Duration::from_secs(1);

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

/// What a lack of answers tells of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It should have answered.
    Silent,
    /// It is there, as far as can be told.
    There,
}

/// What the time since a client's first unanswered datagram tells of its backend, if anything. `is_tried`: the backend is on
/// trial, and this session decides.
pub fn told_by_silence(is_tried: bool, silence: Option<Duration>, unanswered: Duration) -> Option<Word> {
    match silence {
        // One that does not answer must not keep the trial from others for as long as its client sends.
        Some(silence) if is_tried => (unanswered >= silence.min(TRIAL_MAX)).then_some(Word::Silent),
        Some(silence) => (unanswered >= silence).then_some(Word::Silent),
        // Of a protocol without answers nothing else will be heard: it is there, or ICMP would have said so.
        None => (is_tried && unanswered >= TRIAL_MAX).then_some(Word::There),
    }
}
