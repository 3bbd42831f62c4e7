//! Hellos of real clients, as they came; crates/wire/tests/hellos/README.md tells how each was made. The names here are
//! those that the clients were told.

use crate::{ABSENT, ADDRESS, Said, message_of, read, read_in_pieces};
use ringway_wire::hello::{Reader, forge};

pub(crate) struct Capture {
    pub(crate) file: &'static str,
    pub(crate) bytes: &'static [u8],
    name: &'static str,
    protocols: &'static [&'static str],
}

impl Capture {
    fn said(&self) -> Said {
        Said {
            name: self.name.to_owned(),
            protocols: self.protocols.iter().map(|name| name.as_bytes().to_vec()).collect(),
        }
    }
}

macro_rules! captures {
    ($($file:literal: $name:expr, $protocols:expr;)*) => {
        &[$(Capture {
            file: $file,
            bytes: include_bytes!(concat!("../hellos/", $file)),
            name: $name,
            protocols: &$protocols,
        }),*]
    };
}

const WEB: [&str; 2] = ["h2", "http/1.1"];

pub(crate) const CAPTURES: &[Capture] = captures! {
    "chromium": "chromium.example.com", WEB;
    "curl": "curl.example.com", WEB;
    "curl-address": ABSENT, WEB;
    "firefox": "firefox.example.com", WEB;
    "gnutls": "gnutls.example.com", WEB;
    "gnutls-no-extensions": ABSENT, [];
    "gnutls-tls12": "gnutls12.example.com", [];
    "go": "go.example.com", ["h2"];
    "java": "java.example.com", WEB;
    "node": "node.example.com", WEB;
    "nss": "nss.example.com", [];
    "openssl": "openssl.example.com", WEB;
    "openssl-address": ADDRESS, [];
    "openssl-address-v6": ADDRESS, [];
    "openssl-capitals": "capitals.example.com", ["postgresql"];
    "openssl-no-name": ABSENT, ["acme-tls/1"];
    "openssl-p521": "p521.example.com", [];
    "openssl-resumed": "resumed.example.com", [];
    "openssl-tls10": "openssl10.example.com", [];
    "openssl-tls12": "openssl12.example.com", [];
    "openssl-trailing-dot": "dot.example.com", [];
    "psql": "psql.example.com", [];
    "python": "python.example.com", ["http/1.1"];
    "rustls-address": ABSENT, [];
    "rustls-fragments": "fragments.example.com", ["h2"];
    "rustls-mlkem": "mlkem.example.com", WEB;
    "rustls-ring": "rustls.example.com", ["h2"];
    "rustls-tls12": "rustls12.example.com", [];
};

#[test]
fn no_file_is_forgotten() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hellos");
    let files = std::fs::read_dir(folder).expect("the folder of hellos");
    let mut files: Vec<String> = files
        .map(|file| file.expect("a file").file_name().into_string().expect("a plain name"))
        .collect();
    files.sort_unstable();
    let mut known: Vec<&str> = CAPTURES.iter().map(|capture| capture.file).collect();
    known.insert(0, "README.md");
    assert_eq!(files, known);
}

#[test]
fn each_says_what_its_client_was_told() {
    for capture in CAPTURES {
        assert_eq!(read(capture.bytes), Ok(Some(capture.said())), "{}", capture.file);
    }
}

/// What gives the files their worth: a key share of X25519MLKEM768 (4588), an ECH extension (65037), GREASE, a
/// pre_shared_key (41), no extensions at all, several records.
#[test]
fn they_hold_what_they_were_chosen_for() {
    let parts = |file: &str| {
        let capture = CAPTURES.iter().find(|capture| capture.file == file);
        forge::Parts::read(&message_of(capture.expect("a file").bytes)).expect("its parts")
    };
    let has = |file: &str, wanted: &dyn Fn(u16, &[u8]) -> bool| {
        let extensions = parts(file).extensions.unwrap_or_default();
        extensions.iter().any(|(kind, content)| wanted(*kind, content))
    };
    let shares_mlkem =
        |kind: u16, content: &[u8]| kind == 51 && content.windows(4).any(|part| part == [0x11, 0xEC, 4, 0xC0]);
    for file in ["chromium", "firefox", "rustls-mlkem", "rustls-fragments"] {
        assert!(has(file, &shares_mlkem), "{file}");
    }
    for file in ["chromium", "firefox"] {
        assert!(has(file, &|kind, _| kind == 65037), "{file}");
    }
    assert!(has("chromium", &|kind, _| kind & 0x0F0F == 0x0A0A));
    assert!(has("openssl-resumed", &|kind, _| kind == 41));
    assert_eq!(parts("gnutls-no-extensions").extensions, None);
    let several = CAPTURES
        .iter()
        .find(|capture| capture.file == "rustls-fragments")
        .expect("a file");
    assert_eq!(several.bytes[3..5], [0, 59], "small records");
}

#[test]
fn every_prefix_asks_for_more() {
    for capture in CAPTURES {
        for end in 0..capture.bytes.len() {
            assert_eq!(read(&capture.bytes[..end]), Ok(None), "{}: {end} bytes", capture.file);
        }
    }
}

#[test]
fn a_byte_at_a_time_says_the_same() {
    for capture in CAPTURES {
        let bytes = capture.bytes;
        assert_eq!(
            read_in_pieces(bytes, 0..bytes.len()),
            Ok(Some(capture.said())),
            "{}",
            capture.file
        );
    }
}

#[test]
fn in_two_segments_it_says_the_same() {
    for capture in CAPTURES {
        for cut in 0..capture.bytes.len() {
            let answer = read_in_pieces(capture.bytes, [cut]);
            assert_eq!(answer, Ok(Some(capture.said())), "{}: {cut}", capture.file);
        }
    }
}

#[test]
fn in_two_records_it_says_the_same() {
    for capture in CAPTURES {
        let message = message_of(capture.bytes);
        for cut in 1..message.len() {
            let stream = forge::records(&message, [cut]);
            assert_eq!(stream.len(), message.len() + 10);
            assert_eq!(read(&stream), Ok(Some(capture.said())), "{}: {cut}", capture.file);
            // The end of the first record is the place where a careless reader stops.
            let around = cut + 4..cut + 11;
            assert_eq!(
                read_in_pieces(&stream, around),
                Ok(Some(capture.said())),
                "{}: {cut}",
                capture.file
            );
        }
    }
}

#[test]
fn one_byte_per_record_says_the_same() {
    for capture in CAPTURES {
        let message = message_of(capture.bytes);
        let stream = forge::records(&message, std::iter::repeat(1));
        assert_eq!(stream.len(), message.len() * 6);
        assert_eq!(
            read_in_pieces(&stream, 0..stream.len()),
            Ok(Some(capture.said())),
            "{}",
            capture.file
        );
    }
}

#[test]
fn what_follows_is_left_alone() {
    for capture in CAPTURES {
        for tail in [&b"\0"[..], &[0xFF; 300], capture.bytes] {
            let stream = [capture.bytes, tail].concat();
            assert_eq!(read(&stream), Ok(Some(capture.said())), "{}", capture.file);
        }
        // More of the same record, too.
        let message = message_of(capture.bytes);
        let stream = forge::records(&[&message[..], &[11; 9]].concat(), []);
        assert_eq!(read(&stream), Ok(Some(capture.said())), "{}", capture.file);
    }
}

/// A hello in one record is not copied.
#[test]
fn it_is_read_where_it_lies() {
    for capture in CAPTURES.iter().filter(|capture| capture.file != "rustls-fragments") {
        let mut reader = Reader::new(16 * 1024);
        let hello = reader.read(capture.bytes).expect("a hello").expect("a whole one");
        assert!(std::ptr::eq(hello.message(), &capture.bytes[5..]), "{}", capture.file);
    }
}

#[test]
fn every_message_is_the_sum_of_its_parts() {
    for capture in CAPTURES {
        let message = message_of(capture.bytes);
        let parts = forge::Parts::read(&message).expect("parts");
        assert_eq!(parts.message(), message, "{}", capture.file);
    }
}
