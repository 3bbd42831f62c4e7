//! Watches a server's first messages go by for the key of the session. Keeps no byte of them but the key's.

use super::{CancelKey, key};

/// How much of a server is watched at most. A start-up is a few hundred bytes; some authentication methods (GSSAPI with
/// large tickets) take a few KiB.
pub const WATCHED_BYTES_MAX: u32 = 64 * 1024;

/// Bytes of a message's length field, which counts itself.
const LENGTH_BYTES: u32 = 4;

/// What has been seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Nothing yet: go on.
    More,
    /// The key, given once. Nothing later is of interest.
    Key(CancelKey),
    /// There will be no key: the session has begun without one, encryption follows, it is not PostgreSQL, or
    /// [`WATCHED_BYTES_MAX`] bytes have passed.
    Over,
}

/// Is fed what the server sends, in pieces as they come. The size of a few words; allocates only for a key, at most 260
/// bytes.
#[derive(Clone, Debug)]
pub struct KeyWatch {
    state: State,
    /// Bytes until [`WATCHED_BYTES_MAX`].
    left: u32,
}

#[derive(Clone, Debug)]
enum State {
    /// Before the first message: one byte may come that answers an encryption request and is no message.
    First,
    /// An `N` came first: a refusal, or the type of a NoticeResponse. The next byte tells, since a refusal is followed by
    /// an answer to the client's next request, never by 0, and a length below 16 MiB begins with 0.
    RefusalOrNotice,
    /// Between messages.
    Type,
    /// In the length field.
    Length { kind: u8, value: u32, bytes: u8 },
    /// In a message that does not matter, with bytes left.
    Skip { left: u32 },
    /// In BackendKeyData.
    Fields { gathered: Vec<u8>, bytes: usize },
    /// Key given, or [`Watched::Over`] said.
    Ended,
}

impl Default for KeyWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyWatch {
    /// Watches from a server's first byte on.
    pub const fn new() -> Self {
        Self {
            state: State::First,
            left: WATCHED_BYTES_MAX,
        }
    }

    /// Takes the next piece. After [`Watched::Key`] or [`Watched::Over`] it only ever says `Over`.
    pub fn feed(&mut self, bytes: &[u8]) -> Watched {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let mut rest = bytes.get(..room).unwrap_or(bytes);
        self.left -= u32::try_from(rest.len()).unwrap_or(self.left);
        let watched = loop {
            match self.step(&mut rest) {
                Watched::More if !rest.is_empty() => {}
                watched => break watched,
            }
        };
        if watched == Watched::More && self.left > 0 {
            return Watched::More;
        }
        self.state = State::Ended;
        match watched {
            Watched::Key(key) => Watched::Key(key),
            Watched::More | Watched::Over => Watched::Over,
        }
    }

    /// Takes at least one byte, unless there is none or the watch is over.
    fn step(&mut self, rest: &mut &[u8]) -> Watched {
        match &mut self.state {
            State::Ended => return Watched::Over,
            State::Skip { left } => {
                let skipped = rest.len().min(*left as usize);
                *rest = rest.get(skipped..).unwrap_or_default();
                *left -= skipped as u32;
                if *left == 0 {
                    self.state = State::Type;
                }
                return Watched::More;
            }
            State::Fields { gathered, bytes } => {
                let (taken, after) = rest.split_at_checked(*bytes - gathered.len()).unwrap_or((rest, &[]));
                gathered.extend_from_slice(taken);
                *rest = after;
                if gathered.len() < *bytes {
                    return Watched::More;
                }
                return CancelKey::read(gathered).map_or(Watched::Over, Watched::Key);
            }
            State::First | State::RefusalOrNotice | State::Type | State::Length { .. } => {}
        }
        let Some((&byte, after)) = rest.split_first() else {
            return Watched::More;
        };
        *rest = after;
        self.take(byte)
    }

    /// Takes a byte that is no message's body.
    fn take(&mut self, byte: u8) -> Watched {
        let next = match (&self.state, byte) {
            (State::First, b'N') => Some(State::RefusalOrNotice),
            (State::RefusalOrNotice, 0) => Some(State::Length {
                kind: b'N',
                value: 0,
                bytes: 1,
            }),
            // After a refusal the client may make its other request, which may be refused as well.
            (State::RefusalOrNotice, b'N') => Some(State::RefusalOrNotice),
            // `S`: TLS follows. `G`: GSSAPI encryption follows. Neither can be a server's first message.
            (State::First | State::RefusalOrNotice, b'S' | b'G') => None,
            (State::First | State::RefusalOrNotice | State::Type, _) => length_of(byte),
            (&State::Length { kind, value, bytes }, _) => {
                let value = value << 8 | u32::from(byte);
                if u32::from(bytes) + 1 == LENGTH_BYTES {
                    self.body_of(kind, value)
                } else {
                    Some(State::Length {
                        kind,
                        value,
                        bytes: bytes + 1,
                    })
                }
            }
            (State::Skip { .. } | State::Fields { .. } | State::Ended, _) => None,
        };
        match next {
            Some(state) => {
                self.state = state;
                Watched::More
            }
            None => Watched::Over,
        }
    }

    /// The state after a message's length has come.
    fn body_of(&self, kind: u8, length: u32) -> Option<State> {
        let left = length.checked_sub(LENGTH_BYTES)?;
        let bytes = usize::try_from(left).ok()?;
        match kind {
            b'K' if key::FIELDS_BYTES.contains(&bytes) => Some(State::Fields {
                gathered: Vec::with_capacity(bytes),
                bytes,
            }),
            b'K' => None,
            _ if left > WATCHED_BYTES_MAX => None,
            _ if left == 0 => Some(State::Type),
            _ => Some(State::Skip { left }),
        }
    }
}

/// The messages that a server sends before it is ready for a query: authentication of any kind, parameters, notices, an
/// error, the versions that it knows, the key. ReadyForQuery (`Z`) ends the start-up; any other is not PostgreSQL.
fn length_of(kind: u8) -> Option<State> {
    matches!(kind, b'R' | b'S' | b'N' | b'E' | b'v' | b'K').then_some(State::Length {
        kind,
        value: 0,
        bytes: 0,
    })
}
