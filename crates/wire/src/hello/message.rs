//! The inside of a ClientHello message (RFC 8446 section 4.1.2): every length is checked, every byte accounted for.

use super::cursor::{Cursor, Span};
use super::name::{self, Name};
use super::{ClientHello, HelloError};
use std::borrow::Cow;

/// Extension types (RFC 6066 section 3, RFC 7301 section 3.1).
pub(super) const SERVER_NAME: u16 = 0;
pub(super) const ALPN: u16 = 16;

/// Of the handshake message: type and length, which the reader has checked.
const HEADER: usize = 4;
const RANDOM: usize = 32;
const SESSION_ID_MAX: usize = 32;

/// The fields of a ClientHello, none of them interpreted.
pub(super) struct Fields<'a> {
    pub(super) version: u16,
    pub(super) random: Cursor<'a>,
    /// At most 32 bytes.
    pub(super) session_id: Cursor<'a>,
    /// Two bytes each, at least one.
    pub(super) cipher_suites: Cursor<'a>,
    /// At least one.
    pub(super) compressions: Cursor<'a>,
    /// TLS 1.2 and older may leave them out altogether.
    pub(super) extensions: Option<Extensions<'a>>,
}

/// Type and content, one after the other.
#[derive(Clone)]
pub(super) struct Extensions<'a>(Cursor<'a>);

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<(u16, Cursor<'a>), HelloError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = |rest: &mut Cursor<'a>| Some((rest.u16()?, rest.vector_u16()?));
        Some(read(&mut self.0).ok_or(HelloError::Malformed))
    }
}

impl<'a> Fields<'a> {
    /// `message` with its header.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, HelloError> {
        let mut rest = Cursor::new(message);
        let fields = Self::from_cursor(&mut rest).ok_or(HelloError::Malformed)?;
        let suites = fields.cipher_suites.bytes().len();
        let fits = fields.session_id.bytes().len() <= SESSION_ID_MAX
            && suites >= 2
            && suites.is_multiple_of(2)
            && !fields.compressions.is_empty()
            && rest.is_empty();
        if fits { Ok(fields) } else { Err(HelloError::Malformed) }
    }

    fn from_cursor(rest: &mut Cursor<'a>) -> Option<Self> {
        rest.take(HEADER)?;
        Some(Self {
            version: rest.u16()?,
            random: rest.take(RANDOM)?,
            session_id: rest.vector_u8()?,
            cipher_suites: rest.vector_u16()?,
            compressions: rest.vector_u8()?,
            extensions: match rest.is_empty() {
                true => None,
                false => Some(Extensions(rest.vector_u16()?)),
            },
        })
    }
}

/// Finds name and protocols. Unknown extensions, GREASE (RFC 8701) among them, are skipped by their length.
pub(super) fn parse(message: Cow<'_, [u8]>) -> Result<ClientHello<'_>, HelloError> {
    let mut name = None;
    let mut protocols = None;
    for extension in Fields::read(&message)?.extensions.into_iter().flatten() {
        let (kind, content) = extension?;
        // Of two, one library may take the first and another the last.
        let twice = match kind {
            SERVER_NAME => name.replace(name::read(content)?).is_some(),
            ALPN => protocols.replace(read_protocols(content)?).is_some(),
            _ => false,
        };
        if twice {
            return Err(HelloError::Malformed);
        }
    }
    Ok(ClientHello {
        message,
        name: name.unwrap_or(Name::Absent),
        protocols: protocols.unwrap_or_default(),
    })
}

/// A list of names, each of at least one byte, that fills the extension; not empty.
fn read_protocols(mut content: Cursor<'_>) -> Result<Span, HelloError> {
    let list = content
        .vector_u16()
        .filter(|list| content.is_empty() && !list.is_empty());
    let list = list.ok_or(HelloError::Malformed)?;
    let mut rest = list.clone();
    while !rest.is_empty() {
        let name = rest.vector_u8().filter(|name| !name.is_empty());
        name.ok_or(HelloError::Malformed)?;
    }
    Ok(list.span())
}
