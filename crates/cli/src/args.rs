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
    /// Show what a running process sees: listeners, pools, backends
    Status(StatusArgs),
    /// Serve built-in backends and show live what happens
    Demo(DemoArgs),
}

#[derive(Args, Debug)]
#[command(after_help = RUN_EXIT_CODES)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) files: Files,

    /// Listener and its backends, instead of a file; may be given several times
    #[arg(long, value_name = "BIND=BACKENDS", conflicts_with = "Files")]
    pub(crate) tcp: Vec<String>,

    /// How backends are chosen with --tcp: round_robin unless given; the names are below
    #[arg(long, value_name = "NAME", requires = "tcp", conflicts_with = "Files")]
    pub(crate) balance: Option<String>,

    /// Where metrics, health and status are answered, instead of what the file says
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
    #[command(flatten)]
    pub(crate) files: Files,
}

/// Where a configuration is. With the option or without it, as whoever types remembers from other programs.
#[derive(Args, Debug)]
pub(crate) struct Files {
    /// Files or directories of YAML files; together they are one configuration
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The same, as an option; may be given several times
    #[arg(short, long, value_name = "PATH")]
    config: Vec<PathBuf>,
}

impl Files {
    /// All of them, those without the option first.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        self.paths.iter().chain(&self.config).cloned().collect()
    }
}

#[derive(Args, Debug)]
#[command(after_help = STATUS_EXIT_CODES)]
pub(crate) struct StatusArgs {
    /// Admin port of the process
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address, default_value = ADMIN_DEFAULT)]
    pub(crate) admin: SocketAddr,

    /// Print the document as the process sends it
    #[arg(long, conflicts_with = "watch")]
    pub(crate) json: bool,

    /// Draw anew every second until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
#[command(after_help = DEMO_NOTES)]
pub(crate) struct DemoArgs {
    /// Shut one backend for 12 s, again and again
    #[arg(long)]
    pub(crate) kill_one: bool,

    /// Send requests to each listener, 16 clients each
    #[arg(long)]
    pub(crate) load: bool,

    /// First of the three ports to listen on; ports that are taken are skipped
    #[arg(long, value_name = "PORT", default_value_t = 8081)]
    pub(crate) port: u16,

    /// Admin port; ports that are taken are skipped
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address, default_value = ADMIN_DEFAULT)]
    pub(crate) admin: SocketAddr,

    /// Show log lines, as run does, and reports instead of the live view
    #[arg(long, value_name = "LEVEL", value_parser = logs::parse_levels)]
    pub(crate) log_level: Option<Levels>,
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

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("use an address with a port, like {ADMIN_DEFAULT}"))
}

fn parse_workers(text: &str) -> Result<Workers, String> {
    match text.parse() {
        Ok(count @ 1..=1024) => Ok(Workers::Count(count)),
        _ if text == "auto" => Ok(Workers::Auto),
        _ => Err("use a number from 1 to 1024, or auto (one per core)".to_owned()),
    }
}

/// Where the admin port is unless told otherwise.
pub(crate) const ADMIN_DEFAULT: &str = "127.0.0.1:9900";

const EXAMPLES: &str = "\
Examples:
  ringway run --config ringway.yaml
  ringway run --tcp 0.0.0.0:5432=10.0.0.11:5432,10.0.0.12:5432 --balance least_connections
  ringway check ringway.yaml
  ringway status --watch
  ringway demo --kill-one --load";

const CHECK_EXIT_CODES: &str = "\
Looks at the files alone, so it gives the same answer on any machine.

Exit codes:
  0  no problem
  1  the configuration has problems
  2  a file cannot be opened, or the command line is wrong";

const STATUS_EXIT_CODES: &str = "\
Exit codes:
  0  the process answered
  2  the command line is wrong
  3  no status to be had: nothing answers there, or something else does";

const DEMO_NOTES: &str = "\
Three listeners (round_robin, least_connections, ip_hash) in front of three backends: a is quick, b is slow, c resets
one connection in ten and is not well for 5 s every 40 s. Everything stays on 127.0.0.1. Ctrl-C ends it.

Exit codes:
  0  ended as asked
  2  the command line is wrong
  3  this machine cannot serve it (ports, limits, io_uring)
  4  stopped because of a bug: a worker or the keeper of backends died";

const RUN_EXIT_CODES: &str = "\
Without a file: --tcp 0.0.0.0:5432=10.0.0.11:5432,10.0.0.12:5432 --balance least_connections
Names for --balance: round_robin, least_connections, least_response_time, least_bandwidth, ip_hash, random

Exit codes:
  0  stopped as asked
  1  the configuration has problems
  2  a file cannot be opened, or the command line is wrong
  3  this machine cannot serve the configuration (ports, limits, io_uring)
  4  stopped because of a bug: a worker or the keeper of backends died";

/// What `run` says when it is given nothing to serve.
pub(crate) const NOTHING_TO_SERVE: &str = "\
nothing to serve: give a configuration or a listener, for example
  ringway run --config ringway.yaml
  ringway run --tcp 0.0.0.0:5432=10.0.0.11:5432,10.0.0.12:5432 --balance least_connections";

/// What `check` says when it is given nothing to look at.
pub(crate) const NOTHING_TO_CHECK: &str = "\
nothing to check: give a configuration, for example
  ringway check ringway.yaml";
