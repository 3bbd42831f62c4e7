//! A process as a scrape sees it, with counters set by hand.
#![allow(dead_code, reason = "each test binary uses a part")]

use ringway_control::health::Board;
use ringway_control::metrics::Observed;
use ringway_control::readiness::Readiness;
use ringway_control::status::Live;
use ringway_core::model::{Address, Backend, Buffers, Listener, Model, Pool, PoolIndex, Workers};
use ringway_core::reason::{ConnectError, EndReason, RefuseReason, ShedReason};
use ringway_core::stats::WorkerStats;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

pub(crate) fn model() -> Model {
    let listener =
        |name, port: u16, pool| Listener::new(name, Address::Inet(([127, 0, 0, 1], port).into()), PoolIndex(pool));
    let inet = |port: u16| Backend::at(Address::Inet(([10, 0, 0, 11], port).into()));
    let web = Backend::at(Address::Unix("/run/web.sock".into()));
    Model {
        workers: Workers::Count(2),
        buffers: Buffers {
            count: 1024,
            size: 16 * 1024,
        },
        drain_timeout: Duration::from_secs(30),
        ..Model::new(
            vec![listener("postgres", 5432, 0), listener("odd \"name\"\\\n", 80, 1)],
            vec![
                Pool::new("postgres", vec![inet(5432), inet(5433)]),
                Pool::new("web", vec![web]),
            ],
        )
    }
}

/// Two workers that counted nothing yet.
pub(crate) fn fresh() -> Observed {
    observed(model())
}

/// The same with another configuration.
pub(crate) fn observed(model: Model) -> Observed {
    let listeners = model.listeners.len();
    let max = |listener: &Listener| listener.max_connections.unwrap_or(10_000);
    let listeners_max = model.listeners.iter().map(max).collect();
    let (snapshot, board) = Board::of_model(model, 2);
    Observed {
        workers: (0..2).map(|_| Arc::new(WorkerStats::new(listeners))).collect(),
        snapshot,
        log_lines_dropped: Arc::new(AtomicU64::new(0)),
        board,
        ear: None,
        connections_max: 10_000,
        listeners_max,
    }
}

/// A process that began just now, as the admin port shows it.
pub(crate) fn live(observed: Observed, readiness: Readiness) -> Arc<Live> {
    Arc::new(Live {
        observed: Arc::new(observed),
        readiness,
        epoch: Instant::now(),
        started: SystemTime::UNIX_EPOCH,
        config: vec!["ringway.yaml".to_owned()],
        bound: Vec::new(),
        rates: Mutex::default(),
    })
}

/// Two workers that counted the numbers that the tests expect.
pub(crate) fn busy() -> Observed {
    let seen = fresh();
    for (worker, scale) in seen.workers.iter().zip([1, 10]) {
        let postgres = &worker.listeners[0];
        postgres.connections_total.add(4 * scale);
        postgres.connections.add(scale);
        postgres.bytes_from_clients.add(100 * scale);
        postgres.bytes_from_backends.add(7 * scale);
        postgres.ended[EndReason::Finished.index()].add(2 * scale);
        postgres.ended[EndReason::ClientReset.index()].add(scale);
        postgres.shed[ShedReason::MaxConnections.index()].add(5 * scale);
        postgres.refused[RefuseReason::ClientRate.index()].add(6 * scale);
        postgres.session_seconds.observe(Duration::from_millis(2 * scale));
        worker.runtime.turns.add(1_000 * scale);
        worker.runtime.enters.add(1_001 * scale);
        worker.runtime.tasks_panicked.add(scale);
        worker.runtime.buffers_out.add(3 * scale);
    }
    let backend = seen.board.pools()[0].backends[1].state.clone();
    std::mem::forget(backend.reserve()); // a connection that stays open for as long as the test runs
    backend.workers[0].connections_total.add(1);
    backend.workers[1].connections_total.add(2);
    backend.workers[1].connect_errors[ConnectError::Refused.index()].add(6);
    backend.workers[0].connect_seconds.observe(Duration::from_micros(100));
    backend.workers[1].connect_seconds.observe(Duration::from_micros(101));
    seen.log_lines_dropped.store(9, std::sync::atomic::Ordering::Relaxed);
    seen
}

/// Compares with a stored file, path from the repository's root; `RINGWAY_BLESS=1` stores what is.
pub(crate) fn golden(path: &str, actual: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("RINGWAY_BLESS").is_some() {
        std::fs::write(&file, actual).expect("writes the golden file");
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        stored == actual,
        "{path} differs; run the test with RINGWAY_BLESS=1 and look at the difference:\n{actual}"
    );
}
