//! P9: slow clients cannot camp.

use crate::{SOON, WarmUp, ms};
use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{Seen, many, run};
use ringway_tests::hello::Hello;
use ringway_tests::process::wait_for;
use ringway_tests::promise::Promise;
use ringway_tests::proxy_header::{v1, v2};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::steady::Steady;
use ringway_tests::wire::{Dial, End, Wire};
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How a client delays what it owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Silent,
    Half,
    /// A byte a second.
    Drip,
    /// The steps before take half of the time; then a byte a second.
    LateAndDrip,
}

const MANNERS: [Manner; 4] = [Manner::Silent, Manner::Half, Manner::Drip, Manner::LateAndDrip];

/// SSLRequest, GSSENCRequest and a StartupMessage (PostgreSQL's documentation, "Message Formats").
const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
const GSSENC_REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x30];
const STARTUP: &[u8] = b"\0\0\0\x22\0\x03\0\0user\0postgres\0database\0x\0\0";

/// A state before routing: what the client has done, and what it owes.
#[derive(Clone, Debug)]
struct State {
    name: &'static str,
    front: Address,
    before: Vec<u8>,
    /// Bytes that answer it.
    answer: usize,
    owed: Vec<u8>,
}

impl State {
    /// Delays; how long it was let, `None` if it still was after `limit`.
    async fn camp(self, manner: Manner, timeout: Duration, limit: Duration) -> io::Result<Option<Duration>> {
        let began = Instant::now();
        let mut wire = Dial::to(&self.front).connect_within(SOON).await?;
        if manner == Manner::LateAndDrip {
            tokio::time::sleep(timeout / 2).await;
        }
        wire.write_all(&self.before).await?;
        for _ in 0..self.answer {
            wire.read_u8().await?;
        }
        let (mut from, mut to) = tokio::io::split(wire);
        let delay = async {
            match manner {
                Manner::Silent => {}
                Manner::Half => to.write_all(&self.owed[..self.owed.len() / 2]).await?,
                Manner::Drip | Manner::LateAndDrip => drip(&mut to, &self.owed).await?,
            }
            std::future::pending::<io::Result<()>>().await
        };
        let mut byte = [0];
        let gone = async {
            tokio::select! {
                // It can be found out by writing, too.
                Err(_) = delay => Ok(()),
                read = from.read(&mut byte) => match read {
                    Ok(0) | Err(_) => Ok(()),
                    Ok(_) => Err(io::Error::other("answered")),
                },
            }
        };
        match tokio::time::timeout(limit, gone).await {
            Ok(gone) => gone.map(|()| Some(began.elapsed())),
            Err(_) => Ok(None),
        }
    }
}

/// A byte a second.
async fn drip(to: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        to.write_all(&[*byte]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Asks for GSS encryption again and again, which is answered with no each time (or closed, when it is too often): how long
/// that was let, at most `limit`.
async fn nag(front: &Address, limit: Duration) -> Duration {
    let began = Instant::now();
    let mut wire = Dial::to(front).connect_within(SOON).await.expect("it listens");
    let nag = async {
        while wire.write_all(GSSENC_REQUEST).await.is_ok() && wire.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let _ = tokio::time::timeout(limit, nag).await;
    began.elapsed()
}

/// A listener for each protocol before routing.
fn listeners(timeout: Duration, backend: &Backend) -> (Setup, Vec<State>) {
    let proxied = "{ accept: [v1, v2], from: [127.0.0.1/32] }";
    let route = ["{ sni: a.example.com, pool: pool }"];
    let fronts: [Address; 6] = std::array::from_fn(|_| free_v4());
    let [proxy, proxy_tls, tls, starttls, hint, all] = &fronts;
    let key = format!("{}ms", timeout.as_millis());
    let limited = |setup: Setup| setup.listener_key("routing_timeout", &key);
    let setup = Setup::new().top("workers", "2");
    let setup = limited(setup.listener("proxy", proxy, "pool")).listener_key("proxy_protocol", proxied);
    let setup = limited(setup.tls_listener("proxy-tls", proxy_tls, &route)).listener_key("proxy_protocol", proxied);
    let setup = limited(setup.tls_listener("tls", tls, &route));
    let setup = limited(setup.tls_listener("starttls", starttls, &route)).listener_key("starttls", "postgres");
    let setup = limited(setup.tls_listener("all", all, &route)).listener_key("starttls", "postgres");
    let setup = setup.listener_key("proxy_protocol", proxied);
    let setup = limited(setup.listener("hint", hint, "pool")).listener_key("protocol_hint", "postgres");
    let setup = setup.pool("pool", "round_robin", &[&backend.address]);
    let (a, b) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into());
    let hello = Hello::to("a.example.com").bytes();
    let state = |name, front: &Address, before: &[u8], answer, owed: &[u8]| State {
        name,
        front: front.clone(),
        before: before.to_vec(),
        answer,
        owed: owed.to_vec(),
    };
    let states = vec![
        state("PROXY header, version 1", proxy, &[], 0, &v1(a, b)),
        state("PROXY header, version 2", proxy, &[], 0, &v2(a, b, &[])),
        state("hello behind a PROXY header", proxy_tls, &v2(a, b, &[]), 0, &hello),
        state("hello", tls, &[], 0, &hello),
        state("the rest of a hello", tls, &hello[..100], 0, &hello[100..]),
        state("SSLRequest", starttls, &[], 0, SSL_REQUEST),
        state("hello behind an SSLRequest", starttls, SSL_REQUEST, 1, &hello),
        state("hello without an SSLRequest", starttls, &[], 0, &hello),
        state("SSLRequest behind a PROXY header", all, &v1(a, b), 0, SSL_REQUEST),
        state(
            "hello behind both",
            all,
            &[&v2(a, b, &[]), SSL_REQUEST].concat(),
            1,
            &hello,
        ),
        state("StartupMessage", hint, &[], 0, STARTUP),
    ];
    (setup, states)
}

#[test]
fn p9_nobody_camps_in_any_state() {
    let _turn = Turn::start("p9_nobody_camps_in_any_state", Duration::from_secs(120));
    let mut promise = Promise::new("P9", "slow clients cannot camp: in every state before routing");
    let timeout = Duration::from_millis(figure(2_000, 5_000));
    let each: u64 = figure(5, 100);
    let backend = Backend::start(Behaviour::Echo);
    let (setup, states) = listeners(timeout, &backend);
    let ringway = Ringway::start(&setup);
    let limit = timeout + Duration::from_secs(1);
    let kinds: Vec<_> = states
        .iter()
        .flat_map(|state| MANNERS.map(|manner| (state.clone(), manner)))
        .collect();
    let count = kinds.len() as u64 * each;
    let seen = run(
        None,
        many(count, usize::MAX, |index| {
            let (state, manner) = kinds[(index / each) as usize].clone();
            async move {
                let what = format!("{manner:?}, {}", state.name);
                (what, state.camp(manner, timeout, limit + SOON).await)
            }
        }),
    );
    let (mut times, mut wrong) = (Vec::new(), Vec::new());
    for (what, gone) in seen {
        match gone {
            Ok(Some(time)) => times.push((time, what)),
            other => wrong.push(format!("{what}: {other:?}")),
        }
    }
    times.sort();
    promise.figure(
        format!(
            "{count} clients, {} states, 4 manners: all are closed without a byte",
            states.len()
        ),
        crate::first_of(&wrong),
        wrong.is_empty(),
    );
    if let (Some((first, early)), Some((last, late))) = (times.first(), times.last()) {
        let required = format!("gone by {} ms (routing_timeout and 1 s)", limit.as_millis());
        promise.figure(required, format!("{} ms ({late})", ms(*last)), *last <= limit);
        let required = format!("and not before {} ms", timeout.as_millis());
        promise.figure(required, format!("{} ms ({early})", ms(*first)), *first >= timeout);
    }
    let counted = ringway.ended("routing_timeout");
    promise.figure(format!("{count} counted"), format!("{counted}"), counted == count);
    let starttls = states
        .iter()
        .find(|state| state.name == "SSLRequest")
        .expect("it is there");
    let nagged = run(None, nag(&starttls.front, limit + SOON));
    promise.at_most(
        "ms until one is gone who asks for GSS again and again",
        nagged.as_millis(),
        limit.as_millis(),
    );
    promise.at_most("backend connections", backend.accepted(), 0);
    promise.finish();
    ringway.finish();
}

/// Connects so many silent clients, one after the other: in the order of their numbers.
async fn silent_clients(dial: &Dial, ringway: &Ringway, count: u64) -> Vec<Wire> {
    let mut wires = Vec::new();
    for number in 1..=count {
        wires.push(dial.connect_within(SOON).await.expect("it listens"));
        // A worker has taken it; only then is it certain that it is older than the next one.
        ringway.wait_for_count("ringway_listener_connections_total", &[("listener", "tls")], number);
    }
    wires
}

#[test]
fn p9_over_the_cap_the_oldest_go() {
    let _turn = Turn::start("p9_over_the_cap_the_oldest_go", Duration::from_secs(120));
    let mut promise = Promise::new("P9", "slow clients cannot camp: over the cap the oldest go");
    let (cap, over) = (40, 10);
    let backend = Backend::start(Behaviour::Echo);
    for workers in ["1", "2"] {
        let front = free_v4();
        let setup = Setup::new()
            .top("workers", workers)
            .top("max_unrouted", &cap.to_string())
            .tls_listener("tls", &front, &["{ sni: a.example.com, pool: pool }"])
            .listener_key("routing_timeout", "30s")
            .pool("pool", "round_robin", &[&backend.address]);
        let ringway = Ringway::start(&setup);
        let (gone, kept, served) = run(None, async {
            let dial = Dial::to(&front);
            let mut wires = silent_clients(&dial, &ringway, cap + over).await;
            ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "displaced")], over);
            let (mut gone, mut kept) = (0, 0);
            for (number, wire) in wires.iter_mut().enumerate() {
                let patience = Duration::from_millis(if number < over as usize { 1_000 } else { 10 });
                match wire.read_to_end_of(patience).await.1 {
                    End::StillOpen => kept += u64::from(number >= over as usize),
                    End::Orderly | End::Reset | End::Error(_) => gone += u64::from(number < over as usize),
                }
            }
            // Who can be routed is served though nobody else leaves.
            let hello = Hello::to("a.example.com").bytes();
            let mut wire = dial.connect_within(SOON).await.expect("it listens");
            let served = wire.ping(&hello, SOON).await;
            (gone, kept, served)
        });
        promise.figure(
            format!(
                "{workers} workers: the {over} oldest of {} go, the others stay",
                cap + over
            ),
            format!("{gone} went, {kept} stayed"),
            (gone, kept) == (over, cap),
        );
        promise.figure("an honest one is served", format!("{served:?}"), served.is_ok());
        ringway.finish();
    }
    promise.finish();
}

/// The listener's own limit is the smaller one: those that say nothing must not be able to fill it for long.
#[test]
fn p9_a_listener_that_is_full_of_silent_clients_serves_others() {
    let _turn = Turn::start(
        "p9_a_listener_that_is_full_of_silent_clients_serves_others",
        Duration::from_secs(60),
    );
    let backend = Backend::start(Behaviour::Echo);
    let (front, most) = (free_v4(), 20);
    let setup = Setup::new()
        .top("workers", "2")
        .top("max_unrouted", "1000")
        .tls_listener("tls", &front, &["{ sni: a.example.com, pool: pool }"])
        .listener_key("routing_timeout", "60s")
        .listener_key("max_connections", &most.to_string())
        .pool("pool", "round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup);
    let served = run(None, async {
        let dial = Dial::to(&front);
        let _wires = silent_clients(&dial, &ringway, most).await;
        honest(dial, Hello::to("a.example.com").bytes()).await
    });
    let mut promise = Promise::new("P9", "slow clients cannot camp: in all the room that a listener has");
    promise.figure(
        format!("{most} silent clients of {most}: an honest one is served within 5 s"),
        format!("{served:?}"),
        served.is_ok_and(|time| time < Duration::from_secs(5)),
    );
    ringway.finish();
    promise.finish();
}

/// Connects, sends a hello, takes it back from an echoing backend: until the backend has answered.
async fn honest(dial: Dial, hello: Vec<u8>) -> io::Result<Duration> {
    let began = Instant::now();
    let mut wire = dial.connect_within(SOON).await?;
    wire.ping(&hello, SOON).await?;
    Ok(began.elapsed())
}

/// So many clients that send a hello at a byte a second, on a thread of their own; how long each was let. They come within
/// a second, evenly, so that their bytes and their ends are spread too: what a burst does to others is not asked here.
fn campers(state: &State, count: u64, timeout: Duration) -> Vec<io::Result<Option<Duration>>> {
    let limit = timeout + Duration::from_secs(10);
    let camp = |index| {
        let (state, wait) = (state.clone(), Duration::from_secs(1) * index as u32 / count as u32);
        async move {
            tokio::time::sleep(wait).await;
            state.camp(Manner::Drip, timeout, limit).await
        }
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| run(None, many(count, usize::MAX, camp)));
        thread.join().expect("a client does not panic")
    })
}

/// Honest clients through the balancer and straight to the backend, so many a second of both, until told to stop.
fn honest_clients(fronts: [&Address; 2], per_second: u32) -> [Steady<Duration>; 2] {
    let hello = Hello::to("a.example.com").bytes();
    fronts.map(|front| {
        let (dial, hello) = (Dial::to(front), hello.clone());
        Steady::start(None, per_second, move || honest(dial.clone(), hello.clone()))
    })
}

/// What they saw.
fn seen(load: Steady<Duration>) -> Seen {
    let mut seen = Seen::default();
    for attempt in load.stop() {
        seen.add(attempt.result.map_err(io::Error::other));
    }
    seen
}

#[test]
fn p9_thousands_drip_and_nobody_else_minds() {
    let _turn = Turn::start("p9_thousands_drip_and_nobody_else_minds", Duration::from_secs(120));
    let mut promise = Promise::new(
        "P9",
        "slow clients cannot camp: thousands send a hello at a byte a second",
    );
    let count = figure(2_000, 5_000);
    let timeout = Duration::from_secs(figure(3, 5));
    let limit = timeout + Duration::from_secs(1);
    let (backend, warm_up) = (Backend::start(Behaviour::Echo), WarmUp::new());
    let (setup, states) = listeners(timeout, &backend);
    let state = states
        .into_iter()
        .find(|state| state.name == "hello")
        .expect("it is there");
    let ringway = Ringway::start(&warm_up.add_to(setup.top("max_unrouted", "6000")));
    warm_up.run(&ringway);
    let before = ringway.process.memory();
    let honest = honest_clients([&state.front, &backend.address], 200);
    let (gone, held) = std::thread::scope(|scope| {
        let camping = scope.spawn(|| campers(&state, count, timeout));
        let camped = || {
            // Asking takes time from those who are measured.
            std::thread::sleep(Duration::from_millis(100));
            ringway.count("ringway_listener_connections", &[("listener", "tls")]) >= count
        };
        let all = wait_for(timeout, || camped().then_some(()));
        let held = all.map(|()| ringway.process.memory());
        let gone = camping.join().expect("a client does not panic");
        (gone, held)
    });
    let [through, direct] = honest.map(seen);
    let times: Vec<_> = gone
        .iter()
        .filter_map(|gone| gone.as_ref().ok().copied().flatten())
        .collect();
    let last = times.iter().max().copied().unwrap_or_default();
    promise.figure(
        format!("{count} gone by {} ms (routing_timeout and 1 s)", limit.as_millis()),
        format!("{} gone, the last after {} ms", times.len(), ms(last)),
        times.len() as u64 == count && last <= limit,
    );
    let each = held.map(|held| held.saturating_sub(before) / count);
    promise.figure(
        "process memory for each of them at most 4096 bytes",
        each.map_or("never all at the same time".to_owned(), |each| format!("{each}")),
        each.is_some_and(|each| each <= 4_096),
    );
    judge_honest(&mut promise, through, direct);
    let counted = ringway.ended("routing_timeout");
    promise.figure(format!("{count} counted"), format!("{counted}"), counted == count);
    promise.finish();
    ringway.finish();
}

fn judge_honest(promise: &mut Promise, mut through: Seen, mut direct: Seen) {
    let (count, errors) = (through.durations.len(), through.errors.len());
    promise.at_most("honest clients that failed", errors, 0);
    let (p99, direct) = (through.percentile(99), direct.percentile(99));
    let limit = (direct * 3 / 2).max(Duration::from_millis(10));
    let required = format!(
        "p99 of {count} honest ones at most {} ms (direct path {} ms)",
        ms(limit),
        ms(direct)
    );
    promise.figure(required, format!("{} ms", ms(p99)), p99 <= limit && count >= 100);
}
