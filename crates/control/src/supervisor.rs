//! The life of a serving process on one screen: limits, ports, workers, admin, signals, the end.
//!
//! Owns the main thread and the workers' handles. Never touches a connection. Called by the binary with a checked model.

use crate::admin::Admin;
use crate::cores::{Machine, place};
use crate::drain::{DrainTimes, Ended, Fleet, Signal, serve_until_ended};
use crate::logs::Logs;
use crate::metrics::Observed;
use crate::readiness::{Phase, Readiness};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringway_core::backend::Registry;
use ringway_core::limits::{self, LimitError, ProcessLimits};
use ringway_core::model::{Address, Model};
use ringway_core::stats::WorkerStats;
use ringway_proxy::worker::{Worker, WorkerConfig, WorkerSockets, bind_all};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Why a process does not serve, or stopped without being asked. Displays as whole sentences, one per line.
#[derive(Debug)]
pub enum RunError {
    /// The limits of the configuration do not fit the descriptor limit.
    Limits(LimitError),
    /// Ports that cannot be bound, one sentence each, at least one.
    Bind(Vec<String>),
    /// A worker could not start.
    Start(String),
    /// The main thread cannot get what it needs from the kernel.
    Control(io::Error),
    /// This worker's thread ended while it served.
    WorkerDied(usize),
}

/// Serves until asked to stop, then drains. Blocks the calling thread; call it once per process.
pub fn run(model: Model, logs: &Logs) -> Result<(), RunError> {
    let placement = place(model.workers, model.pin, &Machine::read());
    let workers = placement.pinned_to.len();
    let limits = fit_limits(&model, workers)?;
    let ports = bind(&model, workers)?;
    let observed = Arc::new(observe(Arc::new(model), workers, logs));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Control)?;
    runtime.block_on(async {
        let mut signals = listen_for_signals().map_err(RunError::Control)?;
        let readiness = Readiness::default();
        let fleet = start_workers(ports.sockets, &placement.pinned_to, limits.connections_max, &observed)?;
        if let Some(admin) = ports.admin {
            tracing::info!(address = %admin.address().map_err(RunError::Control)?, "admin port answers");
            tokio::spawn(admin.serve(observed.clone(), readiness.clone()));
        }
        readiness.enter(Phase::Ready);
        announce(&observed.model, &ports.bound, &placement.reason, workers, limits);
        let times = DrainTimes {
            delay: observed.model.drain_delay,
            timeout: observed.model.drain_timeout,
        };
        match serve_until_ended(&fleet, &mut signals, &readiness, times).await {
            Ended::Asked => Ok(()),
            Ended::WorkerDied(worker) => Err(RunError::WorkerDied(worker)),
        }
    })
}

/// Raises the descriptor limit as far as it goes and checks that the configuration fits into it.
fn fit_limits(model: &Model, workers: usize) -> Result<ProcessLimits, RunError> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| RunError::Control(errno.into()))?;
    // Where raising is refused, the soft limit is what there is.
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        hard
    } else {
        soft
    };
    let workers = u32::try_from(workers).unwrap_or(u32::MAX);
    limits::check(model, workers, limit).map_err(RunError::Limits)
}

/// Everything bound: nothing has been accepted yet.
struct Ports {
    admin: Option<Admin>,
    /// One per worker.
    sockets: Vec<WorkerSockets>,
    /// Parallel to the listeners and their addresses.
    bound: Vec<Vec<Address>>,
}

/// Binds every port of the process; what fails is told all at once.
fn bind(model: &Model, workers: usize) -> Result<Ports, RunError> {
    let admin = model.admin.map(Admin::bind).transpose();
    let sockets = bind_all(model, workers);
    match (admin, sockets) {
        (Ok(admin), Ok((sockets, bound))) => Ok(Ports { admin, sockets, bound }),
        (admin, sockets) => {
            let listeners = sockets.err().unwrap_or_default().into_iter().map(|error| error.message);
            Err(RunError::Bind(listeners.chain(admin.err()).collect()))
        }
    }
}

fn observe(model: Arc<Model>, workers: usize, logs: &Logs) -> Observed {
    let registry = Registry::default();
    Observed {
        workers: (0..workers)
            .map(|_| Arc::new(WorkerStats::new(model.listeners.len())))
            .collect(),
        pools: model.pools.iter().map(|pool| registry.pool(pool, workers)).collect(),
        log_lines_dropped: logs.dropped().clone(),
        model,
    }
}

/// Starts one worker after the other. If one cannot start, those before it are stopped.
fn start_workers(
    sockets: Vec<WorkerSockets>,
    pinned_to: &[Option<usize>],
    connections_max: u32,
    observed: &Arc<Observed>,
) -> Result<Running, RunError> {
    let mut running = Running {
        workers: Vec::with_capacity(sockets.len()),
        observed: observed.clone(),
    };
    for (index, (sockets, &cpu)) in sockets.into_iter().zip(pinned_to).enumerate() {
        match Worker::start(worker_config(index, cpu, sockets, connections_max, observed)) {
            Ok(worker) => running.workers.push(worker),
            Err(error) => {
                running.stop_accepting();
                running.reset_relays();
                running.workers.iter().for_each(|worker| {
                    worker.wait_ended(START_UNDONE_MAX);
                });
                return Err(RunError::Start(error.0));
            }
        }
    }
    Ok(running)
}

fn worker_config(
    index: usize,
    cpu: Option<usize>,
    sockets: WorkerSockets,
    connections_max: u32,
    observed: &Observed,
) -> WorkerConfig {
    WorkerConfig {
        index,
        cpu,
        model: observed.model.clone(),
        pools: observed.pools.clone().into(),
        stats: observed.workers[index].clone(),
        sockets,
        connections_max,
        buffers: observed.model.buffers,
    }
}

/// Says what is served, in plain words.
fn announce(model: &Model, bound: &[Vec<Address>], placed: &str, workers: usize, limits: ProcessLimits) {
    for (listener, addresses) in model.listeners.iter().zip(bound) {
        for address in addresses {
            tracing::info!(listener = &*listener.name, address = %address, "serving");
        }
    }
    let plural = if workers == 1 { "worker" } else { "workers" };
    tracing::info!("ready with {workers} {plural} ({placed}); {limits}");
}

fn listen_for_signals() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(SIGNALS_MAX);
    let meanings = [
        (SignalKind::terminate(), Signal::Stop("SIGTERM")),
        (SignalKind::interrupt(), Signal::Stop("SIGINT")),
        (SignalKind::hangup(), Signal::Hangup),
    ];
    for (kind, meaning) in meanings {
        let mut arrivals = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move { while arrivals.recv().await.is_some() && sender.send(meaning).await.is_ok() {} });
    }
    Ok(receiver)
}

/// The workers that run.
struct Running {
    workers: Vec<Worker>,
    observed: Arc<Observed>,
}

impl Fleet for Running {
    fn stop_accepting(&self) {
        self.workers.iter().for_each(Worker::stop_accepting);
    }

    fn reset_relays(&self) {
        self.workers.iter().for_each(Worker::reset_relays);
    }

    fn ended(&self) -> Option<usize> {
        self.workers.iter().position(|worker| worker.wait_ended(Duration::ZERO))
    }

    fn all_ended(&self) -> bool {
        self.workers.iter().all(|worker| worker.wait_ended(Duration::ZERO))
    }

    fn relays(&self) -> u64 {
        self.observed.connections()
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::Bind(sentences) => f.write_str(&sentences.join("\n")),
            Self::Start(sentence) => f.write_str(sentence),
            Self::Control(error) => write!(f, "the control plane cannot start: {error}"),
            Self::WorkerDied(worker) => {
                write!(
                    f,
                    "the thread of worker {worker} ended unexpectedly; every relay was reset, restart the process"
                )
            }
        }
    }
}

impl std::error::Error for RunError {}

/// Signals that wait to be acted on; more than two of the same kind say nothing new.
const SIGNALS_MAX: usize = 8;
/// For each worker that has to end again because a later one could not start.
const START_UNDONE_MAX: Duration = Duration::from_secs(1);
