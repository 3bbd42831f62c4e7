//! The immutable checked configuration that workers run, joined with the live state of its backends.

use crate::backend::{BackendState, Registry};
use crate::balance::Selector;
use crate::model::Model;
use std::sync::Arc;

/// What workers run; replaced as a whole.
#[derive(Debug)]
pub struct Snapshot {
    /// What was configured.
    pub model: Model,
    /// Parallel to `Model::pools`.
    pub pools: Box<[PoolState]>,
}

/// One pool, ready to choose from.
#[derive(Debug)]
pub struct PoolState {
    /// Parallel to the pool's backends.
    pub backends: Box<[Arc<BackendState>]>,
    /// Chooses among the eligible ones.
    pub selector: Selector,
}

impl Snapshot {
    /// Joins a model with what the registry knows of its backends.
    pub fn new(model: Model, registry: &Registry, workers: usize) -> Self {
        let pools = model
            .pools
            .iter()
            .map(|pool| {
                let backends: Box<[_]> = registry.pool(pool, workers).into();
                let selector = Selector::new(pool, &backends, registry.tickets(&pool.name));
                PoolState { backends, selector }
            })
            .collect();
        Self { model, pools }
    }
}
