//! The TLS ClientHello: which name and which protocols a client asks for.
//!
//! RFC 8446 sections 4.1.2 and 5.1 (messages and records), RFC 6066 section 3 (server_name), RFC 7301 (ALPN).
//!
//! Who routes by a name vouches for it: the backend's TLS library must see the same one. So this reader takes only what
//! leaves no second reading. Whatever is split, over segments or records, is joined first; two names, a name that is no
//! host name, lengths that do not fit: an error, and the caller closes. What it cannot know:
//!
//! * Encrypted ClientHello: the name is that of the outer hello. A backend that holds the key serves an inner one.
//! * A second hello, after a HelloRetryRequest or a renegotiation, is part of the stream that is relayed unread. A
//!   backend that takes another name from it was not misled about where the connection came in.
//!
//! Absent here: certificates, keys, versions, ciphers; whether a handshake will succeed is between client and backend.

mod cursor;
mod error;
pub mod forge;
#[doc(hidden)]
pub mod fuzz;
mod message;
mod name;
mod reader;

pub use error::HelloError;
pub use reader::{MESSAGE_MAX, MESSAGE_MAX_LEAST, Reader};

use cursor::{Cursor, Span};
use name::Name;
use std::borrow::Cow;

/// A ClientHello that was read whole, and found to be well formed in everything that concerns routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// With its header of 4 bytes, without those of records.
    message: Cow<'a, [u8]>,
    name: Name,
    /// The list of protocol names, checked, without its own length. Empty: no ALPN extension.
    protocols: Span,
}

/// Whom the client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName<'a> {
    /// No server_name extension.
    Absent,
    /// An IP address in place of a name. RFC 6066 forbids it, libraries ignore it: it names no host.
    Address,
    /// In normal form: lower case, no trailing dot; letters, digits, `-`, `_` and `.`, no empty label, 1 to 255 bytes.
    Host(Cow<'a, str>),
}

impl ClientHello<'_> {
    /// Whom the client asks for.
    pub fn server_name(&self) -> ServerName<'_> {
        match self.name {
            Name::Absent => ServerName::Absent,
            Name::Address => ServerName::Address,
            Name::Host(span) => ServerName::Host(name::lower_case(span.of(&self.message))),
        }
    }

    /// The application protocols that the client offers, in its order; each of 1 to 255 bytes of any value. None when
    /// it sent no ALPN extension.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut rest = Cursor::new(self.protocols.of(&self.message));
        std::iter::from_fn(move || rest.vector_u8().map(|name| name.bytes()))
    }

    /// The message with its header of 4 bytes, as if it had come in a single record.
    pub fn message(&self) -> &[u8] {
        &self.message
    }
}
