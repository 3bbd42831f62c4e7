//! The binary `ringway`: reads the command line, loads the configuration, hands it to the supervisor.
//!
//! Decides nothing but exit codes (`failure`).

mod args;
mod demo;
mod demo_report;
mod failure;
mod live;
mod live_screen;
mod live_ticker;
mod status;

use args::{AdminArg, CheckArgs, Cli, Command, LogFormat, NOTHING_TO_CHECK, NOTHING_TO_SERVE, RunArgs};
use clap::Parser;
use failure::Failure;
use ringway_config::{Checked, Diagnostic, Flags, LoadError};
use ringway_control::{logs, supervisor};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Check(args) => check(&args),
        Command::Status(args) => status::status(&args).map_err(|failure| tell(&failure)),
        Command::Demo(args) => demo::demo(&args).map_err(|failure| tell(&failure)),
    };
    outcome.unwrap_or_else(|code| code)
}

fn run(args: RunArgs) -> Result<ExitCode, ExitCode> {
    let logs =
        logs::start(args.log_format.into(), args.log_level.clone()).map_err(|error| tell(&Failure::Log(error)))?;
    let outcome = load(&args).and_then(|checked| {
        for warning in &checked.warnings {
            tracing::warn!("{}", one_line(warning));
        }
        supervisor::run(checked.model, sources(&args), &logs).map_err(Failure::Run)
    });
    if let Err(failure) = &outcome
        && args.log_format == LogFormat::Json
    {
        tracing::error!(exit_code = failure.exit_code(), "{failure}");
    }
    logs.flush();
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) if args.log_format == LogFormat::Json => Err(failure.exit_code().into()),
        Err(failure) => Err(tell(&failure)),
    }
}

/// Where the configuration is from, for whoever asks a running process.
fn sources(args: &RunArgs) -> Vec<String> {
    let files = args.files.all();
    if files.is_empty() {
        return args.tcp.iter().map(|text| format!("--tcp {text}")).collect();
    }
    files.iter().map(|path| path.display().to_string()).collect()
}

/// The configuration of the files or of `--tcp`, with what other flags replace in it.
fn load(args: &RunArgs) -> Result<Checked, Failure> {
    let files = args.files.all();
    let loaded = if !files.is_empty() {
        ringway_config::load(&files)
    } else if !args.tcp.is_empty() {
        let flags = Flags {
            tcp: &args.tcp,
            balance: args.balance.as_deref(),
            ..Flags::default()
        };
        ringway_config::from_flags(flags).map_err(LoadError::Problems)
    } else {
        return Err(Failure::Usage(NOTHING_TO_SERVE));
    };
    let mut checked = loaded.map_err(Failure::Load)?;
    match args.admin {
        Some(AdminArg::Off) => checked.model.admin = None,
        Some(AdminArg::At(address)) => checked.model.admin = Some(address),
        None => {}
    }
    if let Some(workers) = args.workers {
        checked.model.workers = workers;
    }
    Ok(checked)
}

fn check(args: &CheckArgs) -> Result<ExitCode, ExitCode> {
    let files = args.files.all();
    if files.is_empty() {
        return Err(tell(&Failure::Usage(NOTHING_TO_CHECK)));
    }
    let checked = ringway_config::load(&files).map_err(|error| tell(&Failure::Load(error)))?;
    eprint!("{}", checked.warnings);
    let backends = checked.model.pools.iter().map(|pool| pool.backends.len()).sum();
    let listeners = counted(checked.model.listeners.len(), "listener");
    println!(
        "ok: {listeners}, {}, {}",
        counted(checked.model.pools.len(), "pool"),
        counted(backends, "backend")
    );
    Ok(ExitCode::SUCCESS)
}

/// For the log; the command `check` shows the place too.
fn one_line(warning: &Diagnostic) -> String {
    let place = &warning.place;
    format!(
        "{}:{}:{}: {}; {}",
        place.source, place.line, place.column, warning.message, warning.help
    )
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Says why on standard error. Problems of a configuration start with their file already.
fn tell(failure: &Failure) -> ExitCode {
    let sentences = failure.to_string();
    match failure {
        Failure::Load(_) => eprintln!("{}", sentences.trim_end()),
        Failure::Usage(_) | Failure::Log(_) | Failure::Ask(_) | Failure::Client(_) | Failure::Demo(_) => {
            eprintln!("ringway: {sentences}");
        }
        Failure::Run(_) => sentences.lines().for_each(|sentence| eprintln!("ringway: {sentence}")),
    }
    failure.exit_code().into()
}
