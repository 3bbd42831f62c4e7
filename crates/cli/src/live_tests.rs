use super::*;
use ringway_control::status::units::width;

fn backend(label: &str, condition: &str, for_seconds: u64, connections: u64, connections_total: u64) -> BackendStatus {
    BackendStatus {
        label: label.to_owned(),
        condition: condition.to_owned(),
        for_seconds,
        connections,
        connections_total,
        ..BackendStatus::default()
    }
}

fn example() -> Status {
    let times = |p50, p99| Some(Quantiles { p50, p90: p99, p99 });
    Status {
        phase: "ready".to_owned(),
        uptime_seconds: 72,
        workers: 2,
        connections: 7,
        listeners: vec![ListenerStatus {
            name: "turns".to_owned(),
            bind: vec!["127.0.0.1:8081".to_owned()],
            pools: vec!["turns".to_owned()],
            connections_per_second: 120.2,
            bytes_in_per_second: 12 * 1_024,
            bytes_out_per_second: 40 * 1_024,
            ..ListenerStatus::default()
        }],
        pools: vec![PoolStatus {
            name: "turns".to_owned(),
            balance: "round_robin".to_owned(),
            usable: 2,
            backends: vec![
                BackendStatus {
                    connections_per_second: 60.0,
                    first_byte_ms: times(0.3, 2.1),
                    ..backend("backend-a", "up", 72, 3, 1_000)
                },
                BackendStatus {
                    first_byte_ms: times(152.0, 250.0),
                    connect_errors: 12,
                    why: "could not be connected: refused".to_owned(),
                    ..backend("backend-b", "down", 3, 0, 500)
                },
                BackendStatus {
                    connections_per_second: 60.2,
                    why: "what does not matter while it is up".to_owned(),
                    ..backend("backend-c", "up", 30, 4, 500)
                },
            ],
            ..PoolStatus::default()
        }],
        ..Status::default()
    }
}

fn events() -> Vec<Cell> {
    vec![
        "    40s  - backend-b is being shut for 12 s (--kill-one)".into(),
        "  1m09s  ✗ backend-b is down: could not be connected: refused".into(),
    ]
}

fn shown(width: usize, height: usize) -> Vec<String> {
    let admin = SocketAddr::from(([127, 0, 0, 1], 9901));
    view(&example(), admin, events(), Size { width, height }, false)
}

/// The stored view was laid out by hand.
#[test]
fn the_view_is_as_stored() {
    let actual: String = shown(140, 30).iter().map(|line| format!("{line}\n")).collect();
    let stored = include_str!("../tests/golden/live-140.txt");
    assert!(actual == stored, "it is:\n{actual}");
}

#[test]
fn it_fits_every_window() {
    for columns in 0..150 {
        for height in 0..20 {
            let lines = shown(columns, height);
            assert!(lines.len() <= height.saturating_sub(1), "{columns}x{height}: {lines:?}");
            for line in lines {
                assert!(width(&line) <= columns, "{columns}x{height}: {line:?}");
            }
        }
    }
}

#[test]
fn in_a_low_window_what_to_try_makes_room_and_the_latest_event_stays() {
    // Head 1, what to try 3, the table 5, events 2 and a blank line before each of the latter two: 13 rows, and the
    // cursor's.
    assert_eq!(shown(140, 14).len(), 13);
    let low = shown(140, 13);
    assert_eq!(low.len(), 10, "what to try goes first");
    assert!(!low.iter().any(|line| line.contains("curl")), "{low:?}");
    assert!(low[9].contains("backend-b is down"), "{low:?}");
    let lower = shown(140, 10);
    assert_eq!(lower.len(), 9, "then the older event");
    assert!(lower[8].contains("backend-b is down"), "{lower:?}");
}

#[test]
fn without_connections_nobody_has_a_share() {
    assert_eq!(share_of(0, 0), 0.0);
    assert_eq!(share_of(1, 4), 0.25);
}
