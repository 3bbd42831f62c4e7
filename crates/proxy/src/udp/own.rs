//! Our own addresses: a datagram from one of them would go round for ever.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

/// Where this process listens, and where its backends do. A pure set, made when a worker starts.
#[derive(Debug, Default)]
pub(super) struct Own {
    exact: HashSet<SocketAddr>,
    /// Ports of binds to every address.
    wildcards: HashSet<u16>,
}

impl Own {
    pub(super) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut own = Self::default();
        for address in addresses {
            if address.ip().is_unspecified() {
                own.wildcards.insert(address.port());
            } else {
                own.exact.insert(address);
            }
        }
        own
    }

    /// Whether a datagram `from` there, sent `to` this address of ours, comes from ourselves. Of a bind to every address,
    /// those of our addresses are known that are the datagram's destination, or loopback.
    pub(super) fn has(&self, from: SocketAddr, to: Option<IpAddr>) -> bool {
        if self.exact.contains(&from) {
            return true;
        }
        let is_ours = Some(from.ip()) == to || from.ip().is_loopback();
        is_ours && self.wildcards.contains(&from.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_ourselves_is_known() {
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let own = Own::new([address("192.0.2.1:53"), address("0.0.0.0:5353")]);
        let to = Some(IpAddr::from([198, 51, 100, 7]));
        for (from, is_own) in [
            ("192.0.2.1:53", true),
            ("192.0.2.1:54", false),
            ("198.51.100.7:5353", true),
            ("127.0.0.1:5353", true),
            ("203.0.113.9:5353", false),
        ] {
            assert_eq!(own.has(address(from), to), is_own, "{from}");
        }
    }
}
