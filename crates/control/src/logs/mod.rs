//! How events become lines: for people or as JSON, one event one line, whatever a field holds.
//!
//! Owns the process's one `tracing` subscriber. Never blocks whoever logs (see `queue`). Called by the binary before
//! anything else happens.

mod human;
mod queue;

use human::Human;
pub(crate) use human::obeyed_by_terminals;
pub use queue::{LINE_BYTES_MAX, LINES_MAX, LineQueue};
pub(crate) use queue::{WriteFailure, write_counted};
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time LEVEL message field=value ...`; coloured on a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

/// Which events are logged, by target.
pub type Levels = Targets;

/// Logs to standard error until the process ends.
#[derive(Clone, Debug)]
pub struct Logs(LineQueue);

/// Longest wait for the last lines at exit.
pub const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

impl Logs {
    /// Lines that were dropped so far; a metric.
    pub fn dropped(&self) -> &Arc<AtomicU64> {
        self.0.dropped()
    }

    /// The way to the thread that writes standard error.
    pub(crate) fn queue(&self) -> &LineQueue {
        &self.0
    }

    /// Writes what is queued, but does not wait for a reader that is stuck.
    pub fn flush(&self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

/// Starts logging for the whole process. `levels` is a level or `target=level` pairs, as [`parse_levels`] takes them.
pub fn start(format: Format, levels: Levels) -> io::Result<Logs> {
    let stderr = io::stderr();
    let colours = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let queue = queue::start(Box::new(stderr), LINES_MAX)?;
    tracing::subscriber::set_global_default(subscriber(format, levels, colours, queue.clone()))
        .map_err(|_| io::Error::other("logging was started twice"))?;
    panic::set_hook(Box::new(log_panic));
    Ok(Logs(queue))
}

/// For tests elsewhere: lines go to `sink`, events of the caller's thread too while it is told to.
#[cfg(test)]
pub(crate) fn start_on(sink: Box<dyn io::Write + Send>) -> (Logs, tracing::Dispatch) {
    let queue = queue::start(sink, LINES_MAX).expect("starts");
    let levels = parse_levels("info").expect("a level");
    let told = subscriber(Format::Human, levels, false, queue.clone());
    (Logs(queue), tracing::Dispatch::new(told))
}

/// Instead of the standard library's hook, which writes several lines straight to standard error: a worker would wait
/// there for whoever reads, and the lines are no JSON.
fn log_panic(panicked: &PanicHookInfo<'_>) {
    let message = text_of(panicked.payload()).unwrap_or("(no message)");
    let place = panicked.location().map_or_else(String::new, ToString::to_string);
    let thread = thread::current();
    tracing::error!(
        place,
        thread = thread.name().unwrap_or(""),
        "panicked, this is a bug of ours: {message}"
    );
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        // Escaped, a line break takes two bytes; a line that is too long would be left out whole.
        let text: String = backtrace.to_string().chars().take(LINE_BYTES_MAX / 2).collect();
        tracing::error!(place, text, "backtrace");
    }
}

fn text_of(payload: &dyn Any) -> Option<&str> {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// Reads `info`, or `warn,ringway_proxy=debug`. The error is a whole sentence.
pub fn parse_levels(text: &str) -> Result<Levels, String> {
    const USE: &str = "use error, warn, info, debug, trace or off, or pairs like info,ringway_proxy=debug";
    if text.trim().is_empty() {
        return Err(format!("no level given; {USE}"));
    }
    for part in text.split(',') {
        // `Targets` takes a lone unknown word for the name of a target; it is a mistyped level.
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(format!("\"{level}\" is not a level; {USE}"));
        }
    }
    text.parse().map_err(|_| format!("\"{text}\" cannot be read; {USE}"))
}

fn subscriber(
    format: Format,
    levels: Levels,
    colours: bool,
    queue: LineQueue,
) -> Box<dyn tracing::Subscriber + Send + Sync> {
    let layer = match format {
        Format::Human => tracing_subscriber::fmt::layer()
            .event_format(Human { colours })
            .with_writer(queue)
            .boxed(),
        Format::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(queue)
            .boxed(),
    };
    Box::new(tracing_subscriber::registry().with(layer.with_filter(levels)))
}

#[cfg(test)]
mod tests;
