//! How many connections fit into the descriptor limit, and whether the configuration's own limits do.
//!
//! Arithmetic on numbers only: `ringway-control` asks the kernel for the limit (RLIMIT_NOFILE) and hands it in at
//! start, before anything is bound.

use crate::model::{Backend, Listener, Model, Pool, Resolve, Target};
use std::fmt;

/// Descriptors of one relay: the client's socket and the backend's.
pub const DESCRIPTORS_PER_CONNECTION: u64 = 2;

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

    /// Whether listeners with these `max_connections` fit into `limit` descriptors. `None` stands for a listener
    /// without a limit of its own: it may use whatever is free.
    pub fn check(
        &self,
        max_connections: impl IntoIterator<Item = Option<u32>>,
        limit: u64,
    ) -> Result<ProcessLimits, LimitError> {
        let fit = self.connections_fit(limit);
        let reserve = self.descriptors();
        if fit == 0 {
            return Err(LimitError::NoneFits { reserve, limit });
        }
        let (mut limited, mut unlimited, mut wanted) = (0, 0, 0);
        for max in max_connections {
            match max {
                Some(max) => {
                    limited += 1;
                    wanted += u64::from(max);
                }
                None => unlimited += 1,
            }
        }
        if wanted > u64::from(fit) {
            return Err(LimitError::TooMany {
                listeners: limited,
                wanted,
                reserve,
                limit,
                fit,
            });
        }
        let connections_max = match u32::try_from(wanted) {
            Ok(wanted) if unlimited == 0 && limited > 0 => wanted,
            _ => fit,
        };
        Ok(ProcessLimits {
            connections_max,
            connections_fit: fit,
            reserve,
            descriptors: limit,
        })
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

/// Checks a configuration against the descriptor limit `limit`, with as many workers as will be started.
pub fn check(model: &Model, workers: u32, limit: u64) -> Result<ProcessLimits, LimitError> {
    Reserve::of(model, workers).check(
        model
            .listeners
            .iter()
            .map(|listener: &Listener| listener.max_connections),
        limit,
    )
}

/// The limits under which the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Connections open at the same time over all listeners: the sum of the listeners' own limits, or
    /// [`Self::connections_fit`] as soon as one listener has none.
    pub connections_max: u32,
    /// What the descriptor limit has room for.
    pub connections_fit: u32,
    /// Descriptors kept for everything that is not a relay.
    pub reserve: u64,
    /// The descriptor limit.
    pub descriptors: u64,
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
        /// How many listeners have a limit of their own.
        listeners: u32,
        /// The sum of those limits.
        wanted: u64,
        /// Descriptors needed besides connections.
        reserve: u64,
        /// The descriptor limit.
        limit: u64,
        /// Connections that fit.
        fit: u32,
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
                listeners,
                wanted,
                reserve,
                limit,
                fit,
            } => {
                let (sum, in_all) = match listeners {
                    1 => ("max_connections is", ""),
                    _ => ("max_connections of listeners add up to", " in all"),
                };
                let needed = wanted * EACH + reserve;
                write!(
                    f,
                    "{sum} {wanted}; {EACH} descriptors each + {reserve} for ourselves = {needed}, but the descriptor \
                     limit is {limit}: raise it (LimitNOFILE=, ulimit -n) or lower max_connections to {fit}{in_all}"
                )
            }
        }
    }
}
