//! The keeper of all pools: one task that hears every event and acts on it in order.

use super::board::Board;
use super::pool::KeptPool;
use crate::probe::ProbeError;
use crate::resolve::{self, Update, Watch};
use ringway_core::backend::Registry;
use ringway_core::balance::Window;
use ringway_core::health::Report;
use ringway_core::limits::{ADDRESSES_PER_NAME_MAX, PROBES_MAX};
use ringway_core::model::{BackendIndex, PoolIndex};
use ringway_core::snapshot::Snapshot;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task::yield_now;
use tokio::time::timeout_at;

/// Events that wait at most; workers' reports beyond it are lost, probes wait.
pub const EVENTS_MAX: usize = 8_192;
/// Events that are acted on before anything is published.
const EVENTS_TOGETHER_MAX: usize = 1_024;
// What the arithmetic of descriptors counts on.
const _: () = assert!(resolve::ADDRESSES_MAX == ADDRESSES_PER_NAME_MAX as usize);
/// Backends that leave are looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Something that bears on health.
#[derive(Debug)]
pub enum Event {
    /// A worker met something.
    Met {
        /// Where.
        pool: PoolIndex,
        /// With whom.
        backend: BackendIndex,
        /// What.
        report: Report,
    },
    /// A probe ended.
    Probed {
        /// Where.
        pool: PoolIndex,
        /// Of whom.
        backend: BackendIndex,
        /// How.
        outcome: Result<String, ProbeError>,
        /// From its start.
        took: Duration,
    },
    /// DNS said something.
    Resolved(Update),
}

/// What the keeper works on and with.
pub struct Means {
    /// What workers run.
    pub snapshot: Arc<Snapshot>,
    /// Where backends come from.
    pub registry: Arc<Registry>,
    /// How many workers count.
    pub workers: usize,
    /// When the shared clock showed 0.
    pub epoch: Instant,
    /// What is shown.
    pub board: Arc<Board>,
    /// Has every session look at its orders.
    pub wake_workers: Box<dyn Fn() + Send + Sync>,
}

impl Means {
    /// The shared clock.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}

impl fmt::Debug for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}

/// Keeps all pools.
#[derive(Debug)]
pub struct Keeper {
    means: Means,
    pools: Vec<KeptPool>,
    events: Receiver<Event>,
    /// The task that follows names.
    names: Option<Following>,
}

#[derive(Debug)]
struct Following(tokio::task::JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Keeper {
    /// Starts probes and look-ups; must be called inside the runtime.
    ///
    /// # Errors
    /// A whole sentence: a probe cannot be prepared, names cannot be followed.
    pub fn start(means: Means, sender: &Sender<Event>, events: Receiver<Event>) -> Result<Self, String> {
        let permits = Arc::new(Semaphore::new(PROBES_MAX as usize));
        let indexes = (0..means.snapshot.model.pools.len()).map(PoolIndex);
        let kept = |index| KeptPool::new(index, &means, sender, &permits);
        let pools: Result<Vec<KeptPool>, String> = indexes.map(kept).collect();
        let watch = resolve::watch(&means.snapshot.model)?;
        let names = (watch.names() > 0).then(|| Following(tokio::spawn(follow(watch, sender.clone()))));
        let mut keeper = Self {
            means,
            pools: pools?,
            events,
            names,
        };
        for pool in &mut keeper.pools {
            pool.publish(&keeper.means);
        }
        Ok(keeper)
    }

    /// Acts on events until nobody can send any. Whoever runs it must notice when it panics: nobody else would.
    ///
    /// # Panics
    /// When the task that follows names has ended: the backends would silently stay what they are.
    pub async fn run(mut self) {
        let mut look = self.means.now() + LOOK_INTERVAL;
        let mut measure = self.means.now() + Window::STEP;
        let measures = self.pools.iter().any(|pool| pool.is_measured(&self.means));
        loop {
            let now = self.means.now();
            let due = self.pools.iter().filter_map(|pool| pool.deadline(&self.means));
            let due = due
                .chain([look])
                .chain(measures.then_some(measure))
                .min()
                .unwrap_or(look);
            let until = tokio::time::Instant::now() + due.saturating_sub(now);
            match timeout_at(until, self.events.recv()).await {
                Ok(None) => return,
                Ok(Some(event)) => self.act_on_all(event),
                Err(_elapsed) => {}
            }
            let now = self.means.now();
            if measures && now >= measure {
                measure = now + Window::STEP;
                for pool in self.pools.iter_mut().filter(|pool| pool.is_measured(&self.means)) {
                    pool.measure(&self.means);
                }
            }
            if now >= due {
                look = if now >= look { now + LOOK_INTERVAL } else { look };
                self.pools.iter_mut().for_each(|pool| pool.tick(&self.means));
            }
            self.pools.iter_mut().for_each(|pool| pool.publish(&self.means));
            let ended = self.names.as_ref().is_some_and(|names| names.0.is_finished());
            assert!(!ended, "the task that follows names has ended");
            // Under a flood of reports, probes and the admin port get their turns too.
            yield_now().await;
        }
    }

    /// Events that wait are acted on together, so that a pool of thousands is published once for all of them.
    fn act_on_all(&mut self, first: Event) {
        self.act(first);
        for _ in 1..EVENTS_TOGETHER_MAX {
            match self.events.try_recv() {
                Ok(event) => self.act(event),
                Err(_) => return,
            }
        }
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Met { pool, backend, report } => self.pools[pool.0].met(backend, report, &self.means),
            Event::Probed {
                pool,
                backend,
                outcome,
                took,
            } => self.pools[pool.0].probed(backend, outcome, took, &self.means),
            Event::Resolved(Update { pool, backend, outcome }) => {
                self.pools[pool.0].resolved(backend, &outcome, &self.means);
            }
        }
    }
}

/// Passes on what DNS says, for as long as anybody listens.
async fn follow(mut watch: Watch, events: Sender<Event>) {
    loop {
        let update = watch.next().await;
        if events.send(Event::Resolved(update)).await.is_err() {
            return;
        }
    }
}
