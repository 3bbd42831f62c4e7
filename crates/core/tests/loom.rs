//! Every interleaving of workers that choose and release at once, weak memory included, explored by loom.
//!
//! The modules of the crate are compiled here a second time with loom's atomics instead of the standard library's, so
//! what is checked is the product's own code and no feature can switch it on in the product.
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports)]

#[path = "../src/backend.rs"]
mod backend;
#[path = "../src/balance/mod.rs"]
mod balance;
#[path = "../src/model.rs"]
mod model;
#[path = "../src/reason.rs"]
mod reason;
#[path = "../src/stats.rs"]
mod stats;
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

use backend::BackendState;
use balance::{ClientKey, Selector, Tickets, Tried};
use model::{Address, Backend, BackendIndex, Balance, HashAlgorithm, HashRule, Keepalive, Pool};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
struct Bed {
    selector: Arc<Selector>,
    states: Vec<Arc<BackendState>>,
}

impl Bed {
    fn new(balance: Balance, weights: &[u16]) -> Self {
        let backend = |(position, &weight): (usize, &u16)| Backend {
            address: Address::Unix(format!("/backend/{position}").into()),
            label: "".into(),
            weight,
        };
        let pool = Pool {
            name: "".into(),
            balance,
            hash: HashRule {
                algorithm: HashAlgorithm::Rendezvous,
                seed: 0,
            },
            connect_timeout: Duration::ZERO,
            tries: 3,
            source: Vec::new(),
            keepalive: Keepalive {
                idle: Duration::ZERO,
                interval: Duration::ZERO,
                count: 1,
            },
            dead_peer_timeout: Duration::ZERO,
            backends: weights.iter().enumerate().map(backend).collect(),
        };
        let states: Vec<_> = pool
            .backends
            .iter()
            .map(|backend| Arc::new(BackendState::new(backend, 0)))
            .collect();
        let selector = Arc::new(Selector::new(&pool, &states, Arc::new(Tickets::new())));
        Self { selector, states }
    }

    fn open(&self) -> balance::Choice {
        self.selector
            .choose(ClientKey::UNIX, &Tried::default())
            .expect("all are eligible")
    }

    fn connections(&self) -> Vec<u32> {
        self.states.iter().map(|state| state.connections()).collect()
    }
}

/// Runs `work` on this many workers beside the caller and returns what they held at the end.
fn workers<T: 'static>(bed: &Bed, others: usize, work: fn(&Bed) -> T) -> Vec<T> {
    let spawned: Vec<_> = (0..others)
        .map(|_| {
            let bed = bed.clone();
            loom::thread::spawn(move || work(&bed))
        })
        .collect();
    let own = work(bed);
    spawned
        .into_iter()
        .map(|worker| worker.join().expect("no worker panics"))
        .chain([own])
        .collect()
}

#[test]
fn two_workers_that_open_two_each_fill_two_backends_evenly() {
    loom::model(|| {
        let bed = Bed::new(Balance::LeastConnections, &[1, 1]);
        let held = workers(&bed, 1, |bed| [bed.open(), bed.open()]);
        assert_eq!(bed.connections(), [2, 2]);
        drop(held);
        assert_eq!(bed.connections(), [0, 0]);
    });
}

#[test]
fn three_workers_fill_three_backends_evenly() {
    let mut model = loom::model::Builder::new();
    // Without a bound on preemptions three workers have more interleavings than anyone waits for.
    model.preemption_bound = Some(3);
    model.check(|| {
        let bed = Bed::new(Balance::LeastConnections, &[1, 1, 1]);
        let held = workers(&bed, 2, Bed::open);
        assert_eq!(bed.connections(), [1, 1, 1]);
        drop(held);
    });
}

#[test]
fn weights_hold_in_every_interleaving() {
    loom::model(|| {
        let bed = Bed::new(Balance::LeastConnections, &[3, 1]);
        let held = workers(&bed, 1, |bed| [bed.open(), bed.open()]);
        assert_eq!(bed.connections(), [3, 1]);
        drop(held);
    });
}

#[test]
fn a_release_between_look_and_claim_loses_no_count() {
    loom::model(|| {
        let bed = Bed::new(Balance::LeastConnections, &[1, 1]);
        let earlier = bed.open();
        let other = bed.clone();
        let worker = loom::thread::spawn(move || other.open());
        drop(earlier);
        let held = worker.join().expect("no worker panics");
        let mut expected = [0, 0];
        expected[held.index.0] = 1;
        assert_eq!(bed.connections(), expected);
        drop(held);
        assert_eq!(bed.connections(), [0, 0]);
    });
}

#[test]
fn releases_at_the_same_time_all_count() {
    loom::model(|| {
        let bed = Bed::new(Balance::LeastConnections, &[1]);
        workers(&bed, 1, |bed| drop(bed.open()));
        assert_eq!(bed.connections(), [0]);
    });
}

#[test]
fn round_robin_gives_every_turn_once() {
    loom::model(|| {
        let bed = Bed::new(Balance::RoundRobin, &[1, 1, 1, 1]);
        let held = workers(&bed, 1, |bed| [bed.open(), bed.open()]);
        assert_eq!(bed.connections(), [1, 1, 1, 1]);
        drop(held);
    });
}

/// The check itself is checked: counting without comparing lets two workers see the same minimum, and that is found.
#[test]
#[should_panic(expected = "both chose the same backend")]
fn a_claim_without_comparing_would_be_found() {
    loom::model(|| {
        let bed = Bed::new(Balance::LeastConnections, &[1, 1]);
        let held = workers(&bed, 1, |bed| {
            let least = bed
                .states
                .iter()
                .min_by_key(|state| state.connections())
                .expect("two backends");
            least.reserve()
        });
        assert_eq!(bed.connections(), [1, 1], "both chose the same backend");
        drop(held);
    });
}
