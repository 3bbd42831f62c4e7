//! rtnetlink messages: questions written, answers read within their bounds (netlink(7), rtnetlink(7), the kernel's
//! fib_rules.h). Everything is in the machine's byte order, addresses and ports excepted.

use super::{Fate, Packet};
use crate::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct rtmsg` and `struct fib_rule_hdr`.
const ROUTE_HEADER: usize = 12;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `struct rtattr`.
const ATTRIBUTE_HEADER: usize = 4;

// Kinds of messages.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_GETLINK: u16 = 18;
const RTM_GETROUTE: u16 = 26;
const RTM_GETRULE: u16 = 34;

// Flags of messages.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_DUMP: u16 = 0x300;

/// Asks for the table in which a route was found.
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
/// A route that delivers to this machine.
const RTN_LOCAL: u8 = 2;

// Attributes of routes.
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;

// Attributes of rules.
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PAD: u16 = 18;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
/// Bits of the port that count, where they are not a range; all of them otherwise.
const FRA_SPORT_MASK: u16 = 28;
/// A rule that looks into a table; others go elsewhere in the list, or drop.
const FR_ACT_TO_TBL: u8 = 1;
/// `not` of ip-rule(8).
const FIB_RULE_INVERT: u32 = 2;

/// Attribute of an interface: its name, ended by a zero.
const IFLA_IFNAME: u16 = 3;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family(u8);

impl Family {
    pub(super) const fn of(is_ipv6: bool) -> Self {
        Self(if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8)
    }
}

/// A question, as it is behind the field with its length.
#[derive(Debug)]
pub(super) struct Request(Vec<u8>);

/// Bytes of that field.
const LENGTH: usize = 4;

impl Request {
    fn new(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        // To the kernel; it knows who asks.
        bytes.extend([0; 4]);
        Self(bytes)
    }

    /// What happens to a packet.
    pub(super) fn fate(packet: &Packet, sequence: u32) -> Self {
        let mut request = Self::new(RTM_GETROUTE, 0, sequence);
        let is_ipv6 = packet.to.is_ipv6();
        // IPv6 tells the table unasked, and refuses the flag.
        let flags = if is_ipv6 { 0 } else { RTM_F_LOOKUP_TABLE };
        let bits = if is_ipv6 { 128 } else { 32 };
        let source_bits = packet.from.map_or(0, |_| bits);
        let Family(family) = Family::of(is_ipv6);
        request.0.extend([family, bits, source_bits, 0, 0, 0, 0, 0]);
        request.0.extend(flags.to_ne_bytes());
        request.address(RTA_DST, packet.to);
        if let Some((transport, from)) = packet.from {
            request.address(RTA_SRC, from.ip());
            request.attribute(RTA_IP_PROTO, &[transport.number()]);
            request.attribute(RTA_SPORT, &from.port().to_be_bytes());
        }
        if let Some(interface) = packet.comes_in {
            request.attribute(RTA_IIF, &interface.to_ne_bytes());
        }
        if packet.mark != 0 {
            request.attribute(RTA_MARK, &packet.mark.to_ne_bytes());
        }
        request
    }

    /// All rules.
    pub(super) fn rules(Family(family): Family, sequence: u32) -> Self {
        let mut request = Self::new(RTM_GETRULE, NLM_F_DUMP, sequence);
        request.0.extend([family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        request
    }

    /// All routes that deliver to this machine.
    pub(super) fn local_routes(Family(family): Family, sequence: u32) -> Self {
        let mut request = Self::new(RTM_GETROUTE, NLM_F_DUMP, sequence);
        request.0.extend([family, 0, 0, 0, 0, 0, 0, RTN_LOCAL, 0, 0, 0, 0]);
        request
    }

    /// An interface.
    pub(super) fn interface(index: u32, sequence: u32) -> Self {
        let mut request = Self::new(RTM_GETLINK, 0, sequence);
        request.0.extend([0; 4]);
        request.0.extend(index.to_ne_bytes());
        request.0.extend([0; 8]);
        request
    }

    fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attribute(kind, &v6.octets()),
        }
    }

    /// `value` is short: an address at most.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(aligned(self.0.len()), 0);
    }

    /// The whole message: its length goes before what was collected.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let length = (self.0.len() + LENGTH) as u32;
        [&length.to_ne_bytes(), &self.0[..]].concat()
    }
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// What was asked for, or one entry of a list.
    Entry {
        /// What follows the header of the message.
        body: &'a [u8],
        /// It is of a list, which has an end of its own.
        more: bool,
    },
    /// The end of a list.
    End,
    /// The kernel says no.
    Failed(Errno),
}

/// The messages that answer the question of this number. A message that does not fit into what was received ends them.
pub(super) fn answers(mut bytes: &[u8], sequence: u32) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        loop {
            let length = u32_at(bytes, 0)? as usize;
            let (kind, flags) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?);
            let of = u32_at(bytes, 8)?;
            let body = bytes.get(HEADER..length)?;
            bytes = bytes.get(aligned(length)..).unwrap_or_default();
            if of != sequence {
                continue;
            }
            return Some(match kind {
                NLMSG_DONE => Answer::End,
                // 0 acknowledges, which nobody asked for.
                NLMSG_ERROR => match u32_at(body, 0)? as i32 {
                    0 => continue,
                    negative => Answer::Failed(Errno(negative.wrapping_neg())),
                },
                _ => Answer::Entry {
                    body,
                    more: flags & NLM_F_MULTI != 0,
                },
            });
        }
    })
}

/// What is said of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    kind: u8,
    destination_bits: u8,
    interface: u32,
    table: u32,
}

impl Route {
    pub(super) const fn fate(self) -> Fate {
        match self.kind {
            RTN_LOCAL => Fate::Delivered,
            _ => Fate::Elsewhere {
                interface: self.interface,
                table: self.table,
            },
        }
    }

    /// Its table, if it delivers whatever gets there.
    pub(super) fn delivers_everything(self) -> Option<u32> {
        (self.kind == RTN_LOCAL && self.destination_bits == 0).then_some(self.table)
    }
}

/// Reads a route, of a question or of a list.
pub(super) fn route(body: &[u8]) -> Option<Route> {
    let header = body.get(..ROUTE_HEADER)?;
    let mut route = Route {
        kind: *header.get(7)?,
        destination_bits: *header.get(1)?,
        interface: 0,
        table: u32::from(*header.get(4)?),
    };
    for (kind, value) in attributes(body.get(ROUTE_HEADER..)?) {
        match kind {
            RTA_OIF => route.interface = u32_at(value, 0)?,
            RTA_TABLE => route.table = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(route)
}

/// A rule that looks into a table for the packets that it applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Rules of smaller numbers come first.
    pub priority: u32,
    /// Where it looks: 255 `local`, 254 `main`, 253 `default`, or one that somebody made.
    pub table: u32,
    /// What packets must be marked with, as far as [`Self::mask`] goes.
    pub mark: u32,
    /// 0: marks do not matter.
    pub mask: u32,
    from: Option<(IpAddr, u8)>,
    to: Option<(IpAddr, u8)>,
    interface: Option<String>,
    protocol: Option<u8>,
    ports: Option<(u16, u16)>,
    is_inverted: bool,
    /// It looks at something else too, or is not one that looks into a table.
    is_strange: bool,
}

impl Rule {
    /// Whether it is about one sender, or about senders of one network behind one interface. Others are about this machine's
    /// traffic in general, whatever else they apply to.
    pub fn is_about_senders(&self) -> bool {
        let is_narrow = |(address, bits): (IpAddr, u8)| match (address, bits) {
            (_, 0) => false,
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => true,
            _ => self.interface.is_some(),
        };
        !self.is_inverted && !self.is_strange && self.from.is_some_and(is_narrow)
    }

    /// Whether it applies to a packet that comes in through the interface of this name (`lo` for this machine's own).
    /// `None`: it depends on what the packet does not tell.
    pub fn applies(&self, packet: &Packet, interface: &str) -> Option<bool> {
        if self.is_strange {
            return None;
        }
        let from = packet.from.map(|(_, from)| from);
        let matches = (packet.mark ^ self.mark) & self.mask == 0
            && self
                .from
                .is_none_or(|prefix| from.is_some_and(|from| is_within(from.ip(), prefix)))
            && self.to.is_none_or(|prefix| is_within(packet.to, prefix))
            && self.interface.as_ref().is_none_or(|name| name == interface)
            && self
                .protocol
                .is_none_or(|number| packet.from.is_some_and(|(transport, _)| transport.number() == number))
            && self
                .ports
                .is_none_or(|(first, last)| from.is_some_and(|from| (first..=last).contains(&from.port())));
        Some(matches != self.is_inverted)
    }
}

/// Reads a rule.
pub(super) fn rule(body: &[u8]) -> Option<Rule> {
    let header = body.get(..ROUTE_HEADER)?;
    let (to_bits, from_bits, class) = (*header.get(1)?, *header.get(2)?, *header.get(3)?);
    let mut rule = Rule {
        priority: 0,
        table: u32::from(*header.get(4)?),
        mark: 0,
        mask: 0,
        from: None,
        to: None,
        interface: None,
        protocol: None,
        ports: None,
        is_inverted: u32_at(header, 8)? & FIB_RULE_INVERT != 0,
        is_strange: class != 0 || *header.get(7)? != FR_ACT_TO_TBL,
    };
    for (kind, value) in attributes(body.get(ROUTE_HEADER..)?) {
        match kind {
            FRA_DST => rule.to = Some((address(value)?, to_bits)),
            FRA_SRC => rule.from = Some((address(value)?, from_bits)),
            FRA_IIFNAME => rule.interface = Some(text(value)),
            FRA_PRIORITY => rule.priority = u32_at(value, 0)?,
            FRA_FWMARK => rule.mark = u32_at(value, 0)?,
            FRA_FWMASK => rule.mask = u32_at(value, 0)?,
            FRA_TABLE => rule.table = u32_at(value, 0)?,
            FRA_IP_PROTO => rule.protocol = value.first().copied(),
            FRA_SPORT_RANGE => rule.ports = Some((u16_at(value, 0)?, u16_at(value, 2)?)),
            FRA_SPORT_MASK if u16_at(value, 0)? == u16::MAX => {}
            // Who made it; what is left out of the table, which delivers nothing then.
            FRA_PROTOCOL | FRA_PAD | FRA_SUPPRESS_IFGROUP | FRA_SUPPRESS_PREFIXLEN => {}
            _ => rule.is_strange = true,
        }
    }
    Some(rule)
}

/// Reads an interface's name.
pub(super) fn interface_name(body: &[u8]) -> Option<String> {
    let mut attributes = attributes(body.get(LINK_HEADER..)?);
    attributes.find_map(|(kind, value)| (kind == IFLA_IFNAME).then(|| text(value)))
}

/// Attributes with their values; one that does not fit ends them.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)?;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        // The two highest bits say how the value is made (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        Some((kind & 0x3fff, value))
    })
}

/// Everything begins at a multiple of four.
const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

fn is_within(address: IpAddr, (prefix, bits): (IpAddr, u8)) -> bool {
    let differ = match (address, prefix) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    differ >= u32::from(bits)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*field))
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
