//! P23 a panic of ours, P24 no io_uring.

use crate::SOON;
use ringway_tests::address::free_v4;
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{many, run};
use ringway_tests::process::wait_for;
use ringway_tests::program::Dir;
use ringway_tests::program::Launch;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::{Ringway, run_to_end};
use ringway_tests::scope::Turn;
use ringway_tests::setup::Setup;
use ringway_tests::wire::{Dial, End};
use std::time::{Duration, Instant};

#[test]
fn p23_our_own_panic_costs_one_connection() {
    // Building the variant takes its time once.
    let _turn = Turn::start("p23_our_own_panic_costs_one_connection", Duration::from_secs(600));
    let mut promise = Promise::new("P23", "a panic of ours costs one connection");
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start_faulty(&setup, "panic_relay:25");
    let (served, lost) = run(None, async {
        let dial = Dial::to(&front);
        let open = many(50, 1, |_| {
            let dial = dial.clone();
            async move {
                let mut wire = dial.connect().await.expect("the listener accepts");
                let served = wire.ping(b"first", SOON).await.is_ok();
                (wire, served)
            }
        });
        let (mut served, mut lost) = (0, Vec::new());
        for (mut wire, worked) in open.await {
            if worked && wire.ping(b"second", SOON).await.is_ok() {
                served += 1;
            } else {
                lost.push(wire.read_to_end_of(SOON).await.1);
            }
        }
        (served, lost)
    });
    promise.figure(
        "49 of 50 are served before, during and after",
        format!("{served}"),
        served == 49,
    );
    promise.figure(
        "the one is ended at once",
        format!("{lost:?}"),
        lost.len() == 1 && lost != [End::StillOpen],
    );
    let panics = ringway.count("ringway_tasks_panicked_total", &[]);
    promise.figure("counted as 1 panic", format!("{panics}"), panics == 1);
    let ended = ringway.ended("panicked");
    promise.figure("ended 1 session as panicked", format!("{ended}"), ended == 1);
    let logged = wait_for(SOON, || {
        ringway.log().lines().any(|line| line.contains("panick")).then_some(())
    });
    promise.figure("logged", if logged.is_some() { "yes" } else { "no" }, logged.is_some());
    promise.finish();
    ringway.finish_after_panics(1);
}

#[test]
fn p24_without_io_uring_the_answer_is_a_sentence() {
    let _turn = Turn::start("p24_without_io_uring_the_answer_is_a_sentence", Duration::from_secs(30));
    let mut promise = Promise::new("P24", "where io_uring is forbidden the answer is a sentence");
    let dir = Dir::new();
    let setup = Setup::simple("round_robin", &[&free_v4()]).0;
    let file = dir.write("ringway.yaml", &setup.yaml()).display().to_string();
    let cases: [(&str, &[&str]); 3] = [
        ("EPERM", &["io_uring", "seccomp"]),
        ("ENOSYS", &["io_uring", "kernel"]),
        ("ENOMEM", &["io_uring", "MEMLOCK"]),
    ];
    for (errno, words) in cases {
        let launch = Launch {
            deny_io_uring: Some(errno.to_owned()),
            ..Launch::default()
        };
        let began = Instant::now();
        let (code, out, err) = run_to_end(&launch, &["run", "--config", &file], SOON);
        let took = began.elapsed();
        let said = out + &err;
        let lines = said.lines().filter(|line| !line.trim().is_empty()).count();
        let named = words
            .iter()
            .all(|word| said.to_lowercase().contains(&word.to_lowercase()));
        promise.figure(
            format!("{errno}: one line that names {}", words.join(", ")),
            format!("{lines}: {}", said.trim()),
            lines == 1 && named,
        );
        promise.figure(
            "exit code not 0",
            format!("{code:?}"),
            code.is_some_and(|code| code != 0),
        );
        promise.figure(
            "within 100 ms",
            format!("{} ms", took.as_millis()),
            took <= Duration::from_millis(100),
        );
    }
    promise.finish();
}
