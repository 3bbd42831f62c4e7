//! The key by which a query is cancelled from another connection.

use std::fmt;
use std::ops::RangeInclusive;

/// Bytes of a key alone; four before protocol 3.2.
const KEY_BYTES: RangeInclusive<usize> = 4..=256;

/// Bytes of the process's number.
const PID_BYTES: usize = 4;

/// Bytes of number and key together, as both BackendKeyData and CancelRequest carry them.
pub(super) const FIELDS_BYTES: RangeInclusive<usize> = PID_BYTES + *KEY_BYTES.start()..=PID_BYTES + *KEY_BYTES.end();

/// What a server tells a client at the start of a session (BackendKeyData), and a client tells the server in order to
/// cancel that session's query (CancelRequest). Whoever knows it can cancel: it is shown nowhere, not even by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    pid: u32,
    key: Key,
}

/// Four bytes are always `Usual`, so that equal keys are equal.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Usual([u8; 4]),
    Long(Box<[u8]>),
}

impl CancelKey {
    /// A key of 4 to 256 bytes.
    pub fn new(pid: u32, key: &[u8]) -> Option<Self> {
        let key = match <[u8; 4]>::try_from(key) {
            Ok(usual) => Key::Usual(usual),
            Err(_) if KEY_BYTES.contains(&key.len()) => Key::Long(key.into()),
            Err(_) => return None,
        };
        Some(Self { pid, key })
    }

    /// `fields`: the number and the key, nothing else.
    pub(super) fn read(fields: &[u8]) -> Option<Self> {
        let (pid, key) = fields.split_first_chunk()?;
        Self::new(u32::from_be_bytes(*pid), key)
    }

    /// The server's name for the session, mostly the number of its process.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The secret, 4 to 256 bytes.
    pub const fn key(&self) -> &[u8] {
        match &self.key {
            Key::Usual(key) => key,
            Key::Long(key) => key,
        }
    }

    /// Appends the CancelRequest with this key to `out`.
    pub fn write_request(&self, out: &mut Vec<u8>) {
        let len = super::HEAD_BYTES as usize + PID_BYTES + self.key().len();
        out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&super::CANCEL_CODE.to_be_bytes());
        out.extend_from_slice(&self.pid.to_be_bytes());
        out.extend_from_slice(self.key());
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.key().len();
        write!(f, "CancelKey {{ pid: {}, key: {bytes} bytes }}", self.pid)
    }
}
