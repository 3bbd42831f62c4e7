//! Several files become one configuration: sections are joined, everything else may be in one of them only.

use crate::diagnostic::quote;
use crate::problem::Problems;
use crate::raw::{Config, Field, Listener, Pool, Section};
use crate::source::{At, Span};
use std::collections::HashMap;

/// Adds `other` to `config`. What is in both is reported with both places; the first one stays.
pub(crate) fn merge(config: &mut Config, other: Config, problems: &mut Problems) {
    field(&mut config.workers, other.workers, "workers", problems);
    field(&mut config.pin, other.pin, "pin", problems);
    field(&mut config.admin, other.admin, "admin", problems);
    field(&mut config.buffers, other.buffers, "buffers", problems);
    field(
        &mut config.drain_timeout,
        other.drain_timeout,
        "drain_timeout",
        problems,
    );
    field(&mut config.drain_delay, other.drain_delay, "drain_delay", problems);
    field(&mut config.max_unrouted, other.max_unrouted, "max_unrouted", problems);
    field(&mut config.session_log, other.session_log, "session_log", problems);
    section(&mut config.listeners, other.listeners, "listener", problems);
    section(&mut config.pools, other.pools, "pool", problems);
    config.partial |= other.partial;
}

fn field<T>(into: &mut Field<T>, from: Field<T>, name: &str, problems: &mut Problems) {
    match (into.key, from.key) {
        (Some(first), Some(second)) => {
            let note = (first, "it is set here first");
            problems.error_with_note(
                second,
                format!("{} is set in two files", quote(name)),
                "remove one",
                note,
            );
        }
        (None, Some(_)) => *into = from,
        (_, None) => {}
    }
}

fn section<T: Named>(into: &mut Section<T>, from: Section<T>, kind: &str, problems: &mut Problems) {
    into.key = into.key.or(from.key);
    let first: HashMap<String, Span> = into
        .entries
        .iter()
        .map(|entry| (entry.name().value.clone(), entry.name().span))
        .collect();
    for entry in from.entries {
        let At { value: name, span } = entry.name();
        if let Some(&before) = first.get(name) {
            let message = format!("{kind} {} is defined in two files", quote(name));
            problems.error_with_note(
                *span,
                message,
                "rename one of them",
                (before, "it is defined here first"),
            );
            continue;
        }
        into.entries.push(entry);
    }
}

trait Named {
    fn name(&self) -> &At<String>;
}

impl Named for Listener {
    fn name(&self) -> &At<String> {
        &self.name
    }
}

impl Named for Pool {
    fn name(&self) -> &At<String> {
        &self.name
    }
}
