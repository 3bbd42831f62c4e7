use super::{Bed, backend, pool};
use crate::backend::Registry;
use crate::model::{Balance, HashAlgorithm, HashRule};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

fn three() -> Bed {
    Bed::new(Balance::RoundRobin, HashAlgorithm::Rendezvous, &[1, 1, 1])
}

#[test]
fn a_reservation_counts_until_dropped() {
    let bed = three();
    let first = bed.states[1].reserve();
    let second = bed.states[1].reserve();
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
    let hash = HashRule {
        algorithm: HashAlgorithm::Rendezvous,
        seed: 0,
    };
    let before = pool(Balance::RoundRobin, hash, vec![backend(0, 1), backend(1, 1)]);
    let after = pool(Balance::LeastConnections, hash, vec![backend(2, 1), backend(1, 7)]);
    let mut other = before.clone();
    other.name = "other".into();

    let registry = Registry::default();
    let old = registry.pool(&before, 3);
    let new = registry.pool(&after, 3);
    assert_eq!(old.len(), 2);
    assert!(
        Arc::ptr_eq(&old[1], &new[1]),
        "same pool, same address: same state, in the new order"
    );
    assert_eq!(new[0].address, after.backends[0].address);
    assert_eq!(new[0].workers.len(), 3);
    assert!(
        !Arc::ptr_eq(&old[0], &registry.pool(&other, 3)[0]),
        "another pool counts for itself"
    );
}
