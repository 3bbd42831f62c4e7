//! Deliberate faults, each a mistake that was made in the field. Compiled in only with the feature `mutants`; the
//! simulation must catch every one of them (docs/decisions/D13-driver-enum.md). Without the feature `active` is a
//! constant `false`.

/// A mistake that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// A receive that found the ring dry is never armed again.
    NoRearmAfterNoBuffers = 1,
    /// A receive that ended without error is taken to be still armed.
    MoreFlagIgnored,
    /// Receives that wait for buffers are forgotten when buffers come back.
    StarvedNotFed,
    /// What a short send left is dropped.
    ShortSendNotResumed,
    /// What a short send left is sent again from its first byte.
    ShortSendRestarted,
    /// The buffers of a bundle behind its first are mistaken for others.
    BundleMisread,
    /// An orderly end is passed on as a reset.
    EndSentAsReset,
    /// A reset is passed on as an orderly end.
    ResetSentAsEnd,
    /// The end of one direction ends the other at once.
    HalfCloseForgotten,
    /// Leases of a broken relay are never given back.
    LeasesLeaked,
    /// A paused receive is never resumed.
    PauseNotResumed,
    /// The end is passed on before the bytes in front of it.
    EndOvertakesBytes,
    /// A descriptor is closed although operations on it are in flight.
    ClosedInFlight,
    /// A failed connect does not give its reservation back.
    ReservationLeaked,
    /// Nothing is received while bytes wait to be sent, and nobody looks again.
    WritableNotAwaited,
    /// What was received before a reset is dropped instead of delivered.
    BytesBeforeResetDropped,
    /// Accepting that ended without error is not started again.
    AcceptNotResumed,
    /// A reset that a send learnt of first is taken for the orderly end that the receive then reports.
    ResetTakenForEnd,
    /// Bytes that arrive between a pause and its completion are dropped.
    BytesAfterPauseLost,
    /// A relay whose sink is full keeps its buffers although others wait for some.
    BuffersHoarded,
    /// A source whose connection is over, because both sides have ended, is taken for one that was reset.
    EndTakenForReset,
    /// Whoever waits in line for room is not woken when there is some.
    QueueWakerLost,
    /// A place in line is never left.
    PlaceLeaked,
    /// A worker goes on with the first view that it saw.
    ViewNotRefreshed,
    /// A failed connect is counted and not told.
    FailureNotTold,
    /// What is delivered after a reset is missing in the session's record.
    BytesAfterResetNotRecorded,
    /// A connection that was a trial keeps its place when it ends.
    TrialNotGivenBack,
    /// A relay whose sink is full outlives its lifetime.
    LifetimeIgnoredWhileBlocked,
    /// Sessions are not ended when their backend's are to end.
    OrdersForgotten,
    /// A backend that was reset after it had answered counts as one that ended early.
    AnswerTakenForEarlyEnd,
    /// A success that was asked for is noticed and not told.
    SuccessNotTold,
    /// A session is ended by an order that came before its backend was chosen.
    StaleOrderObeyed,
    /// What a pipe holds when the source was reset is dropped instead of delivered.
    PipeLostAtReset,
    /// A pipe is given to the next stream with what it still holds.
    PipeReturnedWithBytes,
    /// The end is passed on although a pipe holds bytes in front of it.
    EndOvertakesPipe,
    /// What a client says before it is routed gives it time anew.
    DeadlineExtended,
    /// Who has to make room is not told.
    DisplacedNotWoken,
    /// Who is routed, or has gone, still counts as one who waits to be routed.
    PlaceNotLeft,
    /// What comes in overtakes what was held back before the relay.
    HeadOvertaken,
    /// What backends are told of a client counts as the client's bytes.
    OwnHeaderCounted,
    /// Buffers of first bytes that were copied behind a header are never given back.
    HeadLeasesLeaked,
    /// Whoever waits for a backend keeps buffers although others wait for some.
    HeadHoarded,
    /// The header of a balancer in front is passed on.
    HeaderPassedOn,
    /// What a backend is told of a client comes behind the request for TLS.
    HeaderBehindGreeting,
    /// What a backend answers to a request for TLS is not awaited.
    GreetingNotAwaited,
    /// What a backend says at once behind its answer is dropped.
    GreetingRestDropped,
    /// What a client says behind a request before it was answered is believed (CVE-2021-23222).
    BytesBehindRequestTaken,
    /// A client that a header names does not count among those of its address.
    GuardNotKept,
    /// A key outlives its session.
    KeyNotForgotten,
    /// A key that comes in pieces is not seen.
    CutKeyMissed,
    /// A cancel request goes to any server of its pool.
    CancelToAnybody,
    /// Two connections have the same name.
    NameRepeated,
}

impl Fault {
    /// Those of accepting, connecting and relaying (crates/proxy/tests/sim).
    pub const ALL: [Self; 35] = [
        Self::NoRearmAfterNoBuffers,
        Self::MoreFlagIgnored,
        Self::StarvedNotFed,
        Self::ShortSendNotResumed,
        Self::ShortSendRestarted,
        Self::BundleMisread,
        Self::EndSentAsReset,
        Self::ResetSentAsEnd,
        Self::HalfCloseForgotten,
        Self::LeasesLeaked,
        Self::PauseNotResumed,
        Self::EndOvertakesBytes,
        Self::ClosedInFlight,
        Self::ReservationLeaked,
        Self::WritableNotAwaited,
        Self::BytesBeforeResetDropped,
        Self::AcceptNotResumed,
        Self::ResetTakenForEnd,
        Self::BytesAfterPauseLost,
        Self::BuffersHoarded,
        Self::EndTakenForReset,
        Self::QueueWakerLost,
        Self::PlaceLeaked,
        Self::ViewNotRefreshed,
        Self::FailureNotTold,
        Self::BytesAfterResetNotRecorded,
        Self::TrialNotGivenBack,
        Self::LifetimeIgnoredWhileBlocked,
        Self::OrdersForgotten,
        Self::AnswerTakenForEarlyEnd,
        Self::SuccessNotTold,
        Self::StaleOrderObeyed,
        Self::PipeLostAtReset,
        Self::PipeReturnedWithBytes,
        Self::EndOvertakesPipe,
    ];

    /// Those of what comes between (crates/proxy/tests/routing).
    pub const ROUTING: [Self; 17] = [
        Self::DeadlineExtended,
        Self::DisplacedNotWoken,
        Self::PlaceNotLeft,
        Self::HeadOvertaken,
        Self::OwnHeaderCounted,
        Self::HeadLeasesLeaked,
        Self::HeadHoarded,
        Self::HeaderPassedOn,
        Self::HeaderBehindGreeting,
        Self::GreetingNotAwaited,
        Self::GreetingRestDropped,
        Self::BytesBehindRequestTaken,
        Self::GuardNotKept,
        Self::KeyNotForgotten,
        Self::CutKeyMissed,
        Self::CancelToAnybody,
        Self::NameRepeated,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Fault;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Whether the fault is switched on for this thread.
    pub fn active(fault: Fault) -> bool {
        ACTIVE.get() == Some(fault)
    }

    /// Switches one fault on for this thread, or all off.
    pub fn set(fault: Option<Fault>) {
        ACTIVE.set(fault);
    }
}

#[cfg(feature = "mutants")]
pub use switch::{active, set};

/// Never, without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn active(_: Fault) -> bool {
    false
}
