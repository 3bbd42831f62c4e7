//! Choosing a backend for each new connection.
//!
//! Owns the algorithms, one file each. A [`Selector`] is immutable and shared by all workers; when the eligible
//! backends change, a new one takes its place as a whole, with a schedule or table of its own, so that nobody's load
//! falls on a neighbour. What workers share beyond it are [`Tickets`] and the counters in `BackendState`.
//!
//! Never allocates, locks, waits or draws random numbers in [`Selector::choose`]: the same tickets, counters and time
//! give the same choices. Called by `ringway-proxy` for each try to connect, built by whoever publishes views.

pub(crate) mod bandwidth;
pub(crate) mod bounded;
pub(crate) mod client;
pub(crate) mod hash;
pub(crate) mod least_connections;
pub(crate) mod log2;
pub(crate) mod maglev;
pub(crate) mod random;
pub(crate) mod rendezvous;
pub(crate) mod response_time;
pub(crate) mod round_robin;
pub(crate) mod sample;
pub(crate) mod tickets;
pub(crate) mod tried;

pub use bandwidth::Window;
pub use client::ClientKey;
pub use tickets::Tickets;
pub use tried::Tried;

use crate::backend::{BackendState, Reservation};
use crate::model::{self, BackendIndex, Balance, HashAlgorithm};
use least_connections::Load;
use maglev::Maglev;
use rendezvous::Rendezvous;
use round_robin::Schedule;
use sample::Sample;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Lost races after which a choice stops being exact. A loss means that another worker counted a connection between
/// our look and our claim, so this many in a row do not happen to a thread that runs at all.
pub(crate) const RESCANS_MAX: u32 = 1_000;

/// A backend, chosen and counted.
#[derive(Debug)]
pub struct Choice {
    /// Which one of its pool.
    pub index: BackendIndex,
    /// Holds its place in the backend's count until dropped.
    pub reservation: Reservation,
}

/// Why no backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChoice {
    /// There is no eligible backend that was not tried yet.
    Exhausted,
    /// Those that were not tried have as many connections as they may, or some of them are kept for a trial.
    Full,
    /// Those that were not tried are all out, and each is kept for a trial that is under way.
    OnTrial,
}

/// A backend that may be chosen.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its live state.
    pub state: Arc<BackendState>,
    /// Its share relative to the other candidates, 1 to 1,000,000.
    pub weight: u32,
}

/// The eligible backends of one pool with what its algorithm needs to choose among them.
pub struct Selector {
    eligible: Box<[Eligible]>,
    rule: Rule,
    tickets: Arc<Tickets>,
    /// Made when somebody first chooses by host.
    hosts: OnceLock<Rendezvous>,
}

/// One backend that may be chosen.
pub(crate) struct Eligible {
    pub(crate) index: BackendIndex,
    /// 1 to 1,000,000.
    pub(crate) weight: u32,
    pub(crate) state: Arc<BackendState>,
}

enum Rule {
    RoundRobin(Schedule),
    LeastConnections(Sample),
    LeastResponseTime(Sample),
    LeastBandwidth(Sample),
    Random(Sample),
    Rendezvous(Rendezvous, Option<u16>),
    Maglev(Maglev, Option<u16>),
}

impl Selector {
    /// A selector among these backends, in any order; of several candidates for one the first counts. With none of
    /// them, [`Self::choose`] always says [`NoChoice::Exhausted`]. `tickets` is the pool's own, kept from selector to
    /// selector.
    pub fn new(pool: &model::Pool, tickets: Arc<Tickets>, candidates: impl IntoIterator<Item = Candidate>) -> Self {
        let mut eligible: Vec<Eligible> = candidates
            .into_iter()
            .map(|Candidate { state, weight }| Eligible {
                index: state.index,
                weight,
                state,
            })
            .collect();
        eligible.sort_by_key(|backend| backend.index);
        eligible.dedup_by_key(|backend| backend.index);
        let eligible = eligible.into_boxed_slice();
        let sample = || Sample::new(&eligible);
        let rule = match (pool.balance, pool.hash.algorithm) {
            (Balance::RoundRobin, _) => {
                let weights: Vec<u32> = eligible.iter().map(|backend| backend.weight).collect();
                Rule::RoundRobin(Schedule::new(&weights))
            }
            (Balance::LeastConnections, _) => Rule::LeastConnections(sample()),
            (Balance::LeastResponseTime, _) => Rule::LeastResponseTime(sample()),
            (Balance::LeastBandwidth, _) => Rule::LeastBandwidth(sample()),
            (Balance::Random, _) => Rule::Random(Sample::always(&eligible)),
            (Balance::IpHash, HashAlgorithm::Rendezvous) => {
                Rule::Rendezvous(Rendezvous::new(&eligible, pool.hash.seed), pool.hash.max_load)
            }
            (Balance::IpHash, HashAlgorithm::Maglev) => {
                Rule::Maglev(Maglev::new(&eligible, pool.hash.seed), pool.hash.max_load)
            }
        };
        Self {
            eligible,
            rule,
            tickets,
            hosts: OnceLock::new(),
        }
    }

    /// The backend for a client's next try, counted as one of its connections from now on. `now` is the workers'
    /// clock: what was measured long ago counts less.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(&self, client: ClientKey, tried: &Tried, now: Duration) -> Result<Choice, NoChoice> {
        self.choose_within(RESCANS_MAX, client, tried, now)
    }

    /// The host that wins this client by rendezvous, whatever the pool's algorithm: the same one in every pool that has
    /// backends there.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose_host(&self, client: ClientKey, tried: &Tried) -> Result<Choice, NoChoice> {
        let hosts = self.hosts.get_or_init(|| Rendezvous::of_hosts(&self.eligible));
        let untried = |at: usize| !tried.contains(self.eligible[at].index);
        if !(0..self.eligible.len()).any(untried) {
            return Err(NoChoice::Exhausted);
        }
        let usable = |at: usize| untried(at) && self.eligible[at].state.has_room();
        let claim = |at: usize| untried(at).then(|| self.eligible[at].state.reserve()).flatten();
        for _ in 0..RESCANS_MAX {
            match first_of(untried, usable, claim, |may| hosts.choose(client, may)) {
                Attempt::Claimed(at, reservation) => {
                    return Ok(Choice {
                        index: self.eligible[at].index,
                        reservation,
                    });
                }
                Attempt::Lost => {}
                Attempt::Nobody => return Err(self.why_nobody(tried)),
            }
        }
        self.choose_inexactly(tried)
    }

    /// As [`Self::choose`], with the number of looks as an argument for tests.
    pub(crate) fn choose_within(
        &self,
        looks_max: u32,
        client: ClientKey,
        tried: &Tried,
        now: Duration,
    ) -> Result<Choice, NoChoice> {
        let untried = |at: usize| !tried.contains(self.eligible[at].index);
        // Asked here so that no algorithm walks its schedule or table in vain, or takes tickets for nothing.
        if tried.len() >= self.eligible.len() && !(0..self.eligible.len()).any(untried) {
            return Err(NoChoice::Exhausted);
        }
        for _ in 0..looks_max {
            match self.attempt(client, tried, now) {
                Attempt::Claimed(at, reservation) => {
                    return Ok(Choice {
                        index: self.eligible[at].index,
                        reservation,
                    });
                }
                Attempt::Lost => {}
                Attempt::Nobody => return Err(self.why_nobody(tried)),
            }
        }
        self.choose_inexactly(tried)
    }

    /// Exact no more, but certain: the untried backend with the fewest connections per weight, or else any, at whatever
    /// count it has by then.
    fn choose_inexactly(&self, tried: &Tried) -> Result<Choice, NoChoice> {
        let claim = |backend: &Eligible| {
            let reservation = backend.state.reserve()?;
            Some(Choice {
                index: backend.index,
                reservation,
            })
        };
        let untried = || self.eligible.iter().filter(|backend| !tried.contains(backend.index));
        let load = |backend| Some((backend, Load::of(backend, backend.state.connections_with_room()?)));
        let least = untried().filter_map(load).min_by(|(_, a), (_, b)| a.compare(b));
        least
            .and_then(|(backend, _)| claim(backend))
            .or_else(|| untried().find_map(claim))
            .ok_or_else(|| self.why_nobody(tried))
    }

    /// None of the untried has room.
    fn why_nobody(&self, tried: &Tried) -> NoChoice {
        let untried = |backend: &&Eligible| !tried.contains(backend.index);
        // Whoever was full may have room again by now: that alone is no sign of a trial.
        let is_kept = |backend: &Eligible| backend.state.is_kept_for_trial();
        if self.eligible.iter().filter(untried).all(is_kept) {
            NoChoice::OnTrial
        } else {
            NoChoice::Full
        }
    }

    #[inline]
    fn attempt(&self, client: ClientKey, tried: &Tried, now: Duration) -> Attempt {
        let eligible = &*self.eligible;
        let ticket = || self.tickets.take();
        // Its connections, for those who compare them.
        let connections = |at: usize| {
            let backend = &eligible[at];
            if tried.contains(backend.index) {
                return None;
            }
            backend.state.connections_with_room()
        };
        let usable = |at: usize| connections(at).is_some();
        let untried = |at: usize| !tried.contains(eligible[at].index);
        let claim = |at: usize| untried(at).then(|| eligible[at].state.reserve()).flatten();
        match &self.rule {
            Rule::RoundRobin(schedule) => match schedule.choose(&self.tickets, claim, usable) {
                Some((at, reservation)) => Attempt::Claimed(at, reservation),
                None => Attempt::Nobody,
            },
            Rule::LeastConnections(sample) => least_connections::attempt(sample, eligible, ticket(), connections),
            Rule::LeastResponseTime(sample) => response_time::attempt(sample, eligible, ticket(), now, connections),
            Rule::LeastBandwidth(sample) => bandwidth::attempt(sample, eligible, ticket(), usable),
            Rule::Random(sample) => random::attempt(sample, eligible, ticket(), connections),
            Rule::Rendezvous(rule, None) => first_of(untried, usable, claim, |may| rule.choose(client, may)),
            Rule::Maglev(rule, None) => first_of(untried, usable, claim, |may| rule.choose(client, may)),
            Rule::Rendezvous(rule, Some(max_load)) => {
                bounded::attempt(*max_load, eligible, connections, |may| rule.choose(client, may))
            }
            Rule::Maglev(rule, Some(max_load)) => {
                bounded::attempt(*max_load, eligible, connections, |may| rule.choose(client, may))
            }
        }
    }

    /// Whether the choice depends on who the client is; otherwise any key will do.
    pub const fn asks_for_client(&self) -> bool {
        match self.rule {
            Rule::RoundRobin(_)
            | Rule::LeastConnections(_)
            | Rule::LeastResponseTime(_)
            | Rule::LeastBandwidth(_)
            | Rule::Random(_) => false,
            Rule::Rendezvous(..) | Rule::Maglev(..) => true,
        }
    }

    /// How many backends are eligible.
    pub fn eligible_len(&self) -> usize {
        self.eligible.len()
    }

    /// The eligible backends with their weights.
    pub fn candidates(&self) -> impl Iterator<Item = (&Arc<BackendState>, u32)> {
        self.eligible.iter().map(|backend| (&backend.state, backend.weight))
    }

    /// Whether an algorithm that compares all backends compares two random ones instead, because there are more than
    /// 256; then its result is near the best instead of exact, and status must say so.
    pub fn is_sampled(&self) -> bool {
        match &self.rule {
            Rule::LeastConnections(sample) | Rule::LeastResponseTime(sample) | Rule::LeastBandwidth(sample) => {
                sample.is_sampled()
            }
            Rule::RoundRobin(_) | Rule::Random(_) | Rule::Rendezvous(..) | Rule::Maglev(..) => false,
        }
    }
}

/// What came of one look at the backends.
pub(crate) enum Attempt {
    /// This one is reserved.
    Claimed(usize, Reservation),
    /// Another worker was faster: look again.
    Lost,
    /// None is usable.
    Nobody,
}

impl Attempt {
    fn of(at: usize, reservation: Option<Reservation>) -> Self {
        match reservation {
            Some(reservation) => Self::Claimed(at, reservation),
            None => Self::Lost,
        }
    }
}

/// A client's first backend, reserved. Whether there is room is asked of all only if the first of all has none: their
/// counters are other workers' cache lines.
fn first_of(
    untried: impl Fn(usize) -> bool,
    usable: impl Fn(usize) -> bool,
    claim: impl Fn(usize) -> Option<Reservation>,
    choose: impl Fn(&dyn Fn(usize) -> bool) -> Option<usize>,
) -> Attempt {
    if let Some(at) = choose(&untried)
        && let Some(reservation) = claim(at)
    {
        return Attempt::Claimed(at, reservation);
    }
    match choose(&usable) {
        Some(at) => Attempt::of(at, claim(at)),
        None => Attempt::Nobody,
    }
}

impl fmt::Debug for Selector {
    /// Without tables and schedules, which have up to a million entries.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match &self.rule {
            Rule::RoundRobin(_) => "round_robin",
            Rule::LeastConnections(_) => "least_connections",
            Rule::LeastResponseTime(_) => "least_response_time",
            Rule::LeastBandwidth(_) => "least_bandwidth",
            Rule::Random(_) => "random",
            Rule::Rendezvous(..) => "ip_hash by rendezvous",
            Rule::Maglev(..) => "ip_hash by maglev",
        };
        let eligible: Vec<usize> = self.eligible.iter().map(|backend| backend.index.0).collect();
        f.debug_struct("Selector")
            .field("algorithm", &algorithm)
            .field("eligible", &eligible)
            .finish_non_exhaustive()
    }
}
