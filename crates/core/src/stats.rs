//! Counters that workers write and the admin thread reads.
//!
//! Every counter has one writer (its worker), so an update is a relaxed load and a relaxed store, never an atomic
//! read-modify-write; a scrape sums over workers without asking them. Sums may be a few events behind, never torn.

use crate::reason::{ConnectError, DropReason, EndReason, RefuseReason, ShedReason};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number with one writer and any number of readers. Also serves as a gauge: the writer may subtract.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the one writer may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts; only the one writer may call this.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Replaces; only the one writer may call this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Reads; anybody may.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets of [`Histogram`], in microseconds; a last bucket without bound follows.
/// 100 µs to 1 h covers a connect on loopback as well as a database session.
pub const HISTOGRAM_BOUNDS_US: [u64; 18] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
];

/// A histogram with fixed buckets and one writer.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last one is above every bound.
    buckets: [Counter; HISTOGRAM_BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Counts one duration, in the bucket whose bound it does not exceed; only the one writer may call this.
    pub fn observe(&self, duration: Duration) {
        let bucket = HISTOGRAM_BOUNDS_US.partition_point(|&bound| Duration::from_micros(bound) < duration);
        self.buckets[bucket].add(1);
        self.sum_us.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds what was counted to `total`.
    pub fn add_to(&self, total: &mut HistogramTotal) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.value();
        }
        total.sum_us += self.sum_us.value();
    }
}

/// A sum of histograms, for readers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramTotal {
    /// Not cumulative; parallel to [`HISTOGRAM_BOUNDS_US`] with one more at the end.
    pub buckets: [u64; HISTOGRAM_BOUNDS_US.len() + 1],
    /// Sum of all observations, microseconds.
    pub sum_us: u64,
}

/// The duration that a share `q` (0 to 1) of the observations does not exceed; `None` without observations.
///
/// Observations count as spread evenly over their bucket, so the answer is exact at bounds and linear between them. Of
/// the bucket without bound nothing more is known than that it is above the last bound: that is the answer there.
pub fn quantile(total: &HistogramTotal, q: f64) -> Option<Duration> {
    let count: u64 = total.buckets.iter().sum();
    if count == 0 {
        return None;
    }
    let rank = q.clamp(0.0, 1.0) * count as f64;
    let mut before = 0;
    for (index, &bucket) in total.buckets.iter().enumerate() {
        let upto = before + bucket;
        if bucket > 0 && upto as f64 >= rank {
            let Some(&upper) = HISTOGRAM_BOUNDS_US.get(index) else {
                break;
            };
            let lower = if index == 0 { 0 } else { HISTOGRAM_BOUNDS_US[index - 1] };
            let within = ((rank - before as f64) / bucket as f64).max(0.0);
            let us = lower as f64 + (upper - lower) as f64 * within;
            return Some(Duration::from_nanos((us * 1_000.0).round() as u64));
        }
        before = upto;
    }
    Some(Duration::from_micros(
        HISTOGRAM_BOUNDS_US[HISTOGRAM_BOUNDS_US.len() - 1],
    ))
}

/// What one worker counted for one listener.
#[derive(Debug, Default)]
pub struct ListenerStats {
    /// Accepted connections.
    pub connections_total: Counter,
    /// Open now.
    pub connections: Counter,
    /// Bytes received from clients and passed on to backends.
    pub bytes_from_clients: Counter,
    /// Bytes received from backends and passed on to clients.
    pub bytes_from_backends: Counter,
    /// Ended relays by [`EndReason::index`].
    pub ended: [Counter; EndReason::COUNT],
    /// Shed connections by [`ShedReason::index`].
    pub shed: [Counter; ShedReason::COUNT],
    /// Refused connections by [`RefuseReason::index`].
    pub refused: [Counter; RefuseReason::COUNT],
    /// From accept to end.
    pub session_seconds: Histogram,
    /// Datagrams of clients that were passed on to backends.
    pub datagrams_from_clients: Counter,
    /// Datagrams of backends that were passed on to clients.
    pub datagrams_from_backends: Counter,
    /// Datagrams that were not passed on, by [`DropReason::index`].
    pub dropped: [Counter; DropReason::COUNT],
    /// Sessions that went on with another backend.
    pub moved: Counter,
}

/// What one worker counted for one backend of one pool.
///
/// Aligned to two cache lines because a backend's workers stand side by side in one array.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BackendStats {
    /// Connections that were established.
    pub connections_total: Counter,
    /// Failed tries by [`ConnectError::index`].
    pub connect_errors: [Counter; ConnectError::COUNT],
    /// From the first SYN to an established connection.
    pub connect_seconds: Histogram,
    /// Bytes received from clients and passed on to the backend.
    pub bytes_from_clients: Counter,
    /// Bytes received from the backend and passed on to clients.
    pub bytes_from_backends: Counter,
    /// From the first byte passed on to the backend to the first byte from it, or the connect time if it speaks first.
    pub first_byte_seconds: Histogram,
    /// Connections that the backend ended before its first byte, without the client having ended.
    pub ended_early: Counter,
    /// Datagrams of clients that were passed on to the backend.
    pub datagrams_from_clients: Counter,
    /// Datagrams of the backend that were passed on to clients.
    pub datagrams_from_backends: Counter,
}

/// What one worker's runtime counted. Filled by the worker once per loop turn or less often.
#[derive(Debug, Default)]
pub struct RuntimeStats {
    /// Loop turns.
    pub turns: Counter,
    /// `io_uring_enter` calls; equal to the turns but for full submission queues.
    pub enters: Counter,
    /// Direct system calls (socket, setsockopt, shutdown, close, ...).
    pub direct_calls: Counter,
    /// Completions reaped.
    pub completions: Counter,
    /// Receive buffers that are lent out now.
    pub buffers_out: Counter,
    /// Bytes that relays copied out of buffers because those were short, and still hold.
    pub bytes_spilled: Counter,
    /// Bytes of streams that were passed on without being copied. Counted by relays as they go.
    pub bytes_spliced: Counter,
    /// Receives that ended because the buffer ring was dry.
    pub buffers_dry: Counter,
    /// Readers that wait for buffers now.
    pub readers_starved: Counter,
    /// Completion-queue overflows.
    pub cq_overflows: Counter,
    /// Tasks that panicked and were contained.
    pub tasks_panicked: Counter,
    /// Tasks that exist now.
    pub tasks: Counter,
    /// Connections of which it is not known yet where they go, now.
    pub unrouted: Counter,
}

/// Everything that one worker counts apart from backends.
#[derive(Debug)]
pub struct WorkerStats {
    /// Parallel to `Model::listeners`.
    pub listeners: Box<[ListenerStats]>,
    /// The worker's event loop.
    pub runtime: RuntimeStats,
}

impl WorkerStats {
    /// Zeroes for this many listeners.
    pub fn new(listeners: usize) -> Self {
        Self {
            listeners: (0..listeners).map(|_| ListenerStats::default()).collect(),
            runtime: RuntimeStats::default(),
        }
    }
}
