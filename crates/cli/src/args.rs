//! The command line: flags, their help, and their values as types.
//!
//! Text that is also configuration (addresses of `--tcp`, names of `--balance`) stays text here: `ringway-config` reads
//! it. Called by `main`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringway_control::logs::{self, Levels};
use ringway_control::model::Workers;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(name = "ringway", version, about = "An L4 load balancer for TCP on io_uring.", after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

// One value per process: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve until SIGTERM or SIGINT, then let relays finish; a second signal stops at once
    Run(RunArgs),
    /// Show every problem of a configuration, with line and column
    Check(CheckArgs),
}

#[derive(Args, Debug)]
#[command(after_help = RUN_EXIT_CODES)]
pub(crate) struct RunArgs {
    /// File or directory of YAML files; may be given several times
    #[arg(short, long, value_name = "PATH", conflicts_with = "tcp")]
    pub(crate) config: Vec<PathBuf>,

    /// Listener and its backends, instead of a file; may be given several times
    #[arg(long, value_name = "BIND=BACKENDS")]
    pub(crate) tcp: Vec<String>,

    /// How backends are chosen with --tcp: round_robin (default), least_connections, ip_hash
    #[arg(long, value_name = "NAME", requires = "tcp", conflicts_with = "config")]
    pub(crate) balance: Option<String>,

    /// Where metrics and health are answered, instead of what the file says
    #[arg(long, value_name = "ADDRESS|off", value_parser = parse_admin)]
    pub(crate) admin: Option<AdminArg>,

    /// Workers to start, instead of what the file says
    #[arg(long, value_name = "NUMBER|auto", value_parser = parse_workers)]
    pub(crate) workers: Option<Workers>,

    /// How log lines on standard error look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub(crate) log_format: LogFormat,

    /// off, error, warn, info, debug or trace; or like info,ringway_proxy=debug
    #[arg(long, value_name = "LEVEL", value_parser = logs::parse_levels, default_value = "info")]
    pub(crate) log_level: Levels,
}

#[derive(Args, Debug)]
#[command(after_help = CHECK_EXIT_CODES)]
pub(crate) struct CheckArgs {
    /// Files or directories of YAML files; together they are one configuration
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

/// What `--admin` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminArg {
    Off,
    At(SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Human,
    Json,
}

impl From<LogFormat> for logs::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Human => Self::Human,
            LogFormat::Json => Self::Json,
        }
    }
}

fn parse_admin(text: &str) -> Result<AdminArg, String> {
    match text {
        "off" => Ok(AdminArg::Off),
        _ => text
            .parse()
            .map(AdminArg::At)
            .map_err(|_| "use an address like 127.0.0.1:9900, or off".to_owned()),
    }
}

fn parse_workers(text: &str) -> Result<Workers, String> {
    match text.parse() {
        Ok(count @ 1..=1024) => Ok(Workers::Count(count)),
        _ if text == "auto" => Ok(Workers::Auto),
        _ => Err("use a number from 1 to 1024, or auto (one per core)".to_owned()),
    }
}

const EXAMPLES: &str = "\
Examples:
  ringway run --config ringway.yaml
  ringway run --tcp 0.0.0.0:5432=10.0.0.11:5432,10.0.0.12:5432 --balance least_connections
  ringway check ringway.yaml";

const CHECK_EXIT_CODES: &str = "\
Looks at the files alone, so it gives the same answer on any machine.

Exit codes:
  0  no problem
  1  the configuration has problems
  2  a file cannot be opened, or the command line is wrong";

const RUN_EXIT_CODES: &str = "\
Without a file: --tcp 0.0.0.0:5432=10.0.0.11:5432,10.0.0.12:5432 --balance least_connections

Exit codes:
  0  stopped as asked
  1  the configuration has problems
  2  a file cannot be opened, or the command line is wrong
  3  this machine cannot serve the configuration (ports, limits, io_uring)
  4  stopped because of a bug: a worker died";

/// What `run` says when it is given nothing to serve.
pub(crate) const NOTHING_TO_SERVE: &str = "\
nothing to serve: give a configuration or a listener, for example
  ringway run --config ringway.yaml
  ringway run --tcp 0.0.0.0:5432=10.0.0.11:5432,10.0.0.12:5432 --balance least_connections";
