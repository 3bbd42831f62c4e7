//! What can be wrong with the first message of a PostgreSQL connection. All of it is the client's fault.

use std::fmt;

/// What is wrong with a first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartupError {
    /// The first bytes are neither a length that a first message can have nor TLS.
    NotPostgres,
    /// A length that this message cannot have.
    BadLength,
    /// Neither a request that we know nor version 3 of the protocol.
    BadVersion,
}

impl StartupError {
    /// Every error.
    pub const ALL: &'static [Self] = &[Self::NotPostgres, Self::BadLength, Self::BadVersion];

    /// One word for logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotPostgres => "not_postgres",
            Self::BadLength => "bad_length",
            Self::BadVersion => "bad_version",
        }
    }
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPostgres => "the connection does not begin as one of PostgreSQL",
            Self::BadLength => "the first message of PostgreSQL has a length that it cannot have",
            Self::BadVersion => "the first message of PostgreSQL is of a version of the protocol that is not supported",
        })
    }
}

impl std::error::Error for StartupError {}
