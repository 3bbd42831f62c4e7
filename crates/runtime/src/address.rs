//! Addresses that a socket can have, and where it connects from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Where a stream socket listens or connects to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// The path of a UNIX socket; empty for a peer that is not bound to one.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The address that a socket is bound to before it connects. The kernel chooses the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// One of this machine's.
    Own(IpAddr),
    /// Anybody's: the peer sees it instead of ours (IP_TRANSPARENT, ip(7); IPV6_TRANSPARENT). Needs CAP_NET_ADMIN or
    /// CAP_NET_RAW, and what the peer answers comes back to the socket only where the routes of this machine say that it
    /// is delivered here.
    Foreign(IpAddr),
}

impl Source {
    /// The address.
    pub const fn ip(self) -> IpAddr {
        match self {
            Self::Own(ip) | Self::Foreign(ip) => ip,
        }
    }
}
