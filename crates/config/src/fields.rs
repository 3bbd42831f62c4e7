//! The generic part of decoding: the keys of a map, the text of a scalar, one value or a list of them.

use crate::diagnostic::quote;
use crate::keys::{self, Found, Key, Place};
use crate::limits::{self, VALUE_BYTES_MAX};
use crate::problem::{Fault, Problems};
use crate::raw::Field;
use crate::source::{At, Span};
use crate::tree::{Kind, Node};
use crate::values::{duration, number, variables, word};
use std::collections::HashMap;
use std::time::Duration;

/// What decoding needs besides the tree.
pub(crate) struct Decoder<'a> {
    /// Where problems go.
    pub(crate) problems: &'a mut Problems,
    /// Environment variables.
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
}

/// The text of a scalar after variables were put in.
struct Text {
    text: String,
    span: Span,
    /// Where the text begins in the source if it stands there as it is.
    verbatim: Option<usize>,
}

impl<'a> Decoder<'a> {
    /// Reads a scalar with `parse`; problems are told with `what` in front.
    pub(crate) fn value<T>(
        &mut self,
        node: &Node,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<At<T>> {
        let Text { text, span, verbatim } = self.text(node, what)?;
        match parse(&text) {
            Ok(value) => Some(At { value, span }),
            Err(fault) => {
                self.fault(what, fault, span, verbatim);
                None
            }
        }
    }

    /// Reads a scalar or a list of scalars. `None` if none of them could be used.
    pub(crate) fn one_or_many<T>(
        &mut self,
        node: &Node,
        what: &str,
        max: usize,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<At<Vec<At<T>>>> {
        let items = match &node.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if items.is_empty() {
            self.problems
                .error(node.span, format!("{what} is an empty list"), "write at least one");
            return None;
        }
        if !self.fits(node, items.len(), max, what) {
            return None;
        }
        let values: Vec<At<T>> = items.iter().filter_map(|item| self.value(item, what, &parse)).collect();
        (!values.is_empty()).then_some(At {
            value: values,
            span: node.span,
        })
    }

    /// Whether a list or map is short enough; reports if not.
    pub(crate) fn fits(&mut self, node: &Node, len: usize, max: usize, what: &str) -> bool {
        if len > max {
            self.problems
                .error(node.span, format!("{what} has {len} entries"), format!("at most {max}"));
        }
        len <= max
    }

    /// A map that `read` reads, or the word `off`, which is `None`. `example` is a map that would be right.
    pub(crate) fn map_or_off<'n, T>(
        &mut self,
        node: &'n Node,
        what: &str,
        example: &str,
        read: impl FnOnce(&'n Node, &mut Self) -> Option<At<T>>,
    ) -> Option<At<Option<T>>> {
        if let Kind::Scalar { .. } = node.kind {
            return self.value(node, what, |text| match text {
                "off" => Ok(None),
                "false" | "no" | "none" => Err(Fault::new(format!("{} is not known", quote(text)), "write off")),
                other => {
                    let help = format!("write off, or a map such as {example}");
                    Err(Fault::new(format!("{} is not a map", quote(other)), help))
                }
            });
        }
        let At { value, span } = read(node, self)?;
        Some(At {
            value: Some(value),
            span,
        })
    }

    /// The entries of `listeners` or `pools`, each read by `read`.
    pub(crate) fn section<T>(
        &mut self,
        node: &Node,
        kind: &str,
        max: usize,
        read: impl Fn(At<String>, &Node, &mut Self) -> T,
    ) -> Option<At<Vec<T>>> {
        let entries = self.named(node, kind, max)?;
        let value = entries.into_iter().map(|(name, node)| read(name, node, self)).collect();
        Some(At { value, span: node.span })
    }

    /// The entries of a map of names. A name that is there twice is reported and its second entry left out.
    fn named<'n>(&mut self, node: &'n Node, kind: &str, max: usize) -> Option<Vec<(At<String>, &'n Node)>> {
        let entries = match &node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null => &[],
            Kind::List(_) | Kind::Scalar { .. } => {
                let help = format!("write a map: each {kind}'s name, a colon, and its keys below");
                self.problems
                    .error(node.span, format!("{kind}s is {}", form(node)), help);
                return None;
            }
        };
        if !self.fits(node, entries.len(), max, &format!("{kind}s")) {
            return None;
        }
        let mut first: HashMap<&str, Span> = HashMap::new();
        let mut list = Vec::new();
        for (key, value) in entries {
            let Some(name) = self.key(key) else { continue };
            if let Some(&before) = first.get(name) {
                let message = format!("{kind} {} is defined twice", quote(name));
                self.problems.error_with_note(
                    key.span,
                    message,
                    "rename one of them",
                    (before, "it is defined here first"),
                );
                continue;
            }
            first.insert(name, key.span);
            if name == "<<" {
                self.problems.error(key.span, "\"<<\" is not a name", keys::MERGE_HELP);
            } else if let Err(fault) = word::check_name(name) {
                let verbatim = match key.kind {
                    Kind::Scalar { verbatim, .. } => verbatim,
                    _ => None,
                };
                self.fault(&format!("{kind} name"), fault, key.span, verbatim);
            }
            list.push((
                At {
                    value: name.to_owned(),
                    span: key.span,
                },
                value,
            ));
        }
        Some(list)
    }

    /// The keys of a map, each known and there once. Everything else is reported.
    pub(crate) fn fields<'s, 'n>(&'s mut self, node: &'n Node, place: Place, what: &str) -> Option<Fields<'s, 'n, 'a>> {
        let entries = match &node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null | Kind::List(_) | Kind::Scalar { .. } => {
                let names: Vec<&str> = keys::of(place).map(|key| key.name).take(4).collect();
                let more = if keys::of(place).count() > names.len() {
                    ", ..."
                } else {
                    ""
                };
                let help = format!("write a map (keys: {}{more})", names.join(", "));
                self.problems
                    .error(node.span, format!("{what} is {}", form(node)), help);
                return None;
            }
        };
        let mut found: Vec<(&'static Key, &'n Node, &'n Node)> = Vec::new();
        let mut strange: HashMap<&str, Span> = HashMap::new();
        let mut misspelled = HashMap::new();
        for (key, value) in entries {
            let Some(name) = self.key(key) else { continue };
            match keys::find(place, name) {
                Found::Key(known) => {
                    let Some((_, before, _)) = found.iter().find(|(other, ..)| other.name == known.name) else {
                        found.push((known, key, value));
                        continue;
                    };
                    let same = before.text() == Some(name);
                    let twice = if same {
                        "is written twice"
                    } else {
                        "is another word for a key that is there"
                    };
                    let message = format!("{} {twice}", quote(name));
                    self.problems
                        .error_with_note(key.span, message, "remove one", (before.span, "it is here first"));
                }
                // Told once, however often it is written.
                _ if strange.contains_key(name) => {
                    let before = strange[name];
                    let message = format!("{} is written twice", quote(name));
                    self.problems
                        .error_with_note(key.span, message, "remove both", (before, "it is here first"));
                }
                Found::Later => {
                    strange.insert(name, key.span);
                    let message = format!("{} is not in this version yet", quote(name));
                    self.problems
                        .error(key.span, message, "remove it: it would have no effect");
                }
                Found::Unknown { help, meant } => {
                    strange.insert(name, key.span);
                    misspelled.extend(meant.map(|meant| (meant, key.span)));
                    self.problems
                        .error(key.span, format!("{} has no key {}", place.words(), quote(name)), help);
                }
            }
        }
        // Where something is said to be missing: the map's first key shows it better than an empty span.
        let at = entries.first().map_or(node.span, |(key, _)| key.span);
        Some(Fields {
            decoder: self,
            place,
            found,
            misspelled,
            at,
        })
    }

    /// The text of a key.
    fn key<'n>(&mut self, key: &'n Node) -> Option<&'n str> {
        let text = key.text();
        if text.is_none() {
            self.problems
                .error(key.span, format!("this key is {}", form(key)), "write a word");
        }
        text
    }

    fn text(&mut self, node: &Node, what: &str) -> Option<Text> {
        let Kind::Scalar { text, verbatim } = &node.kind else {
            let help = match node.kind {
                Kind::Null => "write one after the colon, or remove the key",
                _ => "write a single value",
            };
            let message = match node.kind {
                Kind::Null => format!("{what} has no value"),
                _ => format!("{what} is {}", form(node)),
            };
            self.problems.error(node.span, message, help);
            return None;
        };
        if text.len() > VALUE_BYTES_MAX {
            let message = format!("{what} has {} bytes", text.len());
            self.problems
                .error(node.span, message, format!("at most {VALUE_BYTES_MAX}"));
            return None;
        }
        match variables::expand(text, self.env) {
            Ok(None) => Some(Text {
                text: text.clone(),
                span: node.span,
                verbatim: *verbatim,
            }),
            Ok(Some(expanded)) => Some(Text {
                text: expanded,
                span: node.span,
                verbatim: None,
            }),
            Err(fault) => {
                self.fault(&format!("{what}:"), fault, node.span, *verbatim);
                None
            }
        }
    }

    fn fault(&mut self, what: &str, fault: Fault, span: Span, verbatim: Option<usize>) {
        let span = match (fault.part, verbatim) {
            (Some(part), Some(begin)) => Span {
                start: begin + part.start,
                end: begin + part.end,
                ..span
            },
            _ => span,
        };
        self.problems
            .error(span, format!("{what} {}", fault.message), fault.help);
    }
}

/// The keys of one map, taken out one by one.
pub(crate) struct Fields<'s, 'n, 'a> {
    decoder: &'s mut Decoder<'a>,
    place: Place,
    found: Vec<(&'static Key, &'n Node, &'n Node)>,
    /// Keys that are probably there under a wrong name, which was reported: they do not count as missing.
    misspelled: HashMap<&'static str, Span>,
    at: Span,
}

impl<'n, 'a> Fields<'_, 'n, 'a> {
    /// Takes a key out and reads its value.
    pub(crate) fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'n Node, &mut Decoder<'a>) -> Option<At<T>>,
    ) -> Field<T> {
        debug_assert!(
            keys::of(self.place).any(|key| key.name == name),
            "{name} is not in the table of keys"
        );
        let Some(index) = self.found.iter().position(|(key, ..)| key.name == name) else {
            return Field {
                key: self.misspelled.get(name).copied(),
                value: None,
            };
        };
        let (_, key, value) = self.found.swap_remove(index);
        Field {
            key: Some(key.span),
            value: read(value, self.decoder),
        }
    }

    /// Takes a key out and reads its single value.
    pub(crate) fn value<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Field<T> {
        let what = self.place.path(name);
        self.read(name, |node, cx| cx.value(node, &what, parse))
    }

    /// Takes a key out and reads its value or list of values.
    pub(crate) fn values<T>(
        &mut self,
        name: &'static str,
        max: usize,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Field<Vec<At<T>>> {
        let what = self.place.path(name);
        self.read(name, |node, cx| cx.one_or_many(node, &what, max, parse))
    }

    /// Takes a key out that is a duration.
    pub(crate) fn duration(&mut self, name: &'static str, limits: limits::Span) -> Field<Duration> {
        self.value(name, |text| duration::parse(text, limits))
    }

    /// Takes a key out that is a number.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self, name: &'static str, limits: limits::Range) -> Field<T> {
        self.value(name, |text| number::parse(text, limits).map(narrow))
    }

    /// Reports that a key is missing from this map.
    pub(crate) fn missing(&mut self, name: &str, help: &str) {
        self.decoder
            .problems
            .error(self.at, format!("{} needs {}", self.place.words(), quote(name)), help);
    }

    /// Every key of the table must have been read: one that is only accepted would be a promise not kept.
    pub(crate) fn finish(self) {
        assert!(
            self.found.is_empty(),
            "{:?} is accepted but never read",
            self.found.first().map(|(key, ..)| key.name)
        );
    }
}

/// A checked number in the type that the model keeps it in.
pub(crate) fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    match T::try_from(number) {
        Ok(narrowed) => narrowed,
        // The ranges in `limits` are asserted at compile time to fit the types of the model.
        Err(_) => unreachable!("a number was not checked against its range"),
    }
}

impl Node {
    /// The text of a scalar.
    fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }
}

/// What a node is, in a sentence.
fn form(node: &Node) -> &'static str {
    match node.kind {
        Kind::Null => "empty",
        Kind::Scalar { .. } => "a single value",
        Kind::List(_) => "a list",
        Kind::Map(_) => "a map",
    }
}
