use crate::gate::Gates;
use std::sync::Arc;

#[test]
fn a_permit_counts_against_listener_and_process_until_dropped() {
    let gates = Arc::new(Gates::new(3, [Some(2), None]));
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
    let gates = Arc::new(Gates::new(1, [Some(5), Some(5)]));
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
    let gates = Arc::new(Gates::new(5, [Some(3), Some(3)]));
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
