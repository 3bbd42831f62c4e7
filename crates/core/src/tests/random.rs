use super::{Bed, NOW, chi_squared, client, hold};
use crate::balance::{NoChoice, Tried};
use crate::model::{BackendIndex, Balance, HashAlgorithm};

fn bed(weights: &[u16]) -> Bed {
    Bed::new(Balance::Random, HashAlgorithm::Rendezvous, weights)
}

/// Mitzenmacher, 2001: with two choices the fullest of n is about ln ln n / ln 2 above the mean (2.2 for a hundred), with
/// one it would be about sqrt(2 * 100 * ln 100) = 30.
#[test]
fn two_choices_keep_the_fullest_near_the_mean() {
    for threads in [1, 2] {
        let bed = bed(&[1; 100]);
        let _held = hold(&bed.selector(), threads, 10_000);
        let counts = bed.connections();
        assert!(
            counts.iter().all(|&count| count <= 104),
            "{threads} threads: {counts:?}"
        );
        assert!(counts.iter().all(|&count| count >= 90), "{threads} threads: {counts:?}");
        // And it is chance, not the exact scan.
        assert!(counts.iter().any(|&count| count != 100));
    }
}

/// 9 degrees of freedom: 27.9 once in a thousand.
#[test]
fn an_idle_pool_is_used_at_random_and_by_weight() {
    for weights in [[1; 10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]] {
        let bed = bed(&weights);
        let selector = bed.selector();
        let mut counts = [0; 10];
        for n in 0..20_000 {
            let choice = selector
                .choose(client(n), &Tried::default(), NOW)
                .expect("all are usable");
            counts[choice.index.0] += 1;
        }
        assert!(chi_squared(&counts, &weights.map(u32::from)) < 27.9, "{counts:?}");
    }
}

/// The share of a weight w of 55 is w * 100; two choices hold each near its own.
#[test]
fn held_connections_follow_weights() {
    for threads in [1, 2] {
        let weights = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        let bed = bed(&weights);
        let _held = hold(&bed.selector(), threads, 5_500);
        for (&count, &weight) in bed.connections().iter().zip(&weights) {
            let share = u32::from(weight) * 100;
            // A twentieth, and a few connections, which are more than that for the light ones.
            assert!(count.abs_diff(share) <= share / 20 + 8, "{:?}", bed.connections());
        }
    }
}

#[test]
fn of_two_backends_the_emptier_is_taken() {
    let bed = bed(&[1, 1]);
    let _held = hold(&bed.selector(), 2, 1_000);
    assert_eq!(bed.connections(), [500, 500]);
}

#[test]
fn it_is_no_sample_for_status() {
    assert!(!bed(&[1; 300]).selector().is_sampled());
}

#[test]
fn whoever_is_drawn_and_not_usable_is_passed_over() {
    // Weight 1000 makes nearly every draw the same two.
    let bed = bed(&[1000, 1, 1000, 1]);
    for full in [0, 2] {
        bed.states[full].orders.set_connections_max(Some(0));
    }
    let selector = bed.selector();
    let mut tried = Tried::default();
    tried.insert(BackendIndex(1));
    for n in 0..100 {
        let choice = selector.choose(client(n), &tried, NOW).expect("one is left");
        assert_eq!(choice.index, BackendIndex(3));
    }
    tried.insert(BackendIndex(3));
    assert_eq!(selector.choose(client(0), &tried, NOW).err(), Some(NoChoice::Full));
}
