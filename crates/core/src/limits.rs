//! How many connections fit into the descriptor limit, and whether the configuration's own limits do.
//!
//! Arithmetic on numbers only: `ringway-control` asks the kernel for the limit (RLIMIT_NOFILE) and hands it in at
//! start, before anything is bound.

use crate::model::{Listener, Model};
use std::fmt;

/// Descriptors of one relay: the client's socket and the backend's.
pub const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// Descriptors that the process keeps for itself whatever is configured: the three standard streams; of the control
/// plane its epoll instance, wake-up, signal pipe and their duplicates (8); configuration and log files while they
/// are open (4).
pub const RESERVE_PROCESS: u64 = 15;

/// With an admin port: its listener and the requests it answers at the same time, also when everything else is full.
pub const RESERVE_ADMIN: u64 = 1 + 16;

/// Per worker: its ring, its wake-up, and clients that were accepted before the stop of a full worker's accepting
/// took effect and are about to be shed (6).
pub const RESERVE_PER_WORKER: u64 = 2 + 6;

/// What the process needs besides relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Worker threads, 1 to 1024.
    pub workers: u32,
    /// Bind addresses of all listeners together; each worker has a socket for each.
    pub bind_addresses: u32,
    /// Whether there is an admin port.
    pub admin: bool,
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
        }
    }

    /// In descriptors.
    pub fn descriptors(&self) -> u64 {
        let admin = if self.admin { RESERVE_ADMIN } else { 0 };
        let workers = u64::from(self.workers) * (RESERVE_PER_WORKER + u64::from(self.bind_addresses));
        RESERVE_PROCESS + admin + workers
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
