//! Bounded load: consistent hashing in which no backend gets far more than its share (Mirrokni, Thorup and
//! Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018).

use super::{Attempt, Eligible};

/// The client's first backend that is usable and below its bound, reserved. `choose` gives the client's first backend
/// among those it is told of; `connections` says `None` for whoever is not usable.
///
/// The bound of a backend is its share, among those that are usable, of their connections, the new one included, times
/// `max_load` percent, rounded up. The claim only succeeds at a count below it. While nothing but opening happens, the
/// connections can only have become more since they were added up, and the bound with them: no backend is ever above
/// it, whatever other workers do. When connections close, shares shrink under those that stay; then nothing is opened
/// where the bound is reached.
pub(crate) fn attempt(
    max_load: u16,
    eligible: &[Eligible],
    connections: impl Fn(usize) -> Option<u32>,
    choose: impl Fn(&dyn Fn(usize) -> bool) -> Option<usize>,
) -> Attempt {
    let (mut all, mut weights) = (0, 0);
    for (at, backend) in eligible.iter().enumerate() {
        // Whoever was tried or is full takes nothing now: shares are of the others, or they could all be at their bounds.
        if let Some(connections) = connections(at) {
            all += u64::from(connections);
            weights += u64::from(backend.weight);
        }
    }
    if weights == 0 {
        return Attempt::Nobody;
    }
    let below = |at: usize| {
        let bound = bound(max_load, all, u64::from(eligible[at].weight), weights);
        connections(at).filter(|&connections| u64::from(connections) < bound)
    };
    // The bounds add up to more than there are connections, so somebody was below when they were added up.
    let chosen = choose(&|at| below(at).is_some());
    match chosen.and_then(|at| Some((at, below(at)?))) {
        Some((at, seen)) => Attempt::of(at, eligible[at].state.reserve_if(seen)),
        None => Attempt::Lost,
    }
}

/// Most connections of a backend: its share of all, the new one included, times the bound in percent, rounded up.
pub(crate) fn bound(max_load: u16, connections: u64, weight: u64, weights: u64) -> u64 {
    let share = u128::from(connections + 1) * u128::from(weight) * u128::from(max_load);
    u64::try_from(share.div_ceil(100 * u128::from(weights))).unwrap_or(u64::MAX)
}
