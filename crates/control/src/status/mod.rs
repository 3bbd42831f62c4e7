//! The status document: what a running process sees, as plain values that `GET /api/v1/status` serialises.
//!
//! Owns the document's shape (its field names are an interface), its rates, how it is fetched and how people read it.
//! Never changes anything and never counts anything itself. Filled by whoever serves it; read by `ringway status` and
//! `ringway demo`.

pub mod client;
mod compact;
pub mod grid;
mod live;
mod moment;
mod rates;
mod table;
pub mod units;

pub use compact::compact;
pub use live::Live;
pub use moment::rfc3339;
pub use rates::{Counted, PerSecond, Rates, Subject};
use ringway_core::stats::{HistogramTotal, quantile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use table::{mark, table};

/// Where the document is on the admin port.
pub const PATH: &str = "/api/v1/status";

/// Everything `GET /api/v1/status` says.
///
/// Fields that an older process does not send are taken for empty, those that a newer one adds are left alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Of the process.
    pub version: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whole seconds since then.
    pub uptime_seconds: u64,
    /// `starting`, `ready` or `draining`.
    pub phase: String,
    /// Worker threads.
    pub workers: usize,
    /// Open now, over all listeners.
    pub connections: u64,
    /// What the process allows.
    pub connections_max: u64,
    /// What was loaded: paths as given, or the flags that stand for a file.
    pub config: Vec<String>,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
    /// In the order of the configuration.
    pub pools: Vec<PoolStatus>,
}

/// One listener. `in` is from clients to backends, `out` from backends to clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerStatus {
    /// As configured.
    pub name: String,
    /// The addresses as bound.
    pub bind: Vec<String>,
    /// `tcp`, `udp` or `tls`.
    pub protocol: String,
    /// Names of the pools it feeds: one, or of TLS all that its connections may go to.
    pub pools: Vec<String>,
    /// Open now.
    pub connections: u64,
    /// Its own cap.
    pub connections_max: Option<u64>,
    /// Accepted since the start.
    pub connections_total: u64,
    /// Over the last seconds.
    pub connections_per_second: f64,
    /// Since the start.
    pub bytes_in: u64,
    /// Since the start.
    pub bytes_out: u64,
    /// Over the last seconds.
    pub bytes_in_per_second: u64,
    /// Over the last seconds.
    pub bytes_out_per_second: u64,
    /// Ended sessions by reason; reasons that never occurred are absent.
    pub ended: BTreeMap<String, u64>,
    /// Refused connections by reason, which are no sessions; reasons that never occurred are absent.
    pub refused: BTreeMap<String, u64>,
}

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolStatus {
    /// As configured.
    pub name: String,
    /// The word of the configuration.
    pub balance: String,
    /// So many backends that two are drawn and compared instead of all.
    pub sampled: bool,
    /// Backends that can be chosen now.
    pub usable: usize,
    /// Connections that wait for room; `None`: the pool has no queue.
    pub queue: Option<QueueStatus>,
    /// Backups serve.
    pub on_backups: bool,
    /// Names among the backends, with what DNS said last.
    pub names: Vec<NameStatus>,
    /// Those that leave included.
    pub backends: Vec<BackendStatus>,
}

/// The queue of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueStatus {
    /// Now.
    pub waiting: u64,
    /// At most.
    pub max: u64,
}

/// A name among the backends of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameStatus {
    /// As configured.
    pub name: String,
    /// What the last look-up gave, in words.
    pub outcome: String,
}

/// One backend of one pool. `in` is from clients to it, `out` from it to clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendStatus {
    /// As the operator wrote it; of a name: `NAME/ADDRESS`.
    pub label: String,
    /// Where it listens.
    pub address: String,
    /// The name that DNS resolved to the address.
    pub name: Option<String>,
    /// `up`, `down`, `ejected` or `draining`.
    pub condition: String,
    /// When it became that; RFC 3339, UTC.
    pub since: String,
    /// Whole seconds since then.
    pub for_seconds: u64,
    /// Why, in words.
    pub why: String,
    /// As configured.
    pub weight: u32,
    /// Percent of new connections that it is meant to get; `None`: the algorithm has no fixed shares.
    pub share: Option<f64>,
    /// Used only while no other backend is usable.
    pub backup: bool,
    /// Its cap.
    pub max_connections: Option<u64>,
    /// The last active probe.
    pub last_probe: Option<ProbeStatus>,
    /// Open or being opened now.
    pub connections: u64,
    /// Established since the start.
    pub connections_total: u64,
    /// Over the last seconds.
    pub connections_per_second: f64,
    /// Failed tries since the start, whatever the reason.
    pub connect_errors: u64,
    /// Since the start.
    pub bytes_in: u64,
    /// Since the start.
    pub bytes_out: u64,
    /// Over the last seconds.
    pub bytes_in_per_second: u64,
    /// Over the last seconds.
    pub bytes_out_per_second: u64,
    /// From the first SYN to an established connection, since the start.
    pub connect_ms: Option<Quantiles>,
    /// From the first byte towards it to the first byte from it, since the start.
    pub first_byte_ms: Option<Quantiles>,
    /// The average by which `least_response_time` judges it.
    pub response_ms: Option<f64>,
}

/// The result of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeStatus {
    /// When it ended; RFC 3339, UTC.
    pub at: String,
    /// Whether the backend is well.
    pub passed: bool,
    /// What was seen.
    pub words: String,
}

/// Three points of a distribution, milliseconds to three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantiles {
    /// Half of the observations do not exceed it.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
}

impl Quantiles {
    /// Of what workers observed; `None` without an observation.
    pub fn of(total: &HistogramTotal) -> Option<Self> {
        let milliseconds = |q| Some(quantile(total, q)?.as_micros() as f64 / 1_000.0);
        Some(Self {
            p50: milliseconds(0.5)?,
            p90: milliseconds(0.9)?,
            p99: milliseconds(0.99)?,
        })
    }
}

#[cfg(test)]
mod tests;
