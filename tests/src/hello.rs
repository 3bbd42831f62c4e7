//! ClientHellos that no TLS library would send, and the records that carry them; written after RFC 8446, sections 4.1.2
//! and 5.1, and RFC 6066, section 3.

/// Handshake record type and message type (RFC 8446, sections 5.1 and 4).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The longest fragment of a record (RFC 8446, section 5.1).
pub const RECORD_MAX: usize = 1 << 14;

/// Extension types (IANA, "TLS ExtensionType Values").
const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const PADDING: u16 = 21;
const SUPPORTED_VERSIONS: u16 = 43;
const PSK_KEY_EXCHANGE_MODES: u16 = 45;
const KEY_SHARE: u16 = 51;
/// One of the values that RFC 8701 reserves so that nobody forgets to ignore what is unknown.
const GREASE: u16 = 0x4A4A;

/// A ClientHello under construction; everything that is not said is what a TLS 1.3 client sends.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    /// Entries of the server_name list: type, name. `None`: no such extension.
    names: Option<Vec<(u8, Vec<u8>)>>,
    alpn: Vec<Vec<u8>>,
    padded_to: usize,
    name_last: bool,
}

impl Hello {
    /// Without a server name.
    pub fn nameless() -> Self {
        Self::default()
    }

    /// For a host of this name, whatever bytes it has.
    pub fn to(name: impl AsRef<[u8]>) -> Self {
        Self::default().name(0, name)
    }

    /// Adds an entry to the server_name list; type 0 is host_name.
    pub fn name(mut self, kind: u8, name: impl AsRef<[u8]>) -> Self {
        let names = self.names.get_or_insert_default();
        names.push((kind, name.as_ref().to_vec()));
        self
    }

    /// Offers these protocols.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Pads the message, its header of four bytes included, to this size (RFC 7685).
    pub fn padded_to(&self, bytes: usize) -> Self {
        Self {
            padded_to: bytes,
            ..self.clone()
        }
    }

    /// Puts the server name behind everything else, padding included.
    pub fn name_last(mut self) -> Self {
        self.name_last = true;
        self
    }

    /// The handshake message with its header.
    pub fn message(&self) -> Vec<u8> {
        let unpadded = self.message_with(None);
        match self.padded_to.checked_sub(unpadded.len()) {
            None | Some(0) => unpadded,
            // Type and length of the padding take four bytes themselves.
            Some(missing) => self.message_with(Some(missing.saturating_sub(4))),
        }
    }

    /// The message in records as long as may be.
    pub fn bytes(&self) -> Vec<u8> {
        in_records(&self.message(), RECORD_MAX)
    }

    fn message_with(&self, padding: Option<usize>) -> Vec<u8> {
        let mut extensions = extension(GREASE, &[]);
        let name = self.names.as_deref().map(server_name).unwrap_or_default();
        if !self.name_last {
            extensions.extend_from_slice(&name);
        }
        extensions.extend(extension(SUPPORTED_GROUPS, &prefixed16(&[0x6A, 0x6A, 0, 29, 0, 23])));
        let signatures = [0x04, 0x03, 0x08, 0x04, 0x04, 0x01, 0x05, 0x03];
        extensions.extend(extension(SIGNATURE_ALGORITHMS, &prefixed16(&signatures)));
        if !self.alpn.is_empty() {
            let list: Vec<u8> = self.alpn.iter().flat_map(|name| prefixed8(name)).collect();
            extensions.extend(extension(ALPN, &prefixed16(&list)));
        }
        let versions = [0x8A, 0x8A, 3, 4, 3, 3];
        extensions.extend(extension(SUPPORTED_VERSIONS, &prefixed8(&versions)));
        extensions.extend(extension(PSK_KEY_EXCHANGE_MODES, &prefixed8(&[1])));
        // A public key of X25519 may be any 32 bytes (RFC 7748, section 5); 9 is the base point.
        let mut share = vec![0, 29];
        share.extend(prefixed16(&[&[9][..], &[0; 31]].concat()));
        extensions.extend(extension(KEY_SHARE, &prefixed16(&share)));
        if let Some(bytes) = padding {
            extensions.extend(extension(PADDING, &vec![0; bytes]));
        }
        if self.name_last {
            extensions.extend_from_slice(&name);
        }
        let mut body = vec![3, 3];
        body.extend([0x5A; 32]);
        body.extend(prefixed8(&[0xA5; 32]));
        body.extend(prefixed16(&[0x2A, 0x2A, 0x13, 0x01, 0x13, 0x02, 0xC0, 0x2B]));
        body.extend(prefixed8(&[0]));
        body.extend(prefixed16(&extensions));
        handshake(CLIENT_HELLO, &body)
    }
}

/// A handshake message of this type.
pub fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a length of 24 bits").to_be_bytes();
    [&[kind, length[1], length[2], length[3]], body].concat()
}

fn server_name(entries: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let entry = |(kind, name): &(u8, Vec<u8>)| [vec![*kind], prefixed16(name)].concat();
    let list: Vec<u8> = entries.iter().flat_map(entry).collect();
    extension(SERVER_NAME, &prefixed16(&list))
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &prefixed16(data)].concat()
}

fn prefixed8(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).expect("at most 255 bytes")], data].concat()
}

fn prefixed16(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("at most 65,535 bytes");
    [&length.to_be_bytes()[..], data].concat()
}

/// One handshake record.
pub fn record(fragment: &[u8]) -> Vec<u8> {
    record_of(HANDSHAKE, fragment)
}

/// One record of this type; its version is the one that RFC 8446 asks for in a first hello.
pub fn record_of(kind: u8, fragment: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &prefixed16(fragment)].concat()
}

/// The message in records that carry so many bytes each.
pub fn in_records(message: &[u8], each: usize) -> Vec<u8> {
    message.chunks(each).flat_map(record).collect()
}

/// The message in two records, the first of which carries so many bytes.
pub fn in_two_records(message: &[u8], first: usize) -> Vec<u8> {
    [record(&message[..first]), record(&message[first..])].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::server::Acceptor;

    /// What rustls reads in it.
    fn read(mut bytes: &[u8]) -> Result<(Option<String>, Vec<Vec<u8>>), String> {
        let mut acceptor = Acceptor::default();
        while !bytes.is_empty() {
            acceptor
                .read_tls(&mut bytes)
                .map_err(|error| format!("unread: {error}"))?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                    return Ok((hello.server_name().map(str::to_owned), alpn));
                }
                Err((error, _)) => return Err(error.to_string()),
            }
        }
        Err("incomplete".to_owned())
    }

    #[test]
    fn rustls_reads_what_was_put_in() {
        let hello = Hello::to("api.example.com").alpn(&["h2", "http/1.1"]);
        let message = hello.message();
        let expected = Ok((
            Some("api.example.com".to_owned()),
            vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ));
        assert_eq!(read(&hello.bytes()), expected);
        assert_eq!(read(&in_records(&message, 1)), expected);
        for cut in 1..message.len() {
            assert_eq!(read(&in_two_records(&message, cut)), expected, "cut at {cut}");
        }
        assert_eq!(read(&Hello::nameless().bytes()), Ok((None, vec![])));
        assert!(read(&Hello::to("a.example").name(0, "b.example").bytes()).is_err());
    }

    #[test]
    fn padding_gives_exactly_the_size() {
        // rustls keeps at most 65,535 bytes of an unfinished message, headers of records included.
        for size in [1_024, 16_384, 65_000] {
            for hello in [Hello::to("a.example"), Hello::to("a.example").name_last()] {
                let hello = hello.padded_to(size);
                assert_eq!(hello.message().len(), size);
                assert_eq!(
                    read(&hello.bytes()),
                    Ok((Some("a.example".to_owned()), vec![])),
                    "{size}"
                );
            }
        }
    }
}
