//! Our own addresses: a datagram from one of them would go round for ever.

use ringway_core::model::{Address, Model, Pool, PoolIndex, Protocol, Target};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

/// Where this process listens, and where its backends do. A pure set, made when a worker starts.
#[derive(Clone, Debug, Default)]
pub struct Own {
    exact: HashSet<SocketAddr>,
    /// Ports of binds to every address.
    wildcards: HashSet<u16>,
    /// Hosts of backends that are spoken to at the ports of a listener, and those ports.
    hosts: HashSet<IpAddr>,
    kept: HashSet<u16>,
    /// Pools with names, whose backends are known only when they are looked up.
    pub(super) named: Vec<PoolIndex>,
}

impl Own {
    /// `bound`: the addresses of UDP listeners.
    pub fn new(bound: impl IntoIterator<Item = SocketAddr>, model: &Model) -> Self {
        let mut own = Self::default();
        for address in bound {
            if address.ip().is_unspecified() {
                own.wildcards.insert(address.port());
            } else {
                own.exact.insert(address);
            }
        }
        for listener in model.listeners.iter().filter(|it| it.protocol == Protocol::Udp) {
            let pool = &model.pools[listener.only_pool().0];
            own.add_backends(pool);
            if pool.backends.iter().any(|it| matches!(it.target, Target::Name(_)))
                && !own.named.contains(&listener.only_pool())
            {
                own.named.push(listener.only_pool());
            }
            if listener.udp.keep_port {
                own.hosts.extend(inet_targets(pool).map(|address| address.ip()));
                own.kept.extend(listener.bind.iter().filter_map(|bind| match bind {
                    Address::Inet(address) => Some(address.port()),
                    Address::Unix(_) => None,
                }));
            }
        }
        own
    }

    fn add_backends(&mut self, pool: &Pool) {
        self.exact.extend(inet_targets(pool));
    }

    /// Whether `from` is where a listener that keeps ports would reach the backend at `host`.
    pub(super) fn is_kept(&self, host: IpAddr, from: SocketAddr) -> bool {
        host == from.ip() && self.kept.contains(&from.port())
    }

    /// Whether `from` would be ours if its address were: a bind to every address has its port.
    pub(super) fn is_at_wildcard_port(&self, from: SocketAddr) -> bool {
        self.wildcards.contains(&from.port())
    }

    /// Whether a datagram `from` there, sent `to` this address of ours, comes from ourselves, as far as can be told without
    /// asking the kernel: of a bind to every address, those of our addresses are known that are the datagram's
    /// destination, or loopback.
    pub(super) fn has(&self, from: SocketAddr, to: Option<IpAddr>) -> bool {
        if self.exact.contains(&from) || (self.kept.contains(&from.port()) && self.hosts.contains(&from.ip())) {
            return true;
        }
        let is_ours = Some(from.ip()) == to || from.ip().is_loopback();
        is_ours && self.wildcards.contains(&from.port())
    }
}

fn inet_targets(pool: &Pool) -> impl Iterator<Item = SocketAddr> + '_ {
    pool.backends.iter().filter_map(|backend| match &backend.target {
        Target::Address(Address::Inet(address)) => Some(*address),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_core::model::{Backend, Listener};

    #[test]
    fn what_comes_from_ourselves_is_known() {
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let backends = ["192.0.2.20:53", "192.0.2.21:53"].map(|text| Backend::at(Address::Inet(address(text))));
        let pool = Pool::new("pool", backends.to_vec());
        let mut keeping = Listener::new("keeping", Address::Inet(address("192.0.2.1:27000")), PoolIndex(0));
        (keeping.protocol, keeping.udp.keep_port) = (Protocol::Udp, true);
        let model = Model::new(vec![keeping], vec![pool]);
        let own = Own::new([address("192.0.2.1:53"), address("0.0.0.0:5353")], &model);
        let to = Some(IpAddr::from([198, 51, 100, 7]));
        for (from, is_own) in [
            ("192.0.2.1:53", true),
            ("192.0.2.1:54", false),
            ("198.51.100.7:5353", true),
            ("127.0.0.1:5353", true),
            ("203.0.113.9:5353", false),
            // Backends: at their port, and at the ports of a listener that keeps ports.
            ("192.0.2.20:53", true),
            ("192.0.2.20:27000", true),
            ("192.0.2.20:27001", false),
            ("192.0.2.22:27000", false),
        ] {
            assert_eq!(own.has(address(from), to), is_own, "{from}");
        }
    }
}
