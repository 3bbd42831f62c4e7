use super::{Bed, NOW, chi_squared, client, pool};
use crate::balance::hash::{Purpose, address_bytes, keyed, mix};
use crate::balance::{ClientKey, Selector, Tried};
use crate::model::{Address, Balance, HashAlgorithm, HashRule, Target};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};

fn bed(weights: &[u16]) -> Bed {
    Bed::new(Balance::IpHash, HashAlgorithm::Rendezvous, weights)
}

fn choose(selector: &Selector, client: ClientKey) -> usize {
    selector
        .choose(client, &Tried::default(), NOW)
        .expect("some are eligible")
        .index
        .0
}

fn shares(selector: &Selector, backends: usize, clients: u32) -> Vec<u32> {
    let mut counts = vec![0; backends];
    (0..clients).for_each(|n| counts[choose(selector, client(n))] += 1);
    counts
}

#[test]
fn removing_one_of_ten_moves_no_client_of_the_others() {
    for weights in [
        [1; 10],
        [1, 2, 3, 4, 5, 1000, 7, 8, 9, 10],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 2],
    ] {
        let bed = bed(&weights);
        let whole = bed.selector();
        // The last removal makes unequal weights equal, so it also compares the two ways of scoring.
        for removed in [0, 4, 9] {
            let rest = bed.selector_among((0..10).filter(|&position| position != removed));
            let mut moved_to = [0; 10];
            for n in 0..20_000 {
                let (before, after) = (choose(&whole, client(n)), choose(&rest, client(n)));
                if before == removed {
                    assert_ne!(after, removed);
                    moved_to[after] += 1;
                } else {
                    assert_eq!(before, after, "client {n} moved though its backend stayed");
                }
            }
            let reached = moved_to.iter().filter(|&&count| count > 0).count();
            assert!(
                reached == 9 || weights[5] == 1000,
                "its clients spread over all others: {moved_to:?}"
            );
        }
    }
}

#[test]
fn the_order_in_the_file_does_not_matter() {
    let forward = bed(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let mut shuffled = forward.pool.clone();
    shuffled.backends.sort_by_key(|backend| mix(u64::from(backend.weight)));
    let shuffled = Bed::of(shuffled);
    assert_ne!(forward.pool.backends, shuffled.pool.backends);
    let (a, b) = (forward.selector(), shuffled.selector());
    for n in 0..100_000 {
        let at = |bed: &Bed, selector| bed.states[choose(selector, client(n))].address.clone();
        assert_eq!(at(&forward, &a), at(&shuffled, &b), "client {n}");
    }
}

/// Neighbours in one subnet, as behind one carrier: 9 degrees of freedom, so chi² exceeds 27.9 once in a thousand.
#[test]
fn sequential_addresses_spread_evenly_and_by_weight() {
    let even = shares(&bed(&[1; 10]).selector(), 10, 65_536);
    assert!(chi_squared(&even, &[1; 10]) < 27.9, "{even:?}");
    let weights = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    let weighted = shares(&bed(&weights).selector(), 10, 65_536);
    assert!(chi_squared(&weighted, &weights.map(u32::from)) < 27.9, "{weighted:?}");
    // One address per /24, which differ in the third byte only, and a great span of weights.
    let bed = bed(&[1, 1000]);
    let selector = bed.selector();
    let light = (0..200_000).filter(|n| choose(&selector, client(n << 4)) == 0).count();
    assert!(
        (150..=250).contains(&light),
        "1 of 1001, 199.8 expected with a deviation of 14: {light}"
    );
}

#[test]
fn seeds_are_independent() {
    let bed = bed(&[1; 10]);
    let mut other = bed.pool.clone();
    other.hash.seed = 1;
    let other = Bed::of(other);
    let (a, b) = (bed.selector(), other.selector());
    let same = (0..10_000)
        .filter(|&n| choose(&a, client(n)) == choose(&b, client(n)))
        .count();
    assert!((850..=1_150).contains(&same), "one in ten stays by chance: {same}");
}

/// From an implementation of the same definition in Python: 203.0.113.0 ..= .15 at ten backends of equal weight, and
/// of weights 1 ..= 10. These must never change: balancers of different versions stand side by side.
#[test]
fn choices_are_the_same_in_every_version() {
    let equal = [4, 8, 5, 7, 4, 1, 9, 6, 8, 9, 8, 8, 2, 9, 1, 8];
    let weighted = [4, 8, 7, 7, 8, 5, 9, 6, 8, 9, 8, 8, 7, 9, 8, 8];
    for (weights, expected) in [([1; 10], equal), ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], weighted)] {
        let selector = bed(&weights).selector();
        let clients = (0..16).map(|low| ClientKey::from(IpAddr::from(Ipv4Addr::new(203, 0, 113, low))));
        let chosen: Vec<_> = clients.map(|client| choose(&selector, client)).collect();
        assert_eq!(chosen, expected);
    }
}

/// Straight from the definition, in floating point: the least -ln(u) / weight.
#[test]
fn agrees_with_the_definition() {
    let weights = [1, 2, 3, 500, 1000, 17];
    let bed = bed(&weights);
    let selector = bed.selector();
    let mut near = 0;
    for n in 0..20_000 {
        let key = u128::from(0xffff_6440_0000_u64 + u64::from(n)).to_be_bytes();
        let mut scores: Vec<(f64, usize)> = (0..weights.len())
            .map(|position| {
                let address = address_bytes(&bed.states[position].address);
                let drawn = mix(keyed(0, Purpose::Client, &key) ^ keyed(0, Purpose::Backend, &address));
                let u = (drawn as f64 + 0.5) / 2_f64.powi(64);
                (-u.ln() / f64::from(weights[position]), position)
            })
            .collect();
        scores.sort_by(|a, b| a.0.total_cmp(&b.0));
        // The integers stop at an error of 2^-22; nearer than that either may win.
        if scores[1].0 - scores[0].0 < 1e-6 {
            near += 1;
            continue;
        }
        assert_eq!(choose(&selector, client(n)), scores[0].1, "client {n}: {scores:?}");
    }
    assert!(near < 100, "{near}");
}

#[test]
fn a_client_without_its_backend_goes_where_it_would_if_that_were_gone() {
    let bed = bed(&[1, 2, 3, 4, 5]);
    let whole = bed.selector();
    for n in 0..2_000 {
        let mut tried = Tried::default();
        let mut left: Vec<usize> = (0..5).collect();
        while !left.is_empty() {
            let next = whole.choose(client(n), &tried, NOW).expect("some are untried").index;
            assert_eq!(next.0, choose(&bed.selector_among(left.clone()), client(n)));
            tried.insert(next);
            left.retain(|&position| position != next.0);
        }
        assert!(whole.choose(client(n), &tried, NOW).is_err());
    }
}

#[test]
fn clients_of_a_unix_listener_are_one_client() {
    let bed = bed(&[1; 10]);
    let selector = bed.selector();
    let first = choose(&selector, ClientKey::UNIX);
    assert!((0..10).all(|_| choose(&selector, ClientKey::UNIX) == first));
}

/// The same destination written twice cannot be told apart by its bytes; the order in the file still must not matter.
#[test]
fn equal_hashes_are_settled_alike_everywhere() {
    let mut backends = [super::backend(0, 1), super::backend(0, 1)].to_vec();
    let mapped = Address::Inet("[::ffff:10.0.0.1]:5432".parse().expect("an address"));
    backends[1].target = Target::Address(mapped);
    let hash = HashRule {
        algorithm: HashAlgorithm::Rendezvous,
        seed: 0,
        max_load: None,
    };
    let forward = Bed::of(pool(Balance::IpHash, hash, backends.clone()));
    backends.reverse();
    let backward = Bed::of(pool(Balance::IpHash, hash, backends));
    for n in 0..100 {
        let chosen = [&forward, &backward].map(|bed| &bed.pool.backends[choose(&bed.selector(), client(n))].label);
        let address = [&forward, &backward].map(|bed| &bed.states[choose(&bed.selector(), client(n))].address);
        assert_eq!(address[0], address[1], "{chosen:?}");
    }
}

proptest! {
    /// The others' results do not change, so clients only move towards the backend that got heavier.
    #[test]
    fn a_greater_weight_only_attracts(
        weights in prop::collection::vec(1..=1000_u16, 2..8),
        which: prop::sample::Index,
        factor in 1..=5_u16,
        from: u16,
    ) {
        let grown = which.index(weights.len());
        let before = bed(&weights);
        let mut heavier = weights.clone();
        heavier[grown] = heavier[grown].saturating_mul(factor).min(1000);
        let after = bed(&heavier);
        let (a, b) = (before.selector(), after.selector());
        for n in 0..200 {
            let client = client(u32::from(from) + n);
            let (old, new) = (choose(&a, client), choose(&b, client));
            prop_assert!(old == new || new == grown, "{weights:?}: client went from {old} to {new}, not to {grown}");
        }
    }

    #[test]
    fn removing_any_moves_only_its_own(
        weights in prop::collection::vec(1..=1000_u16, 2..12),
        which: prop::sample::Index,
        seed: u64,
    ) {
        let removed = which.index(weights.len());
        let mut bed = bed(&weights);
        bed.pool.hash.seed = seed;
        let (whole, rest) = (bed.selector(), bed.selector_among((0..weights.len()).filter(|&at| at != removed)));
        for n in 0..200 {
            let before = choose(&whole, client(n));
            let after = choose(&rest, client(n));
            prop_assert!(before == after || before == removed);
            prop_assert!(after != removed);
        }
    }
}
