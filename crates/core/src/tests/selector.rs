use super::{Bed, client};
use crate::balance::Tried;
use crate::model::{BackendIndex, Balance, HashAlgorithm};

const RULES: [(Balance, HashAlgorithm); 4] = [
    (Balance::RoundRobin, HashAlgorithm::Rendezvous),
    (Balance::LeastConnections, HashAlgorithm::Rendezvous),
    (Balance::IpHash, HashAlgorithm::Rendezvous),
    (Balance::IpHash, HashAlgorithm::Maglev),
];

fn beds(weights: &[u16]) -> impl Iterator<Item = Bed> {
    RULES
        .into_iter()
        .map(|(balance, algorithm)| Bed::new(balance, algorithm, weights))
}

#[test]
fn the_chosen_backend_is_the_counted_one() {
    for bed in beds(&[3, 1, 2]) {
        let choice = bed
            .selector()
            .choose(client(5), &Tried::default())
            .expect("all are eligible");
        let mut expected = [0; 3];
        expected[choice.index.0] = 1;
        assert_eq!(bed.connections(), expected, "{:?}", bed.pool.balance);
        assert_eq!(
            choice.reservation.backend().address,
            bed.pool.backends[choice.index.0].address
        );
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
            while let Some(choice) = selector.choose(client(n), &tried) {
                assert!(tried.insert(choice.index));
                chosen.push(choice.index.0);
            }
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
        assert!(selector.choose(client(0), &Tried::default()).is_none());
        assert!(!selector.is_sampled());
    }
}

#[test]
fn a_single_backend_is_always_chosen() {
    for bed in beds(&[7]) {
        let selector = bed.selector();
        for n in 0..20 {
            let choice = selector.choose(client(n), &Tried::default()).expect("it is eligible");
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
