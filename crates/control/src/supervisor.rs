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
use ringway_core::gate::Gates;
use ringway_core::limits::{self, LimitError, ProcessLimits};
use ringway_core::model::{Address, Model};
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::WorkerStats;
use ringway_proxy::worker::{Worker, WorkerConfig, WorkerSockets, bind_all};
use ringway_runtime::Capabilities;
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
    /// io_uring cannot be used here, or a worker could not start.
    Start(String),
    /// The main thread cannot get what it needs from the kernel.
    Control(io::Error),
    /// This worker's thread ended while it served.
    WorkerDied(usize),
}

/// Serves until asked to stop, then drains. Blocks the calling thread; call it once per process.
pub fn run(model: Model, logs: &Logs) -> Result<(), RunError> {
    let capabilities = Capabilities::probe().map_err(|unavailable| RunError::Start(unavailable.to_string()))?;
    let placement = place(model.workers, model.pin, &Machine::read());
    let workers = placement.pinned_to.len();
    let limits = fit_limits(&model, workers)?;
    let ports = bind(&model, workers)?;
    let own_caps = model.listeners.iter().map(|listener| listener.max_connections);
    let gates = Arc::new(Gates::new(limits.connections_max, own_caps));
    let observed = Arc::new(observe(model, workers, logs));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Control)?;
    runtime.block_on(async {
        let mut signals = listen_for_signals().map_err(RunError::Control)?;
        let readiness = Readiness::default();
        let common = Common {
            gates,
            capabilities,
            observed: observed.clone(),
        };
        let fleet = start_workers(ports.sockets, &placement.pinned_to, common)?;
        if let Some(admin) = ports.admin {
            tracing::info!(address = %admin.address().map_err(RunError::Control)?, "admin port answers");
            tokio::spawn(admin.serve(observed.clone(), readiness.clone()));
        }
        readiness.enter(Phase::Ready);
        let model = &observed.snapshot.model;
        announce(model, &ports.bound, &placement.reason, workers, limits);
        if !capabilities.bundles {
            tracing::warn!(
                "this kernel fills one buffer per receive (several since 6.10): bulk transfers cost more CPU"
            );
        }
        let times = DrainTimes {
            delay: model.drain_delay,
            timeout: model.drain_timeout,
        };
        let ended = serve_until_ended(&fleet, &mut signals, &readiness, times).await;
        remove_socket_files(&ports.bound);
        match ended {
            Ended::Asked => Ok(()),
            Ended::WorkerDied(worker) => Err(RunError::WorkerDied(worker)),
        }
    })
}

/// The files of UNIX listeners that nobody listens on any more.
fn remove_socket_files(bound: &[Vec<Address>]) {
    for address in bound.iter().flatten() {
        if let Address::Unix(path) = address
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), "the file of a UNIX listener stays: {error}");
        }
    }
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

fn observe(model: Model, workers: usize, logs: &Logs) -> Observed {
    Observed {
        workers: (0..workers)
            .map(|_| Arc::new(WorkerStats::new(model.listeners.len())))
            .collect(),
        snapshot: Arc::new(Snapshot::new(model, &Registry::default(), workers)),
        log_lines_dropped: logs.dropped().clone(),
    }
}

/// What all workers share.
struct Common {
    gates: Arc<Gates>,
    capabilities: Capabilities,
    observed: Arc<Observed>,
}

/// Starts one worker after the other. If one cannot start, those before it are stopped.
fn start_workers(
    sockets: Vec<WorkerSockets>,
    pinned_to: &[Option<usize>],
    common: Common,
) -> Result<Running, RunError> {
    let mut workers = Vec::with_capacity(sockets.len());
    for (index, (sockets, &cpu)) in sockets.into_iter().zip(pinned_to).enumerate() {
        match Worker::start(worker_config(index, cpu, sockets, &common)) {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                for worker in &workers {
                    worker.stop_accepting();
                    worker.reset_relays();
                    worker.wait_ended(START_UNDONE_MAX);
                }
                return Err(RunError::Start(error.0));
            }
        }
    }
    Ok(Running {
        workers,
        observed: common.observed,
    })
}

fn worker_config(index: usize, cpu: Option<usize>, sockets: WorkerSockets, common: &Common) -> WorkerConfig {
    WorkerConfig {
        index,
        cpu,
        snapshot: common.observed.snapshot.clone(),
        stats: common.observed.workers[index].clone(),
        sockets,
        gates: common.gates.clone(),
        capabilities: common.capabilities,
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
