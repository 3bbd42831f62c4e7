use crate::stats::{BackendStats, Counter, HISTOGRAM_BOUNDS_US, Histogram, HistogramTotal, WorkerStats};
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
