//! Readers that are stuck, disks that are full, lines that are cut.

use super::*;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

#[test]
fn a_file_that_cannot_be_opened_anew_stays_in_use() {
    let (said, logs, told) = ordinary();
    let folder = Folder::new();
    let inner = folder.path("inner");
    fs::create_dir(&inner).expect("made");
    let log = start(QUICK, LogTarget::File(inner.join("log")), &logs, &told).expect("starts");
    fs::rename(&inner, folder.path("elsewhere")).expect("moved");
    write(&log, 0..10);
    assert!(log.flush(SOON));
    assert_eq!(
        numbers(&read(&folder.path("elsewhere/log"))),
        (0..10).collect::<Vec<_>>()
    );
    said.await_text("was moved away and cannot be opened anew");
}

#[test]
fn a_pipe_that_nobody_reads_costs_lines_and_no_time() {
    const RECORDS: u64 = 100_000;
    let (said, logs, told) = ordinary();
    let (reader, pipe) = io::pipe().expect("a pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    let log = start(QUICK, LogTarget::File(path), &logs, &told).expect("starts");
    let began = Instant::now();
    write(&log, 0..RECORDS);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let dropped = log.dropped();
    // A pipe holds 64 KiB, which are fewer than a thousand lines.
    assert!(dropped >= RECORDS - 2 * RECORDS_MAX as u64 - 1000, "{dropped}");
    assert!(!log.flush(Duration::from_millis(5)), "nobody reads");

    let mut lines = BufReader::new(reader).lines();
    let seen: Vec<u64> = (dropped..RECORDS)
        .map(|_| number(&lines.next().expect("a line").expect("readable")))
        .collect();
    assert!(seen.is_sorted_by(|a, b| a < b), "whole, in order and once");
    assert!(log.flush(SOON));
    assert_eq!(log.dropped(), dropped);
    said.await_text("what they are written to was too slow, full or stuck");
    said.await_lost(dropped);
}

#[test]
fn a_full_disk_counts_and_says_so_and_what_waits_is_written_later() {
    const RECORDS: u64 = 50_000;
    let (said, logs, told) = ordinary();
    let folder = Folder::new();
    let path = folder.path("log");
    std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
    let log = start(QUICK, LogTarget::File(path.clone()), &logs, &told).expect("starts");
    write(&log, 0..RECORDS);
    said.await_text("the session log cannot be written; its lines wait");
    said.await_text("No space left on device");
    assert!(!log.flush(Duration::from_millis(5)));
    let dropped = log.dropped();
    assert!(dropped >= RECORDS - 2 * RECORDS_MAX as u64, "{dropped}");

    fs::write(folder.path("roomy"), "").expect("made");
    std::os::unix::fs::symlink(folder.path("roomy"), folder.path("other")).expect("linked");
    fs::rename(folder.path("other"), &path).expect("replaced");
    assert!(log.flush(SOON));
    assert_eq!(numbers(&read(&path)).len() as u64, RECORDS - dropped);
    said.await_text("the session log is written again");
    said.await_lost(dropped);
}

#[test]
fn what_a_full_disk_holds_back_is_lost_and_counted_when_the_log_is_closed() {
    let (said, logs, told) = ordinary();
    let log = start(QUICK, LogTarget::File("/dev/full".into()), &logs, &told).expect("starts");
    write(&log, 0..30);
    drop(log);
    said.await_text("were lost: what they are written to");
    said.await_lost(30);
}

#[test]
fn on_standard_error_lines_stand_whole_among_the_others() {
    let (said, logs, told) = ordinary();
    let log = start(QUICK, LogTarget::Stderr, &logs, &told).expect("starts");
    thread::scope(|scope| {
        scope.spawn(|| write(&log, 0..5_000));
        scope.spawn(|| {
            tracing::dispatcher::with_default(&told, || (0..2_000).for_each(|turn| tracing::info!(turn, "ordinary")));
        });
    });
    assert!(log.flush(SOON));
    logs.flush();
    let text = said.text();
    let (ours, others): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('{'));
    let ours: Vec<u64> = ours.into_iter().map(number).collect();
    assert_eq!(ours, (0..5_000).collect::<Vec<_>>());
    assert!(!others.is_empty());
    for line in others {
        assert!(
            line.contains("ordinary turn=") || line.contains("log lines were dropped"),
            "{line}"
        );
    }
}

#[test]
fn on_standard_error_a_line_that_was_cut_comes_again_on_a_line_of_its_own() {
    // Room for one line and a part of the second; a line has more than 200 bytes.
    let sink = Sink::with_room(400);
    let (logs, _) = logs::start_on(Box::new(sink.clone()));
    let (said, _, told) = ordinary();
    let log = start(QUICK, LogTarget::Stderr, &logs, &told).expect("starts");
    write(&log, 0..3);
    said.await_text("the session log cannot be written");
    sink.make_room();
    assert!(log.flush(SOON));
    let text = sink.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    let whole: Vec<u64> = [lines[0], lines[2], lines[3]].into_iter().map(number).collect();
    assert_eq!(whole, [0, 1, 2]);
    assert!(lines[2].starts_with(lines[1]), "{text}");
}

#[test]
fn a_pipe_may_be_opened_before_its_reader() {
    let (_, logs, told) = ordinary();
    let (reader, pipe) = io::pipe().expect("a pipe");
    drop(reader);
    let path = PathBuf::from(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    let (opened, open) = mpsc::channel();
    let again = path.clone();
    thread::spawn(move || opened.send(start(QUICK, LogTarget::File(again), &logs, &told)));
    let log = open.recv_timeout(SOON).expect("does not wait").expect("starts");
    write(&log, 0..10);
    assert!(log.flush(SOON), "a pipe holds more than ten lines");
    let mut lines = BufReader::new(fs::File::open(path).expect("opens")).lines();
    for expected in 0..10 {
        assert_eq!(number(&lines.next().expect("a line").expect("readable")), expected);
    }
}

/// More than a socket holds.
const MANY: u64 = 4_000;

/// A log whose file takes what fits into a socket and then refuses in the middle of a line.
fn refusing(path: &Path, told: &Dispatch) -> (SessionLog, UnixStream) {
    let (reader, socket) = UnixStream::pair().expect("a pair");
    socket.set_nonblocking(true).expect("can be set");
    let file = LogFile::stand_in(path, OwnedFd::from(socket).into()).expect("the path leads somewhere");
    let lines = Lines::new(LogFormat::Json, &names());
    let start = || SessionLog::start_on(QUICK, Target::File(file), "log".to_owned(), lines);
    let log = tracing::dispatcher::with_default(told, start).expect("starts");
    (log, reader)
}

#[test]
fn in_a_file_a_line_that_was_cut_is_completed() {
    let (said, _, told) = ordinary();
    let folder = Folder::new();
    let path = folder.path("log");
    fs::write(&path, "").expect("made");
    let (log, reader) = refusing(&path, &told);
    write(&log, 0..MANY);
    said.await_text("the session log cannot be written");
    let seen: Vec<u64> = BufReader::new(reader)
        .lines()
        .take(MANY as usize)
        .map(|line| number(&line.expect("readable")))
        .collect();
    assert_eq!(seen, (0..MANY).collect::<Vec<_>>());
    assert!(log.flush(SOON));
}

#[test]
fn a_line_that_was_cut_comes_again_in_the_file_that_was_opened_anew() {
    let (said, _, told) = ordinary();
    let folder = Folder::new();
    let path = folder.path("log");
    fs::write(&path, "").expect("made");
    let (log, reader) = refusing(&path, &told);
    write(&log, 0..MANY);
    said.await_text("the session log cannot be written");
    fs::rename(&path, folder.path("log.1")).expect("moved");
    assert!(log.flush(SOON));
    let before = io::read_to_string(reader).expect("readable");
    let (whole, cut) = before.rsplit_once('\n').expect("lines");
    let mut seen: Vec<u64> = whole.lines().map(number).collect();
    let after = read(&path);
    assert!(after.starts_with(cut), "the line that was cut is the first one");
    seen.extend(numbers(&after));
    assert_eq!(seen, (0..MANY).collect::<Vec<_>>());
}
