//! How many lookups of one setting are under way at once, and that slow ones do not hold up the others.
//!
//! A lookup starts in the quick lanes. If it lasts, it moves over to the patient ones while there is room; a name that
//! was slow last time starts there. So names behind a dead server soon share a few lanes among themselves, and the other
//! names of the same setting find the quick lanes free.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Lookups under way in the quick lanes.
const QUICK_MAX: usize = 48;
/// And in the patient ones.
const PATIENT_MAX: usize = 16;
/// Each lookup holds sockets: together no more than what servers and descriptors bear.
const _: () = assert!(QUICK_MAX + PATIENT_MAX == 64);
/// A lookup that lasts longer than this is slow.
pub(super) const QUICK_TIME: Duration = Duration::from_millis(500);

/// The lanes of one setting.
pub(super) struct Lanes {
    quick: Semaphore,
    patient: Semaphore,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            quick: Semaphore::new(QUICK_MAX),
            patient: Semaphore::new(PATIENT_MAX),
        }
    }

    /// Waits for a lane, then runs a lookup in it to its end; the lookup must bound its own time.
    pub(super) async fn run<T>(&self, was_slow: bool, lookup: impl Future<Output = T>) -> T {
        // The semaphores are never closed, so a permit is always got; without one the lookup would merely be unbounded.
        if was_slow {
            let _permit = self.patient.acquire().await;
            return lookup.await;
        }
        let permit = self.quick.acquire().await;
        let mut lookup = pin!(lookup);
        if let Ok(done) = timeout(QUICK_TIME, &mut lookup).await {
            return done;
        }
        let moved = self.patient.try_acquire();
        if moved.is_ok() {
            drop(permit);
            return lookup.await;
        }
        // No room: it stays where it is, and `permit` with it.
        lookup.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep};

    const LONG: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn no_more_than_64_at_once_and_all_get_their_turn() {
        let lanes = Arc::new(Lanes::new());
        let now = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let mut all = JoinSet::new();
        for number in 0..300 {
            let (lanes, now, most) = (Arc::clone(&lanes), Arc::clone(&now), Arc::clone(&most));
            all.spawn(async move {
                let lookup = async {
                    most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    sleep(LONG).await;
                    now.fetch_sub(1, Ordering::Relaxed);
                };
                lanes.run(number % 3 == 0, lookup).await;
            });
        }
        assert_eq!(all.join_all().await.len(), 300);
        assert_eq!(most.load(Ordering::Relaxed), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_were_slow_leave_the_quick_lanes_to_the_others() {
        let lanes = Arc::new(Lanes::new());
        let mut slow = JoinSet::new();
        for _ in 0..100 {
            let lanes = Arc::clone(&lanes);
            slow.spawn(async move { lanes.run(true, sleep(LONG)).await });
        }
        tokio::task::yield_now().await;
        let began = Instant::now();
        lanes.run(false, async {}).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_lasts_moves_over_and_frees_its_quick_lane() {
        let lanes = Arc::new(Lanes::new());
        let mut slow = JoinSet::new();
        for _ in 0..48 {
            let lanes = Arc::clone(&lanes);
            slow.spawn(async move { lanes.run(false, sleep(LONG)).await });
        }
        tokio::task::yield_now().await;
        let began = Instant::now();
        lanes.run(false, async {}).await;
        assert_eq!(began.elapsed(), Duration::from_millis(500));
    }
}
