use crate::model::{Affinity, OnBackendDown};
use crate::reason::EndReason;
use crate::session::policy::{Cause, Next, Word, next, told_by_silence};
use std::time::Duration;

/// The table of docs/udp.md.
#[test]
fn what_a_session_does_when_its_backend_is_lost() {
    use Affinity as A;
    use OnBackendDown as P;
    let ends = |reason| Next::End(reason);
    for (cause, policy, affinity, expected) in [
        (Cause::Down, P::Move, A::Session, Next::Move),
        (Cause::Down, P::Move, A::ClientIp, Next::Move),
        (Cause::Down, P::Move, A::None, ends(EndReason::BackendDown)),
        (Cause::Down, P::Keep, A::Session, Next::Stay),
        (Cause::Down, P::Keep, A::None, Next::Stay),
        (Cause::Down, P::Close, A::Session, ends(EndReason::BackendDown)),
        (Cause::Removed, P::Move, A::Session, Next::Move),
        (Cause::Removed, P::Move, A::None, ends(EndReason::BackendRemoved)),
        (Cause::Removed, P::Keep, A::Session, ends(EndReason::BackendRemoved)),
        (Cause::Removed, P::Close, A::ClientIp, ends(EndReason::BackendRemoved)),
        (Cause::Failback, P::Move, A::Session, Next::Move),
        (Cause::Failback, P::Keep, A::Session, ends(EndReason::Failback)),
        (Cause::Failback, P::Close, A::Session, ends(EndReason::Failback)),
    ] {
        assert_eq!(
            next(cause, policy, affinity),
            expected,
            "{cause:?} {policy:?} {affinity:?}"
        );
    }
}

#[test]
fn silence_says_something_where_it_was_asked_to() {
    let ms = Duration::from_millis;
    for (is_tried, silence, unanswered, told) in [
        // Protocols without answers: nothing, but that a backend which is tried is there.
        (false, None, 100_000, None),
        (true, None, 999, None),
        (true, None, 1_000, Some(Word::There)),
        (false, Some(3_000), 2_999, None),
        (false, Some(3_000), 3_000, Some(Word::Silent)),
        (true, Some(3_000), 999, None),
        (true, Some(3_000), 1_000, Some(Word::Silent)),
        (true, Some(200), 200, Some(Word::Silent)),
    ] {
        let seen = told_by_silence(is_tried, silence.map(ms), ms(unanswered));
        assert_eq!(seen, told, "{is_tried} {silence:?} {unanswered}");
    }
}
