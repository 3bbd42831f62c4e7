//! The immutable checked configuration that workers run, and what changes beside it: each pool's view.

use crate::backend::{BackendState, Registry};
use crate::balance::{Candidate, Selector};
use crate::model::{self, Model, Target};
use crate::queue::Line;
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::sync::{Arc, PoisonError};

/// What workers run; replaced as a whole.
#[derive(Debug)]
pub struct Snapshot {
    /// What was configured.
    pub model: Model,
    /// Parallel to `Model::pools`.
    pub pools: Box<[PoolState]>,
}

/// One pool: what workers choose from now.
#[derive(Debug)]
pub struct PoolState {
    view: Mutex<Arc<PoolView>>,
    version: AtomicU64,
    /// Where connections wait for room, if they may.
    pub line: Option<Arc<Line>>,
}

/// One pool at a moment; replaced as a whole when its backends or their conditions change.
#[derive(Debug)]
pub struct PoolView {
    /// All backends, those that leave included.
    pub backends: Box<[Arc<BackendState>]>,
    /// Chooses among the eligible ones.
    pub selector: Selector,
}

impl PoolState {
    /// A pool with its first view.
    pub fn new(view: PoolView, line: Option<Arc<Line>>) -> Self {
        Self {
            view: Mutex::new(Arc::new(view)),
            version: AtomicU64::new(1),
            line,
        }
    }

    /// The view now.
    pub fn view(&self) -> Arc<PoolView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Grows with every view, from 1: whoever keeps a view compares before using it. Whoever asks for the view after
    /// this gets that of this version or a newer one.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Replaces the view; workers see it with their next choice.
    pub fn publish(&self, view: PoolView) {
        let view = Arc::new(view);
        let mut current = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, view);
        // After the view, before anybody else's: a version is never ahead of what `view` gives.
        self.version.fetch_add(1, Ordering::AcqRel);
        drop(current);
        // A table may be megabytes, and nobody should wait for them to be freed.
        drop(before);
        if let Some(line) = &self.line {
            line.wake_first();
        }
    }
}

impl Snapshot {
    /// Joins a model with what the registry knows of its backends. Backends that are names have no address yet.
    pub fn new(model: Model, registry: &Registry, workers: usize) -> Self {
        let pools = model
            .pools
            .iter()
            .map(|pool| first_state(pool, registry, workers))
            .collect();
        Self { model, pools }
    }
}

fn first_state(pool: &model::Pool, registry: &Registry, workers: usize) -> PoolState {
    let mut backends: Vec<(Arc<BackendState>, &model::Backend)> = Vec::new();
    for backend in &pool.backends {
        if let Target::Address(address) = &backend.target {
            let state = registry.backend(&pool.name, address, &backend.label, backend.max_connections, workers);
            backends.push((state, backend));
        }
    }
    let only_backups = backends.iter().all(|(_, backend)| backend.backup);
    let candidates = backends
        .iter()
        .filter(|(_, backend)| only_backups || !backend.backup)
        .map(|(state, backend)| Candidate {
            state: state.clone(),
            weight: u32::from(backend.weight),
        });
    let selector = Selector::new(pool, registry.tickets(&pool.name), candidates);
    let line = pool.queue.map(|queue| registry.line(&pool.name, queue.max));
    if let Some(line) = &line {
        backends.iter().for_each(|(state, _)| state.wait_in(line));
    }
    let view = PoolView {
        backends: backends.into_iter().map(|(state, _)| state).collect(),
        selector,
    };
    PoolState::new(view, line)
}
