//! Every interleaving of workers that choose and release at once, weak memory included, explored by loom.
//!
//! The modules of the crate are compiled here a second time with loom's atomics instead of the standard library's, so
//! what is checked is the product's own code and no feature can switch it on in the product.
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports)]

#[path = "../src/access.rs"]
mod access;
#[path = "../src/backend.rs"]
mod backend;
#[path = "../src/balance/mod.rs"]
mod balance;
#[path = "../src/model/mod.rs"]
mod model;
#[path = "../src/queue.rs"]
mod queue;
#[path = "../src/reason.rs"]
mod reason;
#[path = "../src/route.rs"]
mod route;
#[path = "../src/session/mod.rs"]
mod session;
#[path = "../src/snapshot.rs"]
mod snapshot;
#[path = "../src/stats.rs"]
mod stats;
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

use backend::BackendState;
use balance::{Candidate, ClientKey, NoChoice, Selector, Tickets, Tried};
use model::{
    Address, Backend, BackendIndex, Balance, HashAlgorithm, HashRule, Health, Keepalive, Pool, Resolve, Sessions,
    Target,
};
use queue::Line;
use snapshot::{PoolState, PoolView};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

#[derive(Clone)]
struct Bed {
    selector: Arc<Selector>,
    states: Vec<Arc<BackendState>>,
}

impl Bed {
    fn new(balance: Balance, weights: &[u16]) -> Self {
        Self::bounded(balance, weights, None)
    }

    fn bounded(balance: Balance, weights: &[u16], max_load: Option<u16>) -> Self {
        let backend = |(position, &weight): (usize, &u16)| Backend {
            weight,
            ..Backend::at(Address::Unix(format!("/backend/{position}").into()))
        };
        let pool = Pool {
            balance,
            hash: HashRule {
                max_load,
                ..HashRule::default()
            },
            ..Pool::new("", weights.iter().enumerate().map(backend).collect())
        };
        let state = |(at, backend): (usize, &Backend)| {
            let address = Address::Unix(format!("/backend/{at}").into());
            let label = backend.label.clone();
            Arc::new(BackendState::new(
                BackendIndex(at),
                address,
                label,
                backend.max_connections,
                0,
            ))
        };
        let states: Vec<_> = pool.backends.iter().enumerate().map(state).collect();
        let candidates = states.iter().zip(&pool.backends).map(|(state, backend)| Candidate {
            state: state.clone(),
            weight: u32::from(backend.weight),
        });
        let selector = Arc::new(Selector::new(&pool, Arc::new(Tickets::new()), candidates));
        Self { selector, states }
    }

    fn open(&self) -> balance::Choice {
        self.choose().expect("all are eligible")
    }

    fn choose(&self) -> Result<balance::Choice, NoChoice> {
        self.selector.choose(ClientKey::UNIX, &Tried::default(), Duration::ZERO)
    }

    fn into_selector(self) -> Selector {
        Arc::into_inner(self.selector).expect("nobody else has it")
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
            least.reserve().expect("no limit")
        });
        assert_eq!(bed.connections(), [1, 1], "both chose the same backend");
        drop(held);
    });
}

#[test]
fn a_limit_is_never_exceeded() {
    for max in [1, 2] {
        loom::model(move || {
            let bed = Bed::new(Balance::LeastConnections, &[1]);
            bed.states[0].orders.set_connections_max(Some(max));
            let held: Vec<_> = workers(&bed, 1, |bed| [bed.choose(), bed.choose()])
                .into_iter()
                .flatten()
                .collect();
            let refused = held.iter().filter_map(|choice| choice.as_ref().err());
            assert!(refused.clone().all(|&reason| reason == NoChoice::Full));
            // Nobody gives anything back here, so exactly as many as fit are served.
            assert_eq!(refused.count(), 4 - max as usize);
            assert_eq!(bed.connections(), [max]);
            drop(held);
            assert_eq!(bed.connections(), [0]);
        });
    }
}

/// Whoever is refused was refused because it was full, also when there is room again a moment later.
#[test]
fn what_was_full_is_never_taken_for_a_trial() {
    loom::model(|| {
        let bed = Bed::new(Balance::LeastConnections, &[1]);
        bed.states[0].orders.set_connections_max(Some(1));
        let refused = workers(&bed, 1, |bed| bed.choose().err());
        assert!(refused.into_iter().flatten().all(|reason| reason == NoChoice::Full));
    });
}

/// Round robin reserves without comparing counts, and passes over whoever is full.
#[test]
fn a_full_backend_is_passed_over() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let bed = Bed::new(Balance::RoundRobin, &[1, 1]);
        bed.states[0].orders.set_connections_max(Some(1));
        let held = workers(&bed, 1, |bed| [bed.open(), bed.open()]);
        assert_eq!(bed.connections(), [1, 3]);
        drop(held);
    });
}

#[test]
fn one_connection_at_a_time_tries_a_backend() {
    loom::model(|| {
        let bed = Bed::new(Balance::RoundRobin, &[1]);
        bed.states[0].orders.set_trial(true);
        let held = workers(&bed, 1, |bed| [bed.choose().ok(), bed.choose().ok()]);
        let got: Vec<_> = held.into_iter().flatten().flatten().collect();
        assert_eq!(got.len(), 1);
        assert!(got[0].reservation.is_trial());
        drop(got);
        // Nothing was decided, so the next one may.
        assert!(bed.open().reservation.is_trial());
    });
}

#[test]
fn a_trial_that_ends_without_a_decision_lets_the_next_one_in_and_no_two() {
    loom::model(|| {
        let bed = Bed::new(Balance::RoundRobin, &[1]);
        bed.states[0].orders.set_trial(true);
        workers(&bed, 1, |bed| {
            if let Ok(choice) = bed.choose() {
                assert!(choice.reservation.is_trial());
                assert_eq!(bed.connections(), [1], "two at once");
            }
        });
        assert!(bed.open().reservation.is_trial());
    });
}

/// A claim that loses its race takes the trial with it for a moment only, and never one that was ended meanwhile.
#[test]
fn a_lost_claim_gives_the_trial_back() {
    loom::model(|| {
        let bed = Bed::new(Balance::RoundRobin, &[1]);
        bed.states[0].orders.set_trial(true);
        let other = bed.clone();
        let worker = loom::thread::spawn(move || {
            assert!(other.states[0].reserve_if(7).is_none(), "the count is not 7");
        });
        bed.states[0].orders.set_trial(false);
        worker.join().expect("no worker panics");
        let first = bed.open();
        assert!(!first.reservation.is_trial(), "the trial was ended");
        drop(bed.open());
        bed.states[0].orders.set_trial(true);
        assert!(bed.open().reservation.is_trial());
    });
}

/// One client, so everything belongs to one backend until its bound is reached: ceil(1.25 * 4 / 2) = 3.
#[test]
fn bounds_hold_in_every_interleaving() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let bed = Bed::bounded(Balance::IpHash, &[1, 1], Some(125));
        let held = workers(&bed, 1, |bed| [bed.open(), bed.open()]);
        let mut counts = bed.connections();
        counts.sort_unstable();
        assert!(counts == [1, 3] || counts == [2, 2], "{counts:?}");
        drop(held);
    });
}

#[test]
fn choices_by_bandwidth_are_shared_evenly() {
    loom::model(|| {
        let bed = Bed::new(Balance::LeastBandwidth, &[1, 1]);
        let held = workers(&bed, 1, Bed::open);
        assert_eq!(bed.connections(), [1, 1]);
        drop(held);
    });
}

/// Wakes whoever waits for it, also later.
struct Signal(loom::sync::Notify);

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// The protocol that `queue` asks for; a lost wake-up is a worker that waits for ever, which loom finds.
#[test]
fn no_wake_up_is_lost_between_giving_back_and_entering() {
    loom::model(|| {
        let bed = Bed::new(Balance::LeastConnections, &[1]);
        bed.states[0].orders.set_connections_max(Some(1));
        let line = Arc::new(Line::new(1));
        bed.states[0].wait_in(&line);
        let held = bed.open();
        let worker = loom::thread::spawn(move || drop(held));
        if bed.choose().is_err() {
            let signal = Arc::new(Signal(loom::sync::Notify::new()));
            let place = line.enter(&Waker::from(signal.clone())).expect("there is room");
            let choice = loop {
                if let Ok(choice) = bed.choose() {
                    break choice;
                }
                signal.0.wait();
            };
            drop(place);
            drop(choice);
        }
        worker.join().expect("no worker panics");
        assert!(line.is_empty());
        assert_eq!(bed.connections(), [0]);
    });
}

/// The same when the room is made by ending a trial, and a new view tells of it.
#[test]
fn no_wake_up_is_lost_when_a_trial_is_ended() {
    loom::model(|| {
        let bed = Bed::new(Balance::LeastConnections, &[1]);
        let line = Arc::new(Line::new(1));
        bed.states[0].wait_in(&line);
        bed.states[0].orders.set_trial(true);
        let held = bed.open();
        let (control, waker) = (bed.clone(), line.clone());
        let worker = loom::thread::spawn(move || {
            control.states[0].orders.set_trial(false);
            waker.wake_first();
        });
        if bed.choose().is_err() {
            let signal = Arc::new(Signal(loom::sync::Notify::new()));
            let place = line.enter(&Waker::from(signal.clone())).expect("there is room");
            while bed.choose().is_err() {
                signal.0.wait();
            }
            drop(place);
        }
        worker.join().expect("no worker panics");
        drop(held);
        assert_eq!(bed.connections(), [0]);
    });
}

#[test]
fn whoever_saw_a_version_has_a_view_at_least_as_new() {
    loom::model(|| {
        let bed = Bed::new(Balance::RoundRobin, &[1]);
        let view = |bed: &Bed, backends: usize| PoolView {
            backends: vec![bed.states[0].clone(); backends].into(),
            selector: Bed::new(Balance::RoundRobin, &[]).into_selector(),
        };
        let state = Arc::new(PoolState::new(view(&bed, 1), None));
        let published = state.clone();
        let control = loom::thread::spawn(move || published.publish(view(&bed, 2)));
        let version = state.version();
        assert!(state.view().backends.len() as u64 >= version);
        control.join().expect("no worker panics");
        assert_eq!(state.version(), 2);
    });
}
