//! One test's turn on the machine: the lock that makes tests of a file take turns, its seed, its time limit.

use crate::seeded::{Rng, run_seed};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Write;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static MACHINE: Mutex<()> = Mutex::new(());

/// Held while a test runs.
pub struct Turn {
    /// Random choices of this test.
    pub rng: Rng,
    _ended: Sender<()>,
    _machine: MutexGuard<'static, ()>,
}

impl Turn {
    /// Waits for the machine, prints the seed, starts the clock: a test still running after `limit` ends the process
    /// (and with it, by the parent-death signal, everything that the test started).
    pub fn start(name: &'static str, limit: Duration) -> Self {
        let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        raise_descriptor_limit();
        println!("{name}: RINGWAY_TEST_SEED={}", run_seed());
        let (ended, watch) = channel::<()>();
        std::thread::spawn(move || {
            if watch.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                say(&format!(
                    "{name} did not end within its limit of {limit:?} (RINGWAY_TEST_SEED={})\n",
                    run_seed()
                ));
                std::process::exit(124);
            }
        });
        Self {
            rng: Rng::new(run_seed()),
            _ended: ended,
            _machine: machine,
        }
    }
}

/// Whether full figures were asked for.
pub fn full() -> bool {
    std::env::var("RINGWAY_PROMISES").is_ok_and(|value| value == "full")
}

/// `full` when full figures were asked for, else `reduced`.
pub fn figure<T>(reduced: T, full_figure: T) -> T {
    if full() { full_figure } else { reduced }
}

/// Whether this test can have what only root can have; says so when not.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        say(&format!(
            "SKIPPED|{test}|needs root (network namespaces, other users)\n"
        ));
    }
    root
}

/// Writes past the test framework's capture.
pub fn say(text: &str) {
    // A closed standard output is no reason to fail a test.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a process may read its limits");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may be raised to the hard one");
}
