//! Sizes, and how early an answer comes.

use crate::{Said, ask, read, read_in_pieces};
use ringway_wire::hello::forge::{self, Parts};
use ringway_wire::hello::{HelloError, MESSAGE_MAX, Reader};

/// A hello whose message has this many bytes, by the padding extension (RFC 7685).
fn of_size(size: usize) -> Vec<u8> {
    let mut parts = Parts::new(Some("large.example.com"), &[b"h2"]);
    let without = parts.message().len() + 4;
    parts
        .extensions
        .as_mut()
        .expect("extensions")
        .push((21, vec![0; size - without]));
    let message = parts.message();
    assert_eq!(message.len(), size);
    message
}

fn large() -> Said {
    Said {
        name: "large.example.com".to_owned(),
        protocols: vec![b"h2".to_vec()],
    }
}

#[test]
fn the_maximum_is_read_and_one_byte_more_is_refused_at_once() {
    for max in [1024, 1025, 16_384, 16_388, 65_536] {
        let sizes = [&[][..], &[1; 100_000], &[3, 1], &[max - 1], &[max]];
        for sizes in sizes {
            let stream = forge::records(&of_size(max), sizes.iter().map(|size| *size.min(&16_384)));
            let mut reader = Reader::new(max as u32);
            assert!(stream.len() <= reader.bytes_max());
            assert_eq!(ask(&mut reader, &stream), Ok(Some(large())), "{max}");
        }
        if max == 65_536 {
            continue;
        }
        let message = of_size(max + 1);
        let mut reader = Reader::new(max as u32);
        // A record's header and three bytes: the length is not yet known.
        assert_eq!(ask(&mut reader, &forge::records(&message, [])[..8]), Ok(None));
        assert_eq!(
            ask(&mut reader, &forge::records(&message, [])[..9]),
            Err(HelloError::TooLarge)
        );
    }
}

#[test]
fn more_than_64_kib_is_refused_with_any_maximum() {
    // Lengths of 65,533 (65,537 with the header) and of 2^24 - 1.
    for length in [[0, 0xFF, 0xFD], [0xFF, 0xFF, 0xFF]] {
        let stream = [&[22, 3, 1, 0x40, 0, 1][..], &length].concat();
        assert_eq!(read(&stream), Err(HelloError::TooLarge));
    }
    assert_eq!(read(&[22, 3, 1, 0x40, 0, 1, 0, 0xFF, 0xFC]), Ok(None));
}

/// 393,216 reads. A reader that walked all records again with each would take 39 thousand million steps.
#[test]
fn a_byte_at_a_time_in_records_of_a_byte_takes_no_quadratic_time() {
    let stream = forge::records(&of_size(MESSAGE_MAX as usize), std::iter::repeat(1));
    assert_eq!(stream.len(), Reader::new(MESSAGE_MAX).bytes_max());
    assert_eq!(read_in_pieces(&stream, 0..stream.len()), Ok(Some(large())));
}

#[test]
fn a_reader_is_small() {
    assert!(size_of::<Reader>() <= 48);
}

/// The last byte of each decides; without it the answer is "more".
#[test]
fn strangers_are_known_by_their_first_bytes() {
    let first_record = forge::records(&of_size(1024)[..100], []);
    let then = |behind: &[u8]| [&first_record[..], behind].concat();
    use HelloError::{BadRecord, NotClientHello, NotTls, Sslv2};
    for (bytes, error) in [
        (b"G".to_vec(), NotTls),
        (b"S".to_vec(), NotTls),
        (b"\n".to_vec(), NotTls),
        (vec![0], NotTls),
        // Records of other types: change cipher spec, alert, data, heartbeat.
        (vec![20], NotTls),
        (vec![21], NotTls),
        (vec![23], NotTls),
        (vec![24], NotTls),
        (vec![22, 2], NotTls),
        (vec![22, 4], NotTls),
        // SSLv2: client hello, then another message; without the high bit a record with padding.
        (vec![0x80, 46, 1], Sslv2),
        (vec![0xFF, 255, 1], Sslv2),
        (vec![0x80, 46, 4], NotTls),
        (vec![0x40], NotTls),
        // Records: empty, of 16,385 bytes, of at least 16,640.
        (vec![22, 3, 1, 0, 0], BadRecord),
        (vec![22, 3, 1, 0x40, 1], BadRecord),
        (vec![22, 3, 1, 0x41], BadRecord),
        (vec![22, 3, 1, 0xFF], BadRecord),
        // Hello request, server hello.
        (vec![22, 3, 3, 0, 4, 0], NotClientHello),
        (vec![22, 3, 3, 0, 4, 2], NotClientHello),
        // In the middle of the message.
        (then(&[21]), BadRecord),
        (then(&[20]), BadRecord),
        (then(&[0x80]), BadRecord),
        (then(b"G"), BadRecord),
        (then(&[22, 2]), BadRecord),
        (then(&[22, 3, 3, 0, 0]), BadRecord),
        (then(&[22, 3, 3, 0x40, 1]), BadRecord),
    ] {
        let (_, before) = bytes.split_last().expect("a byte");
        assert_eq!(read(before), Ok(None), "{bytes:?}");
        assert_eq!(read(&bytes), Err(error), "{bytes:?}");
        assert_eq!(read(&[&bytes[..], b" HTTP/1.1\r\n"].concat()), Err(error), "{bytes:?}");
        assert_eq!(read_in_pieces(&bytes, 0..bytes.len()), Err(error), "{bytes:?}");
    }
}

#[test]
fn any_minor_version_will_do() {
    // RFC 8446 section 5.1: the record's version is to be ignored. 0x0300 came from SSL 3.0, 0x0301 comes from all.
    for minor in [0, 1, 2, 3, 4, 255] {
        let mut stream = forge::records(&of_size(1024), [500]);
        stream[2] = minor;
        stream[507] = !minor;
        assert_eq!(read(&stream), Ok(Some(large())));
    }
}

#[test]
fn asked_again_it_answers_the_same() {
    let stream = forge::records(&of_size(2048), [7, 1000]);
    let mut reader = Reader::new(4096);
    for _ in 0..3 {
        assert_eq!(ask(&mut reader, &stream[..1500]), Ok(None));
    }
    for _ in 0..3 {
        assert_eq!(ask(&mut reader, &stream), Ok(Some(large())));
    }
    let mut reader = Reader::new(1024);
    for _ in 0..3 {
        assert_eq!(ask(&mut reader, &stream), Err(HelloError::TooLarge));
    }
}

#[test]
#[should_panic(expected = "max >= MESSAGE_MAX_LEAST")]
fn a_maximum_below_1_kib_is_our_own_mistake() {
    let _ = Reader::new(1023);
}
