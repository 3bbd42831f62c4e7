//! Who gets the connections: every algorithm, on one worker and on two, against what comes out by hand.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{download, many, run};
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::seeded::Rng;
use ringway_tests::setup::Setup;
use ringway_tests::wire::{Dial, Wire};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

/// Backends that say their number.
fn named(count: usize) -> Vec<Backend> {
    (0..count)
        .map(|n| Backend::start(Behaviour::Name(n.to_string())))
        .collect()
}

fn downloading(delays: &[Duration]) -> Vec<Backend> {
    let start = |&delay: &Duration| Backend::start(Behaviour::Download(delay));
    delays.iter().map(start).collect()
}

/// Listener `front` and pool `pool` on so many workers.
fn setup(workers: usize, balance: &str, backends: &[Backend]) -> (Setup, Address) {
    let front = free_v4();
    let addresses: Vec<_> = backends.iter().map(|backend| &backend.address).collect();
    let setup = Setup::new()
        .top("workers", &workers.to_string())
        .listener("front", &front, "pool")
        .pool("pool", balance, &addresses);
    (setup, front)
}

/// A connection of this client that has heard its backend's number.
async fn held(front: Address, client: u64) -> (usize, Wire) {
    let from = Some([127, 1, (client >> 8) as u8, client as u8].into());
    let dial = Dial {
        from,
        ..Dial::to(&front)
    };
    let mut wire = dial.connect().await.expect("the listener accepts");
    let name = wire.line(SOON).await.expect("a backend says its number");
    (name.parse().expect("a number"), wire)
}

/// So many connections, client after client, that stay open.
async fn hold(front: &Address, count: u64, at_once: usize) -> Vec<(usize, Wire)> {
    many(count, at_once, |client| held(front.clone(), client)).await
}

fn per_backend(held: &[(usize, Wire)], backends: usize) -> Vec<usize> {
    let mut counts = vec![0; backends];
    held.iter().for_each(|(backend, _)| counts[*backend] += 1);
    counts
}

fn accepted(backends: &[Backend]) -> Vec<u64> {
    backends.iter().map(Backend::accepted).collect()
}

/// 600 connections by weights 1, 2 and 3 are 100, 200 and 300 after whole rounds of six, whoever is slow or quick.
#[test]
fn round_robin_is_exact_with_and_without_weights() {
    let _turn = Turn::start(
        "round_robin_is_exact_with_and_without_weights",
        Duration::from_secs(120),
    );
    for workers in [1, 2] {
        for balance in ["round_robin", "weighted_round_robin"] {
            for (weights, shares) in [([1, 2, 3], [100, 200, 300]), ([1, 1, 1], [200, 200, 200])] {
                let backends = named(3);
                let (setup, front) = setup(workers, balance, &backends);
                let ringway = Ringway::start(&setup.pool_weights(&weights));
                let rounds = figure(1, 10);
                run(None, hold(&front, 600 * rounds, 32));
                let expected = shares.map(|share| share * rounds);
                assert_eq!(
                    accepted(&backends),
                    expected,
                    "{balance} {weights:?}, {workers} workers"
                );
                ringway.finish();
            }
        }
    }
}

/// 60 connections by weights 1, 2 and 3 level at 10, 20 and 30; when one backend's connections have gone, the next ones
/// fill its place.
#[test]
fn least_connections_is_exact_by_weight_also_after_some_have_gone() {
    let _turn = Turn::start(
        "least_connections_is_exact_by_weight_also_after_some_have_gone",
        Duration::from_secs(120),
    );
    for workers in [1, 2] {
        for _ in 0..figure(2, 20) {
            let backends = named(3);
            let (setup, front) = setup(workers, "least_connections", &backends);
            let ringway = Ringway::start(&setup.pool_weights(&[1, 2, 3]));
            run(None, async {
                let mut open = hold(&front, 60, 16).await;
                assert_eq!(per_backend(&open, 3), [10, 20, 30], "{workers} workers");
                open.retain(|(backend, _)| *backend != 1);
                let gone = ringway_tests::process::wait_for(SOON, || {
                    (ringway.count("ringway_backend_connections", &[]) == 40).then_some(())
                });
                assert!(gone.is_some(), "20 connections ended");
                let more = hold(&front, 20, 1).await;
                assert_eq!(per_backend(&more, 3), [0, 20, 0], "{workers} workers");
            });
            ringway.finish();
        }
    }
}

/// The better of two that are drawn by weight stays within a few connections of the shares: 1,000 connections on ten
/// backends that were drawn one by one would be 95 to 105 on hardly any of them (their standard deviation is 9.5).
#[test]
fn random_stays_within_a_few_connections_of_the_shares() {
    let _turn = Turn::start(
        "random_stays_within_a_few_connections_of_the_shares",
        Duration::from_secs(120),
    );
    let count: usize = figure(1_000, 5_000);
    for workers in [1, 2] {
        for weights in [[1; 10], [1, 1, 1, 1, 1, 3, 3, 3, 3, 3]] {
            let backends = named(10);
            let (setup, front) = setup(workers, "random", &backends);
            let ringway = Ringway::start(&setup.pool_weights(&weights));
            let open = run(None, hold(&front, count as u64, 16));
            let counts = per_backend(&open, 10);
            let sum: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
            for (&count_here, &weight) in counts.iter().zip(&weights) {
                let share = count * usize::from(weight) / sum;
                assert!(
                    count_here.abs_diff(share) <= 8,
                    "{weights:?}, {workers} workers: {counts:?}, {share} expected"
                );
            }
            drop(open);
            ringway.finish();
        }
    }
}

/// Which backend each client of 127.1.0.0/16 has.
fn homes(front: &Address, clients: u64) -> Vec<usize> {
    let heard = many(clients, 32, |client| {
        let front = front.clone();
        async move { (client, held(front, client).await.0) }
    });
    let mut heard = run(None, heard);
    heard.sort_unstable();
    heard.into_iter().map(|(_, backend)| backend).collect()
}

/// Of 2,000 clients each of seven backends has 286 give or take 78: five standard deviations of 15.6.
#[test]
fn ip_hash_is_even_and_stable_and_a_lost_backend_moves_only_its_own() {
    let _turn = Turn::start(
        "ip_hash_is_even_and_stable_and_a_lost_backend_moves_only_its_own",
        Duration::from_secs(120),
    );
    let mut backends = named(7);
    let homes_on = |workers, backends: &[Backend]| {
        let (setup, front) = setup(workers, "ip_hash", backends);
        let ringway = Ringway::start(&setup);
        let homes = homes(&front, 2_000);
        ringway.finish();
        homes
    };
    let before = homes_on(2, &backends);
    assert_eq!(homes_on(1, &backends), before, "another run, another number of workers");
    for backend in 0..7 {
        let clients = before.iter().filter(|&&home| home == backend).count();
        assert!(clients.abs_diff(286) <= 78, "backend {backend} has {clients} clients");
    }
    drop(backends.pop());
    let after = homes_on(2, &backends);
    let moved = |(before, after): &(&usize, &usize)| **before != 6 && before != after;
    assert_eq!(before.iter().zip(&after).filter(moved).count(), 0, "clients of others");
    assert!(after.iter().all(|&home| home < 6));
}

/// One client alone, one connection after the other, four backends. The k-th finds the bound ceil(1.25 k / 4), which
/// grows by one every 3.2 connections. Up to the 198th it has grown to 62: three backends have 62 each, the fourth got
/// one in each of the twelve rounds of four. The 199th and 200th find 63.
#[test]
fn ip_hash_with_a_bound_fills_the_next_backend_and_never_exceeds_it() {
    let _turn = Turn::start(
        "ip_hash_with_a_bound_fills_the_next_backend_and_never_exceeds_it",
        Duration::from_secs(120),
    );
    for workers in [1, 2] {
        for algorithm in ["rendezvous", "maglev"] {
            let backends = named(4);
            let (setup, front) = setup(workers, "ip_hash", &backends);
            let hash = format!("{{ algorithm: {algorithm}, max_load: 1.25 }}");
            let ringway = Ringway::start(&setup.pool_key("hash", &hash));
            run(None, async {
                let open = many(200, 1, |_| held(front.clone(), 7)).await;
                let mut counts = per_backend(&open, 4);
                counts.sort_unstable();
                assert_eq!(counts, [12, 62, 63, 63], "{algorithm}, {workers} workers");
            });
            ringway.settle();
            // Many at once, three of four of them from one client: ceil(1.25 * 400 / 4) is 125.
            run(None, async {
                let client = |n: u64| if n.is_multiple_of(4) { n } else { 7 };
                let open = many(400, 64, |n| held(front.clone(), client(n))).await;
                let counts = per_backend(&open, 4);
                assert!(
                    counts.iter().all(|&count| count <= 125),
                    "{algorithm}, {workers} workers: {counts:?}"
                );
                // Without the bound, 300 and a quarter of the others would be on one of them.
                assert!(counts.contains(&125), "{algorithm}, {workers} workers: {counts:?}");
            });
            ringway.finish();
        }
    }
}

/// 20 clients one download after the other, four backends of which one takes five times as long.
#[test]
fn least_response_time_avoids_a_slow_backend() {
    let _turn = Turn::start("least_response_time_avoids_a_slow_backend", Duration::from_secs(120));
    let mut promise = Promise::new(
        "least_response_time",
        "a backend that takes five times as long gets less than a third of the others' share",
    );
    for workers in [1, 2] {
        let delays = [50, 10, 10, 10].map(Duration::from_millis);
        let backends = downloading(&delays);
        let (setup, front) = setup(workers, "least_response_time", &backends);
        let ringway = Ringway::start(&setup);
        let count = figure(2_000, 20_000);
        let failed = run(
            None,
            many(count, 20, |_| {
                let dial = Dial::to(&front);
                async move { download(dial, 1_000).await.err() }
            }),
        );
        assert_eq!(failed.into_iter().flatten().count(), 0, "downloads that failed");
        let shares = accepted(&backends);
        let others = shares[1..].iter().sum::<u64>() as f64 / 3.0;
        promise.figure(
            format!("{workers} workers: below 33 % of the others"),
            format!("{:.1} % {shares:?}", shares[0] as f64 / others * 100.0),
            (shares[0] as f64) < others / 3.0,
        );
        ringway.finish();
    }
    promise.finish();
}

const SMALL: u64 = 1_000;
const LARGE: u64 = 100 * SMALL;

/// 40 clients at once for so long, one download in ten a large one: the same draws for the same seed.
async fn downloads(front: Address, seed: u64, length: Duration) {
    let failed = many(40, 40, |client| {
        let (front, mut rng) = (front.clone(), Rng::new(seed ^ client << 32));
        async move {
            let began = Instant::now();
            while began.elapsed() < length {
                let bytes = if rng.below(10) == 0 { LARGE } else { SMALL };
                download(Dial::to(&front), bytes).await?;
            }
            Ok::<_, std::io::Error>(())
        }
    });
    let failed: Vec<_> = failed.await.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "downloads that failed: {failed:?}");
}

/// Standard deviation of the bytes sent, as a share of their mean.
fn unevenness(backends: &[Backend]) -> f64 {
    let bytes: Vec<f64> = backends.iter().map(|backend| backend.sent() as f64).collect();
    let mean = bytes.iter().sum::<f64>() / bytes.len() as f64;
    let squares: f64 = bytes.iter().map(|bytes| (bytes - mean).powi(2)).sum();
    (squares / bytes.len() as f64).sqrt() / mean
}

/// A process with two pools under the same load, one per algorithm.
struct Contest {
    ringway: Ringway,
    fronts: [Address; 2],
    /// Of round_robin and of least_bandwidth.
    backends: [Vec<Backend>; 2],
}

impl Contest {
    fn start(workers: usize) -> Self {
        let delays = [Duration::from_millis(30); 8];
        let backends = [downloading(&delays), downloading(&delays)];
        let (setup, front) = setup(workers, "round_robin", &backends[0]);
        let least = free_v4();
        let addresses: Vec<_> = backends[1].iter().map(|backend| &backend.address).collect();
        let setup = setup
            .listener("least", &least, "least")
            .pool("least", "least_bandwidth", &addresses);
        Self {
            ringway: Ringway::start(&setup),
            fronts: [front, least],
            backends,
        }
    }

    async fn run(&self, seed: u64, length: Duration) {
        let [plain, least] = self.fronts.clone().map(|front| downloads(front, seed, length));
        tokio::join!(plain, least);
    }
}

/// Both algorithms at the same time in one process, under the same draws; on one worker and on two, at the same time
/// too. How uneven round robin is is a matter of luck, so both runs are judged together.
#[test]
fn least_bandwidth_spreads_bytes_a_third_as_unevenly_as_round_robin() {
    let mut turn = Turn::start(
        "least_bandwidth_spreads_bytes_a_third_as_unevenly_as_round_robin",
        Duration::from_secs(120),
    );
    let mut promise = Promise::new(
        "least_bandwidth",
        "bytes spread at most a third as unevenly as by round_robin, one download in ten being 100 times as large",
    );
    let contests = [1, 2].map(Contest::start);
    let (seeds, length) = (
        [turn.rng.bits(), turn.rng.bits()],
        figure(Duration::from_secs(32), Duration::from_secs(40)),
    );
    run(None, async {
        tokio::join!(contests[0].run(seeds[0], length), contests[1].run(seeds[1], length));
    });
    let seen = [0, 1].map(|algorithm| {
        let of_each = [0, 1].map(|at: usize| unevenness(&contests[at].backends[algorithm]) * 100.0);
        ((of_each[0].powi(2) + of_each[1].powi(2)).sqrt() / 2_f64.sqrt(), of_each)
    });
    let [(plain, plain_each), (least, least_each)] = seen;
    promise.figure(
        format!("at most a third of round_robin's {plain:.1} % (1 worker and 2: {plain_each:.1?})"),
        format!("{least:.1} % ({least_each:.1?})"),
        least * 3.0 <= plain,
    );
    promise.finish();
    for contest in contests {
        contest.ringway.finish();
    }
}
