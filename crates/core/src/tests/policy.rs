use crate::model::{Affinity, OnBackendDown};
use crate::reason::EndReason;
use crate::session::policy::{Cause, Next, next};

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
