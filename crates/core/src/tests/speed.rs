//! Prints what a choice costs; asserts nothing about time. In release mode:
//! `cargo test --release -p ringway-core speed -- --nocapture`.

use super::{Bed, NOW, client};
use crate::balance::Tried;
use crate::model::{Balance, HashAlgorithm};
use std::hint::black_box;
use std::time::Instant;

#[test]
fn what_a_choice_costs() {
    const CHOICES: u32 = if cfg!(debug_assertions) { 10_000 } else { 2_000_000 };
    for balance in [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::LeastResponseTime,
        Balance::LeastBandwidth,
        Balance::Random,
        Balance::IpHash,
    ] {
        for backends in [3, 256] {
            let bed = Bed::new(balance, HashAlgorithm::Rendezvous, &vec![1; backends]);
            let selector = bed.selector();
            let choices = CHOICES * 3 / (3 + backends as u32);
            let began = Instant::now();
            for n in 0..choices {
                let choice = selector.choose(client(black_box(n)), &Tried::default(), NOW);
                drop(black_box(choice).expect("all are usable"));
            }
            let each = began.elapsed() / choices;
            println!(
                "{}, {backends} backends: {each:?} to choose and give back",
                balance.name()
            );
            assert_eq!(bed.connections().iter().sum::<u32>(), 0);
        }
    }
}
