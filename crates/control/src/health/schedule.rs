//! When probes run: every interval from start to start, give or take a tenth, sooner while a condition is changing.

use super::keeper::Event;
use crate::probe::{ProbeError, Prober};
use ringway_core::backend::BackendState;
use ringway_core::model::{HealthCheck, PoolIndex, SendProxy};
use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// While a condition is changing, probes are at most this far apart.
const CHANGING_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// A probe that failed while this process stood still for an eighth of the probe's timeout, within these bounds, was
/// perhaps late by our own doing: an answer may have come in time and not been looked at.
const STANDSTILL_MIN: Duration = Duration::from_millis(10);
const STANDSTILL_MAX: Duration = Duration::from_millis(250);
/// First probes of many backends are spread over so long.
const FIRST_SPREAD: Duration = Duration::from_secs(1);
/// So many are asked at once without spreading.
const FIRST_AT_ONCE: usize = 32;

/// Starts the probes of one pool.
#[derive(Debug)]
pub(super) struct Schedule {
    prober: Arc<Prober>,
    check: HealthCheck,
    pool: PoolIndex,
    events: Sender<Event>,
    /// Probes of all pools that may be under way.
    permits: Arc<Semaphore>,
    chance: RandomState,
    started: u64,
}

/// The next probe of a backend; ended when dropped.
#[derive(Debug)]
pub(super) struct Planned(JoinHandle<()>);

impl Drop for Planned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Schedule {
    pub(super) fn new(
        (check, send_proxy): (&HealthCheck, Option<SendProxy>),
        pool: PoolIndex,
        events: Sender<Event>,
        permits: Arc<Semaphore>,
    ) -> Result<Self, String> {
        Ok(Self {
            prober: Arc::new(Prober::new(check, send_proxy)?),
            check: check.clone(),
            pool,
            events,
            permits,
            chance: RandomState::new(),
            started: 0,
        })
    }

    /// The first probe of a backend, one of `count` that come now.
    pub(super) fn first(&mut self, backend: &Arc<BackendState>, name: Option<&Arc<str>>, count: usize) -> Planned {
        let delay = if count > FIRST_AT_ONCE {
            FIRST_SPREAD.min(self.check.interval).mul_f64(self.draw())
        } else {
            Duration::ZERO
        };
        self.plan(backend, name, delay)
    }

    /// The probe after one that took `took`.
    pub(super) fn next(
        &mut self,
        backend: &Arc<BackendState>,
        name: Option<&Arc<str>>,
        took: Duration,
        changing: bool,
    ) -> Planned {
        let interval = if changing {
            self.check.interval.min(CHANGING_INTERVAL_MAX)
        } else {
            self.check.interval
        };
        let jittered = interval.mul_f64(0.9 + 0.2 * self.draw());
        self.plan(backend, name, jittered.saturating_sub(took))
    }

    fn plan(&mut self, backend: &Arc<BackendState>, name: Option<&Arc<str>>, delay: Duration) -> Planned {
        let (prober, events, limit) = (self.prober.clone(), self.events.clone(), self.check.timeout);
        let (pool, backend, name) = (self.pool, backend.clone(), name.cloned());
        let permits = self.permits.clone();
        Planned(tokio::spawn(async move {
            sleep(delay).await;
            // Never closed, so there is always one in the end. The wait for it is no time of the probe: with too many
            // backends that do not answer, all are asked less often.
            let permit = permits.acquire().await;
            let began = Instant::now();
            let step = (limit / 8).clamp(STANDSTILL_MIN, STANDSTILL_MAX);
            let (outcome, standstill) = watched(contained(prober.run(&backend.address, name.as_deref())), step).await;
            let took = began.elapsed();
            drop(permit);
            let outcome = match outcome {
                Err(ProbeError::Failed(words)) if standstill > step => Err(ProbeError::Local(format!(
                    "{words}; this machine was too busy to ask in time, so it does not count"
                ))),
                other => other,
            };
            let event = Event::Probed {
                pool,
                backend: backend.index,
                outcome,
                took,
            };
            // The keeper is gone: so is everything else.
            let _ = events.send(event).await;
        }))
    }

    /// A number from 0 to 1; another one each time.
    fn draw(&mut self) -> f64 {
        self.started += 1;
        (self.chance.hash_one(self.started) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A probe that panics says nothing of the backend, and the next one follows all the same: without, the backend would
/// never be asked again.
async fn contained(probe: impl Future<Output = Result<String, ProbeError>>) -> Result<String, ProbeError> {
    let mut probe = pin!(probe);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| probe.as_mut().poll(context)));
        // The panic hook has reported it.
        polled.unwrap_or_else(|_| Poll::Ready(Err(ProbeError::Local("the probe panicked, a bug of ours".to_owned()))))
    })
    .await
}

/// Does the work and looks at the clock after each step of time, or sooner when there is something to do; the longest
/// time by which such a look was late. Asking only how long the whole took would not tell: of two probes that end late,
/// one may have had all of its time before this process stood still, and the other none.
async fn watched<T>(work: impl Future<Output = T>, step: Duration) -> (T, Duration) {
    let mut work = pin!(work);
    let mut longest = Duration::ZERO;
    loop {
        let looked = Instant::now();
        let done = timeout(step, &mut work).await;
        longest = longest.max(looked.elapsed().saturating_sub(step));
        if let Ok(done) = done {
            return (done, longest);
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
