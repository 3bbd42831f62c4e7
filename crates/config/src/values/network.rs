//! Networks, and single addresses where a network is meant.
//!
//! Bits beyond the prefix are refused instead of cleared: whoever writes 10.1.2.3/8 means either that address or all of
//! 10.0.0.0/8, and the difference is who gets in.

use crate::diagnostic::quote;
use crate::problem::Fault;
use ringway_core::access::Network;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `10.0.0.0/8`, `2001:db8::/32`, or an address alone, which is a network of one.
pub(crate) fn parse_network(text: &str) -> Result<Network, Fault> {
    if text.contains(',') || text.split_whitespace().nth(1).is_some() {
        let message = format!("{} is several", quote(text));
        return Err(Fault::new(message, "write a list: [10.0.0.0/8, 192.0.2.7]"));
    }
    let Some((host, prefix)) = text.split_once('/') else {
        let Ok(address) = text.parse::<IpAddr>() else {
            return Err(explain(text));
        };
        return match mapped(address) {
            Some(v4) => Err(written_as_ipv6(text, &v4.to_string())),
            None => Ok(Network::of_one(address)),
        };
    };
    let Ok(address) = host.parse::<IpAddr>() else {
        return Err(explain(text));
    };
    let length = parse_prefix(text, address, prefix)?;
    if let Some(v4) = mapped(address) {
        let right = match length.checked_sub(96) {
            Some(length) => format!("{v4}/{length}"),
            None => format!("{v4}/32"),
        };
        return Err(written_as_ipv6(text, &right));
    }
    let Some(network) = Network::containing(address, length) else {
        return Err(prefix_fault(text, address, prefix));
    };
    if network.address() != address {
        let message = format!("{} has bits set after the first {length}", quote(text));
        return Err(Fault::new(
            message,
            format!("write {network} for all of it, or {address} alone"),
        ));
    }
    Ok(network)
}

fn parse_prefix(text: &str, address: IpAddr, prefix: &str) -> Result<u8, Fault> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    let is_plain = prefix == "0" || prefix.starts_with(|first: char| first.is_ascii_digit() && first != '0');
    match prefix.parse::<u8>() {
        Ok(length) if length <= most && is_plain => Ok(length),
        _ => Err(prefix_fault(text, address, prefix)),
    }
}

fn prefix_fault(text: &str, address: IpAddr, prefix: &str) -> Fault {
    let part = text.len() - prefix.len()..text.len();
    let quoted = quote(text);
    let (family, most) = if address.is_ipv4() { ("IPv4", 32) } else { ("IPv6", 128) };
    if let (IpAddr::V4(address), Ok(mask)) = (address, prefix.parse::<Ipv4Addr>()) {
        let length = mask.to_bits().leading_ones();
        let help = if mask.to_bits().count_ones() == length {
            format!("write {address}/{length}")
        } else {
            "write how many of the first bits are the network's, such as 10.0.0.0/8".to_owned()
        };
        return Fault::new(format!("{quoted} has a mask for a prefix"), help).at(part);
    }
    let help = format!("write {address}/0 to {address}/{most}, or the address alone");
    Fault::new(format!("{quoted} has no usable prefix for {family}"), help).at(part)
}

fn mapped(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

fn written_as_ipv6(text: &str, right: &str) -> Fault {
    let message = format!("{} is IPv4 written as IPv6", quote(text));
    Fault::new(message, format!("write {right}"))
}

/// Why a text does not begin with an address.
fn explain(text: &str) -> Fault {
    let quoted = quote(text);
    let example = "write a network such as 10.0.0.0/8 or 2001:db8::/32, or an address";
    if text.is_empty() {
        return Fault::new("is empty", example);
    }
    if matches!(text, "all" | "any" | "*") {
        return Fault::new(
            format!("{quoted} is not a network"),
            "every IPv4 address is 0.0.0.0/0, every IPv6 address is ::/0",
        );
    }
    let (host, prefix) = text.split_once('/').map_or((text, ""), |(host, prefix)| (host, prefix));
    let rest = if prefix.is_empty() {
        String::new()
    } else {
        format!("/{}", quote(prefix).trim_matches('"'))
    };
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && inner.parse::<Ipv6Addr>().is_ok()
    {
        let help = format!("without a port no brackets are needed: write {inner}{rest}");
        return Fault::new(format!("{quoted} is in brackets"), help);
    }
    if let Ok(address) = host.parse::<SocketAddr>() {
        let help = format!("a network has none: write {}{rest}", address.ip());
        return Fault::new(format!("{quoted} has a port"), help);
    }
    if let Some((address, _)) = host.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        let help = format!("networks have none: write {address}{rest}");
        return Fault::new(format!("{quoted} names an interface"), help);
    }
    if let Some(network) = abridged(host, prefix) {
        return Fault::new(format!("{quoted} is not a whole address"), format!("write {network}"));
    }
    if text
        .split_once('-')
        .is_some_and(|(first, _)| first.parse::<IpAddr>().is_ok())
    {
        return Fault::new(
            format!("{quoted} is a range of addresses"),
            "write the networks that it is made of, as a list",
        );
    }
    if host.contains(|letter: char| letter.is_ascii_alphabetic()) && !host.contains(':') {
        let help = "names are not looked up here; write a network or an address";
        return Fault::new(format!("{quoted} is not a network"), help);
    }
    Fault::new(format!("{quoted} is not a network"), example).at(0..host.len())
}

/// What is meant by `10/8`, `192.168/16`, `10.1.`, `10.*`, `10.1.0.*`.
fn abridged(host: &str, prefix: &str) -> Option<String> {
    let parts: Vec<&str> = host.split('.').collect();
    let is_left_out = |part: &&str| part.is_empty() || **part == *"*" || *part == "x";
    let given = parts.iter().take_while(|part| !is_left_out(part)).count();
    if given == 0 || given > 3 || parts.len() > 4 || !parts[given..].iter().all(is_left_out) {
        return None;
    }
    // A number alone may be anything.
    if parts.len() == 1 && prefix.is_empty() {
        return None;
    }
    let mut octets = [0; 4];
    for (octet, part) in octets.iter_mut().zip(&parts[..given]) {
        *octet = part.parse().ok().filter(|octet: &u8| octet.to_string() == **part)?;
    }
    let length = if prefix.is_empty() {
        8 * given as u8
    } else {
        prefix.parse().ok()?
    };
    Network::containing(IpAddr::from(octets), length).map(|network| network.to_string())
}

#[cfg(test)]
#[path = "network_test.rs"]
mod tests;
