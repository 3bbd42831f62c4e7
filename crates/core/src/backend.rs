//! `BackendState`: what is known of one backend while the process lives, and the registry that outlives snapshots.
//!
//! The connection count is exact over all workers because choosing reserves (see `balance`). A backend keeps its state
//! across configurations as long as its pool's name and its address stay (docs/decisions/D14).

use crate::balance::Tickets;
use crate::model;
use crate::stats::BackendStats;
use crate::sync::{AtomicU32, Ordering};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The live state of one backend of one pool; shared by all workers.
#[derive(Debug)]
pub struct BackendState {
    /// Where it listens.
    pub address: model::Address,
    /// The address as the operator wrote it.
    pub label: Arc<str>,
    /// Connections that are open or being opened, over all workers.
    connections: AtomicU32,
    /// Parallel to workers; each is written by its worker only.
    pub workers: Box<[BackendStats]>,
}

impl BackendState {
    /// A backend without connections, counted by this many workers.
    pub fn new(backend: &model::Backend, workers: usize) -> Self {
        Self {
            address: backend.address.clone(),
            label: backend.label.clone(),
            connections: AtomicU32::new(0),
            workers: (0..workers).map(|_| BackendStats::default()).collect(),
        }
    }

    /// Connections that are open or being opened now, over all workers.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Acquire)
    }

    /// Takes one connection unconditionally.
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        self.connections.fetch_add(1, Ordering::AcqRel);
        Reservation(self.clone())
    }

    /// Takes one connection if the count is still `seen`.
    pub fn reserve_if(self: &Arc<Self>, seen: u32) -> Option<Reservation> {
        self.connections
            .compare_exchange(seen, seen.checked_add(1)?, Ordering::AcqRel, Ordering::Acquire)
            .ok()
            .map(|_| Reservation(self.clone()))
    }
}

/// One connection counted at a backend; given back when dropped, also when the task that holds it unwinds.
#[derive(Debug)]
pub struct Reservation(Arc<BackendState>);

impl Reservation {
    /// The backend that was chosen.
    pub fn backend(&self) -> &Arc<BackendState> {
        &self.0
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let before = self.0.connections.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "a reservation was given back twice");
    }
}

/// All backend states of the process by pool name and address.
#[derive(Debug, Default)]
pub struct Registry {
    states: Mutex<States>,
    tickets: Mutex<HashMap<Arc<str>, Arc<Tickets>>>,
}

type States = HashMap<(Arc<str>, model::Address), Arc<BackendState>>;

impl Registry {
    /// The states of a pool's backends, in the pool's order; known ones are kept, missing ones made.
    pub fn pool(&self, pool: &model::Pool, workers: usize) -> Vec<Arc<BackendState>> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        pool.backends
            .iter()
            .map(|backend| {
                states
                    .entry((pool.name.clone(), backend.address.clone()))
                    .or_insert_with(|| Arc::new(BackendState::new(backend, workers)))
                    .clone()
            })
            .collect()
    }

    /// The tickets of a pool: a schedule goes on where it was when the pool's selector is replaced.
    pub fn tickets(&self, pool: &Arc<str>) -> Arc<Tickets> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.entry(pool.clone()).or_default().clone()
    }
}
