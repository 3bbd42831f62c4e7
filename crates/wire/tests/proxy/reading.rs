//! PROXY headers whose bytes and meaning come from the specification: what is read, what is refused, and how
//! early.

use crate::forge::{BOTH, IPV4_BLOCK, SIGNATURE, at, ipv6_block, tcp, tlv, v2};
use ringway_wire::proxy::{
    Accept, Addresses, Command, HEADER_MAX, Header, LINE_MAX, ProxyError, Transport, Version, read, tlv as kind,
};

/// A valid header: every strict prefix asks for more, what follows is left alone.
fn accepted(bytes: &[u8]) -> Header<'_> {
    for cut in 0..bytes.len() {
        assert_eq!(read(&bytes[..cut], BOTH, HEADER_MAX), Ok(None), "{cut} of {bytes:02X?}");
    }
    let header = read(bytes, BOTH, HEADER_MAX).unwrap().unwrap();
    assert_eq!(header.len, bytes.len());
    for payload in [&b"\r\n"[..], b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", &[0; 70_000]] {
        let more = [bytes, payload].concat();
        let with_payload = read(&more, BOTH, HEADER_MAX).unwrap().unwrap();
        assert_eq!(with_payload, header);
    }
    header
}

/// Refused with exactly the first `enough` bytes, not with fewer, whatever follows.
fn refused(bytes: &[u8], error: ProxyError, enough: usize) {
    for cut in 0..enough {
        assert_eq!(read(&bytes[..cut], BOTH, HEADER_MAX), Ok(None), "{cut} of {bytes:02X?}");
    }
    for cut in enough..=bytes.len() {
        assert_eq!(
            read(&bytes[..cut], BOTH, HEADER_MAX),
            Err(error),
            "{cut} of {bytes:02X?}"
        );
    }
}

#[test]
fn lines_of_version_1() {
    let example = accepted(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    assert_eq!((example.version, example.command), (Version::V1, Command::Proxy));
    assert_eq!(example.addresses, tcp("192.168.0.1:56324", "192.168.0.11:443"));
    assert_eq!(example.tlvs().count(), 0);

    let longest = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    assert_eq!(longest.len(), 56);
    assert_eq!(
        accepted(longest).addresses,
        tcp("255.255.255.255:65535", "255.255.255.255:65535")
    );
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
    assert_eq!(longest.len(), 104);
    let end = format!("[{full}]:65535");
    assert_eq!(accepted(longest.as_bytes()).addresses, tcp(&end, &end));
    assert_eq!(
        accepted(b"PROXY TCP6 2001:DB8::a ::1 0 1\r\n").addresses,
        tcp("[2001:db8::a]:0", "[::1]:1")
    );
}

#[test]
fn unknown_in_version_1_names_nobody() {
    let worst =
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(worst.len(), LINE_MAX);
    for line in [
        b"PROXY UNKNOWN\r\n",
        &b"PROXY UNKNOWN \r\n"[..],
        b"PROXY UNKNOWN 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY UNKNOWN \x00\xFF   TCP4\r\n",
        worst.as_bytes(),
    ] {
        let header = accepted(line);
        assert_eq!((header.command, header.addresses), (Command::Proxy, Addresses::Unknown));
        assert_eq!(header.addresses.source(), None);
    }
}

#[test]
fn what_is_no_line_is_refused_early() {
    // Not a byte more is waited for than decides.
    refused(b"GET / HTTP/1.1\r\n", ProxyError::NotProxy, 1);
    refused(b"\x16\x03\x01\x02\x00", ProxyError::NotProxy, 1);
    refused(b"POST / HTTP/1.1\r\n", ProxyError::NotProxy, 2);
    refused(b"PROXY\tTCP4", ProxyError::NotProxy, 6);
    refused(b"proxy TCP4 ", ProxyError::NotProxy, 1);
    refused(b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n", ProxyError::BadLine, 7);
    refused(b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", ProxyError::BadLine, 8);
    refused(b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n", ProxyError::BadLine, 10);
    refused(b"PROXY TCP4\r\n", ProxyError::BadLine, 11);
    refused(b"PROXY UNKNOWNS\r\n", ProxyError::BadLine, 14);
    refused(b"PROXY UNKNOWN\n", ProxyError::BadLine, 14);
    refused(b"PROXY UNKNOWN\r\r\n", ProxyError::BadLine, 15);
    refused(b"PROXY UNKNOWN x\n\r\n", ProxyError::BadLine, 16);
    refused(b"PROXY UNKNOWN x\ry\r\n", ProxyError::BadLine, 17);
}

#[test]
fn a_line_is_taken_strictly() {
    for (line, error) in [
        // The words.
        ("TCP4 1.2.3.4 5.6.7.8 1", ProxyError::BadLine),
        ("TCP4 1.2.3.4 5.6.7.8 1 2 3", ProxyError::BadLine),
        ("TCP4 1.2.3.4 5.6.7.8 1 2 ", ProxyError::BadLine),
        ("TCP4 1.2.3.4  5.6.7.8 1 2", ProxyError::BadLine),
        ("TCP4 ", ProxyError::BadLine),
        // Ports.
        ("TCP4 1.2.3.4 5.6.7.8 01 2", ProxyError::BadPort),
        ("TCP4 1.2.3.4 5.6.7.8 1 00", ProxyError::BadPort),
        ("TCP4 1.2.3.4 5.6.7.8 +1 2", ProxyError::BadPort),
        ("TCP4 1.2.3.4 5.6.7.8 -1 2", ProxyError::BadPort),
        ("TCP4 1.2.3.4 5.6.7.8 1 65536", ProxyError::BadPort),
        ("TCP4 1.2.3.4 5.6.7.8 1 4294967297", ProxyError::BadPort),
        ("TCP4 1.2.3.4 5.6.7.8 0x1 2", ProxyError::BadPort),
        ("TCP4 1.2.3.4 5.6.7.8 1 2\t", ProxyError::BadPort),
        ("TCP4 1.2.3.4 5.6.7.8 \u{0661} 2", ProxyError::BadPort),
        ("TCP4 1.2.3.4 5.6.7.8 1 \0", ProxyError::BadPort),
        // Addresses.
        ("TCP4 01.2.3.4 5.6.7.8 1 2", ProxyError::BadAddress),
        ("TCP4 1.2.3 5.6.7.8 1 2", ProxyError::BadAddress),
        ("TCP4 1.2.3.256 5.6.7.8 1 2", ProxyError::BadAddress),
        ("TCP4 1.2.3.4.5 5.6.7.8 1 2", ProxyError::BadAddress),
        ("TCP4 1.2.3.4 5.6.7.8. 1 2", ProxyError::BadAddress),
        ("TCP4 0x1.2.3.4 5.6.7.8 1 2", ProxyError::BadAddress),
        ("TCP4 ::1 ::2 1 2", ProxyError::BadAddress),
        ("TCP4 ::ffff:1.2.3.4 5.6.7.8 1 2", ProxyError::BadAddress),
        ("TCP6 1.2.3.4 5.6.7.8 1 2", ProxyError::BadAddress),
        ("TCP6 ::1 5.6.7.8 1 2", ProxyError::BadAddress),
        ("TCP6 fe80::1%eth0 ::2 1 2", ProxyError::BadAddress),
        ("TCP6 [::1] ::2 1 2", ProxyError::BadAddress),
        ("TCP6 1::2::3 ::2 1 2", ProxyError::BadAddress),
        ("TCP6 12345::1 ::2 1 2", ProxyError::BadAddress),
        ("TCP6 1:2:3:4:5:6:7 ::2 1 2", ProxyError::BadAddress),
        ("TCP6 1:2:3:4:5:6:7:8:9 ::2 1 2", ProxyError::BadAddress),
    ] {
        let line = format!("PROXY {line}\r\n");
        refused(line.as_bytes(), error, line.len());
    }
}

#[test]
fn a_line_ends_within_107_bytes() {
    let of = |bytes: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(bytes - 16));
    accepted(of(107).as_bytes());
    refused(of(108).as_bytes(), ProxyError::TooLong, 107);
    refused(of(109).as_bytes(), ProxyError::TooLong, 107);
    // Less room than that: what fits is taken all the same.
    let line = b"PROXY UNKNOWN\r\n";
    assert!(matches!(read(line, BOTH, 15), Ok(Some(_))));
    assert_eq!(read(&line[..14], BOTH, 14), Err(ProxyError::TooLong));
    assert_eq!(read(line, BOTH, 14), Err(ProxyError::TooLong));
    assert_eq!(read(line, BOTH, 0), Err(ProxyError::TooLong));
}

#[test]
fn families_of_version_2() {
    let tcp4 = v2(0x21, 0x11, IPV4_BLOCK);
    let header = accepted(&tcp4);
    assert_eq!(header.addresses, tcp("192.0.2.1:56324", "198.51.100.2:443"));
    assert_eq!((header.version, header.command), (Version::V2, Command::Proxy));
    let udp4 = v2(0x21, 0x12, IPV4_BLOCK);
    let (source, destination) = (at("192.0.2.1:56324"), at("198.51.100.2:443"));
    assert_eq!(accepted(&udp4).addresses, Addresses::Udp { source, destination });
    let tcp6 = v2(0x21, 0x21, &ipv6_block());
    assert_eq!(
        accepted(&tcp6).addresses,
        tcp("[2001:db8::1]:56324", "[2001:db8::2]:443")
    );
    let udp6 = v2(0x21, 0x22, &ipv6_block());
    let (source, destination) = (at("[2001:db8::1]:56324"), at("[2001:db8::2]:443"));
    assert_eq!(accepted(&udp6).addresses, Addresses::Udp { source, destination });

    let mut paths = [0; 216];
    paths[..6].copy_from_slice(b"/tmp/a");
    paths[108..115].copy_from_slice(b"\0hidden");
    for (family, transport) in [(0x31, Transport::Stream), (0x32, Transport::Datagram)] {
        let header = v2(0x21, family, &paths);
        let (source, destination) = (paths.first_chunk().unwrap(), paths.last_chunk().unwrap());
        assert_eq!(
            accepted(&header).addresses,
            Addresses::Unix {
                transport,
                source,
                destination
            }
        );
    }
}

#[test]
fn mapped_addresses_are_ipv4() {
    let mut block = ipv6_block();
    block[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 1]);
    let header = v2(0x21, 0x21, &block);
    assert_eq!(accepted(&header).addresses, tcp("192.0.2.1:56324", "[2001:db8::2]:443"));
    for source in ["::ffff:192.0.2.1", "::FFFF:c000:0201", "0:0:0:0:0:ffff:c000:201"] {
        let line = format!("PROXY TCP6 {source} 2001:db8::2 56324 443\r\n");
        assert_eq!(
            accepted(line.as_bytes()).addresses,
            tcp("192.0.2.1:56324", "[2001:db8::2]:443")
        );
    }
}

#[test]
fn unknown_families_are_skipped_by_their_length() {
    for family in (0..=0xFF).filter(|family| ![0x11, 0x12, 0x21, 0x22, 0x31, 0x32].contains(family)) {
        for length in [0, 1, 12, 300] {
            let bytes = v2(0x21, family, &vec![0xAA; length]);
            let header = accepted(&bytes);
            assert_eq!((header.addresses, header.tlvs().count()), (Addresses::Unknown, 0));
        }
    }
}

#[test]
fn local_keeps_the_real_peer_whatever_it_carries() {
    for family in 0..=0xFF {
        for block in [&[][..], &[0xAA], IPV4_BLOCK, &ipv6_block(), &[0; 216], &[0xFF; 300]] {
            let bytes = v2(0x20, family, block);
            let header = accepted(&bytes);
            assert_eq!((header.command, header.addresses), (Command::Local, Addresses::Unknown));
        }
    }
}

#[test]
fn what_is_no_binary_header_is_refused_early() {
    let good = v2(0x21, 0x11, IPV4_BLOCK);
    for byte in 1..SIGNATURE.len() {
        let mut bytes = good.clone();
        bytes[byte] ^= 0x20;
        refused(&bytes, ProxyError::NotProxy, byte + 1);
    }
    for (version_and_command, error) in [
        (0x11, ProxyError::BadVersion),
        (0x31, ProxyError::BadVersion),
        (0x01, ProxyError::BadVersion),
        (0x22, ProxyError::BadCommand),
        (0x2F, ProxyError::BadCommand),
    ] {
        refused(&v2(version_and_command, 0x11, IPV4_BLOCK), error, 13);
    }
    // A length without room for the addresses is known before they have come.
    for (family, needed) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)] {
        refused(&v2(0x21, family, &vec![0; needed - 1]), ProxyError::TooShort, 16);
        refused(&v2(0x21, family, &[]), ProxyError::TooShort, 16);
        accepted(&v2(0x21, family, &vec![0; needed]));
    }
}

#[test]
fn a_binary_header_is_bounded() {
    let bytes = v2(0x21, 0x11, &[IPV4_BLOCK, &tlv(kind::NOOP, &[0; 100])].concat());
    assert_eq!(bytes.len(), 131);
    assert!(matches!(read(&bytes, BOTH, 131), Ok(Some(_))));
    assert_eq!(read(&bytes[..15], BOTH, 130), Ok(None));
    assert_eq!(read(&bytes[..16], BOTH, 130), Err(ProxyError::TooLong));
    let largest = v2(0x21, 0x00, &[0; 65_535]);
    assert_eq!(largest.len(), HEADER_MAX);
    assert_eq!(read(&largest, BOTH, HEADER_MAX).unwrap().unwrap().len, HEADER_MAX);
}

#[test]
fn only_accepted_versions_are_taken() {
    let (line, binary) = (&b"PROXY UNKNOWN\r\n"[..], v2(0x20, 0, &[]));
    let (only_1, only_2) = (Accept { v1: true, v2: false }, Accept { v1: false, v2: true });
    assert!(matches!(read(line, only_1, HEADER_MAX), Ok(Some(_))));
    assert!(matches!(read(&binary, only_2, HEADER_MAX), Ok(Some(_))));
    assert_eq!(read(line, only_2, HEADER_MAX), Err(ProxyError::VersionNotAccepted));
    assert_eq!(read(&binary, only_1, HEADER_MAX), Err(ProxyError::VersionNotAccepted));
    assert_eq!(read(b"POST / HTTP/1.1", only_2, HEADER_MAX), Err(ProxyError::NotProxy));
}

/// Each case: what follows the addresses, and what is wrong with it.
#[test]
fn tlvs_fill_the_header_exactly() {
    let cases: &[(&[u8], Option<ProxyError>)] = &[
        (b"", None),
        (b"\x04\x00\x00", None),
        (b"\xEA\x00\x02ab\xEA\x00\x00", None),
        (b"\x04", Some(ProxyError::BadTlv)),
        (b"\x04\x00", Some(ProxyError::BadTlv)),
        (b"\x04\x00\x01", Some(ProxyError::BadTlv)),
        (b"\x04\x00\x00\x04", Some(ProxyError::BadTlv)),
        (b"\x04\xFF\xFFabc", Some(ProxyError::BadTlv)),
        (b"\x02\x00\x01a\x02\x00\x01a", Some(ProxyError::BadTlv)),
        (b"\x01\x00\x00\x01\x00\x00", Some(ProxyError::BadTlv)),
        (b"\x05\x00\x00\x05\x00\x00", Some(ProxyError::BadTlv)),
        (b"\x03\x00\x03abc", Some(ProxyError::BadTlv)),
        (b"\x03\x00\x05abcde", Some(ProxyError::BadTlv)),
        (b"\x03\x00\x04abcd", Some(ProxyError::BadChecksum)),
    ];
    for (tlvs, error) in cases {
        // Payload that continues an unfinished TLV must not be taken for a part of it.
        let bytes = v2(0x21, 0x11, &[IPV4_BLOCK, tlvs].concat());
        match error {
            None => assert!(accepted(&bytes).tlvs().map(|(_, value)| value.len() + 3).sum::<usize>() == tlvs.len()),
            Some(error) => refused(&bytes, *error, bytes.len()),
        }
        let with_payload = [&bytes[..], &[0; 64]].concat();
        assert_eq!(
            read(&with_payload, BOTH, HEADER_MAX).map(|_| ()).err(),
            *error,
            "{tlvs:02X?}"
        );
    }
    let id = v2(0x21, 0x11, &[IPV4_BLOCK, &tlv(kind::UNIQUE_ID, &[7; 128])].concat());
    assert_eq!(accepted(&id).unique_id(), Some(&[7; 128][..]));
    let long = v2(0x21, 0x11, &[IPV4_BLOCK, &tlv(kind::UNIQUE_ID, &[7; 129])].concat());
    refused(&long, ProxyError::BadTlv, long.len());
}
