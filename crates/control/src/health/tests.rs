//! A pool in keeping, told what probes found: what follows for open sessions.

use super::board::Board;
use super::keeper::{Event, Means};
use super::pool::KeptPool;
use crate::probe::ProbeError;
use ringway_core::backend::{BackendState, Registry};
use ringway_core::model::{Address, Backend, Health, HealthCheck, Model, Pool, PoolIndex, Probe};
use ringway_core::reason::EndReason;
use ringway_core::snapshot::Snapshot;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// One backend, and one backup; one probe changes what they are.
fn model() -> Model {
    let backend = |port, backup| Backend {
        backup,
        ..Backend::at(Address::Inet(SocketAddr::from(([127, 0, 0, 1], port))))
    };
    let check = HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: Duration::from_secs(3_600),
        timeout: Duration::from_secs(1),
        fails: 1,
        passes: 1,
    };
    let pool = Pool {
        health: Health {
            check: Some(check),
            ..Health::default()
        },
        // Nobody is asked: the probes' results are told.
        ..Pool::new("p", vec![backend(1, false), backend(2, true)])
    };
    Model::new(Vec::new(), vec![pool])
}

struct Bench {
    pool: KeptPool,
    means: Means,
    states: Vec<Arc<BackendState>>,
    _events: mpsc::Receiver<Event>,
}

impl Bench {
    fn new() -> Self {
        let registry = Arc::new(Registry::default());
        let snapshot = Arc::new(Snapshot::new(model(), &registry, 1));
        let board = Arc::new(Board::new(&snapshot));
        let states = snapshot.pools[0].view().backends.clone();
        let means = Means {
            snapshot,
            registry,
            workers: 1,
            epoch: Instant::now(),
            board,
            wake_workers: Box::new(|| {}),
        };
        let (sender, events) = mpsc::channel(16);
        let pool = KeptPool::new(PoolIndex(0), &means, &sender, &Arc::new(tokio::sync::Semaphore::new(8)))
            .expect("nothing to prepare");
        Self {
            pool,
            means,
            states: states.to_vec(),
            _events: events,
        }
    }

    fn told(&mut self, backend: usize, is_well: bool) {
        let outcome = if is_well {
            Ok("well".to_owned())
        } else {
            Err(ProbeError::Failed("not well".to_owned()))
        };
        let index = self.states[backend].index;
        self.pool.probed(index, outcome, Duration::ZERO, &self.means);
        self.pool.publish(&self.means);
    }

    /// Why a session of this backend, as old as can be, is to end.
    fn ends(&self, backend: usize) -> Option<EndReason> {
        let (_, reason) = self.states[backend].orders.closes(0)?;
        Some(EndReason::ALL[reason])
    }
}

/// With the backup down as well nobody is left, and so nobody is back: its sessions have nowhere to go.
#[tokio::test]
async fn sessions_of_a_backup_go_home_only_when_there_is_one() {
    let mut bench = Bench::new();
    bench.told(0, false);
    bench.told(1, false);
    assert_eq!(bench.ends(1), None, "nobody is left");
    bench.told(1, true);
    assert_eq!(bench.ends(1), None, "the backup serves again");
    bench.told(0, true);
    assert_eq!(bench.ends(1), Some(EndReason::Failback));
    assert_eq!(bench.ends(0), None);
}

/// By default sessions stay at a backend that is down; those at a backup go home nevertheless.
#[tokio::test]
async fn sessions_go_home_from_a_backup_that_is_down_as_well() {
    let mut bench = Bench::new();
    bench.told(0, false);
    bench.told(1, false);
    bench.told(0, true);
    assert_eq!(bench.ends(1), Some(EndReason::Failback));
}
