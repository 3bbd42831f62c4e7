//! Version 2: sixteen bytes, addresses, TLVs (section 2.2).

use super::{Addresses, Command, Header, ProxyError, Transport, Version, endpoint, tlv};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes before the addresses: signature, version and command, family and transport, length of the rest.
pub const FIXED_BYTES: usize = 16;

/// Bytes of the largest header that can be declared.
pub const HEADER_MAX: usize = FIXED_BYTES + u16::MAX as usize;

/// What a header of version 2 begins with; no other protocol does, and a server that knows none of it gives up on it.
pub const SIGNATURE: [u8; 12] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A];

/// Bytes of a path of a UNIX socket.
pub(super) const UNIX_PATH_BYTES: usize = 108;

pub(super) const VERSION: u8 = 0x20;
pub(super) const LOCAL: u8 = 0x0;
pub(super) const PROXY: u8 = 0x1;

pub(super) const UNSPEC: u8 = 0x00;
pub(super) const TCP4: u8 = 0x11;
pub(super) const UDP4: u8 = 0x12;
pub(super) const TCP6: u8 = 0x21;
pub(super) const UDP6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;

/// Reads a header; its signature has been seen.
pub(super) fn read(bytes: &[u8], max: usize) -> Result<Option<Header<'_>>, ProxyError> {
    let Some(&version_and_command) = bytes.get(SIGNATURE.len()) else {
        return Ok(None);
    };
    if version_and_command & 0xF0 != VERSION {
        return Err(ProxyError::BadVersion);
    }
    let command = match version_and_command & 0x0F {
        LOCAL => Command::Local,
        PROXY => Command::Proxy,
        _ => return Err(ProxyError::BadCommand),
    };
    let Some(&[.., family, high, low]) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Ok(None);
    };
    let declared = usize::from(u16::from_be_bytes([high, low]));
    let len = FIXED_BYTES + declared;
    if len > max {
        return Err(ProxyError::TooLong);
    }
    let address_bytes = address_bytes(family);
    if command == Command::Proxy && address_bytes.is_some_and(|needed| declared < needed) {
        return Err(ProxyError::TooShort);
    }
    let Some(header) = bytes.get(..len) else {
        return Ok(None);
    };
    Ok(Some(Header {
        len,
        version: Version::V2,
        command,
        addresses: match command {
            Command::Local => Addresses::Unknown,
            Command::Proxy => addresses_of(family, header.get(FIXED_BYTES..).unwrap_or_default()),
        },
        tlvs: tlvs_of(header, command, family)?,
    }))
}

/// Bytes before the TLVs; `None` for a family or transport that we do not know.
///
/// The specification would have those refused that nobody has defined. We take such a header and use the connection's own
/// addresses, as nginx does and HAProxy does not: a family that is added later must not cut off who sends it, and
/// nobody gains by it, since nothing is believed.
const fn address_bytes(family: u8) -> Option<usize> {
    match family {
        UNSPEC => Some(0),
        TCP4 | UDP4 => Some(2 * (4 + 2)),
        TCP6 | UDP6 => Some(2 * (16 + 2)),
        UNIX_STREAM | UNIX_DATAGRAM => Some(2 * UNIX_PATH_BYTES),
        _ => None,
    }
}

/// `block`: what follows the fixed bytes; long enough for `family`.
fn addresses_of(family: u8, block: &[u8]) -> Addresses<'_> {
    let endpoints = match family {
        TCP4 | UDP4 => ipv4(block),
        TCP6 | UDP6 => ipv6(block),
        UNIX_STREAM => return unix(Transport::Stream, block).unwrap_or(Addresses::Unknown),
        UNIX_DATAGRAM => return unix(Transport::Datagram, block).unwrap_or(Addresses::Unknown),
        _ => None,
    };
    match endpoints {
        Some((source, destination)) if matches!(family, UDP4 | UDP6) => Addresses::Udp { source, destination },
        Some((source, destination)) => Addresses::Tcp { source, destination },
        None => Addresses::Unknown,
    }
}

type Endpoints = (std::net::SocketAddr, std::net::SocketAddr);

fn ipv4(block: &[u8]) -> Option<Endpoints> {
    let (source, rest) = block.split_first_chunk::<4>()?;
    let (destination, rest) = rest.split_first_chunk::<4>()?;
    let (source_port, destination_port) = ports(rest)?;
    Some((
        endpoint(Ipv4Addr::from(*source), source_port),
        endpoint(Ipv4Addr::from(*destination), destination_port),
    ))
}

fn ipv6(block: &[u8]) -> Option<Endpoints> {
    let (source, rest) = block.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let (source_port, destination_port) = ports(rest)?;
    Some((
        endpoint(Ipv6Addr::from(*source), source_port),
        endpoint(Ipv6Addr::from(*destination), destination_port),
    ))
}

fn ports(rest: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = rest.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

fn unix(transport: Transport, block: &[u8]) -> Option<Addresses<'_>> {
    let (source, rest) = block.split_first_chunk()?;
    Some(Addresses::Unix {
        transport,
        source,
        destination: rest.first_chunk()?,
    })
}

/// The TLVs, checked. Of a PROXY header of a family with addresses they must be right.
///
/// A LOCAL header must be taken whatever its block holds, and what a sender puts behind UNSPEC is its own affair: there
/// TLVs count when they fill the block as its family says, else the block is skipped. A checksum that can be read
/// must match everywhere: a flipped bit must not turn a client into the balancer's own health check.
fn tlvs_of(header: &[u8], command: Command, family: u8) -> Result<&[u8], ProxyError> {
    let Some(tlvs) = address_bytes(family).and_then(|bytes| header.get(FIXED_BYTES + bytes..)) else {
        return Ok(&[]);
    };
    match tlv::check(header, tlvs) {
        Ok(()) => Ok(tlvs),
        Err(ProxyError::BadTlv) if command == Command::Local || family == UNSPEC => Ok(&[]),
        Err(error) => Err(error),
    }
}
