//! What a TCP connection goes through between accept and relay, in simulation: PROXY headers, hellos, PostgreSQL's first
//! messages, deadlines, limits, what backends are told and how they are greeted.
//!
//! Everything follows from a seed. A failure prints the command that replays it. `RINGWAY_SIM_SEEDS` says how many seeds
//! to run, `RINGWAY_SIM_SEED` which one `one_seed` runs, and `RINGWAY_SIM_TRACE=1` makes that one print what it logs.

mod backend;
mod bytes;
mod client;
mod forge;
mod leftovers;
mod oracle;
mod plan;
mod scripted;
mod story;
mod world;

#[cfg(feature = "mutants")]
mod mutants;

use plan::Plan;
use ringway_core::reason::EndReason;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;
use world::World;

const SEEDS: u64 = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
/// Worlds run on this many threads at the same time.
const THREADS: usize = 2;

/// What a run of worlds saw.
#[derive(Debug, Default)]
struct Tally {
    ended: BTreeMap<&'static str, u64>,
    seen: BTreeMap<&'static str, u64>,
}

/// Runs one world; its failure, if any.
fn run_seed(seed: u64, tally: Option<&Mutex<Tally>>) -> Result<(), String> {
    let mut world = World::new(Plan::new(seed));
    world.trace = tally.is_none() && std::env::var_os("RINGWAY_SIM_TRACE").is_some();
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let (Ok(Ok(())), Some(tally)) = (&outcome, tally) {
        note(&world, &mut tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
    // Apart from the run: a panic while another unwinds would end the process.
    let end = catch_unwind(AssertUnwindSafe(|| world.end()));
    outcome.unwrap_or_else(|panic| Err(describe(&*panic)))?;
    end.unwrap_or_else(|panic| Err(describe(&*panic)))
}

fn note(world: &World, tally: &mut Tally) {
    for worker in &world.workers {
        for reason in EndReason::ALL {
            let count = worker.stats.listeners[0].ended[reason.index()].value();
            *tally.ended.entry(reason.label()).or_default() += count;
        }
    }
    let network = world.network.seen();
    let known = world.cancels.iter().flatten().count() as u64;
    for (what, count) in [
        ("client", world.clients.iter().flatten().count() as u64),
        ("connection of a backend", world.served.len() as u64),
        ("known key", known),
        ("refusal", leftovers::refused(world)),
        ("dry ring", network.buffers_dry),
        ("partial receive", network.partial_receives),
        ("full send", network.full_sends),
        ("late operation", network.late),
    ] {
        *tally.seen.entry(what).or_default() += count;
    }
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without words"))
}

fn report(seed: u64, failure: &str) -> String {
    format!(
        "seed {seed:#x} failed: {failure}\n\
         replay: RINGWAY_SIM_SEED={seed:#x} cargo test -p ringway-proxy --test routing -- one_seed --nocapture"
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
fn run_seeds(first: u64, count: u64, tally: &Mutex<Tally>) -> Option<(u64, String)> {
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
    println!("{count} seeds from {first} in {:.1?}", start.elapsed());
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{tally:#?}");
    if count >= SEEDS {
        tally.assert_happened();
    }
}

impl Tally {
    /// Worlds in which nothing goes wrong test nothing.
    fn assert_happened(&self) {
        for (what, count) in &self.seen {
            assert!(*count > 0, "no world has seen: {what}");
        }
        for reason in [
            EndReason::Finished,
            EndReason::ClientReset,
            EndReason::BackendReset,
            EndReason::ConnectFailed,
            EndReason::BackendsFull,
            EndReason::RoutingTimeout,
            EndReason::ClientLeft,
            EndReason::BadHello,
            EndReason::HelloTooLarge,
            EndReason::NoRoute,
            EndReason::BadProxyHeader,
            EndReason::BadStartup,
            EndReason::StarttlsRefused,
            EndReason::Displaced,
            EndReason::Refused,
            EndReason::DrainDeadline,
        ] {
            let ended = self.ended.get(reason.label()).copied().unwrap_or(0);
            assert!(ended > 0, "no connection has ended as {}", reason.label());
        }
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
