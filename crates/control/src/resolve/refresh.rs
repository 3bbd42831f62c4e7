//! When a name is asked for again.
//!
//! One task per name: look up, tell what changed, wait. Never ends by itself.

use super::lanes::QUICK_TIME;
use super::lookup::{Answer, Known, look_up};
use super::mailbox::Mailbox;
use super::servers::Servers;
use super::{ADDRESSES_MAX, Found, Outcome};
use crate::model::{self, Records, Resolve};
use hickory_resolver::proto::rr::Name;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Before the first retry after a failure; doubled for each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Between two questions for one name whatever the configuration and the TTL say, so that no mistake floods a server.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A pause is drawn out by up to one part in this many, so that names learnt together are not asked for together.
const SPREAD: u32 = 10;

/// One name that is kept fresh.
pub(super) struct Watched {
    host: Name,
    records: Records,
    label: Arc<str>,
    interval_min: Duration,
    interval_max: Duration,
}

impl Watched {
    /// The error is a whole sentence.
    pub(super) fn new(name: &model::Name, resolve: &Resolve) -> Result<Self, String> {
        // Not the strict parser: names of services and of some hosts have underscores.
        let host = Name::from_str_relaxed(&name.host).map_err(|error| {
            format!(
                "\"{}\" is no name that DNS knows ({error}); use labels of 1 to 63 characters with dots between them, 253 \
                 in all",
                name.host
            )
        })?;
        Ok(Self {
            host,
            records: name.records,
            label: Arc::clone(&name.host),
            interval_min: resolve.interval_min,
            interval_max: resolve.interval_max,
        })
    }

    /// Looks the name up again and again, and leaves each outcome that differs from the one before in `slot`.
    pub(super) async fn keep_fresh(self, servers: Arc<Servers>, mailbox: Arc<Mailbox>, slot: usize) {
        let mut known = Known::default();
        let mut told = None;
        let mut failures = 0;
        let mut was_slow = false;
        loop {
            let timed = async {
                let began = Instant::now();
                let answer = look_up(&servers, &self.host, self.records, &mut known).await;
                (answer, began.elapsed())
            };
            let (answer, time) = servers.lanes().run(was_slow, timed).await;
            was_slow = time > QUICK_TIME;
            failures = match answer {
                Answer::Failed(_) => failures + 1,
                Answer::Found(..) | Answer::Empty { .. } => 0,
            };
            let pause = self.pause(&answer, failures);
            let outcome = self.outcome(answer, told.as_ref());
            if told.as_ref() != Some(&outcome) {
                told = Some(outcome.clone());
                mailbox.put(slot, outcome);
            }
            sleep(drawn_out(pause, draw())).await;
        }
    }

    fn pause(&self, answer: &Answer<Vec<Found>>, failures: u32) -> Duration {
        let pause = match answer {
            Answer::Found(_, ttl) | Answer::Empty { ttl: Some(ttl), .. } => (*ttl).max(self.interval_min),
            // Nothing says how long it holds (RFC 2308, section 5): not long.
            Answer::Empty { ttl: None, .. } => self.interval_min,
            Answer::Failed(_) => RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)),
        };
        pause.min(self.interval_max).max(PAUSE_MIN)
    }

    fn outcome(&self, answer: Answer<Vec<Found>>, told: Option<&Outcome>) -> Outcome {
        match answer {
            Answer::Found(mut found, _) => {
                let all = found.len();
                found.sort_unstable();
                found.truncate(ADDRESSES_MAX);
                let outcome = Outcome::Found(found);
                if all > ADDRESSES_MAX && told != Some(&outcome) {
                    tracing::warn!(
                        name = &*self.label,
                        addresses = all,
                        used = ADDRESSES_MAX,
                        "the name has more addresses than one name may stand for; the first ones in order are used"
                    );
                }
                outcome
            }
            Answer::Empty { exists: false, .. } => Outcome::Empty(format!("{} does not exist (NXDOMAIN)", self.label)),
            Answer::Empty { exists: true, .. } => Outcome::Empty(match self.records {
                Records::Addresses(_) => format!("{} has neither A nor AAAA records", self.label),
                Records::Services => format!("{} has no SRV records that lead to an address", self.label),
            }),
            Answer::Failed(why) => Outcome::Failed(format!("{} cannot be resolved now: {why}", self.label)),
        }
    }
}

/// `draw` over the whole range of a `u16` gives one to 1.1 times the pause.
fn drawn_out(pause: Duration, draw: u16) -> Duration {
    pause + pause / SPREAD * u32::from(draw) / u32::from(u16::MAX)
}

/// Chance enough for spreading: a hash whose key the standard library draws anew for each.
fn draw() -> u16 {
    let hash = RandomState::new().hash_one(());
    (hash & u64::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(records: Records, seconds: (u64, u64)) -> Watched {
        let name = model::Name {
            host: Arc::from("db.test"),
            records,
        };
        let resolve = Resolve {
            servers: Vec::new(),
            interval_min: Duration::from_secs(seconds.0),
            interval_max: Duration::from_secs(seconds.1),
        };
        Watched::new(&name, &resolve).unwrap()
    }

    fn found(ttl: u64) -> Answer<Vec<Found>> {
        Answer::Found(Vec::new(), Duration::from_secs(ttl))
    }

    #[test]
    fn the_ttl_counts_between_the_two_intervals() {
        let name = watched(Records::Addresses(1), (5, 60));
        for (ttl, pause) in [(0, 5), (4, 5), (30, 30), (60, 60), (86_400, 60)] {
            assert_eq!(name.pause(&found(ttl), 0), Duration::from_secs(pause), "ttl {ttl}");
        }
        let empty = |ttl| Answer::Empty { exists: false, ttl };
        assert_eq!(
            name.pause(&empty(Some(Duration::from_secs(20))), 0),
            Duration::from_secs(20)
        );
        assert_eq!(name.pause(&empty(None), 0), Duration::from_secs(5));
    }

    #[test]
    fn failures_wait_one_second_then_twice_as_long_each_time() {
        let name = watched(Records::Addresses(1), (5, 10));
        let failed = || Answer::Failed(String::new());
        let pauses: Vec<u64> = [1, 2, 3, 4, 5, 40, u32::MAX]
            .map(|failures| name.pause(&failed(), failures).as_secs())
            .into();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10, 10]);
    }

    #[test]
    fn intervals_of_zero_do_not_flood_a_server() {
        let name = watched(Records::Addresses(1), (0, 0));
        assert_eq!(name.pause(&found(0), 0), Duration::from_millis(100));
    }

    #[test]
    fn a_pause_is_drawn_out_by_up_to_a_tenth() {
        let pause = Duration::from_secs(100);
        assert_eq!(drawn_out(pause, 0), Duration::from_secs(100));
        assert_eq!(drawn_out(pause, u16::MAX), Duration::from_secs(110));
        let draws: std::collections::HashSet<u16> = (0..100).map(|_| draw()).collect();
        assert!(draws.len() > 50, "draws repeat: {draws:?}");
    }

    #[test]
    fn of_more_than_64_addresses_the_first_in_order_are_taken() {
        let name = watched(Records::Addresses(1), (1, 1));
        let addresses = (0..100u8).rev().map(|last| Found {
            address: std::net::SocketAddr::from(([10, 0, 0, last], 1)),
            weight: None,
        });
        let Outcome::Found(taken) = name.outcome(Answer::Found(addresses.collect(), Duration::ZERO), None) else {
            panic!("addresses were found");
        };
        let last_bytes: Vec<String> = taken.iter().map(|found| found.address.to_string()).collect();
        assert_eq!(taken.len(), 64);
        assert_eq!((&*last_bytes[0], &*last_bytes[63]), ("10.0.0.0:1", "10.0.0.63:1"));
    }
}
