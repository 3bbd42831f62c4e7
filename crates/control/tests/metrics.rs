//! The metrics page and its reference, as stored.

mod common;

use common::{busy, fresh, golden, model, observed};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ringway_control::metrics::{Kind, METRICS, page, reference};
use ringway_core::model::{Address, Backend};
use std::collections::HashSet;
use std::time::Duration;

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

/// CPU time of this thread, user and system.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("a thread may ask for its own usage");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).expect("time was used, not gained"))
}

/// A scrape of a large pool must not hold up what else the main thread does.
#[test]
fn a_page_of_a_thousand_backends_takes_under_20_ms_of_cpu() {
    let mut model = model();
    let backend = |at: u16| {
        let address = Address::Inet(([10, 1, (at >> 8) as u8, at as u8], 5432).into());
        Backend::at(address)
    };
    model.pools[0].backends = (0..1_000).map(backend).collect();
    let seen = observed(model);
    for backend in &seen.board.pools()[0].backends {
        for worker in &backend.state.workers {
            worker.connections_total.add(123_456_789);
            worker.bytes_from_backends.add(1_234_567_890_123);
            worker.connect_seconds.observe(Duration::from_micros(700));
            worker.first_byte_seconds.observe(Duration::from_micros(70_123));
        }
    }
    // The kernel counts a thread's time in ticks of a few milliseconds, so many pages are taken together.
    const PAGES: u32 = 25;
    let before = cpu_time();
    for _ in 0..PAGES {
        // Two histograms of 21 lines each, and what else there is of a backend.
        assert!(page(&seen).lines().count() > 1_000 * (2 * 21 + 10));
    }
    let took = (cpu_time() - before) / PAGES;
    println!("CPU time of a page with 1,000 backends: {took:?}");
    if !cfg!(debug_assertions) {
        assert!(took < Duration::from_millis(20), "{took:?}");
    }
}
