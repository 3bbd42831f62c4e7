//! The PROXY protocol, versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt, 2020/03/05): who the client is, told by a
//! balancer in front.
//!
//! [`read`] is a pure function of the bytes received so far. It never guesses: what is not a header is an error, never
//! payload, and nothing beyond the length that the header declares is looked at. Whether the sender may be believed is
//! for the caller to know; ask before reading. Absent here: the sub-values of the SSL TLV, which stay bytes.

mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod tlv;
mod v1;
mod v2;
mod write;

pub use error::ProxyError;
pub use tlv::Tlvs;
pub use v1::LINE_MAX;
pub use v2::{FIXED_BYTES, HEADER_MAX, SIGNATURE};
pub use write::{Outgoing, UNIQUE_ID_MAX};

use std::net::{IpAddr, SocketAddr};

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// One line of text; TCP only, no TLVs.
    V1,
    /// Binary; TCP, UDP and UNIX sockets, TLVs.
    V2,
}

/// The versions that a reader takes. With neither, every header is [`ProxyError::VersionNotAccepted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Version 1.
    pub v1: bool,
    /// Version 2.
    pub v2: bool,
}

/// On whose behalf the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// The balancer's own connection, such as a health check: the connection's own addresses count. Version 2 only.
    Local,
    /// Somebody else's, whom [`Header::addresses`] names.
    Proxy,
}

/// Whether the client spoke over a stream or in datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, or a UNIX stream socket.
    Stream,
    /// UDP, or a UNIX datagram socket.
    Datagram,
}

/// Who spoke to whom, as the balancer in front saw it.
///
/// An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) is handed over as the IPv4 address that it stands for. A balancer
/// with a dual-stack socket sends the mapped form, one with two sockets does not: access lists, limits and hashing must
/// see one client, not two. So source and destination may be of different families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses<'a> {
    /// Nothing that we could use: the connection's own addresses count. LOCAL, version 1 `UNKNOWN`, and in version 2
    /// UNSPEC or any family or transport that we do not know.
    Unknown,
    /// TCP.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
    /// UDP; version 2 only.
    Udp {
        /// The client.
        source: SocketAddr,
        /// What the client sent to.
        destination: SocketAddr,
    },
    /// UNIX sockets; version 2 only. Paths as the kernel has them in `sun_path` (unix(7)), padded with NUL; a first NUL
    /// is an abstract or unnamed socket.
    Unix {
        /// Stream or datagram socket.
        transport: Transport,
        /// The client's.
        source: &'a [u8; v2::UNIX_PATH_BYTES],
        /// What the client connected to.
        destination: &'a [u8; v2::UNIX_PATH_BYTES],
    },
}

impl Addresses<'_> {
    /// The client's address, when it is one of IP.
    pub const fn source(&self) -> Option<SocketAddr> {
        match *self {
            Self::Tcp { source, .. } | Self::Udp { source, .. } => Some(source),
            Self::Unknown | Self::Unix { .. } => None,
        }
    }

    /// What the client spoke to, when it is an address of IP.
    pub const fn destination(&self) -> Option<SocketAddr> {
        match *self {
            Self::Tcp { destination, .. } | Self::Udp { destination, .. } => Some(destination),
            Self::Unknown | Self::Unix { .. } => None,
        }
    }
}

/// What a header says. Borrows from the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Bytes of the header, never more than were given; what follows is payload.
    pub len: usize,
    /// In which format it came.
    pub version: Version,
    /// On whose behalf. Version 1 knows only [`Command::Proxy`].
    pub command: Command,
    /// Who spoke to whom.
    pub addresses: Addresses<'a>,
    /// Well-formed TLVs, or empty.
    tlvs: &'a [u8],
}

impl<'a> Header<'a> {
    /// All TLVs in the order sent, those for padding (NOOP) and the checksum too. Empty when the place where they begin
    /// is not known: an unknown family, or a LOCAL header whose block is not what its family says.
    pub const fn tlvs(&self) -> Tlvs<'a> {
        Tlvs::new(self.tlvs)
    }

    /// The name that the client asked for, from its SNI or elsewhere. Any bytes: nobody has checked that it is a name.
    pub fn authority(&self) -> Option<&'a [u8]> {
        self.tlvs().first(tlv::AUTHORITY)
    }

    /// The protocol of the client's connection (RFC 7301), such as `h2`. Any bytes.
    pub fn alpn(&self) -> Option<&'a [u8]> {
        self.tlvs().first(tlv::ALPN)
    }

    /// The balancer's name for this connection: 0 to 128 bytes of any value.
    pub fn unique_id(&self) -> Option<&'a [u8]> {
        self.tlvs().first(tlv::UNIQUE_ID)
    }
}

/// Reads the header that `bytes` begin with. `bytes` is everything received so far; `max` is the largest header in
/// bytes that the caller has room for, [`FIXED_BYTES`] to [`HEADER_MAX`] (a line of version 1 is never longer than
/// [`LINE_MAX`]).
///
/// `Ok(None)`: more is needed; so for every strict prefix of a valid header. Of a datagram, that means that it is cut.
///
/// # Errors
///
/// As early as the bytes allow: at the first byte that fits neither signature, at a length that is too large before the
/// header has come.
pub fn read(bytes: &[u8], accept: Accept, max: usize) -> Result<Option<Header<'_>>, ProxyError> {
    let (signature, accepted): (&[u8], bool) = match bytes.first() {
        None => return Ok(None),
        Some(&b'P') => (v1::SIGNATURE, accept.v1),
        Some(_) => (&v2::SIGNATURE, accept.v2),
    };
    if !bytes.iter().zip(signature).all(|(byte, expected)| byte == expected) {
        return Err(ProxyError::NotProxy);
    }
    if bytes.len() < signature.len() {
        return Ok(None);
    }
    if !accepted {
        return Err(ProxyError::VersionNotAccepted);
    }
    if signature == v1::SIGNATURE {
        v1::read(bytes, max)
    } else {
        v2::read(bytes, max)
    }
}

/// See [`Addresses`] for why mapped addresses become IPv4.
fn endpoint(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into().to_canonical(), port)
}
