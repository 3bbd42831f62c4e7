//! Fills the status document from what workers count and what the health board shows.
//!
//! Reads only. Sampled once a second for rates; asked by the admin port.

use super::{
    BackendStatus, Counted, ListenerStatus, NameStatus, PoolStatus, ProbeStatus, Quantiles, QueueStatus, Rates, Status,
    Subject, compact, rfc3339,
};
use crate::health::{BackendBoard, PoolBoard};
use crate::metrics::Observed;
use crate::readiness::{Phase, Readiness};
use ringway_core::model::{self, PoolIndex, Protocol};
use ringway_core::reason::{ConnectError, EndReason, RefuseReason};
use ringway_core::stats::{BackendStats, Counter, Histogram, HistogramTotal, ListenerStats};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What a running process is and counts.
#[derive(Debug)]
pub struct Live {
    /// What is counted.
    pub observed: Arc<Observed>,
    /// The phase.
    pub readiness: Readiness,
    /// When the shared clock showed 0.
    pub epoch: Instant,
    /// The same moment on the wall.
    pub started: SystemTime,
    /// What was loaded.
    pub config: Vec<String>,
    /// Addresses as bound, parallel to listeners.
    pub bound: Vec<Vec<model::Address>>,
    /// Counters of the last seconds.
    pub rates: Mutex<Rates>,
}

impl Live {
    /// Takes what everything counts now; to be called once a second.
    pub fn sample(&self) {
        let listeners = (0..self.observed.snapshot.model.listeners.len()).map(|index| {
            let counted = Counted {
                connections: self.listener(index, |stats| &stats.connections_total),
                bytes_in: self.listener(index, |stats| &stats.bytes_from_clients),
                bytes_out: self.listener(index, |stats| &stats.bytes_from_backends),
            };
            (Subject::Listener(index), counted)
        });
        let mut all: Vec<(Subject, Counted)> = listeners.collect();
        for (pool, board) in self.observed.board.pools().iter().enumerate() {
            for backend in &board.backends {
                let subject = Subject::Backend(PoolIndex(pool), backend.state.index);
                let counted = Counted {
                    connections: sum(backend, |stats| &stats.connections_total),
                    bytes_in: sum(backend, |stats| &stats.bytes_from_clients),
                    bytes_out: sum(backend, |stats| &stats.bytes_from_backends),
                };
                all.push((subject, counted));
            }
        }
        self.rates().sample(self.epoch.elapsed(), all);
    }

    /// The document as it is now.
    pub fn document(&self) -> Status {
        let model = &self.observed.snapshot.model;
        let now = self.epoch.elapsed();
        let listeners = (0..model.listeners.len()).map(|index| self.listener_status(index));
        let boards = self.observed.board.pools();
        let pools = boards
            .iter()
            .enumerate()
            .map(|(index, board)| self.pool_status(index, board, now));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: rfc3339(self.started),
            uptime_seconds: now.as_secs(),
            phase: match self.readiness.phase() {
                Phase::Starting => "starting",
                Phase::Ready => "ready",
                Phase::Draining => "draining",
            }
            .to_owned(),
            workers: self.observed.workers.len(),
            connections: self.observed.connections(),
            connections_max: u64::from(self.observed.connections_max),
            config: self.config.clone(),
            listeners: listeners.collect(),
            pools: pools.collect(),
        }
    }

    fn listener_status(&self, index: usize) -> ListenerStatus {
        let model = &self.observed.snapshot.model;
        let listener = &model.listeners[index];
        let rate = self.rates().per_second(Subject::Listener(index));
        let bind = self.bound.get(index).unwrap_or(&listener.bind);
        let ended = EndReason::ALL.iter().filter_map(|reason| {
            let count = self.listener(index, |stats| &stats.ended[reason.index()]);
            (count > 0).then(|| (reason.label().to_owned(), count))
        });
        let refused = RefuseReason::ALL.iter().filter_map(|reason| {
            let count = self.listener(index, |stats| &stats.refused[reason.index()]);
            (count > 0).then(|| (reason.label().to_owned(), count))
        });
        ListenerStatus {
            name: listener.name.to_string(),
            bind: compact(bind),
            protocol: listener.protocol.word().to_owned(),
            pools: listener
                .pools()
                .iter()
                .map(|pool| model.pools[pool.0].name.to_string())
                .collect(),
            connections: self.listener(index, |stats| &stats.connections),
            connections_max: match listener.protocol {
                Protocol::Tcp | Protocol::Tls => listener.max_connections.map(u64::from),
                // What limits sessions is seldom written, and good to know.
                Protocol::Udp => self.observed.listeners_max.get(index).copied().map(u64::from),
            },
            connections_total: self.listener(index, |stats| &stats.connections_total),
            connections_per_second: rate.connections,
            bytes_in: self.listener(index, |stats| &stats.bytes_from_clients),
            bytes_out: self.listener(index, |stats| &stats.bytes_from_backends),
            bytes_in_per_second: rate.bytes_in,
            bytes_out_per_second: rate.bytes_out,
            ended: ended.collect(),
            refused: refused.collect(),
        }
    }

    fn pool_status(&self, index: usize, board: &PoolBoard, now: Duration) -> PoolStatus {
        let snapshot = &self.observed.snapshot;
        let pool = &snapshot.model.pools[index];
        let state = &snapshot.pools[index];
        let queue = state.line.as_ref().zip(pool.queue);
        PoolStatus {
            name: pool.name.to_string(),
            balance: pool.balance.name().to_owned(),
            sampled: state.view().selector.is_sampled(),
            usable: board.usable,
            queue: queue.map(|(line, queue)| QueueStatus {
                waiting: line.len() as u64,
                max: u64::from(queue.max),
            }),
            on_backups: board.on_backups,
            names: board
                .names
                .values()
                .map(|name| NameStatus {
                    name: name.label.to_string(),
                    outcome: name.outcome.clone(),
                })
                .collect(),
            backends: board
                .backends
                .iter()
                .map(|backend| self.backend_status(index, backend, now))
                .collect(),
        }
    }

    fn backend_status(&self, pool: usize, backend: &BackendBoard, now: Duration) -> BackendStatus {
        let state = &backend.state;
        let rate = self.rates().per_second(Subject::Backend(PoolIndex(pool), state.index));
        let lasting = now.saturating_sub(backend.since);
        let errors = ConnectError::ALL
            .iter()
            .map(|error| sum(backend, |stats| &stats.connect_errors[error.index()]));
        let response = state.response_time(now);
        BackendStatus {
            label: state.label.to_string(),
            address: state.address.to_string(),
            name: backend.name.as_ref().map(ToString::to_string),
            condition: backend.condition.word().to_owned(),
            since: rfc3339(self.started + backend.since),
            for_seconds: lasting.as_secs(),
            why: backend.why.to_string(),
            weight: backend.weight,
            share: backend.share.map(|share| (share * 1_000.0).round() / 10.0),
            backup: backend.backup,
            max_connections: state.orders.connections_max().map(u64::from),
            last_probe: backend.last_probe.as_ref().map(|probe| ProbeStatus {
                at: rfc3339(probe.at),
                passed: probe.passed,
                words: probe.words.to_string(),
            }),
            connections: u64::from(state.connections()),
            connections_total: sum(backend, |stats| &stats.connections_total),
            connections_per_second: rate.connections,
            connect_errors: errors.sum(),
            bytes_in: sum(backend, |stats| &stats.bytes_from_clients),
            bytes_out: sum(backend, |stats| &stats.bytes_from_backends),
            bytes_in_per_second: rate.bytes_in,
            bytes_out_per_second: rate.bytes_out,
            connect_ms: Quantiles::of(&total(backend, |stats| &stats.connect_seconds)),
            first_byte_ms: Quantiles::of(&total(backend, |stats| &stats.first_byte_seconds)),
            response_ms: response.map(|time| time.as_micros() as f64 / 1_000.0),
        }
    }

    fn listener(&self, index: usize, counter: impl Fn(&ListenerStats) -> &Counter) -> u64 {
        self.observed
            .workers
            .iter()
            .map(|worker| counter(&worker.listeners[index]).value())
            .fold(0, u64::wrapping_add)
    }

    fn rates(&self) -> std::sync::MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sum(backend: &BackendBoard, counter: impl Fn(&BackendStats) -> &Counter) -> u64 {
    let workers = backend.state.workers.iter();
    workers.map(|worker| counter(worker).value()).sum()
}

fn total(backend: &BackendBoard, histogram: impl Fn(&BackendStats) -> &Histogram) -> HistogramTotal {
    let mut total = HistogramTotal::default();
    let workers = backend.state.workers.iter();
    workers.for_each(|worker| histogram(worker).add_to(&mut total));
    total
}
