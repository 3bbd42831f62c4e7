//! What is set for a peer that is near (docs/decisions/D2-bundles-and-sends.md).

use ringway_runtime::{Stream, TcpInfo};
use std::time::Duration;

/// A source as near as this needs no long window: it would only be filled, and what waits there has left the caches by
/// the time it is sent.
const NEAR: Duration = Duration::from_micros(250);
/// What the kernel receives ahead from a source so near, in bytes with the kernel's own overhead: at `NEAR` still more
/// than 16 Gbit/s.
const NEAR_WINDOW: u32 = 1024 * 1024;
/// A sink as near as this is on the same machine, or next to it: nothing is gained by timers, which is how BBR sends.
const HERE: Duration = Duration::from_micros(50);

/// A source that is near is received from with a short window.
pub(super) fn receive_less_ahead(source: &Stream, info: TcpInfo) {
    if is_within(info.round_trip, NEAR) {
        // Fails when the connection is over, which the next receive tells.
        let _ = source.bound_receive_buffer(NEAR_WINDOW);
    }
}

/// A sink on this machine is sent to by acknowledgements, not by timers.
pub(super) fn send_without_timers(sink: &Stream, info: TcpInfo) {
    // How far away it is, not how long its queues are now.
    if is_within(info.round_trip_min, HERE) {
        // Fails when the connection is over, and where Reno is not allowed: then it stays as it is.
        let _ = sink.leave_bbr();
    }
}

/// Unknown, which is zero, is not near.
fn is_within(round_trip: Duration, limit: Duration) -> bool {
    round_trip <= limit && !round_trip.is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_near_and_what_is_unknown_is_not() {
        let limit = Duration::from_micros(50);
        assert!(is_within(Duration::from_micros(1), limit));
        assert!(is_within(limit, limit));
        assert!(!is_within(Duration::from_micros(51), limit));
        assert!(!is_within(Duration::ZERO, limit));
    }
}
