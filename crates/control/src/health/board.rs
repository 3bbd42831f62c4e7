//! What is known of every backend, for whoever shows it: status, metrics, readiness.
//!
//! Written by the keeper only, read by the admin port. Both are on the main thread, so the lock is never waited for long.

use ringway_core::backend::{BackendState, Registry};
use ringway_core::health::Condition;
use ringway_core::model::{self, Target};
use ringway_core::snapshot::Snapshot;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// All pools.
#[derive(Debug)]
pub struct Board {
    pools: Mutex<Vec<PoolBoard>>,
}

/// One pool.
#[derive(Clone, Debug, Default)]
pub struct PoolBoard {
    /// Backends that can be chosen now.
    pub usable: usize,
    /// Backups serve.
    pub on_backups: bool,
    /// Names among the backends, with what DNS said last; by position in the configuration.
    pub names: BTreeMap<usize, NameBoard>,
    /// In the order in which they came.
    pub backends: Vec<BackendBoard>,
}

/// One name.
#[derive(Clone, Debug)]
pub struct NameBoard {
    /// As configured.
    pub label: Arc<str>,
    /// In words.
    pub outcome: String,
    /// It has an address.
    pub is_resolved: bool,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct BackendBoard {
    /// Its live state.
    pub state: Arc<BackendState>,
    /// The name whose address it is.
    pub name: Option<Arc<str>>,
    /// What it is.
    pub condition: Condition,
    /// Since when, on the shared clock.
    pub since: Duration,
    /// Why, in words.
    pub why: Arc<str>,
    /// As configured.
    pub weight: u32,
    /// Share of new connections where weights alone decide, 0 to 1.
    pub share: Option<f64>,
    /// Used only while no other is usable.
    pub backup: bool,
    /// The last active probe.
    pub last_probe: Option<LastProbe>,
    /// Probes by result.
    pub probes: ProbeCounts,
}

/// The result of a probe.
#[derive(Clone, Debug)]
pub struct LastProbe {
    /// When it ended.
    pub at: SystemTime,
    /// The backend is well.
    pub passed: bool,
    /// What was seen.
    pub words: Arc<str>,
}

/// Probes since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// The backend was well.
    pub passed: u64,
    /// It was not.
    pub failed: u64,
    /// This machine could not ask.
    pub local: u64,
}

impl BackendBoard {
    /// A backend of which nothing is known yet.
    pub fn new(state: Arc<BackendState>, name: Option<Arc<str>>, weight: u32, backup: bool, now: Duration) -> Self {
        Self {
            state,
            name,
            condition: Condition::Up,
            since: now,
            why: "".into(),
            weight,
            share: None,
            backup,
            last_probe: None,
            probes: ProbeCounts::default(),
        }
    }
}

impl Board {
    /// Every backend of the snapshot that has an address, up.
    pub fn new(snapshot: &Snapshot) -> Self {
        let pools = snapshot.model.pools.iter().zip(&snapshot.pools);
        let pool = |(pool, state): (&model::Pool, &ringway_core::snapshot::PoolState)| {
            let view = state.view();
            let of = |state: &Arc<BackendState>| {
                let same = |backend: &&model::Backend| backend.target == Target::Address(state.address.clone());
                let backend = pool.backends.iter().find(same)?;
                let weight = u32::from(backend.weight);
                Some(BackendBoard::new(
                    state.clone(),
                    None,
                    weight,
                    backend.backup,
                    Duration::ZERO,
                ))
            };
            let named = |(at, backend): (usize, &model::Backend)| match backend.target {
                Target::Address(_) => None,
                Target::Name(_) => Some((
                    at,
                    NameBoard {
                        label: backend.label.clone(),
                        outcome: "not looked up yet".to_owned(),
                        is_resolved: false,
                    },
                )),
            };
            PoolBoard {
                usable: view.selector.eligible_len(),
                on_backups: false,
                names: pool.backends.iter().enumerate().filter_map(named).collect(),
                backends: view.backends.iter().filter_map(of).collect(),
            }
        };
        Self {
            pools: Mutex::new(pools.map(pool).collect()),
        }
    }

    /// A board for a model alone, for tests of what is shown.
    pub fn of_model(model: model::Model, workers: usize) -> (Arc<Snapshot>, Arc<Self>) {
        let snapshot = Arc::new(Snapshot::new(model, &Registry::default(), workers));
        let board = Arc::new(Self::new(&snapshot));
        (snapshot, board)
    }

    /// All pools, in the order of the configuration.
    pub fn pools(&self) -> MutexGuard<'_, Vec<PoolBoard>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
