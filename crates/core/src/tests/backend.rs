use super::queue::counting;
use super::{Bed, backend};
use crate::backend::Registry;
use crate::model::{Backend, BackendIndex, Balance, HashAlgorithm, Target};
use crate::queue::Line;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

fn three() -> Bed {
    Bed::new(Balance::RoundRobin, HashAlgorithm::Rendezvous, &[1, 1, 1])
}

#[test]
fn a_reservation_counts_until_dropped() {
    let bed = three();
    let first = bed.states[1].reserve().expect("no limit");
    let second = bed.states[1].reserve().expect("no limit");
    assert_eq!(bed.connections(), [0, 2, 0]);
    assert_eq!(&*first.backend().label, "10.0.0.2:5432");
    drop(first);
    assert_eq!(bed.connections(), [0, 1, 0]);
    drop(second);
    assert_eq!(bed.connections(), [0, 0, 0]);
}

#[test]
fn a_claim_at_another_count_fails_and_counts_nothing() {
    let state = &three().states[0];
    let held = state.reserve_if(0);
    assert!(held.is_some());
    assert!(state.reserve_if(0).is_none());
    assert!(state.reserve_if(2).is_none());
    assert_eq!(state.connections(), 1);
    assert!(state.reserve_if(u32::MAX).is_none());
}

#[test]
fn a_panic_gives_the_reservation_back() {
    let state = three().states[0].clone();
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _held = state.reserve();
        panic!("expected by this test");
    }));
    assert!(caught.is_err());
    assert_eq!(state.connections(), 0);
}

#[test]
fn the_registry_keeps_a_backend_as_long_as_pool_and_address_stay() {
    let before = [backend(0, 1), backend(1, 1)];
    let after = [backend(2, 1), backend(1, 7)];
    let registry = Registry::default();
    let states = |pool: &str, backends: &[Backend]| -> Vec<_> {
        let known = |backend: &Backend| {
            let Target::Address(address) = &backend.target else {
                panic!("these tests have no names")
            };
            registry.backend(&pool.into(), address, &backend.label, backend.max_connections, 3)
        };
        backends.iter().map(known).collect()
    };
    let old = states("test", &before);
    let new = states("test", &after);
    assert_eq!(old.len(), 2);
    assert!(
        Arc::ptr_eq(&old[1], &new[1]),
        "same pool, same address: same state, in the new order"
    );
    assert_eq!(Target::Address(new[0].address.clone()), after[0].target);
    assert_eq!(new[0].workers.len(), 3);
    assert!(
        !Arc::ptr_eq(&old[0], &states("other", &before)[0]),
        "another pool counts for itself"
    );
    assert_eq!(
        [&old[0], &old[1], &new[0]].map(|state| state.index.0),
        [0, 1, 2],
        "indexes are given out in the order in which backends come"
    );
}

#[test]
fn a_forgotten_backend_that_comes_back_is_a_new_one() {
    let registry = Registry::default();
    let pool = "test".into();
    let address = three().states[0].address.clone();
    let known = |max| registry.backend(&pool, &address, &"".into(), max, 1);
    let first = known(Some(4));
    assert_eq!(first.orders.connections_max(), Some(4));
    assert!(Arc::ptr_eq(&first, &known(None)));
    assert_eq!(first.orders.connections_max(), None, "the limit is the newest one");
    registry.forget(&pool, &address);
    let second = known(None);
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(
        second.index,
        BackendIndex(1),
        "whoever tried the first has not tried this"
    );
}

#[test]
fn a_pool_has_one_line_and_one_row_of_tickets_while_the_process_lives() {
    let registry = Registry::default();
    let (one, other) = ("one".into(), "other".into());
    assert!(Arc::ptr_eq(&registry.tickets(&one), &registry.tickets(&one)));
    assert!(!Arc::ptr_eq(&registry.tickets(&one), &registry.tickets(&other)));
    let line = registry.line(&one, 1);
    let _first = line.enter(Waker::noop()).expect("room for one");
    assert!(line.enter(Waker::noop()).is_none());
    assert!(Arc::ptr_eq(&line, &registry.line(&one, 2)));
    assert!(line.enter(Waker::noop()).is_some(), "the new limit counts");
    assert!(!Arc::ptr_eq(&line, &registry.line(&other, 1)));
}

#[test]
fn a_full_backend_refuses_until_one_leaves() {
    let state = &three().states[0];
    state.orders.set_connections_max(Some(2));
    let first = state.reserve().expect("room for two");
    let _second = state.reserve_if(1).expect("room for two");
    assert!(!state.has_room());
    assert!(state.reserve().is_none());
    assert!(state.reserve_if(2).is_none());
    assert_eq!(state.connections(), 2);
    drop(first);
    assert!(state.has_room());
    assert!(state.reserve().is_some());
}

#[test]
fn one_connection_at_a_time_tries_a_backend_on_trial() {
    let state = &three().states[0];
    let earlier = state.reserve().expect("no limit");
    assert!(!earlier.is_trial());
    state.orders.set_trial(true);
    let first = state.reserve().expect("the trial");
    assert!(first.is_trial());
    assert!(!state.has_room());
    assert!(state.reserve().is_none());
    assert!(state.reserve_if(2).is_none());
    drop(earlier);
    assert!(state.reserve().is_none(), "those of before are no trials");
    // Nobody has decided: the next one tries.
    drop(first);
    let second = state.reserve_if(0).expect("the next trial");
    assert!(second.is_trial());
    // Once more the same order does not let a second one in.
    state.orders.set_trial(true);
    assert!(state.reserve().is_none());
    state.orders.set_trial(false);
    let third = state.reserve().expect("no trial any more");
    assert!(!third.is_trial());
}

#[test]
fn a_failed_trial_waits_for_the_control_plane() {
    let state = &three().states[0];
    state.orders.set_trial(true);
    let mut failed = state.reserve().expect("the trial");
    failed.leave_trial();
    drop(failed);
    assert_eq!(state.connections(), 0);
    assert!(state.reserve().is_none(), "nobody else tries before it is decided");
    state.reopen_trial();
    let again = state.reserve().expect("decided: it may be tried");
    assert!(again.is_trial());
    state.orders.set_trial(false);
    state.reopen_trial();
    assert!(
        state.reserve().is_some_and(|reservation| !reservation.is_trial()),
        "no trial any more"
    );
}

#[test]
fn a_claim_that_fails_gives_the_trial_back() {
    let state = &three().states[0];
    state.orders.set_trial(true);
    assert!(state.reserve_if(7).is_none());
    assert!(state.has_room());
    state.orders.set_connections_max(Some(0));
    assert!(state.reserve().is_none());
    state.orders.set_connections_max(None);
    assert!(state.reserve().is_some_and(|reservation| reservation.is_trial()));
}

#[test]
fn a_trial_that_outlives_its_ejection_does_not_open_the_next_one() {
    let state = &three().states[0];
    state.orders.set_trial(true);
    let went_well = state.reserve().expect("the trial");
    state.orders.set_trial(false);
    state.orders.set_trial(true);
    let again = state.reserve().expect("the next ejection's trial");
    drop(went_well);
    assert!(state.reserve().is_none(), "the second trial is under way");
    drop(again);
    assert!(state.reserve().is_some());
}

#[test]
fn a_watch_is_taken_once() {
    let orders = &three().states[0].orders;
    assert!(!orders.take_watch());
    orders.watch();
    orders.watch();
    assert!(orders.take_watch());
    assert!(!orders.take_watch());
}

#[test]
fn sessions_of_before_are_to_end_and_later_ones_are_not() {
    let orders = &three().states[0].orders;
    assert_eq!(orders.closes(0), None);
    orders.close_before(1_000, 7);
    assert_eq!(orders.closes(999), Some((1_000, 7)));
    assert_eq!(orders.closes(1_000), None);
}

#[test]
fn room_that_is_given_back_wakes_the_first_in_line() {
    let state = &three().states[0];
    let line = Arc::new(Line::new(2));
    state.wait_in(&line);
    let held = state.reserve().expect("no limit");
    let (first, woken) = counting();
    let _place = line.enter(&first).expect("room for two");
    drop(held);
    assert_eq!(woken.times(), 1);
    // A claim that fails on a trial may have turned somebody away.
    state.orders.set_trial(true);
    assert!(state.reserve_if(7).is_none());
    assert_eq!(woken.times(), 2);
}
