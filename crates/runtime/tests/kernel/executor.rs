//! Tasks, timers, wakers and calls from other threads.

use crate::harness::*;

#[test]
fn run_returns_when_main_ends_with_nothing_in_flight() {
    limited(|| {
        let runtime = new_runtime(SMALL);
        assert_eq!(block_on(&runtime, async { 7 }), 7);
        assert_eq!(block_on(&runtime, async { 8 }), 8, "a runtime runs more than once");
    });
}
