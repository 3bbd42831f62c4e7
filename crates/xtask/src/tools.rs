//! The programs of others that tests and benchmark drive: found, or installed with apt when we are root.
//!
//! Never starts a service: a distribution's package likes to do that on installation, so it is told not to.

use crate::run::{output_of, show};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How to recognise that a tool is there.
enum Present {
    /// A program of this name.
    Program(&'static str),
    /// A program that PostgreSQL keeps outside of PATH, one folder per version.
    PostgresProgram(&'static str),
    /// nginx can relay TCP, by a module or built in.
    NginxStream,
}

struct Tool {
    present: Present,
    /// The Debian and Ubuntu package that brings it.
    package: &'static str,
}

const fn program(name: &'static str, package: &'static str) -> Tool {
    Tool {
        present: Present::Program(name),
        package,
    }
}

const TEST_TOOLS: &[Tool] = &[
    program("redis-server", "redis-server"),
    program("redis-benchmark", "redis-tools"),
    program("redis-cli", "redis-tools"),
    Tool {
        present: Present::PostgresProgram("initdb"),
        package: "postgresql",
    },
    Tool {
        present: Present::PostgresProgram("pgbench"),
        package: "postgresql-contrib",
    },
    Tool {
        present: Present::PostgresProgram("psql"),
        package: "postgresql-client",
    },
    program("nginx", "nginx"),
    Tool {
        present: Present::NginxStream,
        package: "libnginx-mod-stream",
    },
    program("wrk", "wrk"),
    program("iperf3", "iperf3"),
    program("haproxy", "haproxy"),
    program("ip", "iproute2"),
    program("nft", "nftables"),
    program("curl", "curl"),
    program("openssl", "openssl"),
    program("python3", "python3"),
    program("promtool", "prometheus"),
    program("nsd", "nsd"),
    program("knotd", "knot"),
    program("unbound", "unbound"),
    program("dnsperf", "dnsperf"),
    program("openvpn", "openvpn"),
    program("dnsdist", "dnsdist"),
];

const BENCH_TOOLS: &[Tool] = &[
    program("nginx", "nginx"),
    Tool {
        present: Present::NginxStream,
        package: "libnginx-mod-stream",
    },
    program("wrk", "wrk"),
    program("iperf3", "iperf3"),
    program("haproxy", "haproxy"),
];

/// What `cargo xtask test` and `promises` need.
pub(crate) fn ensure_for_tests() -> Result<(), String> {
    ensure(TEST_TOOLS)
}

/// What `cargo xtask bench` needs.
pub(crate) fn ensure_for_bench() -> Result<(), String> {
    ensure(BENCH_TOOLS)
}

/// Where a program is, also looking where daemons live and a user's PATH does not.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(daemons)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// The file of nginx's stream module; `None` when it is built in (or absent, see [`ensure_for_bench`]).
pub(crate) fn nginx_stream_module() -> Option<PathBuf> {
    let folders = [
        "/usr/lib/nginx/modules",
        "/usr/lib64/nginx/modules",
        "/usr/local/lib/nginx/modules",
    ];
    folders
        .iter()
        .map(|dir| Path::new(dir).join("ngx_stream_module.so"))
        .find(|file| file.is_file())
}

fn ensure(tools: &[Tool]) -> Result<(), String> {
    let packages = missing(tools);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let by_hand = format!("install what brings them, on Debian or Ubuntu: apt-get install {list}");
    if !nix::unistd::geteuid().is_root() {
        return Err(format!(
            "programs are missing and only root may install them; {by_hand}"
        ));
    }
    if find("apt-get").is_none() {
        return Err(format!("programs are missing and there is no apt-get here; {by_hand}"));
    }
    println!("installing {list}");
    install(&packages).map_err(|e| format!("{e}; {by_hand}"))?;
    let still_missing = missing(tools);
    if still_missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "apt-get succeeded, but what should come with {} is still not found",
        still_missing.join(" ")
    ))
}

fn missing(tools: &[Tool]) -> Vec<&'static str> {
    tools
        .iter()
        .filter(|tool| !is_present(&tool.present))
        .map(|tool| tool.package)
        .collect()
}

fn is_present(present: &Present) -> bool {
    match present {
        Present::Program(name) => find(name).is_some(),
        Present::PostgresProgram(name) => postgres_folders().iter().any(|dir| dir.join(name).is_file()),
        Present::NginxStream => nginx_stream_module().is_some() || nginx_has_stream_built_in(),
    }
}

/// Debian's folders of versions, then PATH.
fn postgres_folders() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions
        .map(|version| version.path().join("bin"))
        .chain(std::env::split_paths(&path))
        .collect()
}

fn nginx_has_stream_built_in() -> bool {
    // `nginx -V` writes to stderr.
    find("nginx")
        .and_then(|nginx| Command::new(nginx).arg("-V").output().ok())
        .is_some_and(|output| {
            String::from_utf8_lossy(&output.stderr)
                .split_whitespace()
                .any(|option| option == "--with-stream")
        })
}

fn install(packages: &[&str]) -> Result<(), String> {
    let _no_services = NoServices::declare()?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command
    };
    // Without package lists (a fresh container) the first try fails; the lists are fetched only then.
    let options = ["install", "-y", "--no-install-recommends"];
    if output_of(apt().args(options).args(packages)).is_ok() {
        return Ok(());
    }
    show(apt().arg("update"))?;
    show(apt().args(options).args(packages))
}

/// Says to every package's installation that services must not be started, as long as it lives (invoke-rc.d(8)).
struct NoServices {
    written: Option<&'static str>,
}

impl NoServices {
    const POLICY: &'static str = "/usr/sbin/policy-rc.d";

    fn declare() -> Result<Self, String> {
        use std::os::unix::fs::PermissionsExt;
        if Path::new(Self::POLICY).exists() {
            // The machine has a policy of its own; it stays.
            return Ok(Self { written: None });
        }
        let explain = |e| {
            format!(
                "cannot write {} (it keeps packages from starting services): {e}",
                Self::POLICY
            )
        };
        std::fs::write(Self::POLICY, policy_of(std::process::id())).map_err(explain)?;
        let policy = Self {
            written: Some(Self::POLICY),
        };
        std::fs::set_permissions(Self::POLICY, PermissionsExt::from_mode(0o755)).map_err(explain)?;
        Ok(policy)
    }
}

/// 101: the action is forbidden. Should we be killed before we remove the file, it forbids nothing and goes by itself.
fn policy_of(pid: u32) -> String {
    format!(
        "#!/bin/sh\n# Written by `cargo xtask` while it installs test programs; remove it if process {pid} is gone.\n\
         if [ -d /proc/{pid} ]; then exit 101; fi\nrm -f \"$0\"\nexit 0\n"
    )
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.written
            && let Err(e) = std::fs::remove_file(path)
        {
            eprintln!("{path} was written for the installation and cannot be removed: {e}; remove it by hand");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_forbids_services_only_while_its_writer_lives() {
        use std::os::unix::fs::PermissionsExt;
        let mut gone = Command::new("true").spawn().expect("true runs");
        gone.wait().expect("it ends");
        let file = std::env::temp_dir().join(format!("ringway-xtask-policy-{}", std::process::id()));
        for (pid, exit_code, remains) in [(std::process::id(), 101, true), (gone.id(), 0, false)] {
            std::fs::write(&file, policy_of(pid)).expect("a temporary file");
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("our own file");
            let status = Command::new("sh")
                .arg(&file)
                .args(["redis-server", "start"])
                .status()
                .expect("sh runs");
            assert_eq!((status.code(), file.exists()), (Some(exit_code), remains));
            let _ = std::fs::remove_file(&file);
        }
    }

    #[test]
    fn a_missing_program_names_its_package_and_a_present_one_does_not() {
        let tools = [program("sh", "dash"), program("no-such-program-here", "a-package")];
        assert_eq!(missing(&tools), ["a-package"]);
    }
}
