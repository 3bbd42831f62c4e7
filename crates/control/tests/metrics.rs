//! The metrics page and its reference, as stored.

mod common;

use common::{busy, fresh, golden};
use ringway_control::metrics::{Kind, METRICS, page, reference};
use std::collections::HashSet;

#[test]
fn the_page_is_as_stored() {
    golden("crates/control/tests/golden/metrics.prom", &page(&busy()));
}

#[test]
fn the_reference_is_as_stored() {
    golden("docs/metrics.md", &reference());
}

#[test]
fn values_are_sums_over_workers() {
    let page = page(&busy());
    for line in [
        "ringway_listener_connections_total{listener=\"postgres\"} 44",
        "ringway_listener_connections{listener=\"postgres\"} 11",
        "ringway_listener_bytes_total{listener=\"postgres\",direction=\"in\"} 1100",
        "ringway_listener_bytes_total{listener=\"postgres\",direction=\"out\"} 77",
        "ringway_sessions_ended_total{listener=\"postgres\",reason=\"finished\"} 22",
        "ringway_sessions_ended_total{listener=\"postgres\",reason=\"client_reset\"} 11",
        "ringway_sessions_ended_total{listener=\"postgres\",reason=\"idle_timeout\"} 0",
        "ringway_shed_total{listener=\"postgres\",reason=\"max_connections\"} 55",
        // 2 ms and 20 ms
        "ringway_session_seconds_bucket{listener=\"postgres\",le=\"0.001\"} 0",
        "ringway_session_seconds_bucket{listener=\"postgres\",le=\"0.0025\"} 1",
        "ringway_session_seconds_bucket{listener=\"postgres\",le=\"0.025\"} 2",
        "ringway_session_seconds_sum{listener=\"postgres\"} 0.022",
        "ringway_session_seconds_count{listener=\"postgres\"} 2",
        "ringway_backend_connections{pool=\"postgres\",backend=\"10.0.0.11:5433\"} 1",
        "ringway_backend_connections_total{pool=\"postgres\",backend=\"10.0.0.11:5433\"} 3",
        "ringway_backend_connect_errors_total{pool=\"postgres\",backend=\"10.0.0.11:5433\",reason=\"refused\"} 6",
        "ringway_backend_connect_seconds_bucket{pool=\"postgres\",backend=\"10.0.0.11:5433\",le=\"0.0001\"} 1",
        "ringway_backend_connect_seconds_bucket{pool=\"postgres\",backend=\"10.0.0.11:5433\",le=\"0.00025\"} 2",
        "ringway_backend_up{pool=\"web\",backend=\"unix:/run/web.sock\"} 1",
        "ringway_tasks_panicked_total 11",
        "ringway_log_lines_dropped_total 9",
        "ringway_runtime_turns_total{worker=\"0\"} 1000",
        "ringway_runtime_enters_total{worker=\"1\"} 10010",
        "ringway_runtime_buffers_out{worker=\"1\"} 30",
    ] {
        assert!(page.lines().any(|own| own == line), "missing: {line}\n{page}");
    }
}

#[test]
fn every_series_is_there_before_anything_happened_and_none_twice() {
    let series = |page: &str| -> Vec<String> {
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| line.rsplit_once(' ').expect("has a value").0.to_owned())
            .collect()
    };
    let (before, after) = (series(&page(&fresh())), series(&page(&busy())));
    assert_eq!(before, after, "label sets are constant");
    assert_eq!(after.iter().collect::<HashSet<_>>().len(), after.len());
}

#[test]
fn names_follow_the_conventions() {
    let mut names = HashSet::new();
    for metric in METRICS {
        assert!(names.insert(metric.name), "{} twice", metric.name);
        assert!(metric.name.starts_with("ringway_"), "{}", metric.name);
        assert_eq!(
            metric.kind == Kind::Counter,
            metric.name.ends_with("_total"),
            "{}",
            metric.name
        );
        assert_eq!(
            metric.kind == Kind::Histogram,
            metric.name.ends_with("_seconds"),
            "{}",
            metric.name
        );
        assert!(
            metric.help.ends_with('.') && !metric.help.contains(['\n', '|']),
            "{}",
            metric.name
        );
    }
}
