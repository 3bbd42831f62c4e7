//! P15 exact bytes, P16 half-close.

use crate::{SOON, first_of};
use ringway_tests::backend::{Backend, Behaviour, Place};
use ringway_tests::exchange::{Order, Plan, run_many};
use ringway_tests::namespace::Namespace;
use ringway_tests::process::wait_for;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure, is_root};
use ringway_tests::setup::Setup;
use ringway_tests::wire::Dial;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// What makes it hard for the streams.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hardship {
    None,
    TinySocketBuffers,
    TinyRing,
    LostPackets,
}

/// Streams that were not exact, as either end saw it.
fn wrong_streams(hardship: Hardship, count: u64, bytes: u64) -> Vec<String> {
    let namespace = (hardship == Hardship::LostPackets).then(Namespace::new);
    let namespace = namespace.as_ref();
    let socket_buffers = (hardship == Hardship::TinySocketBuffers).then_some(4096);
    let backend = Backend::start_at(
        Behaviour::Exchange,
        &Place {
            namespace,
            socket_buffers,
            ..Place::default()
        },
    );
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let setup = match hardship {
        Hardship::TinyRing => setup.top("buffers", "{ count: 16, size: 4KiB }"),
        Hardship::None | Hardship::TinySocketBuffers | Hardship::LostPackets => setup,
    };
    let ringway = match namespace {
        None => Ringway::start(&setup),
        Some(namespace) => {
            let admin = setup.admin.port();
            let rule = format!("tcp sport != {admin} tcp dport != {admin} numgen random mod 100 < 3");
            namespace.drop_packets(&rule);
            Ringway::start_in(&setup, namespace)
        }
    };
    let dial = Dial {
        send_buffer: socket_buffers,
        receive_buffer: socket_buffers,
        ..Dial::to(&front)
    };
    let plan = Plan {
        stream: 1000,
        up: bytes,
        down: bytes,
        order: Order::Together,
        pauses: true,
    };
    let mut wrong = run_many(namespace, &dial, count, plan);
    let orderly = || backend.counts.orderly.load(SeqCst);
    // The last segment may be lost several times in a row, and each wait is twice the one before.
    wait_for(SOON * 4, || {
        (orderly() + backend.errors() + backend.resets() >= count).then_some(())
    });
    if orderly() != count {
        println!("{hardship:?}: {:?}; log: {}", backend.counts, ringway.log());
        wrong.push(format!(
            "{hardship:?}: only {} of {count} exact at the backend",
            orderly()
        ));
    }
    if let Some(namespace) = namespace {
        assert!(namespace.drop_nothing() > 100, "packets were lost");
    }
    ringway.finish();
    wrong
}

#[test]
fn p15_bytes_are_exact() {
    if !is_root("p15_bytes_are_exact") {
        return;
    }
    let _turn = Turn::start("p15_bytes_are_exact", Duration::from_secs(500));
    let mut promise = Promise::new("P15", "bytes are exact");
    let (count, bytes) = figure((40, 256 << 10), (200, 2_000_000));
    for hardship in [
        Hardship::None,
        Hardship::TinySocketBuffers,
        Hardship::TinyRing,
        Hardship::LostPackets,
    ] {
        // Sockets of 4 KiB move a few MB/s in all: fewer bytes show as much.
        let bytes = if hardship == Hardship::TinySocketBuffers {
            bytes / 8
        } else {
            bytes
        };
        let wrong = wrong_streams(hardship, count, bytes);
        let required = format!("{hardship:?}: 0 of {count} streams of {bytes} bytes each way wrong");
        promise.figure(required, first_of(&wrong), wrong.is_empty());
    }
    promise.finish();
}

#[test]
fn p16_half_close_is_kept() {
    let _turn = Turn::start("p16_half_close_is_kept", Duration::from_secs(120));
    let mut promise = Promise::new("P16", "half-close is kept");
    let count = figure(100, 1_000);
    let backend = Backend::start(Behaviour::Exchange);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup);
    let mut done = 0;
    for (order, words) in [(Order::ClientEndsFirst, "client"), (Order::BackendEndsFirst, "backend")] {
        for (up, down) in [(100_000, 100_000), (1, 300_000), (300_000, 1)] {
            let plan = Plan {
                stream: done,
                up,
                down,
                order,
                pauses: false,
            };
            let wrong = run_many(None, &Dial::to(&front), count, plan);
            done += count;
            let required = format!("{words} ends first, {up} up, {down} down: {count} exact");
            promise.figure(required, first_of(&wrong), wrong.is_empty());
        }
    }
    wait_for(SOON, || (backend.counts.orderly.load(SeqCst) == done).then_some(()));
    let exact = backend.counts.orderly.load(SeqCst);
    promise.figure("exact at the backend too", format!("{exact} of {done}"), exact == done);
    promise.finish();
    ringway.finish();
}
