//! What version 2 may say beside addresses: a type, a length of two bytes, a value, repeated (sections 2.2.1 to 2.2.8).

use super::ProxyError;
use super::write::UNIQUE_ID_MAX;
use crc::{CRC_32_ISCSI, Crc};

/// The protocol of the client's connection (RFC 7301).
pub const ALPN: u8 = 0x01;
/// The name that the client asked for.
pub const AUTHORITY: u8 = 0x02;
/// CRC32c of the whole header, computed with zeros in its own place.
pub const CRC32C: u8 = 0x03;
/// Padding.
pub const NOOP: u8 = 0x04;
/// The sender's name for the connection.
pub const UNIQUE_ID: u8 = 0x05;
/// What is known of the client's TLS; has a structure of its own.
pub const SSL: u8 = 0x20;
/// Name of a network namespace.
pub const NETNS: u8 = 0x30;

/// Bytes before a value.
pub(super) const HEAD_BYTES: usize = 3;

/// Bytes of a checksum.
const CRC_BYTES: usize = 4;

/// CRC32c as iSCSI and SCTP have it (RFC 4960, appendix B), by a table of 1 KiB: a header is a few dozen bytes.
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// TLVs in the order sent: type and value.
#[derive(Clone, Debug)]
pub struct Tlvs<'a> {
    rest: &'a [u8],
}

impl<'a> Tlvs<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The value of the first of type `kind` that has not been passed.
    pub(super) fn first(mut self, kind: u8) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, high, low], rest) = self.rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        self.rest = rest;
        Some((kind, value))
    }
}

/// Checks the TLVs at the end of `header`, and the checksum when there is one.
///
/// Of the four that have one meaning each a second one is refused, as the checksum's is by the specification's own
/// logic: whoever reads the first and whoever reads the last would see two clients. Other types may repeat.
pub(super) fn check(header: &[u8], tlvs: &[u8]) -> Result<(), ProxyError> {
    let mut walk = Tlvs::new(tlvs);
    let mut seen = [false; UNIQUE_ID as usize + 1];
    let mut checksum = None;
    while let Some((kind, value)) = walk.next() {
        let single = matches!(kind, ALPN | AUTHORITY | CRC32C | UNIQUE_ID);
        if single
            && seen
                .get_mut(usize::from(kind))
                .is_some_and(|seen| std::mem::replace(seen, true))
        {
            return Err(ProxyError::BadTlv);
        }
        if kind == UNIQUE_ID && value.len() > UNIQUE_ID_MAX {
            return Err(ProxyError::BadTlv);
        }
        if kind == CRC32C {
            let told: &[u8; CRC_BYTES] = value.try_into().map_err(|_| ProxyError::BadTlv)?;
            let after = walk.rest.len();
            checksum = Some((u32::from_be_bytes(*told), after));
        }
    }
    if !walk.rest.is_empty() {
        return Err(ProxyError::BadTlv);
    }
    match checksum {
        Some((told, after)) if told != crc32c(header, after) => Err(ProxyError::BadChecksum),
        _ => Ok(()),
    }
}

/// The checksum of a header in which `after` bytes follow the checksum.
pub(super) fn crc32c(header: &[u8], after: usize) -> u32 {
    let (before, rest) = header
        .split_at_checked(header.len().saturating_sub(after + CRC_BYTES))
        .unwrap_or_default();
    let mut digest = CRC.digest();
    digest.update(before);
    digest.update(&[0; CRC_BYTES]);
    digest.update(rest.get(CRC_BYTES..).unwrap_or_default());
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::CRC;

    /// RFC 3720, appendix B.4, and the check value of the catalogue of parametrised CRCs.
    #[test]
    fn the_checksum_is_crc32c() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        assert_eq!(CRC.checksum(b"123456789"), 0xE306_9283);
        // The RFC prints bytes in the order in which iSCSI sends them, the least significant first.
        assert_eq!(CRC.checksum(&[0; 32]), u32::from_le_bytes([0xAA, 0x36, 0x91, 0x8A]));
        assert_eq!(CRC.checksum(&[0xFF; 32]), u32::from_le_bytes([0x43, 0xAB, 0xA8, 0x62]));
        assert_eq!(CRC.checksum(&ascending), u32::from_le_bytes([0x4E, 0x79, 0xDD, 0x46]));
        assert_eq!(CRC.checksum(&descending), u32::from_le_bytes([0x5C, 0xDB, 0x3F, 0x11]));
    }
}
