//! What is told to the operator: where, what is wrong, what would be right.
//!
//! A [`Diagnostic`] is complete in itself: it carries the line it points to, so that it can be shown, logged or sent
//! after the text is gone. Control characters of the file never reach a terminal unescaped.

use crate::limits::NAME_CHARS_MAX;
use crate::source::Origin;
use std::fmt;

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but part of it has no effect.
    Warning,
}

/// A place in a configuration text, with the line it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the text: a path, or a flag such as `--tcp`.
    pub source: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    origin: Origin,
    /// What is shown of the line: safe for a terminal and not too long.
    excerpt: String,
    /// Columns before the mark in `excerpt`, and columns of the mark (at least one).
    mark: (usize, usize),
}

/// Columns of a source line that are shown; longer lines are cut around the mark.
const EXCERPT_COLUMNS_MAX: usize = 120;
/// Of those, columns shown before the mark.
const EXCERPT_COLUMNS_BEFORE: usize = 80;

impl Place {
    /// `mark` is a range of bytes of `line`.
    pub(crate) fn new(
        source: &str,
        origin: Origin,
        (number, column): (usize, usize),
        line: &str,
        mark: (usize, usize),
    ) -> Self {
        let mut cells: Vec<char> = Vec::new();
        let mut marked = (0, 0);
        let fits = line.chars().nth(EXCERPT_COLUMNS_MAX).is_none();
        let first_kept = if fits {
            0
        } else {
            (column - 1).saturating_sub(EXCERPT_COLUMNS_BEFORE)
        };
        let kept = line.char_indices().skip(first_kept).take(EXCERPT_COLUMNS_MAX);
        for (at, character) in kept {
            if at < mark.0 {
                marked.0 += 1;
            } else if at < mark.1 {
                marked.1 += 1;
            }
            cells.push(visible(character));
        }
        if first_kept > 0 {
            cells[0] = '…';
        }
        if line.chars().nth(first_kept + EXCERPT_COLUMNS_MAX).is_some() {
            cells.push('…');
        }
        Self {
            source: source.to_owned(),
            line: number,
            column,
            origin,
            excerpt: cells.into_iter().collect(),
            mark: (marked.0, marked.1.max(1)),
        }
    }

    /// The line with a mark under the place and `help` behind the mark.
    fn excerpt(&self, f: &mut fmt::Formatter<'_>, help: &str) -> fmt::Result {
        let number = match self.origin {
            Origin::File => self.line.to_string(),
            Origin::Flag => "  ".to_owned(),
        };
        let gutter = " ".repeat(number.len() + 1);
        let (skip, width) = self.mark;
        writeln!(f, "{gutter}|")?;
        writeln!(f, "{}", format!("{number} | {}", self.excerpt).trim_end())?;
        let below = format!("{gutter}| {}{} {help}", " ".repeat(skip), "^".repeat(width));
        writeln!(f, "{}", below.trim_end())
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the configuration can be used all the same.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty when the message says it.
    pub help: String,
    /// Other places that have to do with it, each with what stands there.
    pub notes: Vec<(Place, String)>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            source, line, column, ..
        } = &self.place;
        let severity = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        writeln!(f, "{source}:{line}:{column}: {severity}{}", self.message)?;
        self.place.excerpt(f, &self.help)?;
        for (place, note) in &self.notes {
            writeln!(f, "{}:{}:{}: note: {note}", place.source, place.line, place.column)?;
            place.excerpt(f, "")?;
        }
        Ok(())
    }
}

/// All problems of one run, in the order of the texts. `Display` shows them with their lines and marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    left_out: usize,
}

impl Diagnostics {
    pub(crate) fn new(list: Vec<Diagnostic>, left_out: usize) -> Self {
        Self { list, left_out }
    }

    /// In the order of the texts; at most 100.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Problems found, also those beyond the 100 that are kept.
    pub fn len(&self) -> usize {
        self.list.len() + self.left_out
    }

    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            diagnostic.fmt(f)?;
        }
        match self.left_out {
            0 => Ok(()),
            1 => writeln!(f, "1 more problem is not shown"),
            more => writeln!(f, "{more} more problems are not shown"),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// Text of the operator inside a sentence: in quotes, short, and harmless on a terminal.
pub(crate) fn quote(text: &str) -> String {
    const CHARS_MAX: usize = NAME_CHARS_MAX;
    let mut quoted = String::from("\"");
    for (count, character) in text.chars().enumerate() {
        if count == CHARS_MAX {
            quoted.push('…');
            break;
        }
        match character {
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(visible(other)),
        }
    }
    quoted.push('"');
    quoted
}

/// A character that takes one column and commands nothing: escape sequences and bidirectional overrides could make a
/// terminal show another file than the one that is read.
fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => '\u{fffd}',
        other if other.is_control() => '\u{fffd}',
        other => other,
    }
}
