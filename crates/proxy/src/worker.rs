//! One worker as seen from outside: its listening sockets, its thread, and the orders it takes.
//!
//! `control` binds all listeners of all workers first, then starts the workers; nothing is accepted before every bind
//! has succeeded.

use crate::access::ClientBounds;
use crate::convert;
use crate::observer::Observer;
use crate::state::{ListenerKeys, Orders, Parts, WorkerState};
use crate::tcp::accept::{accept, until_ended};
use crate::udp;
use crate::unrouted::UnroutedConnections;
use ringway_core::gate::Gates;
use ringway_core::model::{Address, Listener, Model, Protocol};
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::WorkerStats;
use ringway_runtime::socket::{self, ListenError};
use ringway_runtime::{
    BufferOptions, Capabilities, DatagramOptions, ListenOptions, Remote, Runtime, Unavailable, bind_datagrams,
    probe_datagram_address_free, receive_buffer, thread as cpu,
};
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The kernel caps a backlog at `net.core.somaxconn`; this asks for all of it.
const BACKLOG_MAX: i32 = i32::MAX;

/// A listener could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The address that failed.
    pub address: Address,
    /// The whole sentence for the operator: what is wrong and what to do.
    pub message: String,
}

/// Bound listening sockets of one worker; parallel to `Model::listeners` and their addresses.
#[derive(Debug, Default)]
pub struct WorkerSockets(Vec<ListenerSockets>);

#[derive(Debug)]
enum ListenerSockets {
    Tcp(Vec<OwnedFd>),
    Udp(Vec<udp::Bound>),
}

impl ListenerSockets {
    const fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp | Protocol::Tls => Self::Tcp(Vec::new()),
            Protocol::Udp => Self::Udp(Vec::new()),
        }
    }

    fn push(&mut self, socket: OwnedFd, bound: &Address) {
        match (self, bound) {
            (Self::Tcp(sockets), _) => sockets.push(socket),
            (Self::Udp(sockets), &Address::Inet(address)) => sockets.push((socket, address)),
            // Refused by the configuration's check.
            (Self::Udp(_), Address::Unix(_)) => {}
        }
    }
}

/// Buffers for datagrams of a worker that has a UDP listener. Only those that are used take memory: a page for each short
/// datagram that waits to be sent on.
const DATAGRAM_BUFFERS: u16 = 256;

/// The sockets of each worker, and the addresses as bound.
pub type Bound = (Vec<WorkerSockets>, Vec<Vec<Address>>);

/// Binds every listener once per worker; all errors are collected, nothing stays bound when there is one.
/// Also returns the addresses as bound (port 0 replaced by the real port), parallel to listeners and addresses.
///
/// # Errors
/// One entry for each address that cannot be listened on.
pub fn bind_all(model: &Model, workers: usize) -> Result<Bound, Vec<BindError>> {
    let mut sockets: Vec<WorkerSockets> = (0..workers).map(|_| WorkerSockets::default()).collect();
    let mut bound = Vec::new();
    let mut errors = Vec::new();
    for listener in &model.listeners {
        for sockets in &mut sockets {
            sockets.0.push(ListenerSockets::new(listener.protocol));
        }
        let mut addresses = Vec::new();
        for address in &listener.bind {
            match bind(listener, address, workers) {
                Ok((opened, address)) => {
                    for (sockets, socket) in sockets.iter_mut().zip(opened) {
                        sockets.0.last_mut().expect("pushed above").push(socket, &address);
                    }
                    addresses.push(address);
                }
                Err(error) => errors.push(BindError {
                    listener: listener.name.clone(),
                    address: address.clone(),
                    message: bind_sentence(listener, address, &error),
                }),
            }
        }
        bound.push(addresses);
    }
    if errors.is_empty() {
        Ok((sockets, bound))
    } else {
        Err(errors)
    }
}

/// One socket per worker on the same address. A UNIX path has one socket, which the workers share.
fn bind(listener: &Listener, address: &Address, workers: usize) -> Result<(Vec<OwnedFd>, Address), ListenError> {
    if let (Protocol::Udp, &Address::Inet(address)) = (listener.protocol, address) {
        return bind_udp(listener, address, workers);
    }
    let mut address = convert::address(address);
    let backlog = listener
        .backlog
        .map_or(BACKLOG_MAX, |backlog| i32::try_from(backlog).unwrap_or(BACKLOG_MAX));
    let options = ListenOptions {
        backlog,
        connection: convert::connection(&listener.keepalive),
    };
    socket::probe_address_free(&address)?;
    let mut sockets: Vec<OwnedFd> = Vec::with_capacity(workers);
    for _ in 0..workers {
        if let (ringway_runtime::Address::Unix(_), Some(first)) = (&address, sockets.first()) {
            let shared = first.try_clone().map_err(|error| ListenError::duplicating(&error))?;
            sockets.push(shared);
            continue;
        }
        let (socket, bound) = socket::listen(&address, &options)?;
        sockets.push(socket);
        address = bound;
    }
    Ok((sockets, convert::model_address(address)))
}

fn bind_udp(
    listener: &Listener,
    mut address: SocketAddr,
    workers: usize,
) -> Result<(Vec<OwnedFd>, Address), ListenError> {
    let options = DatagramOptions {
        receive_buffer: listener.udp.receive_buffer,
        send_buffer: 0,
        // Of which one may be another client's than the next.
        apart: listener.preface.proxy.as_ref().is_some_and(|proxy| proxy.each_datagram),
    };
    probe_datagram_address_free(address)?;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (socket, bound) = bind_datagrams(address, &options)?;
        sockets.push(socket);
        address = bound;
    }
    if let Some(granted) = sockets.first().and_then(receive_buffer)
        && granted < options.receive_buffer
    {
        tracing::warn!(
            listener = &*listener.name,
            address = %address,
            "receive_buffer is {granted} bytes instead of {}: raise net.core.rmem_max, or grant CAP_NET_ADMIN",
            options.receive_buffer
        );
    }
    Ok((sockets, Address::Inet(address)))
}

fn bind_sentence(listener: &Listener, address: &Address, error: &ListenError) -> String {
    let advice = if error.is_address_in_use() {
        match address {
            Address::Inet(address) => format!(
                "another process listens there already (`ss -ltnup 'sport = :{}'` names it); stop it or choose another \
                 address",
                address.port()
            ),
            Address::Unix(_) => "another process listens there".to_owned(),
        }
    } else if error.is_permission_denied() {
        match address {
            Address::Inet(_) => "ports below 1024 need the capability CAP_NET_BIND_SERVICE (systemd: \
                                 AmbientCapabilities=CAP_NET_BIND_SERVICE) or a lower \
                                 net.ipv4.ip_unprivileged_port_start"
                .to_owned(),
            Address::Unix(path) => {
                let directory = path.parent().unwrap_or(path).display();
                format!("the user that runs ringway may not create a socket in {directory}")
            }
        }
    } else if error.is_address_not_available() {
        "no interface of this machine has this address".to_owned()
    } else {
        "check the address".to_owned()
    };
    format!(
        "listener \"{}\": cannot listen on {address}: {error}: {advice}",
        listener.name
    )
}

/// What a worker needs to start.
#[derive(Debug)]
pub struct WorkerConfig {
    /// 0-based; index into `BackendState::workers`.
    pub index: usize,
    /// The core to pin to; `None`: not pinned.
    pub cpu: Option<usize>,
    /// What to run.
    pub snapshot: Arc<Snapshot>,
    /// Counted here.
    pub stats: Arc<WorkerStats>,
    /// What it accepts from.
    pub sockets: WorkerSockets,
    /// Caps on connections, shared by all workers.
    pub gates: Arc<Gates>,
    /// Bounds on client addresses, shared by all workers.
    pub clients: ClientBounds,
    /// Connections of which it is not known yet where they go, shared by all workers.
    pub unrouted: UnroutedConnections,
    /// The keys that PostgreSQL servers issued, shared by all workers.
    pub cancel_keys: ListenerKeys,
    /// Drawn once per process: begins the names of connections.
    pub id_seed: u64,
    /// What the kernel can do.
    pub capabilities: Capabilities,
    /// Hears of what the worker meets.
    pub observer: Arc<dyn Observer>,
    /// When the clock that all workers and the control plane share showed 0.
    pub epoch: Instant,
}

/// A worker could not start: one sentence that names cause and cure.
#[derive(Debug)]
pub struct StartError(pub String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    orders: Arc<Orders>,
    remote: Remote,
    /// Closed when the thread ends.
    ended: Mutex<Receiver<()>>,
}

impl Worker {
    /// Starts the thread and returns when it serves (or failed to).
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn start(config: WorkerConfig) -> Result<Self, StartError> {
        let orders = Arc::new(Orders::default());
        let (started, start) = sync_channel(1);
        let (end, ended) = sync_channel::<()>(1);
        let thread_orders = orders.clone();
        thread::Builder::new()
            .name(format!("worker-{}", config.index))
            .spawn(move || {
                // Dropped last, when the runtime is gone.
                let _end = end;
                run(config, thread_orders, &started);
            })
            .map_err(|error| StartError(format!("cannot start the thread of a worker: {error}")))?;
        let remote = start
            .recv()
            .unwrap_or_else(|_| Err("the thread of a worker ended at once".to_owned()));
        Ok(Self {
            orders,
            remote: remote.map_err(StartError)?,
            ended: Mutex::new(ended),
        })
    }

    /// Stops accepting without dropping queued connections; relays go on. Returns at once.
    pub fn stop_accepting(&self) {
        self.orders.stop_accepting();
        self.remote.run(|handle| handle.wake_all());
    }

    /// Resets every relay that is left (end reason `drain_deadline`). Returns at once.
    pub fn reset_relays(&self) {
        self.orders.reset_relays();
        self.remote.run(|handle| handle.wake_all());
    }

    /// Has every task of the worker look at its orders, and those of its backend. Returns at once.
    pub fn wake_all(&self) {
        self.remote.run(|handle| handle.wake_all());
    }

    /// Waits until the worker's thread ended: after `stop_accepting`, when no relay is left. `true` if it ended within
    /// `timeout`.
    pub fn wait_ended(&self, timeout: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(ended.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected))
    }
}

/// The worker's thread.
fn run(config: WorkerConfig, orders: Arc<Orders>, started: &SyncSender<Result<Remote, String>>) {
    if let Some(cpu) = config.cpu
        && let Err(errno) = cpu::pin_to(cpu)
    {
        tracing::warn!(
            worker = config.index,
            "cannot pin to core {cpu}: {errno}; running unpinned"
        );
    }
    let runtime = match runtime(&config) {
        Ok(runtime) => runtime,
        Err(unavailable) => {
            // The other end waits for exactly this.
            let _ = started.send(Err(unavailable.to_string()));
            return;
        }
    };
    let handle = runtime.handle().clone();
    // At once, because the runtime reads its clock again only when it runs.
    let clock_offset = config
        .epoch
        .elapsed()
        .saturating_sub(Duration::from_nanos(handle.now().as_nanos()));
    let own = Rc::new(udp::Own::new(bound_udp(&config.sockets), &config.snapshot.model));
    let parts = Parts {
        index: config.index,
        snapshot: config.snapshot,
        stats: config.stats,
        gates: config.gates,
        clients: config.clients,
        orders,
        observer: config.observer,
        clock_offset,
        unrouted: config.unrouted,
        cancel_keys: config.cancel_keys,
        id_seed: config.id_seed,
    };
    let state = WorkerState::new(handle.clone(), parts);
    let mut tasks = Vec::new();
    for (index, sockets) in config.sockets.0.into_iter().enumerate() {
        match sockets {
            ListenerSockets::Tcp(sockets) => tasks.extend(sockets.into_iter().map(|socket| {
                let listener = handle.adopt_listener(socket);
                handle.spawn(accept(state.clone(), index, listener))
            })),
            ListenerSockets::Udp(sockets) => {
                let fronts = udp::Fronts::adopt(&handle, sockets);
                tasks.push(handle.spawn(udp::serve(state.clone(), index, fronts, own.clone())));
            }
        }
    }
    let _ = started.send(Ok(handle.remote()));
    runtime.run(until_ended(state.clone(), handle, tasks), |_| {
        state.relieve_buffers();
        state.publish_stats();
    });
}

/// With buffers for datagrams only where there are any.
fn runtime(config: &WorkerConfig) -> Result<Runtime, Unavailable> {
    let model = &config.snapshot.model;
    let buffers = BufferOptions {
        count: model.buffers.count,
        size: model.buffers.size,
    };
    if model.listeners.iter().any(|it| it.protocol == Protocol::Udp) {
        Runtime::with_datagrams(&config.capabilities, buffers, DATAGRAM_BUFFERS)
    } else {
        Runtime::new(&config.capabilities, buffers)
    }
}

/// Addresses that UDP listeners are bound to.
fn bound_udp(sockets: &WorkerSockets) -> impl Iterator<Item = SocketAddr> + '_ {
    let bound = sockets.0.iter().flat_map(|sockets| match sockets {
        ListenerSockets::Udp(sockets) => &sockets[..],
        ListenerSockets::Tcp(_) => &[],
    });
    bound.map(|(_, address)| *address)
}
