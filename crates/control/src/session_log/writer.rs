//! The writing thread: takes what waits, makes lines of it, writes them; tells the ordinary log when that does not work.
//!
//! The only thread of the session log that may wait for a disk or for a reader. Nothing that it took is given up as long
//! as the log is open: it is tried again, and meanwhile the buffer decides what is lost.

use super::buffer::{Batch, Buffer, Taken};
use super::line::Lines;
use super::target::{Look, Target};
use crate::logs::WriteFailure;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long things take; other values make tests quick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From one write to the next, so that many lines share one.
    pub(super) linger: Duration,
    /// Between two looks at whether the file was moved away.
    pub(super) look: Duration,
    /// After the first failure; doubles with each further one.
    pub(super) pause_min: Duration,
    pub(super) pause_max: Duration,
    /// Between two lines about lost lines.
    pub(super) tell: Duration,
}

impl Pace {
    pub(super) const PRODUCT: Self = Self {
        linger: Duration::from_millis(50),
        look: Duration::from_secs(1),
        pause_min: Duration::from_millis(50),
        pause_max: Duration::from_secs(1),
        tell: Duration::from_secs(10),
    };
}

/// Bytes that are gathered before they are written: enough to make the call cheap, few enough to stay in the cache.
const WRITE_BYTES: usize = 64 * 1024;
/// Room for the line that goes beyond.
const LINE_BYTES_SPARE: usize = 4 * 1024;

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Writer {
    buffer: Arc<Buffer>,
    lines: Lines,
    target: Target,
    /// How the log calls it: a path, or `stderr`.
    name: String,
    pace: Pace,
    bytes: Vec<u8>,
    troubles: Troubles,
}

/// What the ordinary log was told of.
#[derive(Debug, Default)]
struct Troubles {
    /// The last write failed.
    failing: bool,
    /// The last look could not open the file anew.
    refused: bool,
    /// Lines of whose loss was told.
    lost: u64,
    told_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(buffer: Arc<Buffer>, lines: Lines, target: Target, name: String, pace: Pace) -> Self {
        Self {
            buffer,
            lines,
            target,
            name,
            pace,
            bytes: Vec::with_capacity(WRITE_BYTES + LINE_BYTES_SPARE),
            troubles: Troubles::default(),
        }
    }

    /// Until the log is closed.
    pub(super) fn run(mut self) {
        let mut batch = Batch::new();
        let mut linger = Duration::ZERO;
        loop {
            let limit = self.until_telling();
            if self.buffer.take(&mut batch, linger, limit) == Taken::Closed {
                self.tell_lost();
                return;
            }
            // Now there is room again, so the number is complete.
            self.tell_lost();
            let records = batch.records.len();
            // Whoever wakes us from sleep is served at once.
            linger = if records == 0 { Duration::ZERO } else { self.pace.linger };
            if !self.write(&batch) {
                // Some of them may have been written; nobody counts on the last number of a log that failed. What still
                // waits in the buffer is counted by the next turn.
                self.buffer.count_dropped(records);
            }
            batch.clear();
            self.buffer.settle(records);
        }
    }

    /// `false`: given up, because it does not work and the log was closed.
    fn write(&mut self, batch: &Batch) -> bool {
        let mut from = 0;
        for mark in &batch.marks {
            for record in &batch.records[from..mark.end] {
                self.lines.push(&mut self.bytes, record, mark.millis);
                if self.bytes.len() >= WRITE_BYTES && !self.deliver() {
                    return false;
                }
            }
            from = mark.end;
        }
        self.bytes.is_empty() || self.deliver()
    }

    /// Writes `bytes` and empties it, however long that takes.
    fn deliver(&mut self) -> bool {
        let mut from = 0;
        let mut pause = self.pace.pause_min;
        let delivered = loop {
            if self.look() {
                from = line_start(&self.bytes, from);
            }
            match self.target.write(&self.bytes[from..]) {
                Ok(()) => break true,
                Err(failure) => from = self.failed(from, &failure),
            }
            if !self.buffer.pause(pause) {
                break false;
            }
            pause = (pause * 2).min(self.pace.pause_max);
        };
        self.bytes.clear();
        if delivered && self.troubles.failing {
            self.troubles.failing = false;
            tracing::info!(to = self.name, "the session log is written again");
        }
        delivered
    }

    /// Where to go on.
    fn failed(&mut self, from: usize, failure: &WriteFailure) -> usize {
        if !self.troubles.failing {
            self.troubles.failing = true;
            tracing::warn!(
                to = self.name,
                error = %failure.error,
                "the session log cannot be written; its lines wait, and those that find no room are dropped"
            );
        }
        let reached = from + failure.written;
        let start = line_start(&self.bytes, reached);
        if start == reached || self.target.is_ours_alone() {
            return reached;
        }
        // The line in which it stopped comes again, whole, on a line of its own.
        self.bytes.insert(start, b'\n');
        start
    }

    /// Whether lines go to another file from now on.
    fn look(&mut self) -> bool {
        match self.target.look(self.pace.look) {
            Look::Same => false,
            Look::Reopened => {
                self.troubles.refused = false;
                true
            }
            Look::Refused(error) => {
                self.tell_refused(&error);
                false
            }
        }
    }

    fn tell_refused(&mut self, error: &io::Error) {
        if !self.troubles.refused {
            self.troubles.refused = true;
            tracing::warn!(
                to = self.name,
                %error,
                "the session log was moved away and cannot be opened anew; lines go on to the file that was moved"
            );
        }
    }

    fn tell_lost(&mut self) {
        let dropped = self.buffer.dropped();
        let early = self.troubles.told_at.is_some_and(|at| at.elapsed() < self.pace.tell);
        if dropped == self.troubles.lost || early {
            return;
        }
        tracing::warn!(
            to = self.name,
            lines = dropped - self.troubles.lost,
            "lines of the session log were lost: what they are written to was too slow, full or stuck"
        );
        self.troubles.lost = dropped;
        self.troubles.told_at = Some(Instant::now());
    }

    /// How long there may be nothing to do before a loss must be told of; `None`: there is none.
    fn until_telling(&self) -> Option<Duration> {
        if self.buffer.dropped() == self.troubles.lost {
            return None;
        }
        let told_at = self.troubles.told_at?;
        Some(self.pace.tell.saturating_sub(told_at.elapsed()))
    }
}

/// The start of the line that position `reached` lies in.
fn line_start(bytes: &[u8], reached: usize) -> usize {
    let end = bytes[..reached].iter().rposition(|&byte| byte == b'\n');
    end.map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::line_start;

    #[test]
    fn a_line_starts_behind_the_line_break_before_it() {
        let bytes = b"one\ntwo\nthree\n";
        for (reached, start) in [(0, 0), (3, 0), (4, 4), (5, 4), (7, 4), (8, 8), (13, 8), (14, 14)] {
            assert_eq!(line_start(bytes, reached), start, "{reached}");
        }
    }
}
