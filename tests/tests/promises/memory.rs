//! P1: idle connections are cheap.

use crate::{SOON, WarmUp};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{open_relays, run};
use ringway_tests::process::wait_for;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::wire::Dial;
use std::time::Duration;

/// Kernel memory in slabs, bytes: of the whole machine, so only reported.
fn kernel_slabs() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo can be read");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Slab:"))
        .expect("it has a line Slab");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn p1_idle_connections_are_cheap() {
    let _turn = Turn::start("p1_idle_connections_are_cheap", Duration::from_secs(200));
    let mut promise = Promise::new("P1", "idle connections are cheap");
    let count: u64 = figure(4_000, 9_000);
    let hold = Duration::from_secs(figure(5, 60));
    let (backend, warm_up) = (Backend::start(Behaviour::Echo), WarmUp::new());
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start(&warm_up.add_to(setup));
    warm_up.run(&ringway);
    let (before, slabs_before) = (ringway.process.memory(), kernel_slabs());
    let (held, slabs, cpu, dead) = run(None, async {
        let mut wires = open_relays(&Dial::to(&front), count, 200)
            .await
            .expect("all relays open");
        // Every echo is through; what the last ones lent out is back when no buffer is out.
        wait_for(SOON, || (ringway.buffers_out() == 0).then_some(()));
        let cpu = ringway.process.cpu_percent_over(hold);
        let (held, slabs) = (ringway.process.memory(), kernel_slabs());
        let mut dead = 0;
        for wire in &mut wires {
            dead += u64::from(wire.ping(b"alive?", SOON).await.is_err());
        }
        (held, slabs, cpu, dead)
    });
    let grown = held.saturating_sub(before);
    let given_back = || held.saturating_sub(ringway.process.memory()) as f64 / grown.max(1) as f64 * 100.0;
    // When nothing measurable was taken there is nothing to give back.
    let back = wait_for(Duration::from_secs(10), || (given_back() >= 80.0).then(given_back)).unwrap_or_else(given_back);
    let enough = back >= 80.0 || grown < 64 * 1024;

    let each = grown / count;
    promise.at_most(&format!("bytes of process memory for each of {count}"), each, 1_280);
    let kernel = slabs.saturating_sub(slabs_before) / count;
    promise.figure(
        "kernel memory is reported",
        format!("about {kernel} bytes each in slabs, test included"),
        true,
    );
    promise.at_most(&format!("dead after {hold:?}"), dead, 0);
    promise.figure("below 1 % of a core", format!("{cpu:.2} %"), cpu < 1.0);
    promise.figure(
        "at least 80 % given back within 10 s",
        format!("{back:.0} % of {grown} bytes"),
        enough,
    );
    promise.finish();
    ringway.finish();
}
