//! The bodies of the fuzz targets: what must hold for every input.

use super::{
    CancelKey, GSSENC_REQUEST, KeyWatch, SSL_REQUEST, STARTUP_MAX, Startup, WATCHED_BYTES_MAX, Watched, read_startup,
};

/// Reads arbitrary bytes as a client's first ones, and panics when a promise of the reader is broken: what it says does
/// not depend on how the bytes were cut, nor on what follows; what it has read can be written again.
pub fn fuzz_startup(data: &[u8]) {
    let found = read_startup(data);
    let mut decided = false;
    // What decides lies in the first 268 bytes.
    for cut in 0..data.len().min(300) {
        let part = read_startup(data.get(..cut).unwrap_or_default());
        if decided || part != Ok(None) {
            assert_eq!(part, found, "with {cut} bytes");
            decided = true;
        }
    }
    match &found {
        Ok(None) => assert!(
            data.len() < 268,
            "a CancelRequest with the longest key has come by then"
        ),
        Ok(Some((startup, bytes))) => {
            let message = data
                .get(..*bytes)
                .unwrap_or_else(|| panic!("a message of {bytes} bytes in {}", data.len()));
            match startup {
                Startup::SslRequest => assert_eq!(message, SSL_REQUEST),
                Startup::GssEncRequest => assert_eq!(message, GSSENC_REQUEST),
                Startup::Cancel(key) => {
                    let mut again = Vec::new();
                    key.write_request(&mut again);
                    assert_eq!(message, again, "re-encoded");
                }
                Startup::Startup { len } => {
                    assert!((8..=STARTUP_MAX).contains(len) && message.is_empty());
                    assert!(data.starts_with(&len.to_be_bytes()));
                }
                Startup::DirectTls => assert!(data.starts_with(&[0x16]) && message.is_empty()),
            }
        }
        Err(_) => {
            let more = [data, &[0; 8]].concat();
            assert_eq!(read_startup(&more), found, "an error stays one");
        }
    }
}

/// Watches arbitrary bytes as a server's, in pieces whose sizes the input chooses, and panics when what is seen differs
/// from what a plain reader sees that has all of them at once.
///
/// The first byte tells how many sizes follow; what comes after them is the server's.
pub fn fuzz_key_watch(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let (sizes, server) = rest.split_at_checked(usize::from(count % 16)).unwrap_or((&[], rest));
    let expected = watch_plainly(server);
    assert_eq!(watch_in_pieces(server, sizes), expected, "in pieces of {sizes:?}");
    assert_eq!(watch_in_pieces(server, &[0]), expected, "byte by byte");
    assert_eq!(watch_in_pieces(server, &[]), expected, "in one piece");
}

/// What is seen in the end, and after how many bytes. The sizes are used in turn, each plus one; none: one piece.
fn watch_in_pieces(server: &[u8], sizes: &[u8]) -> (Watched, usize) {
    let mut watch = KeyWatch::new();
    let mut sizes = sizes.iter().cycle();
    let (mut rest, mut fed) = (server, 0);
    loop {
        let size = sizes.next().map_or(rest.len(), |size| usize::from(*size) + 1);
        let (piece, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
        let watched = watch.feed(piece);
        fed += piece.len();
        if watched != Watched::More || after.is_empty() {
            // Where in a piece the end lay is not told, so that is found by the plain reader's measure: no later than
            // the piece that holds it.
            let end = watch_plainly(server).1;
            let late = watched != Watched::More && (fed < end || fed - piece.len() >= end);
            assert!(
                !late,
                "seen after {fed} bytes with a piece of {}, not {end}",
                piece.len()
            );
            if watched != Watched::More {
                assert_eq!(
                    watch.feed(b"K\0\0\0\x0C12345678"),
                    Watched::Over,
                    "nothing is seen after the end"
                );
            }
            return (watched, end);
        }
        rest = after;
    }
}

/// What is seen in these bytes, and with how many of them that is certain (all of them when it is `More`). Written over
/// positions in the whole, so that nothing of it is like the watch.
fn watch_plainly(server: &[u8]) -> (Watched, usize) {
    let most = WATCHED_BYTES_MAX as usize;
    let watched = server.get(..most).unwrap_or(server);
    let more = match watched.len() {
        len if len == most => (Watched::Over, most),
        len => (Watched::More, len),
    };
    let at = |position: usize| watched.get(position).copied();
    let mut position = 0;
    while at(position) == Some(b'N') {
        match at(position + 1) {
            None => return more,
            // A notice: a message as any other.
            Some(0) => break,
            Some(_) => position += 1,
        }
    }
    if matches!(at(position), Some(b'S' | b'G')) {
        return (Watched::Over, position + 1);
    }
    loop {
        match at(position) {
            None => return more,
            Some(b'R' | b'S' | b'N' | b'E' | b'v' | b'K') => {}
            Some(_) => return (Watched::Over, position + 1),
        }
        let Some(length) = watched.get(position + 1..).and_then(|rest| rest.first_chunk()) else {
            return more;
        };
        let length = u32::from_be_bytes(*length) as usize;
        let body = position + 5;
        let is_key = at(position) == Some(b'K');
        let possible = if is_key { 12..=264 } else { 4..=most + 4 };
        if !possible.contains(&length) {
            return (Watched::Over, body);
        }
        let end = position + 1 + length;
        match watched.get(body..end) {
            None => return more,
            Some(fields) if is_key => {
                let (pid, key) = fields.split_at_checked(4).unwrap_or_default();
                let pid = pid.iter().fold(0, |pid, byte| pid << 8 | u32::from(*byte));
                let key = CancelKey::new(pid, key);
                return (key.map_or(Watched::Over, Watched::Key), end);
            }
            Some(_) => position = end,
        }
    }
}
