use crate::gate::{Cap, Gates};
use std::sync::Arc;

/// Each takes one descriptor.
const fn cap(max: u32) -> Cap {
    Cap {
        max,
        descriptors: 1,
        shares_ports: false,
    }
}

#[test]
fn a_permit_counts_against_listener_and_process_until_dropped() {
    let gates = Arc::new(Gates::new(3, 0, [cap(2), cap(u32::MAX)]));
    assert_eq!([gates.free(0), gates.free(1)], [2, 3]);
    let first = gates.admit(0).expect("room");
    let _second = gates.admit(0).expect("room");
    assert!(gates.admit(0).is_none(), "the listener is full");
    assert_eq!([gates.free(0), gates.free(1)], [0, 1]);
    let _third = gates.admit(1).expect("room");
    assert!(gates.admit(1).is_none(), "the process is full");
    drop(first);
    assert_eq!([gates.free(0), gates.free(1)], [1, 1]);
    assert!(gates.admit(1).is_some());
}

#[test]
fn a_refusal_by_the_process_takes_nothing_from_the_listener() {
    let gates = Arc::new(Gates::new(1, 0, [cap(5), cap(5)]));
    let held = gates.admit(0).expect("room");
    for _ in 0..10 {
        assert!(gates.admit(1).is_none());
    }
    drop(held);
    assert_eq!([gates.free(0), gates.free(1)], [1, 1]);
    let _all = gates.admit(1).expect("room");
}

#[test]
fn threads_never_exceed_a_cap() {
    let gates = Arc::new(Gates::new(5, 0, [cap(3), cap(3)]));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let gates = &gates;
            scope.spawn(move || {
                for _ in 0..5_000 {
                    let permits: Vec<_> = (0..4).filter_map(|_| gates.admit(thread % 2)).collect();
                    assert!(permits.len() <= 3);
                }
            });
        }
    });
    assert_eq!([gates.free(0), gates.free(1)], [3, 3]);
}

/// A connection takes two descriptors, a session one: of nine, four connections leave room for one session.
#[test]
fn connections_and_sessions_share_descriptors() {
    let connections = Cap {
        max: 100,
        descriptors: 2,
        shares_ports: false,
    };
    let gates = Arc::new(Gates::new(9, 0, [connections, cap(100)]));
    assert_eq!([gates.free(0), gates.free(1)], [4, 9]);
    let all: Vec<_> = (0..4).map(|_| gates.admit(0).expect("room")).collect();
    assert_eq!([gates.free(0), gates.free(1)], [0, 1]);
    assert!(gates.admit(0).is_none(), "one descriptor is too few");
    let _session = gates.admit(1).expect("room");
    assert!(gates.admit(1).is_none());
    drop(all);
    assert_eq!([gates.free(0), gates.free(1)], [4, 8]);
}

/// Two listeners of UDP share the ports; one whose pool has addresses of its own to connect from does not.
#[test]
fn sessions_share_ports_unless_they_have_their_own() {
    let sharing = Cap {
        shares_ports: true,
        ..cap(100)
    };
    let gates = Arc::new(Gates::new(100, 3, [sharing, sharing, cap(100)]));
    let all: Vec<_> = (0..2).map(|_| gates.admit(0).expect("room")).collect();
    let _third = gates.admit(1).expect("room");
    assert_eq!([gates.free(0), gates.free(1), gates.free(2)], [0, 0, 97]);
    assert!(gates.admit(0).is_none() && gates.admit(1).is_none());
    assert!(gates.admit(2).is_some());
    assert_eq!([gates.open(0), gates.open(1), gates.open(2)], [2, 1, 0]);
    drop(all);
    assert_eq!([gates.free(0), gates.free(2)], [2, 99]);
}
