//! One connection in the books of its listener, from accept to end.

use crate::observer::SessionRecord;
use crate::state::WorkerState;
use ringway_core::backend::BackendState;
use ringway_core::model::PoolIndex;
use ringway_core::reason::EndReason;
use ringway_core::stats::ListenerStats;
use ringway_runtime::{Address, Time};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// One connection in the books of its listener. Dropped without [`Self::end`] it counts as ended by a panic: nothing
/// else drops a connection's task, except the reset of what is left.
#[derive(Debug)]
pub(crate) struct Session {
    worker: Rc<WorkerState>,
    listener: u32,
    ended: Cell<bool>,
    started: Time,
    /// What the log wants to know; kept only if there is one.
    entry: Option<Box<RefCell<Entry>>>,
}

/// What is noted of a session on its way, for the log.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) client: Option<Address>,
    pub(crate) backend: Option<Arc<BackendState>>,
    pub(crate) tries: u8,
    pub(crate) connect_time: Option<Duration>,
    pub(crate) bytes_from_client: u64,
    pub(crate) bytes_from_backend: u64,
    /// UDP: from the client, from the backend.
    pub(crate) datagrams: Option<(u64, u64)>,
}

impl Session {
    pub(crate) fn begin(worker: &Rc<WorkerState>, listener: usize) -> Self {
        let stats = &worker.stats.listeners[listener];
        stats.connections_total.add(1);
        stats.connections.add(1);
        worker.count_connection();
        Self {
            worker: worker.clone(),
            listener: listener as u32,
            ended: Cell::new(false),
            started: worker.handle.now(),
            entry: worker.logs_sessions.then(Box::default),
        }
    }

    pub(crate) const fn worker(&self) -> &Rc<WorkerState> {
        &self.worker
    }

    pub(crate) const fn listener(&self) -> usize {
        self.listener as usize
    }

    pub(crate) const fn started(&self) -> Time {
        self.started
    }

    pub(crate) fn pool(&self) -> PoolIndex {
        self.worker.snapshot.model.listeners[self.listener as usize].pool
    }

    pub(crate) fn stats(&self) -> &ListenerStats {
        &self.worker.stats.listeners[self.listener as usize]
    }

    /// Notes something for the log, if there is one.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Entry)) {
        if let Some(entry) = &self.entry {
            note(&mut entry.borrow_mut());
        }
    }

    /// Books the end. Only the first call counts.
    pub(crate) fn end(&self, reason: EndReason) {
        if self.ended.replace(true) {
            return;
        }
        let duration = self.worker.handle.now().since(self.started);
        let stats = self.stats();
        stats.ended[reason.index()].add(1);
        stats.connections.sub(1);
        stats.session_seconds.observe(duration);
        if let Some(entry) = &self.entry {
            let Entry {
                client,
                backend,
                tries,
                connect_time,
                bytes_from_client,
                bytes_from_backend,
                datagrams,
            } = entry.take();
            self.worker.record(SessionRecord {
                client,
                listener: self.listener(),
                pool: self.pool(),
                backend,
                tries,
                connect_time,
                bytes_from_client,
                bytes_from_backend,
                datagrams,
                duration,
                reason,
            });
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let panicked = std::thread::panicking() || !self.worker.orders.is_resetting();
        self.end(if panicked {
            EndReason::Panicked
        } else {
            EndReason::DrainDeadline
        });
        self.worker.uncount_connection();
    }
}
