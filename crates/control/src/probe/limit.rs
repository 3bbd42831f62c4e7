//! The time of one probe: when it began and when it must be over. Nothing that a backend sends extends it.

use super::ProbeError;
use super::words;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

pub(super) struct Limit {
    started: Instant,
    timeout: Duration,
}

impl Limit {
    pub(super) fn start(timeout: Duration) -> Self {
        Self {
            started: Instant::now(),
            timeout,
        }
    }

    pub(super) const fn beginning(&self) -> Instant {
        self.started
    }

    pub(super) fn deadline(&self) -> Instant {
        self.started + self.timeout
    }

    /// After this time from now, but not after the deadline.
    pub(super) fn at_most(&self, time: Duration) -> Instant {
        self.deadline().min(Instant::now() + time)
    }

    /// Since the start: "in 1.2 ms".
    pub(super) fn elapsed(&self) -> String {
        format!("in {:.1} ms", self.started.elapsed().as_secs_f64() * 1000.0)
    }

    /// The timeout as it is written in configurations: "within 2s".
    pub(super) fn words(&self) -> String {
        format!("within {}", words::duration(self.timeout))
    }

    /// What the work says, or that nothing came in time; `doing` completes the sentence.
    pub(super) async fn within<T>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<T, ProbeError>>,
    ) -> Result<T, ProbeError> {
        match timeout_at(self.deadline(), work).await {
            Ok(done) => done,
            Err(_) => Err(ProbeError::Failed(format!("no answer {}{doing}", self.words()))),
        }
    }
}
