use super::{Bed, NOW, client};
use crate::balance::{NoChoice, Tried};
use crate::model::{BackendIndex, Balance, HashAlgorithm};

/// The algorithms, both hashes, and both with bounded load.
const RULES: [(Balance, HashAlgorithm, Option<u16>); 9] = [
    (Balance::RoundRobin, HashAlgorithm::Rendezvous, None),
    (Balance::LeastConnections, HashAlgorithm::Rendezvous, None),
    (Balance::IpHash, HashAlgorithm::Rendezvous, None),
    (Balance::IpHash, HashAlgorithm::Maglev, None),
    (Balance::IpHash, HashAlgorithm::Rendezvous, Some(125)),
    (Balance::IpHash, HashAlgorithm::Maglev, Some(125)),
    (Balance::LeastResponseTime, HashAlgorithm::Rendezvous, None),
    (Balance::LeastBandwidth, HashAlgorithm::Rendezvous, None),
    (Balance::Random, HashAlgorithm::Rendezvous, None),
];

fn beds(weights: &[u16]) -> impl Iterator<Item = Bed> {
    RULES.into_iter().map(|(balance, algorithm, max_load)| {
        let mut bed = Bed::new(balance, algorithm, weights);
        bed.pool.hash.max_load = max_load;
        bed
    })
}

#[test]
fn the_chosen_backend_is_the_counted_one() {
    for bed in beds(&[3, 1, 2]) {
        let choice = bed
            .selector()
            .choose(client(5), &Tried::default(), NOW)
            .expect("all are eligible");
        let mut expected = [0; 3];
        expected[choice.index.0] = 1;
        assert_eq!(bed.connections(), expected, "{:?}", bed.pool.balance);
        assert_eq!(choice.reservation.backend().address, bed.states[choice.index.0].address);
        drop(choice);
        assert_eq!(bed.connections(), [0; 3]);
    }
}

#[test]
fn every_eligible_backend_is_tried_once_and_then_none() {
    for bed in beds(&[3, 1, 2, 1, 1000, 1]) {
        let selector = bed.selector_among([5, 1, 4, 1, 2]);
        assert_eq!(selector.eligible_len(), 4);
        for n in 0..50 {
            let mut tried = Tried::default();
            // Tried while it was still eligible: it does not count among the four.
            tried.insert(BackendIndex(0));
            let mut chosen = Vec::new();
            while let Ok(choice) = selector.choose(client(n), &tried, NOW) {
                assert!(tried.insert(choice.index));
                chosen.push(choice.index.0);
            }
            assert_eq!(selector.choose(client(n), &tried, NOW).err(), Some(NoChoice::Exhausted));
            chosen.sort_unstable();
            assert_eq!(chosen, [1, 2, 4, 5], "{:?}", bed.pool.balance);
        }
        assert_eq!(bed.connections(), [0; 6]);
    }
}

#[test]
fn without_an_eligible_backend_there_is_no_choice() {
    for bed in beds(&[1, 1]) {
        let selector = bed.selector_among([]);
        assert_eq!(
            selector.choose(client(0), &Tried::default(), NOW).err(),
            Some(NoChoice::Exhausted)
        );
        assert!(!selector.is_sampled());
    }
}

#[test]
fn a_single_backend_is_always_chosen() {
    for bed in beds(&[7]) {
        let selector = bed.selector();
        for n in 0..20 {
            let choice = selector
                .choose(client(n), &Tried::default(), NOW)
                .expect("it is eligible");
            assert_eq!(choice.index, BackendIndex(0));
        }
    }
}

#[test]
fn debug_output_is_short() {
    let texts: Vec<_> = beds(&[1, 1])
        .map(|bed| format!("{:?}", bed.selector_among([1])))
        .collect();
    assert_eq!(texts[0], "Selector { algorithm: \"round_robin\", eligible: [1], .. }");
    assert!(texts[3].contains("maglev"));
}

#[test]
fn workers_may_share_it() {
    fn shared<T: Send + Sync>() {}
    shared::<crate::balance::Selector>();
    shared::<crate::balance::Choice>();
}

/// Full backends are passed over, a pool of nothing else says so, and a first that leaves makes room.
#[test]
fn full_backends_are_passed_over_and_full_is_not_exhausted() {
    for bed in beds(&[3, 1, 2]) {
        let named = format!("{:?}, {:?}", bed.pool.balance, bed.pool.hash);
        for (state, max) in bed.states.iter().zip([2, 1, 3]) {
            state.orders.set_connections_max(Some(max));
        }
        let selector = bed.selector();
        let choose = |n, tried: &Tried| selector.choose(client(n), tried, NOW);
        let mut held: Vec<_> = (0..6)
            .map(|n| choose(n, &Tried::default()).expect("there is room"))
            .collect();
        assert_eq!(bed.connections(), [2, 1, 3], "{named}");
        for n in 0..20 {
            assert_eq!(choose(n, &Tried::default()).err(), Some(NoChoice::Full), "{named}");
        }
        let mut tried = Tried::default();
        tried.insert(BackendIndex(0));
        tried.insert(BackendIndex(2));
        assert_eq!(
            choose(0, &tried).err(),
            Some(NoChoice::Full),
            "{named}: the second is untried"
        );
        tried.insert(BackendIndex(1));
        assert_eq!(choose(0, &tried).err(), Some(NoChoice::Exhausted), "{named}");
        let left = held.swap_remove(3).index;
        assert_eq!(
            choose(0, &Tried::default()).map(|choice| choice.index),
            Ok(left),
            "{named}"
        );
    }
}

#[test]
fn limits_hold_over_threads_by_every_algorithm() {
    for bed in beds(&[1, 2, 3, 4]) {
        for (state, max) in bed.states.iter().zip([3, 5, 1, 7]) {
            state.orders.set_connections_max(Some(max));
        }
        let selector = bed.selector();
        std::thread::scope(|scope| {
            for thread in 0..2_u32 {
                let (bed, selector) = (&bed, &selector);
                scope.spawn(move || {
                    for round in 0..200_u32 {
                        let open = |n| selector.choose(client(thread + round * 40 + n), &Tried::default(), NOW);
                        let held: Vec<_> = (0..12).filter_map(|n| open(n).ok()).collect();
                        let counts = bed.connections();
                        let within = counts.iter().zip([3, 5, 1, 7]).all(|(&count, max)| count <= max);
                        assert!(within, "{:?}: {counts:?}", bed.pool.balance);
                        // Two threads of twelve want more than the sixteen there are.
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(bed.connections(), [0; 4]);
    }
}

#[test]
fn one_connection_tries_a_backend_on_trial_and_the_others_go_elsewhere() {
    for bed in beds(&[1, 1, 1]) {
        bed.states[1].orders.set_trial(true);
        let selector = bed.selector();
        let held: Vec<_> = (0..60)
            .map(|n| selector.choose(client(n), &Tried::default(), NOW).expect("two others"))
            .collect();
        let trials = held.iter().filter(|choice| choice.reservation.is_trial()).count();
        assert_eq!((trials, bed.connections()[1]), (1, 1), "{:?}", bed.pool.balance);
    }
}

/// With nothing left but trials that are under way the pool has no backend to offer; one that is full says so.
#[test]
fn trials_under_way_are_not_taken_for_full_backends() {
    for bed in beds(&[1, 1]) {
        for state in &bed.states {
            state.orders.set_trial(true);
        }
        let selector = bed.selector();
        let choose = |n| selector.choose(client(n), &Tried::default(), NOW);
        let _held = [0, 1].map(|n| choose(n).expect("a trial is open"));
        assert_eq!(choose(2).err(), Some(NoChoice::OnTrial), "{:?}", bed.pool.balance);
        bed.states[0].orders.set_trial(false);
        bed.states[0].orders.set_connections_max(Some(1));
        assert_eq!(choose(3).err(), Some(NoChoice::Full), "{:?}", bed.pool.balance);
    }
}

/// With nothing usable, no algorithm walks a schedule of a million slots or a table of 65,537 for each choice.
#[test]
fn a_full_pool_says_so_quickly() {
    let mut heavy = vec![999; 1_050];
    heavy.push(1000);
    for bed in beds(&heavy) {
        let full: Vec<_> = bed
            .states
            .iter()
            .filter_map(|state| {
                state.orders.set_connections_max(Some(1));
                state.reserve()
            })
            .collect();
        assert_eq!(full.len(), heavy.len());
        let selector = bed.selector();
        let began = std::time::Instant::now();
        for n in 0..100 {
            let refused = selector.choose(client(n), &Tried::default(), NOW);
            assert_eq!(refused.err(), Some(NoChoice::Full));
        }
        // Unoptimized a look at each of a thousand is tens of microseconds, a million slots tens of milliseconds.
        let each = began.elapsed() / 100;
        assert!(
            each < std::time::Duration::from_millis(5),
            "{:?}: {each:?}",
            bed.pool.balance
        );
    }
}
