//! The UDP relay over the simulated network: books that balance, answers to whom they belong, and nothing left behind.
//! Each world follows from its seed, which every failure names.

mod proxied;
mod world;

use ringway_core::reason::{DropReason, EndReason};
use std::time::Duration;
use world::{Per, Shape, World};

const SEEDS: u64 = 1_000;

#[test]
fn a_calm_world_answers_everything() {
    let mut world = World::new(7, Shape::CALM);
    // Nobody goes, nobody is silent for long enough to matter.
    for _ in 0..100 {
        world.client_sends();
        for _ in 0..3 {
            world.runtime.turn(false);
            world.network.advance(Duration::from_micros(10));
        }
        for peer in world.backends.iter().flatten() {
            while let Some(letter) = world.network.receive_letter(*peer) {
                let each = letter.segment.map_or(letter.bytes.len(), usize::from);
                for bytes in letter.bytes.chunks(each) {
                    let answer = [&[0][..], bytes].concat();
                    world.network.send_letter(*peer, letter.from, &answer, None, 0);
                }
            }
        }
        world.runtime.turn(false);
        world.runtime.turn(false);
        world.clients_look();
        world.check_books();
    }
    let sent: u64 = world.sent.iter().map(|&count| u64::from(count)).sum();
    let stats = world.stats.listeners[0].dropped[DropReason::MaxSessions.index()].value();
    assert_eq!(world.answers + stats, sent, "lost without a reason");
    world.finish();
}

/// What came of many worlds.
#[derive(Default)]
struct Sum {
    sent: u64,
    answers: u64,
    timeouts: u64,
    refused: u64,
    bad: u64,
}

fn run(seeds: std::ops::Range<u64>, shape: impl Fn(u64) -> Shape) -> Sum {
    let mut sum = Sum::default();
    for seed in seeds {
        let mut world = World::new(seed, shape(seed));
        for _ in 0..300 {
            world.step(true);
        }
        let stats = &world.stats.listeners[0];
        sum.timeouts += stats.ended[EndReason::SessionTimeout.index()].value();
        sum.bad += stats.dropped[DropReason::BadProxyHeader.index()].value();
        let (asked, answered, network) = world.finish();
        sum.refused += network.seen().trains_refused;
        sum.sent += asked;
        sum.answers += answered;
    }
    sum
}

#[test]
fn books_balance_whatever_happens() {
    let sum = run(0..SEEDS, |_| Shape {
        unkind: true,
        ..Shape::CALM
    });
    let Sum { sent, answers, .. } = sum;
    assert!(
        answers > sent / 4,
        "{answers} answers to {sent} questions: too little was tested"
    );
    assert!(
        sum.refused > SEEDS,
        "{} trains refused: too little was tested",
        sum.refused
    );
    assert!(
        sum.timeouts > SEEDS,
        "{} sessions ended by timeout: too little was tested",
        sum.timeouts
    );
}

/// With PROXY headers on either side, in front of sessions or of datagrams.
#[test]
fn books_balance_with_headers() {
    let ways = [Per::Nothing, Per::Session, Per::Datagram];
    for accepted in ways {
        for sent in ways {
            let seeds = SEEDS / 20;
            let sum = run(0..seeds, |_| Shape {
                unkind: true,
                accepted,
                sent,
                sessions: 0,
            });
            let what = format!("accepted {accepted:?}, sent {sent:?}");
            assert!(
                sum.answers > sum.sent / 20,
                "{what}: {} answers to {}: too little was tested",
                sum.answers,
                sum.sent
            );
            assert_eq!(
                sum.bad > seeds,
                accepted != Per::Nothing,
                "{what}: {} bad headers",
                sum.bad
            );
        }
    }
}

/// Of one client's answers, those of the same length leave together, a shorter one behind them; order stays.
#[test]
fn answers_that_follow_each_other_leave_as_a_train() {
    let mut world = World::new(3, Shape::CALM);
    world.client_sends();
    let settle = |world: &World| {
        for _ in 0..4 {
            world.runtime.turn(false);
            world.network.advance(Duration::from_micros(10));
        }
    };
    settle(&world);
    let asked = world.backends.iter().flatten().find_map(|&peer| {
        let letter = world.network.receive_letter(peer)?;
        Some((peer, letter.from))
    });
    let (backend, session) = asked.expect("one of the backends was asked");
    let lengths = [100, 100, 100, 40, 100, 0, 0, 1_500, 1_500, 60];
    for (n, &len) in lengths.iter().enumerate() {
        world
            .network
            .send_letter(backend, session, &vec![n as u8; len], None, 0);
    }
    settle(&world);
    let mut got: Vec<(usize, Option<u16>)> = Vec::new();
    let mut bytes = Vec::new();
    for &client in &world.clients {
        while let Some(letter) = world.network.receive_letter(client) {
            got.push((letter.bytes.len(), letter.segment));
            bytes.extend(letter.bytes);
        }
    }
    let expected = [
        (340, Some(100)),
        (100, None),
        (0, None),
        (0, None),
        (1_500, None),
        (1_500, None),
        (60, None),
    ];
    assert_eq!(got, expected);
    let whole: Vec<u8> = lengths
        .iter()
        .enumerate()
        .flat_map(|(n, &len)| vec![n as u8; len])
        .collect();
    assert_eq!(bytes, whole, "order or bytes changed");
}
