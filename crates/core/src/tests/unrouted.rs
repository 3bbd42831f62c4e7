use crate::unrouted::{Place, Unrouted};
use proptest::prelude::*;
use std::time::Duration;

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn over_the_cap_the_oldest_goes() {
    let unrouted = Unrouted::new(2, u64::MAX, 1);
    let (first, none) = unrouted.enter(0, at(1), "first");
    assert_eq!(none, None);
    let (second, none) = unrouted.enter(0, at(2), "second");
    assert_eq!(none, None);
    let (_, displaced) = unrouted.enter(0, at(3), "third");
    assert_eq!(displaced, Some("first"));
    // It has left already: nobody else goes in its place.
    unrouted.leave(first);
    assert_eq!(unrouted.len(0), 2);
    unrouted.leave(second);
    let (_, none) = unrouted.enter(0, at(4), "fourth");
    assert_eq!((none, unrouted.len(0)), (None, 2));
}

#[test]
fn the_oldest_of_all_workers_goes() {
    let unrouted = Unrouted::new(3, u64::MAX, 3);
    for (worker, since) in [(2, 1), (0, 2), (2, 3)] {
        assert_eq!(unrouted.enter(worker, at(since), since).1, None);
    }
    assert_eq!(unrouted.enter(1, at(4), 4).1, Some(1));
    assert_eq!(unrouted.enter(1, at(5), 5).1, Some(2));
    assert_eq!(unrouted.enter(0, at(6), 6).1, Some(3));
    assert_eq!(unrouted.enter(0, at(7), 7).1, Some(4));
    assert_eq!([0, 1, 2].map(|worker| unrouted.len(worker)), [2, 1, 0]);
}

#[test]
fn over_the_bytes_the_oldest_that_holds_any_goes() {
    let unrouted = Unrouted::new(10, 100, 2);
    let (_silent, _) = unrouted.enter(0, at(1), "silent");
    let (old, _) = unrouted.enter(0, at(2), "old");
    let (new, _) = unrouted.enter(0, at(3), "new");
    let (other, _) = unrouted.enter(1, at(1), "of another worker");
    assert!(unrouted.hold(other, 100).is_empty());
    assert!(unrouted.hold(old, 60).is_empty());
    assert!(unrouted.hold(new, 40).is_empty());
    assert_eq!(unrouted.hold(new, 41), ["old"]);
    assert_eq!((unrouted.len(0), unrouted.bytes(0)), (2, 41));
    // Too much for itself alone.
    assert_eq!(unrouted.hold(new, 101), ["new"]);
    assert_eq!((unrouted.len(0), unrouted.bytes(0)), (1, 0));
    assert!(unrouted.hold(new, 1_000).is_empty(), "it has left");
}

#[test]
fn the_oldest_of_some_kind_is_taken_once_it_is_old_enough() {
    let unrouted = Unrouted::new(10, u64::MAX, 2);
    for (worker, since, kind) in [(0, 1, 'a'), (1, 2, 'b'), (0, 3, 'b'), (1, 4, 'a')] {
        assert_eq!(unrouted.enter(worker, at(since), (kind, since)).1, None);
    }
    let take = |kind, before| unrouted.take(at(before), |one| one.0 == kind);
    assert_eq!(take('b', 2), None, "not old enough");
    assert_eq!(take('b', 3), Some(('b', 2)));
    assert_eq!(take('b', 9), Some(('b', 3)));
    assert_eq!(take('b', 9), None, "there is none");
    assert_eq!((take('a', 9), take('a', 9)), (Some(('a', 1)), Some(('a', 4))));
    assert_eq!([unrouted.len(0), unrouted.len(1)], [0, 0]);
}

#[test]
fn there_is_room_for_one_at_least() {
    let unrouted = Unrouted::new(0, 0, 1);
    assert_eq!(unrouted.enter(0, at(1), 1).1, None);
    assert_eq!(unrouted.enter(0, at(2), 2).1, Some(1));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Enter(usize),
    Hold(usize, u32),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2_usize).prop_map(Step::Enter),
        (0..20_usize, 0..60_u32).prop_map(|(who, bytes)| Step::Hold(who, bytes)),
        (0..20_usize).prop_map(Step::Leave),
    ]
}

/// One that waits: its number, its worker, its bytes.
type Entry = (usize, usize, u64);

fn held(list: &[Entry], worker: usize) -> u64 {
    list.iter().filter(|entry| entry.1 == worker).map(|entry| entry.2).sum()
}

proptest! {
    /// Against a list in order of arrival.
    #[test]
    fn as_a_list_would_say(max in 1..6_u32, bytes_max in 0..200_u64, steps in proptest::collection::vec(step(), 0..80)) {
        let unrouted = Unrouted::new(max, bytes_max, 2);
        let mut places: Vec<(Place, usize)> = Vec::new();
        let mut list: Vec<Entry> = Vec::new();
        for (time, step) in steps.into_iter().enumerate() {
            match step {
                Step::Enter(worker) => {
                    let number = places.len();
                    let (place, displaced) = unrouted.enter(worker, at(time as u64), number);
                    let expected = (list.len() == max as usize).then(|| list.remove(0).0);
                    prop_assert_eq!(displaced, expected);
                    places.push((place, worker));
                    list.push((number, worker, 0));
                }
                Step::Hold(who, bytes) => {
                    let Some(&(place, worker)) = places.get(who) else { continue };
                    if let Some(entry) = list.iter_mut().find(|entry| entry.0 == who) {
                        entry.2 = u64::from(bytes);
                    }
                    let mut expected = Vec::new();
                    while held(&list, worker) > bytes_max {
                        let holds = |entry: &Entry| entry.1 == worker && entry.2 > 0;
                        let oldest = list.iter().position(holds).expect("somebody holds bytes");
                        expected.push(list.remove(oldest).0);
                    }
                    prop_assert_eq!(unrouted.hold(place, bytes), expected);
                }
                Step::Leave(who) => {
                    let Some(&(place, _)) = places.get(who) else { continue };
                    unrouted.leave(place);
                    list.retain(|entry| entry.0 != who);
                }
            }
            for worker in 0..2 {
                prop_assert_eq!(unrouted.len(worker), list.iter().filter(|entry| entry.1 == worker).count());
                prop_assert_eq!(unrouted.bytes(worker), held(&list, worker));
            }
        }
    }
}
