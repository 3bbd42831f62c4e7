//! Where a connection to a backend comes from: our choice, the pool's, or the client.

use ringway_core::backend::BackendState;
use ringway_core::model::{self, Pool};
use ringway_runtime::Source;
use std::net::IpAddr;

/// The client's address cannot be taken to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotTaken;

/// Where to connect from; `None`: the kernel's choice. Of a pool's own addresses one of the backend's family; which one
/// hardly matters as long as all are used, and `spread` is to see to that. `client`: where it is known and there is one.
///
/// # Errors
/// With `source: client`, a client that this backend cannot be reached as.
pub(crate) fn source(
    pool: &Pool,
    backend: IpAddr,
    client: Option<IpAddr>,
    spread: u64,
) -> Result<Option<Source>, NotTaken> {
    match &pool.source {
        model::Source::Kernel => Ok(None),
        model::Source::Addresses(addresses) => Ok(one_of(addresses, backend, spread).map(Source::Own)),
        model::Source::Client => match client.map(|client| client.to_canonical()) {
            Some(client) if can_be_taken(client, backend) => Ok(Some(Source::Foreign(client))),
            Some(_) | None => Err(NotTaken),
        },
    }
}

fn one_of(addresses: &[IpAddr], backend: IpAddr, spread: u64) -> Option<IpAddr> {
    let matching = || addresses.iter().filter(|source| source.is_ipv4() == backend.is_ipv4());
    let count = matching().count() as u64;
    let at = spread.checked_rem(count)?;
    matching().nth(at as usize).copied()
}

/// Whether a packet may go from this client to this backend. Unspecified, the kernel would put our own address in its
/// place; a loopback address does not leave the machine; a link-local one is nobody without its interface.
fn can_be_taken(client: IpAddr, backend: IpAddr) -> bool {
    let is_somebody = match client {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local()),
    };
    is_somebody && client.is_ipv4() == backend.is_ipv4() && (!client.is_loopback() || backend.is_loopback())
}

/// Says so, once for each backend: it is passed over whenever such a client comes.
pub(crate) fn tell_passed_over(pool: &Pool, backend: &BackendState, client: Option<IpAddr>) {
    if !backend.is_first_passed_over() {
        return;
    }
    let (pool, backend) = (&*pool.name, &*backend.label);
    match client {
        Some(client) => tracing::warn!(
            pool,
            backend,
            %client,
            "passed over: with source: client, this client's address cannot be taken to it (told once)"
        ),
        None => tracing::warn!(
            pool,
            backend,
            "passed over: with source: client, a client without an address cannot be taken to it (told once)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn pool(source: model::Source) -> Pool {
        Pool {
            source,
            ..Pool::new("pool", Vec::new())
        }
    }

    #[test]
    fn a_pools_addresses_of_the_backends_family_take_turns() {
        let addresses = ["10.0.0.1", "2001:db8::1", "10.0.0.2"].map(ip).to_vec();
        let pool = pool(model::Source::Addresses(addresses));
        let from = |backend, spread| source(&pool, ip(backend), Some(ip("192.0.2.9")), spread);
        assert_eq!(from("10.1.1.1", 0), Ok(Some(Source::Own(ip("10.0.0.1")))));
        assert_eq!(from("10.1.1.1", 3), Ok(Some(Source::Own(ip("10.0.0.2")))));
        assert_eq!(from("2001:db8::9", 7), Ok(Some(Source::Own(ip("2001:db8::1")))));
    }

    #[test]
    fn clients_are_taken_where_their_packets_can_go() {
        let pool = pool(model::Source::Client);
        for (client, backend, taken) in [
            ("192.0.2.9", "10.1.1.1", true),
            ("2001:db8::9", "2001:db8:1::1", true),
            ("2001:db8::9", "10.1.1.1", false),
            ("192.0.2.9", "2001:db8:1::1", false),
            ("127.0.0.1", "10.1.1.1", false),
            ("127.0.0.1", "127.0.0.2", true),
            ("::1", "2001:db8:1::1", false),
            ("192.0.2.9", "127.0.0.1", true),
            ("fe80::9", "2001:db8:1::1", false),
            ("0.0.0.0", "10.1.1.1", false),
            ("224.0.0.1", "10.1.1.1", false),
            ("255.255.255.255", "10.1.1.1", false),
            ("::", "2001:db8:1::1", false),
        ] {
            let expected = if taken {
                Ok(Some(Source::Foreign(ip(client))))
            } else {
                Err(NotTaken)
            };
            assert_eq!(
                source(&pool, ip(backend), Some(ip(client)), 0),
                expected,
                "{client} to {backend}"
            );
        }
        let mapped = source(&pool, ip("10.1.1.1"), Some(ip("::ffff:192.0.2.9")), 0);
        assert_eq!(mapped, Ok(Some(Source::Foreign(ip("192.0.2.9")))));
        assert_eq!(
            source(&pool, ip("10.1.1.1"), None, 0),
            Err(NotTaken),
            "through a UNIX socket"
        );
    }
}
