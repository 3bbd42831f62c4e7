use super::units::width;
use super::*;

fn quantiles(p50: f64, p99: f64) -> Option<Quantiles> {
    Some(Quantiles { p50, p90: p99, p99 })
}

fn backend(label: &str, condition: &str, for_seconds: u64, why: &str) -> BackendStatus {
    BackendStatus {
        label: label.to_owned(),
        condition: condition.to_owned(),
        for_seconds,
        why: why.to_owned(),
        weight: 1,
        ..BackendStatus::default()
    }
}

fn postgres() -> PoolStatus {
    PoolStatus {
        name: "postgres".to_owned(),
        balance: "least_connections".to_owned(),
        usable: 2,
        queue: Some(QueueStatus { waiting: 3, max: 100 }),
        backends: vec![
            BackendStatus {
                max_connections: Some(200),
                connections: 6,
                connections_per_second: 1.5,
                bytes_in_per_second: 614 * 1_024,
                bytes_out_per_second: 170 * 1_024,
                connect_ms: quantiles(0.42, 2.1),
                share: Some(50.0),
                ..backend("10.0.0.11:5432", "up", 192, "2 probes in a row passed")
            },
            backend(
                "10.0.0.12:5432",
                "down",
                12,
                "3 probes in a row failed: nothing answered within 2s, the last of them was sent to port 5433",
            ),
            BackendStatus {
                connections: 6,
                connections_per_second: 1.6,
                bytes_in_per_second: 1_024,
                bytes_out_per_second: 1_023,
                connect_ms: quantiles(12.0, 140.2),
                backup: true,
                ..backend("10.0.0.13:5432", "up", 7_380, "")
            },
            BackendStatus {
                connect_ms: quantiles(0.08, 0.09),
                ..backend(
                    "10.0.0.14:5432",
                    "ejected",
                    2,
                    "1 in a row could not be connected; out for 1s",
                )
            },
        ],
        ..PoolStatus::default()
    }
}

fn web() -> PoolStatus {
    PoolStatus {
        name: "web".to_owned(),
        balance: "round_robin".to_owned(),
        usable: 1,
        on_backups: true,
        names: vec![NameStatus {
            name: "web.example.com".to_owned(),
            outcome: "2 addresses, asked again in 27s".to_owned(),
        }],
        backends: vec![
            BackendStatus {
                connections: 1_192,
                connections_per_second: 120.4,
                bytes_in_per_second: 23 << 20,
                bytes_out_per_second: 1_288_490_188,
                connect_ms: quantiles(0.3, 1.0),
                share: Some(100.0),
                ..backend("web.example.com/[2001:db8::1]:8443", "up", 42, "")
            },
            BackendStatus {
                connections: 1,
                bytes_out_per_second: 3,
                ..backend("unix:/run/データ.sock", "draining", 446_400, "left the configuration")
            },
        ],
        ..PoolStatus::default()
    }
}

fn example() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        phase: "ready".to_owned(),
        uptime_seconds: 7_380,
        workers: 2,
        connections: 1_204,
        connections_max: 32_730,
        config: vec!["/etc/ringway.yaml".to_owned()],
        listeners: vec![
            ListenerStatus {
                name: "postgres".to_owned(),
                bind: vec!["0.0.0.0:5432".to_owned()],
                protocol: "tcp".to_owned(),
                pools: vec!["postgres".to_owned()],
                connections: 12,
                connections_max: Some(500),
                connections_total: 88_213,
                connections_per_second: 3.1,
                bytes_in_per_second: 1_258_291,
                bytes_out_per_second: 340 * 1_024,
                ended: [("finished", 88_190), ("client_reset", 8), ("connect_failed", 3)]
                    .map(|(reason, number)| (reason.to_owned(), number))
                    .into(),
                ..ListenerStatus::default()
            },
            ListenerStatus {
                name: "web".to_owned(),
                bind: vec!["0.0.0.0:443".to_owned(), "[::]:443".to_owned()],
                pools: vec!["web".to_owned()],
                connections: 1_192,
                connections_total: 1_250_000,
                connections_per_second: 120.4,
                bytes_in_per_second: 23 << 20,
                bytes_out_per_second: 1_288_490_188,
                ended: [("finished".to_owned(), 1_248_808)].into(),
                ..ListenerStatus::default()
            },
        ],
        pools: vec![postgres(), web()],
        ..Status::default()
    }
}

#[test]
fn listeners_of_udp_are_told_apart() {
    let mut status = example();
    status.listeners[0].protocol = "udp".to_owned();
    status.listeners[0].bind = vec!["0.0.0.0:27000-27015".to_owned()];
    let shown = table(&status, 120, false);
    assert!(shown.contains(" 0.0.0.0:27000-27015/udp "), "{shown}");
    assert_eq!(shown.matches("/udp").count(), 1);
}

#[test]
fn what_was_refused_is_told_by_reason() {
    let mut status = example();
    assert!(!table(&status, 120, false).contains("refused"));
    status.listeners[1].refused = [("denied".to_owned(), 1_204), ("client_rate".to_owned(), 3)].into();
    let shown = table(&status, 120, false);
    assert!(
        shown.contains("\n    refused: 3 client_rate, 1,204 denied\n"),
        "{shown}"
    );
}

/// The stored tables were laid out by hand.
#[test]
fn tables_are_as_stored() {
    for (width, stored) in [
        (80, include_str!("../../tests/golden/status-80.txt")),
        (120, include_str!("../../tests/golden/status-120.txt")),
    ] {
        let actual = table(&example(), width, false);
        assert!(actual == stored, "at width {width} it is:\n{actual}");
    }
}

#[test]
fn short_reasons_stand_beside_their_backends_where_there_is_room() {
    let mut status = example();
    status.pools = vec![web()];
    status.pools[0].backends.truncate(1);
    status.pools[0].backends[0].why = "2 probes in a row passed".to_owned();
    let wide = table(&status, 160, false);
    assert!(wide.contains("100%  2 probes in a row passed\n"), "{wide}");
    let narrow = table(&status, 100, false);
    assert!(!narrow.contains("2 probes in a row passed"), "{narrow}");
}

#[test]
fn no_line_is_wider_than_asked() {
    for width_max in 0..140 {
        for line in table(&example(), width_max, false).lines() {
            assert!(width(line) <= width_max, "{width_max}: {line:?}");
        }
    }
}

#[test]
fn colours_change_nothing_but_colours() {
    let coloured = table(&example(), 80, true);
    assert!(coloured.contains("\x1b[31m✗ down\x1b[0m"), "{coloured}");
    let mut plain = String::new();
    for (index, piece) in coloured.split('\x1b').enumerate() {
        let text = if index == 0 {
            piece
        } else {
            piece.split_once('m').expect("is a colour").1
        };
        plain.push_str(text);
    }
    let trimmed: String = plain.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    assert_eq!(trimmed, table(&example(), 80, false));
}

#[test]
fn an_empty_status_is_one_line() {
    assert_eq!(table(&Status::default(), 80, false).lines().count(), 1);
}

#[test]
fn a_label_cannot_move_the_cursor() {
    let mut status = example();
    status.pools[0].backends[0].label = "unix:/\x1b[2J\n".to_owned();
    assert!(!table(&status, 120, false).contains('\x1b'));
}

/// Field names are an interface: scripts read them.
#[test]
fn fields_have_these_names() {
    let status = Status {
        listeners: vec![ListenerStatus::default()],
        pools: vec![PoolStatus {
            queue: Some(QueueStatus::default()),
            names: vec![NameStatus::default()],
            backends: vec![BackendStatus {
                last_probe: Some(ProbeStatus::default()),
                connect_ms: Some(Quantiles::default()),
                ..BackendStatus::default()
            }],
            ..PoolStatus::default()
        }],
        ..Status::default()
    };
    let document = serde_json::to_value(&status).expect("is plain");
    let names = |pointer: &str| {
        let object = document.pointer(pointer).and_then(|value| value.as_object());
        let mut names: Vec<&str> = object.expect("is an object").keys().map(String::as_str).collect();
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(
        names(""),
        "config connections connections_max listeners phase pools started_at uptime_seconds version workers"
    );
    assert_eq!(
        names("/listeners/0"),
        "bind bytes_in bytes_in_per_second bytes_out bytes_out_per_second connections connections_max \
         connections_per_second connections_total ended name pools protocol refused"
    );
    assert_eq!(
        names("/pools/0"),
        "backends balance name names on_backups queue sampled usable"
    );
    assert_eq!(
        names("/pools/0/backends/0"),
        "address backup bytes_in bytes_in_per_second bytes_out bytes_out_per_second condition connect_errors connect_ms \
         connections connections_per_second connections_total first_byte_ms for_seconds label last_probe \
         max_connections name response_ms share since weight why"
    );
    assert_eq!(names("/pools/0/queue"), "max waiting");
    assert_eq!(names("/pools/0/names/0"), "name outcome");
    assert_eq!(names("/pools/0/backends/0/last_probe"), "at passed words");
    assert_eq!(names("/pools/0/backends/0/connect_ms"), "p50 p90 p99");
}

#[test]
fn a_document_comes_back_as_it_went() {
    let document = serde_json::to_string(&example()).expect("is plain");
    let back: Status = serde_json::from_str(&document).expect("is a status");
    assert_eq!(back, example());
}

#[test]
fn quantiles_are_in_milliseconds() {
    let mut total = HistogramTotal::default();
    assert_eq!(Quantiles::of(&total), None);
    // 100 in (1 ms, 2.5 ms]: half of 1.5 ms, nine tenths, 99 hundredths above 1 ms.
    total.buckets[4] = 100;
    let by_hand = Quantiles {
        p50: 1.75,
        p90: 2.35,
        p99: 2.485,
    };
    assert_eq!(Quantiles::of(&total), Some(by_hand));
}
