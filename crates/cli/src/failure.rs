//! What can end a command early, and the exit code of each: one exhaustive table.

use ringway_config::LoadError;
use ringway_control::status::client::AskError;
use ringway_control::supervisor::RunError;
use std::fmt;
use std::io;

/// Why a command failed. Displays as whole sentences.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line asks for nothing that can be done.
    Usage(&'static str),
    /// The configuration was not accepted.
    Load(LoadError),
    /// The log thread could not start.
    Log(io::Error),
    /// Serving did not start or did not end well.
    Run(RunError),
    /// A running process did not tell its status.
    Ask(AskError),
    /// What asks for a status could not start.
    Client(io::Error),
    /// What surrounds the balancer in the demo could not start.
    Demo(io::Error),
}

impl Failure {
    /// Never a wildcard arm: a new failure must be placed by hand. The help of `run` lists the meanings.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Load(LoadError::Problems(_)) => 1,
            Self::Usage(_) | Self::Load(LoadError::CannotOpen { .. }) => 2,
            Self::Log(_)
            | Self::Ask(_)
            | Self::Client(_)
            | Self::Demo(_)
            | Self::Run(RunError::Limits(_) | RunError::Bind(_) | RunError::Start(_) | RunError::Control(_)) => 3,
            Self::Run(RunError::WorkerDied(_) | RunError::KeeperDied) => 4,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(sentence) => f.write_str(sentence),
            Self::Load(error) => error.fmt(f),
            Self::Log(error) => write!(f, "the log thread cannot start: {error}"),
            Self::Run(error) => error.fmt(f),
            Self::Ask(error) => error.fmt(f),
            Self::Client(error) => write!(f, "the status cannot be asked for: {error}"),
            Self::Demo(error) => write!(f, "the demo cannot start its backends and clients: {error}"),
        }
    }
}
