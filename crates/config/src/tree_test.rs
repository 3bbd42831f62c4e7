use super::*;
use crate::source::Origin;

/// The tree of a text as S-expressions with line:column of every node.
fn show(text: &str) -> String {
    let mut sources = Sources::new();
    let source = sources.add("test", text, Origin::File);
    let mut problems = Problems::default();
    match read(&sources, source, 0, &mut problems) {
        Some(tree) => format(&tree.root, &sources),
        None => problems.finish(&sources).to_string(),
    }
}

fn format(node: &Node, sources: &Sources<'_>) -> String {
    let place = sources.place(node.span);
    let kind = match &node.kind {
        Kind::Null => "null".to_owned(),
        Kind::Scalar { text, verbatim } => format!("{text:?}{}", if verbatim.is_some() { "" } else { "!" }),
        Kind::List(items) => format!(
            "[{}]",
            items
                .iter()
                .map(|item| format(item, sources))
                .collect::<Vec<_>>()
                .join(" ")
        ),
        Kind::Map(entries) => {
            let entry = |(key, value): &(Node, Node)| format!("{}={}", format(key, sources), format(value, sources));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
        }
    };
    format!("{}:{}:{kind}", place.line, place.column)
}

#[test]
fn scalars_keep_the_text_as_written() {
    assert_eq!(show("a: 0x10"), r#"1:1:{1:1:"a"=1:4:"0x10"}"#);
    assert_eq!(show("a: 1e999"), r#"1:1:{1:1:"a"=1:4:"1e999"!}"#);
    assert_eq!(show("a: 007"), r#"1:1:{1:1:"a"=1:4:"007"}"#);
    assert_eq!(show("a: yes"), r#"1:1:{1:1:"a"=1:4:"yes"}"#);
    assert_eq!(show("a: True"), r#"1:1:{1:1:"a"=1:4:"True"}"#);
    assert_eq!(show("a: -1.50"), r#"1:1:{1:1:"a"=1:4:"-1.50"}"#);
    assert_eq!(
        show("a: 99999999999999999999999"),
        r#"1:1:{1:1:"a"=1:4:"99999999999999999999999"}"#
    );
    assert_eq!(show("12: 5432"), r#"1:1:{1:1:"12"=1:5:"5432"}"#);
}

#[test]
fn nothing_is_null_and_quoted_nothing_is_text() {
    assert_eq!(
        show("a:\nb: ~\nc: null\nd: ''"),
        r#"1:1:{1:1:"a"=1:2:null 2:1:"b"=2:4:null 3:1:"c"=3:4:null 4:1:"d"=4:4:""}"#
    );
    assert_eq!(show(""), "1:1:null");
}

#[test]
fn places_count_characters_and_escaped_text_is_not_verbatim() {
    assert_eq!(show("é: ü"), r#"1:1:{1:1:"é"=1:4:"ü"}"#);
    assert_eq!(
        show("\u{feff}a: \"x\"\r\nb: \"x\\ty\"\r\n"),
        r#"1:1:{1:1:"a"=1:4:"x" 2:1:"b"=2:4:"x\ty"!}"#
    );
}

#[test]
fn both_entries_of_a_duplicate_key_arrive() {
    assert_eq!(show("a: 1\na: 2"), r#"1:1:{1:1:"a"=1:4:"1" 2:1:"a"=2:4:"2"}"#);
}

#[test]
fn a_duplicate_that_only_the_parser_sees_is_handed_on() {
    let mut sources = Sources::new();
    let source = sources.add("test", "11: x\n0xB: y\n", Origin::File);
    let tree = read(&sources, source, 0, &mut Problems::default()).expect("YAML");
    assert_eq!(tree.duplicate.map(|span| span.start), Some(6));
}

#[test]
fn an_alias_stands_where_its_anchor_stands() {
    assert_eq!(
        show("a: &x [1]\nb: *x"),
        r#"1:1:{1:1:"a"=1:7:[1:8:"1"] 2:1:"b"=1:7:[1:8:"1"]}"#
    );
}

#[test]
fn merge_keys_are_left_alone() {
    assert_eq!(show("<<: {a: 1}"), r#"1:1:{1:1:"<<"=1:5:{1:6:"a"=1:9:"1"}}"#);
}

#[test]
fn node_limit_counts_all_files() {
    let mut sources = Sources::new();
    let source = sources.add("test", "[a, b, c]", Origin::File);
    let read = |before| read(&sources, source, before, &mut Problems::default()).map(|tree| tree.nodes);
    assert_eq!(read(NODES_MAX - 4), Some(4), "a list and three values");
    assert_eq!(read(NODES_MAX - 3), None);
    assert_eq!(read(NODES_MAX + 1), None);
}
