use crate::spare::{INTERVAL, SHARE, Spare};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Runs for a minute with what each of two ways of working costs, in per cent of the core; returns what was used.
fn share_used(generous: u32, thrifty: u32) -> f64 {
    let mut spare = Spare::default();
    let (mut now, mut used) = (Duration::ZERO, Duration::ZERO);
    while now < MINUTE {
        let cost = if spare.is_left() { generous } else { thrifty };
        now += INTERVAL;
        used += INTERVAL * cost / 100;
        assert!(spare.is_due(now));
        spare.note(now, used);
    }
    used.as_secs_f64() / MINUTE.as_secs_f64()
}

#[test]
fn a_worker_with_two_ways_uses_its_share() {
    // Between what both cost. At most 150 ms of the minute are owed at its end, or saved up.
    let used = share_used(80, 10);
    assert!((used - f64::from(SHARE) / 100.0).abs() < 0.004, "{used}");
}

#[test]
fn one_whose_thrifty_way_costs_more_than_the_share_saves_all_the_time() {
    // But for 150 ms / (1 - 0.33) at the start, which cost half a core more: 0.002 of a minute.
    let used = share_used(100, 50);
    assert!((used - 0.5).abs() < 0.003, "{used}");
}

#[test]
fn one_whose_generous_way_costs_less_never_saves() {
    let used = share_used(30, 5);
    assert!((used - 0.3).abs() < 0.001, "{used}");
}

#[test]
fn an_idle_hour_pays_for_a_moment_only() {
    let mut spare = Spare::default();
    let hour = Duration::from_secs(3600);
    spare.note(hour, Duration::ZERO);
    assert!(spare.is_left());
    // Busy all the time: 150 ms saved, and 150 ms more that may be owed, at 67 ms of 100 ms beyond the share.
    let busy = |milliseconds| Duration::from_millis(milliseconds);
    spare.note(hour + busy(440), busy(440));
    assert!(spare.is_left(), "294.8 ms of 300 used");
    spare.note(hour + busy(460), busy(460));
    assert!(!spare.is_left(), "308.2 ms of 300 used");
}

#[test]
fn a_clock_that_stands_still_is_harmless() {
    let mut spare = Spare::default();
    spare.note(MINUTE, MINUTE);
    spare.note(MINUTE, MINUTE);
    spare.note(Duration::ZERO, Duration::ZERO);
    assert!(!spare.is_left());
}
