//! Texts that configuration comes from, and places in them.
//!
//! A [`Span`] is a range of bytes of one text; lines and columns are computed only when a problem is shown.

use crate::diagnostic::Place;

/// One configuration text: a file, or whatever a caller wants to treat as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As shown in diagnostics, usually the path as the operator wrote it.
    pub name: String,
    /// YAML.
    pub text: String,
}

/// A range of bytes of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Position in [`Sources`].
    pub(crate) source: usize,
    /// First byte.
    pub(crate) start: usize,
    /// One past the last byte.
    pub(crate) end: usize,
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct At<T> {
    /// What was written.
    pub(crate) value: T,
    /// Where.
    pub(crate) span: Span,
}

/// Whether a text is a file with lines or what stands after a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Shown with line numbers.
    File,
    /// Shown as one line without a number.
    Flag,
}

/// All texts of one run, with the beginnings of their lines.
pub(crate) struct Sources<'a> {
    list: Vec<Entry<'a>>,
}

struct Entry<'a> {
    name: &'a str,
    text: &'a str,
    origin: Origin,
    /// Byte offset of the first character of each line; never empty.
    lines: Vec<usize>,
}

impl<'a> Sources<'a> {
    /// No text yet.
    pub(crate) fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Adds a text and returns its position. A byte-order mark is left out: no operator sees it as a column.
    pub(crate) fn add(&mut self, name: &'a str, text: &'a str, origin: Origin) -> usize {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        self.list.push(Entry {
            name,
            text,
            origin,
            lines,
        });
        self.list.len() - 1
    }

    /// How many texts there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The text of one source, without a byte-order mark.
    pub(crate) fn text(&self, source: usize) -> &'a str {
        self.list[source].text
    }

    /// The byte offset of a line and a column, both counted from 1 in characters; the nearest one that exists.
    pub(crate) fn offset(&self, source: usize, line: u64, column: u64) -> usize {
        let entry = &self.list[source];
        let index = usize::try_from(line)
            .unwrap_or(usize::MAX)
            .saturating_sub(1)
            .min(entry.lines.len() - 1);
        let start = entry.lines[index];
        let line = entry.line(index);
        let skip = usize::try_from(column).unwrap_or(usize::MAX).saturating_sub(1);
        start + line.char_indices().nth(skip).map_or(line.len(), |(at, _)| at)
    }

    /// Where a span is, as shown to an operator, with its (first) line.
    pub(crate) fn place(&self, span: Span) -> Place {
        let entry = &self.list[span.source];
        let start = floor_boundary(entry.text, span.start);
        let index = entry.lines.partition_point(|&begin| begin <= start).saturating_sub(1);
        let begin = entry.lines[index];
        let line = entry.line(index);
        let before = line.get(..start - begin).unwrap_or(line);
        let marked_end = floor_boundary(entry.text, span.end).clamp(start, begin + line.len().max(start - begin));
        let marked = entry.text.get(start..marked_end).unwrap_or("");
        Place::new(
            entry.name,
            entry.origin,
            (index + 1, before.chars().count() + 1),
            line,
            (before.len(), before.len() + marked.trim_end().len()),
        )
    }
}

impl<'a> Entry<'a> {
    /// One line without its end.
    fn line(&self, index: usize) -> &'a str {
        let end = self.lines.get(index + 1).copied().unwrap_or(self.text.len());
        self.text[self.lines[index]..end].trim_end_matches(['\n', '\r'])
    }
}

/// The nearest place at or before `at` where a character begins.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
