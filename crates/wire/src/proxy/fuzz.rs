//! The body of the fuzz target: what must hold for every input.

use super::{
    Accept, Addresses, Command, HEADER_MAX, Header, LINE_MAX, Outgoing, ProxyError, Transport, Version, read, tlv,
};

const BOTH: Accept = Accept { v1: true, v2: true };

/// Reads arbitrary bytes as a connection's first ones, and panics when a promise of the reader is broken: what it says
/// does not depend on how the bytes were cut, nor on what follows the header; it keeps within the length declared and
/// the caller's limit; what the writer can say comes out of the writer the same.
pub fn fuzz_proxy(data: &[u8]) {
    let found = read(data, BOTH, HEADER_MAX);
    check_cuts(data, &found);
    match &found {
        Ok(None) => assert!(data.len() < HEADER_MAX, "a limit ends the waiting"),
        Ok(Some(header)) => check_header(data, header),
        Err(_) => {
            let more = [data, b"\r\n more"].concat();
            assert_eq!(read(&more, BOTH, HEADER_MAX), found, "an error stays one");
        }
    }
}

/// Every prefix asks for more, until what is found at the end is found; then it stays.
fn check_cuts(data: &[u8], found: &Result<Option<Header<'_>>, ProxyError>) {
    // Each try costs up to a header's length for the checksum, so of large inputs only their beginning is cut everywhere.
    let cuts = (0..data.len()).filter(|cut| *cut < 300 || cut.is_multiple_of(4_099) || cut + 20 > data.len());
    let mut decided = false;
    for cut in cuts {
        let part = read(data.get(..cut).unwrap_or_default(), BOTH, HEADER_MAX);
        if decided || part != Ok(None) {
            assert_eq!(&part, found, "with {cut} bytes");
            decided = true;
        }
    }
}

fn check_header(data: &[u8], header: &Header<'_>) {
    let bytes = data
        .get(..header.len)
        .unwrap_or_else(|| panic!("a header of {} bytes in {}", header.len, data.len()));
    assert_eq!(
        read(bytes, BOTH, header.len),
        Ok(Some(*header)),
        "its own bytes suffice"
    );
    assert_eq!(read(data, BOTH, header.len - 1), Err(ProxyError::TooLong));
    let neither = Accept { v1: false, v2: false };
    assert_eq!(read(data, neither, HEADER_MAX), Err(ProxyError::VersionNotAccepted));
    let tlvs: usize = header.tlvs().map(|(_, value)| tlv::HEAD_BYTES + value.len()).sum();
    match header.version {
        Version::V1 => assert!(header.len <= LINE_MAX && tlvs == 0 && bytes.ends_with(b"\r\n")),
        Version::V2 => assert!(tlvs + super::FIXED_BYTES <= header.len),
    }
    assert!(header.unique_id().is_none_or(|id| id.len() <= super::UNIQUE_ID_MAX));
    assert!(header.command == Command::Proxy || header.addresses == Addresses::Unknown);
    check_rewriting(bytes, header);
}

fn check_rewriting(bytes: &[u8], header: &Header<'_>) {
    let outgoing = Outgoing {
        version: header.version,
        source: header.addresses.source(),
        destination: header.addresses.destination(),
        transport: match header.addresses {
            Addresses::Udp { .. } => Transport::Datagram,
            Addresses::Unknown | Addresses::Tcp { .. } | Addresses::Unix { .. } => Transport::Stream,
        },
        local: header.command == Command::Local,
        authority: header.authority(),
        alpn: header.alpn(),
        unique_id: header.unique_id(),
        checksum: header.tlvs().any(|(kind, _)| kind == tlv::CRC32C),
    };
    let mut written = Vec::new();
    outgoing.write(&mut written);
    let again = match read(&written, BOTH, HEADER_MAX) {
        Ok(Some(again)) => again,
        other => panic!("{written:02X?} of ours is read as {other:?}"),
    };
    assert_eq!(again.len, written.len());
    assert_eq!((again.version, again.command), (header.version, header.command));
    assert_eq!(again.addresses.source(), header.addresses.source());
    assert_eq!(again.addresses.destination(), header.addresses.destination());
    assert_eq!(again.authority(), header.authority());
    assert_eq!(again.alpn(), header.alpn());
    assert_eq!(again.unique_id(), header.unique_id());
    if is_as_we_write(bytes, header) {
        assert_eq!(written, bytes, "re-encoded");
    }
}

/// Whether the writer has but one way to say this, and it is this one: IPv4 (or nothing) in the canonical order of TLVs.
fn is_as_we_write(bytes: &[u8], header: &Header<'_>) -> bool {
    let family = bytes.get(13);
    let known = match header.version {
        // Text in the form that numbers and addresses are written in, by which no other text is read.
        Version::V1 => return bytes.starts_with(b"PROXY TCP4 "),
        Version::V2 => match header.addresses {
            Addresses::Tcp { .. } | Addresses::Udp { .. } => matches!(family, Some(0x11 | 0x12)),
            Addresses::Unknown => family == Some(&0) && (header.len == super::FIXED_BYTES || header.tlvs().count() > 0),
            Addresses::Unix { .. } => false,
        },
    };
    let kinds = [tlv::ALPN, tlv::AUTHORITY, tlv::UNIQUE_ID, tlv::CRC32C];
    let mut expected = kinds.iter();
    known
        && header
            .tlvs()
            .all(|(kind, _)| expected.any(|expected| *expected == kind))
}
