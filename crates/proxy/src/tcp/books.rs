//! Where a relay is counted: its listener, its backend, itself.

use crate::session::Session;
use ringway_core::backend::{BackendState, Reservation};
use ringway_core::model::{Balance, PoolIndex};
use ringway_core::stats::{BackendStats, Counter};
use std::sync::Arc;

/// Where the bytes of one direction are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally<'a> {
    listener: &'a Counter,
    backend: &'a Counter,
}

impl Tally<'_> {
    pub(super) fn add(&self, bytes: u32) {
        self.listener.add(u64::from(bytes));
        self.backend.add(u64::from(bytes));
    }
}

/// The books of one relay. Made anew for each poll: kept, they would be memory of every idle connection.
#[derive(Debug)]
pub struct Books<'a> {
    pub(super) pool: PoolIndex,
    pub(super) backend: &'a Arc<BackendState>,
    pub(super) stats: &'a BackendStats,
    /// From the client to the backend.
    pub(super) up: Tally<'a>,
    /// From the backend to the client.
    pub(super) down: Tally<'a>,
    /// Whether the pool chooses by response times.
    pub(super) times_responses: bool,
}

impl<'a> Books<'a> {
    pub(crate) fn new(session: &'a Session, reservation: &'a Reservation) -> Self {
        let (worker, backend) = (session.worker(), reservation.backend());
        let (listener, pool) = (session.stats(), session.relayed_pool());
        let stats = &backend.workers[worker.index];
        Self {
            pool,
            backend,
            stats,
            up: Tally {
                listener: &listener.bytes_from_clients,
                backend: &stats.bytes_from_clients,
            },
            down: Tally {
                listener: &listener.bytes_from_backends,
                backend: &stats.bytes_from_backends,
            },
            times_responses: worker.snapshot.model.pools[pool.0].balance == Balance::LeastResponseTime,
        }
    }
}
