//! One measurement: one metric of one running balancer.

use super::balancers::{Balancer, Plan, Running, Services};
use super::host::{self, Cores};
use super::load::{Backends, Loader, Short};
use super::results::{Metric, Values};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) bulk_seconds: u32,
    pub(super) small_seconds: u32,
    pub(super) small1_seconds: u32,
    /// With the idle ones of five balancers their remembered ends (TIME_WAIT, two each) must stay below the kernel's
    /// usual limit of 131,072 in a minute, or closing would cost less for whoever comes last.
    pub(super) short_connections: u32,
    /// In each turn of the session log's measurement. Together they are more than TIME_WAIT has room for; both processes
    /// meet that, in turns, and what counts these ends next first waits until they are forgotten.
    pub(super) logged_connections: u32,
    pub(super) idle_connections: u32,
    pub(super) tls_connections: u32,
    /// In each turn of the relay's measurement.
    pub(super) relayed_requests: u32,
}

impl Settings {
    pub(super) const FULL: Self = Self {
        bulk_seconds: 4,
        small_seconds: 4,
        small1_seconds: 3,
        short_connections: 8_000,
        logged_connections: 3_000,
        idle_connections: 4_000,
        tls_connections: 8_000,
        relayed_requests: 20_000,
    };
    /// Two minutes with everything around it.
    pub(super) const QUICK: Self = Self {
        bulk_seconds: 2,
        small_seconds: 2,
        small1_seconds: 1,
        short_connections: 4_000,
        logged_connections: 1_000,
        idle_connections: 4_000,
        tls_connections: 2_000,
        relayed_requests: 5_000,
    };
}

/// Everything that stays the same over a run.
pub(super) struct Bench {
    programs: PathBuf,
    directory: PathBuf,
    cores: Cores,
    settings: Settings,
    loader: Loader,
    backends: Backends,
}

impl Bench {
    /// `programs`: where cargo put the release binaries.
    pub(super) fn start(programs: &Path, directory: &Path, cores: Cores, settings: Settings) -> Result<Self, String> {
        let program = programs.join("ringway-bench-load");
        let loader = Loader {
            program,
            directory: directory.to_owned(),
            core: cores.load,
        };
        let backends = loader.start_backends()?;
        Ok(Self {
            programs: programs.to_owned(),
            directory: directory.to_owned(),
            cores,
            settings,
            loader,
            backends,
        })
    }

    /// Started, checked and warmed up: bytes went through it unchanged and its buffers are touched.
    pub(super) fn start_balancer(&self, plan: Plan) -> Result<Running, String> {
        let running = plan.start(&self.programs, &self.directory, &self.backends, self.cores.balancer)?;
        self.loader
            .warm(running.services.echo)
            .map_err(|e| format!("{}: {e}", running.balancer.title()))?;
        Ok(running)
    }

    /// Sockets of earlier measurements linger for a minute (TIME_WAIT); their memory must not be counted as idle
    /// connections' when it goes.
    pub(super) fn wait_for_quiet_kernel(&self) {
        const LINGERING_MAX: u64 = 500;
        wait_until_forgotten(LINGERING_MAX);
    }

    /// Closing costs less while the kernel remembers as many ends as it may (TIME_WAIT). The short connections of this
    /// round may have filled that, so those with hellos wait until all of theirs fit.
    pub(super) fn wait_for_room_in_time_wait(&self) {
        // Two ends of each connection through each of three balancers, one on the direct path.
        let needed = 7 * u64::from(self.settings.tls_connections);
        let limit = host::time_wait_max();
        wait_until_forgotten(limit.saturating_sub(needed));
    }

    pub(super) fn measure(&self, metric: Metric, running: &Running) -> Result<Values, String> {
        let seconds = self.settings;
        let result = match metric {
            Metric::Short => self.short(running),
            Metric::SessionLog => self.session_log(running),
            Metric::Udp => self.udp(running, 64, 1),
            Metric::UdpTrain => self.udp(running, 1_200, 8),
            Metric::Small1 => self.small(running, 1, seconds.small1_seconds),
            Metric::Small64 => self.small(running, 64, seconds.small_seconds),
            Metric::Tls => self.tls(running),
            Metric::TlsRelay => self.tls_relay(running),
            Metric::BulkUp => self.bulk(running, false),
            Metric::BulkDown => self.bulk(running, true),
            Metric::Idle => self.idle(running),
        };
        result.map_err(|e| match running.last_words() {
            words if words.is_empty() => e,
            words => format!("{e}; the balancer's log ends: {words}"),
        })
    }

    fn short(&self, running: &Running) -> Result<Values, String> {
        self.connections(running, || {
            self.loader
                .short(running.services.short, self.settings.short_connections)
        })
    }

    /// The same with hellos. A few come first, uncounted: each must reach the backend of its name, as it was sent.
    fn tls(&self, running: &Running) -> Result<Values, String> {
        const TRIED: u32 = 300;
        // Nobody routes on the direct path.
        let names = match running.balancer {
            Balancer::Direct => 1,
            _ => self.backends.named.len(),
        };
        let tried = self.loader.tls(running.services.tls, TRIED, names)?;
        if tried.errors > 0.0 {
            return Err(format!(
                "{} of {TRIED} hellos failed: {}",
                tried.errors, tried.first_error
            ));
        }
        self.connections(running, || {
            self.loader
                .tls(running.services.tls, self.settings.tls_connections, names)
        })
    }

    fn connections(&self, running: &Running, load: impl FnOnce() -> Result<Short, String>) -> Result<Values, String> {
        let watch = Watch::start(running, self.cores)?;
        let seen = load()?;
        let cost = watch.stop()?;
        if seen.connections == 0.0 {
            return Err(format!("not one short connection succeeded: {}", seen.first_error));
        }
        let mut values = cost.values("cpu_us", seen.connections / 1e6);
        values.insert("per_second", seen.connections / seen.seconds);
        values.insert("p50_us", seen.p50_us);
        values.insert("p99_us", seen.p99_us);
        values.insert("errors", seen.errors);
        Ok(values)
    }

    /// Short connections through `without` and through a process that writes a line for each, in short turns, so that
    /// what the machine does besides meets both. Both clocks are read when all lines are written.
    fn session_log(&self, without: &Running) -> Result<Values, String> {
        const TURNS: usize = 16;
        let file = self.directory.join("sessions.log");
        // Of the round before.
        let _ = std::fs::remove_file(&file);
        let with = self.start_balancer(Plan::logging(file.clone()))?;
        let (before, watches) = (
            lines_in(&file)?,
            [Watch::start(without, self.cores)?, Watch::start(&with, self.cores)?],
        );
        let (mut counts, mut errors) = ([0.0; 2], 0.0);
        for turn in 0..TURNS {
            for which in [turn % 2, 1 - turn % 2] {
                let target = [without, &with][which].services.short;
                let seen = self.loader.short(target, self.settings.logged_connections)?;
                counts[which] += seen.connections;
                errors += seen.errors;
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while lines_in(&file)? - before < counts[1] as usize {
            if Instant::now() > deadline {
                return Err(format!(
                    "{} lines for {} sessions",
                    lines_in(&file)? - before,
                    counts[1]
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let [without, with] = watches.map(Watch::stop);
        let per_connection = |cost: Cost, count: f64| cost.cpu.unwrap_or_default().as_secs_f64() * 1e6 / count;
        let (without, with) = (per_connection(without?, counts[0]), per_connection(with?, counts[1]));
        Ok(Values::from([
            ("cpu_us", with),
            ("cpu_us_without", without),
            ("cpu_ratio", with / without),
            ("errors", errors),
        ]))
    }

    /// Requests over connections that a TLS listener has routed by their hello, and over those that a plain TCP listener of
    /// the same process has led to the same backend, in short turns; both kinds begin with the same hello. What is before
    /// the first request is not counted. Each turn opens its connections anew, so that no place in memory stays with one
    /// kind.
    fn tls_relay(&self, running: &Running) -> Result<Values, String> {
        const TURNS: usize = 16;
        let targets = [running.services.plain, running.services.routed];
        let (mut cpu, mut requests, mut seconds) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        for turn in 0..TURNS {
            for which in [turn % 2, 1 - turn % 2] {
                let mut load = self.loader.long(targets[which], self.settings.relayed_requests)?;
                let watch = Watch::start(running, self.cores)?;
                let seen = load.go()?;
                cpu[which] += watch.stop()?.cpu.unwrap_or_default().as_secs_f64();
                requests[which] += seen.round_trips;
                seconds[which] += seen.seconds;
            }
        }
        let [plain, routed] = [0, 1].map(|which| cpu[which] * 1e6 / requests[which]);
        Ok(Values::from([
            ("cpu_us", routed),
            ("cpu_us_plain", plain),
            ("cpu_ratio", routed / plain),
            ("per_second", requests[1] / seconds[1]),
            ("per_second_plain", requests[0] / seconds[0]),
        ]))
    }

    /// CPU per round trip of a datagram, whether alone or in a train.
    fn udp(&self, running: &Running, bytes: u32, train: u32) -> Result<Values, String> {
        let watch = Watch::start(running, self.cores)?;
        let target = running.services.udp;
        let seen = self.loader.udp(target, bytes, train, self.settings.small_seconds)?;
        let cost = watch.stop()?;
        if seen.datagrams == 0.0 {
            return Err("not one datagram came back".to_owned());
        }
        let mut values = cost.values("cpu_us", seen.datagrams / 1e6);
        values.insert("per_second", seen.datagrams / seen.seconds);
        values.insert("p50_us", seen.p50_us);
        values.insert("p99_us", seen.p99_us);
        values.insert("lost", seen.lost);
        values.insert("stalls", seen.stalls);
        Ok(values)
    }

    fn small(&self, running: &Running, connections: u32, seconds: u32) -> Result<Values, String> {
        let watch = Watch::start(running, self.cores)?;
        let seen = self.loader.wrk(running.services.http, connections, seconds)?;
        let cost = watch.stop()?;
        if seen.requests == 0.0 {
            return Err("not one request was answered".to_owned());
        }
        let mut values = cost.values("cpu_us", seen.requests / 1e6);
        values.insert("per_second", seen.per_second);
        values.insert("p50_us", seen.p50_us);
        values.insert("p99_us", seen.p99_us);
        values.insert("errors", seen.errors);
        Ok(values)
    }

    fn bulk(&self, running: &Running, down: bool) -> Result<Values, String> {
        let backend: Services = self.backends.services;
        let watch = Watch::start(running, self.cores)?;
        let seen = self
            .loader
            .iperf(running.services.iperf, backend.iperf, down, self.settings.bulk_seconds)?;
        let cost = watch.stop()?;
        let mut values = cost.values("cpu_s_per_gb", seen.bytes / 1e9);
        values.insert("gbit_per_second", seen.bits_per_second / 1e9);
        Ok(values)
    }

    /// Memory of idle connections that have each carried one message, against the same process before them.
    fn idle(&self, running: &Running) -> Result<Values, String> {
        let wanted = f64::from(self.settings.idle_connections);
        let process_before = settled_memory(running)?;
        let kernel_before = host::kernel_memory()?;
        let mut idle = self
            .loader
            .idle(running.services.echo, self.settings.idle_connections)?;
        let process_after = settled_memory(running)?;
        let kernel_after = host::kernel_memory()?;
        let alive = idle.alive()?;
        let per_connection = |before: u64, after: u64| (after as f64 - before as f64) / wanted;
        let mut values = Values::new();
        if running.balancer != Balancer::Direct {
            values.insert("process_bytes", per_connection(process_before, process_after));
            values.insert("process_base_bytes", process_before as f64);
        }
        values.insert("slab_bytes", per_connection(kernel_before.slab, kernel_after.slab));
        values.insert("sockstat_bytes", per_connection(kernel_before.tcp, kernel_after.tcp));
        values.insert("established", idle.established);
        values.insert("alive", alive);
        if idle.established < wanted || alive < wanted {
            return Err(format!(
                "of {wanted} idle connections {} were established and {alive} lived",
                idle.established
            ));
        }
        Ok(values)
    }
}

/// Until the kernel remembers no more than `lingering_max` ends, which it does within a minute.
fn wait_until_forgotten(lingering_max: u64) {
    let deadline = Instant::now() + Duration::from_secs(65);
    let mut told = false;
    while host::sockstat("tw").is_some_and(|n| n > lingering_max) && Instant::now() < deadline {
        if !told {
            println!("waiting until the kernel forgets earlier connections (TIME_WAIT, a minute at most)");
            told = true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn lines_in(file: &Path) -> Result<usize, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    Ok(bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// The balancer's memory once it has stopped changing (returned buffers, closed connections), after 2 s at most.
fn settled_memory(running: &Running) -> Result<u64, String> {
    let Some(pid) = running.pid() else { return Ok(0) };
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut last = host::process_memory(pid)?;
    loop {
        std::thread::sleep(Duration::from_millis(150));
        let now = host::process_memory(pid)?;
        if now == last || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}

/// Clocks read before a load.
struct Watch {
    pid: Option<u32>,
    core: usize,
    cpu: Duration,
    core_busy: Duration,
    started: Instant,
}

/// What a load cost the balancer.
struct Cost {
    /// `None` for the direct path.
    cpu: Option<Duration>,
    /// Share of the balancer's core that was not idle, 0 to 1.
    core_busy: f64,
}

impl Watch {
    fn start(running: &Running, cores: Cores) -> Result<Self, String> {
        let pid = running.pid();
        let core = cores.balancer;
        let cpu = pid.map(host::cpu_time).transpose()?.unwrap_or_default();
        Ok(Self {
            pid,
            core,
            cpu,
            core_busy: host::core_busy(core),
            started: Instant::now(),
        })
    }

    fn stop(self) -> Result<Cost, String> {
        let elapsed = self.started.elapsed();
        let cpu = self
            .pid
            .map(host::cpu_time)
            .transpose()?
            .map(|now| now.saturating_sub(self.cpu));
        let busy = host::core_busy(self.core).saturating_sub(self.core_busy);
        Ok(Cost {
            cpu,
            core_busy: busy.as_secs_f64() / elapsed.as_secs_f64(),
        })
    }
}

impl Cost {
    /// CPU seconds per `units` under `name`.
    fn values(&self, name: &'static str, units: f64) -> Values {
        let mut values = Values::new();
        if let Some(cpu) = self.cpu {
            values.insert(name, cpu.as_secs_f64() / units);
            values.insert("cpu_seconds", cpu.as_secs_f64());
        }
        values.insert("core_busy", self.core_busy);
        values
    }
}
