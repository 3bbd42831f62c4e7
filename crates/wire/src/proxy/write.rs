//! The writer: what we tell a backend.

use super::v2::{self, SIGNATURE};
use super::{Transport, Version, tlv};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The longest unique id in bytes (section 2.2.5).
pub const UNIQUE_ID_MAX: usize = 128;

/// A header to be written. UNIX sockets are absent: we have none.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// In which format.
    pub version: Version,
    /// The client. Without it, or without the other, no address is told.
    pub source: Option<SocketAddr>,
    /// What the client spoke to.
    pub destination: Option<SocketAddr>,
    /// How the client spoke.
    pub transport: Transport,
    /// The connection is our own, as of a health check: version 2 then tells no addresses. Version 1 has no word for
    /// it; the specification wants the connection's own addresses there, which the caller gives as any others.
    pub local: bool,
    /// The name that the client asked for; version 2 only, as the three below.
    pub authority: Option<&'a [u8]>,
    /// The protocol of the client's connection.
    pub alpn: Option<&'a [u8]>,
    /// Our name for this connection, at most [`UNIQUE_ID_MAX`] bytes. A longer one is left out: shortened it would name
    /// another connection.
    pub unique_id: Option<&'a [u8]>,
    /// Whether a CRC32c is sent along.
    pub checksum: bool,
}

impl Outgoing<'_> {
    /// Appends the header to `out`.
    ///
    /// A pair of one IPv4 and one IPv6 address is told as IPv6, the one mapped (RFC 4291, 2.5.5.2). Version 1 cannot say
    /// UDP: there, as without addresses, it is `UNKNOWN`. A value that does not fit the length field of a header is
    /// left out.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.version {
            Version::V1 => self.write_v1(out),
            Version::V2 => self.write_v2(out),
        }
    }

    /// Both addresses in one family.
    fn endpoints(&self) -> Option<Endpoints> {
        let (source, destination) = (self.source?, self.destination?);
        let ports = [source.port(), destination.port()];
        Some(match (source.ip().to_canonical(), destination.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Endpoints::V4([source, destination], ports),
            (source, destination) => Endpoints::V6([mapped(source), mapped(destination)], ports),
        })
    }

    fn write_v1(&self, out: &mut Vec<u8>) {
        let mut line = String::with_capacity(super::LINE_MAX);
        let endpoints = self.endpoints().filter(|_| self.transport == Transport::Stream);
        let written = match endpoints {
            None => write!(line, "PROXY UNKNOWN\r\n"),
            Some(Endpoints::V4([source, destination], [from, to])) => {
                write!(line, "PROXY TCP4 {source} {destination} {from} {to}\r\n")
            }
            Some(Endpoints::V6([source, destination], [from, to])) => {
                let (source, destination) = (Hexadecimal(source), Hexadecimal(destination));
                write!(line, "PROXY TCP6 {source} {destination} {from} {to}\r\n")
            }
        };
        debug_assert!(written.is_ok() && line.len() <= super::LINE_MAX, "{line:?}");
        out.extend_from_slice(line.as_bytes());
    }

    fn write_v2(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let endpoints = self.endpoints().filter(|_| !self.local);
        let command = if self.local { v2::LOCAL } else { v2::PROXY };
        let family = match (&endpoints, self.transport) {
            (None, _) => v2::UNSPEC,
            (Some(Endpoints::V4(..)), Transport::Stream) => v2::TCP4,
            (Some(Endpoints::V4(..)), Transport::Datagram) => v2::UDP4,
            (Some(Endpoints::V6(..)), Transport::Stream) => v2::TCP6,
            (Some(Endpoints::V6(..)), Transport::Datagram) => v2::UDP6,
        };
        out.extend_from_slice(&SIGNATURE);
        out.extend_from_slice(&[v2::VERSION | command, family, 0, 0]);
        if let Some(endpoints) = endpoints {
            endpoints.write(out);
        }
        // Room for the checksum is set aside first, so that no value can push it out.
        let reserved = if self.checksum { tlv::HEAD_BYTES + 4 } else { 0 };
        let largest = start + v2::HEADER_MAX - reserved;
        let unique_id = self.unique_id.filter(|id| id.len() <= UNIQUE_ID_MAX);
        let values = [
            (tlv::ALPN, self.alpn),
            (tlv::AUTHORITY, self.authority),
            (tlv::UNIQUE_ID, unique_id),
        ];
        for (kind, value) in values {
            if let Some(value) = value {
                write_tlv(out, kind, value, largest);
            }
        }
        if self.checksum {
            write_tlv(out, tlv::CRC32C, &[0; 4], start + v2::HEADER_MAX);
        }
        complete(out.get_mut(start..).unwrap_or_default(), self.checksum);
    }
}

/// Fills in what depends on the whole header: its length, and at its end the checksum.
fn complete(header: &mut [u8], checksum: bool) {
    let declared = u16::try_from(header.len().saturating_sub(v2::FIXED_BYTES)).unwrap_or(u16::MAX);
    if let Some(field) = header.get_mut(v2::FIXED_BYTES - 2..v2::FIXED_BYTES) {
        field.copy_from_slice(&declared.to_be_bytes());
    }
    if checksum {
        let sum = tlv::crc32c(header, 0);
        if let Some(field) = header.last_chunk_mut() {
            *field = sum.to_be_bytes();
        }
    }
}

/// Nothing when it would make `out` longer than `largest` bytes.
fn write_tlv(out: &mut Vec<u8>, kind: u8, value: &[u8], largest: usize) {
    let Ok(length) = u16::try_from(value.len()) else {
        return;
    };
    if out.len() + tlv::HEAD_BYTES + value.len() > largest {
        return;
    }
    let [high, low] = length.to_be_bytes();
    out.extend_from_slice(&[kind, high, low]);
    out.extend_from_slice(value);
}

const fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Source and destination; their ports.
enum Endpoints {
    V4([std::net::Ipv4Addr; 2], [u16; 2]),
    V6([Ipv6Addr; 2], [u16; 2]),
}

impl Endpoints {
    fn write(&self, out: &mut Vec<u8>) {
        let ports = match self {
            Self::V4(addresses, ports) => {
                addresses
                    .iter()
                    .for_each(|address| out.extend_from_slice(&address.octets()));
                ports
            }
            Self::V6(addresses, ports) => {
                addresses
                    .iter()
                    .for_each(|address| out.extend_from_slice(&address.octets()));
                ports
            }
        };
        ports.iter().for_each(|port| out.extend_from_slice(&port.to_be_bytes()));
    }
}

/// An IPv6 address in hexadecimal digits only, as version 1 wants it. The standard library, as inet_ntop(3), shows the
/// end of a mapped one as an IPv4 address.
struct Hexadecimal(Ipv6Addr);

impl std::fmt::Display for Hexadecimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.to_ipv4_mapped().is_some() {
            let [.., high, low] = self.0.segments();
            write!(f, "::ffff:{high:x}:{low:x}")
        } else {
            write!(f, "{}", self.0)
        }
    }
}
