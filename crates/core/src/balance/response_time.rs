//! Least response time: the peak EWMA of the time to the first byte, times the connections that are open now.
//!
//! Peak: a time above the average replaces it at once, times below it pull it down slowly, so a backend that has become
//! slow is avoided from its first slow answer on. (As "Peak EWMA" of Twitter's Finagle.)
//!
//! Without news an average is worth less and less: what is taken for a backend's time moves from its own average to
//! that of all, and is there when the own one is [`FORGOTTEN`]. So a backend that is avoided is tried again before
//! long, and one that accepts connections and does not answer them never looks faster for it.

use super::sample::Sample;
use super::{Attempt, Eligible};
use crate::backend::BackendState;
use crate::sync::Ordering;
use std::time::Duration;

/// An average without news counts half after this time.
pub(crate) const HALF_LIFE: Duration = Duration::from_secs(5);
/// An average without news does not count any more after this time.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(40);
/// Below this, answers count as equally fast, and connections alone decide.
const TIME_MIN_US: u64 = 50;
/// A whole one, for fractions in whole numbers.
const ONE: u64 = 1 << 16;
/// How far workers' clocks are apart at most.
const SKEW_MAX_MS: u32 = 60_000;

/// An average in one word, so that workers can change it without a lock: when it was changed, milliseconds of the
/// workers' clock modulo 2^32, above; microseconds, at most 2^32 - 1, below. 0: nothing is known.
#[derive(Clone, Copy)]
struct Average {
    at_ms: u32,
    micros: u32,
}

impl Average {
    fn unpack(word: u64) -> Option<Self> {
        (word != 0).then_some(Self {
            at_ms: (word >> 32) as u32,
            micros: word as u32,
        })
    }

    fn pack(self) -> u64 {
        // Never 0, which means that nothing is known.
        u64::from(self.at_ms) << 32 | u64::from(self.micros.max(1))
    }

    /// How much it counts now, 0 to [`ONE`].
    fn freshness(self, now_ms: u32) -> u64 {
        const HALF_LIFE_MS: u32 = HALF_LIFE.as_millis() as u32;
        const HALF_LIVES: u32 = (FORGOTTEN.as_millis() / HALF_LIFE.as_millis()) as u32;
        let age_ms = now_ms.wrapping_sub(self.at_ms);
        // Workers read their clocks at slightly different moments: a little before is now.
        let age_ms = if age_ms > u32::MAX - SKEW_MAX_MS { 0 } else { age_ms };
        let halved = age_ms / HALF_LIFE_MS;
        if halved >= HALF_LIVES {
            return 0;
        }
        // Straight lines between the halves.
        let start = ONE >> halved;
        start - start / 2 * u64::from(age_ms % HALF_LIFE_MS) / u64::from(HALF_LIFE_MS)
    }

    /// With one time more.
    fn with(self, micros: u32, now_ms: u32) -> Self {
        let before = u64::from(self.micros);
        // At least an eighth of the way: a burst of fast answers is news, however short.
        let kept = self.freshness(now_ms).min(ONE / 8 * 7);
        let mixed = (before * kept + u64::from(micros) * (ONE - kept)) / ONE;
        // Never back: a word of another worker may be from a moment ahead of our clock.
        let is_ahead = self.at_ms.wrapping_sub(now_ms) < SKEW_MAX_MS;
        Self {
            at_ms: if is_ahead { self.at_ms } else { now_ms },
            // Between the two, so it fits.
            micros: if micros >= self.micros { micros } else { mixed as u32 },
        }
    }
}

const fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

impl BackendState {
    /// Takes note of a time to the first byte.
    pub fn note_response(&self, time: Duration, now: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let now_ms = millis(now);
        let noted = |word| {
            let first = Average { at_ms: now_ms, micros };
            let average = Average::unpack(word).map_or(first, |average| average.with(micros, now_ms));
            Some(average.pack())
        };
        // Never refused: the closure always gives a value.
        let _ = self
            .orders
            .response()
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, noted);
    }

    /// The average as of the last answer; `None`: nothing was measured yet, or so long ago that it is forgotten.
    pub fn response_time(&self, now: Duration) -> Option<Duration> {
        let (micros, _) = self.measured(millis(now))?;
        Some(Duration::from_micros(micros))
    }

    /// Microseconds, and how much they count, 1 to [`ONE`].
    fn measured(&self, now_ms: u32) -> Option<(u64, u64)> {
        let average = Average::unpack(self.orders.response().load(Ordering::Relaxed))?;
        let freshness = average.freshness(now_ms);
        (freshness > 0).then_some((u64::from(average.micros), freshness))
    }
}

/// The usable backend with the least expected time, reserved. `connections` says `None` for whoever is not usable. The claim succeeds only at the count of connections that
/// was compared; the times themselves may be those of a moment ago.
pub(crate) fn attempt(
    sample: &Sample,
    eligible: &[Eligible],
    ticket: u64,
    now: Duration,
    connections: impl Fn(usize) -> Option<u32>,
) -> Attempt {
    let now_ms = millis(now);
    // Whoever was not measured yet is taken for average, neither first choice nor last.
    let (mut sum, mut count) = (0_u64, 0_u64);
    sample.positions(eligible.len(), ticket).for_each(|at| {
        if let Some((micros, freshness)) = eligible[at].state.measured(now_ms) {
            // 32 + 17 bits each; a thousand of them fit.
            sum += micros * freshness;
            count += freshness;
        }
    });
    let average = sum.checked_div(count).unwrap_or(0);
    let load = |at: usize| {
        let connections = connections(at)?;
        let backend = &eligible[at];
        let micros = match backend.state.measured(now_ms) {
            Some((micros, freshness)) => (micros * freshness + average * (ONE - freshness)) / ONE,
            None => average,
        };
        // 32 + 33 bits.
        let expected = u128::from(micros.max(TIME_MIN_US)) * (u128::from(connections) + 1);
        Some((expected, backend.weight, connections))
    };
    // expected / weight < other / other's weight; 65 + 20 bits fit.
    let lighter = |a: &(u128, u32, u32), b: &(u128, u32, u32)| a.0 * u128::from(b.1) < b.0 * u128::from(a.1);
    match sample.least(eligible.len(), ticket, load, lighter) {
        None => Attempt::Nobody,
        Some((at, (_, _, seen))) => Attempt::of(at, eligible[at].state.reserve_if(seen)),
    }
}
