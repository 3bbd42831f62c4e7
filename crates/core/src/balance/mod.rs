//! Choosing a backend for each new connection.
//!
//! Owns the algorithms, one file each. A [`Selector`] is immutable and shared by all workers; when the eligible
//! backends change, a new one takes its place as a whole, with a schedule or table of its own, so that nobody's load
//! falls on a neighbour. What workers share beyond it are [`Tickets`] and the counters in `BackendState`.
//!
//! Never allocates, locks, waits or draws random numbers in [`Selector::choose`]: the same tickets and counters give
//! the same choices. Called by `ringway-proxy` for each try to connect, built by whoever publishes snapshots.

pub(crate) mod client;
pub(crate) mod hash;
pub(crate) mod least_connections;
pub(crate) mod log2;
pub(crate) mod maglev;
pub(crate) mod rendezvous;
pub(crate) mod round_robin;
pub(crate) mod tickets;
pub(crate) mod tried;

pub use client::ClientKey;
pub use tickets::Tickets;
pub use tried::Tried;

use crate::backend::{BackendState, Reservation};
use crate::model::{self, BackendIndex, Balance, HashAlgorithm};
use least_connections::LeastConnections;
use maglev::Maglev;
use rendezvous::Rendezvous;
use round_robin::Schedule;
use std::fmt;
use std::sync::Arc;

/// A backend, chosen and counted.
#[derive(Debug)]
pub struct Choice {
    /// Which one.
    pub index: BackendIndex,
    /// Holds its place in the backend's count until dropped.
    pub reservation: Reservation,
}

/// The eligible backends of one pool with what its algorithm needs to choose among them.
pub struct Selector {
    /// In the pool's order.
    eligible: Box<[Eligible]>,
    rule: Rule,
    tickets: Arc<Tickets>,
}

/// One backend that may be chosen.
pub(crate) struct Eligible {
    pub(crate) index: BackendIndex,
    /// 1 to 1000.
    pub(crate) weight: u32,
    pub(crate) state: Arc<BackendState>,
}

enum Rule {
    RoundRobin(Schedule),
    LeastConnections(LeastConnections),
    Rendezvous(Rendezvous),
    Maglev(Maglev),
}

impl Selector {
    /// A selector to which every backend of the pool is eligible. `states` is parallel to the pool's backends;
    /// `tickets` is the pool's own, kept from selector to selector.
    pub fn new(pool: &model::Pool, states: &[Arc<BackendState>], tickets: Arc<Tickets>) -> Self {
        let all: Vec<BackendIndex> = (0..pool.backends.len()).map(BackendIndex).collect();
        Self::with_eligible(pool, states, tickets, &all)
    }

    /// A selector among the backends at `eligible` only, in any order; repetitions count once. With none of them,
    /// [`Self::choose`] always says `None`.
    ///
    /// Panics if `states` is not parallel to the pool's backends or a position is outside of them.
    pub fn with_eligible(
        pool: &model::Pool,
        states: &[Arc<BackendState>],
        tickets: Arc<Tickets>,
        eligible: &[BackendIndex],
    ) -> Self {
        assert_eq!(
            pool.backends.len(),
            states.len(),
            "one state per backend of pool {}",
            pool.name
        );
        let mut order = eligible.to_vec();
        order.sort_unstable();
        order.dedup();
        let eligible: Box<[Eligible]> = order
            .into_iter()
            .map(|index| Eligible {
                index,
                weight: u32::from(pool.backends[index.0].weight),
                state: states[index.0].clone(),
            })
            .collect();
        let rule = match (pool.balance, pool.hash.algorithm) {
            (Balance::RoundRobin, _) => {
                let weights: Vec<u32> = eligible.iter().map(|backend| backend.weight).collect();
                Rule::RoundRobin(Schedule::new(&weights))
            }
            (Balance::LeastConnections, _) => Rule::LeastConnections(LeastConnections::new(&eligible)),
            (Balance::IpHash, HashAlgorithm::Rendezvous) => {
                Rule::Rendezvous(Rendezvous::new(&eligible, pool.hash.seed))
            }
            (Balance::IpHash, HashAlgorithm::Maglev) => Rule::Maglev(Maglev::new(&eligible, pool.hash.seed)),
        };
        Self {
            eligible,
            rule,
            tickets,
        }
    }

    /// The backend for a client's next try, counted as one of its connections from now on; `None` when every eligible
    /// backend was tried.
    pub fn choose(&self, client: ClientKey, tried: &Tried) -> Option<Choice> {
        let untried = |at: usize| !tried.contains(self.eligible[at].index);
        // Asked here so that no algorithm walks its schedule or table in vain, or takes tickets for nothing.
        if tried.len() >= self.eligible.len() && !(0..self.eligible.len()).any(untried) {
            return None;
        }
        let at = match &self.rule {
            Rule::RoundRobin(schedule) => schedule.choose(&self.tickets, untried),
            Rule::LeastConnections(rule) => {
                let (at, reservation) = rule.choose(&self.eligible, &self.tickets, tried)?;
                return Some(Choice {
                    index: self.eligible[at].index,
                    reservation,
                });
            }
            Rule::Rendezvous(rule) => rule.choose(client, untried),
            // A backend may be too light for a slot; as a last resort it is tried all the same.
            Rule::Maglev(rule) => rule
                .choose(client, untried)
                .or_else(|| (0..self.eligible.len()).find(|&at| untried(at))),
        }?;
        let backend = &self.eligible[at];
        Some(Choice {
            index: backend.index,
            reservation: backend.state.reserve(),
        })
    }

    /// How many backends are eligible.
    pub fn eligible_len(&self) -> usize {
        self.eligible.len()
    }

    /// Whether least connections compares two random backends instead of all, because there are more than 256; then
    /// its result is near the best instead of exact, and status must say so.
    pub fn is_sampled(&self) -> bool {
        matches!(&self.rule, Rule::LeastConnections(rule) if rule.is_sampled())
    }
}

impl fmt::Debug for Selector {
    /// Without tables and schedules, which have up to a million entries.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match &self.rule {
            Rule::RoundRobin(_) => "round_robin",
            Rule::LeastConnections(_) => "least_connections",
            Rule::Rendezvous(_) => "ip_hash by rendezvous",
            Rule::Maglev(_) => "ip_hash by maglev",
        };
        let eligible: Vec<usize> = self.eligible.iter().map(|backend| backend.index.0).collect();
        f.debug_struct("Selector")
            .field("algorithm", &algorithm)
            .field("eligible", &eligible)
            .finish_non_exhaustive()
    }
}
