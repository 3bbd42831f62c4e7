//! The metrics page: one table declares every metric, and page and reference follow from it.
//!
//! Reads what workers count (`ringway_core::stats`) without asking or stopping them. Never counts anything itself and
//! never takes a label value from a client. Called by `admin` at a scrape.

mod text;

use ringway_core::backend::BackendState;
use ringway_core::reason::{ConnectError, EndReason, ShedReason};
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::{BackendStats, Counter, Histogram, HistogramTotal, ListenerStats, RuntimeStats, WorkerStats};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
}

/// One metric: the only place where its name, type, labels, help and source are written.
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

/// Every metric, in the order of the page.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "ringway_build_info",
        kind: Kind::Gauge,
        labels: &["version"],
        help: "Always 1; the label tells which version runs.",
        collect: |_, out| out.value(&[env!("CARGO_PKG_VERSION")], 1),
    },
    Metric {
        name: "ringway_listener_connections_total",
        kind: Kind::Counter,
        labels: &["listener"],
        help: "Connections accepted.",
        collect: |seen, out| seen.each_listener(out, |stats| &stats.connections_total),
    },
    Metric {
        name: "ringway_listener_connections",
        kind: Kind::Gauge,
        labels: &["listener"],
        help: "Connections open now.",
        collect: |seen, out| seen.each_listener(out, |stats| &stats.connections),
    },
    Metric {
        name: "ringway_listener_bytes_total",
        kind: Kind::Counter,
        labels: &["listener", "direction"],
        help: "Bytes relayed. Direction in: received from clients and passed on to backends; \
               out: received from backends and passed on to clients.",
        collect: |seen, out| {
            for (index, listener) in seen.snapshot.model.listeners.iter().enumerate() {
                out.value(
                    &[&listener.name, "in"],
                    seen.sum_listener(index, |stats| &stats.bytes_from_clients),
                );
                out.value(
                    &[&listener.name, "out"],
                    seen.sum_listener(index, |stats| &stats.bytes_from_backends),
                );
            }
        },
    },
    Metric {
        name: "ringway_sessions_ended_total",
        kind: Kind::Counter,
        labels: &["listener", "reason"],
        help: "Sessions that ended, by the reason of the end.",
        collect: |seen, out| {
            for (index, listener) in seen.snapshot.model.listeners.iter().enumerate() {
                for reason in EndReason::ALL {
                    let ended = seen.sum_listener(index, |stats| &stats.ended[reason.index()]);
                    out.value(&[&listener.name, reason.label()], ended);
                }
            }
        },
    },
    Metric {
        name: "ringway_session_seconds",
        kind: Kind::Histogram,
        labels: &["listener"],
        help: "How long sessions lasted, from accept to end; counted when they end.",
        collect: |seen, out| {
            for (index, listener) in seen.snapshot.model.listeners.iter().enumerate() {
                let histograms = seen
                    .workers
                    .iter()
                    .map(|worker| &worker.listeners[index].session_seconds);
                out.histogram(&[&listener.name], &sum_histograms(histograms));
            }
        },
    },
    Metric {
        name: "ringway_shed_total",
        kind: Kind::Counter,
        labels: &["listener", "reason"],
        help: "Times that accepting paused; clients wait in the kernel's queue meanwhile, nobody is refused. Reason \
               max_connections: a cap on connections was reached; descriptors: descriptors or memory ran out.",
        collect: |seen, out| {
            for (index, listener) in seen.snapshot.model.listeners.iter().enumerate() {
                for reason in ShedReason::ALL {
                    let shed = seen.sum_listener(index, |stats| &stats.shed[reason.index()]);
                    out.value(&[&listener.name, reason.label()], shed);
                }
            }
        },
    },
    Metric {
        name: "ringway_backend_up",
        kind: Kind::Gauge,
        labels: &["pool", "backend"],
        help: "1 while the backend can be chosen, else 0. Without a health check a backend counts as usable, so this \
               is 1 whatever its condition.",
        // Nothing removes a backend from the choice yet; health replaces this constant when it judges backends.
        collect: |seen, out| seen.each_backend(|pool, backend| out.value(&[pool, &backend.label], 1)),
    },
    Metric {
        name: "ringway_backend_connections",
        kind: Kind::Gauge,
        labels: &["pool", "backend"],
        help: "Connections to the backend that are open or being opened now, exact over all workers.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| out.value(&[pool, &backend.label], backend.connections()));
        },
    },
    Metric {
        name: "ringway_backend_connections_total",
        kind: Kind::Counter,
        labels: &["pool", "backend"],
        help: "Connections that were established to the backend.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                out.value(
                    &[pool, &backend.label],
                    sum_backend(backend, |stats| &stats.connections_total),
                );
            });
        },
    },
    Metric {
        name: "ringway_backend_connect_errors_total",
        kind: Kind::Counter,
        labels: &["pool", "backend", "reason"],
        help: "Tries to connect to the backend that failed. Reason local is an error of this machine (descriptors, \
               ports, memory), not of the backend.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                for reason in ConnectError::ALL {
                    let failed = sum_backend(backend, |stats| &stats.connect_errors[reason.index()]);
                    out.value(&[pool, &backend.label, reason.label()], failed);
                }
            });
        },
    },
    Metric {
        name: "ringway_backend_connect_seconds",
        kind: Kind::Histogram,
        labels: &["pool", "backend"],
        help: "How long it took to connect to the backend; successful tries only.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                let histograms = backend.workers.iter().map(|worker| &worker.connect_seconds);
                out.histogram(&[pool, &backend.label], &sum_histograms(histograms));
            });
        },
    },
    Metric {
        name: "ringway_tasks_panicked_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Bugs of ours that ended one connection each and were contained; please report them.",
        collect: |seen, out| {
            out.value(
                &[],
                seen.workers
                    .iter()
                    .map(|worker| worker.runtime.tasks_panicked.value())
                    .sum::<u64>(),
            );
        },
    },
    Metric {
        name: "ringway_log_lines_dropped_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Log lines that were dropped because their reader was too slow or gone.",
        collect: |seen, out| out.value(&[], seen.log_lines_dropped.load(Ordering::Relaxed)),
    },
    Metric {
        name: "ringway_runtime_turns_total",
        kind: Kind::Counter,
        labels: &["worker"],
        help: "Turns of the worker's loop: submit, wait, reap, run.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.turns),
    },
    Metric {
        name: "ringway_runtime_enters_total",
        kind: Kind::Counter,
        labels: &["worker"],
        help: "System calls io_uring_enter; one per turn unless a submission queue was full.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.enters),
    },
    Metric {
        name: "ringway_runtime_direct_calls_total",
        kind: Kind::Counter,
        labels: &["worker"],
        help: "System calls made beside the ring: socket, setsockopt, shutdown, close and the like.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.direct_calls),
    },
    Metric {
        name: "ringway_runtime_completions_total",
        kind: Kind::Counter,
        labels: &["worker"],
        help: "Completions reaped from the ring.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.completions),
    },
    Metric {
        name: "ringway_runtime_buffers_out",
        kind: Kind::Gauge,
        labels: &["worker"],
        help: "Receive buffers that are leased now.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.buffers_out),
    },
    Metric {
        name: "ringway_runtime_spilled_bytes",
        kind: Kind::Gauge,
        labels: &["worker"],
        help: "Bytes that wait for slow readers in memory of their own, because buffers were short.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.bytes_spilled),
    },
    Metric {
        name: "ringway_runtime_buffers_dry_total",
        kind: Kind::Counter,
        labels: &["worker"],
        help: "Receives that ended because no buffer was left; if this grows steadily, raise buffers.count.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.buffers_dry),
    },
    Metric {
        name: "ringway_runtime_readers_starved",
        kind: Kind::Gauge,
        labels: &["worker"],
        help: "Readers that wait for a buffer now.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.readers_starved),
    },
    Metric {
        name: "ringway_runtime_cq_overflows_total",
        kind: Kind::Counter,
        labels: &["worker"],
        help: "Overflows of the completion queue; should stay 0.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.cq_overflows),
    },
    Metric {
        name: "ringway_runtime_tasks",
        kind: Kind::Gauge,
        labels: &["worker"],
        help: "Tasks that exist now: one per connection and a few of the worker's own.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.tasks),
    },
];

/// The page as it is now.
pub fn page(seen: &Observed) -> String {
    let mut page = String::with_capacity(16 * 1024);
    for metric in METRICS {
        let mut samples = Samples::begin(&mut page, metric.name, metric.kind, metric.labels, metric.help);
        (metric.collect)(seen, &mut samples);
    }
    page
}

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
    let sets: [(&str, Vec<&str>); 3] = [
        (
            "ringway_sessions_ended_total",
            EndReason::ALL.iter().map(|reason| reason.label()).collect(),
        ),
        (
            "ringway_shed_total",
            ShedReason::ALL.iter().map(|reason| reason.label()).collect(),
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

Generated from the table in `crates/control/src/metrics/mod.rs`; a test compares the two.

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

    fn each_backend(&self, mut visit: impl FnMut(&str, &BackendState)) {
        for (pool, state) in self.snapshot.model.pools.iter().zip(&self.snapshot.pools) {
            for backend in &state.backends {
                visit(&pool.name, backend);
            }
        }
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
