//! Collecting problems while a configuration is read, instead of stopping at the first.

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::limits::PROBLEMS_MAX;
use crate::source::{Sources, Span};

/// A value that cannot be used, as its parser sees it: without a place and without the key it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Completes a sentence that begins with the key: `"5" has no unit`.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) help: String,
    /// The bytes of the value that are to blame; `None`: all of it.
    pub(crate) part: Option<std::ops::Range<usize>>,
}

impl Fault {
    /// All of the value is to blame.
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
            part: None,
        }
    }

    /// Only these bytes of the value are to blame.
    pub(crate) fn at(mut self, part: std::ops::Range<usize>) -> Self {
        self.part = Some(part);
        self
    }
}

struct Problem {
    severity: Severity,
    span: Span,
    message: String,
    help: String,
    notes: Vec<(Span, String)>,
}

/// The problems found so far.
#[derive(Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    errors: usize,
    left_out: usize,
}

impl Problems {
    /// Adds an error.
    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Error, span, message.into(), help.into(), Vec::new());
    }

    /// Adds an error that has to do with another place.
    pub(crate) fn error_with_note(
        &mut self,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
        note: (Span, &str),
    ) {
        self.add(
            Severity::Error,
            span,
            message.into(),
            help.into(),
            vec![(note.0, note.1.to_owned())],
        );
    }

    /// Adds a warning.
    pub(crate) fn warning(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Warning, span, message.into(), help.into(), Vec::new());
    }

    /// Adds a warning that has to do with another place.
    pub(crate) fn warning_with_note(
        &mut self,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
        note: (Span, &str),
    ) {
        let notes = vec![(note.0, note.1.to_owned())];
        self.add(Severity::Warning, span, message.into(), help.into(), notes);
    }

    /// Whether the configuration cannot be used.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether further problems are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() == PROBLEMS_MAX
    }

    /// Whether something was already said about the text that begins here.
    pub(crate) fn mentions(&self, place: Span) -> bool {
        self.list
            .iter()
            .any(|problem| problem.span.source == place.source && problem.span.start == place.start)
    }

    /// What is shown: in the order of the texts.
    pub(crate) fn finish(mut self, sources: &Sources<'_>) -> Diagnostics {
        self.list.sort_by_key(|problem| problem.span);
        // An alias repeats the problems of its anchor.
        self.list
            .dedup_by(|next, kept| next.span == kept.span && next.message == kept.message);
        let list = self.list.into_iter().map(|problem| Diagnostic {
            severity: problem.severity,
            place: sources.place(problem.span),
            message: problem.message,
            help: problem.help,
            notes: problem
                .notes
                .into_iter()
                .map(|(span, note)| (sources.place(span), note))
                .collect(),
        });
        Diagnostics::new(list.collect(), self.left_out)
    }

    fn add(&mut self, severity: Severity, span: Span, message: String, help: String, notes: Vec<(Span, String)>) {
        if severity == Severity::Error {
            self.errors += 1;
        }
        if self.is_full() {
            self.left_out += 1;
            return;
        }
        self.list.push(Problem {
            severity,
            span,
            message,
            help,
            notes,
        });
    }
}
