//! What a client is recognised by.

use super::hash::{self, Purpose};
use std::net::IpAddr;

/// A client's identity for `ip_hash`: its address without the port.
///
/// The 128 bits of the IPv6 address. IPv4 stands as its mapped form (RFC 4291, 2.5.5.2), so a client has the same key
/// through an IPv4 listener and through a dual-stack one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(u128);

impl ClientKey {
    /// Every client of a UNIX listener: they have no address, so all of them are one. The unspecified address `::`
    /// stands for them; no packet comes from it.
    pub const UNIX: Self = Self(0);

    /// A client whose hash under `seed` all nodes agree on.
    #[inline]
    pub(crate) fn hash(self, seed: u64) -> u64 {
        hash::keyed(seed, Purpose::Client, &self.0.to_be_bytes())
    }
}

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        })
    }
}
