//! Worlds that are written and not drawn: each shows one thing that a drawn world has found.

use crate::forge;
use crate::plan::{Answer, OTHERS, Plan, PoolPlan, Speech, Temper};
use crate::story::{Client, Finale, Story, Verdict};
use crate::world::World;
use ringway_core::model::Buffers;
use ringway_core::reason::EndReason;
use ringway_runtime::sim::{Chances, Welcome};
use std::time::Duration;

const WELL: Temper = Temper {
    welcome: Welcome::Accept,
    answer: Answer::Yes,
    thinks: Duration::ZERO,
    resets: None,
    talks: 100,
    first: false,
    piece: 100_000,
};

/// Nothing goes wrong, one worker, one backend a pool, no limits.
fn calm(speech: Speech, clients: Vec<Client>) -> Plan {
    let pool = PoolPlan {
        send: None,
        tries: 1,
        connections_max: None,
        backends: vec![WELL],
    };
    Plan {
        seed: 1,
        workers: 1,
        buffers: Buffers { count: 16, size: 1_024 },
        chances: Chances::CALM,
        lazy: 0,
        speech,
        proxied: false,
        denies: false,
        fallback: true,
        timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_millis(500),
        unrouted_max: 1_000,
        crowded: false,
        client_max: None,
        silent: None,
        pools: vec![pool; OTHERS + 1],
        clients,
        reset_at: None,
        logs: true,
    }
}

/// Says these bytes at once, which are all that is needed.
fn client(n: u8, bytes: &[u8], verdict: Verdict) -> Client {
    Client {
        at: Duration::from_millis(u64::from(n)),
        source: ([10, 0, 0, n], 1_024).into(),
        story: Story {
            bytes: bytes.to_vec(),
            from: bytes.len(),
            needs: bytes.len(),
            ..Story::empty(verdict)
        },
        stream: bytes.to_vec(),
        limit: usize::MAX,
        pauses: Vec::new(),
        finale: Finale::Hold,
        lingers: Duration::ZERO,
    }
}

/// Runs it and returns why its connections ended, in that order.
fn ends(plan: Plan) -> Vec<EndReason> {
    let mut world = World::new(plan);
    let outcome = world.run();
    let ends = world.records.iter().map(|(_, record)| record.reason).collect();
    world.end().expect("nothing is left");
    outcome.expect("as the plan says");
    ends
}

/// It said `finished` and closed in order, as if the servers had been asked.
#[test]
fn a_cancel_request_that_is_under_way_when_all_is_reset_has_not_finished() {
    let request = forge::cancel_request(1, b"four");
    let mut plan = calm(Speech::StartTls, vec![client(1, &request, Verdict::CancelAll)]);
    for pool in &mut plan.pools {
        pool.backends[0].welcome = Welcome::Silence;
    }
    plan.reset_at = Some(Duration::from_millis(200));
    assert_eq!(ends(plan), [EndReason::DrainDeadline]);
}

/// A hello for this name from client `n`.
fn hello(n: u8, name: &'static str, pool: usize) -> Client {
    let bytes = forge::hello(Some(name), None, 0, n, 16_000);
    let verdict = Verdict::Pool {
        pool,
        greets: false,
        name: Some(name),
        alpn: None,
    };
    let mut client = client(n, &bytes, verdict);
    client.finale = Finale::Fin;
    client
}

/// Those that waited for a backend that does not answer kept all the buffers, and everybody else starved until it was
/// given up.
#[test]
fn who_waits_for_a_backend_keeps_no_buffers_from_others() {
    let waiting = (1..=40).map(|n| hello(n, "a.test", 0));
    let mut plan = calm(Speech::Tls, waiting.chain([hello(60, "x.b.test", 1)]).collect());
    plan.pools[0].backends[0].welcome = Welcome::Silence;
    plan.connect_timeout = Duration::from_secs(3);
    let ends = ends(plan);
    assert_eq!(ends[0], EndReason::Finished, "{ends:?}");
    assert!(
        ends[1..].iter().all(|reason| *reason == EndReason::ConnectFailed),
        "{ends:?}"
    );
}

#[test]
fn nor_does_who_waits_for_a_query_to_be_cancelled() {
    let waiting = (1..=8).map(|n| {
        let request = forge::cancel_request(u32::from(n), b"four");
        client(n, &request, Verdict::CancelAll)
    });
    let other = hello(60, "x.b.test", 1);
    let source = other.source;
    let mut plan = calm(Speech::StartTls, waiting.chain([other]).collect());
    plan.pools[0].backends[0].welcome = Welcome::Silence;
    plan.connect_timeout = Duration::from_secs(3);
    let mut world = World::new(plan);
    world.run().expect("as the plan says");
    let first = world.records[0].1.client.clone();
    let other = Some(ringway_runtime::Address::Inet(source));
    assert_eq!(first, other, "it had to wait for the others");
    world.end().expect("nothing is left");
}

/// Who comes in the same moment as others may have to go before it has begun to be read. Its record named nobody.
#[test]
fn who_has_to_go_at_once_is_known_nevertheless() {
    let silent = (1..=40).map(|n| {
        let mut client = client(n, b"\x16", Verdict::Reject(EndReason::BadHello));
        client.at = Duration::ZERO;
        client.limit = 0;
        client
    });
    let mut plan = calm(Speech::Tls, silent.collect());
    plan.workers = 2;
    plan.unrouted_max = 1;
    let displaced = ends(plan);
    let displaced = displaced.iter().filter(|reason| **reason == EndReason::Displaced);
    assert_eq!(displaced.count(), 39);
}
