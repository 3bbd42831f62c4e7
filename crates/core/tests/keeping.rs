//! What keeps a pool and a process from harming themselves: who may be ejected, which successes are told, what is reserved.
#![allow(missing_docs)]

use ringway_core::backend::{BackendOrders, BackendState};
use ringway_core::health::{Condition, Membership, PoolHealth, Report};
use ringway_core::limits::Reserve;
use ringway_core::model::{
    Address, Backend, BackendIndex, Buffers, Health, HealthCheck, Model, Name, Passive, Pool, Probe, Records, Target,
    Workers,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn address(last: u8) -> Address {
    Address::Inet(SocketAddr::from(([10, 0, 0, last], 80)))
}

fn addresses(count: u8) -> Vec<Backend> {
    (1..=count).map(|last| Backend::at(address(last))).collect()
}

fn names(count: usize) -> Vec<Backend> {
    let name = |at: usize| Name {
        host: format!("{at}.test").into(),
        records: Records::Addresses(80),
    };
    (0..count)
        .map(|at| Backend::new(Target::Name(name(at)), "backend"))
        .collect()
}

fn pool(backends: Vec<Backend>, is_probed: bool) -> Pool {
    let check = HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: seconds(5),
        timeout: seconds(2),
        fails: 1,
        passes: 1,
    };
    Pool {
        health: Health {
            check: is_probed.then_some(check),
            passive: Some(Passive {
                fails: 1,
                eject: seconds(1),
                max_ejected: 50,
            }),
            silence: None,
            slow_start: None,
            fail_open: false,
        },
        ..Pool::new("pool", backends)
    }
}

fn state(index: usize) -> Arc<BackendState> {
    let last = u8::try_from(index).expect("a test has few backends");
    Arc::new(BackendState::new(
        BackendIndex(index),
        address(last),
        "backend".into(),
        None,
        1,
    ))
}

fn health(backends: u8) -> PoolHealth {
    let mut health = PoolHealth::new(&pool(addresses(backends), true));
    for index in 0..usize::from(backends) {
        let membership = Membership {
            weight: 1,
            backup: false,
        };
        health.add(state(index), membership, false, Duration::ZERO);
    }
    health
}

/// With half of four down, half of the pool is out; one more would leave one, two more nobody.
#[test]
fn backends_that_are_down_count_among_those_that_are_out() {
    let mut health = health(4);
    for index in [0, 1] {
        let change = health.probed(BackendIndex(index), false, &"refused".into(), seconds(1));
        assert_eq!(change.map(|change| change.to), Some(Condition::Down));
    }
    for index in [2, 3] {
        assert_eq!(health.met(BackendIndex(index), Report::ConnectFailed, seconds(2)), None);
    }
    assert_eq!(health.shares(seconds(2)).len(), 2);
}

#[test]
fn a_connect_that_is_told_leaves_the_answer_to_be_told_too() {
    let state = state(0);
    let orders: &BackendOrders = &state.orders;
    orders.watch();
    assert!(orders.take_connect_watch());
    assert!(!orders.take_connect_watch(), "once");
    assert!(orders.take_watch());
    assert!(!orders.take_watch(), "once");

    orders.watch();
    assert!(orders.take_watch());
    assert!(!orders.take_connect_watch(), "an answer says more than a connect");
}

#[test]
fn an_order_to_close_is_withdrawn_only_by_its_reason() {
    let state = state(0);
    state.orders.close_before(1_000, 7);
    state.orders.withdraw_close(6);
    assert_eq!(state.orders.closes(999), Some((1_000, 7)));
    state.orders.withdraw_close(7);
    assert_eq!(state.orders.closes(999), None);
}

fn model(pools: Vec<Pool>) -> Model {
    Model {
        workers: Workers::Count(1),
        pin: false,
        admin: None,
        buffers: Buffers { count: 16, size: 1024 },
        drain_timeout: seconds(1),
        drain_delay: seconds(0),
        max_unrouted: None,
        session_log: None,
        listeners: Vec::new(),
        pools,
    }
}

/// 15 for the process, 8 for the worker, and what asks: a descriptor per probe, two per lookup.
#[test]
fn probes_and_lookups_have_descriptors_of_their_own() {
    // Beside those of the process, and of a worker with its eight pipes.
    let descriptors = |pools| Reserve::of(&model(pools), 1).descriptors() - 15 - (8 + 16);
    assert_eq!(descriptors(vec![pool(addresses(3), false)]), 0);
    assert_eq!(descriptors(vec![pool(addresses(3), true)]), 3);
    // A name may stand for 64 backends.
    assert_eq!(descriptors(vec![pool(names(1), true)]), 64 + 2);
    assert_eq!(
        descriptors(vec![pool(addresses(200), true), pool(addresses(200), true)]),
        256
    );
    // 40 each with the same servers: 64 lookups at once.
    assert_eq!(
        descriptors(vec![pool(names(40), false), pool(names(40), false)]),
        64 * 2
    );
    let mut other = pool(names(40), false);
    other.resolve.interval_min = seconds(7);
    assert_eq!(descriptors(vec![pool(names(40), false), other]), 80 * 2);
}
