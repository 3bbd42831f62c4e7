//! Who may use a listener, by address: networks, sets of them, and what `allow` and `deny` mean together.
//!
//! Values only. Texts are read by `ringway-config`; the address asked about is that of the peer or the one that a PROXY
//! header names. An IPv4 address is the same client however it is written: IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2)
//! counts as IPv4 everywhere here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The addresses that begin with the same bits (RFC 4632, RFC 4291 section 2.3). Never IPv4-mapped, never with bits set
/// beyond its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of this address: bits beyond the prefix are cleared. `None`: a prefix longer than the address, or an
    /// IPv4-mapped address with one that is shorter than 96, which is neither IPv4 nor IPv6.
    pub fn containing(address: IpAddr, prefix: u8) -> Option<Self> {
        let canonical = address.to_canonical();
        let mapped = if canonical.is_ipv4() && address.is_ipv6() {
            96
        } else {
            0
        };
        let prefix = prefix.checked_sub(mapped).filter(|&prefix| prefix <= bits(canonical))?;
        let first = aligned(canonical) & !after(prefix);
        let address = match canonical {
            IpAddr::V4(_) => IpAddr::from(((first >> 96) as u32).to_be_bytes()),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(first)),
        };
        Some(Self { address, prefix })
    }

    /// This address and no other.
    pub fn of_one(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self {
            address,
            prefix: bits(address),
        }
    }

    /// Its first address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that all of its addresses have in common, 0 to 32 or 128.
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address is one of its own.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && (aligned(address) ^ aligned(self.address)) & !after(self.prefix) == 0
    }

    /// Whether all addresses of another network are its own.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }
}

impl fmt::Display for Network {
    /// `10.0.0.0/8`; a single address stands alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == bits(self.address) {
            return self.address.fmt(f);
        }
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Networks, asked for the longest one that an address is in. The answer takes a binary search of an array that holds at
/// most two entries per network; nothing is ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Stretches,
    v6: Stretches,
}

impl NetworkSet {
    /// The prefix of the longest network that the address is in.
    pub fn longest(&self, address: IpAddr) -> Option<u8> {
        let address = address.to_canonical();
        match address {
            IpAddr::V4(_) => self.v4.prefix_at(aligned(address)),
            IpAddr::V6(_) => self.v6.prefix_at(aligned(address)),
        }
    }

    /// Whether the address is in any of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.longest(address).is_some()
    }

    /// Whether no address is in it.
    pub const fn is_empty(&self) -> bool {
        self.v4.starts.is_empty() && self.v6.starts.is_empty()
    }
}

impl FromIterator<Network> for NetworkSet {
    fn from_iter<T: IntoIterator<Item = Network>>(networks: T) -> Self {
        let (v4, v6) = networks
            .into_iter()
            .partition::<Vec<_>, _>(|network| network.address.is_ipv4());
        Self {
            v4: Stretches::new(v4),
            v6: Stretches::new(v6),
        }
    }
}

/// All addresses of one family, cut where the longest network that they are in changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stretches {
    /// Where each begins, ascending. What is before the first one is in no network.
    starts: Vec<u128>,
    /// Parallel to `starts`: the longest network there.
    prefixes: Vec<Option<u8>>,
}

impl Stretches {
    fn new(mut networks: Vec<Network>) -> Self {
        // Networks are nested or apart. Wide before narrow, so that those which are open at any address are a stack.
        networks.sort_unstable();
        networks.dedup();
        let mut stretches = Self::default();
        let mut open: Vec<(u128, u8)> = Vec::new();
        for network in networks {
            let first = aligned(network.address);
            stretches.close(&mut open, |last| last < first);
            stretches.begin(first, Some(network.prefix));
            open.push((first | after(network.prefix), network.prefix));
        }
        stretches.close(&mut open, |_| true);
        stretches
    }

    /// Ends the networks on top of the stack whose last address is told to be over.
    fn close(&mut self, open: &mut Vec<(u128, u8)>, is_over: impl Fn(u128) -> bool) {
        while let Some((last, _)) = open.pop_if(|(last, _)| is_over(*last)) {
            // Nothing follows the last address of all.
            if let Some(next) = last.checked_add(1) {
                self.begin(next, open.last().map(|(_, prefix)| *prefix));
            }
        }
    }

    fn begin(&mut self, start: u128, prefix: Option<u8>) {
        // Where several begin or end at once, the last word counts.
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.prefixes.pop();
        }
        self.starts.push(start);
        self.prefixes.push(prefix);
    }

    fn prefix_at(&self, address: u128) -> Option<u8> {
        let after = self.starts.partition_point(|&start| start <= address);
        self.prefixes[after.checked_sub(1)?]
    }
}

/// Who may use a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Only these; `None`: everyone.
    pub allow: Option<NetworkSet>,
    /// Of those not these.
    pub deny: NetworkSet,
}

impl Access {
    /// Whether an address may: one that is allowed, unless it is denied by a network as long as the one that allows it or
    /// longer.
    pub fn permits(&self, address: IpAddr) -> bool {
        let denied = self.deny.longest(address);
        match &self.allow {
            None => denied.is_none(),
            Some(allow) => allow.longest(address) > denied,
        }
    }

    /// Whether everyone may, so that nobody need be asked who it is.
    pub const fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The bits of an address, the first one on top whatever the family: a prefix is then the same for both.
fn aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The bits that come after a prefix.
const fn after(prefix: u8) -> u128 {
    match u128::MAX.checked_shr(prefix as u32) {
        Some(bits) => bits,
        None => 0,
    }
}
