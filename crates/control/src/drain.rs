//! How a serving process ends: the order of steps from a signal, or from a worker's death, to the exit.
//!
//! Knows workers only as a [`Fleet`], so that the order is tested without sockets and with paused time. Called by
//! `supervisor`; never exits the process itself.

use crate::readiness::{Phase, Readiness};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// All workers of the process.
pub trait Fleet {
    /// Stops accepting on every worker; returns at once.
    fn stop_accepting(&self);
    /// Resets every relay that is left; returns at once.
    fn reset_relays(&self);
    /// The first worker whose thread ended.
    fn ended(&self) -> Option<usize>;
    /// Whether all threads ended.
    fn all_ended(&self) -> bool;
    /// Relays that are open now.
    fn relays(&self) -> u64;
}

/// A signal that means something to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT; carries the name.
    Stop(&'static str),
    /// SIGHUP.
    Hangup,
}

/// How the process stopped serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it was asked to, by a signal.
    Asked,
    /// This worker's thread ended although nobody asked for it.
    WorkerDied(usize),
}

/// The two times of a drain, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct DrainTimes {
    /// Between "not ready" and "stops accepting".
    pub delay: Duration,
    /// For relays to finish.
    pub timeout: Duration,
}

/// How often the workers are looked at while they serve; a worker's death is noticed after this long at most.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// The same while they drain: bounds what a drain costs beyond its last relay.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// Between two lines that tell how a drain goes.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// For resets to be sent and threads to end. With [`crate::logs::FLUSH_TIMEOUT`] below the second in which a process must
/// be gone after its drain.
const RESET_TIMEOUT: Duration = Duration::from_millis(700);
const _: () = assert!(RESET_TIMEOUT.as_millis() + crate::logs::FLUSH_TIMEOUT.as_millis() < 1_000);

/// Waits for a signal or a death, then ends what runs.
pub async fn serve_until_ended(
    fleet: &impl Fleet,
    signals: &mut mpsc::Receiver<Signal>,
    readiness: &Readiness,
    times: DrainTimes,
) -> Ended {
    loop {
        let signal = timeout(WATCH_INTERVAL, signals.recv()).await;
        if let Some(worker) = fleet.ended() {
            return after_death(fleet, worker, readiness).await;
        }
        match signal {
            Ok(Some(Signal::Stop(name))) => return drain(fleet, signals, readiness, times, name).await,
            Ok(Some(Signal::Hangup)) => note_hangup(),
            // Without a sender no signal can come any more; workers are still watched.
            Ok(None) => sleep(WATCH_INTERVAL).await,
            Err(_elapsed) => {}
        }
    }
}

async fn drain(
    fleet: &impl Fleet,
    signals: &mut mpsc::Receiver<Signal>,
    readiness: &Readiness,
    times: DrainTimes,
    signal: &str,
) -> Ended {
    readiness.enter(Phase::Draining);
    crate::notify::stopping();
    let relays = fleet.relays();
    crate::notify::status(&format!("draining: {relays} relays left"));
    tracing::info!(signal, relays, delay = ?times.delay, timeout = ?times.timeout, "stopping: not ready any more");
    if stop_comes(signals, Instant::now() + times.delay).await {
        return reset(fleet, "a second signal came").await;
    }
    if let Some(worker) = fleet.ended() {
        return after_death(fleet, worker, readiness).await;
    }
    fleet.stop_accepting();
    tracing::info!(relays = fleet.relays(), "stopped accepting; relays may finish");

    let deadline = Instant::now() + times.timeout;
    let mut progress = Instant::now() + PROGRESS_INTERVAL;
    while !fleet.all_ended() {
        let now = Instant::now();
        if now >= deadline {
            return reset(fleet, "drain_timeout is over").await;
        }
        if now >= progress {
            tracing::info!(
                relays = fleet.relays(),
                seconds_left = (deadline - now).as_secs(),
                "draining"
            );
            progress = now + PROGRESS_INTERVAL;
        }
        if stop_comes(signals, (now + DRAIN_INTERVAL).min(deadline)).await {
            return reset(fleet, "a second signal came").await;
        }
    }
    tracing::info!("stopped: every relay finished");
    Ended::Asked
}

async fn reset(fleet: &impl Fleet, why: &str) -> Ended {
    tracing::warn!(relays = fleet.relays(), why, "resetting the relays that are left");
    reset_and_wait(fleet).await;
    Ended::Asked
}

/// What is left of a process that lost a worker cannot be trusted and does not serve its share; the sooner it is gone,
/// the sooner whoever started it starts it again.
async fn after_death(fleet: &impl Fleet, worker: usize, readiness: &Readiness) -> Ended {
    readiness.enter(Phase::Draining);
    tracing::error!(
        worker,
        relays = fleet.relays(),
        "a worker's thread ended unexpectedly; the process stops now"
    );
    reset_and_wait(fleet).await;
    Ended::WorkerDied(worker)
}

async fn reset_and_wait(fleet: &impl Fleet) {
    fleet.stop_accepting();
    fleet.reset_relays();
    let deadline = Instant::now() + RESET_TIMEOUT;
    while !fleet.all_ended() {
        if Instant::now() >= deadline {
            tracing::warn!(
                relays = fleet.relays(),
                "workers did not end in time; the kernel closes what is left"
            );
            return;
        }
        sleep(DRAIN_INTERVAL).await;
    }
    tracing::info!("stopped");
}

/// `true` if a stop is asked for before `deadline`.
async fn stop_comes(signals: &mut mpsc::Receiver<Signal>, deadline: Instant) -> bool {
    loop {
        match timeout_at(deadline, signals.recv()).await {
            Ok(Some(Signal::Stop(_))) => return true,
            Ok(Some(Signal::Hangup)) => note_hangup(),
            Ok(None) => {
                tokio::time::sleep_until(deadline).await;
                return false;
            }
            Err(_elapsed) => return false,
        }
    }
}

fn note_hangup() {
    tracing::warn!("SIGHUP ignored: reload does not exist in this version; restart to apply a changed configuration");
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
