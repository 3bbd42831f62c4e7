//! How much of its core a worker may use for what it could do without: whether there is time to spare.
//!
//! A worker that is idle anyway serves its streams faster by copying them: the bytes pass through its core's cache on
//! their way. One that is busy saves that time for others. This keeps the books: the part of the time that was used,
//! beyond or below [`SHARE`].

use std::time::Duration;

/// The part of its core, in per cent, that a worker uses up to the point where it starts to save.
pub const SHARE: u32 = 33;
/// Between two looks at the thread's clock.
pub const INTERVAL: Duration = Duration::from_millis(5);
/// What can be saved up, and what can be owed: an idle hour must not pay for a busy second, nor the other way round. The
/// way of working changes at either end only, a few times a second: full queues need a while to follow.
const MAX: i64 = Duration::from_millis(150).as_nanos() as i64;

/// The books of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spare {
    now: Duration,
    cpu_time: Duration,
    /// Nanoseconds used beyond the share; negative: saved up.
    owed: i64,
    /// As much is owed as may be; until as much is saved up.
    saves: bool,
}

impl Spare {
    /// Whether it is time for another look.
    pub fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.now) >= INTERVAL
    }

    /// What a look at the clock and at the thread's CPU time found, both since some fixed moment.
    pub fn note(&mut self, now: Duration, cpu_time: Duration) {
        let passed = now.saturating_sub(self.now).as_nanos() as i64;
        let used = cpu_time.saturating_sub(self.cpu_time).as_nanos() as i64;
        let beyond = used.saturating_sub((passed / 100).saturating_mul(i64::from(SHARE)));
        self.owed = self.owed.saturating_add(beyond).clamp(-MAX, MAX);
        if self.owed >= MAX {
            self.saves = true;
        } else if self.owed <= -MAX {
            self.saves = false;
        }
        self.now = now;
        self.cpu_time = cpu_time;
    }

    /// Whether there is time for more than what must be done.
    pub const fn is_left(&self) -> bool {
        !self.saves
    }
}
