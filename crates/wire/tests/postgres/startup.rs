//! The first message of a client.

use ringway_wire::postgres::{
    CancelKey, GSSENC_REQUEST, SSL_REQUEST, STARTUP_MAX, Startup, StartupError, read_startup,
};
use std::collections::HashSet;

/// Decided with exactly `enough` bytes, whatever follows.
fn decided(bytes: &[u8], enough: usize, expected: Result<(Startup, usize), StartupError>) {
    for cut in 0..enough {
        assert_eq!(read_startup(&bytes[..cut]), Ok(None), "{cut} of {bytes:02X?}");
    }
    let expected = expected.map(Some);
    for cut in enough..=bytes.len() {
        assert_eq!(read_startup(&bytes[..cut]), expected, "{cut} of {bytes:02X?}");
    }
    assert_eq!(read_startup(&[bytes, &[0xAA; 300]].concat()), expected);
}

#[test]
fn requests_for_encryption() {
    // 80877103 and 80877104.
    assert_eq!(SSL_REQUEST, *b"\x00\x00\x00\x08\x04\xD2\x16\x2F");
    assert_eq!(GSSENC_REQUEST, *b"\x00\x00\x00\x08\x04\xD2\x16\x30");
    decided(&SSL_REQUEST, 8, Ok((Startup::SslRequest, 8)));
    decided(&GSSENC_REQUEST, 8, Ok((Startup::GssEncRequest, 8)));
    decided(b"\x00\x00\x00\x09\x04\xD2\x16\x2F\x00", 8, Err(StartupError::BadLength));
    decided(b"\x00\x00\x00\x0C\x04\xD2\x16\x30\x00", 8, Err(StartupError::BadLength));
}

#[test]
fn start_of_a_session() {
    // What libpq sends for `psql -U me`, cut short.
    let libpq = b"\x00\x00\x00\x20\x00\x03\x00\x00user\x00me\x00database\x00me\x00\x00";
    decided(libpq, 8, Ok((Startup::Startup { len: 32 }, 0)));
    // Version 3.2, the longest, the shortest.
    decided(
        b"\x00\x00\x27\x14\x00\x03\x00\x02user",
        8,
        Ok((Startup::Startup { len: 10_004 }, 0)),
    );
    assert_eq!(STARTUP_MAX, 10_004);
    decided(b"\x00\x00\x27\x15\x00\x03\x00\x02user", 4, Err(StartupError::BadLength));
    decided(
        b"\x00\x00\x00\x08\x00\x03\x00\x00",
        8,
        Ok((Startup::Startup { len: 8 }, 0)),
    );
    decided(b"\x00\x00\x00\x07\x00\x03\x00\x00", 4, Err(StartupError::BadLength));
    decided(b"\x00\x00\x00\x00", 4, Err(StartupError::BadLength));
}

#[test]
fn versions_nobody_speaks() {
    for version in [
        b"\x00\x02\x00\x00",
        b"\x00\x04\x00\x00",
        b"\x00\x01\x00\x00",
        b"\x04\xD2\x16\x2D",
        b"\x04\xD2\x16\x31",
        b"\x00\x00\x00\x00",
    ] {
        let bytes = [&b"\x00\x00\x00\x20"[..], version].concat();
        decided(&bytes, 8, Err(StartupError::BadVersion));
    }
}

#[test]
fn other_protocols_are_told_by_their_first_bytes() {
    decided(b"\x16\x03\x01\x02\x00", 1, Ok((Startup::DirectTls, 0)));
    decided(b"GET / HTTP/1.1\r\n", 1, Err(StartupError::NotPostgres));
    decided(b"SSH-2.0-OpenSSH\r\n", 1, Err(StartupError::NotPostgres));
    decided(b"\x80\x2E\x01\x03\x01", 1, Err(StartupError::NotPostgres));
    decided(b"\x00\x01\x00\x00", 2, Err(StartupError::NotPostgres));
    // A message of a session that has begun.
    decided(b"Q\x00\x00\x00\x08", 1, Err(StartupError::NotPostgres));
}

fn cancel(key: &[u8]) -> Vec<u8> {
    let length = u32::try_from(12 + key.len()).unwrap().to_be_bytes();
    [&length, b"\x04\xD2\x16\x2E", &0x0102_0304_u32.to_be_bytes()[..], key].concat()
}

#[test]
fn requests_to_cancel() {
    for bytes in [4, 5, 32, 255, 256] {
        let secret: Vec<u8> = (0..bytes).map(|byte| byte as u8).collect();
        let request = cancel(&secret);
        let key = CancelKey::new(0x0102_0304, &secret).unwrap();
        assert_eq!((key.pid(), key.key()), (0x0102_0304, &secret[..]));
        let mut written = Vec::new();
        key.write_request(&mut written);
        assert_eq!(written, request);
        decided(&request, request.len(), Ok((Startup::Cancel(key), request.len())));
    }
    for bytes in [0, 1, 3, 257, 1000] {
        decided(&cancel(&vec![0; bytes]), 8, Err(StartupError::BadLength));
        assert_eq!(CancelKey::new(1, &vec![0; bytes]), None);
    }
}

#[test]
fn keys_can_be_looked_up_and_are_not_shown() {
    let keys = [
        CancelKey::new(1, b"abcd"),
        CancelKey::new(2, b"abcd"),
        CancelKey::new(1, b"abce"),
        CancelKey::new(1, b"abcdabcd"),
    ];
    let set: HashSet<_> = keys.iter().flatten().cloned().collect();
    assert_eq!(set.len(), 4);
    assert!(set.contains(&CancelKey::new(1, b"abcdabcd").unwrap()));
    assert!(!set.contains(&CancelKey::new(3, b"abcd").unwrap()));
    let shown = format!("{:?}", keys[0]);
    assert!(
        shown.contains('1') && !shown.contains("abcd") && !shown.contains("97"),
        "{shown}"
    );
    assert!(size_of::<CancelKey>() <= 24);
}
