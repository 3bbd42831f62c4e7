use super::{Bed, NOW, backend, client, hold};
use crate::balance::{Selector, Tickets, Tried};
use crate::health::{Cause, Condition, Membership, PoolHealth, Report};
use crate::model::{BackendIndex, Balance, Failback, HealthCheck, Passive, Pool, Probe};
use std::sync::Arc;
use std::time::Duration;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const PASSIVE: Passive = Passive {
    fails: 1,
    eject: s(1),
    max_ejected: 50,
};

/// A pool of these weights with its health.
struct Case {
    bed: Bed,
    health: PoolHealth,
}

fn checked_pool(weights: &[u16]) -> Pool {
    let backends = weights.iter().enumerate().map(|(at, &weight)| backend(at, weight));
    let mut pool = Pool::new("test", backends.collect());
    pool.health.passive = Some(PASSIVE);
    pool.health.check = Some(HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: s(5),
        timeout: s(2),
        fails: 1,
        passes: 1,
    });
    pool
}

impl Case {
    /// Of these the last `backups` are backups.
    fn new(pool: Pool, backups: usize) -> Self {
        let bed = Bed::of(pool);
        let mut health = PoolHealth::new(&bed.pool);
        let first_backup = bed.states.len() - backups;
        for (at, state) in bed.states.iter().enumerate() {
            let membership = Membership {
                weight: bed.pool.backends[at].weight,
                backup: at >= first_backup,
            };
            health.add(state.clone(), membership, false, NOW);
        }
        Self { bed, health }
    }

    fn probe(&mut self, at: usize, passed: bool, now: Duration) {
        let why = Arc::from("probe");
        self.health.probed(BackendIndex(at), passed, &why, now);
    }

    fn fail(&mut self, at: usize, now: Duration) -> bool {
        let change = self.health.met(BackendIndex(at), Report::ConnectFailed, now);
        change.is_some_and(|change| change.to == Condition::Ejected)
    }

    /// (position, weight) of whoever may be chosen.
    fn shares(&mut self, now: Duration) -> Vec<(usize, u32)> {
        let shares = self.health.shares(now);
        shares.iter().map(|share| (share.index.0, share.weight)).collect()
    }

    fn usable(&mut self, now: Duration) -> Vec<usize> {
        self.shares(now).into_iter().map(|(at, _)| at).collect()
    }
}

#[test]
fn at_the_start_all_but_backups_serve_with_their_whole_weight() {
    let mut pool = checked_pool(&[1, 20, 300, 4]);
    pool.health.slow_start = Some(s(10));
    let mut case = Case::new(pool, 1);
    assert_eq!(case.shares(NOW), [(0, 1), (1, 20), (2, 300)]);
    assert_eq!(case.health.deadline(NOW), None);
    assert!(!case.health.is_on_backups());
    let candidates = case.health.candidates(NOW);
    assert!(Arc::ptr_eq(&candidates[2].state, &case.bed.states[2]));
    assert_eq!(candidates[2].weight, 300);
}

#[test]
fn down_and_ejected_backends_are_left_out_and_one_on_trial_is_not() {
    let mut case = Case::new(checked_pool(&[1; 4]), 0);
    case.probe(1, false, NOW);
    assert!(case.fail(2, NOW));
    assert_eq!(case.usable(NOW), [0, 3]);
    assert_eq!(case.health.deadline(NOW), Some(NOW + s(1)));
    assert!(!case.health.tick(NOW + s(1) - Duration::from_nanos(1)));
    assert!(case.health.tick(NOW + s(1)));
    assert_eq!(case.usable(NOW + s(1)), [0, 2, 3]);
    assert!(
        case.health
            .member(BackendIndex(2))
            .expect("a member")
            .judge
            .is_on_trial()
    );
    assert_eq!(case.health.deadline(NOW + s(1)), None);
    case.probe(1, true, NOW + s(2));
    assert_eq!(case.usable(NOW + s(2)), [0, 1, 2, 3]);
}

/// (pool size, percent, most that may be out): rounded down.
#[test]
fn at_most_so_many_percent_are_ejected() {
    for (size, percent, most) in [
        (1, 50, 0),
        (1, 99, 0),
        (1, 100, 1),
        (2, 49, 0),
        (2, 50, 1),
        (2, 100, 2),
        (3, 33, 0),
        (3, 34, 1),
        (3, 50, 1),
        (3, 66, 1),
        (3, 67, 2),
        (3, 100, 3),
        (10, 0, 0),
        (10, 9, 0),
        (10, 10, 1),
        (10, 50, 5),
        (10, 99, 9),
        (10, 100, 10),
    ] {
        let mut pool = checked_pool(&vec![1; size]);
        pool.health.passive = Some(Passive {
            max_ejected: percent,
            ..PASSIVE
        });
        let mut case = Case::new(pool, 0);
        let ejected = (0..size).filter(|&at| case.fail(at, NOW)).count();
        assert_eq!(ejected, most, "{percent} % of {size}");
        assert_eq!(case.usable(NOW).len(), size - most);
        // Those who are out already do not count against themselves when their trial fails.
        if most > 0 {
            case.health.tick(NOW + s(1));
            case.health.met(BackendIndex(0), Report::ConnectFailed, NOW + s(1));
            let first = case.health.member(BackendIndex(0)).expect("a member");
            assert!(!first.judge.is_usable(), "{percent} % of {size}");
        }
    }
}

#[test]
fn one_that_is_back_makes_room_for_another_to_be_out() {
    let mut case = Case::new(checked_pool(&[1; 2]), 0);
    assert!(case.fail(0, NOW));
    assert!(!case.fail(1, NOW));
    case.probe(0, true, NOW);
    assert!(case.fail(1, NOW));
    assert_eq!(case.usable(NOW), [0]);
}

/// Half of two is out already: ejecting the other would leave nobody.
#[test]
fn a_down_backend_counts_as_out() {
    let mut case = Case::new(checked_pool(&[1; 2]), 0);
    case.probe(0, false, NOW);
    assert!(!case.fail(1, NOW));
    case.probe(0, true, NOW);
    assert!(case.fail(1, NOW));
}

#[test]
fn backups_serve_while_nobody_else_can_and_stay_if_told_to() {
    for failback in [Failback::Auto, Failback::Manual] {
        let mut pool = checked_pool(&[1; 4]);
        pool.sessions.failback = failback;
        let mut case = Case::new(pool, 2);
        case.probe(0, false, NOW);
        assert_eq!(case.usable(NOW), [1], "one is enough");
        case.probe(1, false, NOW);
        assert_eq!(case.usable(NOW), [2, 3]);
        assert!(case.health.is_on_backups());
        case.probe(1, true, NOW);
        match failback {
            Failback::Auto => assert_eq!(case.usable(NOW), [1]),
            Failback::Manual => {
                assert_eq!(case.usable(NOW), [2, 3]);
                case.probe(2, false, NOW);
                assert_eq!(case.usable(NOW), [3]);
                case.probe(3, false, NOW);
                assert_eq!(case.usable(NOW), [1], "none of them is well");
                case.probe(3, true, NOW);
                assert_eq!(case.usable(NOW), [1], "and so it stays the other way round");
            }
        }
        assert!(!case.health.is_on_backups());
    }
}

#[test]
fn with_nobody_left_all_or_none_are_used() {
    for fail_open in [false, true] {
        let mut pool = checked_pool(&[3, 5, 7]);
        pool.health.fail_open = fail_open;
        let mut case = Case::new(pool, 1);
        (0..3).for_each(|at| case.probe(at, false, NOW));
        let expected: &[(usize, u32)] = if fail_open { &[(0, 3), (1, 5), (2, 7)] } else { &[] };
        assert_eq!(case.shares(NOW), expected);
        assert!(!case.health.is_on_backups());
        // Whoever drains is not among them.
        case.health.drain(BackendIndex(1), NOW);
        let expected: &[(usize, u32)] = if fail_open { &[(0, 3), (2, 7)] } else { &[] };
        assert_eq!(case.shares(NOW), expected);
        case.probe(2, true, NOW);
        assert_eq!(case.shares(NOW), [(2, 7)]);
    }
}

#[test]
fn a_backend_that_comes_up_starts_with_a_tenth_and_grows_by_tenths() {
    let mut pool = checked_pool(&[3, 8]);
    pool.health.slow_start = Some(s(20));
    let mut case = Case::new(pool, 0);
    case.probe(1, false, NOW);
    assert_eq!(case.shares(NOW), [(0, 3)], "in lowest terms");
    let up = NOW + s(100);
    case.health.tick(up);
    case.probe(1, true, up);
    // Against the whole tens of the other.
    assert_eq!(case.shares(up), [(0, 30), (1, 8)]);
    let mut now = up;
    for tenths in 2..=10 {
        let deadline = case.health.deadline(now).expect("it grows");
        assert_eq!(deadline, up + s(2) * (tenths - 1));
        assert!(!case.health.tick(deadline - Duration::from_nanos(1)));
        assert!(case.health.tick(deadline), "{tenths}");
        now = deadline;
        let expected = if tenths == 10 {
            [(0, 3), (1, 8)]
        } else {
            [(0, 30), (1, 8 * tenths)]
        };
        assert_eq!(case.shares(now), expected);
    }
    assert_eq!(case.health.deadline(now), None);
    assert!(!case.health.tick(now + s(100)));
}

#[test]
fn a_step_that_was_slept_through_is_told_of() {
    let mut pool = checked_pool(&[1, 1]);
    pool.health.slow_start = Some(s(10));
    let mut case = Case::new(pool, 0);
    case.probe(1, false, NOW);
    case.health.tick(NOW);
    case.probe(1, true, NOW);
    let late = NOW + s(7);
    assert!(case.health.deadline(late).is_some_and(|deadline| deadline <= late));
    assert!(case.health.tick(late));
    assert_eq!(case.shares(late), [(0, 10), (1, 8)]);
}

#[test]
fn ip_hash_does_not_start_slowly() {
    let mut pool = checked_pool(&[1, 1]);
    pool.balance = Balance::IpHash;
    pool.health.slow_start = Some(s(10));
    let mut case = Case::new(pool, 0);
    case.probe(1, false, NOW);
    case.probe(1, true, NOW);
    assert_eq!(case.shares(NOW), [(0, 1), (1, 1)], "clients would move twice");
    assert_eq!(case.health.deadline(NOW), None);
}

#[test]
fn who_starts_slowly_and_who_does_not() {
    let mut pool = checked_pool(&[1; 4]);
    pool.health.slow_start = Some(s(10));
    let mut case = Case::new(pool, 0);
    let membership = Membership {
        weight: 1,
        backup: false,
    };
    // Down from the first probe on, then up; ejected, then well; drained and taken back.
    case.probe(0, false, NOW);
    case.probe(0, true, NOW);
    assert!(case.fail(1, NOW));
    case.health.tick(NOW + s(1));
    case.health.met(BackendIndex(1), Report::Connected, NOW + s(1));
    case.health.drain(BackendIndex(2), NOW + s(1));
    case.health
        .add(case.bed.states[2].clone(), membership, false, NOW + s(1));
    // Adding it once more changes nothing.
    case.health
        .add(case.bed.states[3].clone(), membership, true, NOW + s(1));
    // One that comes later, as from DNS.
    let later = super::state(4, &backend(4, 1));
    case.health.add(later, membership, true, NOW + s(1));
    assert_eq!(case.shares(NOW + s(1)), [(0, 2), (1, 1), (2, 1), (3, 10), (4, 1)]);
}

#[test]
fn odd_times_of_slow_start_lead_to_progress_too() {
    for time in [0, 1, 7, 9, 10, 11, 999, 1_000_000_007] {
        let mut pool = checked_pool(&[1, 1]);
        pool.health.slow_start = Some(Duration::from_nanos(time));
        let mut case = Case::new(pool, 0);
        case.probe(1, false, NOW);
        case.probe(1, true, NOW);
        case.health.tick(NOW);
        let mut now = NOW;
        let mut steps = 0;
        while let Some(deadline) = case.health.deadline(now) {
            assert!(deadline > now, "{time} ns: no busy loop");
            now = deadline;
            case.health.tick(now);
            steps += 1;
        }
        assert!(steps <= 9, "{time} ns: {steps}");
        assert_eq!(case.shares(now), [(0, 1), (1, 1)], "{time} ns");
    }
}

/// Everything at once, in a random order: after a tick at its deadline the next deadline is later.
#[test]
fn a_tick_at_the_deadline_always_advances() {
    for seed in 0..200 {
        let mut pool = checked_pool(&[1; 5]);
        pool.health.slow_start = Some(Duration::from_millis(3_333));
        let mut case = Case::new(pool, 1);
        let mut now = NOW;
        for n in 0..100 {
            let drawn = crate::balance::hash::split_mix(seed * 1_000 + n);
            let at = (drawn % 5) as usize;
            match drawn >> 8 & 7 {
                0 => case.probe(at, false, now),
                1 => case.probe(at, true, now),
                2..4 => drop(case.fail(at, now)),
                4 => drop(case.health.met(BackendIndex(at), Report::Answered, now)),
                5 => case.health.drain(BackendIndex(at), now),
                6 => {
                    let membership = Membership {
                        weight: 1,
                        backup: at == 4,
                    };
                    case.health.add(case.bed.states[at].clone(), membership, true, now);
                }
                _ => now += Duration::from_millis(drawn >> 16 & 1_023),
            }
            let Some(deadline) = case.health.deadline(now) else {
                continue;
            };
            // A worker's loop: late if it must be, never early.
            now = deadline.max(now);
            case.health.tick(now);
            let next = case.health.deadline(now);
            assert!(
                next.is_none_or(|next| next > now),
                "seed {seed}, event {n}: {next:?} at {now:?}"
            );
        }
    }
}

#[test]
fn who_drains_for_too_long_is_told_of_once() {
    let mut case = Case::new(checked_pool(&[1; 3]), 0);
    let overdue = |case: &mut Case, at| -> Vec<usize> {
        let late = case.health.take_overdue(NOW + s(at), s(30));
        late.iter().map(|state| state.index.0).collect()
    };
    assert_eq!(case.health.overdue_deadline(s(30)), None);
    case.health.drain(BackendIndex(1), NOW);
    case.health.drain(BackendIndex(2), NOW + s(5));
    assert_eq!(case.health.overdue_deadline(s(30)), Some(NOW + s(30)));
    assert_eq!(overdue(&mut case, 29), [0; 0]);
    assert_eq!(overdue(&mut case, 30), [1]);
    assert_eq!(case.health.overdue_deadline(s(30)), Some(NOW + s(35)));
    assert_eq!(overdue(&mut case, 40), [2]);
    assert_eq!(overdue(&mut case, 400), [0; 0]);
    // Whoever comes back and leaves again has as much time again.
    let membership = Membership {
        weight: 1,
        backup: false,
    };
    case.health
        .add(case.bed.states[1].clone(), membership, true, NOW + s(400));
    case.health.drain(BackendIndex(1), NOW + s(401));
    assert_eq!(case.health.overdue_deadline(s(30)), Some(NOW + s(431)));
}

#[test]
fn a_draining_backend_is_kept_until_its_last_connection_has_ended() {
    let mut case = Case::new(checked_pool(&[1; 3]), 0);
    let held = case.bed.states[1].reserve().expect("no limit");
    case.health.drain(BackendIndex(1), NOW);
    case.health.drain(BackendIndex(1), NOW + s(5));
    case.health.drain(BackendIndex(2), NOW + s(5));
    assert_eq!(case.usable(NOW), [0]);
    let member = case.health.member(BackendIndex(1)).expect("still a member");
    assert_eq!(member.condition(), Condition::Draining);
    assert_eq!(member.draining_since, Some(NOW));
    let gone = |case: &mut Case| -> Vec<usize> {
        let gone = case.health.take_drained();
        gone.iter().map(|state| state.index.0).collect()
    };
    assert_eq!(gone(&mut case), [2]);
    assert_eq!(gone(&mut case), [0; 0]);
    assert_eq!(case.health.members().count(), 2);
    // What its last connections meet is nobody's business any more.
    assert!(!case.fail(1, NOW + s(6)));
    drop(held);
    assert_eq!(gone(&mut case), [1]);
    assert!(case.health.member(BackendIndex(1)).is_none());
}

#[test]
fn a_backend_that_is_taken_back_serves_again() {
    let mut case = Case::new(checked_pool(&[1; 2]), 0);
    case.health.drain(BackendIndex(0), NOW);
    let membership = Membership {
        weight: 9,
        backup: false,
    };
    case.health.add(case.bed.states[0].clone(), membership, true, NOW);
    assert_eq!(case.shares(NOW), [(0, 9), (1, 1)], "with its new weight");
    assert!(case.health.take_drained().is_empty());
}

#[test]
fn changes_are_told_once() {
    let mut case = Case::new(checked_pool(&[1; 2]), 0);
    let why = Arc::from("refused");
    let change = case
        .health
        .probed(BackendIndex(0), false, &why, NOW)
        .expect("it went down");
    assert_eq!(
        (change.from, change.to, change.cause, &*change.why),
        (Condition::Up, Condition::Down, Cause::Probe, "refused")
    );
    assert!(case.health.probed(BackendIndex(0), false, &why, NOW).is_none());
    assert!(
        case.health.probed(BackendIndex(7), false, &why, NOW).is_none(),
        "not a member"
    );
    assert!(case.health.met(BackendIndex(7), Report::ConnectFailed, NOW).is_none());
}

/// From a failed connect to a trial that goes well, with a selector as workers have it.
#[test]
fn an_ejected_backend_comes_back_by_one_connection() {
    let mut case = Case::new(checked_pool(&[1; 2]), 0);
    let tickets = Arc::new(Tickets::new());
    let publish = |case: &mut Case, now| {
        for member in case.health.members() {
            member.state.orders.set_trial(member.judge.is_on_trial());
        }
        let candidates = case.health.candidates(now);
        Selector::new(&case.bed.pool, tickets.clone(), candidates)
    };
    assert!(case.fail(0, NOW));
    let selector = publish(&mut case, NOW);
    let _held = hold(&selector, 1, 4);
    assert_eq!(case.bed.connections(), [0, 4]);
    let later = NOW + s(1);
    case.health.tick(later);
    let selector = publish(&mut case, later);
    let trying = hold(&selector, 2, 10);
    assert_eq!(
        case.bed.connections(),
        [1, 13],
        "one tries it, the others do not wait for it"
    );
    assert_eq!(trying.iter().filter(|choice| choice.reservation.is_trial()).count(), 1);
    assert!(case.health.met(BackendIndex(0), Report::Connected, later).is_some());
    let selector = publish(&mut case, later);
    let mut counts = [0; 2];
    for n in 0..10 {
        let choice = selector
            .choose(client(n), &Tried::default(), later)
            .expect("both are usable");
        counts[choice.index.0] += 1;
    }
    assert_eq!(counts, [5, 5]);
}

/// The primary is a name that DNS has not answered for yet.
#[test]
fn a_backup_that_was_there_before_its_primary_is_left_for_it_whatever_failback_says() {
    let mut pool = checked_pool(&[1, 1]);
    pool.sessions.failback = Failback::Manual;
    let bed = Bed::of(pool);
    let mut health = PoolHealth::new(&bed.pool);
    let add = |health: &mut PoolHealth, at: usize, backup: bool| {
        health.add(bed.states[at].clone(), Membership { weight: 1, backup }, false, NOW);
    };
    let usable =
        |health: &mut PoolHealth| -> Vec<usize> { health.shares(NOW).iter().map(|share| share.index.0).collect() };
    add(&mut health, 1, true);
    assert_eq!(usable(&mut health), [1], "better than nobody");
    assert!(!health.is_on_backups());
    add(&mut health, 0, false);
    assert_eq!(usable(&mut health), [0]);
    // From here on manual means manual.
    health.probed(BackendIndex(0), false, &"probe".into(), NOW);
    assert_eq!(usable(&mut health), [1]);
    health.probed(BackendIndex(0), true, &"probe".into(), NOW);
    assert_eq!(usable(&mut health), [1]);
}
