use super::{Bed, NOW, client, eligible, hold};
use crate::balance::sample::Sample;
use crate::balance::{Choice, NoChoice, Selector, Tried};
use crate::model::{BackendIndex, Balance, HashAlgorithm};
use proptest::prelude::*;

fn bed(weights: &[u16]) -> Bed {
    Bed::new(Balance::LeastConnections, HashAlgorithm::Rendezvous, weights)
}

fn open(selector: &Selector) -> Choice {
    selector
        .choose(client(0), &Tried::default(), NOW)
        .expect("all are eligible")
}

#[test]
fn a_hundred_held_connections_opened_by_64_threads_are_ten_each() {
    for _ in 0..20 {
        let bed = bed(&[1; 10]);
        let held = hold(&bed.selector(), 64, 100);
        assert_eq!(held.len(), 100);
        assert_eq!(bed.connections(), [10; 10]);
        drop(held);
        assert_eq!(bed.connections(), [0; 10]);
    }
}

#[test]
fn by_weight_and_over_threads_nobody_is_a_connection_ahead() {
    let weights = [1, 2, 3, 10, 1000];
    let bed = bed(&weights);
    let _held = hold(&bed.selector(), 8, 3_001);
    let counts = bed.connections();
    assert_eq!(counts.iter().sum::<u32>(), 3_001);
    for (&ahead, &weight) in counts.iter().zip(&weights) {
        for (&other, &other_weight) in counts.iter().zip(&weights) {
            // ahead / weight <= (other + 1) / other_weight
            assert!(
                ahead * u32::from(other_weight) <= (other + 1) * u32::from(weight),
                "{counts:?}"
            );
        }
    }
}

#[test]
fn one_after_the_other_follows_the_weights() {
    let bed = bed(&[1, 2, 3]);
    let selector = bed.selector();
    let _held: Vec<_> = (0..600).map(|_| open(&selector)).collect();
    assert_eq!(bed.connections(), [100, 200, 300]);
}

#[test]
fn an_idle_pool_is_used_evenly() {
    let bed = bed(&[1, 1, 1]);
    let selector = bed.selector();
    let mut counts = [0; 3];
    for _ in 0..30 {
        counts[open(&selector).index.0] += 1;
    }
    assert_eq!(counts, [10; 3]);
}

#[test]
fn tried_backends_are_left_out_however_idle() {
    let bed = bed(&[1, 1, 1]);
    let _busy: Vec<_> = (0..5).map(|_| bed.states[2].reserve()).collect();
    let mut tried = Tried::default();
    tried.insert(BackendIndex(0));
    let selector = bed.selector();
    let second = selector.choose(client(0), &tried, NOW).expect("two others");
    assert_eq!(second.index, BackendIndex(1));
    tried.insert(BackendIndex(1));
    assert_eq!(
        selector.choose(client(0), &tried, NOW).map(|choice| choice.index),
        Ok(BackendIndex(2))
    );
}

#[test]
fn after_too_many_lost_races_it_still_reserves() {
    let bed = bed(&[1, 1]);
    let _busy = bed.states[0].reserve();
    let chosen = bed.selector().choose_within(0, client(0), &Tried::default(), NOW);
    let held = chosen.expect("two are eligible");
    assert_eq!(held.index, BackendIndex(1));
    assert_eq!(bed.connections(), [1, 1]);
    // The last resort keeps to what was tried and to limits as well.
    let mut tried = Tried::default();
    tried.insert(BackendIndex(1));
    let second = bed.selector().choose_within(0, client(0), &tried, NOW);
    assert_eq!(second.expect("one is left").index, BackendIndex(0));
    bed.states[0].orders.set_connections_max(Some(1));
    let full = bed.selector().choose_within(0, client(0), &tried, NOW);
    assert_eq!(full.err(), Some(NoChoice::Full));
}

#[test]
fn beyond_256_backends_two_are_compared_and_status_can_say_so() {
    assert!(!bed(&[1; 256]).selector().is_sampled());
    let bed = bed(&[1; 257]);
    let selector = bed.selector();
    assert!(selector.is_sampled());
    assert!(
        !bed.selector_among(0..256).is_sampled(),
        "what counts is how many are eligible"
    );
    let _held: Vec<_> = (0..257 * 20).map(|_| open(&selector)).collect();
    // Mitzenmacher, "The power of two choices", 1996: the fullest is about ln ln n / ln 2 = 2.5 above the average;
    // with one choice it would be about sqrt(2 * 20 * ln n) = 15.
    let counts = bed.connections();
    assert!(counts.iter().all(|&count| (14..=24).contains(&count)), "{counts:?}");
}

#[test]
fn a_sample_follows_weights() {
    let mut weights = [1; 300];
    weights[7] = 100;
    let bed = bed(&weights);
    let selector = bed.selector();
    let _held: Vec<_> = (0..399 * 10).map(|_| open(&selector)).collect();
    // Weight 100 of 399: its share is 1,000, the others' is 10 each. Loads are compared in connections of weight 1,
    // each of which stands for 100 of the heavy one's.
    let heavy = bed.connections()[7];
    assert!((900..=1_100).contains(&heavy), "{heavy}");
    assert!(
        bed.connections()
            .iter()
            .enumerate()
            .all(|(at, &count)| at == 7 || count <= 15)
    );
}

#[test]
fn a_sample_is_two_different_backends_drawn_by_weight() {
    let mut weights = [1; 257];
    (weights[0], weights[100], weights[256]) = (254, 254, 254);
    let bed = bed(&weights);
    let rule = Sample::new(&eligible(&bed));
    let (mut first, mut second) = ([0_u32; 257], [0_u32; 257]);
    for ticket in 0..10_000 {
        let (a, b) = rule.two(ticket);
        assert_ne!(a, b, "ticket {ticket}");
        first[a] += 1;
        second[b] += 1;
    }
    // Each of the three weighs a quarter of all, so it is first in 2,500 of 10,000 draws. It is second after another
    // of the three (1/2 of the draws, then 1/3 of what is left) or after a light one (1/4, then 254 / 1,015):
    // 1/6 + 1/16 = 0.229. The deviation is about 43.
    for heavy in [0, 100, 256] {
        assert!((2_350..=2_650).contains(&first[heavy]), "{}", first[heavy]);
        assert!((2_140..=2_440).contains(&second[heavy]), "{}", second[heavy]);
    }
    let light = first
        .iter()
        .zip(&second)
        .map(|(first, second)| first + second)
        .filter(|&count| count < 400)
        .count();
    assert_eq!(light, 254);
}

#[test]
fn a_sample_of_tried_backends_falls_back_to_a_look_at_all() {
    // Weight 1000 makes nearly every sample the same two.
    let mut weights = [1; 257];
    (weights[3], weights[200]) = (1000, 1000);
    let bed = bed(&weights);
    let mut tried = Tried::default();
    tried.insert(BackendIndex(3));
    tried.insert(BackendIndex(200));
    let selector = bed.selector();
    for _ in 0..200 {
        let third = selector.choose(client(0), &tried, NOW).expect("255 others");
        assert!(![3, 200].contains(&third.index.0));
    }
}

proptest! {
    /// Against whole-number loads: 60 is a multiple of every weight from 1 to 5.
    #[test]
    fn the_choice_is_always_a_minimum(
        weights in prop::collection::vec(1..=5_u16, 1..9),
        steps in prop::collection::vec(any::<(bool, prop::sample::Index)>(), 1..120),
    ) {
        let bed = bed(&weights);
        let selector = bed.selector();
        let mut held: Vec<Choice> = Vec::new();
        for (close, which) in steps {
            if close && !held.is_empty() {
                held.swap_remove(which.index(held.len()));
                continue;
            }
            let loads: Vec<u32> =
                bed.connections().iter().zip(&weights).map(|(count, &weight)| (count + 1) * 60 / u32::from(weight)).collect();
            let choice = open(&selector);
            prop_assert_eq!(loads[choice.index.0], *loads.iter().min().expect("at least one backend"));
            held.push(choice);
        }
        prop_assert_eq!(bed.connections().iter().sum::<u32>() as usize, held.len());
    }
}
