//! Programs that a test starts: they die with the test, and what they say is kept in files.

use crate::binary::launcher;
use crate::process::{Process, wait_for};
use nix::sys::signal::Signal;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

const PREFIX: &str = "ringway-test-";

/// A directory that is removed when dropped; what killed runs left behind goes with the first one of the next run.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    /// A fresh one, readable by everybody.
    pub fn new() -> Self {
        static LEFT_OVERS: Once = Once::new();
        LEFT_OVERS.call_once(remove_left_overs);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file inside.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the temporary directory can be written");
        path
    }
}

impl Default for Dir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What stays behind is in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn remove_left_overs() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Somebody else's, perhaps; then it stays.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// How a program is started, beyond its arguments.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// RLIMIT_NOFILE, soft and hard.
    pub nofile: Option<u32>,
    /// Another user.
    pub user: Option<String>,
    /// Name of a network namespace.
    pub netns: Option<String>,
    /// `EPERM`, `ENOSYS` or `ENOMEM`: what io_uring_setup(2) answers.
    pub deny_io_uring: Option<String>,
    /// Root without any capability but this one, as setpriv(1) calls it: `net_raw`.
    pub only_capability: Option<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
}

impl Launch {
    /// The command; its process becomes the program (exec), so its number is the program's.
    pub fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(launcher());
        let nofile = self.nofile.map(|limit| limit.to_string());
        let options = [
            ("--nofile", &nofile),
            ("--user", &self.user),
            ("--netns", &self.netns),
            ("--deny-io-uring", &self.deny_io_uring),
        ];
        for (option, value) in options {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        command.arg("--");
        if let Some(capability) = &self.only_capability {
            let kept = format!("-all,+{capability}");
            command.args([
                "setpriv",
                "--inh-caps=-all",
                "--ambient-caps=-all",
                "--bounding-set",
                &kept,
            ]);
            command.arg("--");
        }
        command
            .arg(program)
            .args(args)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        command
    }
}

/// A program that runs in the background.
#[derive(Debug)]
pub struct Program {
    /// Facts about it, and signals to it.
    pub process: Process,
    child: Child,
    said: Dir,
}

impl Program {
    /// Starts it with its output going to files.
    pub fn start(launch: &Launch, program: &Path, args: &[&str]) -> Self {
        let said = Dir::new();
        let file = |name| File::create(said.path(name)).expect("the temporary directory can be written");
        let (out, err) = (file("stdout"), file("stderr"));
        let child = launch
            .command(program, args)
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the launcher can be run");
        Self {
            process: Process(child.id()),
            child,
            said,
        }
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.said.path("stdout")).unwrap_or_default()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.said.path("stderr")).unwrap_or_default()
    }

    /// Its status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end; `None` when it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_for(limit, || self.ended())
    }

    /// Sends a signal and waits; kills it when that takes longer than `limit`.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> Option<ExitStatus> {
        if self.ended().is_none() {
            self.process.signal(signal);
        }
        self.wait(limit)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- said on standard error:\n{}---", self.stderr());
        }
    }
}

/// Runs a program to its end; its status and everything it said.
pub fn run(launch: &Launch, program: &str, args: &[&str], limit: Duration) -> (ExitStatus, String) {
    let mut running = Program::start(launch, Path::new(program), args);
    let status = running.wait(limit);
    let said = running.stdout() + &running.stderr();
    (
        status.unwrap_or_else(|| panic!("{program} {args:?} did not end within {limit:?}: {said}")),
        said,
    )
}
