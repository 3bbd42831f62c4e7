//! What is wrong with a message, one thing at a time; and what is odd but right.

use crate::{ABSENT, ADDRESS, Said, read};
use ringway_wire::hello::HelloError::{self, BadName, Malformed};
use ringway_wire::hello::forge::{self, Parts};
use std::collections::BTreeSet;

type Change = fn(&mut Parts);

fn read_parts(parts: &Parts) -> crate::Answer {
    read(&forge::records(&parts.message(), []))
}

fn with_extensions(extensions: Vec<(u16, Vec<u8>)>) -> crate::Answer {
    let mut parts = Parts::new(None, &[]);
    parts.extensions.as_mut().expect("extensions").splice(0..0, extensions);
    read_parts(&parts)
}

fn named(name: &[u8]) -> Result<String, HelloError> {
    Ok(with_extensions(vec![forge::server_name(name)])?
        .expect("a whole hello")
        .name)
}

#[test]
fn names_are_brought_into_normal_form() {
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63)].join(".");
    assert_eq!(long.len(), 255);
    for (sent, expected) in [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("example.com.", "example.com"),
        ("EXAMPLE.COM.", "example.com"),
        ("localhost", "localhost"),
        ("a", "a"),
        ("_acme._tcp.x-y.example", "_acme._tcp.x-y.example"),
        ("-a-", "-a-"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        (&long, &long),
        // Numbers that are no addresses.
        ("1.2.3", "1.2.3"),
        ("1.2.3.4.5", "1.2.3.4.5"),
        ("256.1.1.1", "256.1.1.1"),
    ] {
        assert_eq!(named(sent.as_bytes()).as_deref(), Ok(expected));
    }
}

#[test]
fn addresses_name_no_host() {
    for sent in [
        "192.0.2.1",
        "0.0.0.0",
        "192.0.2.1.",
        "::",
        "2001:db8::1",
        "2001:DB8::A",
        "::ffff:192.0.2.1",
    ] {
        assert_eq!(named(sent.as_bytes()).as_deref(), Ok(ADDRESS), "{sent}");
    }
}

#[test]
fn what_is_no_host_name_is_refused() {
    let too_long = format!("{}.example.com", "a".repeat(244));
    assert_eq!(too_long.len(), 256);
    let dotted = format!("{}.", "a".repeat(255));
    for sent in [
        "",
        ".",
        "..",
        ".a",
        "a..",
        "a..b",
        "a b",
        " a",
        "a ",
        "*.example.com",
        "a\n",
        "a\r\nb",
        "a/b",
        "a:443",
        "a@b",
        "[::1]",
        "fe80::1%eth0",
        "b\u{fc}cher.example",
        "a\0",
        "\0",
        "a\0.example.com",
        "a,b",
        "a\"b",
        "a\\b",
        "a%00",
        "a\u{3002}b",
        &too_long,
        &dotted,
    ] {
        assert_eq!(named(sent.as_bytes()), Err(BadName), "{sent:?}");
    }
}

/// All 256 values of a byte, alone in a label.
#[test]
fn the_alphabet_is_closed() {
    let accepted: BTreeSet<u8> = (0..=255).filter(|byte| named(&[b'x', *byte, b'y']).is_ok()).collect();
    let expected = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    assert_eq!(accepted, expected.iter().copied().collect());
}

#[test]
fn a_list_holds_one_host_name_and_nothing_else() {
    let names = |list: &[(u8, &[u8])]| with_extensions(vec![forge::server_names(list)]);
    assert_eq!(names(&[]), Err(BadName));
    assert_eq!(names(&[(0, b"a.example"), (0, b"b.example")]), Err(BadName));
    assert_eq!(names(&[(0, b"a.example"), (0, b"a.example")]), Err(BadName));
    assert_eq!(names(&[(0, b"a.example"), (1, b"b.example")]), Err(BadName));
    assert_eq!(names(&[(1, b"a.example"), (0, b"b.example")]), Err(BadName));
    assert_eq!(names(&[(1, b"a.example")]), Err(BadName));
    for (content, error) in [
        // The extension: empty as servers send it, shorter and longer than its list.
        (&b""[..], Malformed),
        (b"\0", Malformed),
        (b"\0\x05\0\0\x02a", Malformed),
        (b"\0\x04\0\0\x01a.", Malformed),
        // The list: ends within the length of a name, within a name, behind a name.
        (b"\0\x01\0", Malformed),
        (b"\0\x02\0\0", Malformed),
        (b"\0\x04\0\0\x02a", Malformed),
        (b"\0\x05\0\0\x01a\0", BadName),
        (b"\0\0", BadName),
    ] {
        assert_eq!(with_extensions(vec![(0, content.to_vec())]), Err(error), "{content:?}");
    }
}

#[test]
fn protocols_keep_their_order_and_their_bytes() {
    let long = [0xA5; 255];
    for list in [
        &[&b"h2"[..], b"http/1.1"][..],
        &[b"http/1.1", b"h2", b"h2"],
        &[b"\0", b"\xFF\n", b" "],
        &[&long],
        // GREASE (RFC 8701).
        &[b"\x0A\x0A", b"h2"],
    ] {
        let said = with_extensions(vec![forge::alpn(list)])
            .expect("a hello")
            .expect("a whole one");
        assert_eq!(said.protocols, list);
        assert_eq!(said.name, ABSENT);
    }
}

#[test]
fn a_list_of_protocols_that_does_not_add_up_is_refused() {
    for content in [
        &b""[..],
        b"\0",
        b"\0\0",
        b"\0\x01\0",
        b"\0\x03\0\x01a",
        b"\0\x03\x01a\0",
        b"\0\x03\x03h2",
        b"\0\x04\x02h2",
        b"\0\x03\x02h2a",
        b"\0\x02\x02h2",
    ] {
        assert_eq!(
            with_extensions(vec![(16, content.to_vec())]),
            Err(Malformed),
            "{content:?}"
        );
    }
}

#[test]
fn no_extension_that_is_read_comes_twice() {
    let name = || forge::server_name(b"a.example");
    let other = || forge::server_name(b"b.example");
    let alpn = || forge::alpn(&[b"h2"]);
    let unknown = || (0x1234, vec![1, 2]);
    for twice in [
        vec![name(), name()],
        vec![name(), other()],
        vec![name(), unknown(), alpn(), other()],
        vec![forge::server_name(b"192.0.2.1"), name()],
        vec![name(), forge::server_name(b"192.0.2.1")],
        vec![alpn(), alpn()],
        vec![alpn(), unknown(), name(), forge::alpn(&[b"http/1.1"])],
    ] {
        assert_eq!(with_extensions(twice.clone()), Err(Malformed), "{twice:?}");
    }
    assert!(with_extensions(vec![unknown(), name(), unknown(), alpn()]).is_ok());
}

#[test]
fn the_fields_have_their_bounds() {
    let good: [Change; 7] = [
        |_| {},
        |parts| parts.session_id.clear(),
        |parts| parts.cipher_suites.truncate(2),
        |parts| parts.cipher_suites = vec![0x0A; 20_000],
        |parts| parts.compressions = vec![1, 0],
        |parts| parts.extensions = Some(Vec::new()),
        |parts| parts.extensions = None,
    ];
    for (index, change) in good.iter().enumerate() {
        let mut parts = Parts::new(Some("a.example"), &[]);
        change(&mut parts);
        let name = match &parts.extensions {
            Some(extensions) if !extensions.is_empty() => "a.example",
            Some(_) | None => ABSENT,
        };
        let said = Said {
            name: name.to_owned(),
            protocols: Vec::new(),
        };
        assert_eq!(read_parts(&parts), Ok(Some(said)), "{index}");
    }
    let bad: [Change; 5] = [
        |parts| parts.session_id.push(0),
        |parts| parts.session_id = vec![0; 255],
        |parts| parts.cipher_suites.clear(),
        |parts| parts.cipher_suites.push(0),
        |parts| parts.compressions.clear(),
    ];
    for (index, change) in bad.iter().enumerate() {
        let mut parts = Parts::new(Some("a.example"), &[]);
        change(&mut parts);
        assert_eq!(read_parts(&parts), Err(Malformed), "{index}");
    }
}

/// The message's own length is made to fit, so that only what is inside is wrong.
#[test]
fn a_message_is_used_up_to_its_last_byte() {
    let whole = Parts::new(Some("a.example"), &[b"h2"]).message();
    let read_body = |body: &[u8]| {
        let length = (body.len() as u32).to_be_bytes();
        let message = [&[1], &length[1..], body].concat();
        read(&forge::records(&message, []))
    };
    let body = &whole[4..];
    assert!(matches!(read_body(body), Ok(Some(_))));
    let without_extensions = Parts {
        extensions: None,
        ..Parts::new(None, &[])
    }
    .message()
    .len()
        - 4;
    for end in 0..body.len() {
        let answer = read_body(&body[..end]);
        if end == without_extensions {
            assert!(matches!(answer, Ok(Some(_))), "TLS 1.2 without extensions");
        } else {
            assert_eq!(answer, Err(Malformed), "{end} of {}", body.len());
        }
    }
    for tail in [&[0][..], &[0, 0], &[0, 0, 0, 0]] {
        assert_eq!(read_body(&[body, tail].concat()), Err(Malformed));
    }
}

#[test]
fn labels_are_constant_words_and_sentences_hold_nothing_of_the_client() {
    let labels: BTreeSet<&str> = HelloError::ALL.iter().map(|error| error.label()).collect();
    assert_eq!(labels.len(), HelloError::ALL.len());
    assert!(labels.iter().all(|label| {
        label
            .bytes()
            .all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte == b'2')
    }));
    assert_eq!(
        HelloError::BadName.to_string(),
        "the server_name extension does not hold exactly one host name"
    );
}
