use super::{Bed, NOW, client};
use crate::balance::round_robin::{SLOTS_MAX, Schedule};
use crate::balance::{Selector, Tickets, Tried};
use crate::model::{BackendIndex, Balance, HashAlgorithm};
use proptest::prelude::*;
use std::sync::Barrier;

fn bed(weights: &[u16]) -> Bed {
    Bed::new(Balance::RoundRobin, HashAlgorithm::Rendezvous, weights)
}

/// How many of `connections` each backend gets when this many threads open them all at once.
fn opened_by_threads(selector: &Selector, backends: usize, threads: usize, connections: usize) -> Vec<u32> {
    let start = Barrier::new(threads);
    let counts = std::thread::scope(|scope| {
        let open = || {
            let mut counts = vec![0; backends];
            start.wait();
            for _ in 0..connections / threads {
                let choice = selector
                    .choose(client(0), &Tried::default(), NOW)
                    .expect("all are eligible");
                counts[choice.index.0] += 1;
            }
            counts
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no thread panics"))
            .collect::<Vec<_>>()
    });
    (0..backends)
        .map(|position| counts.iter().map(|counts| counts[position]).sum())
        .collect()
}

#[test]
fn any_number_of_workers_shares_30_000_connections_to_within_one() {
    for threads in [1, 2, 3, 8] {
        let bed = bed(&[1, 1, 1]);
        assert_eq!(
            opened_by_threads(&bed.selector(), 3, threads, 30_000),
            [10_000; 3],
            "{threads} threads"
        );
        assert_eq!(bed.connections(), [0; 3]);
    }
    // 30,000 is no multiple of 7: 4285.7 each.
    let counts = opened_by_threads(&bed(&[5; 7]).selector(), 7, 2, 30_000);
    assert!(
        counts.iter().all(|&count| count == 4_285 || count == 4_286),
        "{counts:?}"
    );
}

#[test]
fn weights_are_exact_over_threads() {
    let counts = opened_by_threads(&bed(&[1, 2, 3]).selector(), 3, 2, 30_000);
    assert_eq!(counts, [5_000, 10_000, 15_000]);
}

/// Windows by hand, for 5:1:1 over 7 slots: turns of the first must lie in 0..2, 1..3, 2..5, 4..6, 5..7.
#[test]
fn schedules_by_hand() {
    assert_eq!(Schedule::new(&[1, 1, 1]).slots(), [0, 1, 2]);
    assert_eq!(Schedule::new(&[2, 1]).slots(), [0, 0, 1]);
    assert_eq!(Schedule::new(&[5, 1, 1]).slots(), [0, 0, 0, 1, 0, 0, 2]);
    assert_eq!(
        Schedule::new(&[1000, 500]).slots(),
        [0, 0, 1],
        "weights in lowest terms"
    );
    assert_eq!(Schedule::new(&[7]).slots(), [0]);
    assert!(Schedule::new(&[]).slots().is_empty());
}

#[test]
fn weights_beyond_the_longest_schedule_are_scaled_to_within_a_slot() {
    // 1,061 backends: 1,060 of weight 999 and one of weight 1 add up to 1,058,941, which is more than 2^20.
    let mut weights = vec![999; 1_060];
    weights.push(1);
    let slots = Schedule::new(&weights);
    let len = slots.slots().len();
    assert!(len.abs_diff(SLOTS_MAX as usize) < weights.len(), "{len}");
    let mut turns = vec![0_u64; weights.len()];
    slots.slots().iter().for_each(|&position| turns[position as usize] += 1);
    // 999 * 1,048,576 / 1,058,941 = 989.2; 1 * ... = 0.99, and nobody is left out.
    assert!(turns[..1_060].iter().all(|&turns| turns == 989), "{:?}", &turns[..10]);
    assert_eq!(turns[1_060], 1);
}

#[test]
fn a_refusing_backend_spreads_over_the_others_evenly() {
    let bed = bed(&[1, 1, 1, 1]);
    let selector = bed.selector();
    let mut served = [0_u32; 4];
    // All first tries happen before any second one, as when connects time out.
    let first: Vec<_> = (0..4_000)
        .filter_map(|_| selector.choose(client(0), &Tried::default(), NOW).ok())
        .map(|choice| choice.index)
        .collect();
    for index in first {
        let mut tried = Tried::default();
        let mut index = index;
        if index.0 == 2 {
            tried.insert(index);
            index = selector.choose(client(0), &tried, NOW).expect("three others").index;
        }
        served[index.0] += 1;
    }
    assert_eq!(served[2], 0);
    let others = [served[0], served[1], served[3]];
    assert!(
        others.iter().all(|&count| count == 1_333 || count == 1_334),
        "{others:?}"
    );
}

#[test]
fn behind_a_heavy_tried_backend_the_nearest_other_is_taken() {
    let tickets = Tickets::new();
    let schedule = Schedule::new(&[1000, 1]);
    let claim = |position: usize| (position == 1).then_some("claimed");
    assert_eq!(
        schedule.choose(&tickets, claim, |position| position == 1),
        Some((1, "claimed"))
    );
    assert_eq!(tickets.take(), 16, "sixteen turns were forfeited, no more");
    assert_eq!(schedule.choose(&tickets, |_| None::<()>, |_| false), None);
    assert_eq!(tickets.take(), 18, "where nobody is usable, one look is enough");
}

#[test]
fn a_schedule_is_made_of_the_eligible_backends() {
    let bed = bed(&[1, 1, 1, 2]);
    let without_the_second = bed.selector_among([0, 2, 3]);
    let counts = opened_by_threads(&without_the_second, 4, 2, 4_000);
    assert_eq!(
        counts,
        [1_000, 0, 1_000, 2_000],
        "by weight, not by skipping to the neighbour"
    );
}

#[test]
fn a_new_selector_goes_on_where_the_old_one_was() {
    let bed = bed(&[1, 1, 1]);
    let next = |selector: &Selector| {
        selector
            .choose(client(0), &Tried::default(), NOW)
            .map(|choice| choice.index)
    };
    let before = bed.selector();
    assert_eq!(next(&before), Ok(BackendIndex(0)));
    assert_eq!(next(&bed.selector()), Ok(BackendIndex(1)));
    assert_eq!(next(&before), Ok(BackendIndex(2)));
}

#[test]
fn the_turns_of_a_full_backend_spread_over_the_others_by_weight() {
    let bed = bed(&[1, 2, 5, 3]);
    bed.states[2].orders.set_connections_max(Some(10));
    let _full: Vec<_> = (0..10).filter_map(|_| bed.states[2].reserve()).collect();
    let counts = opened_by_threads(&bed.selector(), 4, 2, 6_000);
    assert_eq!(counts.iter().sum::<u32>(), 6_000);
    assert_eq!(counts[2], 0);
    for (at, share) in [(0, 1_000), (1, 2_000), (3, 3_000)] {
        assert!(counts[at].abs_diff(share) <= 2, "{counts:?}");
    }
}

proptest! {
    /// After t slots a backend of weight w has had t * w / total turns, give or take less than one.
    #[test]
    fn every_prefix_is_within_one_turn_of_the_shares(weights in prop::collection::vec(1..60_u32, 1..14)) {
        let schedule = Schedule::new(&weights);
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut turns = vec![0_u64; weights.len()];
        for (slot, &position) in (1_u64..).zip(schedule.slots()) {
            turns[position as usize] += 1;
            for (&turns, &weight) in turns.iter().zip(&weights) {
                let behind = (turns * total).abs_diff(slot * u64::from(weight));
                prop_assert!(behind < total, "{weights:?} after {slot} slots");
            }
        }
        // The whole schedule gives everyone the weight exactly, in lowest terms.
        let terms = total / schedule.slots().len() as u64;
        for (&turns, &weight) in turns.iter().zip(&weights) {
            prop_assert_eq!(turns * terms, u64::from(weight));
        }
    }

    #[test]
    fn any_weights_of_the_model_have_a_schedule(weights in prop::collection::vec(1..=1000_u32, 1..40)) {
        let schedule = Schedule::new(&weights);
        for position in 0..weights.len() {
            prop_assert!(schedule.slots().contains(&(position as u32)));
        }
    }
}
