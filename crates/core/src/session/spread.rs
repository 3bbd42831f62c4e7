//! Sessions that are to end because of their age or of an order do so at different times: all at once would be a storm of
//! new ones. TCP connections are sessions here as well.

use std::time::Duration;

/// Over this time sessions on backups end when other backends are back.
const FAILBACK: Duration = Duration::from_secs(60);

/// When a session that began at `began` obeys an order of `ordered` to go home.
pub fn failback(ordered: Duration, began: Duration) -> Duration {
    ordered + FAILBACK.mul_f64(fraction(began))
}

/// How long a session that began at `began` lives of `lifetime`: 10 % more or less.
pub fn lifetime(lifetime: Duration, began: Duration) -> Duration {
    lifetime.mul_f64(0.9 + 0.2 * fraction(began))
}

/// A number from 0 to 1 that follows from a moment, and is another one for the next nanosecond.
fn fraction(moment: Duration) -> f64 {
    // The finalizer's first step of SplitMix64 spreads low bits (Steele, Lea and Flood, 2014).
    let mixed = (moment.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}
