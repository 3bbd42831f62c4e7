//! `BackendState`: what is known of one backend while the process lives, and the registry that outlives snapshots.
//!
//! The connection count is exact over all workers because choosing reserves (see `balance`). A backend keeps its state
//! across configurations as long as its pool's name and its address stay (docs/decisions/D14).

use crate::balance::Tickets;
use crate::model;
use crate::queue::Line;
use crate::stats::BackendStats;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The live state of one backend of one pool; shared by all workers.
#[derive(Debug)]
pub struct BackendState {
    /// Which one of its pool; never given to another while the process lives.
    pub index: model::BackendIndex,
    /// Where it listens.
    pub address: model::Address,
    /// As the operator wrote it; for an address that DNS gave: `NAME/ADDRESS`.
    pub label: Arc<str>,
    /// Read often, written rarely: apart from the count, which every connection writes.
    pub orders: BackendOrders,
    /// Connections that are open or being opened, over all workers.
    count: Count,
    /// Where connections wait for room at this backend; set once, before it can be chosen.
    line: OnceLock<Arc<Line>>,
    /// 1 once it was told that a client cannot be taken to it.
    passed_over: AtomicU32,
    /// Parallel to workers; each is written by its worker only.
    pub workers: Box<[BackendStats]>,
}

/// On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Count {
    connections: AtomicU32,
}

/// What the control plane wants of whoever chooses or uses a backend, and what it measured for those who choose.
#[derive(Debug)]
#[repr(align(128))]
pub struct BackendOrders {
    /// An [`Admission`], in one word because every choice looks at it.
    admission: AtomicU64,
    /// The `WATCH_*` of which the control plane wants to hear the next.
    watched: AtomicU32,
    /// Sessions that chose it before this moment are to end, nanoseconds of the workers' clock; 0: none.
    close_before: AtomicU64,
    /// Why; an index of `EndReason`.
    close_reason: AtomicU32,
    /// Written more often than the rest.
    measured: Measured,
}

/// What was measured. On cache lines of its own, because choosing by it writes it.
#[derive(Debug)]
#[repr(align(128))]
struct Measured {
    /// Peak EWMA of the time to the first byte; see `balance::response_time`.
    response: AtomicU64,
    /// Bytes per second over the last window.
    bytes_per_second: AtomicU64,
    /// Bytes per second that one more connection brings, as they were on average in the last window.
    bytes_per_choice: AtomicU64,
    /// Average of the published rates over the last [`LONG_STEPS`] or so.
    bytes_per_second_long: AtomicU64,
    /// Choices that the window does not show yet, in parts of [`CHOICE_PARTS`].
    unseen: AtomicU32,
}

/// Whether one more connection may come.
#[derive(Clone, Copy, Debug)]
struct Admission {
    /// Most connections; `u32::MAX`: no limit.
    connections_max: u32,
    /// How many times trials were switched, above; below, in [`TRIAL_BITS`], one of the `TRIAL_*`.
    trial: u32,
}

impl Admission {
    const fn unpack(word: u64) -> Self {
        Self {
            connections_max: (word >> 32) as u32,
            trial: word as u32,
        }
    }

    const fn pack(self) -> u64 {
        (self.connections_max as u64) << 32 | self.trial as u64
    }
}

/// A connect that succeeds.
const WATCH_CONNECT: u32 = 1;
/// A connection that is answered or has stood for a while.
const WATCH_ANSWER: u32 = 2;

/// Of [`Admission::trial`], what says whether one is on.
const TRIAL_BITS: u32 = 3;
/// Chosen like any other.
const TRIAL_OFF: u32 = 0;
/// The next connection may try it.
const TRIAL_OPEN: u32 = 1;
/// A connection is trying it.
const TRIAL_TAKEN: u32 = 2;

impl BackendState {
    /// A backend without connections, counted by this many workers.
    pub fn new(
        index: model::BackendIndex,
        address: model::Address,
        label: Arc<str>,
        connections_max: Option<u32>,
        workers: usize,
    ) -> Self {
        Self {
            index,
            address,
            label,
            orders: BackendOrders {
                admission: AtomicU64::new(
                    Admission {
                        connections_max: connections_max.unwrap_or(u32::MAX),
                        trial: TRIAL_OFF,
                    }
                    .pack(),
                ),
                watched: AtomicU32::new(0),
                close_before: AtomicU64::new(0),
                close_reason: AtomicU32::new(0),
                measured: Measured {
                    response: AtomicU64::new(0),
                    bytes_per_second: AtomicU64::new(0),
                    bytes_per_choice: AtomicU64::new(0),
                    bytes_per_second_long: AtomicU64::new(0),
                    unseen: AtomicU32::new(0),
                },
            },
            count: Count {
                connections: AtomicU32::new(0),
            },
            line: OnceLock::new(),
            passed_over: AtomicU32::new(0),
            workers: (0..workers).map(|_| BackendStats::default()).collect(),
        }
    }

    /// Connections that are open or being opened now, over all workers.
    pub fn connections(&self) -> u32 {
        self.count.connections.load(Ordering::Acquire)
    }

    /// Connections that wait for room at this backend are woken when there is some.
    pub fn wait_in(&self, line: &Arc<Line>) {
        // A backend stays in its pool, so a second line is the first one.
        let _ = self.line.set(line.clone());
    }

    /// Whether this is the first time over all workers that it is passed over because a client cannot be taken to it
    /// (`source: client`).
    pub fn is_first_passed_over(&self) -> bool {
        self.passed_over.load(Ordering::Relaxed) == 0 && self.passed_over.swap(1, Ordering::Relaxed) == 0
    }

    /// Whether one more connection fits and it is not kept for a trial that is under way.
    pub fn has_room(&self) -> bool {
        self.connections_with_room().is_some()
    }

    /// Whether it is kept for a trial that is under way.
    pub(crate) fn is_kept_for_trial(&self) -> bool {
        self.orders.admission().trial & TRIAL_BITS == TRIAL_TAKEN
    }

    /// How many connections there are, if one more fits and it is not kept for a trial that is under way.
    pub(crate) fn connections_with_room(&self) -> Option<u32> {
        let admission = self.orders.admission();
        let connections = self.connections();
        let has_room = connections < admission.connections_max && admission.trial & TRIAL_BITS != TRIAL_TAKEN;
        has_room.then_some(connections)
    }

    /// Takes one connection. `None` when `max_connections` is reached, or when another connection tries whether the
    /// backend is well again.
    pub fn reserve(self: &Arc<Self>) -> Option<Reservation> {
        let admission = self.orders.admission();
        let trial = self.orders.take_trial(admission)?;
        let more = |open| (open < admission.connections_max).then(|| open + 1);
        let taken = self
            .count
            .connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok();
        self.reserved(taken, trial)
    }

    /// Takes one connection if the count is still `seen`.
    pub fn reserve_if(self: &Arc<Self>, seen: u32) -> Option<Reservation> {
        let admission = self.orders.admission();
        // At most u32::MAX, so the count does not overflow either.
        if seen >= admission.connections_max {
            return None;
        }
        let trial = self.orders.take_trial(admission)?;
        let taken = self
            .count
            .connections
            .compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        self.reserved(taken, trial)
    }

    /// Takes one connection whatever the limit, and no trial. For what must get through where all is busy, and is short.
    pub fn reserve_beyond(self: &Arc<Self>) -> Reservation {
        self.count.connections.fetch_add(1, Ordering::AcqRel);
        Reservation {
            state: self.clone(),
            trial: None,
        }
    }

    fn reserved(self: &Arc<Self>, taken: bool, trial: Option<Trial>) -> Option<Reservation> {
        if !taken {
            if let Some(trial) = trial {
                self.orders.give_trial_back(trial);
                // In the meantime somebody else may have found it taken.
                self.wake_line();
            }
            return None;
        }
        Some(Reservation {
            state: self.clone(),
            trial,
        })
    }

    /// What a failed trial told has changed nothing: the next connection may try, if that trial was left open.
    pub fn reopen_trial(&self) {
        self.orders.reopen_trial();
        self.wake_line();
    }

    fn wake_line(&self) {
        if let Some(line) = self.line.get() {
            line.wake_first();
        }
    }
}

/// [`Admission::trial`] under which a trial was taken. As it counts how many times trials were switched, a trial that
/// is given back late does not open another one that began since.
#[derive(Clone, Copy, Debug)]
struct Trial(u32);

impl BackendOrders {
    fn admission(&self) -> Admission {
        Admission::unpack(self.admission.load(Ordering::Acquire))
    }

    /// Changes it unless `change` says `None`.
    fn admit(&self, change: impl Fn(Admission) -> Option<Admission>) {
        let changed = |word| change(Admission::unpack(word)).map(Admission::pack);
        // Refused: there is nothing to change.
        let _ = self
            .admission
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, changed);
    }

    /// `None`: kept for another connection (or changed since it was looked at). `Some(None)`: there is no trial. Else
    /// this is it.
    fn take_trial(&self, seen: Admission) -> Option<Option<Trial>> {
        match seen.trial & TRIAL_BITS {
            TRIAL_OFF => Some(None),
            TRIAL_OPEN => {
                let trial = seen.trial ^ TRIAL_OPEN ^ TRIAL_TAKEN;
                let taken = Admission { trial, ..seen };
                self.admission
                    .compare_exchange(seen.pack(), taken.pack(), Ordering::AcqRel, Ordering::Acquire)
                    .ok()
                    .map(|_| Some(Trial(trial)))
            }
            _ => None,
        }
    }

    fn give_trial_back(&self, Trial(taken): Trial) {
        let trial = taken ^ TRIAL_TAKEN ^ TRIAL_OPEN;
        // Otherwise the control plane has decided.
        self.admit(|now| (now.trial == taken).then_some(Admission { trial, ..now }));
    }

    fn reopen_trial(&self) {
        self.admit(|now| {
            let trial = now.trial ^ TRIAL_TAKEN ^ TRIAL_OPEN;
            (now.trial & TRIAL_BITS == TRIAL_TAKEN).then_some(Admission { trial, ..now })
        });
    }

    /// Lets one connection at a time try the backend, or ends that. What is so already stays as it is: a trial that is
    /// under way is not joined by a second one.
    pub fn set_trial(&self, on: bool) {
        self.admit(|now| {
            let is_on = now.trial & TRIAL_BITS != TRIAL_OFF;
            let count = (now.trial & !TRIAL_BITS).wrapping_add(TRIAL_BITS + 1);
            let trial = count | if on { TRIAL_OPEN } else { TRIAL_OFF };
            (is_on != on).then_some(Admission { trial, ..now })
        });
    }

    /// Most connections from now on; `None`: no limit. Those over it stay.
    pub fn set_connections_max(&self, max: Option<u32>) {
        let connections_max = max.unwrap_or(u32::MAX);
        self.admit(|now| Some(Admission { connections_max, ..now }));
    }

    /// Most connections; `None`: no limit.
    pub fn connections_max(&self) -> Option<u32> {
        let max = self.admission().connections_max;
        (max != u32::MAX).then_some(max)
    }

    /// From now on the next success of each kind is to be told (once), as failures always are.
    pub fn watch(&self) {
        self.watched.store(WATCH_CONNECT | WATCH_ANSWER, Ordering::Release);
    }

    /// Whether an answer is to be told; takes the order, also that for a connect, of which it says more.
    pub fn take_watch(&self) -> bool {
        let wanted = |watched| watched & WATCH_ANSWER != 0;
        wanted(self.watched.load(Ordering::Relaxed)) && wanted(self.watched.swap(0, Ordering::AcqRel))
    }

    /// Whether a connect is to be told; takes that order alone: the answer may come before anybody could ask for it.
    pub fn take_connect_watch(&self) -> bool {
        let wanted = |watched| watched & WATCH_CONNECT != 0;
        wanted(self.watched.load(Ordering::Relaxed)) && wanted(self.watched.fetch_and(!WATCH_CONNECT, Ordering::AcqRel))
    }

    /// Sessions that chose it before `nanos` of the workers' clock are to end, for this reason (its index).
    pub fn close_before(&self, nanos: u64, reason: usize) {
        self.close_reason.store(reason as u32, Ordering::Relaxed);
        self.close_before.store(nanos, Ordering::Release);
    }

    /// Sessions need not end for this reason (its index) any more; an order for another one stays. Called by the thread
    /// that gives orders.
    pub fn withdraw_close(&self, reason: usize) {
        if self.close_reason.load(Ordering::Relaxed) as usize == reason {
            self.close_before.store(0, Ordering::Release);
        }
    }

    /// Whether a session that chose it at `nanos` is to end: as of which moment, and the index of the reason.
    pub fn closes(&self, nanos: u64) -> Option<(u64, usize)> {
        let before = self.close_before.load(Ordering::Acquire);
        (nanos < before).then(|| (before, self.close_reason.load(Ordering::Relaxed) as usize))
    }

    /// Publishes what was measured: the backend's rate, and what one more connection is expected to add to it. Called
    /// by one thread, at every [`Window::STEP`](crate::balance::Window::STEP): with each call choices of before count a
    /// fifth less, as the window shows more of what they brought.
    pub fn set_bytes_per_second(&self, rate: u64, per_choice: u64) {
        let measured = &self.measured;
        measured.bytes_per_second.store(rate, Ordering::Relaxed);
        measured.bytes_per_choice.store(per_choice, Ordering::Relaxed);
        let long = measured.bytes_per_second_long.load(Ordering::Relaxed);
        let long = if rate >= long {
            long + (rate - long).div_ceil(LONG_STEPS)
        } else {
            long - (long - rate).div_ceil(LONG_STEPS)
        };
        measured.bytes_per_second_long.store(long, Ordering::Relaxed);
        let fade = |unseen: u32| Some(unseen - unseen.div_ceil(5));
        // Never refused: the closure always gives a value.
        let _ = measured.unseen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fade);
    }

    /// The average of what was published over the last [`LONG_STEPS`] or so.
    pub(crate) fn bytes_per_second_long(&self) -> u64 {
        self.measured.bytes_per_second_long.load(Ordering::Relaxed)
    }

    /// As last published.
    pub(crate) fn bytes_per_choice(&self) -> u64 {
        self.measured.bytes_per_choice.load(Ordering::Relaxed)
    }

    /// As last published.
    pub fn bytes_per_second(&self) -> u64 {
        self.measured.bytes_per_second.load(Ordering::Relaxed)
    }

    /// Choices that the published rate does not show yet, in parts of [`CHOICE_PARTS`].
    pub(crate) fn unseen(&self) -> u32 {
        self.measured.unseen.load(Ordering::Relaxed)
    }

    /// Counts a choice if what is unseen is still this much.
    pub(crate) fn count_choice_if(&self, unseen: u32) -> bool {
        self.measured
            .unseen
            .compare_exchange(
                unseen,
                unseen.saturating_add(CHOICE_PARTS),
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Where `balance::response_time` keeps its average.
    pub(crate) const fn response(&self) -> &AtomicU64 {
        &self.measured.response
    }
}

/// About how many published rates the long average remembers: 13 s.
pub(crate) const LONG_STEPS: u64 = 128;

/// One choice when it is made; a power of two, so that it fades finely.
pub(crate) const CHOICE_PARTS: u32 = 1 << 10;

/// One connection counted at a backend; given back when dropped, also when the task that holds it unwinds.
#[derive(Debug)]
pub struct Reservation {
    state: Arc<BackendState>,
    trial: Option<Trial>,
}

impl Reservation {
    /// The backend that was chosen.
    pub fn backend(&self) -> &Arc<BackendState> {
        &self.state
    }

    /// Whether this connection tries a backend that was ejected; the control plane waits for what comes of it.
    pub const fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// This trial has failed and that was told. It is not given back with the reservation, or others would try before
    /// the control plane has heard: that one ends it, or calls [`BackendState::reopen_trial`].
    pub fn leave_trial(&mut self) {
        self.trial = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let before = self.state.count.connections.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "a reservation was given back twice");
        if let Some(trial) = self.trial {
            // If the control plane has not decided by what was told (or nothing was), the next one may try; not
            // before this one is gone.
            self.state.orders.give_trial_back(trial);
        }
        self.state.wake_line();
    }
}

/// All backend states of the process by pool name and address.
#[derive(Debug, Default)]
pub struct Registry {
    pools: Mutex<HashMap<Arc<str>, KnownPool>>,
}

#[derive(Debug, Default)]
struct KnownPool {
    states: HashMap<model::Address, Arc<BackendState>>,
    /// For the next one.
    index: usize,
    tickets: Arc<Tickets>,
    /// Made when first asked for.
    line: Option<Arc<Line>>,
}

impl Registry {
    /// The state of a backend of a pool; made if it is not known yet.
    pub fn backend(
        &self,
        pool: &Arc<str>,
        address: &model::Address,
        label: &Arc<str>,
        connections_max: Option<u32>,
        workers: usize,
    ) -> Arc<BackendState> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(pool.clone()).or_default();
        if let Some(known) = pool.states.get(address) {
            known.orders.set_connections_max(connections_max);
            return known.clone();
        }
        let index = model::BackendIndex(pool.index);
        pool.index += 1;
        let state = BackendState::new(index, address.clone(), label.clone(), connections_max, workers);
        let state = Arc::new(state);
        pool.states.insert(address.clone(), state.clone());
        state
    }

    /// Forgets a backend that is no part of its pool any more.
    pub fn forget(&self, pool: &Arc<str>, address: &model::Address) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get_mut(pool) {
            pool.states.remove(address);
        }
    }

    /// The tickets of a pool: a schedule goes on where it was when the pool's selector is replaced.
    pub fn tickets(&self, pool: &Arc<str>) -> Arc<Tickets> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.entry(pool.clone()).or_default().tickets.clone()
    }

    /// The line of a pool, with room for this many from now on. It is one and the same while the process lives:
    /// backends that outlive a configuration go on waking those who wait in it.
    pub fn line(&self, pool: &Arc<str>, max: u32) -> Arc<Line> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(pool.clone()).or_default();
        let line = pool.line.get_or_insert_with(|| Arc::new(Line::new(max)));
        line.set_max(max);
        line.clone()
    }
}
