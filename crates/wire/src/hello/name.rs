//! The server_name extension (RFC 6066 section 3).

use super::HelloError;
use super::cursor::{Cursor, Span};
use std::borrow::Cow;
use std::net::IpAddr;

/// The only type of name there is.
const HOST_NAME: u8 = 0;
/// Bytes, a trailing dot included: what OpenSSL takes. DNS itself ends at 253.
const NAME_MAX: usize = 255;

/// What was found, as a place in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Absent,
    Address,
    /// Checked; without the trailing dot, in the client's own case.
    Host(Span),
}

/// Reads the extension's content: a list that fills it and holds one host name.
///
/// RFC 6066 gives the list room for more, of other types. No other type was ever defined, OpenSSL and rustls refuse a
/// second entry, and a reader that took the first of two would differ from one that takes the last.
pub(super) fn read(mut content: Cursor<'_>) -> Result<Name, HelloError> {
    let list = content.vector_u16().filter(|_| content.is_empty());
    let mut list = list.ok_or(HelloError::Malformed)?;
    let kind = list.u8().ok_or(HelloError::BadName)?;
    if kind != HOST_NAME {
        // Its content may have any form, so that nothing behind it can be read.
        return Err(HelloError::BadName);
    }
    let name = list.vector_u16().ok_or(HelloError::Malformed)?;
    if !list.is_empty() {
        return Err(HelloError::BadName);
    }
    check(name)
}

fn check(mut name: Cursor<'_>) -> Result<Name, HelloError> {
    let written = name.bytes();
    if written.len() > NAME_MAX {
        return Err(HelloError::BadName);
    }
    let host = written.strip_suffix(b".").unwrap_or(written);
    if is_address(host) {
        return Ok(Name::Address);
    }
    let is_of_hosts = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut labels = host.split(|&byte| byte == b'.');
    if !labels.all(|label| !label.is_empty() && label.iter().all(is_of_hosts)) {
        return Err(HelloError::BadName);
    }
    let host = name.take(host.len()).ok_or(HelloError::BadName)?;
    Ok(Name::Host(host.span()))
}

/// In the usual form of text: four decimal numbers, or IPv6 without brackets and zone.
fn is_address(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
}

/// The name as it is compared. Copies only what has capital letters.
pub(super) fn lower_case(name: &[u8]) -> Cow<'_, str> {
    // ASCII, as was checked: nothing is ever replaced.
    let text = String::from_utf8_lossy(name);
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    text
}
