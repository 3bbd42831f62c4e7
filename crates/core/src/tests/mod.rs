//! Unit tests, one file per module. What is random here is seeded, by proptest (which prints what failed) or by hand.

mod access;
mod backend;
mod bandwidth;
mod bounded;
mod cancel;
mod client;
mod gate;
mod hash;
mod judge;
mod least_connections;
mod limits;
mod log2;
mod maglev;
mod policy;
mod pool_health;
mod queue;
mod random;
mod reason;
mod rendezvous;
mod response_time;
mod round_robin;
mod route;
mod selector;
mod session;
mod snapshot;
mod spare;
mod speed;
mod stats;
mod unrouted;

use crate::backend::BackendState;
use crate::balance::{Candidate, Choice, ClientKey, Eligible, Selector, Tickets, Tried};
use crate::model::{Address, Backend, BackendIndex, Balance, HashAlgorithm, HashRule, Pool, Target};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// A pool of backends 10.0.x.y:5432 with these weights, its states, its tickets.
struct Bed {
    pool: Pool,
    states: Vec<Arc<BackendState>>,
    tickets: Arc<Tickets>,
}

impl Bed {
    fn new(balance: Balance, algorithm: HashAlgorithm, weights: &[u16]) -> Self {
        let backends = weights
            .iter()
            .enumerate()
            .map(|(position, &weight)| backend(position, weight))
            .collect();
        Self::of(pool(
            balance,
            HashRule {
                algorithm,
                seed: 0,
                max_load: None,
            },
            backends,
        ))
    }

    fn of(pool: Pool) -> Self {
        let states = pool.backends.iter().enumerate().map(|(at, backend)| state(at, backend));
        Self {
            states: states.collect(),
            pool,
            tickets: Arc::new(Tickets::new()),
        }
    }

    fn selector(&self) -> Selector {
        self.selector_among(0..self.states.len())
    }

    fn selector_among(&self, eligible: impl IntoIterator<Item = usize>) -> Selector {
        let candidates = eligible.into_iter().map(|at| Candidate {
            state: self.states[at].clone(),
            weight: u32::from(self.pool.backends[at].weight),
        });
        Selector::new(&self.pool, self.tickets.clone(), candidates)
    }

    fn connections(&self) -> Vec<u32> {
        self.states.iter().map(|state| state.connections()).collect()
    }
}

fn pool(balance: Balance, hash: HashRule, backends: Vec<Backend>) -> Pool {
    Pool {
        balance,
        hash,
        ..Pool::new("test", backends)
    }
}

fn backend(position: usize, weight: u16) -> Backend {
    let [high, low] = u16::try_from(position + 1)
        .expect("a test has few backends")
        .to_be_bytes();
    let address = Address::Inet(SocketAddr::from(([10, 0, high, low], 5432)));
    Backend {
        weight,
        ..Backend::at(address)
    }
}

/// The state of a backend that is an address, counted by one worker.
fn state(at: usize, backend: &Backend) -> Arc<BackendState> {
    let Target::Address(address) = &backend.target else {
        panic!("these tests have no names")
    };
    let (address, label) = (address.clone(), backend.label.clone());
    Arc::new(BackendState::new(
        BackendIndex(at),
        address,
        label,
        backend.max_connections,
        1,
    ))
}

/// What its selector chooses among.
fn eligible(bed: &Bed) -> Vec<Eligible> {
    let backends = bed.pool.backends.iter().zip(&bed.states).enumerate();
    let eligible = backends.map(|(position, (backend, state))| Eligible {
        index: BackendIndex(position),
        weight: backend.weight.into(),
        state: state.clone(),
    });
    eligible.collect()
}

/// Opens and holds `connections` of as many clients, spread over this many threads that start together.
fn hold(selector: &Selector, threads: usize, connections: usize) -> Vec<Choice> {
    let start = Barrier::new(threads);
    let opening = |thread: usize| {
        start.wait();
        (thread..connections)
            .step_by(threads)
            .map(|n| selector.choose(client(n as u32), &Tried::default(), NOW))
            .map(|choice| choice.expect("one is usable"))
            .collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let opening = &opening;
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || opening(thread)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no thread panics"))
            .collect()
    })
}

/// The moment at which time does not matter.
const NOW: Duration = Duration::from_secs(1);

/// The `n`-th client of 100.64.0.0/10, in order.
fn client(n: u32) -> ClientKey {
    ClientKey::from(IpAddr::from(Ipv4Addr::from_bits(0x6440_0000 + n)))
}

/// Σ (counted - expected)² / expected.
fn chi_squared(counted: &[u32], shares: &[u32]) -> f64 {
    let (total, whole) = (
        f64::from(counted.iter().sum::<u32>()),
        f64::from(shares.iter().sum::<u32>()),
    );
    counted.iter().zip(shares).fold(0.0, |sum, (&counted, &share)| {
        let expected = total * f64::from(share) / whole;
        sum + (f64::from(counted) - expected).powi(2) / expected
    })
}
