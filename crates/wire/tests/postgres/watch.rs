//! The key among a server's first messages.

use ringway_wire::postgres::{CancelKey, KeyWatch, WATCHED_BYTES_MAX, Watched};

/// A server's message.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + body.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

pub(crate) fn key_data(key: &[u8]) -> Vec<u8> {
    message(b'K', &[&77_u32.to_be_bytes(), key].concat())
}

fn key(secret: &[u8]) -> Watched {
    Watched::Key(CancelKey::new(77, secret).unwrap())
}

/// What PostgreSQL 15 sends after a start-up message with SCRAM, in order: SASL, continue, final, ok, parameters; then
/// the key would come.
fn scram_session() -> Vec<Vec<u8>> {
    let parameter = |name: &str, value: &str| message(b'S', format!("{name}\0{value}\0").as_bytes());
    vec![
        message(b'R', b"\x00\x00\x00\x0ASCRAM-SHA-256\0\0"),
        message(b'R', &[b"\x00\x00\x00\x0B", &[b'r'; 90][..]].concat()),
        message(b'R', &[b"\x00\x00\x00\x0C", &[b'v'; 46][..]].concat()),
        message(b'R', b"\x00\x00\x00\x00"),
        parameter("in_hot_standby", "off"),
        parameter("server_version", "15.14 (Debian 15.14-0+deb12u1)"),
        message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0"),
        parameter("TimeZone", "Etc/UTC"),
    ]
}

/// The same is seen however the bytes are cut, and with the last of `bytes`, no earlier.
fn seen(bytes: &[u8], expected: &Watched) {
    for size in 1..=bytes.len() {
        let mut watch = KeyWatch::new();
        let pieces: Vec<_> = bytes.chunks(size).collect();
        let (last, before) = pieces.split_last().unwrap();
        for piece in before {
            assert_eq!(watch.feed(piece), Watched::More, "pieces of {size}");
            assert_eq!(watch.feed(b""), Watched::More);
        }
        assert_eq!(&watch.feed(last), expected, "pieces of {size}");
        if *expected != Watched::More {
            assert_eq!(watch.feed(&key_data(b"late")), Watched::Over);
        }
    }
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        let mut watch = KeyWatch::new();
        assert_eq!(watch.feed(first), Watched::More, "{cut} of {bytes:02X?}");
        assert_eq!(
            &watch.feed(&[second, b"Z\x00\x00\x00\x05I"].concat()),
            if *expected == Watched::More {
                &Watched::Over
            } else {
                expected
            }
        );
    }
}

#[test]
fn the_key_is_found_after_any_authentication() {
    let start = scram_session().concat();
    for secret in [&b"abcd"[..], &[7; 32], &[7; 256]] {
        seen(&[&start[..], &key_data(secret)].concat(), &key(secret));
    }
    // Trust, GSSAPI with a large ticket, an older minor version of the protocol.
    let trust = message(b'R', b"\x00\x00\x00\x00");
    let gss = message(b'R', &[&b"\x00\x00\x00\x08"[..], &[9; 1500]].concat());
    let negotiate = message(b'v', b"\x00\x03\x00\x00\x00\x00\x00\x00");
    let start = [negotiate, gss, trust].concat();
    seen(&[&start[..], &key_data(b"abcd")].concat(), &key(b"abcd"));
}

#[test]
fn an_answer_to_an_encryption_request_comes_first() {
    let session = [scram_session().concat(), key_data(b"abcd")].concat();
    // Refused, then plain; refused twice (GSSAPI, then TLS); refused, then a notice.
    seen(&[&b"N"[..], &session].concat(), &key(b"abcd"));
    seen(&[&b"NN"[..], &session].concat(), &key(b"abcd"));
    let notice = message(b'N', b"SWARNING\0\0");
    seen(&[&b"N"[..], &notice, &session].concat(), &key(b"abcd"));
    // A notice without a refusal.
    seen(&[&notice[..], &session].concat(), &key(b"abcd"));
    // Accepted: what follows is encrypted.
    seen(b"S", &Watched::Over);
    seen(b"G", &Watched::Over);
    seen(b"NS", &Watched::Over);
    seen(b"N", &Watched::More);
}

#[test]
fn a_session_without_a_key_is_over() {
    let start = scram_session().concat();
    seen(&start, &Watched::More);
    // ReadyForQuery is certain with its type.
    seen(&[&start[..], b"Z"].concat(), &Watched::Over);
    // An error ends no watch: the server closes after it.
    let error = message(b'E', b"SFATAL\0C28P01\0Mpassword authentication failed\0\0");
    seen(&[&start[..], &error].concat(), &Watched::More);
}

#[test]
fn what_is_not_postgresql_is_over() {
    for first in [
        &b"H"[..],
        b"\x16",
        b"\0",
        b"R\x00\x00\x00\x03",
        b"R\x00\x01\x00\x05",
        b"R\xFF\xFF\xFF\xFF",
        b"K\x00\x00\x00\x0B",
        b"K\x00\x00\x01\x09",
        b"S",
    ] {
        seen(first, &Watched::Over);
    }
    // MySQL's greeting, whose first byte is a length.
    seen(b"J", &Watched::Over);
}

#[test]
fn watching_ends_after_64_kib() {
    let most = WATCHED_BYTES_MAX as usize;
    assert_eq!(most, 65_536);
    let filler = |bytes: usize| message(b'R', &vec![b'x'; bytes - 5]);
    let with_key = |bytes: usize| [filler(bytes - 13), key_data(b"abcd")].concat();
    for size in [1, 1000, most + 13] {
        let end = |bytes: &[u8]| {
            let mut watch = KeyWatch::new();
            bytes
                .chunks(size)
                .map(|piece| watch.feed(piece))
                .find(|watched| *watched != Watched::More)
        };
        assert_eq!(end(&with_key(most)), Some(key(b"abcd")));
        assert_eq!(end(&with_key(most + 1)), Some(Watched::Over));
        assert_eq!(end(&filler(most - 1)), None);
        assert_eq!(end(&filler(most)), Some(Watched::Over));
    }
    assert!(size_of::<KeyWatch>() <= 64, "{}", size_of::<KeyWatch>());
}
