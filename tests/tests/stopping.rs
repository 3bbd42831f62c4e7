//! How a process ends: signals and draining.

use nix::sys::signal::Signal;
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{open_relays, run};
use ringway_tests::process::wait_for;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::Turn;
use ringway_tests::setup::Setup;
use ringway_tests::wire::{Dial, End, Wire};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn sighup_is_logged_and_ignored() {
    let _turn = Turn::start("sighup_is_logged_and_ignored", Duration::from_secs(30));
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup);
    run(None, async {
        let mut wires = open_relays(&Dial::to(&front), 4, 4).await.expect("relays open");
        ringway.process.signal(Signal::SIGHUP);
        assert!(
            wait_for(SOON, || ringway.log().contains("SIGHUP").then_some(())).is_some(),
            "{}",
            ringway.log()
        );
        for wire in &mut wires {
            wire.ping(b"still here", SOON).await.expect("relays go on");
        }
    });
    ringway.finish();
}

#[test]
fn a_second_signal_stops_at_once() {
    let _turn = Turn::start("a_second_signal_stops_at_once", Duration::from_secs(30));
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let mut ringway = Ringway::start(&setup.top("drain_timeout", "60s"));
    run(None, async {
        let mut wires = open_relays(&Dial::to(&front), 4, 4).await.expect("relays open");
        ringway.process.signal(Signal::SIGTERM);
        assert!(
            wait_for(SOON, || (!ringway.is_ready()).then_some(())).is_some(),
            "readiness turns"
        );
        wires[0]
            .ping(b"draining", SOON)
            .await
            .expect("relays go on while draining");
        assert!(ringway.wait(Duration::from_millis(300)).is_none(), "it drains");
        ringway.process.signal(Signal::SIGTERM);
        let status = ringway
            .wait(Duration::from_secs(1))
            .expect("a second signal ends it within a second");
        assert!(status.code().is_some(), "it ends by itself: {status}");
        for wire in &mut wires {
            assert_eq!(wire.read_to_end_of(SOON).await, (0, End::Reset));
        }
    });
}

/// What clients that connect one after the other saw while the process stopped.
#[derive(Default)]
struct Arrivals {
    served: u64,
    /// Connected by the kernel and then not served.
    lost: Vec<String>,
    refused_at: Option<Instant>,
}

/// Connects again and again until refused.
async fn arrive(dial: Dial, give_up: &AtomicBool) -> Arrivals {
    let mut seen = Arrivals::default();
    while !give_up.load(SeqCst) {
        match dial.connect_within(SOON).await {
            Ok(mut wire) => match wire.ping(b"new", SOON).await {
                Ok(()) => seen.served += 1,
                Err(error) => seen.lost.push(error.to_string()),
            },
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                seen.refused_at = Some(Instant::now());
                break;
            }
            Err(error) => seen.lost.push(format!("connecting: {error}")),
        }
    }
    seen
}

#[test]
fn drain_is_complete_and_bounded() {
    let _turn = Turn::start("drain_is_complete_and_bounded", Duration::from_secs(60));
    let mut promise = Promise::new(
        "P6",
        "SIGTERM: readiness turns first, what fits finishes, the rest is reset",
    );
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let mut ringway = Ringway::start(&setup.top("drain_delay", "1s").top("drain_timeout", "2s"));
    let (dial, give_up) = (Dial::to(&front), AtomicBool::new(false));
    let seen = run(None, async {
        let mut finishing = open_relays(&dial, 5, 5).await.expect("relays open");
        let staying = open_relays(&dial, 5, 5).await.expect("relays open");
        let signalled = Instant::now();
        ringway.process.signal(Signal::SIGTERM);
        let unready = wait_for(SOON, || (!ringway.is_ready()).then(Instant::now)).expect("readiness turns");
        let (live, _) = ringway.get("/health/live").expect("admin answers while draining");
        assert_eq!(live, 200, "a draining process is alive");
        let finish = async {
            for wire in &mut finishing {
                tokio::time::sleep(Duration::from_millis(300)).await;
                wire.ping(b"last words", SOON).await.expect("open relays go on");
                wire.shutdown().await.expect("a client may end");
                assert_eq!(
                    wire.read_to_end_of(SOON).await,
                    (0, End::Orderly),
                    "what finishes in time ends in order"
                );
            }
        };
        let stay = async {
            let mut ends = Vec::new();
            for mut wire in staying {
                ends.push(wire.read_to_end_of(SOON).await);
            }
            assert_eq!(ends, [(0, End::Reset); 5], "the rest is reset");
            Instant::now()
        };
        let four = async {
            let one = || arrive(dial.clone(), &give_up);
            let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
            [a, b, c, d]
        };
        let (arrivals, (), reset_at) = tokio::join!(four, finish, stay);
        Drained {
            signalled,
            unready,
            arrivals,
            reset_at,
        }
    });
    let status = ringway.wait(SOON).expect("it ends");
    let ended = seen.signalled.elapsed();
    assert_eq!(status.code(), Some(0), "{}", ringway.log());
    seen.judge(&mut promise);
    promise.at_most("seconds to exit 0", ended.as_secs_f64(), 1.0 + 2.0 + 1.0);
    promise.finish();
}

/// The moments of a drain, with `drain_delay: 1s` and `drain_timeout: 2s`.
struct Drained {
    signalled: Instant,
    unready: Instant,
    arrivals: [Arrivals; 4],
    reset_at: Instant,
}

impl Drained {
    fn judge(&self, promise: &mut Promise) {
        let after = |at: Instant| at.duration_since(self.signalled).as_secs_f64();
        let refused_after = self
            .arrivals
            .iter()
            .filter_map(|seen| seen.refused_at)
            .map(after)
            .fold(f64::INFINITY, f64::min);
        let lost: Vec<_> = self.arrivals.iter().flat_map(|seen| &seen.lost).collect();
        let served: u64 = self.arrivals.iter().map(|seen| seen.served).sum();
        promise.at_most("seconds from signal to not ready", after(self.unready), 0.5);
        promise.figure(
            "accepting goes on for drain_delay (1 s)",
            format!("refused after {refused_after:.2} s"),
            refused_after >= 0.9,
        );
        promise.figure(
            "0 of those connected are lost",
            format!("{} of {served}: {lost:?}", lost.len()),
            lost.is_empty() && served > 10,
        );
        let resets = after(self.reset_at);
        promise.figure(
            "the rest reset after drain_timeout (2 s)",
            format!("{resets:.2} s"),
            (1.9..4.0).contains(&resets),
        );
    }
}

#[test]
fn clients_that_never_speak_do_not_hold_a_drain() {
    let _turn = Turn::start("clients_that_never_speak_do_not_hold_a_drain", Duration::from_secs(30));
    let backend = Backend::start(Behaviour::Silent);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let mut ringway = Ringway::start(&setup.top("drain_timeout", "1s"));
    run(None, async {
        let mut wires: Vec<Wire> = Vec::new();
        for _ in 0..20 {
            wires.push(Dial::to(&front).connect().await.expect("the listener accepts"));
        }
        ringway.wait_for_count("ringway_listener_connections", &[], 20);
        ringway.process.signal(Signal::SIGTERM);
        let status = ringway
            .wait(Duration::from_secs(2))
            .expect("drain_timeout + 1 s is kept");
        assert_eq!(status.code(), Some(0));
        for wire in &mut wires {
            assert_eq!(wire.read_to_end_of(SOON).await, (0, End::Reset));
        }
    });
}
