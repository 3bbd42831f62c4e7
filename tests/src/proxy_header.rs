//! Headers of the PROXY protocol, written by hand after its specification (proxy-protocol.txt, versions 1 and 2), and a
//! reading of them that tells only what the specification leaves no choice about.

use crate::seeded::Rng;
use std::net::{IpAddr, SocketAddr};

/// What a header of version 2 begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
pub const LINE_MAX: usize = 107;

/// Types of TLVs.
pub const ALPN: u8 = 0x01;
/// The name that the client asked for.
pub const AUTHORITY: u8 = 0x02;
/// CRC32c over the whole header.
pub const CRC32C: u8 = 0x03;
/// Padding.
pub const NOOP: u8 = 0x04;
/// Up to 128 bytes that the sender chose.
pub const UNIQUE_ID: u8 = 0x05;

/// Version 1, for a client at `source`.
pub fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let (from_port, to_port) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

/// Version 2, for a client at `source` over TCP, with these TLVs.
pub fn v2(source: SocketAddr, destination: SocketAddr, tlvs: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    let ip = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut rest = [ip(source), ip(destination)].concat();
    rest.extend(source.port().to_be_bytes());
    rest.extend(destination.port().to_be_bytes());
    rest.extend(tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value)));
    v2_of(0x21, family, &rest)
}

/// Version 2 with these bytes for version and command, family and protocol, and everything behind the length.
pub fn v2_of(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("at most 65,535 bytes").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

/// One type, length and value.
pub fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("at most 65,535 bytes").to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// Fills in the checksum of a header of version 2 that has room for it.
pub fn sealed(mut header: Vec<u8>) -> Vec<u8> {
    let at = checksum_place(&header).expect("there is a TLV for the checksum");
    header[at..at + 4].fill(0);
    let sum = crc32c(&header).to_be_bytes();
    header[at..at + 4].copy_from_slice(&sum);
    header
}

/// Where the four bytes of the checksum are.
fn checksum_place(header: &[u8]) -> Option<usize> {
    let mut found = None;
    each_tlv(header, |kind, at, length| {
        if kind == CRC32C && length == 4 {
            found = Some(at);
        }
    });
    found
}

/// Visits type, place and length of each TLV; false if they do not fill the header exactly.
fn each_tlv(header: &[u8], mut visit: impl FnMut(u8, usize, usize)) -> bool {
    let Some(mut at) = address_bytes(header[13]).map(|bytes| 16 + bytes) else {
        return true;
    };
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else {
            return false;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if at + 3 + length > header.len() {
            return false;
        }
        visit(kind, at + 3, length);
        at += 3 + length;
    }
    true
}

/// Bytes of the addresses of a family and protocol; `None` for those that the specification does not name.
fn address_bytes(family: u8) -> Option<usize> {
    match family {
        0x11 | 0x12 => Some(12),
        0x21 | 0x22 => Some(36),
        0x31 | 0x32 => Some(216),
        _ => None,
    }
}

/// CRC32c (RFC 3720, appendix B.4), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// What the specification says about bytes at the start of a connection that ends behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A header of so many bytes.
    Valid(usize),
    /// No header, an incomplete one, or one that must not be used.
    Invalid,
    /// A header of so many bytes, whose contents a strict receiver may refuse.
    Either(usize),
}

/// Reads.
pub fn verdict(bytes: &[u8]) -> Verdict {
    if bytes.starts_with(&SIGNATURE) {
        return v2_verdict(bytes);
    }
    let line = bytes.windows(2).take(LINE_MAX - 1).position(|end| end == b"\r\n");
    match line {
        Some(end) if bytes.starts_with(b"PROXY ") => v1_verdict(&bytes[..end], end + 2),
        _ => Verdict::Invalid,
    }
}

fn v2_verdict(bytes: &[u8]) -> Verdict {
    let Some(&[command, family, high, low]) = bytes.get(12..16) else {
        return Verdict::Invalid;
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, 0x20 | 0x21) || bytes.len() < length {
        return Verdict::Invalid;
    }
    let (header, local) = (&bytes[..length], command == 0x20);
    let Some(addresses) = address_bytes(family) else {
        return match (local, family, length) {
            // What a balancer sends that asks for itself.
            (true, 0x00, 16) => Verdict::Valid(length),
            _ => Verdict::Either(length),
        };
    };
    if length < 16 + addresses {
        return if local {
            Verdict::Either(length)
        } else {
            Verdict::Invalid
        };
    }
    let (mut seen, mut odd) = (Vec::new(), false);
    let fills = each_tlv(header, |kind, _, bytes| {
        odd |= kind == CRC32C && bytes != 4 || kind == UNIQUE_ID && bytes > 128;
        // Two of one kind may contradict each other.
        odd |= kind != NOOP && seen.contains(&kind);
        seen.push(kind);
    });
    let sums = seen.iter().filter(|kind| **kind == CRC32C).count();
    match (fills, sums) {
        (false, _) if local => Verdict::Either(length),
        (false, _) => Verdict::Invalid,
        (true, 1) if !odd && sealed(header.to_vec()) != header => Verdict::Invalid,
        (true, 0 | 1) if !odd && matches!(family, 0x11 | 0x21) => Verdict::Valid(length),
        _ => Verdict::Either(length),
    }
}

fn v1_verdict(line: &[u8], length: usize) -> Verdict {
    let Ok(line) = std::str::from_utf8(line) else {
        return Verdict::Invalid;
    };
    let fields: Vec<_> = line.split(' ').collect();
    if fields[1] == "UNKNOWN" {
        return if fields.len() == 2 {
            Verdict::Valid(length)
        } else {
            Verdict::Either(length)
        };
    }
    let [_, family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] = fields[..] else {
        return Verdict::Invalid;
    };
    let is_ip = |text: &str| {
        text.parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_ipv4() == (family == "TCP4"))
    };
    // A sign, or leading zeroes, are refused by some.
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port.to_string() == text);
    if [from, to].into_iter().all(is_ip) && [from_port, to_port].into_iter().all(is_port) {
        Verdict::Valid(length)
    } else {
        Verdict::Invalid
    }
}

/// A header that is not damaged, of any kind.
pub fn any(rng: &mut Rng) -> Vec<u8> {
    let port = |rng: &mut Rng| rng.below(65_536) as u16;
    let ip = |rng: &mut Rng, v4: bool| match v4 {
        true => IpAddr::from((rng.bits() as u32).to_be_bytes()),
        false => IpAddr::from((u128::from(rng.bits()) << 64 | u128::from(rng.bits())).to_be_bytes()),
    };
    let v4 = rng.below(2) == 0;
    let [source, destination] = [(); 2].map(|()| SocketAddr::new(ip(rng, v4), port(rng)));
    let mut tlvs = vec![
        (AUTHORITY, b"www.example.com".to_vec()),
        (UNIQUE_ID, vec![7; rng.below(129) as usize]),
    ];
    match rng.below(10) {
        0 => b"PROXY UNKNOWN\r\n".to_vec(),
        1..4 => v1(source, destination),
        4 => v2(source, destination, &[]),
        5 => v2_of(0x20, 0x00, &[]),
        6 => v2(source, destination, &tlvs),
        // Over UDP, and between UNIX sockets.
        7 => v2_of(0x21, 0x12, &[1; 12]),
        8 => v2_of(0x21, 0x31, &[b'/'; 216]),
        _ => {
            tlvs.push((CRC32C, vec![0; 4]));
            tlvs.push((NOOP, vec![0; rng.below(300) as usize]));
            sealed(v2(source, destination, &tlvs))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4: 32 bytes of zeroes, and the numbers 0 to 31.
    #[test]
    fn crc32c_gives_the_published_sums() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&std::array::from_fn::<u8, 32, _>(|n| n as u8)), 0x46DD_794E);
    }

    #[test]
    fn verdicts_are_those_of_the_specification() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (a, b) = (address("192.0.2.1:1"), address("192.0.2.2:65535"));
        let line = v1(a, b);
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65535\r\n");
        let (binary, length) = (v2(a, b, &[]), 28);
        assert_eq!(binary.len(), length);
        for good in [&line, &binary] {
            assert_eq!(verdict(good), Verdict::Valid(good.len()));
            assert_eq!(verdict(&[good, &b"payload"[..]].concat()), Verdict::Valid(good.len()));
            for cut in 0..good.len() {
                assert_eq!(verdict(&good[..cut]), Verdict::Invalid, "{cut}");
            }
        }
        for bad in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "proxy UNKNOWN\r\n",
        ] {
            assert_eq!(verdict(bad.as_bytes()), Verdict::Invalid, "{bad}");
        }
        assert_eq!(verdict(&v2(a, b, &[(CRC32C, vec![1, 2, 3, 4])])), Verdict::Invalid);
        assert_eq!(verdict(&v2_of(0x21, 0x11, &[0; 11])), Verdict::Invalid);
        assert_eq!(
            verdict(&v2_of(0x21, 0x11, &[&[0; 12][..], &[4, 0, 2, 0]].concat())),
            Verdict::Invalid
        );
        let mut rng = Rng::new(1);
        for _ in 0..1_000 {
            let header = any(&mut rng);
            assert!(!matches!(verdict(&header), Verdict::Invalid), "{header:?}");
        }
    }
}
