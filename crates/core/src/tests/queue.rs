use super::{Bed, NOW, client};
use crate::balance::{NoChoice, Tried};
use crate::model::{Balance, HashAlgorithm};
use crate::queue::{Line, Place};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier};
use std::task::{Wake, Waker};
use std::time::Duration;

/// Counts how often it was woken.
#[derive(Default)]
pub(super) struct Woken(AtomicU32);

impl Woken {
    pub(super) fn times(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker, and how often it was used.
pub(super) fn counting() -> (Waker, Arc<Woken>) {
    let woken = Arc::new(Woken::default());
    (Waker::from(woken.clone()), woken)
}

/// This many in a line with room for `max`.
fn waiting(line: &Arc<Line>, count: usize) -> (Vec<Place>, Vec<Arc<Woken>>) {
    let enter = |_| {
        let (waker, woken) = counting();
        (line.enter(&waker).expect("there is room"), woken)
    };
    (0..count).map(enter).unzip()
}

fn times(woken: &[Arc<Woken>]) -> Vec<u32> {
    woken.iter().map(|woken| woken.times()).collect()
}

#[test]
fn the_line_is_bounded_and_a_place_that_is_left_is_free_again() {
    let line = Arc::new(Line::new(2));
    assert!(line.is_empty());
    let (mut places, _) = waiting(&line, 2);
    assert_eq!(line.len(), 2);
    assert!(line.enter(Waker::noop()).is_none());
    places.remove(0);
    assert_eq!(line.len(), 1);
    assert!(line.enter(Waker::noop()).is_some());
}

#[test]
fn a_lower_bound_sends_nobody_away() {
    let line = Arc::new(Line::new(2));
    let (_places, _) = waiting(&line, 2);
    line.set_max(1);
    assert_eq!(line.len(), 2);
    assert!(line.enter(Waker::noop()).is_none());
}

#[test]
fn only_the_first_is_woken_and_the_next_when_it_leaves() {
    let line = Arc::new(Line::new(3));
    line.wake_first();
    let (mut places, woken) = waiting(&line, 3);
    line.wake_first();
    line.wake_first();
    assert_eq!(times(&woken), [2, 0, 0]);
    assert_eq!(
        places.iter().map(Place::is_first).collect::<Vec<_>>(),
        [true, false, false]
    );
    places.remove(0);
    assert_eq!(times(&woken), [2, 1, 0], "there may be room for two");
    assert!(places[0].is_first());
}

#[test]
fn whoever_leaves_from_the_middle_changes_nothing_for_the_others() {
    let line = Arc::new(Line::new(4));
    let (mut places, woken) = waiting(&line, 4);
    places.remove(2);
    places.remove(1);
    assert_eq!(times(&woken), [0; 4]);
    assert_eq!(line.len(), 2);
    assert!(places[0].is_first());
    places.remove(0);
    assert_eq!(times(&woken), [0, 0, 0, 1], "those in between have left");
    assert!(places[0].is_first());
    places.clear();
    assert!(line.is_empty());
    line.wake_first();
    assert_eq!(times(&woken), [0, 0, 0, 1]);
}

/// A waker whose waking leaves the line, as that of a task might.
#[test]
fn waking_is_not_done_under_the_lock() {
    struct Leaves(std::sync::Mutex<Option<Place>>);
    impl Wake for Leaves {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().expect("nobody panics").take());
        }
    }
    let line = Arc::new(Line::new(2));
    let leaves = [0; 2].map(|_| Arc::new(Leaves(std::sync::Mutex::new(None))));
    for leaves in &leaves {
        let place = line.enter(&Waker::from(leaves.clone()));
        *leaves.0.lock().expect("nobody panics") = place;
    }
    // Wakes the first, which leaves, which wakes the second, which leaves.
    line.wake_first();
    assert!(line.is_empty());
}

#[test]
fn a_long_line_is_left_quickly_in_any_order() {
    // Each of these would be a pass over all with a plain search: 10^10 steps.
    let line = Arc::new(Line::new(100_000));
    let (mut places, _) = waiting(&line, 100_000);
    places.reverse();
    while let Some(first) = places.pop() {
        drop(first);
    }
    let (mut places, _) = waiting(&line, 100_000);
    while let Some(last) = places.pop() {
        drop(last);
    }
    assert!(line.is_empty());
}

/// Wakes a thread, which may not have begun to wait yet.
struct Signal(Sender<()>);

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// Four threads share a backend with room for one, by the protocol that `queue` asks for. A lost wake-up leaves one
/// waiting for ever; loom.rs tries the orders that the processor of this machine does not make.
#[test]
fn threads_that_wait_for_each_other_all_get_their_turn() {
    const THREADS: usize = 4;
    const TURNS: usize = 2_000;
    let bed = Bed::new(Balance::LeastConnections, HashAlgorithm::Rendezvous, &[1]);
    bed.states[0].orders.set_connections_max(Some(1));
    let line = Arc::new(Line::new(THREADS as u32));
    bed.states[0].wait_in(&line);
    let (selector, start) = (bed.selector(), Barrier::new(THREADS));
    let choose = || match selector.choose(client(0), &Tried::default(), NOW) {
        Ok(choice) => Some(choice),
        Err(reason) => {
            assert_eq!(reason, NoChoice::Full);
            None
        }
    };
    let turn = || {
        if let Some(choice) = choose() {
            return drop(choice);
        }
        let (sender, woken) = mpsc::channel();
        let place = line
            .enter(&Waker::from(Arc::new(Signal(sender))))
            .expect("room for all");
        let choice = loop {
            if let Some(choice) = choose() {
                break choice;
            }
            woken
                .recv_timeout(Duration::from_secs(10))
                .expect("nobody is forgotten");
        };
        assert_eq!(bed.states[0].connections(), 1);
        drop(place);
        drop(choice);
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                (0..TURNS).for_each(|_| turn());
            });
        }
    });
    assert!(line.is_empty());
    assert_eq!(bed.connections(), [0]);
}
