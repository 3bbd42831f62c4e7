//! Facts of a running process, from `/proc` and the process CPU clock.

use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A process by its number.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    fn proc_path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn pid(self) -> Pid {
        Pid::from_raw(i32::try_from(self.0).expect("a process id fits an i32"))
    }

    /// Open descriptors.
    pub fn descriptors(self) -> usize {
        std::fs::read_dir(self.proc_path("fd")).map_or(0, Iterator::count)
    }

    /// Proportional set size in bytes, without the workers' receive buffers: what connections cost. The buffers are
    /// there once, whatever is connected; which of them are resident depends on what passed before. They are told by
    /// their mappings, the only ones that children do not inherit (flag `dc` of proc_pid_smaps(5)).
    pub fn memory(self) -> u64 {
        let text = std::fs::read_to_string(self.proc_path("smaps")).expect("the process lives");
        let (mut total, mut mapping) = (0, 0);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("Pss:") => mapping = words.next().and_then(|kib| kib.parse::<u64>().ok()).expect("in KiB"),
                Some("VmFlags:") if !words.any(|flag| flag == "dc") => total += mapping * 1024,
                _ => {}
            }
        }
        assert!(total > 0, "smaps has lines Pss and VmFlags");
        total
    }

    /// Threads whose name starts so (`iou-wrk`: the kernel's own workers).
    pub fn threads_named(self, start: &str) -> usize {
        let Ok(tasks) = std::fs::read_dir(self.proc_path("task")) else {
            return 0;
        };
        tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .filter(|name| name.starts_with(start))
            .count()
    }

    /// CPU time of all threads, ended ones included.
    pub fn cpu_time(self) -> Duration {
        let clock = clock_getcpuclockid(self.pid()).expect("the process lives");
        clock_gettime(clock).expect("the process lives").into()
    }

    /// The share of one core that the process takes over the next `span`, in percent.
    pub fn cpu_percent_over(self, span: Duration) -> f64 {
        let (began, cpu) = (Instant::now(), self.cpu_time());
        std::thread::sleep(span);
        (self.cpu_time() - cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0
    }

    /// Sends a signal.
    pub fn signal(self, signal: Signal) {
        kill(self.pid(), signal).expect("the process lives");
    }
}

/// Looks every few milliseconds until `found` gives something; `None` after `limit`.
pub fn wait_for<T>(limit: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(value) = found() {
            return Some(value);
        }
        if began.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
