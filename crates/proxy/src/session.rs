//! One connection in the books of its listener, from accept to end.

use crate::observer::{Seldom, SessionRecord};
use crate::state::WorkerState;
use ringway_core::backend::BackendState;
use ringway_core::model::{PoolIndex, Protocol};
use ringway_core::reason::EndReason;
use ringway_core::session::ClientGuard;
use ringway_core::stats::ListenerStats;
use ringway_runtime::{Address, Time};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// One connection in the books of its listener. Dropped without [`Self::end`] it counts as ended by a panic: nothing
/// else drops a connection's task, except the reset of what is left.
#[derive(Debug)]
pub(crate) struct Session {
    worker: Rc<WorkerState>,
    listener: u16,
    /// [`NOWHERE`] until it is known.
    pool: Cell<u16>,
    ended: Cell<bool>,
    started: Time,
    /// Absent where nobody asks for it: every idle connection would have the room that it takes.
    kept: OnceCell<Box<Kept>>,
}

/// Of a session of which it is not known where it goes. There are at most 4,096 pools.
const NOWHERE: u16 = u16::MAX;

/// What only some sessions have.
#[derive(Debug, Default)]
struct Kept {
    /// Its place among the connections of its client, if those are counted.
    guard: RefCell<Option<ClientGuard>>,
    /// What the log wants to know, if there is one.
    entry: RefCell<Entry>,
}

/// What is noted of a session on its way, for the log.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) client: Option<Address>,
    pub(crate) seldom: Option<Box<Seldom>>,
    pub(crate) backend: Option<Arc<BackendState>>,
    pub(crate) tries: u8,
    pub(crate) connect_time: Option<Duration>,
    pub(crate) bytes_from_client: u64,
    pub(crate) bytes_from_backend: u64,
    /// UDP: from the client, from the backend.
    pub(crate) datagrams: Option<(u64, u64)>,
}

impl Entry {
    /// What only some sessions have.
    pub(crate) fn seldom(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }
}

impl Session {
    pub(crate) fn begin(worker: &Rc<WorkerState>, listener: usize) -> Self {
        let stats = &worker.stats.listeners[listener];
        stats.connections_total.add(1);
        stats.connections.add(1);
        worker.count_connection();
        let model = &worker.snapshot.model.listeners[listener];
        let known = model.protocol != Protocol::Tls;
        let pool = model.pool.filter(|_| known).map_or(NOWHERE, |pool| pool.0 as u16);
        Self {
            worker: worker.clone(),
            listener: listener as u16,
            pool: Cell::new(pool),
            ended: Cell::new(false),
            started: worker.handle.now(),
            kept: if worker.logs_sessions {
                Box::<Kept>::default().into()
            } else {
                OnceCell::new()
            },
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

    /// Where it goes, if that is known.
    pub(crate) fn pool(&self) -> Option<PoolIndex> {
        let pool = self.pool.get();
        (pool != NOWHERE).then_some(PoolIndex(usize::from(pool)))
    }

    /// Where it went: of a session that is relayed.
    pub(crate) fn relayed_pool(&self) -> PoolIndex {
        self.pool().expect("a session is relayed to a backend of a pool")
    }

    /// It is known now where it goes.
    pub(crate) fn set_pool(&self, pool: PoolIndex) {
        self.pool.set(pool.0 as u16);
    }

    pub(crate) fn stats(&self) -> &ListenerStats {
        &self.worker.stats.listeners[self.listener as usize]
    }

    /// Keeps its place among the connections of its client until it is dropped. A place that it had before is given back:
    /// it was that of whoever was taken for the client.
    pub(crate) fn keep(&self, guard: Option<ClientGuard>) {
        let kept = match guard {
            Some(_) => Some(self.kept.get_or_init(Box::default)),
            None => self.kept.get(),
        };
        if let Some(kept) = kept {
            kept.guard.replace(guard);
        }
    }

    /// Notes something for the log, if there is one.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entry() {
            note(&mut entry.borrow_mut());
        }
    }

    fn entry(&self) -> Option<&RefCell<Entry>> {
        let kept = self.kept.get().filter(|_| self.worker.logs_sessions)?;
        Some(&kept.entry)
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
        if let Some(entry) = self.entry() {
            let Entry {
                client,
                seldom,
                backend,
                tries,
                connect_time,
                bytes_from_client,
                bytes_from_backend,
                datagrams,
            } = entry.take();
            self.worker.record(SessionRecord {
                client,
                seldom,
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
