//! How events become lines: for people or as JSON, one event one line, whatever a field holds.
//!
//! Owns the process's one `tracing` subscriber. Never blocks whoever logs (see `queue`). Called by the binary before
//! anything else happens.

mod human;
mod queue;

use human::Human;
pub use queue::{LINE_BYTES_MAX, LINES_MAX, LineQueue};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
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
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

impl Logs {
    /// Lines that were dropped so far; a metric.
    pub fn dropped(&self) -> &Arc<AtomicU64> {
        self.0.dropped()
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
    Ok(Logs(queue))
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
