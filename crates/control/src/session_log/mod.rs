//! One line per finished session, to a file or to standard error. docs/session-log.md tells what a line says.
//!
//! Workers put records into a bounded buffer and go on at once; one thread makes lines of them and writes. When it
//! cannot keep up, lines are dropped and counted. Owns that thread; never makes a worker wait, and never writes what a
//! client sent.
//!
//! The moment of an end is read by the worker, once for all that ended in one turn: a read of the clock costs less than
//! a line, and a reader that is stuck does not shift the time of what waits for it.

mod buffer;
mod escape;
mod line;
mod stamp;
mod target;
mod words;
mod writer;

use crate::logs::Logs;
use buffer::Buffer;
use line::Lines;
use ringway_core::model::{LogTarget, Model, SessionLog as Settings};
use ringway_proxy::observer::SessionRecord;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use target::{LogFile, Target};
use writer::{Pace, Writer};

/// Records that wait at most, and as many again that are being written.
pub const RECORDS_MAX: usize = 16_384;

/// Takes records of finished sessions; clones write to the same log. When the last one is dropped, what waits is
/// written and the thread ends.
#[derive(Clone)]
pub struct SessionLog(Arc<Handle>);

struct Handle(Arc<Buffer>);

/// Names of listeners and pools by position, taken from the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    listeners: Vec<Arc<str>>,
    pools: Vec<Arc<str>>,
}

impl From<&Model> for Names {
    fn from(model: &Model) -> Self {
        Self {
            listeners: model.listeners.iter().map(|listener| listener.name.clone()).collect(),
            pools: model.pools.iter().map(|pool| pool.name.clone()).collect(),
        }
    }
}

impl SessionLog {
    /// Starts the writing thread. The error is a whole sentence.
    pub fn start(settings: &Settings, names: Names, logs: &Logs) -> Result<Self, String> {
        Self::start_at(Pace::PRODUCT, settings, &names, logs)
    }

    fn start_at(pace: Pace, settings: &Settings, names: &Names, logs: &Logs) -> Result<Self, String> {
        let (target, name) = match &settings.to {
            LogTarget::Stderr => (Target::log(logs.queue()), "stderr".to_owned()),
            LogTarget::File(path) => {
                let file = LogFile::open(path).map_err(|error| {
                    format!(
                        "the session log {} cannot be opened for appending: {error}; its folder must exist and this \
                         user must be allowed to write there",
                        path.display()
                    )
                })?;
                (Target::File(file), path.display().to_string())
            }
        };
        Self::start_on(pace, target, name, Lines::new(settings.format, names))
    }

    fn start_on(pace: Pace, target: Target, name: String, lines: Lines) -> Result<Self, String> {
        let buffer = Arc::new(Buffer::new());
        let writer = Writer::new(buffer.clone(), lines, target, name, pace);
        // What it tells goes to whoever hears of us now, in tests too.
        let told = tracing::dispatcher::get_default(Clone::clone);
        thread::Builder::new()
            .name("ringway-session".to_owned())
            .spawn(move || tracing::dispatcher::with_default(&told, || writer.run()))
            .map_err(|error| format!("the thread that writes the session log cannot be started: {error}"))?;
        Ok(Self(Arc::new(Handle(buffer))))
    }

    /// Takes all records, as ended now; those that do not fit are counted and gone. Never waits longer than for a short
    /// lock.
    pub fn write(&self, records: &mut Vec<SessionRecord>) {
        if records.is_empty() {
            return;
        }
        // A clock before 1970 is not worth an error.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = since.as_secs().saturating_mul(1000) + u64::from(since.subsec_millis());
        self.0.0.put(records, millis);
    }

    /// Records that were dropped so far; a metric.
    pub fn dropped(&self) -> u64 {
        self.0.0.dropped()
    }

    /// Waits until everything that was taken before is written, or `timeout` is over. `true` if it is. For the end of
    /// the process, before the ordinary log is flushed: what is told of lost lines goes there.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.0.flush(timeout)
    }
}

impl fmt::Debug for SessionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLog")
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
