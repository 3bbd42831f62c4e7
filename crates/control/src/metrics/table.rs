//! Every metric: the only place where names, types, labels, help and sources are written.
//!
//! Page and reference follow from this table. Nothing is counted here, and no label value comes from a client.

use super::{Kind, Metric, Observed, sum_backend, sum_histograms};
use ringway_core::health::Condition;
use ringway_core::model::{Listener, Protocol};
use ringway_core::reason::{ConnectError, DropReason, EndReason, RefuseReason, ShedReason};
use ringway_core::stats::{BackendStats, Counter};
use std::sync::atomic::Ordering;

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
        name: "ringway_listener_connections_max",
        kind: Kind::Gauge,
        labels: &["listener"],
        help: "Connections that may be open at the same time: the listener's own limit, or that of the process.",
        collect: |seen, out| {
            for (listener, &max) in seen.snapshot.model.listeners.iter().zip(&seen.listeners_max) {
                out.value(&[&listener.name], u64::from(max));
            }
        },
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
        help: "Sessions that ended, by the reason of the end; docs/session-log.md explains each.",
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
        name: "ringway_refused_total",
        kind: Kind::Counter,
        labels: &["listener", "reason"],
        help: "Connections that were closed by reset because of who their client is, by the reason; docs/access.md \
               explains each. They are no sessions, except where a PROXY header named the client. Of UDP see \
               ringway_udp_dropped_total.",
        collect: |seen, out| {
            for (index, listener) in seen.snapshot.model.listeners.iter().enumerate() {
                if listener.protocol == Protocol::Udp {
                    continue;
                }
                for reason in RefuseReason::ALL {
                    let refused = seen.sum_listener(index, |stats| &stats.refused[reason.index()]);
                    out.value(&[&listener.name, reason.label()], refused);
                }
            }
        },
    },
    Metric {
        name: "ringway_udp_sessions",
        kind: Kind::Gauge,
        labels: &["listener"],
        help: "UDP sessions that are open now.",
        collect: |seen, out| {
            for (index, listener) in udp_listeners(seen) {
                let open = seen.sum_listener(index, |stats| &stats.connections);
                out.value(&[&listener.name], open);
            }
        },
    },
    Metric {
        name: "ringway_udp_sessions_moved_total",
        kind: Kind::Counter,
        labels: &["listener"],
        help: "Times that a UDP session went on with another backend because its own was lost.",
        collect: |seen, out| {
            for (index, listener) in udp_listeners(seen) {
                out.value(&[&listener.name], seen.sum_listener(index, |stats| &stats.moved));
            }
        },
    },
    Metric {
        name: "ringway_udp_datagrams_total",
        kind: Kind::Counter,
        labels: &["listener", "direction"],
        help: "Datagrams relayed. Direction in: received from clients and passed on to backends; \
               out: received from backends and passed on to clients.",
        collect: |seen, out| {
            for (index, listener) in udp_listeners(seen) {
                let from_clients = seen.sum_listener(index, |stats| &stats.datagrams_from_clients);
                let from_backends = seen.sum_listener(index, |stats| &stats.datagrams_from_backends);
                out.value(&[&listener.name, "in"], from_clients);
                out.value(&[&listener.name, "out"], from_backends);
            }
        },
    },
    Metric {
        name: "ringway_udp_backend_datagrams_total",
        kind: Kind::Counter,
        labels: &["pool", "backend", "direction"],
        help: "Datagrams relayed, by backend. Direction in: passed on to the backend; out: received from it.",
        collect: |seen, out| {
            let pools =
                || udp_listeners(seen).map(|(_, listener)| &*seen.snapshot.model.pools[listener.only_pool().0].name);
            seen.each_backend(|pool, backend| {
                if !pools().any(|name| name == pool) {
                    return;
                }
                for (direction, count) in [
                    ("in", sum_backend(&backend.state, |stats| &stats.datagrams_from_clients)),
                    (
                        "out",
                        sum_backend(&backend.state, |stats| &stats.datagrams_from_backends),
                    ),
                ] {
                    out.value(&[pool, &backend.state.label, direction], count);
                }
            });
        },
    },
    Metric {
        name: "ringway_udp_dropped_total",
        kind: Kind::Counter,
        labels: &["listener", "reason"],
        help: "Datagrams that were not passed on, by the reason; docs/udp.md explains each.",
        collect: |seen, out| {
            for (index, listener) in udp_listeners(seen) {
                for reason in DropReason::ALL {
                    let dropped = seen.sum_listener(index, |stats| &stats.dropped[reason.index()]);
                    out.value(&[&listener.name, reason.label()], dropped);
                }
            }
        },
    },
    Metric {
        name: "ringway_backend_up",
        kind: Kind::Gauge,
        labels: &["pool", "backend"],
        help: "1 while the backend is up, else 0. Without a health check a backend counts as up until connections to it \
               fail.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                let up = u64::from(backend.condition == Condition::Up);
                out.value(&[pool, &backend.state.label], up);
            });
        },
    },
    Metric {
        name: "ringway_backend_condition",
        kind: Kind::Gauge,
        labels: &["pool", "backend", "condition"],
        help: "1 for the condition that the backend is in (up, down, ejected, draining), 0 for the others.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                for condition in Condition::ALL {
                    let is = u64::from(backend.condition == condition);
                    out.value(&[pool, &backend.state.label, condition.word()], is);
                }
            });
        },
    },
    Metric {
        name: "ringway_health_checks_total",
        kind: Kind::Counter,
        labels: &["pool", "backend", "result"],
        help: "Active probes that ended. Result passed: the backend is well; failed: it is not; local: this machine could \
               not ask, which counts for nothing.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                if backend.last_probe.is_none() {
                    return;
                }
                let label = &*backend.state.label;
                out.value(&[pool, label, "passed"], backend.probes.passed);
                out.value(&[pool, label, "failed"], backend.probes.failed);
                out.value(&[pool, label, "local"], backend.probes.local);
            });
        },
    },
    Metric {
        name: "ringway_pool_backends_usable",
        kind: Kind::Gauge,
        labels: &["pool"],
        help: "Backends that can be chosen now; 0 means that new connections of the pool are reset.",
        collect: |seen, out| seen.each_pool(|pool, board| out.value(&[pool], board.usable as u64)),
    },
    Metric {
        name: "ringway_pool_on_backups",
        kind: Kind::Gauge,
        labels: &["pool"],
        help: "1 while backups serve because no other backend is usable, else 0.",
        collect: |seen, out| seen.each_pool(|pool, board| out.value(&[pool], u64::from(board.on_backups))),
    },
    Metric {
        name: "ringway_pool_queue",
        kind: Kind::Gauge,
        labels: &["pool"],
        help: "Connections that wait now for a backend with room.",
        collect: |seen, out| {
            for (pool, state) in seen.snapshot.model.pools.iter().zip(&seen.snapshot.pools) {
                if let Some(line) = &state.line {
                    out.value(&[&pool.name], line.len() as u64);
                }
            }
        },
    },
    Metric {
        name: "ringway_names_unresolved",
        kind: Kind::Gauge,
        labels: &["pool"],
        help: "Names among the backends that have no address now.",
        collect: |seen, out| {
            seen.each_pool(|pool, board| {
                let unresolved = board.names.values().filter(|name| !name.is_resolved).count();
                out.value(&[pool], unresolved as u64);
            });
        },
    },
    Metric {
        name: "ringway_backend_connections",
        kind: Kind::Gauge,
        labels: &["pool", "backend"],
        help: "Connections to the backend that are open or being opened now, exact over all workers.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                out.value(&[pool, &backend.state.label], u64::from(backend.state.connections()));
            });
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
                    &[pool, &backend.state.label],
                    sum_backend(&backend.state, |stats| &stats.connections_total),
                );
            });
        },
    },
    Metric {
        name: "ringway_backend_connect_errors_total",
        kind: Kind::Counter,
        labels: &["pool", "backend", "reason"],
        help: "Tries to connect to the backend that failed. Reason local is an error of this machine (descriptors, \
               ports, memory) or a client that cannot be taken there (source: client), not of the backend.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                for reason in ConnectError::ALL {
                    let failed = sum_backend(&backend.state, |stats| &stats.connect_errors[reason.index()]);
                    out.value(&[pool, &backend.state.label, reason.label()], failed);
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
                let histograms = backend.state.workers.iter().map(|worker| &worker.connect_seconds);
                out.histogram(&[pool, &backend.state.label], &sum_histograms(histograms));
            });
        },
    },
    Metric {
        name: "ringway_backend_first_byte_seconds",
        kind: Kind::Histogram,
        labels: &["pool", "backend"],
        help: "From the first byte received for the backend to the first byte from it; where the backend speaks first, how \
               long it took to connect.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                let histograms = backend.state.workers.iter().map(|worker| &worker.first_byte_seconds);
                out.histogram(&[pool, &backend.state.label], &sum_histograms(histograms));
            });
        },
    },
    Metric {
        name: "ringway_backend_ended_early_total",
        kind: Kind::Counter,
        labels: &["pool", "backend"],
        help: "Connections that the backend ended or reset before its first byte, although the client had not ended.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                let early = sum_backend(&backend.state, |stats| &stats.ended_early);
                out.value(&[pool, &backend.state.label], early);
            });
        },
    },
    Metric {
        name: "ringway_backend_bytes_total",
        kind: Kind::Counter,
        labels: &["pool", "backend", "direction"],
        help: "Bytes relayed. Direction in: from clients to the backend; out: from the backend to clients.",
        collect: |seen, out| {
            seen.each_backend(|pool, backend| {
                let label = &*backend.state.label;
                let sum = |counter: fn(&BackendStats) -> &Counter| sum_backend(&backend.state, counter);
                out.value(&[pool, label, "in"], sum(|stats| &stats.bytes_from_clients));
                out.value(&[pool, label, "out"], sum(|stats| &stats.bytes_from_backends));
            });
        },
    },
    Metric {
        name: "ringway_unrouted_connections",
        kind: Kind::Gauge,
        labels: &[],
        help: "Connections of which it is not known yet where they go: their PROXY header or TLS hello has not come.",
        collect: |seen, out| {
            let unrouted = seen.workers.iter().map(|worker| worker.runtime.unrouted.value());
            out.value(&[], unrouted.sum::<u64>());
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
        name: "ringway_session_log_dropped_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Finished sessions that are missing in the session log because its reader or disk was too slow or gone.",
        collect: |seen, out| out.value(&[], seen.ear.as_ref().map_or(0, |ear| ear.sessions_dropped())),
    },
    Metric {
        name: "ringway_health_reports_lost_total",
        kind: Kind::Counter,
        labels: &[],
        help: "What workers met with backends and could not tell, because too much of it waited; should stay 0.",
        collect: |seen, out| out.value(&[], seen.ear.as_ref().map_or(0, |ear| ear.lost())),
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
        name: "ringway_runtime_spliced_bytes_total",
        kind: Kind::Counter,
        labels: &["worker"],
        help: "Bytes of bulk transfers that were passed on without being copied. A worker that has used less than a third \
               of its core copies instead, which is faster; so this grows where a worker is busy.",
        collect: |seen, out| seen.each_worker(out, |runtime| &runtime.bytes_spliced),
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

/// Listeners of datagrams, with their positions.
fn udp_listeners(seen: &Observed) -> impl Iterator<Item = (usize, &Listener)> {
    let listeners = seen.snapshot.model.listeners.iter().enumerate();
    listeners.filter(|(_, listener)| listener.protocol == Protocol::Udp)
}
