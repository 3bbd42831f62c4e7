//! The reader of ClientHellos: hellos of real clients, hellos from parts, hostile bytes, and what TLS libraries see.

mod captures;
mod differential;
mod hostile;
mod limits;
mod refused;
#[path = "../seeded/mod.rs"]
mod seeded;
mod structured;

use ringway_wire::hello::{HelloError, MESSAGE_MAX, Reader, ServerName};

/// What a hello says, owned: the name, in brackets what is no name, and the protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) name: String,
    pub(crate) protocols: Vec<Vec<u8>>,
}

pub(crate) type Answer = Result<Option<Said>, HelloError>;

pub(crate) const ABSENT: &str = "(absent)";
pub(crate) const ADDRESS: &str = "(address)";

/// Asks `reader` and copies its answer.
pub(crate) fn ask(reader: &mut Reader, bytes: &[u8]) -> Answer {
    let hello = reader.read(bytes)?;
    Ok(hello.map(|hello| Said {
        name: match hello.server_name() {
            ServerName::Absent => ABSENT.to_owned(),
            ServerName::Address => ADDRESS.to_owned(),
            ServerName::Host(host) => host.into_owned(),
        },
        protocols: hello.alpn().map(<[u8]>::to_vec).collect(),
    }))
}

/// The answer to all of it at once, with the largest maximum.
pub(crate) fn read(bytes: &[u8]) -> Answer {
    ask(&mut Reader::new(MESSAGE_MAX), bytes)
}

/// Feeds one reader, first nothing, then up to each of these places, and in the end everything; each answer before the
/// last must be "more".
pub(crate) fn read_in_pieces(bytes: &[u8], ends: impl IntoIterator<Item = usize>) -> Answer {
    let mut reader = Reader::new(MESSAGE_MAX);
    for end in std::iter::once(0).chain(ends).filter(|end| *end < bytes.len()) {
        assert_eq!(
            ask(&mut reader, &bytes[..end]),
            Ok(None),
            "after {end} of {}",
            bytes.len()
        );
    }
    ask(&mut reader, bytes)
}

/// The handshake message in a stream of well-formed records.
pub(crate) fn message_of(stream: &[u8]) -> Vec<u8> {
    let hello = Reader::new(MESSAGE_MAX).read(stream);
    hello.expect("a hello").expect("a whole one").message().to_vec()
}
