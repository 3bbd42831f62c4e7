//! What can be wrong with a PROXY header. All of it is the sender's fault and ends the connection.

use std::fmt;

macro_rules! proxy_errors {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $sentence:literal;)+) => {
        /// What is wrong with a header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProxyError { $($(#[$doc])* $variant,)+ }

        impl ProxyError {
            /// Every error, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// One word for logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }

        impl fmt::Display for ProxyError {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $sentence,)+ })
            }
        }
    };
}

proxy_errors! {
    /// The first bytes are neither version's signature.
    NotProxy = "not_proxy", "the connection does not begin with a PROXY header";
    /// A header of a version that the listener does not accept.
    VersionNotAccepted = "version_not_accepted", "the PROXY header is of a version that is not accepted here";
    /// Version 1: no end of line where the longest line ends. Version 2: it declares more bytes than there is room for.
    TooLong = "too_long", "the PROXY header is too long";
    /// Version 1: not the words, single spaces and CR LF that a line is made of.
    BadLine = "bad_line", "the line of the PROXY header (version 1) is malformed";
    /// Version 1: an address that is not one of the family named.
    BadAddress = "bad_address", "an address in the PROXY header (version 1) is not one of the family that it names";
    /// Version 1: a port that is no decimal number from 0 to 65535, or has leading zeros or a sign.
    BadPort = "bad_port", "a port in the PROXY header (version 1) is no number from 0 to 65535";
    /// The signature of version 2, but another number of version behind it.
    BadVersion = "bad_version", "the PROXY header has the signature of version 2 and another version's number";
    /// Version 2: neither LOCAL nor PROXY.
    BadCommand = "bad_command", "the command in the PROXY header (version 2) is neither LOCAL nor PROXY";
    /// Version 2: the length declared has no room for the addresses of the family named.
    TooShort = "too_short", "the PROXY header (version 2) is too short for the addresses of its family";
    /// Version 2: TLVs that do not fill the header exactly, one that cannot have its length, or two that contradict.
    BadTlv = "bad_tlv", "the TLVs of the PROXY header (version 2) are malformed";
    /// Version 2: the CRC32c does not match.
    BadChecksum = "bad_checksum", "the checksum of the PROXY header (version 2) does not match";
}

impl std::error::Error for ProxyError {}
