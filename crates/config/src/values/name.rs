//! Backends that may be names: `db.example.com:5432`, `srv:_postgresql._tcp.example.com`.
//!
//! Only the shape of a name is judged here (RFC 1123 with `_`, as SRV records and many private zones use it); whether it
//! exists is for DNS. What looks like an address that went wrong is told as one.

use super::address;
use crate::diagnostic::quote;
use crate::limits::{HOST_BYTES_MAX, LABEL_BYTES_MAX};
use crate::problem::Fault;
use ringway_core::model::{Name, Records, Target};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

/// In front of a name whose ports come from DNS.
const SERVICES: &str = "srv:";

/// Where a backend listens: an address, a socket, or a name.
pub(crate) fn parse_target(text: &str) -> Result<Target, Fault> {
    if let Some(name) = text.strip_prefix(SERVICES) {
        return services(text, name);
    }
    let Some((host, port)) = split(text) else {
        return address::parse_backend(text).map(Target::Address);
    };
    let name = check(text, 0..host.len())?;
    let Some(port) = port else {
        let help = format!("write {name}:PORT, such as {name}:5432");
        return Err(Fault::new(format!("{} has no port", quote(text)), help));
    };
    let port = address::parse_port(text, port)?;
    Ok(Target::Name(Name {
        host: name,
        records: Records::Addresses(port),
    }))
}

/// A name alone, for SNI.
pub(crate) fn parse_server_name(text: &str) -> Result<Arc<str>, Fault> {
    if text.parse::<IpAddr>().is_ok() || text.starts_with('[') {
        return Err(Fault::new(
            format!("{} is an address", quote(text)),
            "write a name: SNI knows no addresses",
        ));
    }
    if let Some((host, _)) = text.split_once(':') {
        let message = format!("{} has a port", quote(text));
        return Err(Fault::new(message, "write the name alone").at(host.len()..text.len()));
    }
    check(text, 0..text.len())
}

fn services(text: &str, name: &str) -> Result<Target, Fault> {
    if let Some((host, _)) = name.split_once(':') {
        let begin = SERVICES.len() + host.len();
        let message = format!("{} has a port", quote(text));
        return Err(Fault::new(message, "leave it out: ports come with SRV records").at(begin..text.len()));
    }
    Ok(Target::Name(Name {
        host: check(text, SERVICES.len()..text.len())?,
        records: Records::Services,
    }))
}

/// The name and the port of what is meant as a name; `None`: it is, or should have been, something else.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') || text.contains('/') {
        return None;
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let like_an_address = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (host != "*" && !host.contains(':') && !like_an_address).then_some((host, port))
}

/// The name that stands at `part` of `text`, in lower case and without a dot at its end.
fn check(text: &str, part: Range<usize>) -> Result<Arc<str>, Fault> {
    let quoted = quote(text);
    let name = &text[part.clone()];
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(Fault::new(
            format!("{quoted} has no name"),
            "write one, such as db.example.com",
        ));
    }
    if name.len() > HOST_BYTES_MAX {
        let help = format!("DNS takes {HOST_BYTES_MAX}");
        return Err(Fault::new(format!("{quoted} is a name of {} bytes", name.len()), help).at(part));
    }
    let mut begin = part.start;
    for label in name.split('.') {
        check_label(label, &quoted).map_err(|fault| {
            let inner = fault.part.clone().unwrap_or(0..label.len());
            fault.at(begin + inner.start..begin + inner.end)
        })?;
        begin += label.len() + 1;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        let help = "a name does not end in a number; an address is four numbers from 0 to 255";
        return Err(Fault::new(format!("{quoted} is neither an address nor a name"), help).at(part));
    }
    Ok(name.to_ascii_lowercase().into())
}

/// One part between dots.
fn check_label(label: &str, quoted: &str) -> Result<(), Fault> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    if label.is_empty() {
        return Err(Fault::new(
            format!("{quoted} has a dot without a name before it"),
            "write one dot between the parts of a name",
        ));
    }
    if let Some((at, bad)) = label.char_indices().find(|(_, character)| !allowed(*character)) {
        let help = if bad.is_ascii() {
            "names have letters, digits, - and _ between their dots"
        } else {
            "write its form in ASCII, which begins with xn--"
        };
        let message = format!("{quoted} has {} in it", quote(&bad.to_string()));
        return Err(Fault::new(message, help).at(at..at + bad.len_utf8()));
    }
    if label.len() > LABEL_BYTES_MAX {
        let help = format!("DNS takes {LABEL_BYTES_MAX} bytes between two dots");
        return Err(Fault::new(
            format!("{quoted} has a part of {} bytes", label.len()),
            help,
        ));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(Fault::new(
            format!("{quoted} has a - at the edge of a part"),
            "begin and end each part with a letter or a digit",
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "name_test.rs"]
mod tests;
