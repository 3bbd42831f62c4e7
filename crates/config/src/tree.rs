//! YAML text -> a tree of nodes that know where they stand.
//!
//! serde stops at the first value of a wrong type, and an operator wants to hear of all of them. So serde is asked for
//! nothing but the shape (scalar, list, map) and the places, through `serde-saphyr`'s `Spanned`; what the values mean is
//! decided by `decode`, which can go on after a problem. Scalars keep the text as written, so `0x10`, `1e3` or `off` are
//! never silently something else. This file must not know any key of the format.

use crate::limits::{ALIAS_DEPTH_MAX, ALIASES_MAX, DEPTH_MAX, NODES_MAX, SOURCES_BYTES_MAX};
use crate::problem::Problems;
use crate::source::{Sources, Span};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Options, Spanned};
use std::fmt;

/// A value of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Where it stands; of a list or map only the beginning.
    pub(crate) span: Span,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a [`Node`] is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Nothing was written, or `~`, or `null`.
    Null,
    /// The text as written, without quotes.
    Scalar {
        /// Escapes of quoted text are resolved.
        text: String,
        /// Where `text` begins in the source if it stands there byte by byte.
        verbatim: Option<usize>,
    },
    /// `[a, b]`, or lines with dashes.
    List(Vec<Node>),
    /// `{a: b}`, or lines with colons; a key may be there twice.
    Map(Vec<(Node, Node)>),
}

/// A file's tree.
pub(crate) struct Tree {
    /// The outermost node.
    pub(crate) root: Node,
    /// A key that stands twice in its map according to the YAML parser. `decode` finds all of them by itself and says
    /// it better; this one is the safety net for keys that are spelled differently but are the same number.
    pub(crate) duplicate: Option<Span>,
    /// Nodes in it.
    pub(crate) nodes: usize,
}

/// Reads one source. `None`: it is not YAML or exceeds a limit, and `problems` says where.
pub(crate) fn read(sources: &Sources<'_>, source: usize, nodes_before: usize, problems: &mut Problems) -> Option<Tree> {
    let text = sources.text(source);
    let nodes_max = NODES_MAX.saturating_sub(nodes_before);
    let mut duplicate = None;
    let mut read = deserialize(text, DuplicateKeyPolicy::Error, nodes_max);
    if let Err(error) = &read
        && matches!(cause(error), Error::DuplicateMappingKey { .. })
    {
        duplicate = Some(error_span(sources, source, error));
        // The second reading lets both entries through.
        read = deserialize(text, DuplicateKeyPolicy::LastWins, nodes_max);
    }
    match read {
        Ok(shape) => {
            let mut nodes = 0;
            let root = node(shape, source, text, &mut nodes);
            Some(Tree { root, duplicate, nodes })
        }
        Err(error) => {
            if let Some(span) = duplicate {
                report_duplicate(span, problems);
            }
            let (message, help) = explain(&error);
            problems.error(error_span(sources, source, &error), message, help);
            None
        }
    }
}

/// The sentence for [`Tree::duplicate`].
pub(crate) fn report_duplicate(span: Span, problems: &mut Problems) {
    problems.error(span, "the same key is in this map already", "write it once");
}

fn deserialize(text: &str, duplicate_keys: DuplicateKeyPolicy, nodes_max: usize) -> Result<Spanned<Shape>, Error> {
    let budget = serde_saphyr::budget! {
        flow_nesting_limit: DEPTH_MAX,
        max_depth: DEPTH_MAX,
        max_nodes: nodes_max,
        // Each node is an event, each list or map ends with another; a document adds four.
        max_events: 2 * NODES_MAX + 4,
        max_aliases: ALIASES_MAX,
        max_anchors: ALIASES_MAX,
        max_recorded_anchor_events: NODES_MAX,
        max_recorded_anchor_bytes: SOURCES_BYTES_MAX,
        max_total_scalar_bytes: SOURCES_BYTES_MAX,
        max_documents: 2,
        // One anchor may serve a thousand listeners; what aliases replay is counted below instead.
        enforce_alias_anchor_ratio: false,
    };
    let mut options: Options = serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        // `<<` reaches `decode`, which answers in words of this format.
        merge_keys: MergeKeyPolicy::AsOrdinary,
        // The snippets are ours.
        with_snippet: false,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    options.budget = budget;
    options.alias_limits = serde_saphyr::alias_limits! {
        max_total_replayed_events: nodes_max,
        max_replay_stack_depth: ALIAS_DEPTH_MAX,
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// What serde sees; places are added by `Spanned` around it, the text of numbers by [`node`].
enum Shape {
    Null,
    /// A boolean or a number: its text is in the source.
    Literal,
    Text(String),
    List(Vec<Spanned<Shape>>),
    Map(Vec<(Spanned<Shape>, Spanned<Shape>)>),
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Literal)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Literal)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Literal)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Literal)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Shape, E> {
        Ok(Shape::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Shape, E> {
        Ok(Shape::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Shape, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = access.next_element()? {
            list.push(item);
        }
        Ok(Shape::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Shape, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
        }
        Ok(Shape::Map(map))
    }
}

/// Adds to a shape what only the source knows. Recursion is bounded by [`DEPTH_MAX`].
fn node(shape: Spanned<Shape>, source: usize, text: &str, nodes: &mut usize) -> Node {
    *nodes += 1;
    // An alias is shown where its text stands, not where it is used: that is the line to correct.
    let place = shape.defined.span();
    let start = usize::try_from(place.byte_offset().unwrap_or(0))
        .unwrap_or(0)
        .min(text.len());
    let length = usize::try_from(place.byte_len().unwrap_or(0)).unwrap_or(0);
    let mut span = Span {
        source,
        start,
        end: start.saturating_add(length).min(text.len()),
    };
    let written = text.get(span.start..span.end).unwrap_or("");
    let kind = match shape.value {
        Shape::Null => Kind::Null,
        Shape::Literal => Kind::Scalar {
            text: written.to_owned(),
            verbatim: Some(start),
        },
        Shape::Text(content) => {
            let verbatim = verbatim(written, &content).map(|skip| start + skip);
            // Non-finite numbers arrive in a canonical spelling.
            let content = if verbatim.is_none() && is_number_like(&content) {
                written.to_owned()
            } else {
                content
            };
            Kind::Scalar {
                text: content,
                verbatim,
            }
        }
        Shape::List(list) => Kind::List(list.into_iter().map(|item| node(item, source, text, nodes)).collect()),
        Shape::Map(map) => Kind::Map(
            map.into_iter()
                .map(|(key, value)| (node(key, source, text, nodes), node(value, source, text, nodes)))
                .collect(),
        ),
    };
    if matches!(kind, Kind::List(_) | Kind::Map(_)) {
        span.end = span.start;
    }
    Node { span, kind }
}

/// Bytes before `content` in `written`, if it stands there unchanged (plain, or in quotes without escapes).
fn verbatim(written: &str, content: &str) -> Option<usize> {
    if written == content {
        return Some(0);
    }
    let inner = ['"', '\'']
        .iter()
        .find_map(|&quote| written.strip_prefix(quote)?.strip_suffix(quote))?;
    (inner == content).then_some(1)
}

fn is_number_like(content: &str) -> bool {
    matches!(content, ".inf" | "-.inf" | ".nan")
}

fn error_span(sources: &Sources<'_>, source: usize, error: &Error) -> Span {
    let start = error.location().map_or(0, |place| match place.span().byte_offset() {
        Some(at) => usize::try_from(at)
            .unwrap_or(usize::MAX)
            .min(sources.text(source).len()),
        None => sources.offset(source, place.line(), place.column()),
    });
    Span {
        source,
        start,
        end: start,
    }
}

/// The error itself, without what wraps it when it was met inside an alias.
fn cause(error: &Error) -> &Error {
    match error.without_snippet() {
        Error::AliasError { error, .. } => cause(error),
        other => other,
    }
}

/// Message and help for what the YAML parser refuses.
fn explain(error: &Error) -> (String, String) {
    use serde_saphyr::budget::BudgetBreach as Breach;
    let (message, help) = match cause(error) {
        Error::MultipleDocuments { .. } => {
            let help = "a file holds one; write the parts into files of their own".to_owned();
            ("a second YAML document begins here", help)
        }
        Error::UnknownAnchor { .. } => (
            "this alias has no anchor before it",
            "define it with `&name` above".to_owned(),
        ),
        Error::RecursiveReferencesRequireWeakTypes { .. } => (
            "this alias stands inside its own anchor",
            "write the value out".to_owned(),
        ),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::Budget {
            breach: Breach::RecordedAnchorEvents { .. } | Breach::RecordedAnchorBytes { .. },
            ..
        } => {
            let help = format!("at most {NODES_MAX} values in all, and {ALIAS_DEPTH_MAX} aliases inside each other");
            ("aliases multiply beyond every use", help)
        }
        Error::Budget {
            breach: Breach::Depth { .. },
            ..
        } => (
            "lists and maps are nested too deeply",
            format!("at most {DEPTH_MAX} deep"),
        ),
        Error::Budget {
            breach: Breach::Aliases { .. } | Breach::Anchors { .. },
            ..
        } => (
            "there are too many aliases or anchors",
            format!("at most {ALIASES_MAX} in a file"),
        ),
        Error::Budget { .. } => (
            "the configuration is too large",
            format!("at most {NODES_MAX} values in all files together"),
        ),
        other => return (format!("this is not YAML: {}", parser_words(other)), String::new()),
    };
    (message.to_owned(), help)
}

/// The parser's own sentence without its place, which stands in front already.
fn parser_words(error: &Error) -> String {
    let words = error.to_string();
    let words = words.lines().next().unwrap_or("");
    let end = words.rfind(" at line ").unwrap_or(words.len());
    words[..end]
        .chars()
        .filter(|character| !character.is_control())
        .take(200)
        .collect()
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tests;
