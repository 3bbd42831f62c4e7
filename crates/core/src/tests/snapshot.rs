use super::{Bed, NOW, backend, client};
use crate::backend::Registry;
use crate::balance::Tried;
use crate::model::{Balance, HashAlgorithm, Model, Name, Pool, Queue, Records, Target};
use crate::queue::Line;
use crate::snapshot::{PoolState, PoolView, Snapshot};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn three() -> Bed {
    Bed::new(Balance::RoundRobin, HashAlgorithm::Rendezvous, &[1, 1, 1])
}

/// A view whose first `backends` are there.
fn view(bed: &Bed, backends: usize) -> PoolView {
    PoolView {
        backends: bed.states[..backends].into(),
        selector: bed.selector_among(0..backends),
    }
}

#[test]
fn versions_grow_with_every_view() {
    let bed = three();
    let state = PoolState::new(view(&bed, 1), None);
    assert_eq!(state.version(), 1);
    let before = state.view();
    state.publish(view(&bed, 3));
    assert_eq!(state.version(), 2);
    assert_eq!(state.view().backends.len(), 3);
    assert_eq!(before.backends.len(), 1, "whoever has a view keeps it");
    state.publish(view(&bed, 2));
    assert_eq!(state.version(), 3);
    assert_eq!(state.view().selector.eligible_len(), 2);
}

/// The `n`-th view has `n` backends. loom.rs tries every order of one publication and one look.
#[test]
fn whoever_saw_a_version_has_a_view_at_least_as_new() {
    let bed = Bed::new(Balance::RoundRobin, HashAlgorithm::Rendezvous, &[1; 600]);
    let state = PoolState::new(view(&bed, 1), None);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let version = state.version();
                    assert!(version >= last);
                    last = version;
                    let view = state.view();
                    assert!(
                        view.backends.len() as u64 >= version,
                        "version {version}, {} backends",
                        view.backends.len()
                    );
                }
            });
        }
        (2..=600).for_each(|n| state.publish(view(&bed, n)));
        done.store(true, Ordering::Release);
    });
    assert_eq!(state.version(), 600);
}

#[test]
fn a_new_view_wakes_the_first_in_line() {
    let bed = three();
    let line = Arc::new(Line::new(4));
    let state = PoolState::new(view(&bed, 1), Some(line.clone()));
    let (waker, woken) = super::queue::counting();
    let _place = line.enter(&waker).expect("there is room");
    state.publish(view(&bed, 2));
    assert_eq!(woken.times(), 1);
}

fn model(pool: Pool) -> Model {
    Model::new(Vec::new(), vec![pool])
}

#[test]
fn a_first_view_leaves_out_backups_and_names() {
    let mut backends: Vec<_> = (0..4).map(|at| backend(at, 1)).collect();
    backends[1].backup = true;
    backends[3].target = Target::Name(Name {
        host: "db.example".into(),
        records: Records::Addresses(5432),
    });
    let registry = Registry::default();
    let snapshot = Snapshot::new(model(Pool::new("test", backends.clone())), &registry, 2);
    let view = snapshot.pools[0].view();
    assert_eq!(view.backends.len(), 3, "a name has no address yet");
    let chosen: Vec<_> = view.selector.candidates().map(|(state, _)| &*state.label).collect();
    assert_eq!(chosen, ["10.0.0.1:5432", "10.0.0.3:5432"]);
    assert!(snapshot.pools[0].line.is_none());
    // With nothing but backups (and a name), they serve.
    let rest = vec![backends[1].clone(), backends[3].clone()];
    let snapshot = Snapshot::new(model(Pool::new("test", rest)), &registry, 2);
    assert_eq!(snapshot.pools[0].view().selector.eligible_len(), 1);
}

/// Backends outlive a snapshot, and so must the line that they wake: or whoever waits after a reload waits in vain.
#[test]
fn the_next_snapshot_has_the_same_line_and_backends_wake_it() {
    let registry = Registry::default();
    let snapshot = |max| {
        let mut pool = Pool::new("test", vec![backend(0, 1)]);
        pool.backends[0].max_connections = Some(1);
        pool.queue = Some(Queue {
            max,
            timeout: Duration::from_secs(1),
        });
        Snapshot::new(model(pool), &registry, 1)
    };
    let (before, after) = (snapshot(1), snapshot(5));
    let choose = |snapshot: &Snapshot| {
        snapshot.pools[0]
            .view()
            .selector
            .choose(client(0), &Tried::default(), NOW)
    };
    let held = choose(&before).expect("room for one");
    assert!(choose(&after).is_err(), "the count goes on");
    let (waker, woken) = super::queue::counting();
    let line = after.pools[0].line.clone().expect("the pool has a queue");
    let _place = line.enter(&waker).expect("there is room");
    drop(held);
    assert_eq!(woken.times(), 1);
    assert!(choose(&after).is_ok());
}
