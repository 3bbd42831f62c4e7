//! What follows from a backend's health: recovery, open sessions, backups, full backends, a slow start.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour, Health};
use ringway_tests::client::{many, open_relays, run};
use ringway_tests::process::wait_for;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::steady::Steady;
use ringway_tests::wire::{Dial, End, Wire};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

/// Backends of one behaviour whose health is for the test to say: at the same port of 127.0.0.2, 127.0.0.3, ...
struct Told {
    backends: Vec<Backend>,
    health: Vec<Arc<Health>>,
    _checks: Vec<Backend>,
    port: u16,
}

impl Told {
    fn new(behaviours: impl IntoIterator<Item = Behaviour>) -> Self {
        let (service, port) = (free_v4().port(), free_v4().port());
        let at = |host: usize, port| Address::Inet(SocketAddr::from(([127, 0, 0, host as u8 + 2], port)));
        let behaviours: Vec<_> = behaviours.into_iter().collect();
        let health: Vec<_> = behaviours.iter().map(|_| Health::well_after(Duration::ZERO)).collect();
        let check =
            |(n, health): (usize, &Arc<Health>)| Backend::start_on(Behaviour::Health(health.clone()), at(n, port));
        let serve = |(n, behaviour)| Backend::start_on(behaviour, at(n, service));
        Self {
            _checks: health.iter().enumerate().map(check).collect(),
            backends: behaviours.into_iter().enumerate().map(serve).collect(),
            health,
            port,
        }
    }

    fn address(&self, n: usize) -> &Address {
        &self.backends[n].address
    }

    /// The value of `health_check`: quick, with these counts.
    fn check(&self, fails: u32, passes: u32) -> String {
        let port = self.port;
        format!("{{ protocol: http, port: {port}, interval: 300ms, timeout: 1s, fails: {fails}, passes: {passes} }}")
    }

    /// Says what a backend's health is, and waits until that is known.
    fn say(&self, ringway: &Ringway, n: usize, is_well: bool) -> Duration {
        self.health[n].set(if is_well { 200 } else { 503 });
        ringway.wait_for_condition(self.address(n), if is_well { "up" } else { "down" }, SOON)
    }
}

fn names(heard: &str) -> Behaviour {
    Behaviour::Name(heard.to_owned())
}

/// Connects once; the name that is heard, or how it ended.
fn who_serves(front: &Address) -> Result<String, String> {
    let dial = Dial::to(front);
    let heard = run(None, async move { dial.connect().await?.line(SOON).await });
    heard.map_err(|error: std::io::Error| error.to_string())
}

#[test]
fn it_takes_fails_to_go_down_and_passes_to_come_up() {
    let _turn = Turn::start(
        "it_takes_fails_to_go_down_and_passes_to_come_up",
        Duration::from_secs(60),
    );
    let told = Told::new([names("2"), names("3")]);
    let (setup, front) = Setup::simple("round_robin", &[told.address(0), told.address(1)]);
    let ringway = Ringway::start(&setup.pool_key("health_check", &told.check(3, 4)));
    let label = told.address(0).to_string();
    let probes = |result| {
        ringway.count(
            "ringway_health_checks_total",
            &[("backend", &label), ("result", result)],
        )
    };
    ringway.wait_for_count("ringway_health_checks_total", &[("backend", &label)], 2);
    let took = told.say(&ringway, 0, false);
    assert_eq!(probes("failed"), 3, "as many as `fails`");
    // Two intervals lie between three probes.
    assert!(took >= Duration::from_millis(2 * 270), "{took:?}");
    assert_eq!(who_serves(&front).as_deref(), Ok("3"));
    assert_eq!(who_serves(&front).as_deref(), Ok("3"));
    let before = probes("passed");
    let took = told.say(&ringway, 0, true);
    assert_eq!(probes("passed") - before, 4, "as many as `passes`");
    assert!(took >= Duration::from_millis(3 * 270), "{took:?}");
    let mut heard = [who_serves(&front), who_serves(&front)].map(|name| name.expect("served"));
    heard.sort_unstable();
    assert_eq!(heard, ["2", "3"]);
    ringway.finish();
}

#[test]
fn sessions_of_a_backend_that_goes_down_end_or_stay() {
    let _turn = Turn::start(
        "sessions_of_a_backend_that_goes_down_end_or_stay",
        Duration::from_secs(60),
    );
    const COUNT: u64 = 20;
    for policy in ["close", "keep"] {
        let told = Told::new([Behaviour::Echo, Behaviour::Echo]);
        let (setup, front) = Setup::simple("round_robin", &[told.address(0), told.address(1)]);
        let setup = setup.pool_key("on_backend_down", policy);
        let ringway = Ringway::start(&setup.pool_key("health_check", &told.check(2, 2)));
        run(None, async {
            let dial = Dial::to(&front);
            let wires = open_relays(&dial, 2 * COUNT, 10).await.expect("relays open");
            let open = [0, 1].map(|n: usize| told.backends[n].open());
            assert_eq!(open, [COUNT, COUNT], "round robin");
            told.say(&ringway, 0, false);
            let closed = if policy == "close" { COUNT } else { 0 };
            wait_for(SOON, || (ringway.ended("backend_down") == closed).then_some(()));
            let mut works = 0;
            for mut wire in wires {
                works += u64::from(wire.ping(b"?", SOON).await.is_ok());
            }
            assert_eq!(works, 2 * COUNT - closed, "{policy}: sessions that go on");
            // A session that comes when it is well again is none of those.
            told.say(&ringway, 0, true);
            let mut later = open_relays(&dial, 2, 2).await.expect("relays open");
            for wire in &mut later {
                wire.ping(b"?", SOON).await.expect("it goes on");
            }
            assert_eq!(ringway.ended("backend_down"), closed, "{policy}");
        });
        ringway.finish();
    }
}

#[test]
fn backups_serve_while_nobody_else_does() {
    let _turn = Turn::start("backups_serve_while_nobody_else_does", Duration::from_secs(90));
    for (failback, after) in [("auto", "2"), ("manual", "3")] {
        let told = Told::new([names("2"), names("3")]);
        let (setup, front) = Setup::simple("round_robin", &[told.address(0)]);
        let setup = setup
            .backend(told.address(1), "backup: true")
            .pool_key("failback", failback);
        let ringway = Ringway::start(&setup.pool_key("health_check", &told.check(1, 1)));
        let on_backups = || ringway.count("ringway_pool_on_backups", &[]);
        assert_eq!((who_serves(&front).as_deref(), on_backups()), (Ok("2"), 0));
        told.say(&ringway, 0, false);
        assert_eq!((who_serves(&front).as_deref(), on_backups()), (Ok("3"), 1));
        told.say(&ringway, 0, true);
        assert_eq!(
            who_serves(&front).as_deref(),
            Ok(after),
            "{failback}: when the first is back"
        );
        assert_eq!(on_backups(), u64::from(failback == "manual"));
        // `manual` ends when the backup does.
        told.say(&ringway, 1, false);
        assert_eq!(
            (who_serves(&front).as_deref(), on_backups()),
            (Ok("2"), 0),
            "{failback}"
        );
        ringway.finish();
    }
}

/// Sessions on a backup go home over a minute when there is one; not when the backup itself goes.
#[test]
fn sessions_on_backups_go_home() {
    let _turn = Turn::start("sessions_on_backups_go_home", Duration::from_secs(120));
    const COUNT: u64 = 60;
    let told = Told::new([Behaviour::Echo, Behaviour::Echo]);
    let (setup, front) = Setup::simple("round_robin", &[told.address(0)]);
    let setup = setup.backend(told.address(1), "backup: true");
    let ringway = Ringway::start(&setup.pool_key("health_check", &told.check(1, 1)));
    told.say(&ringway, 0, false);
    let wires = run(None, open_relays(&Dial::to(&front), COUNT, 10)).expect("relays open");
    assert_eq!(told.backends[1].open(), COUNT);
    // The backup is down too, then well again: nobody is back, and no log says so.
    told.say(&ringway, 1, false);
    std::thread::sleep(Duration::from_secs(3));
    told.say(&ringway, 1, true);
    assert_eq!(ringway.ended("failback"), 0, "nowhere to go");
    assert!(!ringway.log().contains("usable again"), "{}", ringway.log());
    told.say(&ringway, 0, true);
    let began = Instant::now();
    // A twentieth to nearly all of 60, spread evenly over 60 s.
    let (share, at_least, at_most) = figure((10, 2, 30), (61, COUNT, COUNT));
    std::thread::sleep(Duration::from_secs(share));
    let gone = ringway.ended("failback");
    assert!(
        (at_least..=at_most).contains(&gone),
        "{gone} of {COUNT} after {:?}",
        began.elapsed()
    );
    drop(wires);
    ringway.finish();
}

#[test]
fn with_nobody_left_all_or_none_are_tried() {
    let _turn = Turn::start("with_nobody_left_all_or_none_are_tried", Duration::from_secs(60));
    for fail_open in ["false", "true"] {
        let told = Told::new([names("2"), names("2")]);
        let (setup, front) = Setup::simple("round_robin", &[told.address(0), told.address(1)]);
        let setup = setup.pool_key("fail_open", fail_open);
        let ringway = Ringway::start(&setup.pool_key("health_check", &told.check(1, 1)));
        told.say(&ringway, 0, false);
        told.say(&ringway, 1, false);
        let served = (0..10).filter(|_| who_serves(&front).as_deref() == Ok("2")).count();
        assert_eq!(
            served,
            if fail_open == "true" { 10 } else { 0 },
            "fail_open: {fail_open}"
        );
        let reset = 10 - served as u64;
        ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "no_backend")], reset);
        told.say(&ringway, 0, true);
        assert_eq!(who_serves(&front).as_deref(), Ok("2"));
        ringway.finish();
    }
}

#[test]
fn sessions_end_at_their_lifetime_give_or_take_a_tenth() {
    let _turn = Turn::start(
        "sessions_end_at_their_lifetime_give_or_take_a_tenth",
        Duration::from_secs(60),
    );
    const COUNT: u64 = 100;
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup.pool_key("max_lifetime", "3s"));
    let dial = Dial::to(&front);
    let mut ages = run(
        None,
        many(COUNT, usize::MAX, |_| {
            let dial = dial.clone();
            async move {
                let before = Instant::now();
                let mut wire = dial.connect().await.expect("the listener accepts");
                let began = Instant::now();
                // Half of the time a busy one: activity does not extend it.
                while began.elapsed() < Duration::from_millis(1_500) {
                    wire.ping(b"busy", SOON).await.expect("it is young");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                wire.read_to_end_of(SOON).await;
                // The longest and the shortest that it can have lived.
                (before.elapsed(), began.elapsed())
            }
        }),
    );
    ages.sort_unstable();
    for &(longest, shortest) in &ages {
        assert!(longest >= Duration::from_millis(2_700), "too soon: {longest:?}");
        assert!(shortest <= Duration::from_millis(3_300 + 200), "too late: {shortest:?}");
    }
    let spread = ages[ages.len() - 1].0 - ages[0].0;
    assert!(spread >= Duration::from_millis(200), "all at once: {spread:?}");
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "max_lifetime")], COUNT);
    ringway.finish();
}

/// One place at the backend, two in the queue.
fn crowded(queue: &str, front: &Address, backend: &Backend) -> Ringway {
    let setup = Setup::new().top("workers", "2").listener("front", front, "pool");
    let setup = setup
        .pool("pool", "round_robin", &[])
        .backend(&backend.address, "max_connections: 1");
    Ringway::start(&setup.pool_key("queue", queue))
}

#[test]
fn who_comes_to_full_backends_is_reset_and_counted() {
    let _turn = Turn::start(
        "who_comes_to_full_backends_is_reset_and_counted",
        Duration::from_secs(60),
    );
    let backend = Backend::start(names("served"));
    let open = |front: &Address| run(None, open_named(Dial::to(front)));
    // No queue.
    let front = free_v4();
    let ringway = crowded("off", &front, &backend);
    let first = open(&front).expect("there is room for one");
    assert!(open(&front).is_err());
    // The reset is there a moment before it is counted.
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "backends_full")], 1);
    drop(first);
    ringway.finish();
    // A queue: one waits too long, and one finds it full.
    let front = free_v4();
    let ringway = crowded("{ max: 1, timeout: 600ms }", &front, &backend);
    let first = open(&front).expect("there is room for one");
    let waits = std::thread::spawn({
        let front = front.clone();
        move || {
            let began = Instant::now();
            (run(None, open_named(Dial::to(&front))).is_err(), began.elapsed())
        }
    });
    ringway.wait_for_count("ringway_pool_queue", &[], 1);
    let began = Instant::now();
    assert!(open(&front).is_err(), "the queue is full");
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "queue_full")], 1);
    let (reset, after) = waits.join().expect("no panic");
    assert!(
        reset && after >= Duration::from_millis(600) && after < Duration::from_millis(1_000),
        "{after:?}"
    );
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "queue_timeout")], 1);
    drop(first);
    ringway.finish();
}

/// Connects and hears the backend's first line.
async fn open_named(dial: Dial) -> std::io::Result<Wire> {
    let mut wire = dial.connect().await?;
    wire.line(SOON).await?;
    Ok(wire)
}

#[test]
fn who_waits_is_served_in_order_of_arrival() {
    let _turn = Turn::start("who_waits_is_served_in_order_of_arrival", Duration::from_secs(60));
    const WAITING: u64 = 20;
    let backend = Backend::start(names("served"));
    let front = free_v4();
    let ringway = crowded("{ max: 100, timeout: 5s }", &front, &backend);
    let order = run(None, async {
        let holds = open_named(Dial::to(&front)).await.expect("there is room for one");
        let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..WAITING {
            let (tell, dial) = (tell.clone(), Dial::to(&front));
            tokio::spawn(async move {
                let wire = open_named(dial).await;
                // Told while it still has the only place.
                let _ = tell.send((n, wire.is_ok()));
            });
            let waiting = async {
                while ringway.count("ringway_pool_queue", &[]) != n + 1 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(SOON, waiting).await.expect("it waits in line");
        }
        drop((holds, tell));
        let mut order = Vec::new();
        while let Some(served) = heard.recv().await {
            order.push(served);
        }
        order
    });
    let expected: Vec<_> = (0..WAITING).map(|n| (n, true)).collect();
    assert_eq!(order, expected);
    ringway.finish();
}

#[test]
fn nobody_is_lost_when_places_become_free() {
    let _turn = Turn::start("nobody_is_lost_when_places_become_free", Duration::from_secs(60));
    let count = figure(2_000, 20_000);
    let backends = [0, 1].map(|_| Backend::start(names("served")));
    let front = free_v4();
    let mut setup = Setup::new().top("workers", "2").listener("front", &front, "pool");
    setup = setup.pool("pool", "least_connections", &[]);
    for backend in &backends {
        setup = setup.backend(&backend.address, "max_connections: 3");
    }
    let ringway = Ringway::start(&setup.pool_key("queue", "{ max: 1000, timeout: 10s }"));
    let dial = Dial::to(&front);
    let failed: Vec<_> = run(
        None,
        many(count, 100, |_| {
            let dial = dial.clone();
            async move { open_named(dial).await.err() }
        }),
    )
    .into_iter()
    .flatten()
    .collect();
    assert!(
        failed.is_empty(),
        "{} of {count} lost, the first: {:?}",
        failed.len(),
        failed.first()
    );
    ringway.finish();
}

#[test]
fn a_backend_that_comes_up_starts_slowly() {
    let _turn = Turn::start("a_backend_that_comes_up_starts_slowly", Duration::from_secs(60));
    let told = Told::new([names("2"), names("3")]);
    let (setup, front) = Setup::simple("round_robin", &[told.address(0), told.address(1)]);
    let setup = setup.pool_key("slow_start", "4s");
    let ringway = Ringway::start(&setup.pool_key("health_check", &told.check(1, 1)));
    told.say(&ringway, 0, false);
    let dial = Dial::to(&front);
    let load = Steady::start(None, 250, move || {
        let dial = dial.clone();
        async move { dial.connect().await?.line(SOON).await }
    });
    told.say(&ringway, 0, true);
    std::thread::sleep(Duration::from_millis(6_200));
    let attempts = load.stop();
    let line = ringway
        .told()
        .into_iter()
        .rfind(|told| told.message.contains("is up again"));
    let up = line.expect("the log tells of it").at;
    // Its share in a second after it came up. Its weight is k tenths in the k-th tenth of 4 s, the other's is ten:
    // between 1/11 and 3/13 in the first second, 3/13 and 5/15 in the second, 1/2 from 3.6 s on.
    let share = |second: u32| {
        let from = up + Duration::from_secs(1) * second;
        let within = |at| at >= from && at < from + Duration::from_secs(1);
        let heard = attempts.iter().filter(|attempt| within(attempt.began_at));
        let names: Vec<_> = heard.map(|attempt| attempt.result.as_deref()).collect();
        names.iter().filter(|name| **name == Ok("2")).count() as f64 / names.len().max(1) as f64
    };
    let shares: Vec<f64> = (0..6).map(share).collect();
    let near = |second: usize, low: f64, high: f64| (low - 0.03..=high + 0.03).contains(&shares[second]);
    assert!(near(0, 1.0 / 11.0, 3.0 / 13.0), "{shares:?}");
    assert!(near(1, 3.0 / 13.0, 5.0 / 15.0), "{shares:?}");
    assert!(near(2, 6.0 / 16.0, 8.0 / 18.0), "{shares:?}");
    assert!(near(4, 0.5, 0.5) && near(5, 0.5, 0.5), "{shares:?}");
    assert!(shares[..4].is_sorted(), "{shares:?}");
    ringway.finish();
}

#[test]
fn closed_sessions_end_in_order() {
    let _turn = Turn::start("closed_sessions_end_in_order", Duration::from_secs(60));
    let told = Told::new([Behaviour::Echo]);
    let (setup, front) = Setup::simple("round_robin", &[told.address(0)]);
    let setup = setup.pool_key("on_backend_down", "close");
    let ringway = Ringway::start(&setup.pool_key("health_check", &told.check(1, 1)));
    let ends = run(None, async {
        let wires = open_relays(&Dial::to(&front), 5, 5).await.expect("relays open");
        told.say(&ringway, 0, false);
        let mut ends = Vec::new();
        for mut wire in wires {
            ends.push(wire.read_to_end_of(SOON).await);
        }
        ends
    });
    // Nothing was under way.
    assert_eq!(ends, vec![(0, End::Orderly); 5]);
    assert!(
        wait_for(SOON, || (told.backends[0].open() == 0).then_some(())).is_some(),
        "the backend keeps nothing"
    );
    ringway.finish();
}
