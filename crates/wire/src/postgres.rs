//! The start of a PostgreSQL connection (PostgreSQL 18 documentation, 54.2.1 "Start-up", 54.2.8 "Canceling Requests in
//! Progress", 54.7 "Message Formats"): what the client wants first, and the key by which it can cancel later.
//!
//! Absent here: users, databases and passwords. A balancer needs none of them.

mod error;
#[doc(hidden)]
pub mod fuzz;
mod key;
mod watch;

pub use error::StartupError;
pub use key::CancelKey;
pub use watch::{KeyWatch, WATCHED_BYTES_MAX, Watched};

/// A client asks for TLS; the server answers one byte, `S` or `N`.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// A client asks for GSSAPI encryption; the server answers one byte, `G` or `N`.
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x30];

/// The largest length that a first message may declare: the server takes 10,000 bytes after the length field.
pub const STARTUP_MAX: u32 = 10_004;

/// Bytes of a length and a code, which every first message has.
const HEAD_BYTES: u32 = 8;

/// Code of a CancelRequest: 1234 and 5678, each in two bytes. The two requests above follow it.
const CANCEL_CODE: u32 = 1234 << 16 | 5678;
const SSL_CODE: u32 = CANCEL_CODE + 1;
const GSSENC_CODE: u32 = CANCEL_CODE + 2;

/// The major version of the protocol in use since PostgreSQL 7.4.
const MAJOR: u32 = 3;

/// The type of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client sends first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Startup {
    /// It asks for TLS.
    SslRequest,
    /// It asks for GSSAPI encryption.
    GssEncRequest,
    /// It asks for another connection's query to be cancelled.
    Cancel(CancelKey),
    /// It begins a session without encryption. What it says of itself is for the backend to read.
    Startup {
        /// Bytes of the whole message as it declares them, 8 to [`STARTUP_MAX`].
        len: u32,
    },
    /// It begins TLS at once (`sslnegotiation=direct`, PostgreSQL 17).
    DirectTls,
}

/// Reads the first message of a connection, or the next one after a request was answered. `bytes` is everything
/// received since.
///
/// Gives the message and its bytes in `bytes`, which end before what follows: 8 for the two requests, all of a
/// CancelRequest. Of a start-up message and of direct TLS it is 0: they are the backend's to read, from their first byte.
/// `Ok(None)`: more is needed. That a whole start-up message has come is not waited for, only its first 8 bytes.
///
/// # Errors
///
/// Whatever a server would not take either, as early as the bytes allow.
pub fn read_startup(bytes: &[u8]) -> Result<Option<(Startup, usize)>, StartupError> {
    match bytes {
        [] => return Ok(None),
        [TLS_HANDSHAKE, ..] => return Ok(Some((Startup::DirectTls, 0))),
        [0] | [0, 0, ..] => {}
        // A length of 64 KiB or more: HTTP, SSH, another protocol's greeting.
        _ => return Err(StartupError::NotPostgres),
    }
    let Some((len, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*len);
    if !(HEAD_BYTES..=STARTUP_MAX).contains(&len) {
        return Err(StartupError::BadLength);
    }
    let Some((code, _)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let found = match u32::from_be_bytes(*code) {
        SSL_CODE | GSSENC_CODE if len != HEAD_BYTES => return Err(StartupError::BadLength),
        SSL_CODE => (Startup::SslRequest, HEAD_BYTES as usize),
        GSSENC_CODE => (Startup::GssEncRequest, HEAD_BYTES as usize),
        CANCEL_CODE => return read_cancel(bytes, len),
        version if version >> 16 == MAJOR => (Startup::Startup { len }, 0),
        _ => return Err(StartupError::BadVersion),
    };
    Ok(Some(found))
}

fn read_cancel(bytes: &[u8], len: u32) -> Result<Option<(Startup, usize)>, StartupError> {
    let len = len as usize;
    let fields = len.saturating_sub(HEAD_BYTES as usize);
    if !key::FIELDS_BYTES.contains(&fields) {
        return Err(StartupError::BadLength);
    }
    let fields = bytes.get(HEAD_BYTES as usize..len);
    Ok(fields.and_then(CancelKey::read).map(|key| (Startup::Cancel(key), len)))
}
