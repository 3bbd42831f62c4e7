//! What the machine says: cores, clocks of other processes, memory, versions.
//!
//! Reads only; the two exceptions are this process's own affinity and descriptor limit, which children inherit.

use crate::run::{stat_fields, tree};
use crate::{clock, tools};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use std::fs::read_to_string;
use std::process::Command;
use std::time::Duration;

/// Descriptors that a balancer needs for 4,000 idle connections, with pipes and reserve.
const DESCRIPTORS_MIN: u64 = 16_000;

/// Which core does what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    pub(super) balancer: usize,
    /// Load generators and backends.
    pub(super) load: usize,
}

/// The first two cores that we may use.
pub(super) fn two_cores() -> Result<Cores, String> {
    match affinity()?[..] {
        [balancer, load, ..] => Ok(Cores { balancer, load }),
        _ => Err("the benchmark needs two cores: one for the balancer, one for load and backends".to_owned()),
    }
}

/// The cores this thread may use, in ascending order.
pub(super) fn affinity() -> Result<Vec<usize>, String> {
    let set = sched_getaffinity(Pid::from_raw(0)).map_err(|e| format!("sched_getaffinity: {e}"))?;
    Ok((0..CpuSet::count())
        .filter(|&core| set.is_set(core).unwrap_or(false))
        .collect())
}

/// This thread, and what it starts from now on, may use these cores only.
pub(super) fn set_affinity(cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core).map_err(|e| format!("core {core}: {e}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|e| format!("sched_setaffinity {cores:?}: {e}"))
}

pub(super) fn pin_to(core: usize) -> Result<(), String> {
    set_affinity(&[core])
}

/// Raises the limit that children inherit as far as we may.
pub(super) fn raise_descriptor_limit() -> Result<(), String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| format!("getrlimit: {e}"))?;
    // Root may raise the hard limit; for others the first call fails and the hard limit is what there is.
    let wanted = hard.max(DESCRIPTORS_MIN);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(());
    }
    if hard < DESCRIPTORS_MIN {
        return Err(format!(
            "the descriptor limit is {hard}; 4,000 connections with two sockets each, pipes and reserve need \
             {DESCRIPTORS_MIN}: run `ulimit -n {DESCRIPTORS_MIN}` as root, or raise nofile in limits.conf"
        ));
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|e| format!("setrlimit: {e}"))
}

/// The descriptor limit that children inherit.
pub(super) fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// CPU time of a process and its descendants, ended threads and ended children included.
pub(super) fn cpu_time(root: u32) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    for pid in tree(root) {
        let raw = i32::try_from(pid).map_err(|_| format!("pid {pid} is out of range"))?;
        match clock_getcpuclockid(Pid::from_raw(raw)).and_then(|clock| clock.now()) {
            Ok(used) => total += Duration::from(used) + ended_children(pid),
            // Ended since the list was made; its parent counts it among its ended children.
            Err(_) if pid != root => {}
            Err(e) => return Err(format!("CPU clock of process {pid}: {e}")),
        }
    }
    Ok(total)
}

/// Fields 16 and 17 of proc(5), in ticks of 10 ms: children that ended and were waited for.
fn ended_children(pid: u32) -> Duration {
    const FIELD_16: usize = 13;
    let ticks: u64 = stat_fields(pid)
        .iter()
        .flat_map(|fields| fields.iter().skip(FIELD_16).take(2))
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    Duration::from_millis(10 * ticks)
}

/// Time that a core was not idle since boot: a check on [`cpu_time`], which does not see the kernel's own threads.
pub(super) fn core_busy(core: usize) -> Duration {
    let text = read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core}");
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name.as_str()))
        .unwrap_or_default();
    // user nice system idle iowait irq softirq steal; iowait counts as idle.
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|f| f.parse().ok())
        .collect();
    let busy: u64 = ticks
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != 3 && *i != 4)
        .map(|(_, t)| t)
        .sum();
    Duration::from_millis(10 * busy)
}

/// The share of the two cores that is in use now, seen over half a second, 0 to 1.
pub(super) fn share_in_use(cores: Cores) -> f64 {
    const LOOK: Duration = Duration::from_millis(500);
    let both = || core_busy(cores.balancer) + core_busy(cores.load);
    let before = both();
    std::thread::sleep(LOOK);
    both().saturating_sub(before).as_secs_f64() / (2.0 * LOOK.as_secs_f64())
}

/// Memory of a process and its descendants, bytes; pages shared between them count once.
pub(super) fn process_memory(root: u32) -> Result<u64, String> {
    let mut total = 0;
    for pid in tree(root) {
        let file = format!("/proc/{pid}/smaps_rollup");
        match read_to_string(&file) {
            Ok(text) => total += kib_line(&text, "Pss:").ok_or_else(|| format!("{file} has no Pss line"))? * 1024,
            // Ended since the list was made, or a zombie: no memory either way.
            Err(_) if pid != root => {}
            Err(e) => return Err(format!("{file}: {e}")),
        }
    }
    Ok(total)
}

/// Memory that the kernel holds for sockets, all programs together.
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelMemory {
    /// `Slab` of /proc/meminfo, bytes.
    pub(super) slab: u64,
    /// `TCP: mem` of /proc/net/sockstat, bytes: buffers and what is set aside for them.
    pub(super) tcp: u64,
}

pub(super) fn kernel_memory() -> Result<KernelMemory, String> {
    let meminfo = read_to_string("/proc/meminfo").map_err(|e| format!("/proc/meminfo: {e}"))?;
    let slab = kib_line(&meminfo, "Slab:").ok_or("/proc/meminfo has no Slab line")? * 1024;
    let tcp = sockstat("mem").ok_or("/proc/net/sockstat has no TCP mem")? * 4096;
    Ok(KernelMemory { slab, tcp })
}

/// One value of the TCP line of /proc/net/sockstat: `inuse`, `orphan`, `tw`, `alloc` or `mem` (pages).
pub(super) fn sockstat(name: &str) -> Option<u64> {
    let text = read_to_string("/proc/net/sockstat").ok()?;
    let mut words = text.lines().find(|line| line.starts_with("TCP:"))?.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

/// How many ends of connections the kernel remembers at most (tcp(7), `tcp_max_tw_buckets`); without an answer, no limit.
pub(super) fn time_wait_max() -> u64 {
    let text = read_to_string("/proc/sys/net/ipv4/tcp_max_tw_buckets").unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

fn kib_line(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Names and values for the head of the report.
pub(super) type Facts = Vec<(&'static str, String)>;

pub(super) fn facts(cores: Cores, command: String) -> Facts {
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("\t: unknown");
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let congestion = read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    let core_count = affinity_count();
    vec![
        ("date", clock::now_utc()),
        ("command", command),
        (
            "cpu",
            format!("{}, {core_count} cores", model.trim_start_matches(['\t', ' ', ':'])),
        ),
        (
            "pinning",
            format!(
                "balancer on core {}, load and backends on core {}",
                cores.balancer, cores.load
            ),
        ),
        (
            "kernel",
            format!("Linux {}, congestion control {}", kernel.trim(), congestion.trim()),
        ),
        ("haproxy", first_line("haproxy", "-v")),
        ("nginx", first_line("nginx", "-v")),
        ("iperf3", first_line("iperf3", "--version")),
        ("wrk", first_line("wrk", "-v")),
        (
            "ringway",
            format!(
                "commit {}, with a probe for each backend and all metrics read every {} s",
                commit(),
                super::scrape::INTERVAL.as_secs()
            ),
        ),
    ]
}

fn affinity_count() -> usize {
    read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .filter(|l| l.starts_with("processor"))
        .count()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        Command::new("git")
            .args(arguments)
            .output()
            .ok()
            .filter(|o| o.status.success())
    };
    let Some(head) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|o| !o.stdout.is_empty());
    format!(
        "{}{}",
        String::from_utf8_lossy(&head.stdout).trim(),
        if changed { " with changes" } else { "" }
    )
}

/// The first line a program prints about its version, on whichever stream.
fn first_line(name: &str, flag: &str) -> String {
    let output = tools::find(name).and_then(|file| Command::new(file).arg(flag).output().ok());
    let Some(output) = output else {
        return "not found".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or("unknown")
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_work_of_threads_that_ended() {
        const WORK: Duration = Duration::from_millis(20);
        let before = cpu_time(std::process::id()).expect("our own clock");
        let spin = std::thread::spawn(|| {
            let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
            while Duration::from(clock.now().expect("a thread's own clock")) < WORK {}
        });
        spin.join().expect("no panic");
        let used = cpu_time(std::process::id()).expect("our own clock") - before;
        assert!(used >= WORK, "{used:?}");
    }

    #[test]
    fn memory_of_this_process_is_plausible() {
        let bytes = process_memory(std::process::id()).expect("smaps_rollup");
        assert!((100_000..4 << 30).contains(&bytes), "{bytes}");
        assert!(kernel_memory().expect("meminfo").slab > 0);
        assert!(sockstat("inuse").is_some());
    }
}
