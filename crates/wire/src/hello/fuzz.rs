//! The body of the fuzz target: what must hold for every input.

use super::forge::{self, Parts};
use super::{ClientHello, HelloError, MESSAGE_MAX, MESSAGE_MAX_LEAST, Reader, ServerName};

/// What a reader makes of bytes, owned.
type Answer = Result<Option<ClientHello<'static>>, HelloError>;

/// Checks arbitrary bytes as the stream of a client and panics when a promise is broken: the answer does not depend on
/// how the bytes arrive; nothing is wanted without end; what was read is in normal form, and written again from its
/// parts it is the same; cut into other records it says the same.
pub fn fuzz_hello(data: &[u8]) {
    for max in [MESSAGE_MAX_LEAST, MESSAGE_MAX] {
        let (answer, decided_at) = in_pieces(data, max);
        assert_eq!(at_once(data, max), answer, "in pieces: otherwise");
        // Nothing behind the place where it was decided takes part.
        assert_eq!(at_once(&data[..decided_at], max), answer, "cut at {decided_at}");
        match answer {
            Ok(Some(hello)) => {
                assert!(hello.message().len() <= max as usize);
                check_hello(&hello);
                check_records(&hello, data);
            }
            Ok(None) => assert!(data.len() < Reader::new(max).bytes_max()),
            Err(_) => {}
        }
    }
}

fn owned(answer: Result<Option<ClientHello<'_>>, HelloError>) -> Answer {
    answer.map(|hello| {
        hello.map(|hello| ClientHello {
            message: hello.message.into_owned().into(),
            name: hello.name,
            protocols: hello.protocols,
        })
    })
}

fn at_once(data: &[u8], max: u32) -> Answer {
    owned(Reader::new(max).read(data))
}

/// The answer, and after how many bytes it came. The data's own bytes say how long the pieces are; zero: the same again.
fn in_pieces(data: &[u8], max: u32) -> (Answer, usize) {
    let mut reader = Reader::new(max);
    let mut end = 0;
    let mut lengths = data.iter().rev().map(|byte| usize::from(byte % 16));
    loop {
        let answer = owned(reader.read(&data[..end]));
        if answer != Ok(None) {
            assert_eq!(owned(reader.read(&data[..end])), answer, "asked again");
            return (answer, end);
        }
        if end == data.len() {
            return (answer, end);
        }
        end = data.len().min(end + lengths.next().unwrap_or(1));
    }
}

fn check_hello(hello: &ClientHello<'_>) {
    let parts = Parts::read(hello.message()).expect("a hello that was read has its parts");
    assert_eq!(parts.message(), hello.message(), "written again");
    let extensions = parts.extensions.unwrap_or_default();
    let content_of = |wanted: u16| {
        let mut found = extensions.iter().filter(|(kind, _)| *kind == wanted);
        let first = found.next().map(|(_, content)| content.as_slice());
        assert!(found.next().is_none(), "extension {wanted} twice");
        first
    };
    let protocols: Vec<&[u8]> = hello.alpn().collect();
    let written = (!protocols.is_empty()).then(|| forge::alpn(&protocols).1);
    assert_eq!(written.as_deref(), content_of(16), "protocols written again");
    let name = content_of(0);
    match hello.server_name() {
        ServerName::Absent => assert_eq!(name, None),
        ServerName::Address => assert!(name.is_some()),
        ServerName::Host(host) => {
            let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
            assert!((1..=255).contains(&host.len()) && host.bytes().all(known), "{host:?}");
            assert!(host.split('.').all(|label| !label.is_empty()), "{host:?}");
            assert!(host.parse::<std::net::IpAddr>().is_err(), "{host:?}");
            let as_sent = |host: &str| {
                let content = forge::server_name(host.as_bytes()).1;
                name.is_some_and(|name| name.eq_ignore_ascii_case(&content))
            };
            assert!(as_sent(&host) || as_sent(&format!("{host}.")), "{host:?} of {name:?}");
        }
    }
}

/// The same message in records whose sizes the data says.
fn check_records(hello: &ClientHello<'_>, data: &[u8]) {
    let sizes = data.iter().cycle().map(|byte| usize::from(*byte).max(1));
    let stream = forge::records(hello.message(), sizes);
    let (again, decided_at) = in_pieces(&stream, MESSAGE_MAX);
    assert_eq!(again.as_ref(), Ok(&Some(hello.clone())), "in other records");
    assert!(decided_at <= Reader::new(MESSAGE_MAX).bytes_max());
}
