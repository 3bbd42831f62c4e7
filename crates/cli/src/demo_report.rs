//! What the demo says where nothing can be drawn: lines, a report every few seconds, and the farewell.
//!
//! Pure functions of a status. Called by `demo`.

use crate::live::{served, share_of};
use ringway_control::demo::LoadCounts;
use ringway_control::status::units::{age, bytes, count, counted, rate};
use ringway_control::status::{Status, mark};
use std::sync::atomic::Ordering::Relaxed;

/// One line per listener.
pub(crate) fn report(status: &Status) -> Vec<String> {
    let at = age(status.uptime_seconds);
    let mut lines = Vec::new();
    for (listener, pool) in served(status) {
        let total: u64 = pool.backends.iter().map(|backend| backend.connections_total).sum();
        let backends = pool.backends.iter().map(|backend| {
            let part = share_of(backend.connections_total, total) * 100.0;
            format!(
                "{} {} {} ({part:.0}%)",
                mark(&backend.condition).0,
                backend.label,
                count(backend.connections_total)
            )
        });
        lines.push(format!(
            "{at:>7}  {}: {} new/s; {}",
            pool.balance,
            rate(listener.connections_per_second),
            backends.collect::<Vec<_>>().join(", ")
        ));
    }
    lines
}

/// The last line.
pub(crate) fn farewell(status: &Status, load: Option<&LoadCounts>) -> String {
    let sum =
        |each: fn(&ringway_control::status::ListenerStatus) -> u64| status.listeners.iter().map(each).sum::<u64>();
    let connections = sum(|listener| listener.connections_total);
    let plural = if connections == 1 { "" } else { "s" };
    let mut line = format!(
        "the demo is over after {}: {} connection{plural} over {}, {} from clients, {} from backends",
        age(status.uptime_seconds),
        count(connections),
        counted(status.listeners.len(), "listener"),
        bytes(sum(|listener| listener.bytes_in)),
        bytes(sum(|listener| listener.bytes_out)),
    );
    if let Some(load) = load {
        let (answered, failed) = (load.answered.load(Relaxed), load.failed.load(Relaxed));
        line.push_str(&format!(
            "; of the load, {} answered and {} failed",
            count(answered),
            count(failed)
        ));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_control::status::{BackendStatus, ListenerStatus, PoolStatus};

    fn status() -> Status {
        let backend = |label: &str, condition: &str, connections_total| BackendStatus {
            label: label.to_owned(),
            condition: condition.to_owned(),
            connections_total,
            ..BackendStatus::default()
        };
        Status {
            uptime_seconds: 72,
            listeners: vec![ListenerStatus {
                pools: vec!["turns".to_owned()],
                connections_total: 1_204,
                connections_per_second: 12.25,
                bytes_in: 2_048,
                bytes_out: 1_258_291,
                ..ListenerStatus::default()
            }],
            pools: vec![PoolStatus {
                name: "turns".to_owned(),
                balance: "round_robin".to_owned(),
                backends: vec![backend("backend-a", "up", 900), backend("backend-b", "down", 300)],
                ..PoolStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn a_report_has_a_line_for_each_listener() {
        assert_eq!(
            report(&status()),
            ["  1m12s  round_robin: 12 new/s; ✓ backend-a 900 (75%), ✗ backend-b 300 (25%)"]
        );
    }

    #[test]
    fn the_farewell_sums_up() {
        assert_eq!(
            farewell(&status(), None),
            "the demo is over after 1m12s: 1,204 connections over 1 listener, 2.0 KiB from clients, 1.2 MiB from \
             backends"
        );
        let load = LoadCounts::default();
        load.answered.store(1_200, Relaxed);
        load.failed.store(4, Relaxed);
        assert!(farewell(&status(), Some(&load)).ends_with("; of the load, 1,200 answered and 4 failed"));
    }
}
