//! The session log as its callers see it; `trouble` has what goes wrong around it.

mod trouble;

use super::*;
use crate::logs;
use ringway_core::backend::BackendState;
use ringway_core::model::{Address, BackendIndex, Listener, LogFormat, Pool, PoolIndex};
use ringway_core::reason::EndReason;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, mpsc};
use std::time::Instant;
use tracing::Dispatch;

/// Longest wait for anything that is bound to come.
const SOON: Duration = Duration::from_secs(20);

const QUICK: Pace = Pace {
    linger: Duration::from_millis(1),
    look: Duration::ZERO,
    pause_min: Duration::from_millis(1),
    pause_max: Duration::from_millis(1),
    tell: Duration::ZERO,
};

pub(super) fn names() -> Names {
    Names {
        listeners: vec!["web".into(), "two words".into()],
        pools: vec!["app".into(), "a\"b".into()],
    }
}

pub(super) fn backend(label: &str) -> Arc<BackendState> {
    let address = Address::Inet("10.0.0.11:5432".parse().expect("an address"));
    Arc::new(BackendState::new(BackendIndex(0), address, label.into(), None, 1))
}

pub(super) fn record() -> SessionRecord {
    SessionRecord {
        client: Some(ringway_runtime::Address::Inet(
            "10.1.2.3:4567".parse().expect("an address"),
        )),
        seldom: None,
        listener: 0,
        pool: Some(PoolIndex(0)),
        backend: Some(backend("10.0.0.11:5432")),
        tries: 1,
        connect_time: Some(Duration::from_micros(412)),
        bytes_from_client: 517,
        bytes_from_backend: u64::MAX,
        datagrams: None,
        duration: Duration::from_micros(3_723_004_050),
        reason: EndReason::Finished,
    }
}

/// Told from others by its number.
fn numbered(number: u64, backend: &Arc<BackendState>) -> SessionRecord {
    SessionRecord {
        client: Some(ringway_runtime::Address::Inet(
            "10.1.2.3:4567".parse().expect("an address"),
        )),
        seldom: None,
        listener: 0,
        pool: Some(PoolIndex(0)),
        backend: Some(backend.clone()),
        tries: 1,
        connect_time: Some(Duration::from_micros(412)),
        bytes_from_client: number,
        bytes_from_backend: 120_000,
        datagrams: None,
        duration: Duration::from_micros(1_234),
        reason: EndReason::Finished,
    }
}

/// Writes records with these numbers, ten at a time as a worker does.
fn write(log: &SessionLog, numbers: std::ops::Range<u64>) {
    let backend = backend("10.0.0.11:5432");
    let mut records = Vec::new();
    for number in numbers {
        records.push(numbered(number, &backend));
        if records.len() == 10 {
            log.write(&mut records);
            assert!(records.is_empty(), "all are taken");
        }
    }
    log.write(&mut records);
}

/// The number in a JSON line, which must be whole.
fn number(line: &str) -> u64 {
    let parsed: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    parsed["bytes_in"].as_u64().expect("a number")
}

fn numbers(text: &str) -> Vec<u64> {
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is ended");
    text.lines().map(number).collect()
}

/// What was written, and how much of it fits.
#[derive(Clone, Default)]
struct Sink(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    /// Bytes that still fit; `None`: all.
    room: Option<usize>,
}

impl Sink {
    fn with_room(bytes: usize) -> Self {
        let sink = Self::default();
        sink.0.0.lock().expect("not poisoned").room = Some(bytes);
        sink
    }

    fn make_room(&self) {
        self.0.0.lock().expect("not poisoned").room = None;
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().expect("not poisoned").bytes.clone()).expect("UTF-8")
    }

    /// Waits until this was written.
    fn await_text(&self, text: &str) {
        self.await_that(text, |written| written.contains(text));
    }

    /// Waits until it was told of this many lost lines in all.
    fn await_lost(&self, lines: u64) {
        self.await_that(&format!("{lines} lost lines"), |written| {
            let told = written
                .split(" lines=")
                .skip(1)
                .map(|rest| rest.lines().next().expect("a line"));
            told.map(|told| told.parse::<u64>().expect("a number")).sum::<u64>() == lines
        });
    }

    fn await_that(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let (written, changed) = &*self.0;
        let lacks = |written: &mut Written| !is_so(&String::from_utf8_lossy(&written.bytes));
        let guard = written.lock().expect("not poisoned");
        let (guard, waited) = changed.wait_timeout_while(guard, SOON, lacks).expect("not poisoned");
        let text = String::from_utf8_lossy(&guard.bytes);
        assert!(!waited.timed_out(), "{what:?} is not in {text}");
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.0.lock().expect("not poisoned");
        let count = bytes.len().min(written.room.unwrap_or(usize::MAX));
        if count == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        written.room = written.room.map(|room| room - count);
        written.bytes.extend_from_slice(&bytes[..count]);
        self.0.1.notify_all();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An ordinary log whose lines can be looked at, and what makes events go there.
fn ordinary() -> (Sink, Logs, Dispatch) {
    let sink = Sink::default();
    let (logs, told) = logs::start_on(Box::new(sink.clone()));
    (sink, logs, told)
}

fn start(pace: Pace, to: LogTarget, logs: &Logs, told: &Dispatch) -> Result<SessionLog, String> {
    let settings = Settings {
        to,
        format: LogFormat::Json,
    };
    tracing::dispatcher::with_default(told, || SessionLog::start_at(pace, &settings, &names(), logs))
}

/// A folder of the test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringway-session-log-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("can be made");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("can be read")
}

#[test]
fn lines_are_appended_to_a_file() {
    let (_, logs, told) = ordinary();
    let folder = Folder::new();
    let path = folder.path("log");
    fs::write(&path, "{\"bytes_in\":100}\n{\"bytes_").expect("written");
    let log = start(QUICK, LogTarget::File(path.clone()), &logs, &told).expect("starts");
    write(&log, 0..25);
    assert!(log.flush(SOON));
    // A line that was cut by an earlier end of the process does not spoil the next one.
    let text = read(&path);
    let rest = text.strip_prefix("{\"bytes_in\":100}\n{\"bytes_\n").expect("appended");
    assert_eq!(numbers(rest), (0..25).collect::<Vec<_>>());
    assert_eq!(log.dropped(), 0);
}

#[test]
fn the_time_is_that_of_the_end() {
    let (_, logs, told) = ordinary();
    let folder = Folder::new();
    let path = folder.path("log");
    let log = start(QUICK, LogTarget::File(path.clone()), &logs, &told).expect("starts");
    let millis = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_millis() as u64
    };
    let before = millis();
    write(&log, 0..1);
    let after = millis();
    assert!(log.flush(SOON));
    let line: serde_json::Value = serde_json::from_str(&read(&path)).expect("JSON");
    let possible: Vec<String> = (before..=after)
        .map(|millis| String::from_utf8(stamp::Stamp::new().at(millis).to_vec()).expect("ASCII"))
        .collect();
    let time = line["time"].as_str().expect("a string").to_owned();
    assert!(possible.contains(&time), "{time} is none of {possible:?}");
}

#[test]
fn a_file_that_cannot_be_opened_is_a_sentence() {
    let (_, logs, told) = ordinary();
    let folder = Folder::new();
    let path = folder.path("missing/log");
    let sentence = start(QUICK, LogTarget::File(path.clone()), &logs, &told).expect_err("refused");
    assert_eq!(
        sentence,
        format!(
            "the session log {} cannot be opened for appending: No such file or directory (os error 2); its folder \
             must exist and this user must be allowed to write there",
            path.display()
        )
    );
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let (_, logs, told) = ordinary();
    let folder = Folder::new();
    let (path, moved) = (folder.path("log"), folder.path("log.1"));
    let log = start(QUICK, LogTarget::File(path.clone()), &logs, &told).expect("starts");
    write(&log, 0..10);
    assert!(log.flush(SOON));
    fs::rename(&path, &moved).expect("moved");
    write(&log, 10..20);
    assert!(log.flush(SOON));
    // As logrotate's `create` does: moved, and another one put there.
    fs::rename(&path, folder.path("log.2")).expect("moved");
    fs::write(&path, "").expect("made");
    write(&log, 20..30);
    assert!(log.flush(SOON));
    assert_eq!(numbers(&read(&moved)), (0..10).collect::<Vec<_>>());
    assert_eq!(numbers(&read(&folder.path("log.2"))), (10..20).collect::<Vec<_>>());
    assert_eq!(numbers(&read(&path)), (20..30).collect::<Vec<_>>());
}

#[test]
fn many_threads_lose_nothing_while_there_is_room() {
    const THREADS: u64 = 8;
    const EACH: u64 = 2_000;
    const _: () = assert!(THREADS * EACH <= RECORDS_MAX as u64);
    let (_, logs, told) = ordinary();
    let folder = Folder::new();
    let path = folder.path("log");
    let log = start(QUICK, LogTarget::File(path.clone()), &logs, &told).expect("starts");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = log.clone();
            scope.spawn(move || write(&log, thread * EACH..(thread + 1) * EACH));
        }
    });
    assert!(log.flush(SOON));
    let mut seen = numbers(&read(&path));
    seen.sort_unstable();
    assert_eq!(seen, (0..THREADS * EACH).collect::<Vec<_>>());
    assert_eq!(log.dropped(), 0);
}

#[test]
fn flush_and_the_half_full_buffer_wake_a_writer_that_lingers() {
    let (_, logs, told) = ordinary();
    let folder = Folder::new();
    let path = folder.path("log");
    // Without being woken it would come back long after the test has failed.
    let pace = Pace {
        linger: Duration::from_secs(3600),
        ..QUICK
    };
    let log = start(pace, LogTarget::File(path.clone()), &logs, &told).expect("starts");
    for turn in 0..3 {
        write(&log, turn * 10..turn * 10 + 10);
        assert!(log.flush(SOON));
    }
    let half = RECORDS_MAX as u64 / 2;
    write(&log, 30..30 + half);
    let deadline = Instant::now() + SOON;
    while read(&path).lines().count() < 30 + half as usize {
        assert!(Instant::now() < deadline, "the writer was not woken");
        thread::yield_now();
    }
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_writer_that_sleeps_is_woken_by_one_record() {
    let (_, logs, told) = ordinary();
    let (reader, pipe) = io::pipe().expect("a pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    let log = start(QUICK, LogTarget::File(path), &logs, &told).expect("starts");
    let (seen, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).lines() {
            let _ = seen.send(number(&line.expect("readable")));
        }
    });
    for turn in 0..20 {
        write(&log, turn..turn + 1);
        assert_eq!(lines.recv_timeout(SOON), Ok(turn));
    }
}

#[test]
fn what_waits_is_written_when_the_log_is_closed() {
    let (reader, pipe) = io::pipe().expect("a pipe");
    let (_, logs, told) = ordinary();
    let path = PathBuf::from(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    let log = start(QUICK, LogTarget::File(path), &logs, &told).expect("starts");
    drop(pipe);
    write(&log, 0..10);
    drop(log);
    // The end of the pipe comes when the writing thread has ended.
    let lines: Vec<String> = BufReader::new(reader)
        .lines()
        .map(|line| line.expect("readable"))
        .collect();
    assert_eq!(
        lines.iter().map(|line| number(line)).collect::<Vec<_>>(),
        (0..10).collect::<Vec<_>>()
    );
}

#[test]
fn names_are_taken_by_position() {
    let anywhere = || Address::Inet("127.0.0.1:1".parse().expect("an address"));
    let listener = |name: &str, pool| Listener::new(name, anywhere(), PoolIndex(pool));
    let pool = |name: &str| Pool::new(name, Vec::new());
    let model = Model::new(
        vec![listener("first", 1), listener("second", 0)],
        vec![pool("red"), pool("blue"), pool("green")],
    );
    let names = Names::from(&model);
    let texts = |names: &[Arc<str>]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(texts(&names.listeners), ["first", "second"]);
    assert_eq!(texts(&names.pools), ["red", "blue", "green"]);
}

/// Prints what a record costs; tells only of orders of magnitude when it is not built for speed.
#[test]
fn the_price_of_a_record() {
    const RECORDS: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let (_, logs, told) = ordinary();
    let log = start(Pace::PRODUCT, LogTarget::File("/dev/null".into()), &logs, &told).expect("starts");
    let backend = backend("10.0.0.11:5432");
    let mut writing = Duration::ZERO;
    let mut waiting = Duration::ZERO;
    let mut records = Vec::new();
    for number in 0..RECORDS {
        records.push(numbered(number, &backend));
        if records.len() == 10 {
            let began = Instant::now();
            log.write(&mut records);
            writing += began.elapsed();
        }
        if number % 8_000 == 7_999 {
            let began = Instant::now();
            assert!(log.flush(SOON));
            waiting += began.elapsed();
        }
    }
    assert!(log.flush(SOON));
    assert_eq!(log.dropped(), 0);
    let each = |time: Duration| time.as_nanos() as u64 / RECORDS;
    println!(
        "per record: {} ns in the worker, {} ns in the writer",
        each(writing),
        each(waiting)
    );
}
