//! A panic on request, for the test of promise P23. Compiled in only with the feature `faults`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Panics in the task of the n-th connection of the process when `RINGWAY_FAULT=panic_relay:n` is set.
pub(crate) fn panic_if_asked() {
    static WANTED: OnceLock<Option<u64>> = OnceLock::new();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        std::env::var("RINGWAY_FAULT")
            .ok()
            .and_then(|fault| fault.strip_prefix("panic_relay:")?.parse().ok())
    });
    let seen = SEEN.fetch_add(1, Ordering::Relaxed) + 1;
    assert!(
        *wanted != Some(seen),
        "injected by RINGWAY_FAULT: panic in the task of connection {seen}"
    );
}
