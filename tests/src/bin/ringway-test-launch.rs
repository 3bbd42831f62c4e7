//! Starts a program the way a test wants it: it dies with its parent, and may get a descriptor limit, another user, a
//! network namespace, or a kernel that refuses io_uring.
//!
//! `ringway-test-launch [--nofile N] [--user NAME] [--netns NAME] [--deny-io-uring EPERM|ENOSYS|ENOMEM] -- PROGRAM ARG...`

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{User, setgid, setgroups, setuid};
use seccompiler::{SeccompAction, SeccompFilter};
use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::process::CommandExt;

/// The number of io_uring_setup(2); the same on every architecture that Ringway runs on.
const IO_URING_SETUP: i64 = 425;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (mut user, mut deny) = (None, None);
    while let Some(option) = args.next().filter(|option| option != "--") {
        let value = args.next().ok_or(format!("{option} needs a value"))?;
        match option.as_str() {
            "--nofile" => setrlimit(Resource::RLIMIT_NOFILE, value.parse()?, value.parse()?)?,
            "--netns" => setns(
                std::fs::File::open(format!("/run/netns/{value}"))?,
                CloneFlags::CLONE_NEWNET,
            )?,
            "--user" => user = Some(value),
            "--deny-io-uring" => deny = Some(value),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    if let Some(name) = user {
        let user = User::from_name(&name)?.ok_or(format!("there is no user {name}"))?;
        setgroups(&[user.gid])?;
        setgid(user.gid)?;
        setuid(user.uid)?;
    }
    // After the change of user, which clears it; it survives exec.
    set_pdeathsig(Signal::SIGKILL)?;
    if let Some(errno) = deny {
        deny_io_uring(&errno)?;
    }
    let program = args.next().ok_or("no program after --")?;
    Err(std::process::Command::new(&program).args(args).exec().into())
}

/// Makes io_uring_setup(2) fail as a container's seccomp profile, an old kernel or a full MEMLOCK limit would.
fn deny_io_uring(errno: &str) -> Result<(), Box<dyn Error>> {
    // errno(3), asm-generic/errno-base.h and errno.h
    let errno = match errno {
        "EPERM" => 1,
        "ENOMEM" => 12,
        "ENOSYS" => 38,
        other => return Err(format!("unknown errno {other}").into()),
    };
    let rules = BTreeMap::from([(IO_URING_SETUP, Vec::new())]);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}
