use super::{Bed, NOW, chi_squared, client, eligible};
use crate::balance::hash::{address_bytes, mix};
use crate::balance::maglev::{Maglev, SLOTS};
use crate::balance::{Selector, Tried};
use crate::model::{Address, BackendIndex, Balance, HashAlgorithm};
use std::fmt::Write as _;
use std::hash::Hasher;

fn bed(weights: &[u16]) -> Bed {
    Bed::new(Balance::IpHash, HashAlgorithm::Maglev, weights)
}

fn choose(selector: &Selector, n: u32) -> usize {
    selector
        .choose(client(n), &Tried::default(), NOW)
        .expect("some are eligible")
        .index
        .0
}

fn table(bed: &Bed, seed: u64) -> Vec<u32> {
    Maglev::new(&eligible(bed), seed).table().to_vec()
}

/// The paper's pseudo-code: whole permutations, then turns; weights as accumulated targets; the standard library's
/// SipHash-2-4.
fn table_by_the_paper(bed: &Bed, seed: u64) -> Vec<u32> {
    let m = u64::from(SLOTS);
    let hash = |purpose: &[u8; 8], address: &Address| {
        #[expect(deprecated, reason = "the only SipHash-2-4 of the standard library")]
        let mut sip = std::hash::SipHasher::new_with_keys(seed, u64::from_le_bytes(*purpose));
        sip.write(&address_bytes(address));
        sip.finish()
    };
    let backends = &bed.pool.backends;
    let mut order: Vec<usize> = (0..backends.len()).collect();
    order.sort_by_key(|&i| hash(b"backend ", &bed.states[i].address));
    let permutation = |i: usize| -> Vec<u64> {
        let offset = hash(b"offset  ", &bed.states[i].address) % m;
        let skip = hash(b"skip    ", &bed.states[i].address) % (m - 1) + 1;
        (0..m).map(|j| (offset + j * skip) % m).collect()
    };
    let permutations: Vec<_> = (0..backends.len()).map(permutation).collect();
    let weight = |i: usize| u64::from(backends[i].weight);
    let max_weight = order.iter().map(|&i| weight(i)).max().expect("at least one backend");
    let mut target = vec![max_weight; backends.len()];
    let mut next = vec![0; backends.len()];
    let mut entry: Vec<Option<u32>> = vec![None; m as usize];
    let mut n = 0;
    for iteration in 1.. {
        for &i in &order {
            if iteration * weight(i) < target[i] {
                continue;
            }
            target[i] += max_weight;
            let mut c = permutations[i][next[i]];
            while entry[c as usize].is_some() {
                next[i] += 1;
                c = permutations[i][next[i]];
            }
            entry[c as usize] = Some(i as u32);
            next[i] += 1;
            n += 1;
            if n == m {
                return entry.into_iter().flatten().collect();
            }
        }
    }
    unreachable!("the loop above has no other end");
}

/// IEEE 802.3, bit by bit.
fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
        })
    })
}

#[test]
fn tables_are_those_of_the_paper() {
    for (weights, seed) in [
        (vec![1; 10], 0),
        (vec![1, 2, 3, 5, 1000], 9),
        (vec![3; 100], 1),
        (vec![1], 0),
    ] {
        let bed = bed(&weights);
        assert!(
            table(&bed, seed) == table_by_the_paper(&bed, seed),
            "weights {weights:?}, seed {seed}"
        );
    }
}

/// The golden file was made by an implementation in another language. These tables must never change: balancers of
/// different versions stand side by side.
#[test]
fn tables_are_golden() {
    assert_eq!(
        crc32(b"123456789".iter().copied()),
        0xcbf4_3926,
        "the check value of CRC-32"
    );
    let mut lines = String::from(
        "# Backends 10.0.0.1:5432, 10.0.0.2:5432, ...: CRC-32 of the table (positions as little-endian u32), and its \
         first slots.\n",
    );
    for (name, weights, seed) in [
        ("10 of weight 1", vec![1; 10], 0),
        ("10 of weight 1", vec![1; 10], 7),
        ("weights 1 2 3 5 1000", vec![1, 2, 3, 5, 1000], 0),
        ("100 of weight 1", vec![1; 100], 0),
    ] {
        let table = table(&bed(&weights), seed);
        let crc = crc32(table.iter().flat_map(|slot| slot.to_le_bytes()));
        let first: Vec<_> = table[..12].iter().map(u32::to_string).collect();
        writeln!(lines, "{name}, seed {seed}: {crc:08x} {}", first.join(" ")).expect("a string takes everything");
    }
    let golden = include_str!("../../tests/golden/maglev.txt");
    assert!(
        lines == golden,
        "tests/golden/maglev.txt has\n{golden}\nbut the tables are\n{lines}"
    );
}

#[test]
fn removing_one_of_a_hundred_moves_at_most_two_percent_of_the_others() {
    let bed = bed(&[1; 100]);
    let whole = bed.selector();
    for removed in [0, 37, 99] {
        let rest = bed.selector_among((0..100).filter(|&position| position != removed));
        let (mut others, mut moved) = (0, 0);
        for n in 0..100_000 {
            let (before, after) = (choose(&whole, n), choose(&rest, n));
            assert_ne!(after, removed);
            if before != removed {
                others += 1;
                moved += u32::from(before != after);
            }
        }
        assert!(moved * 50 <= others, "{moved} of {others} clients moved without need");
        println!("backend {removed} removed: {moved} of {others} other clients moved");
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
        let forward = &forward.states[choose(&a, n)].address;
        assert_eq!(forward, &shuffled.states[choose(&b, n)].address, "client {n}");
    }
}

/// 65,537 slots: 655.37 for each of a hundred; 65,537 * w / 1,011 by weight.
#[test]
fn slots_follow_weights() {
    let slots = |weights: &[u16]| {
        let mut counts = vec![0_u32; weights.len()];
        table(&bed(weights), 0).iter().for_each(|&at| counts[at as usize] += 1);
        counts
    };
    assert!(slots(&[1; 100]).iter().all(|&count| count == 655 || count == 656));
    assert_eq!(slots(&[1, 2, 3, 5, 1000]), [64, 129, 194, 324, 64_826]);
    assert_eq!(slots(&[9]), [65_537]);
}

#[test]
fn sequential_addresses_spread_evenly() {
    let bed = bed(&[1; 10]);
    let selector = bed.selector();
    let mut counts = [0; 10];
    (0..65_536).for_each(|n| counts[choose(&selector, n)] += 1);
    assert!(chi_squared(&counts, &[1; 10]) < 27.9, "{counts:?}");
}

#[test]
fn clients_of_a_refusing_backend_spread_over_the_others() {
    let bed = bed(&[1; 10]);
    let selector = bed.selector();
    let mut tried = Tried::default();
    tried.insert(BackendIndex(4));
    let mut counts = vec![0; 10];
    for n in (0..200_000).filter(|&n| choose(&selector, n) == 4) {
        counts[selector.choose(client(n), &tried, NOW).expect("nine others").index.0] += 1;
    }
    assert_eq!(counts.remove(4), 0);
    // 8 degrees of freedom: 26.1 once in a thousand.
    assert!(chi_squared(&counts, &[1; 9]) < 26.1, "{counts:?}");
}

#[test]
fn a_backend_too_light_for_a_slot_is_still_a_last_resort() {
    let mut weights = [1000; 100];
    weights[50] = 1;
    let bed = bed(&weights);
    assert!(!table(&bed, 0).contains(&50), "its share is 65,537 / 99,001 of a slot");
    let only = bed.selector_among([50]);
    assert_eq!(choose(&only, 0), 50);
    // Sixteen of seventeen eligible backends tried; the last one left has no slot.
    let selector = bed.selector_among(40..56);
    let mut tried = Tried::default();
    (40..56)
        .filter(|&at| at != 50)
        .for_each(|at| assert!(tried.insert(BackendIndex(at))));
    assert_eq!(
        selector.choose(client(0), &tried, NOW).map(|choice| choice.index),
        Ok(BackendIndex(50))
    );
}
