//! Unit tests, one file per module. What is random here is seeded, by proptest (which prints what failed) or by hand.

mod backend;
mod client;
mod hash;
mod least_connections;
mod limits;
mod log2;
mod maglev;
mod reason;
mod rendezvous;
mod round_robin;
mod selector;
mod stats;

use crate::backend::BackendState;
use crate::balance::{ClientKey, Selector, Tickets};
use crate::model::{Address, Backend, BackendIndex, Balance, HashAlgorithm, HashRule, Keepalive, Pool};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
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
        Self::of(pool(balance, HashRule { algorithm, seed: 0 }, backends))
    }

    fn of(pool: Pool) -> Self {
        let states = pool
            .backends
            .iter()
            .map(|backend| Arc::new(BackendState::new(backend, 1)))
            .collect();
        Self {
            pool,
            states,
            tickets: Arc::new(Tickets::new()),
        }
    }

    fn selector(&self) -> Selector {
        Selector::new(&self.pool, &self.states, self.tickets.clone())
    }

    fn selector_among(&self, eligible: impl IntoIterator<Item = usize>) -> Selector {
        let eligible: Vec<_> = eligible.into_iter().map(BackendIndex).collect();
        Selector::with_eligible(&self.pool, &self.states, self.tickets.clone(), &eligible)
    }

    fn connections(&self) -> Vec<u32> {
        self.states.iter().map(|state| state.connections()).collect()
    }
}

fn pool(balance: Balance, hash: HashRule, backends: Vec<Backend>) -> Pool {
    let seconds = Duration::from_secs;
    Pool {
        name: "test".into(),
        balance,
        hash,
        connect_timeout: seconds(5),
        tries: 3,
        source: Vec::new(),
        keepalive: Keepalive {
            idle: seconds(60),
            interval: seconds(10),
            count: 6,
        },
        dead_peer_timeout: seconds(60),
        backends,
    }
}

fn backend(position: usize, weight: u16) -> Backend {
    let [high, low] = u16::try_from(position + 1)
        .expect("a test has few backends")
        .to_be_bytes();
    let address = Address::Inet(SocketAddr::from(([10, 0, high, low], 5432)));
    Backend {
        label: address.to_string().into(),
        address,
        weight,
    }
}

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
