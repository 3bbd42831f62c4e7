//! The data plane in simulation: its own code for accepting, choosing, connecting and relaying, on one to three workers,
//! between scripted clients and backends, over a network that is as unkind as it is allowed to be.
//!
//! Everything follows from a seed. A failure prints the command that replays it. `RINGWAY_SIM_SEEDS` says how many
//! seeds to run, `RINGWAY_SIM_SEED` which one `one_seed` runs, and `RINGWAY_SIM_TRACE=1` makes that one print its steps.

mod actor;
mod control;
mod ledger;
mod oracle;
mod plan;
mod world;

#[cfg(feature = "mutants")]
mod mutants;

use plan::Plan;
use ringway_core::health::Report;
use ringway_core::reason::EndReason;
use ringway_runtime::sim::Seen;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;
use world::{Failure, World};

/// Seeds of an ordinary run. Debug builds are some ten times slower.
const SEEDS: u64 = if cfg!(debug_assertions) { 400 } else { 3_000 };
/// Worlds run on this many threads at the same time.
const THREADS: usize = 2;

/// Seeds that found something, and what. They were looked for again whenever what a seed draws has changed.
const REGRESSIONS: &[(u64, &str)] = &[
    (
        0xd,
        "a relay whose send fell short was not told when there was room, and lived on the timer of its checks",
    ),
    (
        0x11b,
        "a relay that had paused did not deliver what the kernel held when the sender was reset",
    ),
    (
        0x197e6,
        "a connection whose task had not been polled yet was not counted, and its worker stopped without it",
    ),
    (
        0x3d7,
        "a source that had ended after the other side had, while its bytes waited for the sink, was taken for reset",
    ),
    (
        0x131,
        "a backend that had answered, and whose reset a send learnt of first, was told of as one that ended early",
    ),
    (
        0x201,
        "a session that had waited in line was ended by an order older than the choice of its backend",
    ),
    (
        0x49e,
        "memory of small buffers that was given back took lent neighbours of the same page with it",
    ),
    (
        0x222,
        "a session whose first try had failed while all others were on trial ended as if none had been tried",
    ),
];

/// What a run of worlds saw.
#[derive(Debug, Default)]
struct Tally {
    seen: Seen,
    ended: BTreeMap<&'static str, u64>,
    clients: u64,
    bytes: u64,
    /// Connections that waited for room, trials that were taken, views that were shown, successes that were told.
    waits: u64,
    trials: u64,
    views: u64,
    successes: u64,
    early_ends: u64,
    /// How often each way of choosing was used.
    balances: BTreeMap<&'static str, u64>,
}

/// Runs one world; its failure, if any.
fn run_seed(seed: u64, tally: Option<&Mutex<Tally>>) -> Result<(), Failure> {
    let mut world = World::new(Plan::new(seed));
    world.trace = tally.is_none() && std::env::var_os("RINGWAY_SIM_TRACE").is_some();
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let step = world.step;
    if let (Ok(Ok(())), Some(tally)) = (&outcome, tally) {
        note(&world, &mut tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
    // Apart from the run: a panic while another unwinds would end the process.
    let end = catch_unwind(AssertUnwindSafe(|| world.end()));
    let failure = |text| Failure { step, text };
    outcome.unwrap_or_else(|panic| Err(failure(describe(&*panic))))?;
    end.unwrap_or_else(|panic| Err(describe(&*panic))).map_err(failure)
}

fn note(world: &World, tally: &mut Tally) {
    tally.seen.add(&world.network.seen());
    for worker in &world.workers {
        for reason in EndReason::ALL {
            *tally.ended.entry(reason.label()).or_default() += worker.stats.listeners[0].ended[reason.index()].value();
        }
    }
    tally.waits += world.done.waits;
    tally.trials += world.done.trials;
    tally.views += world.done.views.len() as u64 - 1;
    for backend in 0..world.states.len() {
        tally.successes += world.reports(backend, Report::Connected) + world.reports(backend, Report::Answered);
        tally.early_ends += world.reports(backend, Report::EndedEarly);
    }
    *tally.balances.entry(world.plan.control.balance.name()).or_default() += 1;
    tally.clients += world.clients.len() as u64;
    tally.bytes += world
        .clients
        .iter()
        .chain(&world.served)
        .map(|actor| actor.received)
        .sum::<u64>();
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without words"))
}

fn report(seed: u64, failure: &Failure) -> String {
    let Failure { step, text } = failure;
    format!(
        "seed {seed:#x} failed at step {step}: {text}\n\
         replay: RINGWAY_SIM_SEED={seed:#x} cargo test -p ringway-proxy --test sim -- one_seed --nocapture"
    )
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Runs seeds from `first` on until `count` have passed or one failed.
fn run_seeds(first: u64, count: u64, tally: &Mutex<Tally>) -> Option<(u64, Failure)> {
    let next = AtomicU64::new(first);
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    if let Err(failure) = run_seed(seed, Some(tally)) {
                        next.store(first + count, Ordering::Relaxed);
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((seed, failure));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn many_seeds() {
    let count = number("RINGWAY_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("RINGWAY_SIM_FIRST").unwrap_or(1);
    let tally = Mutex::default();
    let start = Instant::now();
    if let Some((seed, failure)) = run_seeds(first, count, &tally) {
        panic!("{}", report(seed, &failure));
    }
    let elapsed = start.elapsed();
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{count} seeds from {first} in {elapsed:.1?}: {:.0} a minute",
        count as f64 * 60.0 / elapsed.as_secs_f64()
    );
    println!("{tally:#?}");
    if count >= SEEDS {
        tally.assert_happened();
    }
}

impl Tally {
    /// Worlds in which nothing goes wrong test nothing.
    fn assert_happened(&self) {
        let seen = &self.seen;
        let troubles = [
            ("bundle", seen.bundles),
            ("partial receive", seen.partial_receives),
            ("receive that the kernel ended", seen.receives_ended),
            ("dry ring", seen.buffers_dry),
            ("partial send", seen.partial_sends),
            ("full send", seen.full_sends),
            ("batch through a pipe", seen.fills),
            ("partial fill of a pipe", seen.partial_fills),
            ("partial drain of a pipe", seen.partial_drains),
            ("refused pipe", seen.pipes_refused),
            ("pipe that was closed with bytes", seen.pipes_closed_with_bytes),
            ("late operation", seen.late),
            ("late cancel", seen.late_cancels),
            ("bytes after a cancel", seen.data_after_cancel),
            ("accept without descriptors", seen.accepts_exhausted),
            ("accept that the kernel ended", seen.accepts_ended),
            ("refused connect", seen.connects_refused),
            ("connect without a port", seen.connects_local),
            ("reset that loses bytes", seen.resets_with_bytes_lost),
            ("wait in line", self.waits),
            ("trial", self.trials),
            ("change of a view", self.views),
            ("success that was to be told", self.successes),
            ("end before the first byte", self.early_ends),
        ];
        for (what, count) in troubles {
            assert!(count > 0, "no world has seen: {what}");
        }
        for reason in EndReason::ALL {
            let never = match reason {
                EndReason::Panicked => true,
                // UDP has a simulation of its own.
                EndReason::SessionTimeout | EndReason::BackendRemoved => true,
                // And so has what is read before a backend is chosen.
                EndReason::RoutingTimeout
                | EndReason::ClientLeft
                | EndReason::BadHello
                | EndReason::HelloTooLarge
                | EndReason::NoRoute
                | EndReason::BadProxyHeader
                | EndReason::BadStartup
                | EndReason::StarttlsRefused
                | EndReason::Displaced
                | EndReason::Refused => true,
                _ => false,
            };
            let ended = self.ended.get(reason.label()).is_some_and(|count| *count > 0);
            assert_ne!(ended, never, "connections that ended as {}", reason.label());
        }
        assert_eq!(self.balances.len(), 6, "ways of choosing: {:?}", self.balances);
    }
}

#[test]
fn one_seed() {
    let seed = number("RINGWAY_SIM_SEED").unwrap_or(1);
    println!("{:#?}", Plan::new(seed));
    if let Err(failure) = run_seed(seed, None) {
        panic!("{}", report(seed, &failure));
    }
}

#[test]
fn regressions() {
    for (seed, found) in REGRESSIONS {
        if let Err(failure) = run_seed(*seed, None) {
            panic!("{found}: {}", report(*seed, &failure));
        }
    }
}
