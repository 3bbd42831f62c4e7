//! Lines for people: `2026-03-01T12:00:00.123456Z  INFO message field=value other="two words"`.
//!
//! The only place where values meet a terminal, so it is where control characters end: one event stays one line and no
//! value can move the cursor. Called by `logs`.

use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The format for people.
pub(super) struct Human {
    /// Whether the level is coloured.
    pub(super) colours: bool,
}

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        SystemTime.format_time(&mut line)?;
        let level = *event.metadata().level();
        if self.colours {
            write!(line, " \x1b[{}m{level:>5}\x1b[0m ", colour(level))?;
        } else {
            write!(line, " {level:>5} ")?;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        writeln!(line, "{}{}", fields.message, fields.rest)
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// The message first, the fields in their order.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn put(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            push_escaped(&mut self.message, value);
            return;
        }
        self.rest.push(' ');
        self.rest.push_str(field.name());
        self.rest.push('=');
        let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        if plain {
            push_escaped(&mut self.rest, value);
        } else {
            self.rest.push('"');
            push_escaped(&mut self.rest, &value.replace('\\', "\\\\").replace('"', "\\\""));
            self.rest.push('"');
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// Control characters, line breaks, and the marks that reorder text. All of them lie below U+10000.
pub(crate) fn obeyed_by_terminals(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Everything that a terminal could obey, and every line break, becomes `\u{..}`, `\n` or the like; so do the marks that
/// reorder text.
fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if obeyed_by_terminals(c) => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
            }
            c => text.push(c),
        }
    }
}
