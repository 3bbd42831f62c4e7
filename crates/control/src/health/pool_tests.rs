use super::*;
use crate::resolve::Found;
use ringway_core::backend::Registry;
use ringway_core::health::Member;
use ringway_core::model::{Backend, Health, HealthCheck, Model, Name, Passive, Pool, Probe, Records, Sessions};
use ringway_core::snapshot::Snapshot;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::mpsc::{Receiver, channel};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A pool of one name, whose addresses are probed; down after one failure, and then its sessions are closed.
fn model() -> Model {
    let name = Name {
        host: "db.test".into(),
        records: Records::Addresses(80),
    };
    let check = HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: seconds(3_600),
        timeout: seconds(1),
        fails: 1,
        passes: 1,
    };
    let pool = Pool {
        health: Health {
            check: Some(check),
            ..Health::default()
        },
        sessions: Sessions {
            on_backend_down: OnBackendDown::Close,
            ..Sessions::default()
        },
        ..Pool::new("pool", vec![Backend::new(Target::Name(name), "db.test:80")])
    };
    Model::new(Vec::new(), vec![pool])
}

struct Bed {
    means: Means,
    woken: Arc<AtomicUsize>,
    pool: KeptPool,
    /// Whoever probes could not tell otherwise.
    _events: Receiver<Event>,
}

impl Bed {
    fn new() -> Self {
        Self::of(model())
    }

    fn of(model: Model) -> Self {
        let registry = Arc::new(Registry::default());
        let snapshot = Arc::new(Snapshot::new(model, &registry, 1));
        let woken = Arc::<AtomicUsize>::default();
        let counted = woken.clone();
        let means = Means {
            board: Arc::new(Board::new(&snapshot)),
            snapshot,
            registry,
            workers: 1,
            epoch: Instant::now(),
            wake_workers: Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            }),
        };
        let (sender, events) = channel(64);
        // No permit: probes are planned and never begin.
        let permits = Arc::new(Semaphore::new(0));
        let pool = KeptPool::new(PoolIndex(0), &means, &sender, &permits).expect("a TCP probe needs nothing");
        Self {
            means,
            woken,
            pool,
            _events: events,
        }
    }

    fn resolve(&mut self, last_bytes: &[u8]) {
        self.hear(last_bytes);
        self.pool.publish(&self.means);
    }

    /// The same without telling workers.
    fn hear(&mut self, last_bytes: &[u8]) {
        let found = last_bytes.iter().map(|&last| Found {
            address: SocketAddr::from(([127, 0, 0, last], 80)),
            weight: None,
        });
        self.pool.resolved(0, &Outcome::Found(found.collect()), &self.means);
    }

    fn state(&self, at: usize) -> Arc<BackendState> {
        let member = self.pool.health.member(BackendIndex(at)).expect("a member");
        member.state.clone()
    }

    fn probed(&mut self, at: usize, outcome: Result<String, ProbeError>) {
        self.pool.probed(BackendIndex(at), outcome, seconds(0), &self.means);
    }
}

#[tokio::test]
async fn an_address_that_comes_back_before_it_has_left_is_probed_again() {
    let mut bed = Bed::new();
    bed.resolve(&[1]);
    let _session = bed.state(0).reserve().expect("there is no limit");
    bed.resolve(&[2]);
    assert!(!bed.pool.planned.contains_key(&0), "nobody asks whoever leaves");
    bed.probed(0, Ok("was under way".to_owned()));
    assert!(
        !bed.pool.planned.contains_key(&0),
        "nor does a probe that was under way go on"
    );
    bed.resolve(&[1, 2]);
    assert!(bed.pool.planned.contains_key(&0));
}

#[tokio::test]
async fn a_backend_that_leaves_is_known_for_as_long_as_workers_may_choose_it() {
    let mut bed = Bed::new();
    bed.resolve(&[1]);
    bed.hear(&[2]);
    bed.pool.tick(&bed.means);
    assert!(
        bed.pool.health.member(BackendIndex(0)).is_some(),
        "workers still choose it"
    );
    bed.pool.publish(&bed.means);
    bed.pool.tick(&bed.means);
    assert!(bed.pool.health.member(BackendIndex(0)).is_none());
}

#[tokio::test]
async fn sessions_are_closed_once_nothing_new_goes_there_and_workers_are_woken_once() {
    let mut bed = Bed::new();
    bed.resolve(&[1, 2]);
    bed.woken.store(0, Ordering::Relaxed);
    let down = || Err(ProbeError::Failed("connection refused".to_owned()));
    bed.probed(0, down());
    bed.probed(1, down());
    assert_eq!(bed.state(0).orders.closes(0), None, "workers still choose it");
    bed.pool.publish(&bed.means);
    for at in [0, 1] {
        let (_, reason) = bed.state(at).orders.closes(0).expect("an order");
        assert_eq!(reason, EndReason::BackendDown.index());
    }
    assert_eq!(bed.woken.load(Ordering::Relaxed), 1);
}

#[test]
fn what_came_and_what_went_is_said_in_words() {
    let set = |addresses: &[&str]| addresses.iter().map(|&address| address.to_owned()).collect();
    let (a, b, c) = ("10.0.0.1:80", "10.0.0.2:80", "[2001:db8::3]:80");
    let many = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b"];
    for (before, after, words) in [
        (set(&many), set(&[]), Some("gone: 1, 2, 3, 4, 5, 6, 7, 8 and 3 more")),
        (set(&[]), set(&[]), None),
        (set(&[a, b]), set(&[a, b]), None),
        (set(&[]), set(&[b, a]), Some("new: 10.0.0.1:80, 10.0.0.2:80")),
        (set(&[a, b]), set(&[b]), Some("gone: 10.0.0.1:80")),
        (
            set(&[a, b]),
            set(&[b, c]),
            Some("new: [2001:db8::3]:80; gone: 10.0.0.1:80"),
        ),
    ] {
        assert_eq!(moved(&before, &after).as_deref(), words, "{before:?} to {after:?}");
    }
}

/// What ICMP says of a backend is true for all of its UDP sessions; what one connection or one client meets is not.
#[tokio::test]
async fn an_icmp_error_moves_all_sessions_of_its_backend() {
    for (policy, report, moves) in [
        (OnBackendDown::Move, Report::Unreachable, true),
        (OnBackendDown::Move, Report::Silent, false),
        (OnBackendDown::Move, Report::ConnectFailed, false),
        (OnBackendDown::Keep, Report::Unreachable, false),
        (OnBackendDown::Close, Report::Unreachable, false),
    ] {
        let mut model = model();
        model.pools[0].sessions.on_backend_down = policy;
        model.pools[0].health.passive = Some(Passive {
            fails: 1,
            eject: seconds(1),
            max_ejected: 50,
        });
        let mut bed = Bed::of(model);
        bed.resolve(&[1, 2]);
        bed.pool.met(BackendIndex(0), report, &bed.means);
        assert_eq!(bed.state(0).orders.closes(0), None, "workers still choose it");
        bed.pool.publish(&bed.means);
        let ordered = bed.state(0).orders.closes(0).is_some();
        assert_eq!(ordered, moves, "{policy:?} {report:?}");
        assert_eq!(
            bed.pool.health.member(BackendIndex(0)).map(Member::condition),
            Some(Condition::Ejected)
        );
    }
}
