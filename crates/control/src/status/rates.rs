//! What happens per second: differences of counters over the last few seconds.
//!
//! Asks no clock and reads no counter; remembers at most `SAMPLES_MAX` samples of each listener and backend. Fed once a
//! second by whoever serves the status.

use ringway_core::model::{BackendIndex, PoolIndex};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// What a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// By its position in the configuration.
    Listener(usize),
    /// A backend's index is never given to another while the process lives.
    Backend(PoolIndex, BackendIndex),
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Accepted, or established.
    pub connections: u64,
    /// From clients.
    pub bytes_in: u64,
    /// From backends.
    pub bytes_out: u64,
}

/// The same per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerSecond {
    /// To one decimal.
    pub connections: f64,
    /// Whole bytes.
    pub bytes_in: u64,
    /// Whole bytes.
    pub bytes_out: u64,
}

/// Remembers the last samples.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    samples: HashMap<Subject, VecDeque<Sample>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    counted: Counted,
}

/// Rates are over this long: long enough to be calm, short enough to see a change.
const WINDOW: Duration = Duration::from_secs(5);
/// Of one subject; sampled more often, rates are over a shorter time.
const SAMPLES_MAX: usize = 16;

impl Rates {
    /// Takes what everything counts now; `now` is a clock that only goes forward. What is absent is forgotten.
    pub fn sample(&mut self, now: Duration, counted: impl IntoIterator<Item = (Subject, Counted)>) {
        let mut before = std::mem::take(&mut self.samples);
        for (subject, counted) in counted {
            let mut samples = before.remove(&subject).unwrap_or_default();
            samples.push_back(Sample { at: now, counted });
            // The oldest one that stays is the youngest that is a whole window old.
            while samples.get(1).is_some_and(|next| now.saturating_sub(next.at) >= WINDOW)
                || samples.len() > SAMPLES_MAX
            {
                samples.pop_front();
            }
            self.samples.insert(subject, samples);
        }
    }

    /// Between the oldest and the latest sample that are remembered; zeroes before there are two.
    pub fn per_second(&self, subject: Subject) -> PerSecond {
        let ends = self.samples.get(&subject).and_then(|s| Some((s.front()?, s.back()?)));
        let Some((first, last)) = ends else {
            return PerSecond::default();
        };
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return PerSecond::default();
        }
        // Workers are not asked to stand still for a sample, so a sum may once be a little less than the one before.
        let rate =
            |count: fn(&Counted) -> u64| count(&last.counted).saturating_sub(count(&first.counted)) as f64 / seconds;
        PerSecond {
            connections: (rate(|counted| counted.connections) * 10.0).round() / 10.0,
            bytes_in: rate(|counted| counted.bytes_in).round() as u64,
            bytes_out: rate(|counted| counted.bytes_out).round() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: Subject = Subject::Listener(0);

    fn counted(connections: u64, bytes: u64) -> Counted {
        Counted {
            connections,
            bytes_in: bytes,
            bytes_out: 2 * bytes,
        }
    }

    /// Samples at whole seconds from 0.
    fn after(samples: &[(u64, u64)]) -> PerSecond {
        let mut rates = Rates::default();
        for (second, &(connections, bytes)) in (0..).zip(samples) {
            rates.sample(Duration::from_secs(second), [(WEB, counted(connections, bytes))]);
        }
        rates.per_second(WEB)
    }

    #[test]
    fn one_sample_is_no_rate() {
        assert_eq!(after(&[]), PerSecond::default());
        assert_eq!(after(&[(100, 100)]), PerSecond::default());
    }

    #[test]
    fn a_rate_is_the_difference_by_the_time() {
        // 7 connections and 1,000 bytes in 3 s.
        let rate = after(&[(10, 0), (11, 0), (12, 500), (17, 1_000)]);
        assert_eq!(rate.connections, 2.3);
        assert_eq!((rate.bytes_in, rate.bytes_out), (333, 667));
    }

    #[test]
    fn what_is_older_than_five_seconds_does_not_count() {
        // The jump is between seconds 0 and 1; at second 6 the window begins with second 1.
        let samples = [(0, 0), (900, 0), (900, 0), (900, 0), (900, 0), (900, 0), (905, 0)];
        assert_eq!(after(&samples[..6]).connections, 180.0);
        assert_eq!(after(&samples).connections, 1.0);
    }

    #[test]
    fn a_late_sample_still_gives_a_rate() {
        let mut rates = Rates::default();
        rates.sample(Duration::from_secs(1), [(WEB, counted(0, 0))]);
        rates.sample(Duration::from_secs(21), [(WEB, counted(40, 0))]);
        assert_eq!(rates.per_second(WEB).connections, 2.0);
    }

    #[test]
    fn a_sum_that_fell_is_no_rate_and_what_left_is_forgotten() {
        assert_eq!(after(&[(10, 10), (9, 9)]), PerSecond::default());
        let other = Subject::Backend(PoolIndex(0), BackendIndex(3));
        let mut rates = Rates::default();
        rates.sample(Duration::from_secs(1), [(WEB, counted(0, 0)), (other, counted(0, 0))]);
        rates.sample(Duration::from_secs(2), [(WEB, counted(1, 0))]);
        rates.sample(Duration::from_secs(3), [(WEB, counted(2, 0)), (other, counted(9, 0))]);
        assert_eq!(rates.per_second(WEB).connections, 1.0);
        assert_eq!(rates.per_second(other), PerSecond::default());
    }

    #[test]
    fn samples_are_bounded_however_often_they_come() {
        let mut rates = Rates::default();
        for millisecond in 0..1_000 {
            rates.sample(Duration::from_millis(millisecond), [(WEB, counted(millisecond, 0))]);
        }
        assert_eq!(rates.samples[&WEB].len(), SAMPLES_MAX);
        assert_eq!(rates.per_second(WEB).connections, 1_000.0);
    }
}
