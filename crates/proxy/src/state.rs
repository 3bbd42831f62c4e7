//! What the tasks of one worker share: configuration, counters, and the connections that are open.
//!
//! Lives on the worker's thread. Other threads reach it only through [`Orders`], which are flags; whoever sets one has
//! every task polled.

use crate::access::ClientBounds;
use crate::observer::{Observer, SessionRecord};
use crate::unrouted::UnroutedConnections;
use ringway_core::balance::{Choice, ClientKey, NoChoice, Selector, Tried};
use ringway_core::cancel::CancelKeys;
use ringway_core::gate::Gates;
use ringway_core::model::{Listener, Model, PoolIndex, Source, Speech};
use ringway_core::snapshot::{PoolView, Snapshot};
use ringway_core::spare::Spare;
use ringway_core::stats::WorkerStats;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Handle, Time};
use std::cell::{Cell, RefCell};
use std::hash::RandomState;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

pub(crate) use crate::session::Session;

/// What a worker was told to do; set by other threads, read by its tasks when they are polled.
#[derive(Debug, Default)]
pub struct Orders {
    stop_accepting: AtomicBool,
    reset_relays: AtomicBool,
}

impl Orders {
    /// Stop accepting, without dropping what the kernel has queued.
    pub fn stop_accepting(&self) {
        self.stop_accepting.store(true, Ordering::Release);
    }

    /// Reset what is left.
    pub fn reset_relays(&self) {
        self.reset_relays.store(true, Ordering::Release);
    }

    /// Whether accepting is to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop_accepting.load(Ordering::Acquire)
    }

    /// Whether connections are to be reset.
    pub fn is_resetting(&self) -> bool {
        self.reset_relays.load(Ordering::Acquire)
    }
}

/// One worker's state.
#[derive(Debug)]
pub struct WorkerState {
    /// The runtime.
    pub handle: Handle,
    /// 0-based; index into `BackendState::workers`.
    pub index: usize,
    /// What to run.
    pub snapshot: Arc<Snapshot>,
    /// Counted here.
    pub stats: Arc<WorkerStats>,
    /// Caps, shared by all workers.
    pub gates: Arc<Gates>,
    /// Bounds on client addresses, shared by all workers.
    pub(crate) clients: ClientBounds,
    /// What other threads want.
    pub orders: Arc<Orders>,
    /// Hears of what is met.
    pub observer: Arc<dyn Observer>,
    /// What the clock of all workers showed when this one's showed 0.
    clock_offset: Duration,
    /// Parallel to the pools: each one's view as last seen.
    views: RefCell<Box<[CachedView]>>,
    /// Sessions that ended in this turn; filled only if somebody wants them.
    records: RefCell<Vec<SessionRecord>>,
    /// Whether somebody does.
    pub(crate) logs_sessions: bool,
    /// Connections of which it is not known yet where they go.
    pub(crate) unrouted: UnroutedConnections,
    /// The keys that PostgreSQL servers issued, by listener; shared by all workers.
    cancel_keys: ListenerKeys,
    /// When the next CancelRequest of an unknown key would be on time.
    pub(crate) cancels_due: Cell<Time>,
    /// Those that are being passed on to every server.
    pub(crate) cancels_passing: Cell<u32>,
    /// What no other process has in common with this one's connections.
    id_seed: u64,
    /// Counts what needs a number of its own.
    numbers: Cell<u64>,
    /// Connections that are being served.
    connections: Cell<u64>,
    /// The task that waits for the last connection's end.
    main: RefCell<Option<Waker>>,
    /// Relays that hold buffers which a full peer keeps them from sending; asked to let go when buffers run short.
    blocked: RefCell<Vec<Waker>>,
    /// Counts how often `blocked` was emptied; never 0, which stands for not noted.
    blocked_round: Cell<u32>,
    /// Whether there is time to copy what could be spliced.
    spare: Cell<Spare>,
    /// Directions that are streams now.
    streams: Rc<Cell<u32>>,
    /// Bytes that relays copied out of buffers and still hold.
    spilled: Rc<Cell<u64>>,
}

/// The keys of one listener.
pub(crate) type Keys = CancelKeys<RandomState>;
/// Those of each listener that has any; parallel to `Model::listeners`.
pub type ListenerKeys = Arc<[Option<Arc<CancelKeys<RandomState>>>]>;

/// No key is known yet.
pub fn cancel_keys(model: &Model) -> ListenerKeys {
    let keys = |listener: &Listener| {
        let issues = listener.preface.speech == Speech::Postgres;
        issues.then(|| Arc::new(CancelKeys::new(RandomState::new())))
    };
    model.listeners.iter().map(keys).collect()
}

/// A pool's view as last seen: used without touching what other workers count.
#[derive(Debug)]
struct CachedView {
    version: u64,
    view: Arc<PoolView>,
}

/// What a worker is made of, beside its runtime.
#[derive(Debug)]
pub struct Parts {
    /// 0-based; index into `BackendState::workers`.
    pub index: usize,
    /// What to run.
    pub snapshot: Arc<Snapshot>,
    /// Counted here.
    pub stats: Arc<WorkerStats>,
    /// Caps, shared by all workers.
    pub gates: Arc<Gates>,
    /// Bounds on client addresses, shared by all workers.
    pub clients: ClientBounds,
    /// What other threads want.
    pub orders: Arc<Orders>,
    /// Hears of what is met.
    pub observer: Arc<dyn Observer>,
    /// What the clock of all workers shows when this one's shows 0.
    pub clock_offset: Duration,
    /// Connections of which it is not known yet where they go, shared by all workers.
    pub unrouted: UnroutedConnections,
    /// The keys that PostgreSQL servers issued, shared by all workers.
    pub cancel_keys: ListenerKeys,
    /// Drawn once per process: begins the names of connections.
    pub id_seed: u64,
}

impl WorkerState {
    /// A worker without connections.
    pub fn new(handle: Handle, parts: Parts) -> Rc<Self> {
        let Parts {
            index,
            snapshot,
            stats,
            gates,
            clients,
            orders,
            observer,
            clock_offset,
            unrouted,
            cancel_keys,
            id_seed,
        } = parts;
        let views = snapshot.pools.iter().map(|pool| CachedView {
            version: pool.version(),
            view: pool.view(),
        });
        Rc::new(Self {
            handle,
            index,
            views: RefCell::new(views.collect()),
            snapshot,
            stats,
            gates,
            clients,
            orders,
            logs_sessions: observer.logs_sessions(),
            observer,
            clock_offset,
            records: RefCell::default(),
            unrouted,
            cancel_keys,
            cancels_due: Cell::default(),
            cancels_passing: Cell::default(),
            id_seed,
            numbers: Cell::new(0),
            connections: Cell::new(0),
            main: RefCell::default(),
            blocked: RefCell::default(),
            blocked_round: Cell::new(1),
            spare: Cell::default(),
            streams: Rc::default(),
            spilled: Rc::default(),
        })
    }

    /// Chooses a backend of a pool as the pool is now, for a client of this listener.
    pub(crate) fn choose(
        &self,
        listener: usize,
        pool: PoolIndex,
        client: ClientKey,
        tried: &Tried,
    ) -> Result<Choice, NoChoice> {
        if self.snapshot.model.listeners[listener].stays_at_host() {
            return self.with_selector(pool, |selector| selector.choose_host(client, tried));
        }
        let now = self.moment();
        self.with_selector(pool, |selector| selector.choose(client, tried, now))
    }

    fn with_selector<T>(&self, pool: PoolIndex, ask: impl FnOnce(&Selector) -> T) -> T {
        self.with_view(pool, |view| ask(&view.selector))
    }

    /// Asks a pool's view as the pool is now.
    pub(crate) fn with_view<T>(&self, pool: PoolIndex, ask: impl FnOnce(&PoolView) -> T) -> T {
        let shared = &self.snapshot.pools[pool.0];
        let cached = &mut self.views.borrow_mut()[pool.0];
        let version = shared.version();
        if cached.version != version && !active(Fault::ViewNotRefreshed) {
            *cached = CachedView {
                version,
                view: shared.view(),
            };
        }
        ask(&cached.view)
    }

    /// Whether it matters to a pool who the client is: for the choice, or because backends see it.
    pub(crate) fn asks_for_client(&self, listener: usize, pool: PoolIndex) -> bool {
        let model = &self.snapshot.model;
        model.listeners[listener].stays_at_host()
            || model.pools[pool.0].source == Source::Client
            || self.views.borrow()[pool.0].view.selector.asks_for_client()
    }

    /// Now, on the clock that all workers and the control plane share.
    pub(crate) fn moment(&self) -> Duration {
        self.clock_offset + Duration::from_nanos(self.handle.now().as_nanos())
    }

    /// Whether this thread is idle enough to do for a stream what costs it more and serves it better.
    pub(crate) fn has_time_to_spare(&self) -> bool {
        let mut spare = self.spare.get();
        let now = Duration::from_nanos(self.handle.now().as_nanos());
        if spare.is_due(now) {
            spare.note(now, self.handle.cpu_time());
            self.spare.set(spare);
        }
        spare.is_left()
    }

    /// Nanoseconds on the shared clock at a point in time of this worker.
    pub(crate) fn shared_nanos(&self, time: ringway_runtime::Time) -> u64 {
        (self.clock_offset.as_nanos() as u64).saturating_add(time.as_nanos())
    }

    /// Where the keys of a listener's servers are kept, if they are.
    pub(crate) fn cancel_keys(&self, listener: usize) -> Option<&Arc<Keys>> {
        self.cancel_keys[listener].as_ref()
    }

    /// A number that no other caller in this process gets.
    pub(crate) fn next_number(&self) -> u64 {
        let number = if active(Fault::NameRepeated) {
            0
        } else {
            self.numbers.get()
        };
        self.numbers.set(number + 1);
        // At most 1,024 workers.
        number << 10 | self.index as u64
    }

    /// A name that no other connection has, here or elsewhere: 32 hexadecimal digits.
    pub(crate) fn next_id(&self) -> String {
        format!("{:016x}{:016x}", self.id_seed, self.next_number())
    }

    /// Keeps a finished session for the log, until the end of the turn.
    pub(crate) fn record(&self, record: SessionRecord) {
        self.records.borrow_mut().push(record);
    }

    pub(crate) fn count_connection(&self) {
        self.connections.set(self.connections.get() + 1);
    }

    pub(crate) fn uncount_connection(&self) {
        self.connections.set(self.connections.get() - 1);
        if self.connections.get() == 0 {
            self.wake_main();
        }
    }

    /// Connections that are being served.
    pub fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// Who waits for the last connection's end.
    pub(crate) fn set_main(&self, main: &Waker) {
        *self.main.borrow_mut() = Some(main.clone());
    }

    pub(crate) fn wake_main(&self) {
        if let Some(main) = &*self.main.borrow() {
            main.wake_by_ref();
        }
    }

    /// A relay, or a connection that is to be one, holds buffers that it cannot send.
    /// Returns the round in which it was noted: noting again in the same round is not needed.
    pub(crate) fn note_blocked(&self, relay: &Waker, noted: u32) -> u32 {
        let round = self.blocked_round.get();
        if noted == round {
            return round;
        }
        // Entries of relays that have ended are still in the list; a round is over when they could be most of it.
        if self.blocked.borrow().len() as u64 > 2 * self.connections.get() + 64 {
            self.wake_blocked();
        }
        self.blocked.borrow_mut().push(relay.clone());
        self.blocked_round.get()
    }

    fn wake_blocked(&self) {
        self.blocked_round.set(self.blocked_round.get().wrapping_add(1).max(1));
        for relay in self.blocked.borrow_mut().drain(..) {
            relay.wake();
        }
    }

    /// Buffers are short when less than a quarter is left; then relays keep nothing in them that cannot be sent.
    pub(crate) fn buffers_short(&self) -> bool {
        let (available, count) = self.handle.buffers();
        available < count / 4
    }

    /// Counts one more direction as a stream until the guard is dropped.
    pub(crate) fn count_stream(&self) -> StreamGuard {
        self.streams.set(self.streams.get() + 1);
        StreamGuard(self.streams.clone())
    }

    /// Counts bytes as spilled until the guard is dropped.
    pub(crate) fn count_spilled(&self, bytes: u32) -> SpillGuard {
        self.spilled.set(self.spilled.get() + u64::from(bytes));
        SpillGuard {
            total: self.spilled.clone(),
            bytes,
        }
    }

    /// Directions that are streams now.
    pub(crate) fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// Bytes of all receive buffers of this worker.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        u64::from(self.handle.buffers().1) * u64::from(self.handle.buffer_size())
    }

    /// Called once per turn: wakes relays that hold buffers they cannot send, if buffers are short.
    pub fn relieve_buffers(&self) {
        if self.buffers_short() && !self.blocked.borrow().is_empty() {
            self.wake_blocked();
        }
    }

    /// Called once per turn: publishes what the runtime counted, and hands over sessions that ended.
    pub fn publish_stats(&self) {
        if self.logs_sessions {
            let mut records = self.records.borrow_mut();
            if !records.is_empty() {
                self.observer.ended(&mut records);
            }
        }
        let counted = self.handle.stats();
        let stats = &self.stats.runtime;
        stats.turns.set(counted.turns);
        stats.enters.set(counted.enters);
        stats.direct_calls.set(counted.direct_calls);
        stats.completions.set(counted.completions);
        stats.buffers_out.set(counted.buffers_out);
        stats.bytes_spilled.set(self.spilled.get());
        stats.buffers_dry.set(counted.buffers_dry);
        stats.readers_starved.set(counted.readers_starved);
        stats.cq_overflows.set(counted.overflows);
        stats.tasks_panicked.set(counted.tasks_panicked);
        stats.tasks.set(counted.tasks);
        stats.unrouted.set(self.unrouted.len(self.index) as u64);
    }
}

/// Bytes that count as spilled.
#[derive(Debug)]
pub(crate) struct SpillGuard {
    total: Rc<Cell<u64>>,
    bytes: u32,
}

impl Drop for SpillGuard {
    fn drop(&mut self) {
        self.total.set(self.total.get() - u64::from(self.bytes));
    }
}

/// One direction that counts as a stream.
#[derive(Debug)]
pub(crate) struct StreamGuard(Rc<Cell<u32>>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
