//! The life of a serving process on one screen: limits, ports, workers, admin, signals, the end.
//!
//! Owns the main thread and the workers' handles. Never touches a connection. Called by the binary with a checked model.

use crate::admin::Admin;
use crate::cores::{Machine, Placement, place};
use crate::drain::{DrainTimes, Ended, Fleet, Signal, serve_until_ended};
use crate::health::{Board, EVENTS_MAX, Ear, Event, Keeper, Means};
use crate::logs::{FLUSH_TIMEOUT, Logs};
use crate::metrics::Observed;
use crate::notify;
use crate::readiness::{Phase, Readiness};
use crate::session_log::{Names, SessionLog};
use crate::status::{Live, compact};
use crate::transparent;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringway_core::backend::Registry;
use ringway_core::gate::{Cap, Gates};
use ringway_core::limits::{self, Granted, LimitError, ProcessLimits};
use ringway_core::model::{Address, Model, Protocol};
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::WorkerStats;
use ringway_proxy::access::{ClientBounds, client_bounds};
use ringway_proxy::state::{ListenerKeys, cancel_keys};
use ringway_proxy::unrouted::{UnroutedConnections, unrouted};
use ringway_proxy::worker::{Worker, WorkerConfig, WorkerSockets, bind_all};
use ringway_runtime::Capabilities;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Why a process does not serve, or stopped without being asked. Displays as whole sentences, one per line.
#[derive(Debug)]
pub enum RunError {
    /// The limits of the configuration do not fit the descriptor limit.
    Limits(LimitError),
    /// Ports that cannot be bound, one sentence each, at least one.
    Bind(Vec<String>),
    /// io_uring cannot be used here, a capability is missing, or a worker, a probe, a look-up or the session log could not start.
    Start(String),
    /// The main thread cannot get what it needs from the kernel.
    Control(io::Error),
    /// This worker's thread ended while it served.
    WorkerDied(usize),
    /// The task that keeps watch over the backends ended while it served.
    KeeperDied,
}

/// Serves until asked to stop, then drains. Blocks the calling thread; call it once per process. `sources` is where the
/// model is from, for the status.
pub fn run(model: Model, sources: Vec<String>, logs: &Logs) -> Result<(), RunError> {
    let capabilities = Capabilities::probe().map_err(|unavailable| RunError::Start(unavailable.to_string()))?;
    let placement = place(model.workers, model.pin, &Machine::read());
    let workers = placement.pinned_to.len();
    let granted = granted().map_err(RunError::Control)?;
    let limits =
        limits::check(&model, u32::try_from(workers).unwrap_or(u32::MAX), granted).map_err(RunError::Limits)?;
    transparent::check(&model).map_err(RunError::Start)?;
    let ports = bind(&model, workers)?;
    let caps = limits::caps(&model, &limits, granted);
    let gates = Arc::new(Gates::new(
        limits.for_clients,
        granted.ports_for_sessions(),
        caps.iter().copied(),
    ));
    let registry = Arc::new(Registry::default());
    let session_log = start_session_log(&model, logs)?;
    let (events, heard) = mpsc::channel(EVENTS_MAX);
    let ear = Arc::new(Ear::new(events.clone(), session_log.clone()));
    let observed = Arc::new(observe(model, workers, (&*registry, &ear, logs), limits, &caps));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Control)?;
    let common = Common {
        gates,
        clients: client_bounds(&observed.snapshot.model),
        unrouted: unrouted(limits.unrouted(observed.snapshot.model.max_unrouted), workers),
        cancel_keys: cancel_keys(&observed.snapshot.model),
        // Keyed anew for every process.
        id_seed: RandomState::new().hash_one(0),
        capabilities,
        observed,
        ear,
        epoch: Instant::now(),
        started: SystemTime::now(),
        registry,
        events,
        sources,
    };
    let outcome = runtime.block_on(serve(common, heard, ports, &placement, limits));
    if let Some(log) = &session_log {
        log.flush(FLUSH_TIMEOUT);
    }
    outcome
}

/// Everything is bound: starts what serves, and serves.
async fn serve(
    common: Common,
    heard: mpsc::Receiver<Event>,
    ports: Ports,
    placement: &Placement,
    limits: ProcessLimits,
) -> Result<(), RunError> {
    let (sender, mut signals) = listen_for_signals().map_err(RunError::Control)?;
    let readiness = Readiness::default();
    let observed = common.observed.clone();
    let bundles = common.capabilities.bundles;
    let fleet = Arc::new(start_workers(ports.sockets, &placement.pinned_to, &common)?);
    let keeper = keep_health(&fleet, &common, heard)?;
    let keeper_died = tokio::spawn(watch(keeper.run(), sender, readiness.clone()));
    let live = Arc::new(Live {
        observed: observed.clone(),
        readiness: readiness.clone(),
        epoch: common.epoch,
        started: common.started,
        config: common.sources.clone(),
        bound: ports.bound.clone(),
        rates: Mutex::default(),
    });
    tokio::spawn(sample(live.clone()));
    if let Some(admin) = ports.admin {
        tracing::info!(address = %admin.address().map_err(RunError::Control)?, "admin port answers");
        tokio::spawn(admin.serve(live));
    }
    readiness.enter(Phase::Ready);
    notify::ready();
    let model = &observed.snapshot.model;
    let workers = placement.pinned_to.len();
    announce(&observed, &ports.bound, &placement.reason, limits);
    let listeners = model.listeners.len();
    notify::status(&format!("ready: {listeners} listeners on {workers} workers; {limits}"));
    if !bundles {
        tracing::warn!("this kernel fills one buffer per receive (several since 6.10): bulk transfers cost more CPU");
    }
    let times = DrainTimes {
        delay: model.drain_delay,
        timeout: model.drain_timeout,
    };
    let ended = serve_until_ended(&*fleet, &mut signals, &readiness, times).await;
    remove_socket_files(&ports.bound);
    match ended {
        Ended::Asked if keeper_died.is_finished() => Err(RunError::KeeperDied),
        Ended::Asked => Ok(()),
        Ended::WorkerDied(worker) => Err(RunError::WorkerDied(worker)),
    }
}

/// Starts probes and look-ups, and prepares the task that hears workers.
fn keep_health(fleet: &Arc<Running>, common: &Common, heard: mpsc::Receiver<Event>) -> Result<Keeper, RunError> {
    let woken = fleet.clone();
    let means = Means {
        snapshot: common.observed.snapshot.clone(),
        registry: common.registry.clone(),
        workers: common.observed.workers.len(),
        epoch: common.epoch,
        board: common.observed.board.clone(),
        wake_workers: Box::new(move || woken.wake_all()),
    };
    Keeper::start(means, &common.events, heard).map_err(|sentence| fleet.undo(sentence))
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

/// Raises the descriptor limit as far as it goes, and asks how many ports there are.
fn granted() -> io::Result<Granted> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Where raising is refused, the soft limit is what there is.
    let is_raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let range = std::fs::read_to_string(PORT_RANGE);
    Ok(Granted {
        descriptors: if is_raised { hard } else { soft },
        // Where it cannot be read, all that there can be.
        ports: range
            .ok()
            .and_then(|text| ports_in(&text))
            .unwrap_or(u32::from(u16::MAX)),
    })
}

/// `32768 60999`, with a tab between them; both inclusive.
fn ports_in(text: &str) -> Option<u32> {
    let mut numbers = text.split_whitespace().map(str::parse::<u32>);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(last.checked_sub(first)? + 1)
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

fn start_session_log(model: &Model, logs: &Logs) -> Result<Option<SessionLog>, RunError> {
    let settings = model.session_log.as_ref();
    let log = settings.map(|settings| SessionLog::start(settings, Names::from(model), logs));
    log.transpose().map_err(RunError::Start)
}

fn observe(
    model: Model,
    workers: usize,
    (registry, ear, logs): (&Registry, &Arc<Ear>, &Logs),
    limits: ProcessLimits,
    caps: &[Cap],
) -> Observed {
    let listeners = model.listeners.len();
    let snapshot = Arc::new(Snapshot::new(model, registry, workers));
    Observed {
        workers: (0..workers).map(|_| Arc::new(WorkerStats::new(listeners))).collect(),
        board: Arc::new(Board::new(&snapshot)),
        snapshot,
        log_lines_dropped: logs.dropped().clone(),
        ear: Some(ear.clone()),
        connections_max: limits.connections_max,
        listeners_max: caps.iter().map(|cap| cap.max).collect(),
    }
}

/// Waits for the end of the keeper, which is a panic: as long as workers run it has something to hear. Without it they
/// go on with what they know, so open sessions may finish; but new ones would go to backends that nobody watches any
/// more, and whoever started the process must start it again.
async fn watch(keeper: impl Future<Output = ()> + Send + 'static, signals: mpsc::Sender<Signal>, readiness: Readiness) {
    // The panic hook has said where.
    let _ = tokio::spawn(keeper).await;
    tracing::error!("nobody watches over the backends any more, a bug of ours: the process drains and ends");
    // A second one would cut a drain short that is under way.
    if readiness.phase() != Phase::Draining {
        let _ = signals.send(Signal::Stop("the end of the keeper of backends")).await;
    }
}

/// Keeps counters of the last seconds, for rates.
async fn sample(live: Arc<Live>) {
    loop {
        live.sample();
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
}

/// What all workers share.
struct Common {
    gates: Arc<Gates>,
    clients: ClientBounds,
    unrouted: UnroutedConnections,
    cancel_keys: ListenerKeys,
    id_seed: u64,
    capabilities: Capabilities,
    observed: Arc<Observed>,
    ear: Arc<Ear>,
    /// When the shared clock showed 0, and the same moment on the wall.
    epoch: Instant,
    started: SystemTime,
    registry: Arc<Registry>,
    events: mpsc::Sender<Event>,
    sources: Vec<String>,
}

/// Starts one worker after the other. If one cannot start, those before it are stopped.
fn start_workers(
    sockets: Vec<WorkerSockets>,
    pinned_to: &[Option<usize>],
    common: &Common,
) -> Result<Running, RunError> {
    let mut workers = Vec::with_capacity(sockets.len());
    for (index, (sockets, &cpu)) in sockets.into_iter().zip(pinned_to).enumerate() {
        match Worker::start(worker_config(index, cpu, sockets, common)) {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                let started = Running {
                    workers,
                    observed: common.observed.clone(),
                };
                return Err(started.undo(error.0));
            }
        }
    }
    Ok(Running {
        workers,
        observed: common.observed.clone(),
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
        clients: common.clients.clone(),
        unrouted: common.unrouted.clone(),
        cancel_keys: common.cancel_keys.clone(),
        id_seed: common.id_seed,
        capabilities: common.capabilities,
        observer: common.ear.clone(),
        epoch: common.epoch,
    }
}

/// Says what is served, in plain words.
fn announce(observed: &Observed, bound: &[Vec<Address>], placed: &str, limits: ProcessLimits) {
    let listeners = observed.snapshot.model.listeners.iter();
    for ((listener, addresses), &max) in listeners.zip(bound).zip(&observed.listeners_max) {
        for address in compact(addresses) {
            match listener.protocol {
                Protocol::Tcp => tracing::info!(listener = &*listener.name, address, "serving"),
                Protocol::Tls => tracing::info!(listener = &*listener.name, address, "serving TLS, routed by name"),
                Protocol::Udp => {
                    tracing::info!(
                        listener = &*listener.name,
                        address,
                        "serving UDP, at most {max} sessions"
                    );
                }
            }
        }
    }
    let workers = observed.workers.len();
    let plural = if workers == 1 { "worker" } else { "workers" };
    tracing::info!("ready with {workers} {plural} ({placed}); {limits}");
}

/// Also returns the sender, for whoever else may ask for a stop.
fn listen_for_signals() -> io::Result<(mpsc::Sender<Signal>, mpsc::Receiver<Signal>)> {
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
    Ok((sender, receiver))
}

/// The workers that run.
struct Running {
    workers: Vec<Worker>,
    observed: Arc<Observed>,
}

impl Running {
    fn wake_all(&self) {
        self.workers.iter().for_each(Worker::wake_all);
    }

    /// Ends the workers again: something else could not start.
    fn undo(&self, sentence: String) -> RunError {
        for worker in &self.workers {
            worker.stop_accepting();
            worker.reset_relays();
            worker.wait_ended(START_UNDONE_MAX);
        }
        RunError::Start(sentence)
    }
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
            Self::KeeperDied => f.write_str(
                "the task that watches over the backends ended unexpectedly; the process drained, restart it",
            ),
        }
    }
}

impl std::error::Error for RunError {}

/// Signals that wait to be acted on; more than two of the same kind say nothing new.
const SIGNALS_MAX: usize = 8;
/// First and last local port that the kernel chooses by itself (ip(7)).
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// How often rates are sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// For each worker that has to end again because a later one could not start.
const START_UNDONE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
