//! The bounded queue between whoever logs and the thread that writes: a stuck reader of the log costs lines, never time.
//!
//! Workers log on the packet path, so `LineWriter` never waits: a line that finds the queue full is counted and gone.
//! Absent on purpose: formatting and levels (`logs`).

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most; with [`LINE_BYTES_MAX`] this bounds the memory that logging can hold.
pub const LINES_MAX: usize = 4096;
/// A longer line is cut here.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

enum Entry {
    Line(Box<[u8]>),
    /// Whole lines of somebody who waits for the answer.
    Lines(Vec<u8>, SyncSender<Answer>),
    /// Answered when everything before it was written.
    Flush(SyncSender<()>),
}

/// The bytes of [`LineQueue::write_through`] again, to be used for the next ones, and what became of them.
type Answer = (Vec<u8>, Result<(), WriteFailure>);

/// Why not everything was written.
#[derive(Debug)]
pub(crate) struct WriteFailure {
    /// Bytes that were.
    pub(crate) written: usize,
    pub(crate) error: io::Error,
}

/// Starts the writing thread. `sink` may block for as long as it likes.
pub(super) fn start(sink: Box<dyn Write + Send>, lines_max: usize) -> io::Result<LineQueue> {
    let (sender, receiver) = sync_channel(lines_max);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = dropped.clone();
    thread::Builder::new()
        .name("ringway-log".to_owned())
        .spawn(move || write_lines(sink, &receiver, &counted))?;
    Ok(LineQueue { sender, dropped })
}

/// The writing end; makes one [`LineWriter`] per event.
#[derive(Clone, Debug)]
pub struct LineQueue {
    sender: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl LineQueue {
    /// Lines dropped so far.
    pub fn dropped(&self) -> &Arc<AtomicU64> {
        &self.dropped
    }

    /// Writes whole lines behind those that were logged before and gives the bytes back. Waits for the reader, as long
    /// as it takes: never for whoever serves connections.
    pub(crate) fn write_through(&self, lines: Vec<u8>) -> Answer {
        let gone = || {
            let error = io::ErrorKind::BrokenPipe.into();
            Err(WriteFailure { written: 0, error })
        };
        let (answer, answered) = sync_channel(1);
        match self.sender.send(Entry::Lines(lines, answer)) {
            Ok(()) => answered.recv().unwrap_or_else(|_| (Vec::new(), gone())),
            Err(_) => (Vec::new(), gone()),
        }
    }

    /// Waits until all lines logged before were written, or `timeout` is over. `true` if they were.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let (done, written) = sync_channel(1);
        let mut entry = Entry::Flush(done);
        loop {
            match self.sender.try_send(entry) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(_)) if Instant::now() >= deadline => return false,
                Err(TrySendError::Full(back)) => entry = back,
            }
            thread::sleep(Duration::from_millis(1));
        }
        written.recv_timeout(deadline.saturating_duration_since(Instant::now())) != Err(RecvTimeoutError::Timeout)
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// Queues each write as one line.
#[derive(Debug)]
pub struct LineWriter<'a>(&'a LineQueue);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let kept = if line.len() <= LINE_BYTES_MAX {
            line.into()
        } else {
            cut(line)
        };
        if self.0.sender.try_send(Entry::Line(kept)).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A cut JSON line would not parse, so what is kept of it is a line that says so.
fn cut(line: &[u8]) -> Box<[u8]> {
    let json = line.first() == Some(&b'{');
    let text = format!(
        "a log line of {} bytes was left out; the limit is {LINE_BYTES_MAX}",
        line.len()
    );
    let kept = if json {
        format!("{{\"level\":\"WARN\",\"message\":\"{text}\"}}\n")
    } else {
        format!("{text}\n")
    };
    kept.into_bytes().into()
}

/// Writes until everything is written or the kernel refuses.
pub(crate) fn write_counted(sink: &mut impl Write, bytes: &[u8]) -> Result<(), WriteFailure> {
    let mut written = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                return Err(WriteFailure { written, error });
            }
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(WriteFailure { written, error }),
        }
    }
    Ok(())
}

fn write_lines(mut sink: Box<dyn Write + Send>, queue: &Receiver<Entry>, dropped: &AtomicU64) {
    let mut told = 0;
    loop {
        let entry = match queue.try_recv() {
            Ok(entry) => entry,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                let _ = sink.flush();
                let lost = dropped.load(Ordering::Relaxed);
                if lost > told {
                    tracing::warn!(
                        lines = lost - told,
                        "log lines were dropped: their reader was too slow or gone"
                    );
                    told = lost;
                }
                match queue.recv() {
                    Ok(entry) => entry,
                    Err(_) => return,
                }
            }
        };
        match entry {
            Entry::Line(line) => {
                if sink.write_all(&line).is_err() {
                    // Counted, but not told about: telling would go the same way.
                    dropped.fetch_add(1, Ordering::Relaxed);
                    told += 1;
                }
            }
            Entry::Lines(lines, answer) => {
                let outcome = write_counted(&mut sink, &lines);
                let _ = answer.try_send((lines, outcome));
            }
            Entry::Flush(done) => {
                let _ = sink.flush();
                let _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// Tells of each line and waits for leave before it returns, as a terminal that was stopped would.
    struct Stuck {
        written: Sender<Vec<u8>>,
        leave: Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.written
                .send(line.to_vec())
                .map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.leave.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stuck(lines_max: usize) -> (LineQueue, Receiver<Vec<u8>>, Sender<()>) {
        let (written, seen) = channel();
        let (leave_given, leave) = channel();
        (
            start(Box::new(Stuck { written, leave }), lines_max).expect("starts"),
            seen,
            leave_given,
        )
    }

    fn log(queue: &LineQueue, line: &str) {
        queue.make_writer().write_all(line.as_bytes()).expect("never fails");
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_no_time() {
        let (queue, seen, leave) = stuck(2);
        log(&queue, "first\n");
        assert_eq!(seen.recv().expect("taken"), b"first\n"); // now the sink is stuck and the queue empty
        for line in ["second\n", "third\n", "fourth\n", "fifth\n"] {
            log(&queue, line);
        }
        assert_eq!(queue.dropped().load(Ordering::Relaxed), 2);
        for _ in 0..3 {
            leave.send(()).expect("waits");
        }
        assert_eq!(seen.recv().expect("written"), b"second\n");
        assert_eq!(seen.recv().expect("written"), b"third\n");
        assert!(queue.flush(Duration::from_secs(10)));
    }

    #[test]
    fn flush_gives_up_on_a_stuck_reader() {
        let (queue, seen, _leave) = stuck(1);
        log(&queue, "first\n");
        seen.recv().expect("taken");
        assert!(
            !queue.flush(Duration::from_millis(5)),
            "accepted by the queue, never written"
        );
        assert!(!queue.flush(Duration::from_millis(5)), "not even accepted");
    }

    #[test]
    fn a_reader_that_is_gone_is_counted_and_harmless() {
        let (queue, seen, leave) = stuck(4);
        drop((seen, leave));
        log(&queue, "lost\n");
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(queue.dropped().load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_line_over_the_limit_is_replaced_by_a_note() {
        let (queue, seen, _leave) = stuck(4);
        log(&queue, &format!("{{\"message\":\"{}\"}}\n", "x".repeat(LINE_BYTES_MAX)));
        let line = seen.recv().expect("written");
        let note: serde_json::Value = serde_json::from_slice(&line).expect("still JSON");
        assert_eq!(
            note["message"],
            "a log line of 8207 bytes was left out; the limit is 8192"
        );
    }
}
