//! The bounded buffer between workers and the writing thread: what does not fit is counted and gone, nobody waits.
//!
//! The writer takes everything at once by putting its own empty batch in place. It is woken only when it sleeps without
//! a limit or when the buffer is half full; under load it comes by itself. Absent on purpose: formatting, files.

use super::RECORDS_MAX;
use ringway_proxy::observer::SessionRecord;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// From here on the writer is woken although it has just written.
const CROWDED: usize = RECORDS_MAX / 2;

/// Records with the moments of their ends.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<SessionRecord>,
    /// Ascending by `end`; the last one ends where `records` does.
    pub(super) marks: Vec<Mark>,
}

/// The moment of all records from the previous mark to this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Position behind its last record.
    pub(super) end: usize,
    /// Since 1970-01-01T00:00:00Z.
    pub(super) millis: u64,
}

impl Batch {
    /// Room for everything, so that nothing grows under the lock. Pages that are never used cost nothing.
    pub(super) fn new() -> Self {
        Self {
            records: Vec::with_capacity(RECORDS_MAX),
            marks: Vec::with_capacity(RECORDS_MAX),
        }
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.marks.clear();
    }
}

/// What workers and the writer share.
#[derive(Debug)]
pub(super) struct Buffer {
    waiting: Mutex<Waiting>,
    /// For the writer.
    wake: Condvar,
    /// For whoever flushes.
    settled: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    batch: Batch,
    writer: Writer,
    /// Somebody flushes, or the log is closed: the writer does not sleep now.
    urgent: bool,
    /// Nobody can write records any more.
    closed: bool,
    /// Records that found room, since the start.
    accepted: u64,
    /// How many of them were written or given up.
    settled: u64,
}

/// What the writing thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// Writes, or was woken to do so.
    Busy,
    /// Has just written, and comes back soon by itself.
    Lingering,
    /// Found nothing, and sleeps until it is woken.
    Asleep,
}

/// What `Buffer::take` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Records, or none if somebody flushes or the time was over.
    Batch,
    /// There are no records and there will never be any.
    Closed,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                batch: Batch::new(),
                writer: Writer::Busy,
                urgent: false,
                closed: false,
                accepted: 0,
                settled: 0,
            }),
            wake: Condvar::new(),
            settled: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn count_dropped(&self, records: usize) {
        self.dropped.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Takes as many records as there is room for, and counts and drops the others. All ended at `millis`.
    pub(super) fn put(&self, records: &mut Vec<SessionRecord>, millis: u64) {
        let wakes = self.lock().put(records, millis);
        if wakes {
            self.wake.notify_one();
        }
        if !records.is_empty() {
            self.count_dropped(records.len());
            records.clear();
        }
    }

    /// Puts everything that waits into `batch`, which is empty. First waits for `linger`, so that records come in
    /// large batches, and then for something to take, at most for `limit`.
    pub(super) fn take(&self, batch: &mut Batch, linger: Duration, limit: Option<Duration>) -> Taken {
        let mut waiting = self.lock();
        if !linger.is_zero() {
            waiting.writer = Writer::Lingering;
            let stays = |waiting: &mut Waiting| !waiting.urgent && waiting.batch.records.len() < CROWDED;
            waiting = self.sleep(waiting, linger, stays);
        }
        waiting.writer = Writer::Asleep;
        let stays = |waiting: &mut Waiting| !waiting.urgent && waiting.batch.records.is_empty();
        waiting = match limit {
            Some(limit) => self.sleep(waiting, limit, stays),
            None => {
                let woken = self.wake.wait_while(waiting, stays);
                woken.unwrap_or_else(PoisonError::into_inner)
            }
        };
        waiting.writer = Writer::Busy;
        // Closed stays urgent, so that nothing sleeps any more.
        waiting.urgent = waiting.closed;
        mem::swap(&mut waiting.batch, batch);
        if waiting.closed && batch.records.is_empty() {
            Taken::Closed
        } else {
            Taken::Batch
        }
    }

    /// For the writer while it cannot write: sleeps, but not when somebody flushes. `false`: closed, nobody waits for
    /// better times.
    pub(super) fn pause(&self, length: Duration) -> bool {
        let mut waiting = self.sleep(self.lock(), length, |waiting| !waiting.urgent);
        waiting.urgent = waiting.closed;
        !waiting.closed
    }

    fn sleep<'a>(
        &self,
        waiting: MutexGuard<'a, Waiting>,
        length: Duration,
        stays: impl FnMut(&mut Waiting) -> bool,
    ) -> MutexGuard<'a, Waiting> {
        let woken = self.wake.wait_timeout_while(waiting, length, stays);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Records of the batch that was taken last are done with.
    pub(super) fn settle(&self, records: usize) {
        self.lock().settled += records as u64;
        self.settled.notify_all();
    }

    /// Waits until everything that was accepted before is settled. `false`: it was not within `timeout`.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let mut waiting = self.lock();
        let goal = waiting.accepted;
        if waiting.settled >= goal {
            return true;
        }
        waiting.urgent = true;
        self.wake.notify_one();
        let stays = |waiting: &mut Waiting| waiting.settled < goal;
        let woken = self.settled.wait_timeout_while(waiting, timeout, stays);
        woken.unwrap_or_else(PoisonError::into_inner).0.settled >= goal
    }

    /// The writer writes what is left and ends.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.urgent = true;
        self.wake.notify_one();
    }
}

impl Waiting {
    /// Leaves behind what finds no room. Whether the writer must be woken.
    fn put(&mut self, records: &mut Vec<SessionRecord>, millis: u64) -> bool {
        let room = RECORDS_MAX - self.batch.records.len();
        let before = self.batch.records.len();
        if records.len() <= room {
            self.batch.records.append(records);
        } else {
            self.batch.records.extend(records.drain(..room));
        }
        let end = self.batch.records.len();
        if end > before {
            self.accepted += (end - before) as u64;
            self.batch.marks.push(Mark { end, millis });
        }
        let wakes = match self.writer {
            Writer::Busy => false,
            Writer::Lingering => end >= CROWDED,
            Writer::Asleep => true,
        };
        if wakes {
            // Once is enough.
            self.writer = Writer::Busy;
        }
        wakes
    }
}
