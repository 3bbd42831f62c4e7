//! Random: the better by connections of two that are drawn by weight (Mitzenmacher, "The power of two choices", 2001).

use super::least_connections::Load;
use super::sample::Sample;
use super::{Attempt, Eligible};

/// The one of two drawn backends with fewer connections per weight, reserved; any other only if neither is usable.
///
/// What is compared are the connections that are there, without the new one: of two idle backends the first drawn is
/// taken, not the heavier, so that an idle pool is used by weight too.
pub(crate) fn attempt(
    sample: &Sample,
    eligible: &[Eligible],
    ticket: u64,
    connections: impl Fn(usize) -> Option<u32>,
) -> Attempt {
    let load = |at| Some(Load::of(&eligible[at], connections(at)?));
    // connections / weight < other's / other's weight; 32 + 20 bits fit.
    let lighter = |a: &Load, b: &Load| {
        u64::from(a.connections) * u64::from(b.weight) < u64::from(b.connections) * u64::from(a.weight)
    };
    match sample.least(eligible.len(), ticket, load, lighter) {
        None => Attempt::Nobody,
        Some((at, load)) => Attempt::of(at, eligible[at].state.reserve_if(load.connections)),
    }
}
