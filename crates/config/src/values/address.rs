//! Addresses to listen on, to connect to, to connect from.
//!
//! Only what can be used as it stands is accepted; names (see `name`), port ranges, schemes, wildcards and IPv4-mapped IPv6
//! get an answer of their own, because "not an address" would not help the person who wrote them.

use crate::diagnostic::quote;
use crate::limits::{PORTS_PER_RANGE, UNIX_PATH_BYTES_MAX};
use crate::problem::Fault;
use crate::raw::Source;
use ringway_core::model::Address;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;

/// Where DNS servers listen (RFC 1035).
const DNS_PORT: u16 = 53;

/// Where a listener listens. `*:80` and `:80` mean `0.0.0.0:80`: every IPv4 address of the machine.
pub(crate) fn parse_bind(text: &str) -> Result<Address, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(text, path);
    }
    inet_bind(text).map(Address::Inet)
}

/// What [`parse_bind`] reads, or a range of ports: `0.0.0.0:27000-27015`.
pub(crate) fn parse_binds(text: &str) -> Result<Vec<Address>, Fault> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let range = text.rsplit_once('-').filter(|(before, last)| {
        let first = before.rsplit_once(':').map_or("", |(_, first)| first);
        !text.starts_with("unix:") && digits(last) && digits(first)
    });
    let Some((before, last)) = range else {
        return parse_bind(text).map(|address| vec![address]);
    };
    let first = inet_bind(before)?;
    let last = parse_port(text, last)?;
    if last < first.port() {
        let help = format!("write {}-{}", last, first.port());
        return Err(Fault::new(format!("{} runs backwards", quote(text)), help));
    }
    let count = u32::from(last - first.port()) + 1;
    if u64::from(count) > PORTS_PER_RANGE.max {
        let help = format!(
            "write at most {} ports; each takes a socket of every worker",
            PORTS_PER_RANGE.max
        );
        return Err(Fault::new(format!("{} is {count} ports", quote(text)), help));
    }
    let at = |port| {
        // Keeps the scope of an IPv6 address.
        let mut address = first;
        address.set_port(port);
        Address::Inet(address)
    };
    Ok((first.port()..=last).map(at).collect())
}

/// Where the admin port listens.
pub(crate) fn parse_admin(text: &str) -> Result<SocketAddr, Fault> {
    if text.starts_with("unix:") {
        return Err(Fault::new(
            format!("{} is a UNIX socket", quote(text)),
            "write an IP address and a port",
        ));
    }
    inet_bind(text)
}

/// Where a backend listens, if it is no name; `name::parse_target` takes both.
pub(crate) fn parse_backend(text: &str) -> Result<Address, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(text, path);
    }
    let address = inet(text)?;
    if address.ip().is_unspecified() {
        let help = "write the backend's own address";
        return Err(Fault::new(
            format!("{} means every address and cannot be connected to", quote(text)),
            help,
        ));
    }
    Ok(Address::Inet(address))
}

/// Where to connect from: an address, or `client`.
pub(crate) fn parse_source(text: &str) -> Result<Source, Fault> {
    match text {
        "client" => Ok(Source::Client),
        _ => source_address(text).map(Source::Address),
    }
}

fn source_address(text: &str) -> Result<IpAddr, Fault> {
    let quoted = quote(text);
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = inner.parse::<IpAddr>() {
        if ip.is_unspecified() {
            let help = "leave `source` out to let the kernel choose";
            return Err(Fault::new(format!("{quoted} means every address"), help));
        }
        if let IpAddr::V6(v6) = ip {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return Err(Fault::new(
                    format!("{quoted} is an IPv4 address written as IPv6"),
                    format!("write {v4}"),
                ));
            }
            if v6.is_unicast_link_local() {
                let help = "write an address that is unique on this machine";
                return Err(Fault::new(
                    format!("{quoted} is link-local, so it exists on every interface"),
                    help,
                ));
            }
        }
        if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Fault::new(
                format!("{quoted} is a group of machines"),
                "write an address of this machine",
            ));
        }
        return Ok(ip);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Err(Fault::new(
            format!("{quoted} has a port"),
            format!("the kernel chooses it: write {}", address.ip()),
        ));
    }
    Err(Fault::new(
        format!("{quoted} is not an IP address"),
        "write an address of this machine, such as 10.0.0.5",
    ))
}

/// A DNS server; its port is 53 unless written.
pub(crate) fn parse_dns_server(text: &str) -> Result<SocketAddr, Fault> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(ip) => usable(SocketAddr::new(ip, DNS_PORT), text)?,
        Err(_) if text.is_empty() => {
            return Err(Fault::new("is empty", "write an IP address, such as 10.0.0.53"));
        }
        Err(_) => inet(text)?,
    };
    if address.ip().is_unspecified() {
        let help = "write the server's own address";
        return Err(Fault::new(format!("{} means every address", quote(text)), help));
    }
    Ok(address)
}

fn inet_bind(text: &str) -> Result<SocketAddr, Fault> {
    let port = text.strip_prefix('*').unwrap_or(text).strip_prefix(':');
    if let Some(port) = port.filter(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())) {
        let port = parse_port(text, port)?;
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    }
    inet(text)
}

fn inet(text: &str) -> Result<SocketAddr, Fault> {
    match text.parse::<SocketAddr>() {
        // Rust takes leading zeros in a port, and so do we; `port 0` is refused below.
        Ok(address) => usable(address, text),
        Err(_) => Err(explain(text)),
    }
}

/// Refuses addresses that the kernel would refuse, or that would not mean what they seem to.
fn usable(address: SocketAddr, text: &str) -> Result<SocketAddr, Fault> {
    let quoted = quote(text);
    let ip = address.ip();
    if address.port() == 0 {
        return Err(Fault::new(
            format!("{quoted} has port 0"),
            "write a port from 1 to 65535",
        ));
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Fault::new(
            format!("{quoted} is a group of machines"),
            "write the address of one machine",
        ));
    }
    if let SocketAddr::V6(v6) = address {
        if let Some(v4) = v6.ip().to_ipv4_mapped() {
            let help = format!("write {v4}:{}", v6.port());
            return Err(Fault::new(format!("{quoted} is an IPv4 address written as IPv6"), help));
        }
        if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 {
            let example = SocketAddrV6::new(*v6.ip(), v6.port(), 0, 2);
            let help = format!("add the interface's index (see `ip link`): {example}");
            return Err(Fault::new(
                format!("{quoted} is link-local and lacks its interface"),
                help,
            ));
        }
    }
    Ok(address)
}

fn unix(text: &str, path: &str) -> Result<Address, Fault> {
    let quoted = quote(text);
    let part = "unix:".len()..text.len();
    if path.starts_with('@') {
        let help = "write an absolute path: unix:/run/name.sock";
        return Err(Fault::new(format!("{quoted} is an abstract socket; these are not supported"), help).at(part));
    }
    if !path.starts_with('/') {
        let help = "write an absolute path: unix:/run/name.sock";
        return Err(Fault::new(format!("{quoted} has no absolute path"), help).at(part));
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        let help = format!("the kernel takes {UNIX_PATH_BYTES_MAX} bytes");
        return Err(Fault::new(format!("{quoted} has a path of {} bytes", path.len()), help).at(part));
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err(Fault::new(format!("{quoted} does not name a socket"), "write unix:/run/name.sock").at(part));
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

/// `port` is the end of `text`.
pub(super) fn parse_port(text: &str, port: &str) -> Result<u16, Fault> {
    let part = text.len() - port.len()..text.len();
    match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(port_fault(text, port).at(part)),
    }
}

fn port_fault(text: &str, port: &str) -> Fault {
    let quoted = quote(text);
    if port.is_empty() {
        return Fault::new(format!("{quoted} has no port"), format!("write {}5432", crop(text)));
    }
    if port.contains(['-', ',']) {
        return Fault::new(
            format!("{quoted} names several ports"),
            "write one address for each port",
        );
    }
    Fault::new(format!("{quoted} has no usable port"), "write a port from 1 to 65535")
}

/// Why a text is not `address:port`.
fn explain(text: &str) -> Fault {
    let quoted = quote(text);
    if text.is_empty() {
        return Fault::new("is empty", "write an address and a port, such as 10.0.0.11:5432");
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        let has_port = rest
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.contains(':') && parse_port(rest, port).is_ok());
        let port = if has_port || rest.parse::<SocketAddr>().is_ok() {
            ""
        } else {
            " with a port"
        };
        let help = format!("write {}{port}", crop(rest));
        return Fault::new(format!("{quoted} begins with a scheme"), help).at(0..scheme.len() + 3);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return match ip {
            IpAddr::V4(v4) => Fault::new(format!("{quoted} has no port"), format!("write {v4}:5432")),
            IpAddr::V6(v6) => {
                let port = text
                    .rsplit_once(':')
                    .filter(|(head, port)| head.parse::<Ipv6Addr>().is_ok() && parse_port(text, port).is_ok());
                let help = match port {
                    Some((head, port)) => format!("write [{head}]:{port} if {port} is the port"),
                    None => format!("write [{v6}]:5432"),
                };
                Fault::new(
                    format!("{quoted} has no port, or lacks brackets around the address"),
                    help,
                )
            }
        };
    }
    if text.starts_with('[') {
        return explain_bracketed(text, &quoted);
    }
    explain_host(text, &quoted)
}

/// `HOST:PORT` or `HOST` without brackets, which is no IP address of either family.
fn explain_host(text: &str, quoted: &str) -> Fault {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if host.contains(':') {
        let help = "IPv6 addresses stand in brackets: [2001:db8::1]:5432";
        return Fault::new(format!("{quoted} is not an address"), help);
    }
    if host.is_empty() || host == "*" {
        let Some(port) = port.filter(|port| parse_port(text, port).is_err()) else {
            return Fault::new(
                format!("{quoted} has no host"),
                "write an address, such as 10.0.0.11:5432",
            );
        };
        return port_fault(text, port);
    }
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        if host.parse::<Ipv4Addr>().is_ok() {
            return port_fault(text, port.unwrap_or("")).at(host.len() + 1..text.len());
        }
        if port.is_none() && !host.contains('.') {
            return Fault::new(
                format!("{quoted} has no host"),
                format!("write an address, such as 10.0.0.11:{host}"),
            );
        }
        let help = "an IPv4 address is four numbers from 0 to 255 without leading zeros";
        return Fault::new(format!("{quoted} is not an address"), help).at(0..host.len());
    }
    if host.contains('/') {
        return Fault::new(
            format!("{quoted} is not an address"),
            "write one address, such as 10.0.0.11:5432",
        );
    }
    let help = match host {
        "localhost" => format!(
            "names are not looked up here; write 127.0.0.1:{}",
            port.unwrap_or("5432")
        ),
        _ => "names are not looked up here; write an address".to_owned(),
    };
    Fault::new(format!("{quoted} is not an address"), help).at(0..host.len())
}

fn explain_bracketed(text: &str, quoted: &str) -> Fault {
    let Some((inner, rest)) = text[1..].split_once(']') else {
        return Fault::new(
            format!("{quoted} lacks the closing bracket"),
            "write [2001:db8::1]:5432",
        );
    };
    let (address, interface) = inner
        .split_once('%')
        .map_or((inner, None), |(ip, name)| (ip, Some(name)));
    if address.parse::<Ipv6Addr>().is_err() {
        let help = "only IPv6 addresses stand in brackets: [2001:db8::1]:5432";
        return Fault::new(format!("{quoted} is not an address"), help);
    }
    if interface.is_some_and(|name| name.parse::<u32>().is_err()) {
        let help = format!("write its index (see `ip link`): [{address}%2]{}", crop(rest));
        return Fault::new(format!("{quoted} names its interface"), help);
    }
    let port = rest.strip_prefix(':').unwrap_or("");
    if rest.is_empty() {
        return Fault::new(format!("{quoted} has no port"), format!("write [{address}]:5432"));
    }
    port_fault(text, port).at(text.len() - port.len()..text.len())
}

/// A part of the operator's text inside a suggestion, harmless like [`quote`] but without quotes.
fn crop(text: &str) -> String {
    quote(text).trim_matches('"').to_owned()
}

#[cfg(test)]
#[path = "address_test.rs"]
mod tests;
