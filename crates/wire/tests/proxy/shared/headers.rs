//! The rows of `headers.txt`, which says how to read them. Two packages include this file: the one that reads headers,
//! and the one that shows them to other programs and must not link it.

use std::net::SocketAddr;

/// One header and what is made of it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) header: Vec<u8>,
    pub(crate) ours: Seen,
    pub(crate) haproxy: Other,
    pub(crate) nginx: Other,
}

/// What a reader makes of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Refused {
        /// Of ours only.
        label: String,
    },
    Taken {
        /// `None`: the connection's own address.
        source: Option<SocketAddr>,
        authority: Option<Vec<u8>>,
        unique_id: Option<Vec<u8>>,
    },
}

/// What another program makes of it.
#[derive(Debug)]
pub(crate) enum Other {
    Same,
    /// Why is in the row, and not empty.
    Different(Seen),
}

/// Every row. Panics where one is malformed.
pub(crate) fn rows() -> Vec<Row> {
    include_str!("headers.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(row)
        .collect()
}

fn row(line: &'static str) -> Row {
    let fields: Vec<_> = line.split('|').map(str::trim).collect();
    let [name, header, ours, haproxy, nginx, why] = fields[..] else {
        panic!("not 6 fields: {line}");
    };
    let row = Row {
        name,
        header: bytes(header),
        ours: seen(ours),
        haproxy: other(haproxy),
        nginx: other(nginx),
    };
    let differ = matches!(row.haproxy, Other::Different(_)) || matches!(row.nginx, Other::Different(_));
    assert_eq!(differ, !why.is_empty(), "a difference has a reason: {line}");
    row
}

fn other(text: &str) -> Other {
    match text {
        "same" => Other::Same,
        different => Other::Different(seen(different)),
    }
}

fn seen(text: &str) -> Seen {
    let mut words = text.split(' ');
    let source = match words.next().unwrap_or_default() {
        "own" => None,
        word => match word.parse() {
            Ok(source) => Some(source),
            Err(_) => return Seen::Refused { label: word.to_owned() },
        },
    };
    let [mut authority, mut unique_id] = [None, None];
    for word in words {
        match word.split_once('=') {
            Some(("authority", value)) => authority = Some(bytes(value)),
            Some(("id", value)) => unique_id = Some(bytes(value)),
            _ => panic!("{text:?}"),
        }
    }
    Seen::Taken {
        source,
        authority,
        unique_id,
    }
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match (first, rest.get(1..2)) {
            ('\\', Some("r")) => (b'\r', 2),
            ('\\', Some("n")) => (b'\n', 2),
            ('\\', Some("s")) => (b' ', 2),
            ('\\', Some("x")) => (u8::from_str_radix(&rest[2..4], 16).unwrap(), 4),
            ('{', _) => {
                let end = rest.find('}').unwrap();
                let times: usize = rest[1..end].parse().unwrap();
                let last = *bytes.last().unwrap();
                bytes.resize(bytes.len() + times - 1, last);
                rest = &rest[end + 1..];
                continue;
            }
            (printable, _) => (u8::try_from(printable).unwrap(), 1),
        };
        bytes.push(taken.0);
        rest = &rest[taken.1..];
    }
    bytes
}
