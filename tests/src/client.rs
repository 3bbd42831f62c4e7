//! Loads that tests put on a listener: many connections at a time, or so many a second; and what they measured.

use crate::namespace::Namespace;
use crate::wire::{Dial, End, Wire};
use std::future::Future;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// Runs a client's work on this thread, or on one inside the namespace.
pub fn run<T: Send>(namespace: Option<&Namespace>, work: impl Future<Output = T> + Send) -> T {
    let block = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(work)
    };
    match namespace {
        Some(namespace) => namespace.inside(block),
        None => block(),
    }
}

/// Runs `count` pieces of work, at most `at_once` of them at a time; results in the order of their ends.
pub async fn many<T, F>(count: u64, at_once: usize, mut work: impl FnMut(u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (mut running, mut results) = (JoinSet::new(), Vec::new());
    for index in 0..count {
        while running.len() >= at_once {
            results.extend(joined(running.join_next().await));
        }
        running.spawn(work(index));
    }
    while !running.is_empty() {
        results.extend(joined(running.join_next().await));
    }
    results
}

fn joined<T>(result: Option<Result<T, tokio::task::JoinError>>) -> Option<T> {
    result.map(|result| result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
}

/// What a load saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of the pieces of work that succeeded.
    pub durations: Vec<Duration>,
    /// One sentence each.
    pub errors: Vec<String>,
}

impl Seen {
    /// The duration that this percentage of the work did not exceed; zero without any.
    pub fn percentile(&mut self, percent: usize) -> Duration {
        self.durations.sort_unstable();
        let rank = (self.durations.len() * percent).div_ceil(100).max(1) - 1;
        self.durations.get(rank).copied().unwrap_or_default()
    }

    /// Adds one result.
    pub fn add(&mut self, result: io::Result<Duration>) {
        match result {
            Ok(duration) => self.durations.push(duration),
            Err(error) => self.errors.push(error.to_string()),
        }
    }
}

/// Connects, exchanges 100 bytes with an echoing backend, closes; how long that took.
pub async fn short_connection(dial: Dial) -> io::Result<Duration> {
    let began = Instant::now();
    let mut wire = dial.connect_within(Duration::from_secs(10)).await?;
    wire.ping(&[7; 100], Duration::from_secs(10)).await?;
    Ok(began.elapsed())
}

/// Connects, asks a backend that does [`Behaviour::Download`](crate::backend::Behaviour::Download) for so many bytes,
/// takes them, closes.
pub async fn download(dial: Dial, bytes: u64) -> io::Result<()> {
    let mut wire = dial.connect_within(Duration::from_secs(10)).await?;
    wire.write_u64_le(bytes).await?;
    wire.shutdown().await?;
    match wire.read_to_end_of(Duration::from_secs(10)).await {
        (seen, End::Orderly) if seen == bytes => Ok(()),
        other => Err(io::Error::other(format!("{other:?} instead of {bytes} bytes"))),
    }
}

/// `count` short connections, started at a fixed rate whatever becomes of them.
pub async fn churn(dial: &Dial, count: u64, per_second: u64) -> Seen {
    let (mut running, mut seen) = (JoinSet::new(), Seen::default());
    let mut clock = tokio::time::interval(Duration::from_nanos(1_000_000_000 / per_second));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for _ in 0..count {
        clock.tick().await;
        running.spawn(short_connection(dial.clone()));
        while let Some(result) = running.try_join_next() {
            seen.add(result.expect("a client does not panic"));
        }
    }
    while let Some(result) = running.join_next().await {
        seen.add(result.expect("a client does not panic"));
    }
    seen
}

/// Pings on one open connection per client, `rounds` each with a pause between; the round trips.
pub async fn pings(dial: &Dial, clients: u64, rounds: u32, pause: Duration) -> Seen {
    let results = many(clients, usize::MAX, |_| {
        let dial = dial.clone();
        async move {
            let mut wire = dial.connect_within(Duration::from_secs(10)).await?;
            let mut durations = Vec::new();
            for _ in 0..rounds {
                let began = Instant::now();
                wire.ping(&[9; 100], Duration::from_secs(10)).await?;
                durations.push(began.elapsed());
                tokio::time::sleep(pause).await;
            }
            Ok::<_, io::Error>(durations)
        }
    });
    let mut seen = Seen::default();
    for result in results.await {
        match result {
            Ok(durations) => seen.durations.extend(durations),
            Err(error) => seen.errors.push(error.to_string()),
        }
    }
    seen
}

/// Opens `count` connections and waits for one echo on each, so that the relay stands.
pub async fn open_relays(dial: &Dial, count: u64, at_once: usize) -> io::Result<Vec<Wire>> {
    let wires = many(count, at_once, |_| {
        let dial = dial.clone();
        async move {
            let mut wire = dial.connect_within(Duration::from_secs(10)).await?;
            wire.ping(b"!", Duration::from_secs(10)).await?;
            Ok(wire)
        }
    });
    wires.await.into_iter().collect()
}
