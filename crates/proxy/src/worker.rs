//! One worker: a thread with its ring, its listeners and its relays (interface agreed with `control`).

use ringway_core::backend::BackendState;
use ringway_core::model::{Address, Buffers, Model};
use ringway_core::stats::WorkerStats;
use std::sync::Arc;

/// A listener could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The address that failed.
    pub address: Address,
    /// The whole sentence for the operator: what is wrong and what to do.
    pub message: String,
}

/// Bound listening sockets of one worker; parallel to `Model::listeners` and their addresses.
#[derive(Debug)]
pub struct WorkerSockets(());

/// Binds every listener once per worker; all errors are collected, nothing stays bound when there is one.
/// Also returns the addresses as bound (port 0 replaced by the real port), parallel to listeners and addresses.
pub fn bind_all(_model: &Model, _workers: usize) -> Result<(Vec<WorkerSockets>, Vec<Vec<Address>>), Vec<BindError>> {
    Err(Vec::new())
}

/// What a worker needs to start.
#[derive(Debug)]
pub struct WorkerConfig {
    /// 0-based; index into `BackendState::workers`.
    pub index: usize,
    /// The core to pin to; `None`: not pinned.
    pub cpu: Option<usize>,
    /// What to run.
    pub model: Arc<Model>,
    /// Parallel to `Model::pools`: the selector of each pool (shared by all workers).
    pub pools: Arc<[Vec<Arc<BackendState>>]>,
    /// Counted here.
    pub stats: Arc<WorkerStats>,
    /// What it accepts from.
    pub sockets: WorkerSockets,
    /// Connections of the whole process at most (both listeners' caps and descriptors considered).
    pub connections_max: u32,
    /// Size of the buffer ring.
    pub buffers: Buffers,
}

/// A worker could not start: one sentence that names cause and cure.
#[derive(Debug)]
pub struct StartError(pub String);

/// A running worker.
#[derive(Debug)]
pub struct Worker(());

impl Worker {
    /// Starts the thread and returns when it serves (or failed to).
    pub fn start(_config: WorkerConfig) -> Result<Self, StartError> {
        Err(StartError(String::new()))
    }

    /// Stops accepting without dropping queued connections; relays go on. Returns at once.
    pub fn stop_accepting(&self) {}

    /// Resets every relay that is left (end reason `drain_deadline`). Returns at once.
    pub fn reset_relays(&self) {}

    /// Waits until the worker's thread ended: after `stop_accepting`, when no relay is left. `true` if it ended within
    /// `timeout`.
    pub fn wait_ended(&self, _timeout: std::time::Duration) -> bool {
        true
    }
}
