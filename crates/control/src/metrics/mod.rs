//! The metrics page: one table (`table`) declares every metric, and page and reference follow from it.
//!
//! Reads what workers count (`ringway_core::stats`) without asking or stopping them. Never counts anything itself and
//! never takes a label value from a client. Called by `admin` at a scrape.

mod table;
mod text;

use crate::health::{BackendBoard, Board, Ear, PoolBoard};
use ringway_core::backend::BackendState;
use ringway_core::reason::{ConnectError, EndReason, RefuseReason, ShedReason};
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::{BackendStats, Counter, Histogram, HistogramTotal, ListenerStats, RuntimeStats, WorkerStats};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
pub use table::METRICS;
use text::Samples;
pub use text::{CONTENT_TYPE, Kind};

/// Everything that a scrape reads.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Names the listeners and pools, and holds what is counted per backend.
    pub snapshot: Arc<Snapshot>,
    /// One per worker.
    pub workers: Vec<Arc<WorkerStats>>,
    /// Counted by the log queue.
    pub log_lines_dropped: Arc<AtomicU64>,
    /// What is known of backends.
    pub board: Arc<Board>,
    /// Hears workers; `None`: nobody does.
    pub ear: Option<Arc<Ear>>,
    /// What the process allows.
    pub connections_max: u32,
    /// The same of each listener, or sessions; parallel to `Model::listeners`.
    pub listeners_max: Vec<u32>,
}

/// One metric of the table.
pub struct Metric {
    /// As scraped; counters end in `_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Names of its labels; values come from the configuration or a closed set, never from a client.
    pub labels: &'static [&'static str],
    /// A sentence or two for whoever meets it on a dashboard.
    pub help: &'static str,
    collect: fn(&Observed, &mut Samples<'_>),
}

/// The page as it is now.
pub fn page(seen: &Observed) -> String {
    // Room for all of it, so that it is not copied while it grows; what is not used is never touched.
    let backends: usize = seen.board.pools().iter().map(|pool| pool.backends.len()).sum();
    let mut page = String::with_capacity(PAGE_BYTES + backends * BACKEND_BYTES);
    for metric in METRICS {
        let mut samples = Samples::begin(&mut page, metric.name, metric.kind, metric.labels, metric.help);
        (metric.collect)(seen, &mut samples);
    }
    page
}

/// Of a page without backends, about.
const PAGE_BYTES: usize = 64 * 1024;
/// What a backend adds to the page, with room for long names.
const BACKEND_BYTES: usize = 10 * 1024;

/// docs/metrics.md, whole.
pub fn reference() -> String {
    let mut page = String::from(REFERENCE_HEAD);
    for metric in METRICS {
        let labels = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let labels = if labels.is_empty() { "–" } else { &labels };
        page.push_str(&format!(
            "| `{}` | {} | {labels} | {} |\n",
            metric.name,
            metric.kind.word(),
            metric.help
        ));
    }
    page.push_str("\n## Reasons\n\n| metric | values of `reason` |\n|---|---|\n");
    let sets: [(&str, Vec<&str>); 4] = [
        (
            "ringway_sessions_ended_total",
            EndReason::ALL.iter().map(|reason| reason.label()).collect(),
        ),
        (
            "ringway_shed_total",
            ShedReason::ALL.iter().map(|reason| reason.label()).collect(),
        ),
        (
            "ringway_refused_total",
            RefuseReason::ALL.iter().map(|reason| reason.label()).collect(),
        ),
        (
            "ringway_backend_connect_errors_total",
            ConnectError::ALL.iter().map(|reason| reason.label()).collect(),
        ),
    ];
    for (metric, reasons) in sets {
        page.push_str(&format!("| `{metric}` | `{}` |\n", reasons.join("`, `")));
    }
    page
}

const REFERENCE_HEAD: &str = "\
# Metrics

Generated from the table in `crates/control/src/metrics/table.rs`; a test compares the two.

`GET /metrics` on the admin port (`127.0.0.1:9900` unless `admin.bind` says otherwise) answers in the Prometheus text
format 0.0.4. Counters end in `_total` and start at 0 with the process; times are `_seconds`, sizes `_bytes`. The label
`backend` is the address as the configuration has it, `worker` counts from 0. No label value comes from a client.

| metric | type | labels | meaning |
|---|---|---|---|
";

impl Observed {
    fn sum_listener(&self, index: usize, counter: impl Fn(&ListenerStats) -> &Counter) -> u64 {
        // Wrapping: a gauge is a sum whose parts one worker may have added and another subtracted.
        self.workers
            .iter()
            .map(|worker| counter(&worker.listeners[index]).value())
            .fold(0, u64::wrapping_add)
    }

    fn each_listener(&self, out: &mut Samples<'_>, counter: impl Fn(&ListenerStats) -> &Counter) {
        for (index, listener) in self.snapshot.model.listeners.iter().enumerate() {
            out.value(&[&listener.name], self.sum_listener(index, &counter));
        }
    }

    fn each_pool(&self, mut visit: impl FnMut(&str, &PoolBoard)) {
        for (pool, board) in self.snapshot.model.pools.iter().zip(self.board.pools().iter()) {
            visit(&pool.name, board);
        }
    }

    fn each_backend(&self, mut visit: impl FnMut(&str, &BackendBoard)) {
        self.each_pool(|pool, board| board.backends.iter().for_each(|backend| visit(pool, backend)));
    }

    fn each_worker(&self, out: &mut Samples<'_>, counter: impl Fn(&RuntimeStats) -> &Counter) {
        for (index, worker) in self.workers.iter().enumerate() {
            out.value(&[&index.to_string()], counter(&worker.runtime).value());
        }
    }

    /// Connections open now over all listeners and workers.
    pub fn connections(&self) -> u64 {
        (0..self.snapshot.model.listeners.len())
            .map(|index| self.sum_listener(index, |stats| &stats.connections))
            .sum()
    }
}

fn sum_backend(backend: &BackendState, counter: impl Fn(&BackendStats) -> &Counter) -> u64 {
    backend.workers.iter().map(|worker| counter(worker).value()).sum()
}

fn sum_histograms<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> HistogramTotal {
    let mut total = HistogramTotal::default();
    histograms.for_each(|histogram| histogram.add_to(&mut total));
    total
}
