//! The ClientHello that TLS connections of the benchmark begin with, and the names it can ask for.
//!
//! Nobody here speaks TLS: the client sends these bytes, and the backend of a name compares what reaches it with them.

use std::sync::LazyLock;

/// What a client of rustls 0.23.46 with aws-lc-rs sent first: TLS 1.3 only, key shares of X25519MLKEM768 and X25519, ALPN
/// `h2` and `http/1.1`, ECH with nothing in it (`EchGreaseConfig`). One record of 1,898 bytes, like a browser's.
const RECORDED: &[u8; 1_898] = include_bytes!("hello.bin");

/// Server names, one pool each. The first is the recorded one; all are as long, so that no length within changes.
pub(crate) const NAMES: [&str; 3] = ["api.bench.example", "web.bench.example", "sql.bench.example"];

/// Where the server name stands in [`RECORDED`].
const NAME_AT: usize = 185;

static HELLOS: LazyLock<[Vec<u8>; NAMES.len()]> = LazyLock::new(|| {
    NAMES.map(|name| {
        let mut hello = RECORDED.to_vec();
        hello[NAME_AT..NAME_AT + name.len()].copy_from_slice(name.as_bytes());
        hello
    })
});

/// The hello for `NAMES[index]`.
pub(crate) fn for_name(index: usize) -> &'static [u8] {
    &HELLOS[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> usize {
        bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
    }

    /// Reads by RFC 8446, sections 5.1, 4 and 4.1.2: a body of an extension.
    fn extension(hello: &[u8], wanted: usize) -> Option<&[u8]> {
        // Record: handshake (22) of the rest. Handshake: client_hello (1) of the rest.
        assert_eq!((hello[0], number(&hello[3..5])), (22, hello.len() - 5));
        assert_eq!((hello[5], number(&hello[6..9])), (1, hello.len() - 9));
        // Version and random, then the session id, cipher suites, compression methods.
        let mut at = 9 + 2 + 32;
        at += 1 + number(&hello[at..=at]);
        at += 2 + number(&hello[at..at + 2]);
        at += 1 + number(&hello[at..=at]);
        assert_eq!(number(&hello[at..at + 2]), hello.len() - at - 2);
        at += 2;
        while at < hello.len() {
            let (kind, length) = (number(&hello[at..at + 2]), number(&hello[at + 2..at + 4]));
            at += 4;
            if kind == wanted {
                return Some(&hello[at..at + length]);
            }
            at += length;
        }
        None
    }

    #[test]
    fn each_asks_for_its_name_and_for_nothing_else() {
        for (index, name) in NAMES.iter().enumerate() {
            // server_name (RFC 6066, section 3): the list's length, host_name (0), the name's length, the name.
            let expected = [&[0, 20, 0, 0, 17], name.as_bytes()].concat();
            assert_eq!(extension(for_name(index), 0), Some(&expected[..]));
        }
        let differ = (0..RECORDED.len()).filter(|&at| for_name(0)[at] != for_name(1)[at]);
        assert_eq!(differ.collect::<Vec<_>>(), [185, 186, 187]);
    }

    #[test]
    fn the_key_share_is_of_todays_size() {
        // key_share (51): the list's length, then X25519MLKEM768 (4588, IANA TLS Supported Groups) with its 1,216 bytes.
        let shares = extension(RECORDED, 51).expect("TLS 1.3 has key shares");
        assert_eq!((number(&shares[2..4]), number(&shares[4..6])), (0x11ec, 1_216));
        // ALPN (16), RFC 7301.
        assert_eq!(extension(RECORDED, 16), Some(&b"\x00\x0c\x02h2\x08http/1.1"[..]));
    }
}
