//! The reasons of `relay`.

use super::*;

#[test]
fn a_side_that_is_silent_is_gone_and_one_that_resets_is_reset() {
    assert_eq!(reason((Side::Client, Errno::TIMED_OUT)), EndReason::ClientGone);
    assert_eq!(
        reason((Side::Backend, Errno::CONNECTION_RESET)),
        EndReason::BackendReset
    );
    assert_eq!(
        reason((Side::Backend, Errno(32))),
        EndReason::BackendReset,
        "EPIPE: the reset came earlier"
    );
}
