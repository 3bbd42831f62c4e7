//! From a stream of TLS records to one handshake message. Owns no bytes but the message's header.

use super::{ClientHello, HelloError, message};
use std::borrow::Cow;

/// The largest message that a [`Reader`] can be told to take, bytes.
pub const MESSAGE_MAX: u32 = 64 * 1024;
/// The least that `max` of a [`Reader`] can be, bytes.
pub const MESSAGE_MAX_LEAST: u32 = 1024;

/// Content type, version, length (RFC 8446 section 5.1).
const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
/// Of all versions from SSL 3.0 on. What follows it, the minor version, means nothing in records.
const VERSION_MAJOR: u8 = 3;
/// Of plaintext, bytes.
const FRAGMENT_MAX: usize = 1 << 14;
/// Type, length (RFC 8446 section 4).
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;

/// Walks the records of a stream as it arrives, until a whole ClientHello is there.
///
/// Keeps where it is, never bytes of the client beyond the 4 of the message's header.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Bytes of the largest message, with its header.
    max: u32,
    /// Where the first record begins whose end has not been seen.
    record: u32,
    /// Bytes of the message in the records before that one; below the message's length.
    gathered: u32,
    /// The message's header, as far as it was seen.
    header: [u8; MESSAGE_HEADER],
}

// One waits with every client that has not been routed.
const _: () = assert!(size_of::<Reader>() <= 48);
// Offsets fit: the longest stream has a record for each byte of the message.
const _: () = assert!(MESSAGE_MAX as u64 * (RECORD_HEADER as u64 + 1) <= u32::MAX as u64 / 2);

impl Reader {
    /// `max`: the largest ClientHello in bytes, with its header of 4; [`MESSAGE_MAX_LEAST`] to [`MESSAGE_MAX`].
    ///
    /// # Panics
    ///
    /// If `max` is out of its range.
    pub const fn new(max: u32) -> Self {
        assert!(max >= MESSAGE_MAX_LEAST && max <= MESSAGE_MAX);
        Self {
            max,
            record: 0,
            gathered: 0,
            header: [0; MESSAGE_HEADER],
        }
    }

    /// The most bytes that it will ever want: each byte of the largest message in a record of its own.
    pub const fn bytes_max(&self) -> usize {
        self.max as usize * (RECORD_HEADER + 1)
    }

    /// Reads on. `bytes`: everything received so far, from the first byte of TLS on; it begins with what was given before.
    /// `None`: more is needed.
    ///
    /// Work is in proportion to what is new: records that were complete are not looked at again, until the message is
    /// there and split over several; then they are joined once. Bytes behind the message are left alone, also in its last
    /// record. Asked again after an answer, it gives the same one.
    ///
    /// # Errors
    ///
    /// As early as the bytes allow; which one does not depend on how they were cut into pieces.
    pub fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<ClientHello<'a>>, HelloError> {
        loop {
            let rest = bytes.get(self.record as usize..).unwrap_or_default();
            let Some(length) = record_length(rest, self.record == 0)? else {
                return Ok(None);
            };
            let payload = rest.get(RECORD_HEADER..).unwrap_or_default();
            let payload = payload.get(..length).unwrap_or(payload);
            let gathered = self.gathered as usize + payload.len();
            match self.message_length(payload)? {
                Some(whole) if gathered >= whole => return message::parse(self.join(bytes, whole)).map(Some),
                Some(_) | None => {}
            }
            if payload.len() < length {
                return Ok(None);
            }
            self.record += (RECORD_HEADER + length) as u32;
            self.gathered = gathered as u32;
        }
    }

    /// Bytes of the message with its header; `None` until the header is known. `payload`: of the record at hand.
    fn message_length(&mut self, payload: &[u8]) -> Result<Option<usize>, HelloError> {
        let missing = self.header.iter_mut().skip(self.gathered as usize);
        missing.zip(payload).for_each(|(to, from)| *to = *from);
        let seen = self.gathered as usize + payload.len();
        let [kind, high, middle, low] = self.header;
        if seen > 0 && kind != CLIENT_HELLO {
            return Err(HelloError::NotClientHello);
        }
        if seen < MESSAGE_HEADER {
            return Ok(None);
        }
        let whole = u32::from_be_bytes([0, high, middle, low]) + MESSAGE_HEADER as u32;
        if whole > self.max {
            return Err(HelloError::TooLarge);
        }
        Ok(Some(whole as usize))
    }

    /// The message of `whole` bytes: where it lies if that is one record, else a copy.
    fn join<'a>(&self, bytes: &'a [u8], whole: usize) -> Cow<'a, [u8]> {
        if self.record == 0 {
            let end = RECORD_HEADER + whole;
            return Cow::Borrowed(bytes.get(RECORD_HEADER..end).unwrap_or_default());
        }
        let mut message = Vec::with_capacity(whole);
        let mut rest = bytes;
        while message.len() < whole
            && let Ok(Some(length)) = record_length(rest, false)
        {
            let payload = rest.get(RECORD_HEADER..).unwrap_or_default();
            let wanted = length.min(whole - message.len());
            message.extend_from_slice(payload.get(..wanted).unwrap_or_default());
            rest = payload.get(length..).unwrap_or_default();
        }
        Cow::Owned(message)
    }
}

/// Bytes of the record's fragment; `None` until its header is known. `bytes` begins with the record.
fn record_length(bytes: &[u8], first: bool) -> Result<Option<usize>, HelloError> {
    let stranger = if first {
        HelloError::NotTls
    } else {
        HelloError::BadRecord
    };
    match *bytes {
        [] | [HANDSHAKE] | [HANDSHAKE, VERSION_MAJOR] | [HANDSHAKE, VERSION_MAJOR, _] => Ok(None),
        [HANDSHAKE, VERSION_MAJOR, _, high] => match u16::from_be_bytes([high, 0]) as usize {
            // Whatever the low byte is.
            least if least > FRAGMENT_MAX => Err(HelloError::BadRecord),
            _ => Ok(None),
        },
        [HANDSHAKE, VERSION_MAJOR, _, high, low, ..] => match u16::from_be_bytes([high, low]) as usize {
            0 => Err(HelloError::BadRecord),
            length if length > FRAGMENT_MAX => Err(HelloError::BadRecord),
            length => Ok(Some(length)),
        },
        // SSLv2: a length of two bytes, the highest bit set, then the message's type (RFC 6101 appendix E.1).
        [0x80..=0xFF] | [0x80..=0xFF, _] if first => Ok(None),
        [0x80..=0xFF, _, CLIENT_HELLO, ..] if first => Err(HelloError::Sslv2),
        [_, ..] => Err(stranger),
    }
}
