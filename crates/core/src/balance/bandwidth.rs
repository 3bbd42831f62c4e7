//! Least bandwidth: the fewest bytes per second and weight over a sliding window.
//!
//! The window is published every [`Window::STEP`]. By itself it would choose badly, for two reasons:
//!
//! - It shows a connection only as that brings bytes, so the connections of a whole window would go to whoever was
//!   least at its beginning. Therefore each choice counts as what a connection of this pool brings on average, whole at
//!   first, a fifth less with every step: about as much as the window does not show of it yet.
//! - It forgets: what one backend had too much in a second is never made up for, and where few connections bring most
//!   of the bytes that adds up. Therefore what a backend had more or less than its share over some 13 s counts on top,
//!   [`DEBT_FACTOR`] times, at most [`DEBT_MAX`] of its share: one that comes back is not flooded to make up for its
//!   absence.

use super::sample::Sample;
use super::{Attempt, Eligible};
use crate::backend::CHOICE_PARTS;
use std::collections::VecDeque;
use std::time::Duration;

/// How much the long average counts; with the window alone, bytes spread over backends half as unevenly as by round
/// robin, with this less than a third (the simulation in the tests).
const DEBT_FACTOR: f64 = 20.0;
/// Of a backend's share of the bytes.
const DEBT_MAX: f64 = 0.25;

/// The usable backend with the least rate per weight, reserved. Choices that the rates do not show yet are claimed one
/// by one, so they are exact over all workers; the rates are those of the last step.
pub(crate) fn attempt(sample: &Sample, eligible: &[Eligible], ticket: u64, usable: impl Fn(usize) -> bool) -> Attempt {
    let fair = Fair::among(sample.positions(eligible.len(), ticket).map(|at| &eligible[at]));
    let load = |at: usize| {
        usable(at).then(|| {
            let unseen = eligible[at].state.orders.unseen();
            (fair.load(&eligible[at], unseen), unseen)
        })
    };
    let lighter = |a: &(f64, u32), b: &(f64, u32)| a.0 < b.0;
    let Some((at, (_, unseen))) = sample.least(eligible.len(), ticket, load, lighter) else {
        return Attempt::Nobody;
    };
    let backend = &eligible[at].state;
    if !backend.orders.count_choice_if(unseen) {
        return Attempt::Lost;
    }
    Attempt::of(at, backend.reserve())
}

/// What is compared with: of all that are looked at, usable or not.
struct Fair {
    /// Bytes per second and weight.
    rate: f64,
    /// The same by the long average.
    rate_long: f64,
    /// What the next connection will bring. That does not depend on who gets it.
    per_choice: f64,
}

impl Fair {
    fn among<'a>(backends: impl Iterator<Item = &'a Eligible>) -> Self {
        let (mut rate, mut rate_long, mut per_choice, mut weight, mut count) = (0.0, 0.0, 0.0, 0.0, 0.0);
        backends.for_each(|backend| {
            let orders = &backend.state.orders;
            rate += orders.bytes_per_second() as f64;
            rate_long += orders.bytes_per_second_long() as f64;
            per_choice += orders.bytes_per_choice() as f64;
            weight += f64::from(backend.weight);
            count += 1.0;
        });
        Self {
            rate: rate / weight,
            rate_long: rate_long / weight,
            // Never nothing: before anything was measured, choices alone decide.
            per_choice: (per_choice / count).max(1.0),
        }
    }

    /// Expected bytes per second and weight with half of the connection that is to be chosen for: with all of it
    /// light backends would be left out too often, with nothing of it heavy ones.
    fn load(&self, backend: &Eligible, unseen: u32) -> f64 {
        let orders = &backend.state.orders;
        let weight = f64::from(backend.weight);
        let rate = orders.bytes_per_second() as f64 / weight;
        let ahead = orders.bytes_per_second_long() as f64 / weight - self.rate_long;
        let debt_max = self.rate * DEBT_MAX;
        let debt = (ahead * DEBT_FACTOR).clamp(-debt_max, debt_max);
        let choices = f64::from(unseen) / f64::from(CHOICE_PARTS) + 0.5;
        rate + debt + choices * self.per_choice / weight
    }
}

/// A sliding window over a counter: how much it grew per second.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Counter and moment of each step, the newest last.
    steps: VecDeque<(u64, Duration)>,
}

impl Window {
    /// How often [`Self::step`] is to be called.
    pub const STEP: Duration = Duration::from_millis(100);
    /// Its length in steps.
    const STEPS: usize = 10;

    /// Takes note of the counter's value now. Returns how much it grows per second; 0 after the first step.
    pub fn step(&mut self, counter: u64, now: Duration) -> u64 {
        self.steps.push_back((counter, now));
        if self.steps.len() > Self::STEPS + 1 {
            self.steps.pop_front();
        }
        let Some(&(before, since)) = self.steps.front() else {
            return 0;
        };
        let grown = u128::from(counter.saturating_sub(before));
        let micros = now.saturating_sub(since).as_micros();
        u64::try_from((grown * 1_000_000).checked_div(micros).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}
