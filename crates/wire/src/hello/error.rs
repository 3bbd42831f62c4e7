//! What can be wrong with the first bytes of a client. Always the client's fault; the answer is to close.

use std::fmt;

/// Why no ClientHello could be read. More bytes would not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HelloError {
    /// The first bytes are not those of a TLS record with a handshake: HTTP, SSH, noise.
    NotTls,
    /// An SSLv2 hello, which has no extensions; RFC 6176 forbids it.
    Sslv2,
    /// The message is larger than the reader's maximum.
    TooLarge,
    /// A later record is no handshake record of TLS, or any record is empty or larger than 2^14 bytes.
    BadRecord,
    /// A handshake message of another type.
    NotClientHello,
    /// Lengths that do not fit each other, a second server_name or ALPN extension, an empty protocol name.
    Malformed,
    /// A server_name extension that does not hold exactly one host name, or one with bytes that host names do not have.
    BadName,
}

impl HelloError {
    /// Every error.
    pub const ALL: [Self; 7] = [
        Self::NotTls,
        Self::Sslv2,
        Self::TooLarge,
        Self::BadRecord,
        Self::NotClientHello,
        Self::Malformed,
        Self::BadName,
    ];

    /// A short name for logs and metrics, constant and unique.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Sslv2 => "sslv2",
            Self::TooLarge => "too_large",
            Self::BadRecord => "bad_record",
            Self::NotClientHello => "not_client_hello",
            Self::Malformed => "malformed",
            Self::BadName => "bad_name",
        }
    }
}

impl fmt::Display for HelloError {
    /// A sentence without a full stop. Holds nothing of what the client sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTls => "the first bytes are not TLS",
            Self::Sslv2 => "the client speaks SSLv2",
            Self::TooLarge => "the ClientHello is larger than allowed",
            Self::BadRecord => "a TLS record is empty, too large or of another kind before the ClientHello is complete",
            Self::NotClientHello => "the first handshake message is no ClientHello",
            Self::Malformed => "the ClientHello is malformed",
            Self::BadName => "the server_name extension does not hold exactly one host name",
        })
    }
}

impl std::error::Error for HelloError {}
