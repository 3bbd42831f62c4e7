//! Owns every process and temporary folder of a benchmark: whatever way it ends, they end with it.
//!
//! Processes are killed by their own id, with their descendants, never by name. Only SIGKILL to ourselves escapes.

use super::host;
use crate::run::{kill_tree, shown};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What would have to be removed if a signal came now.
struct Registry {
    pids: Vec<u32>,
    directories: Vec<PathBuf>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    pids: Vec::new(),
    directories: Vec::new(),
});

fn registry() -> MutexGuard<'static, Registry> {
    // A panic elsewhere must not keep us from cleaning up; the lists are valid at any moment.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM and SIGHUP clean up before they end this process.
pub(super) fn clean_up_on_signals() -> Result<(), String> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|e| format!("cannot watch signals: {e}"))?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // The lock is kept until the end, so that nothing new starts.
            let registry = registry();
            registry.pids.iter().copied().for_each(kill_tree);
            for directory in &registry.directories {
                let _ = std::fs::remove_dir_all(directory);
            }
            eprintln!("stopped by signal {signal}; everything that was started is gone");
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// A folder that is removed with everything in it.
pub(super) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    pub(super) fn create() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("ringway-bench-{}", std::process::id()));
        let mut registry = registry();
        std::fs::create_dir(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        registry.directories.push(path.clone());
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed is in the system's folder for temporary files anyway.
        let _ = std::fs::remove_dir_all(&self.0);
        registry().directories.retain(|directory| *directory != self.0);
    }
}

/// A running program, killed with its descendants when dropped.
pub(super) struct Child {
    process: std::process::Child,
    name: String,
    /// Where its stderr goes (and its stdout, unless that is piped).
    log: PathBuf,
}

impl Child {
    /// Starts a program pinned to one core. `command` decides about stdin and stdout before; stderr goes to `log`.
    pub(super) fn spawn(command: &mut Command, core: usize, log: PathBuf, pipe_stdout: bool) -> Result<Self, String> {
        let name = shown(command);
        let file = std::fs::File::create(&log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        if pipe_stdout {
            command.stdout(Stdio::piped());
        } else {
            command.stdout(file.try_clone().map_err(|e| format!("dup of {}: {e}", log.display()))?);
        }
        command.stderr(file);
        let mut registry = registry();
        // A child inherits the affinity of the thread that starts it.
        let previous = host::affinity()?;
        host::pin_to(core)?;
        let spawned = command.spawn();
        host::set_affinity(&previous)?;
        let process = spawned.map_err(|e| format!("cannot run `{name}`: {e}"))?;
        registry.pids.push(process.id());
        Ok(Self { process, name, log })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn process(&mut self) -> &mut std::process::Child {
        &mut self.process
    }

    /// Waits for the end.
    pub(super) fn wait(&mut self) -> Result<ExitStatus, String> {
        self.process
            .wait()
            .map_err(|e| format!("waiting for `{}`: {e}", self.name))
    }

    /// `Err` with the program's last words if it has ended.
    pub(super) fn must_run(&mut self) -> Result<(), String> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("`{}` ended ({status}): {}", self.name, self.last_words())),
            Err(e) => Err(format!("waiting for `{}`: {e}", self.name)),
        }
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(2_000)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Until it is reaped below, its id cannot belong to anybody else.
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            kill_tree(self.pid());
            let _ = self.process.wait();
        }
        let pid = self.pid();
        registry().pids.retain(|&other| other != pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::is_running;

    #[test]
    fn dropping_a_child_ends_it_and_its_own_children() {
        let directory = std::env::temp_dir();
        let log = directory.join(format!("ringway-xtask-guard-{}", std::process::id()));
        let core = host::affinity()
            .expect("affinity")
            .into_iter()
            .next()
            .expect("one core at least");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]);
        let mut child = Child::spawn(&mut command, core, log.clone(), true).expect("sh runs");
        let mut line = String::new();
        let stdout = child.process().stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("one line");
        let grandchild: u32 = line.trim().parse().expect("a pid");
        let pid = child.pid();
        assert!(registry().pids.contains(&pid));
        drop(child);
        assert!(!is_running(pid) && !is_running(grandchild));
        assert!(!registry().pids.contains(&pid));
        std::fs::remove_file(log).expect("the log was written");
    }
}
