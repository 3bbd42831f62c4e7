//! The promises of docs/promises.md that the TCP relay makes, each with its figure; `cargo xtask promises` collects
//! their lines. Counts are reduced unless `RINGWAY_PROMISES=full`.

mod bytes;
mod camping;
mod faults;
mod flood;
mod forging;
mod health;
mod health_calm;
mod health_found;
mod hellos;
mod load;
mod log;
mod memory;
mod peers;
mod proxy_headers;
mod slow_readers;

use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::exchange::{Order, Plan, run_many};
use ringway_tests::ringway::Ringway;
use ringway_tests::setup::Setup;
use ringway_tests::wire::Dial;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// A listener of its own whose only purpose is to use every receive buffer once before memory is measured.
struct WarmUp {
    backend: Backend,
    bind: Address,
}

impl WarmUp {
    fn new() -> Self {
        Self {
            backend: Backend::start(Behaviour::Exchange),
            bind: free_v4(),
        }
    }

    fn add_to(&self, setup: Setup) -> Setup {
        setup
            .listener("warm", &self.bind, "warm")
            .pool("warm", "round_robin", &[&self.backend.address])
    }

    /// 16 streams spread over both workers, 256 MiB in all: many times the default rings of 16 MiB each.
    fn run(&self, ringway: &Ringway) {
        let plan = Plan {
            stream: 1 << 40,
            up: 8 << 20,
            down: 8 << 20,
            order: Order::Together,
            pauses: false,
        };
        let failed = run_many(None, &Dial::to(&self.bind), 16, plan);
        assert!(failed.is_empty(), "warming up: {failed:?}");
        ringway.settle();
    }
}

/// A duration in milliseconds, for figures.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 100.0
}

/// How many went wrong, and how the first did.
fn first_of<T: std::fmt::Debug>(wrong: &[T]) -> String {
    wrong.first().map_or("0 wrong".to_owned(), |first| {
        format!("{} wrong, the first: {first:?}", wrong.len())
    })
}
