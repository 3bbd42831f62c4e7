//! The line when those at its head want less than those behind them.
#![allow(missing_docs)]

use ringway_core::queue::Line;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

#[derive(Default)]
struct Woken(AtomicUsize);

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn waker() -> (Arc<Woken>, Waker) {
    let woken = Arc::<Woken>::default();
    (woken.clone(), woken.into())
}

#[test]
fn whoever_stands_aside_holds_up_nobody_and_is_told_of_room_all_the_same() {
    let line = Arc::new(Line::new(2));
    let ((picky_woken, picky), (next_woken, next)) = (waker(), waker());
    let picky = line.enter(&picky).expect("there is room");
    let next = line.enter(&next).expect("there is room");
    assert!(picky.is_first() && !next.is_first() && line.is_crowded());

    next.stand_aside();
    assert!(!next.is_first(), "only the first can let others pass");

    picky.stand_aside();
    picky.stand_aside();
    assert_eq!((picky_woken.times(), next_woken.times()), (0, 1));
    assert!(picky.is_first() && next.is_first());

    line.wake_first();
    assert_eq!((picky_woken.times(), next_woken.times()), (1, 2));
    assert!(line.enter(Waker::noop()).is_none(), "its place counts as before");

    drop(next);
    assert!(!line.is_crowded() && !line.is_empty());
    drop(picky);
    assert!(line.is_empty());
}

#[test]
fn of_those_that_stand_aside_the_first_is_woken_and_the_next_when_it_leaves() {
    let line = Arc::new(Line::new(9));
    let (wokens, mut places): (Vec<_>, Vec<_>) = (0..3)
        .map(|_| {
            let (woken, waker) = waker();
            let place = line.enter(&waker).expect("there is room");
            place.stand_aside();
            (woken, place)
        })
        .unzip();
    let times = || wokens.iter().map(|woken| woken.times()).collect::<Vec<_>>();
    line.wake_first();
    assert_eq!(times(), [1, 0, 0]);
    drop(places.remove(0));
    assert_eq!(times(), [1, 1, 0]);
    drop(places.pop());
    assert_eq!(times(), [1, 1, 0], "nobody waited for the last");
    assert_eq!(line.len(), 1);
}
