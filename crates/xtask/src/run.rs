//! Running other programs: streaming their output, limiting their time, finding the workspace.
//!
//! Never starts a shell, never leaves a program behind: what exceeds its time is killed together with its descendants.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What `cargo metadata --no-deps` says about this workspace.
pub(crate) fn metadata() -> Result<Value, String> {
    let text = output_of(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    serde_json::from_str(&text).map_err(|e| format!("cargo metadata printed something that is not JSON: {e}"))
}

/// The folder of the workspace's Cargo.toml.
pub(crate) fn root() -> Result<PathBuf, String> {
    path_in(&metadata()?, "workspace_root")
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> Result<PathBuf, String> {
    path_in(&metadata()?, "target_directory")
}

fn path_in(metadata: &Value, key: &str) -> Result<PathBuf, String> {
    metadata[key]
        .as_str()
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo metadata has no {key}"))
}

/// The cargo that runs us, without what it tells of this package: build scripts that look at it (ring's) would build
/// everything anew.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(of_package) {
            command.env_remove(name);
        }
    }
    command
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    let arguments = command.get_args().map(|a| a.to_string_lossy().into_owned());
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Runs to the end and returns stdout; stderr becomes part of the error.
pub(crate) fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run `{}`: {e}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "`{}` failed ({}): {}",
            shown(command),
            output.status,
            stderr.trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs with our own output; `Err` when it fails.
pub(crate) fn show(command: &mut Command) -> Result<(), String> {
    println!("$ {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("cannot run `{}`: {e}", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` failed ({status})", shown(command)))
    }
}

/// Runs, prints every line of stdout and gives it to `each_line` as well. Returns whether the program succeeded;
/// one that is not done after `limit` is killed with its descendants, and that is an error.
pub(crate) fn follow(command: &mut Command, limit: Duration, mut each_line: impl FnMut(&str)) -> Result<bool, String> {
    let name = shown(command);
    println!("$ {name}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run `{name}`: {e}"))?;
    let stdout = child.stdout.take().ok_or("stdout was piped but is not there")?;
    let (lines, received) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        // Test programs may print bytes that are not UTF-8.
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + limit;
    loop {
        match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                each_line(&line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                kill_tree(child.id());
                let _ = child.wait();
                return Err(format!(
                    "`{name}` was not done after {} s and was killed",
                    limit.as_secs()
                ));
            }
        }
    }
    let status = child.wait().map_err(|e| format!("waiting for `{name}`: {e}"))?;
    let _ = reader.join();
    Ok(status.success())
}

/// Kills a process that we started and everything below it, and returns when their ports are free again: when none
/// of them runs (2 s at most, for one that hangs in the kernel).
pub(crate) fn kill_tree(pid: u32) {
    let pids = tree(pid);
    // Parents first, so that no supervisor replaces a child; the list was taken before.
    for &pid in &pids {
        if let Ok(pid) = i32::try_from(pid) {
            // One that is gone already is what we want.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while pids.iter().any(|&pid| is_running(pid)) && Instant::now() < deadline {
        // Only a parent could await them, and we are not everybody's parent.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A zombie has closed everything and only waits for its parent.
pub(crate) fn is_running(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.first().is_none_or(|state| state != "Z"))
}

/// A process and its descendants, parents first.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = stat_fields(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(pid) = pids.get(next) {
        pids.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    pids
}

/// The fields of `/proc/PID/stat` after the name (which may hold spaces): 0 is proc(5)'s field 3, the state.
pub(crate) fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(')')?;
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_over_its_time_is_killed_with_its_descendants() {
        let mut pid = None;
        let script = "sleep 600 & echo $!; wait";
        let result = follow(
            Command::new("sh").args(["-c", script]),
            Duration::from_secs(2),
            |line| {
                pid = line.parse::<u32>().ok();
            },
        );
        assert!(result.expect_err("it must be killed").contains("killed"));
        let sleeper = pid.expect("the script prints the pid of its child");
        assert!(!is_running(sleeper));
    }

    #[test]
    fn lines_are_passed_on_and_failure_is_told() {
        let mut lines = Vec::new();
        let limit = Duration::from_secs(30);
        let success = follow(Command::new("sh").args(["-c", "echo a; echo b; exit 3"]), limit, |l| {
            lines.push(l.to_owned())
        });
        assert_eq!((success, lines), (Ok(false), vec!["a".to_owned(), "b".to_owned()]));
    }
}
