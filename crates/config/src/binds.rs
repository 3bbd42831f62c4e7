//! Which addresses are bound, and who of two gets in the other's way.
//!
//! The kernel would refuse the second bind with "address already in use"; here both places are known. IPv6 sockets of
//! Ringway take IPv6 only, so `[::]:80` and `0.0.0.0:80` live side by side.

use crate::problem::Problems;
use crate::source::{At, Span};
use ringway_core::model::Address;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Who binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The admin port.
    Admin,
    /// The listener at this position.
    Listener(usize),
}

/// All addresses bound so far.
#[derive(Default)]
pub(crate) struct Binds {
    exact: HashMap<Address, (Owner, Span)>,
    /// One address of each family and port that has any; enough to answer a wildcard that comes later.
    ports: HashMap<(bool, u16), (SocketAddr, Owner, Span)>,
}

impl Binds {
    /// Adds an address or reports whom it collides with. `words` names an owner in a sentence.
    pub(crate) fn add(
        &mut self,
        bind: &At<Address>,
        owner: Owner,
        words: &dyn Fn(Owner) -> String,
        problems: &mut Problems,
    ) {
        let span = bind.span;
        match self.exact.entry(bind.value.clone()) {
            Entry::Occupied(taken) => {
                let &(other, before) = taken.get();
                let message = match other == owner {
                    true => format!("{} is bound twice by {}", bind.value, words(owner)),
                    false => format!("{} is already bound by {}", bind.value, words(other)),
                };
                problems.error_with_note(
                    span,
                    message,
                    "bind another address or port",
                    (before, "it is bound here first"),
                );
                return;
            }
            Entry::Vacant(free) => {
                free.insert((owner, span));
            }
        }
        let Address::Inet(address) = bind.value else { return };
        if let Some((other, holder, before)) = self.overlapping(address) {
            let (wide, narrow) = if address.ip().is_unspecified() {
                (address, other)
            } else {
                (other, address)
            };
            let message = format!("{address} collides with {other} of {}", words(holder));
            let help = format!("{wide} includes {narrow}: keep one, or use another port");
            problems.error_with_note(span, message, help, (before, "it is bound here first"));
        }
        self.ports
            .entry((address.is_ipv6(), address.port()))
            .or_insert((address, owner, span));
    }

    /// Who answers when Ringway itself connects to `address`, as far as the file can tell.
    pub(crate) fn answering(&self, address: &Address) -> Option<Owner> {
        if let Some(&(owner, _)) = self.exact.get(address) {
            return Some(owner);
        }
        match address {
            Address::Inet(inet) if inet.ip().is_loopback() => {
                self.exact.get(&Address::Inet(wildcard(*inet))).map(|&(owner, _)| owner)
            }
            Address::Inet(_) | Address::Unix(_) => None,
        }
    }

    fn overlapping(&self, address: SocketAddr) -> Option<(SocketAddr, Owner, Span)> {
        if address.ip().is_unspecified() {
            return self.ports.get(&(address.is_ipv6(), address.port())).copied();
        }
        let wildcard = wildcard(address);
        self.exact
            .get(&Address::Inet(wildcard))
            .map(|&(owner, span)| (wildcard, owner, span))
    }
}

/// Every address of the same family, with the same port.
fn wildcard(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, address.port())
}
