//! How many connections fit into the descriptor limit, and whether the configuration's own limits do.
//!
//! Arithmetic on numbers only: `ringway-control` asks the kernel for the limit (RLIMIT_NOFILE) and hands it in at
//! start, before anything is bound.

use crate::gate::Cap;
use crate::model::{Backend, Listener, Model, Pool, Protocol, Resolve, Source, Target};
use std::fmt;

/// Descriptors of one relay: the client's socket and the backend's.
pub const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// Descriptors of one UDP session: the socket towards its backend.
pub const DESCRIPTORS_PER_SESSION: u64 = 1;

/// Sessions of a UDP listener that says no number of its own, at most.
pub const SESSIONS_DEFAULT_MAX: u32 = 65_536;

/// Local ports that are kept from UDP sessions: for probes over UDP and look-ups of names, and because the kernel's search
/// for a free one gets slow when there are few.
pub const RESERVE_PORTS: u32 = 1_024;

/// Descriptors that the process keeps for itself whatever is configured: the three standard streams; of the control
/// plane its epoll instance, wake-up, signal pipe and their duplicates (8); configuration and log files while they
/// are open (4).
pub const RESERVE_PROCESS: u64 = 15;

/// With an admin port: its listener and the requests it answers at the same time, also when everything else is full.
pub const RESERVE_ADMIN: u64 = 1 + 16;

/// Pipes that a worker has at the same time for streams that it splices; what finds none is copied. A stream holds one
/// only while bytes are in it. Eight workers' pipes are what the kernel lets one user have at their full size (pipe(7),
/// pipe-user-pages-soft: 64 MiB, 1 MiB each).
pub const PIPES_PER_WORKER: u32 = 8;

/// Per worker: its ring, its wake-up, clients that were accepted before the stop of a full worker's accepting took
/// effect and are about to be shed (6), and both ends of its pipes.
pub const RESERVE_PER_WORKER: u64 = 2 + 6 + 2 * PIPES_PER_WORKER as u64;

/// Active probes under way at the same time over all pools; each holds one descriptor, and of each backend there is
/// one at most.
pub const PROBES_MAX: u32 = 256;

/// Addresses that one name may stand for; each is a backend that is probed.
pub const ADDRESSES_PER_NAME_MAX: u32 = 64;

/// Lookups of names under way at the same time for one setting of `resolve`.
pub const LOOKUPS_MAX: u32 = 64;

/// Descriptors of one lookup: A and AAAA are asked for at the same time.
pub const DESCRIPTORS_PER_LOOKUP: u64 = 2;

/// What the process needs besides relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Worker threads, 1 to 1024.
    pub workers: u32,
    /// Bind addresses of all listeners together; each worker has a socket for each.
    pub bind_addresses: u32,
    /// Whether there is an admin port.
    pub admin: bool,
    /// Active probes at the same time, at most [`PROBES_MAX`].
    pub probes: u32,
    /// Lookups of names at the same time.
    pub lookups: u32,
}

impl Reserve {
    /// What this configuration needs with this many workers.
    pub fn of(model: &Model, workers: u32) -> Self {
        let bind_addresses = model
            .listeners
            .iter()
            .map(|listener| listener.bind.len())
            .sum::<usize>();
        Self {
            workers,
            bind_addresses: u32::try_from(bind_addresses).unwrap_or(u32::MAX),
            admin: model.admin.is_some(),
            probes: probes(model),
            lookups: lookups(model),
        }
    }

    /// In descriptors.
    pub fn descriptors(&self) -> u64 {
        let admin = if self.admin { RESERVE_ADMIN } else { 0 };
        let workers = u64::from(self.workers) * (RESERVE_PER_WORKER + u64::from(self.bind_addresses));
        let asking = u64::from(self.probes) + u64::from(self.lookups) * DESCRIPTORS_PER_LOOKUP;
        RESERVE_PROCESS + admin + asking + workers
    }

    /// Connections that fit beside the reserve into `limit` descriptors.
    pub fn connections_fit(&self, limit: u64) -> u32 {
        let connections = limit.saturating_sub(self.descriptors()) / DESCRIPTORS_PER_CONNECTION;
        u32::try_from(connections).unwrap_or(u32::MAX)
    }

    /// Whether listeners that demand this fit into `limit` descriptors.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, demands: impl IntoIterator<Item = Demand>, limit: u64) -> Result<ProcessLimits, LimitError> {
        let fit = self.connections_fit(limit);
        let reserve = self.descriptors();
        if fit == 0 {
            return Err(LimitError::NoneFits { reserve, limit });
        }
        let mut wanted = Wanted::default();
        let (mut unlimited, mut sharing) = (0, Sharing::default());
        for demand in demands {
            demand.check(self.workers)?;
            sharing.add(demand)?;
            match demand.max {
                Some(max) => wanted.add(demand.of, max),
                None => unlimited += 1,
            }
        }
        let free = limit - reserve;
        if wanted.descriptors() > free {
            return Err(LimitError::TooMany {
                wanted,
                reserve,
                limit,
                fit,
            });
        }
        let is_sum = unlimited == 0 && wanted.listeners > 0;
        let for_clients = if is_sum { wanted.descriptors() } else { free };
        let connections = for_clients / DESCRIPTORS_PER_CONNECTION;
        Ok(ProcessLimits {
            connections_max: u32::try_from(connections).unwrap_or(u32::MAX),
            connections_fit: fit,
            for_clients: u32::try_from(for_clients).unwrap_or(u32::MAX),
            reserve,
            descriptors: limit,
        })
    }
}

/// What a listener has for each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// TCP connections.
    Connections,
    /// UDP sessions. Each has a local port, of which there are this many.
    Sessions {
        /// Local ports for all of them.
        ports: u32,
        /// Those are the ports of all other listeners of UDP as well.
        is_shared: bool,
    },
}

impl Of {
    /// Descriptors of one.
    pub const fn descriptors(self) -> u64 {
        match self {
            Self::Connections => DESCRIPTORS_PER_CONNECTION,
            Self::Sessions { .. } => DESCRIPTORS_PER_SESSION,
        }
    }
}

/// What a listener demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Of what.
    pub of: Of,
    /// Its own limit; `None`: it may use whatever is free.
    pub max: Option<u32>,
}

impl Demand {
    fn new(model: &Model, listener: &Listener, ports: u32) -> Self {
        let of = match listener.protocol {
            Protocol::Tcp | Protocol::Tls => Of::Connections,
            Protocol::Udp => {
                // Each source address has ports of its own; of clients there are as many as there are sessions.
                let (sources, is_shared) = match &model.pools[listener.only_pool().0].source {
                    Source::Kernel => (1, true),
                    Source::Addresses(list) => (u32::try_from(list.len()).unwrap_or(u32::MAX), false),
                    Source::Client => (u32::MAX, false),
                };
                Of::Sessions {
                    ports: ports.saturating_mul(sources),
                    is_shared,
                }
            }
        };
        Self {
            of,
            max: listener.max_connections,
        }
    }

    fn check(self, workers: u32) -> Result<(), LimitError> {
        match (self.of, self.max) {
            (Of::Sessions { .. }, Some(max)) if max < workers => Err(LimitError::FewerThanWorkers { max, workers }),
            (Of::Sessions { ports, .. }, Some(max)) if max > ports => Err(LimitError::TooFewPorts {
                listeners: 1,
                max,
                ports,
            }),
            _ => Ok(()),
        }
    }

    /// The most that it ever has.
    fn cap(self, limits: &ProcessLimits) -> u32 {
        let most = match self.of {
            Of::Connections => limits.connections_max,
            Of::Sessions { ports, .. } => SESSIONS_DEFAULT_MAX.min(ports).min(limits.for_clients),
        };
        self.max.unwrap_or(most)
    }
}

/// Sessions of listeners that share the local ports.
#[derive(Default)]
struct Sharing {
    listeners: u32,
    sessions: u32,
}

impl Sharing {
    fn add(&mut self, demand: Demand) -> Result<(), LimitError> {
        let (Of::Sessions { ports, is_shared: true }, Some(max)) = (demand.of, demand.max) else {
            return Ok(());
        };
        self.listeners += 1;
        self.sessions = self.sessions.saturating_add(max);
        if self.sessions > ports {
            return Err(LimitError::TooFewPorts {
                listeners: self.listeners,
                max: self.sessions,
                ports,
            });
        }
        Ok(())
    }
}

/// The sum of what listeners with limits of their own demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How many such listeners there are.
    pub listeners: u32,
    /// TCP connections.
    pub connections: u64,
    /// UDP sessions.
    pub sessions: u64,
}

impl Wanted {
    fn add(&mut self, of: Of, max: u32) {
        self.listeners += 1;
        match of {
            Of::Connections => self.connections += u64::from(max),
            Of::Sessions { .. } => self.sessions += u64::from(max),
        }
    }

    /// In descriptors.
    pub const fn descriptors(&self) -> u64 {
        self.connections * DESCRIPTORS_PER_CONNECTION + self.sessions * DESCRIPTORS_PER_SESSION
    }
}

/// One for each backend that is probed, as far as they may be asked at the same time.
fn probes(model: &Model) -> u32 {
    let backends = |pool: &Pool| {
        let each = pool.backends.iter().map(|backend| match backend.target {
            Target::Address(_) => 1,
            Target::Name(_) => ADDRESSES_PER_NAME_MAX,
        });
        each.fold(0, u32::saturating_add)
    };
    let probed = model.pools.iter().filter(|pool| pool.health.check.is_some());
    probed.map(backends).fold(0, u32::saturating_add).min(PROBES_MAX)
}

/// Pools of the same setting share its servers, and so the bound on lookups.
fn lookups(model: &Model) -> u32 {
    let mut settings: Vec<(&Resolve, u32)> = Vec::new();
    for pool in &model.pools {
        let is_name = |backend: &&Backend| matches!(backend.target, Target::Name(_));
        let names = u32::try_from(pool.backends.iter().filter(is_name).count()).unwrap_or(u32::MAX);
        match settings.iter_mut().find(|(setting, _)| **setting == pool.resolve) {
            Some((_, sum)) => *sum = sum.saturating_add(names),
            None => settings.push((&pool.resolve, names)),
        }
    }
    let at_once = settings.iter().map(|&(_, names)| names.min(LOOKUPS_MAX));
    at_once.fold(0, u32::saturating_add)
}

/// What the kernel lets this process have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Descriptors (RLIMIT_NOFILE).
    pub descriptors: u64,
    /// Local ports that it chooses for sockets (net.ipv4.ip_local_port_range, ip(7)).
    pub ports: u32,
}

impl Granted {
    /// Local ports for UDP sessions.
    pub const fn ports_for_sessions(&self) -> u32 {
        // Of a narrow range half.
        let reserve = if self.ports / 2 < RESERVE_PORTS {
            self.ports / 2
        } else {
            RESERVE_PORTS
        };
        self.ports - reserve
    }
}

fn demands(model: &Model, ports: u32) -> impl Iterator<Item = Demand> + '_ {
    let demand = move |listener| Demand::new(model, listener, ports);
    model.listeners.iter().map(demand)
}

/// Checks a configuration against what the kernel grants, with as many workers as will be started.
///
/// # Errors
/// What does not fit.
pub fn check(model: &Model, workers: u32, granted: Granted) -> Result<ProcessLimits, LimitError> {
    Reserve::of(model, workers).check(demands(model, granted.ports_for_sessions()), granted.descriptors)
}

/// The most that each listener may have at the same time; parallel to `Model::listeners`.
pub fn caps(model: &Model, limits: &ProcessLimits, granted: Granted) -> Vec<Cap> {
    let cap = |demand: Demand| Cap {
        max: demand.cap(limits),
        descriptors: demand.of.descriptors() as u32,
        shares_ports: matches!(demand.of, Of::Sessions { is_shared: true, .. }),
    };
    demands(model, granted.ports_for_sessions()).map(cap).collect()
}

/// The limits under which the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Connections open at the same time over all listeners: the sum of the listeners' own limits, or
    /// [`Self::connections_fit`] as soon as one listener has none.
    pub connections_max: u32,
    /// What the descriptor limit has room for.
    pub connections_fit: u32,
    /// Descriptors for connections and sessions.
    pub for_clients: u32,
    /// Descriptors kept for everything that is not a relay.
    pub reserve: u64,
    /// The descriptor limit.
    pub descriptors: u64,
}

impl ProcessLimits {
    /// Connections of which it may be unknown where they go. Without `max` half of all connections: whoever says nothing
    /// keeps nobody out who does.
    pub fn unrouted(&self, max: Option<u32>) -> u32 {
        max.unwrap_or(self.connections_max / 2).max(1)
    }
}

impl fmt::Display for ProcessLimits {
    /// One line for the log at start.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at most {} connections: the descriptor limit is {}, {} are kept for ourselves, each connection takes {}, \
             so {} would fit",
            self.connections_max, self.descriptors, self.reserve, DESCRIPTORS_PER_CONNECTION, self.connections_fit
        )
    }
}

/// The descriptor limit is too small. Displays as one sentence with the arithmetic and the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// Not even one connection fits.
    NoneFits {
        /// Descriptors needed besides connections.
        reserve: u64,
        /// The descriptor limit.
        limit: u64,
    },
    /// The listeners' `max_connections` do not fit.
    TooMany {
        /// The sum of their limits.
        wanted: Wanted,
        /// Descriptors needed besides connections.
        reserve: u64,
        /// The descriptor limit.
        limit: u64,
        /// Connections that fit.
        fit: u32,
    },
    /// A UDP listener has fewer sessions than workers to share them.
    FewerThanWorkers {
        /// Its `max_sessions`.
        max: u32,
        /// Worker threads.
        workers: u32,
    },
    /// UDP listeners have more sessions than there are local ports for them.
    TooFewPorts {
        /// How many of them.
        listeners: u32,
        /// Their `max_sessions` together.
        max: u32,
        /// Local ports.
        ports: u32,
    },
}

impl std::error::Error for LimitError {}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EACH: u64 = DESCRIPTORS_PER_CONNECTION;
        match *self {
            Self::NoneFits { reserve, limit } => write!(
                f,
                "the descriptor limit is {limit}, but {reserve} descriptors for ourselves and {EACH} for each \
                 connection are needed: raise it to {} or more (LimitNOFILE=, ulimit -n)",
                reserve + EACH
            ),
            Self::TooMany {
                wanted,
                reserve,
                limit,
                fit,
            } => {
                let (add_up, in_all) = match wanted.listeners {
                    1 => ("is", ""),
                    _ => ("of listeners add up to", " in all"),
                };
                let sessions = wanted.sessions;
                let needed = wanted.descriptors() + reserve;
                match (wanted.connections, wanted.sessions) {
                    (connections, 0) => write!(f, "max_connections {add_up} {connections}; {EACH} descriptors each")?,
                    (0, sessions) => write!(f, "max_sessions {add_up} {sessions}; 1 descriptor each")?,
                    (connections, sessions) => write!(
                        f,
                        "max_connections add up to {connections}, {EACH} descriptors each, max_sessions to {sessions}, 1 \
                         each;"
                    )?,
                }
                write!(
                    f,
                    " + {reserve} for ourselves = {needed}, but the descriptor limit is {limit}: raise it \
                     (LimitNOFILE=, ulimit -n) or lower "
                )?;
                match (wanted.connections, sessions) {
                    (_, 0) => write!(f, "max_connections to {fit}{in_all}"),
                    (0, _) => write!(f, "max_sessions to {}{in_all}", limit - reserve),
                    _ => f.write_str("them"),
                }
            }
            Self::FewerThanWorkers { max, workers } => write!(
                f,
                "max_sessions is {max}, but {workers} workers share them: write {workers} or more, or workers: {max}"
            ),
            Self::TooFewPorts { listeners, max, ports } => write!(
                f,
                "max_sessions {} {max}, but each session takes a local port, and there are {ports} for them: widen \
                 net.ipv4.ip_local_port_range, add addresses to the pool's source, or lower max_sessions to {ports}",
                if listeners == 1 { "is" } else { "of listeners add up to" }
            ),
        }
    }
}
