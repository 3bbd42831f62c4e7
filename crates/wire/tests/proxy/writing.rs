//! The writer: bytes worked out by hand, and what is written is read back.

use crate::forge::{BOTH, IPV4_BLOCK, at, crc32c, ipv6_block, tlv, v2, with_checksum};
use proptest::prelude::*;
use ringway_wire::proxy::{
    Addresses, Command, HEADER_MAX, Header, Outgoing, Transport, UNIQUE_ID_MAX, Version, read, tlv as kind,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const NOTHING: Outgoing<'_> = Outgoing {
    version: Version::V2,
    source: None,
    destination: None,
    transport: Transport::Stream,
    local: false,
    authority: None,
    alpn: None,
    unique_id: None,
    checksum: false,
};

fn between(version: Version, source: &str, destination: &str) -> Outgoing<'static> {
    Outgoing {
        version,
        source: Some(at(source)),
        destination: Some(at(destination)),
        ..NOTHING
    }
}

fn written(header: &Outgoing<'_>) -> Vec<u8> {
    // What is there already stays, and is not counted in.
    let mut out = b"before".to_vec();
    header.write(&mut out);
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

fn line(header: &Outgoing<'_>) -> String {
    String::from_utf8(written(header)).unwrap()
}

#[test]
fn lines() {
    let v4 = between(Version::V1, "192.168.0.1:56324", "192.168.0.11:443");
    assert_eq!(line(&v4), "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    let v6 = between(Version::V1, "[2001:db8::1]:0", "[::1]:65535");
    assert_eq!(line(&v6), "PROXY TCP6 2001:db8::1 ::1 0 65535\r\n");
    let mixed = between(Version::V1, "192.0.2.1:1", "[2001:db8::2]:2");
    assert_eq!(line(&mixed), "PROXY TCP6 ::ffff:c000:201 2001:db8::2 1 2\r\n");
    let mixed = between(Version::V1, "[2001:db8::2]:2", "10.0.0.1:1");
    assert_eq!(line(&mixed), "PROXY TCP6 2001:db8::2 ::ffff:a00:1 2 1\r\n");
    let mapped = between(Version::V1, "[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2");
    assert_eq!(line(&mapped), "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    let zone = Outgoing {
        source: Some(SocketAddr::V6(std::net::SocketAddrV6::new(
            Ipv6Addr::from_bits(0xFE80 << 112 | 1),
            7,
            9,
            3,
        ))),
        ..v6
    };
    assert_eq!(line(&zone), "PROXY TCP6 fe80::1 ::1 7 65535\r\n");
    let full = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    assert_eq!(line(&between(Version::V1, full, full)).len(), 104);
}

#[test]
fn what_version_1_cannot_say_is_unknown() {
    let v4 = between(Version::V1, "192.0.2.1:1", "192.0.2.2:2");
    let without_source = Outgoing { source: None, ..v4 };
    let without_destination = Outgoing {
        destination: None,
        ..v4
    };
    let datagram = Outgoing {
        transport: Transport::Datagram,
        ..v4
    };
    for header in [without_source, without_destination, datagram] {
        assert_eq!(line(&header), "PROXY UNKNOWN\r\n");
    }
    // Neither TLVs nor LOCAL exist; a health check tells its own addresses.
    let with_more = Outgoing {
        local: true,
        authority: Some(b"a.example"),
        unique_id: Some(b"1"),
        checksum: true,
        ..v4
    };
    assert_eq!(line(&with_more), "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

#[test]
fn binary_headers() {
    let v4 = between(Version::V2, "192.0.2.1:56324", "198.51.100.2:443");
    let v6 = between(Version::V2, "[2001:db8::1]:56324", "[2001:db8::2]:443");
    let datagram = |header| Outgoing {
        transport: Transport::Datagram,
        ..header
    };
    assert_eq!(written(&v4), v2(0x21, 0x11, IPV4_BLOCK));
    assert_eq!(written(&datagram(v4)), v2(0x21, 0x12, IPV4_BLOCK));
    assert_eq!(written(&v6), v2(0x21, 0x21, &ipv6_block()));
    assert_eq!(written(&datagram(v6)), v2(0x21, 0x22, &ipv6_block()));
    assert_eq!(written(&NOTHING), v2(0x21, 0x00, &[]));
    assert_eq!(written(&Outgoing { local: true, ..NOTHING }), v2(0x20, 0x00, &[]));
    assert_eq!(written(&Outgoing { local: true, ..v4 }), v2(0x20, 0x00, &[]));
    let mut mixed = ipv6_block();
    mixed[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 1]);
    assert_eq!(
        written(&between(Version::V2, "192.0.2.1:56324", "[2001:db8::2]:443")),
        v2(0x21, 0x21, &mixed)
    );
}

#[test]
fn tlvs_and_checksum() {
    let header = Outgoing {
        authority: Some(b"a.example"),
        alpn: Some(b"h2"),
        unique_id: Some(b"\x00\xFF"),
        ..between(Version::V2, "192.0.2.1:56324", "198.51.100.2:443")
    };
    let tlvs = b"\x01\x00\x02h2\x02\x00\x09a.example\x05\x00\x02\x00\xFF";
    assert_eq!(written(&header), v2(0x21, 0x11, &[IPV4_BLOCK, tlvs].concat()));
    let checked = Outgoing {
        checksum: true,
        ..header
    };
    assert_eq!(written(&checked), with_checksum(0x21, 0x11, IPV4_BLOCK, tlvs, b""));
    let local = Outgoing { local: true, ..checked };
    assert_eq!(written(&local), with_checksum(0x20, 0x00, b"", tlvs, b""));
    // The check value of the catalogue: the oracle here is CRC32c too.
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
}

#[test]
fn what_does_not_fit_is_left_out() {
    let id = [7; UNIQUE_ID_MAX + 1];
    let with_id = |bytes| Outgoing {
        unique_id: Some(&id[..bytes]),
        ..NOTHING
    };
    assert_eq!(written(&with_id(128)), v2(0x21, 0, &tlv(kind::UNIQUE_ID, &id[..128])));
    assert_eq!(written(&with_id(129)), v2(0x21, 0, &[]));
    let name = vec![b'a'; 70_000];
    for (bytes, fits) in [
        (65_525, true),
        (65_526, false),
        (65_535, false),
        (65_536, false),
        (70_000, false),
    ] {
        let header = Outgoing {
            authority: Some(&name[..bytes]),
            checksum: true,
            ..NOTHING
        };
        let bytes = written(&header);
        assert_eq!(bytes.len(), if fits { HEADER_MAX } else { 16 + 7 });
        let read = read(&bytes, BOTH, HEADER_MAX).unwrap().unwrap();
        assert_eq!((read.len, read.authority().is_some()), (bytes.len(), fits));
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        any::<[u8; 4]>().prop_map(|octets| IpAddr::from(Ipv4Addr::from(octets).to_ipv6_mapped())),
        any::<[u16; 2]>().prop_map(|[a, b]| IpAddr::from([a, 0, 0, 0, 0, 0, 0, b])),
    ];
    (address, any::<u16>()).prop_map(SocketAddr::from)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What a header would have to be written from, when a writer could have made it.
fn rewritten(header: &Header<'_>) -> Vec<u8> {
    let (source, destination) = (header.addresses.source(), header.addresses.destination());
    written(&Outgoing {
        version: header.version,
        source,
        destination,
        transport: match header.addresses {
            Addresses::Udp { .. } => Transport::Datagram,
            _ => Transport::Stream,
        },
        local: header.command == Command::Local,
        authority: header.authority(),
        alpn: header.alpn(),
        unique_id: header.unique_id(),
        checksum: header.tlvs().any(|(found, _)| found == kind::CRC32C),
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        ends in proptest::option::of((any_address(), any_address())),
        [v1, datagram, local, checksum] in any::<[bool; 4]>(),
        authority in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        alpn in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        unique_id in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=UNIQUE_ID_MAX)),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let header = Outgoing {
            version: if v1 { Version::V1 } else { Version::V2 },
            source: ends.map(|(source, _)| source),
            destination: ends.map(|(_, destination)| destination),
            transport: if datagram { Transport::Datagram } else { Transport::Stream },
            local,
            authority: authority.as_deref(),
            alpn: alpn.as_deref(),
            unique_id: unique_id.as_deref(),
            checksum,
        };
        let bytes = written(&header);
        for cut in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..cut], BOTH, HEADER_MAX), Ok(None));
        }
        let with_payload = [&bytes[..], &payload].concat();
        let found = read(&with_payload, BOTH, HEADER_MAX).unwrap().unwrap();
        prop_assert_eq!((found.len, found.version), (bytes.len(), header.version));
        prop_assert_eq!(found.command, if local && !v1 { Command::Local } else { Command::Proxy });
        let told = ends.filter(|_| if v1 { !datagram } else { !local });
        let expected = match told.map(|(source, destination)| (canonical(source), canonical(destination))) {
            None => Addresses::Unknown,
            Some((source, destination)) if datagram => Addresses::Udp { source, destination },
            Some((source, destination)) => Addresses::Tcp { source, destination },
        };
        prop_assert_eq!(found.addresses, expected);
        let value = |value: &Option<Vec<u8>>| value.clone().filter(|_| !v1);
        prop_assert_eq!(found.authority().map(<[u8]>::to_vec), value(&authority));
        prop_assert_eq!(found.alpn().map(<[u8]>::to_vec), value(&alpn));
        prop_assert_eq!(found.unique_id().map(<[u8]>::to_vec), value(&unique_id));
        prop_assert_eq!(rewritten(&found), bytes);
    }

    /// Headers of others that we could have written ourselves, TLVs in our order.
    #[test]
    fn what_is_read_is_written_again(
        block in any::<[u8; 12]>(),
        udp in any::<bool>(),
        authority in proptest::option::of("[a-z.]{0,30}"),
        checksum in any::<bool>(),
    ) {
        let family = if udp { 0x12 } else { 0x11 };
        let tlvs = authority.map_or(Vec::new(), |name| tlv(kind::AUTHORITY, name.as_bytes()));
        let bytes = if checksum {
            with_checksum(0x21, family, &block, &tlvs, b"")
        } else {
            v2(0x21, family, &[&block[..], &tlvs].concat())
        };
        let found = read(&bytes, BOTH, HEADER_MAX).unwrap().unwrap();
        prop_assert_eq!(rewritten(&found), bytes);
        let [a, b, c, d, e, f, g, h, ports @ ..] = block;
        let [from, to] = [[ports[0], ports[1]], [ports[2], ports[3]]].map(u16::from_be_bytes);
        let line = format!("PROXY TCP4 {a}.{b}.{c}.{d} {e}.{f}.{g}.{h} {from} {to}\r\n");
        let found = read(line.as_bytes(), BOTH, HEADER_MAX).unwrap().unwrap();
        prop_assert_eq!(rewritten(&found), line.as_bytes());
    }
}
