//! Version 1: one line of text (section 2.1).

use super::{Addresses, Command, Header, ProxyError, Version, endpoint};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of the longest line, CR LF included.
pub const LINE_MAX: usize = 107;

/// What a line begins with.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// What may follow the signature, as far as it decides how to go on.
const WORDS: [&[u8]; 4] = [b"TCP4 ", b"TCP6 ", b"UNKNOWN ", b"UNKNOWN\r"];

/// Reads a line; its signature has been seen.
pub(super) fn read(bytes: &[u8], max: usize) -> Result<Option<Header<'_>>, ProxyError> {
    let rest = bytes.get(SIGNATURE.len()..).unwrap_or_default();
    if !WORDS
        .iter()
        .any(|word| rest.iter().zip(*word).all(|(byte, expected)| byte == expected))
    {
        return Err(ProxyError::BadLine);
    }
    let room = max.min(LINE_MAX).saturating_sub(SIGNATURE.len());
    let Some(line) = line_of(rest, room)? else {
        return Ok(None);
    };
    Ok(Some(Header {
        len: SIGNATURE.len() + line.len() + b"\r\n".len(),
        version: Version::V1,
        command: Command::Proxy,
        addresses: addresses_of(line)?,
        tlvs: &[],
    }))
}

/// What stands before the CR LF, which must lie within the first `room` bytes. A CR or LF alone never ends a line, not
/// even where the rest of it is ignored: two readers of such a header would disagree on where the payload begins.
fn line_of(bytes: &[u8], room: usize) -> Result<Option<&[u8]>, ProxyError> {
    let searched = bytes.get(..room).unwrap_or(bytes);
    let Some(end) = searched.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if searched.len() < room {
            Ok(None)
        } else {
            Err(ProxyError::TooLong)
        };
    };
    let (line, ending) = searched.split_at_checked(end).unwrap_or_default();
    match ending {
        [b'\r', b'\n', ..] => Ok(Some(line)),
        [b'\r'] if searched.len() < room => Ok(None),
        [b'\r'] => Err(ProxyError::TooLong),
        _ => Err(ProxyError::BadLine),
    }
}

fn addresses_of(line: &[u8]) -> Result<Addresses<'static>, ProxyError> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut next = || words.next().ok_or(ProxyError::BadLine);
    let family = next()?;
    if family == b"UNKNOWN" {
        return Ok(Addresses::Unknown);
    }
    let [source, destination, source_port, destination_port] = [next()?, next()?, next()?, next()?];
    if words.next().is_some() {
        return Err(ProxyError::BadLine);
    }
    let (source_port, destination_port) = (port(source_port)?, port(destination_port)?);
    // The standard library's parsers are as strict as the specification: no leading zeros, no zone, nothing around.
    if family == b"TCP4" {
        Ok(Addresses::Tcp {
            source: endpoint(address::<Ipv4Addr>(source)?, source_port),
            destination: endpoint(address::<Ipv4Addr>(destination)?, destination_port),
        })
    } else {
        Ok(Addresses::Tcp {
            source: endpoint(address::<Ipv6Addr>(source)?, source_port),
            destination: endpoint(address::<Ipv6Addr>(destination)?, destination_port),
        })
    }
}

fn address<T: std::str::FromStr>(word: &[u8]) -> Result<T, ProxyError> {
    let text = str::from_utf8(word).map_err(|_| ProxyError::BadAddress)?;
    text.parse().map_err(|_| ProxyError::BadAddress)
}

fn port(word: &[u8]) -> Result<u16, ProxyError> {
    let digits = matches!(word, [b'0'] | [b'1'..=b'9', ..]) && word.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(word).map_err(|_| ProxyError::BadPort)?;
    if digits {
        text.parse().map_err(|_| ProxyError::BadPort)
    } else {
        Err(ProxyError::BadPort)
    }
}
