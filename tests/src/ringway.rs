//! The process under test: start with a configuration, look at it from outside, and what must be true at its end.

use crate::binary;
use crate::metrics::{Metrics, get};
use crate::namespace::{Door, Namespace};
use crate::process::{Process, wait_for};
use crate::program::{Dir, Launch, Program};
use crate::setup::Setup;
use nix::sys::signal::Signal;
use std::io;
use std::path::Path;
use std::time::Duration;

/// A running `ringway`; killed when dropped.
#[derive(Debug)]
pub struct Ringway {
    /// Facts about it, and signals to it.
    pub process: Process,
    program: Program,
    setup: Setup,
    door: Option<Door>,
    descriptors_at_start: usize,
    _files: Dir,
}

impl Ringway {
    /// Starts it and waits until it is ready.
    pub fn start(setup: &Setup) -> Self {
        Self::start_with(setup, &Launch::default())
    }

    /// Starts it inside a network namespace.
    pub fn start_in(setup: &Setup, namespace: &Namespace) -> Self {
        let launch = Launch {
            netns: Some(namespace.name.clone()),
            ..Launch::default()
        };
        Self::launch(setup, &launch, binary::ringway(), Some(namespace.door()))
    }

    /// Starts it inside a network namespace, without any capability but this one.
    pub fn start_with_capability(setup: &Setup, namespace: &Namespace, capability: &str) -> Self {
        let launch = Launch {
            netns: Some(namespace.name.clone()),
            only_capability: Some(capability.to_owned()),
            ..Launch::default()
        };
        Self::launch(setup, &launch, binary::ringway(), Some(namespace.door()))
    }

    /// Starts it with other limits.
    pub fn start_with(setup: &Setup, launch: &Launch) -> Self {
        Self::launch(setup, launch, binary::ringway(), None)
    }

    /// Starts the variant with injected faults.
    pub fn start_faulty(setup: &Setup, fault: &str) -> Self {
        let env = vec![("RINGWAY_FAULT".to_owned(), fault.to_owned())];
        Self::launch(
            setup,
            &Launch {
                env,
                ..Launch::default()
            },
            binary::ringway_with_faults(),
            None,
        )
    }

    fn launch(setup: &Setup, launch: &Launch, binary: &Path, door: Option<Door>) -> Self {
        let files = Dir::new();
        let file = files.write("ringway.yaml", &setup.yaml()).display().to_string();
        let program = Program::start(launch, binary, &["run", "--config", &file, "--log-format", "json"]);
        let process = program.process;
        let setup = setup.clone();
        let mut ringway = Self {
            process,
            program,
            setup,
            door,
            descriptors_at_start: 0,
            _files: files,
        };
        let ready = wait_for(Duration::from_secs(10), || {
            let ended = ringway.program.ended();
            assert!(
                ended.is_none(),
                "ringway ended at start with {ended:?}: {}",
                ringway.log()
            );
            ringway.is_ready().then_some(())
        });
        assert!(ready.is_some(), "ringway was not ready within 10 s: {}", ringway.log());
        ringway.descriptors_at_start = process.descriptors();
        ringway
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        self.program.stderr()
    }

    /// GET on the admin port.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let admin = self.setup.admin;
        match &self.door {
            None => get(admin, path),
            Some(door) => std::thread::scope(|scope| {
                let ask = scope.spawn(move || {
                    door.enter();
                    get(admin, path)
                });
                ask.join().expect("asking does not panic")
            }),
        }
    }

    /// Whether `/health/ready` says 200.
    pub fn is_ready(&self) -> bool {
        self.get("/health/ready").is_ok_and(|(status, _)| status == 200)
    }

    /// A scrape.
    pub fn metrics(&self) -> Metrics {
        let (status, page) = self.get("/metrics").expect("the admin port answers");
        assert_eq!(status, 200, "/metrics: {page}");
        Metrics::parse(&page).expect("/metrics is in the Prometheus text format")
    }

    /// The sum of a metric now; 0 if there is no such series yet.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.metrics().count(name, labels)
    }

    /// Waits until a metric's sum is at least `wanted`; fails the test after 5 s.
    pub fn wait_for_count(&self, name: &str, labels: &[(&str, &str)], wanted: u64) {
        let found = wait_for(Duration::from_secs(5), || {
            (self.count(name, labels) >= wanted).then_some(())
        });
        assert!(
            found.is_some(),
            "{name}{labels:?} is {}, not {wanted}",
            self.count(name, labels)
        );
    }

    /// Sessions ended for this reason.
    pub fn ended(&self, reason: &str) -> u64 {
        self.count("ringway_sessions_ended_total", &[("reason", reason)])
    }

    /// Receive buffers lent out now, over all workers.
    pub fn buffers_out(&self) -> u64 {
        self.count("ringway_runtime_buffers_out", &[])
    }

    /// Bytes that wait for slow readers: in leased buffers, and copied out of them.
    pub fn bytes_held(&self, buffer_bytes: u64) -> u64 {
        self.buffers_out() * buffer_bytes + self.count("ringway_runtime_spilled_bytes", &[])
    }

    /// What must be true when every client and backend has let go: waits for it, fails the test if it does not come.
    pub fn settle(&self) {
        let settled = wait_for(Duration::from_secs(10), || self.left_over().is_none().then_some(()));
        if settled.is_none() {
            panic!(
                "after 10 s: {}",
                self.left_over().unwrap_or_else(|| "settled just now".to_owned())
            );
        }
        let metrics = self.metrics();
        let counter = |name: &str| {
            metrics
                .sum(name, &[])
                .unwrap_or_else(|| panic!("no {name} among {:?}", metrics.names()))
        };
        assert_eq!(
            counter("ringway_runtime_cq_overflows_total"),
            0.0,
            "the completion queue overflowed"
        );
        assert!(self.is_ready(), "ready at the end");
    }

    /// What is still held.
    fn left_over(&self) -> Option<String> {
        let metrics = self.metrics();
        let mut left = Vec::new();
        for gauge in [
            "ringway_listener_connections",
            "ringway_backend_connections",
            "ringway_runtime_buffers_out",
        ] {
            match metrics.sum(gauge, &[]) {
                Some(0.0) => {}
                Some(value) => left.push(format!("{gauge} is {value}")),
                None => left.push(format!("there is no {gauge}")),
            }
        }
        let descriptors = self.process.descriptors();
        if descriptors > self.descriptors_at_start {
            left.push(format!(
                "{descriptors} descriptors, {} at start",
                self.descriptors_at_start
            ));
        }
        (!left.is_empty()).then(|| left.join("; "))
    }

    /// Settles, demands that no task panicked, stops it with SIGTERM and demands exit status 0.
    pub fn finish(self) {
        self.finish_after_panics(0);
    }

    /// The same after so many panics that were asked for.
    pub fn finish_after_panics(mut self, panics: u64) {
        self.settle();
        let seen = self.metrics().sum("ringway_tasks_panicked_total", &[]);
        assert_eq!(seen, Some(panics as f64), "tasks that panicked");
        let status = self.program.stop(Signal::SIGTERM, Duration::from_secs(3));
        let status = status.unwrap_or_else(|| panic!("did not stop within 3 s of SIGTERM: {}", self.log()));
        assert_eq!(status.code(), Some(0), "exit status after SIGTERM: {}", self.log());
    }

    /// Its status if it has ended.
    pub fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        self.program.wait(limit)
    }
}

/// Runs `ringway` with these arguments to its end; exit code, standard output, standard error.
pub fn run_to_end(launch: &Launch, args: &[&str], limit: Duration) -> (Option<i32>, String, String) {
    let mut program = Program::start(launch, binary::ringway(), args);
    let status = program.wait(limit);
    let status =
        status.unwrap_or_else(|| panic!("ringway {args:?} did not end within {limit:?}: {}", program.stderr()));
    (status.code(), program.stdout(), program.stderr())
}
