use crate::stats::{BackendStats, Counter, HISTOGRAM_BOUNDS_US, Histogram, HistogramTotal, WorkerStats, quantile};
use std::time::Duration;

#[test]
fn a_counter_adds_subtracts_and_is_set() {
    let counter = Counter::default();
    counter.add(5);
    counter.add(2);
    counter.sub(3);
    assert_eq!(counter.value(), 4);
    counter.set(9);
    assert_eq!(counter.value(), 9);
}

#[test]
fn bounds_rise_from_100_us_to_an_hour() {
    assert!(HISTOGRAM_BOUNDS_US.is_sorted_by(|a, b| a < b));
    assert_eq!(HISTOGRAM_BOUNDS_US[0], 100);
    assert_eq!(HISTOGRAM_BOUNDS_US[17], 60 * 60 * 1_000_000);
}

/// As Prometheus counts: a bound belongs to its bucket (`le`).
#[test]
fn an_observation_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
    let by_hand = [
        (Duration::ZERO, 0),
        (Duration::from_micros(100), 0),
        (Duration::from_nanos(100_001), 1),
        (Duration::from_micros(250), 1),
        (Duration::from_micros(251), 2),
        (Duration::from_millis(1), 3),
        (Duration::from_secs(1), 12),
        (Duration::from_millis(1_001), 13),
        (Duration::from_secs(3_600), 17),
        (Duration::from_nanos(3_600_000_000_001), 18),
        (Duration::MAX, 18),
    ];
    for (duration, bucket) in by_hand {
        let histogram = Histogram::default();
        histogram.observe(duration);
        let mut total = HistogramTotal::default();
        histogram.add_to(&mut total);
        let mut expected = [0; 19];
        expected[bucket] = 1;
        assert_eq!(total.buckets, expected, "{duration:?}");
    }
}

#[test]
fn histograms_of_several_workers_add_up() {
    let workers = [Histogram::default(), Histogram::default()];
    workers[0].observe(Duration::from_micros(40));
    workers[0].observe(Duration::from_nanos(7_000_900));
    workers[1].observe(Duration::from_micros(60));
    let mut total = HistogramTotal::default();
    workers.iter().for_each(|worker| worker.add_to(&mut total));
    assert_eq!(total.sum_us, 40 + 7_000 + 60);
    assert_eq!(total.buckets[0], 2);
    assert_eq!(total.buckets[6], 1, "5 ms < 7.0009 ms <= 10 ms");
    assert_eq!(total.buckets.iter().sum::<u64>(), 3);
}

#[test]
fn workers_of_one_backend_never_share_a_cache_line() {
    assert_eq!(align_of::<BackendStats>(), 128);
    assert_eq!(size_of::<BackendStats>() % 128, 0);
}

#[test]
fn a_worker_counts_every_listener_from_zero() {
    let stats = WorkerStats::new(3);
    assert_eq!(stats.listeners.len(), 3);
    assert!(
        stats
            .listeners
            .iter()
            .all(|listener| listener.connections_total.value() == 0)
    );
}

/// Buckets by index, the others empty.
fn filled(buckets: &[(usize, u64)]) -> HistogramTotal {
    let mut total = HistogramTotal::default();
    for &(index, count) in buckets {
        total.buckets[index] = count;
    }
    total
}

#[test]
fn a_quantile_of_nothing_is_nothing() {
    assert_eq!(quantile(&HistogramTotal::default(), 0.5), None);
}

#[test]
fn quantiles_are_linear_within_their_bucket() {
    let us = |us| Some(Duration::from_micros(us));
    // Ten up to 100 µs: the fifth is half of the way from 0.
    assert_eq!(quantile(&filled(&[(0, 10)]), 0.5), us(50));
    assert_eq!(quantile(&filled(&[(0, 10)]), 1.0), us(100));
    // Four in (1 ms, 2.5 ms]: rank 1 is a quarter of 1.5 ms above 1 ms, rank 3 three quarters.
    assert_eq!(quantile(&filled(&[(4, 4)]), 0.25), us(1_375));
    assert_eq!(quantile(&filled(&[(4, 4)]), 0.75), us(2_125));
    // 90 up to 100 µs, then 10 in (10 ms, 25 ms]: p50 has rank 50 of 90, p90 is the end of the first bucket, p99 has
    // rank 99, nine tenths of 15 ms above 10 ms.
    let mixed = filled(&[(0, 90), (7, 10)]);
    assert_eq!(quantile(&mixed, 0.5), Some(Duration::from_nanos(55_556)));
    assert_eq!(quantile(&mixed, 0.9), us(100));
    assert_eq!(quantile(&mixed, 0.99), us(23_500));
}

#[test]
fn the_smallest_observation_is_at_least_the_lower_bound_of_its_bucket() {
    assert_eq!(quantile(&filled(&[(3, 2)]), 0.0), Some(Duration::from_micros(500)));
}

#[test]
fn above_every_bound_the_last_bound_is_what_is_known() {
    let hour = Some(Duration::from_secs(3_600));
    assert_eq!(quantile(&filled(&[(18, 3)]), 0.5), hour);
    assert_eq!(quantile(&filled(&[(0, 1), (18, 9)]), 0.99), hour);
}

#[test]
fn shares_outside_of_0_to_1_are_taken_for_the_nearest_of_them() {
    let total = filled(&[(0, 10)]);
    assert_eq!(quantile(&total, 7.0), Some(Duration::from_micros(100)));
    assert_eq!(quantile(&total, -1.0), Some(Duration::ZERO));
}
