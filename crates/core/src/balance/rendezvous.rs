//! Rendezvous hashing (Thaler and Ravishankar, 1998) by weight (Schindelhauer and Schomaker, 2005).
//!
//! Each backend draws a number `u` in (0, 1) from client and address, and the least `-ln(u) / weight` wins: an
//! exponential race in which a backend wins in proportion to its weight. Its result does not depend on who else races,
//! so a backend that leaves moves its own clients only, one that comes takes only what it wins, and a weight that
//! grows moves clients only towards it. Any base of the logarithm gives the same winner; here it is 2.

use super::Eligible;
use super::client::ClientKey;
use super::hash::{self, Purpose};
use super::log2::minus_log2;
use crate::model::Address;

/// What is prepared for rendezvous.
pub(crate) struct Rendezvous {
    seed: u64,
    /// Ordered by hash, then address: nothing depends on the order in the file.
    racers: Box<[Racer]>,
    /// The logarithm is skipped, which never changes the winner: it never increases with `u`, and of equal results
    /// the greater `u` wins.
    equal_weights: bool,
}

#[derive(Clone, Copy)]
struct Racer {
    /// Hash of the address.
    hash: u64,
    /// 1 to 1000.
    weight: u32,
    /// Position among the eligible backends.
    at: u32,
}

/// How one backend fared; the least wins.
#[derive(Clone, Copy)]
struct Draw {
    /// The number drawn, as a fraction of 2^64.
    drawn: u64,
    /// -log2 of it, fixed point, at most 2^50.
    minus_log2: u64,
    racer: Racer,
}

impl Rendezvous {
    pub(crate) fn new(eligible: &[Eligible], seed: u64) -> Self {
        Self::between(by_hash(eligible, seed), eligible, seed)
    }

    /// Between hosts: a backend draws what any other on its host draws, whatever its port and pool. Pools whose backends
    /// are on the same hosts send a client to the same one of them.
    pub(crate) fn of_hosts(eligible: &[Eligible]) -> Self {
        const SEED: u64 = 0;
        Self::between(by(eligible, |address| hash_of(SEED, &host(address))), eligible, SEED)
    }

    fn between(order: impl Iterator<Item = (u64, usize)>, eligible: &[Eligible], seed: u64) -> Self {
        let racers = order.map(|(hash, at)| Racer {
            hash,
            weight: eligible[at].weight,
            at: at as u32,
        });
        let racers: Box<[Racer]> = racers.collect();
        let equal_weights = racers.iter().all(|racer| racer.weight == racers[0].weight);
        Self {
            seed,
            racers,
            equal_weights,
        }
    }

    /// The untried backend that wins this client; with nothing tried it is the client's own, then its second, ...
    pub(crate) fn choose(&self, client: ClientKey, untried: impl Fn(usize) -> bool) -> Option<usize> {
        let client = client.hash(self.seed);
        let mut best: Option<Draw> = None;
        for &racer in self.racers.iter().filter(|racer| untried(racer.at as usize)) {
            let drawn = hash::mix(client ^ racer.hash);
            let minus_log2 = if self.equal_weights { 0 } else { minus_log2(drawn) };
            let draw = Draw {
                drawn,
                minus_log2,
                racer,
            };
            if best.is_none_or(|best| draw.beats(best)) {
                best = Some(draw);
            }
        }
        best.map(|best| best.racer.at as usize)
    }
}

impl Draw {
    /// Strictly: of equal ones the first in hash order stays.
    fn beats(self, other: Self) -> bool {
        // self / weight < other / other_weight; 51 + 20 bits fit.
        let ours = u128::from(self.minus_log2) * u128::from(other.racer.weight);
        let theirs = u128::from(other.minus_log2) * u128::from(self.racer.weight);
        ours < theirs || (ours == theirs && self.drawn > other.drawn)
    }
}

/// Address hash and position of the eligible backends, in an order that every node agrees on.
pub(crate) fn by_hash(eligible: &[Eligible], seed: u64) -> impl Iterator<Item = (u64, usize)> {
    by(eligible, move |address| hash_of(seed, address))
}

fn hash_of(seed: u64, address: &Address) -> u64 {
    hash::keyed(seed, Purpose::Backend, &hash::address_bytes(address))
}

/// An address without its port.
fn host(address: &Address) -> Address {
    let mut host = address.clone();
    if let Address::Inet(inet) = &mut host {
        inet.set_port(0);
    }
    host
}

fn by(eligible: &[Eligible], hash: impl Fn(&Address) -> u64) -> impl Iterator<Item = (u64, usize)> {
    let mut order: Vec<(u64, usize)> = eligible
        .iter()
        .enumerate()
        .map(|(at, backend)| (hash(&backend.state.address), at))
        .collect();
    order.sort_by(|a, b| {
        let address = |at: usize| &eligible[at].state.address;
        a.0.cmp(&b.0).then_with(|| address(a.1).cmp(address(b.1)))
    });
    order.into_iter()
}
