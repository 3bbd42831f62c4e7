//! A steady load in the background: so many new connections a second until it is told to stop, each with its moment.

use crate::namespace::Namespace;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// One connection of the load.
#[derive(Debug)]
pub struct Attempt<T> {
    /// When it began.
    pub began: Instant,
    /// The same on the clock of logs.
    pub began_at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What came of it; an error as a sentence.
    pub result: Result<T, String>,
}

/// A load that is running.
#[derive(Debug)]
pub struct Steady<T> {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Attempt<T>>>>,
}

impl<T: Send + 'static> Steady<T> {
    /// Begins `work` so many times a second, whatever becomes of what was begun before.
    pub fn start<F>(namespace: Option<&Namespace>, per_second: u32, work: impl Fn() -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<T>> + Send + 'static,
    {
        let stopped = Arc::new(AtomicBool::new(false));
        let (door, seen) = (namespace.map(Namespace::door), stopped.clone());
        let thread = std::thread::spawn(move || {
            if let Some(door) = door {
                door.enter();
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(load(Duration::from_secs(1) / per_second, work, &seen))
        });
        Self {
            stopped,
            thread: Some(thread),
        }
    }

    /// Begins nothing more, waits for what was begun, and tells of everything, in the order of their ends.
    pub fn stop(mut self) -> Vec<Attempt<T>> {
        self.stopped.store(true, Relaxed);
        let thread = self.thread.take().expect("it is taken here only");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<T> Drop for Steady<T> {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
    }
}

async fn load<T, F>(every: Duration, work: impl Fn() -> F, stopped: &AtomicBool) -> Vec<Attempt<T>>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let (mut running, mut attempts) = (JoinSet::new(), Vec::new());
    let mut clock = tokio::time::interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !stopped.load(Relaxed) {
        clock.tick().await;
        let work = work();
        running.spawn(async move {
            let (began, began_at) = (Instant::now(), SystemTime::now());
            let result = work.await.map_err(|error| error.to_string());
            let took = began.elapsed();
            Attempt {
                began,
                began_at,
                took,
                result,
            }
        });
        while let Some(attempt) = running.try_join_next() {
            attempts.push(attempt.expect("a client does not panic"));
        }
    }
    while let Some(attempt) = running.join_next().await {
        attempts.push(attempt.expect("a client does not panic"));
    }
    attempts
}
