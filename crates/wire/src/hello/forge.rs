//! Writes ClientHellos, for tests and load generators: well-formed ones, and ones that are not. The product only reads.

use super::HelloError;
use super::message::{ALPN, Fields, SERVER_NAME};

/// A ClientHello in parts, each as it goes on the wire. Two that are equal have the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The legacy version: 0x0303 since TLS 1.2.
    pub version: u16,
    /// Of the client.
    pub random: [u8; 32],
    /// At most 32 bytes in a well-formed hello, 255 at all.
    pub session_id: Vec<u8>,
    /// Two bytes each in a well-formed hello.
    pub cipher_suites: Vec<u8>,
    /// One byte each; at most 255.
    pub compressions: Vec<u8>,
    /// Types and contents in their order. `None`: not even their length is written.
    pub extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Parts {
    /// A hello such as a small client of TLS 1.3 sends, which also takes 1.2. Its key share is that of nobody.
    pub fn new(name: Option<&str>, protocols: &[&[u8]]) -> Self {
        let mut extensions = Vec::new();
        extensions.extend(name.map(|name| server_name(name.as_bytes())));
        extensions.extend((!protocols.is_empty()).then(|| alpn(protocols)));
        // Versions 1.3 and 1.2; group x25519; ECDSA and RSA-PSS with SHA-256; a share of x25519 (RFC 8446 section 4.2).
        let share = [&[0, 36, 0, 29, 0, 32][..], &[9; 32]].concat();
        extensions.extend([
            (43, vec![4, 3, 4, 3, 3]),
            (10, vec![0, 2, 0, 29]),
            (13, vec![0, 4, 4, 3, 8, 4]),
            (51, share),
        ]);
        Self {
            version: 0x0303,
            random: [7; 32],
            session_id: vec![5; 32],
            // Of 1.3, then two of 1.2 with ECDHE: AES-128-GCM each.
            cipher_suites: vec![0x13, 0x01, 0xC0, 0x2B, 0xC0, 0x2F],
            compressions: vec![0],
            extensions: Some(extensions),
        }
    }

    /// Takes a message apart, with its header of 4 bytes. Looks into no extension.
    ///
    /// # Errors
    ///
    /// `Malformed`, by the rules of [`Reader`](super::Reader).
    pub fn read(message: &[u8]) -> Result<Self, HelloError> {
        let fields = Fields::read(message)?;
        let mut random = [0; 32];
        random.copy_from_slice(fields.random.bytes());
        let to_owned = |extension: Result<(u16, super::Cursor<'_>), HelloError>| {
            extension.map(|(kind, content)| (kind, content.bytes().to_vec()))
        };
        Ok(Self {
            version: fields.version,
            random,
            session_id: fields.session_id.bytes().to_vec(),
            cipher_suites: fields.cipher_suites.bytes().to_vec(),
            compressions: fields.compressions.bytes().to_vec(),
            extensions: fields.extensions.map(|all| all.map(to_owned).collect()).transpose()?,
        })
    }

    /// The handshake message with its header of 4 bytes.
    ///
    /// # Panics
    ///
    /// If a part is longer than its length can tell.
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend(self.random);
        body.extend(vector_u8(&self.session_id));
        body.extend(vector_u16(&self.cipher_suites));
        body.extend(vector_u8(&self.compressions));
        if let Some(extensions) = &self.extensions {
            let mut all = Vec::new();
            for (kind, content) in extensions {
                all.extend(kind.to_be_bytes());
                all.extend(vector_u16(content));
            }
            body.extend(vector_u16(&all));
        }
        let length = u32::try_from(body.len()).ok().filter(|length| *length < 1 << 24);
        let mut message = length.expect("the message is shorter than 2^24").to_be_bytes().to_vec();
        message[0] = 1;
        message.extend(body);
        message
    }
}

/// The extension server_name with one host name, whatever its bytes.
pub fn server_name(name: &[u8]) -> (u16, Vec<u8>) {
    server_names(&[(0, name)])
}

/// The extension server_name with a list of types and names.
pub fn server_names(names: &[(u8, &[u8])]) -> (u16, Vec<u8>) {
    let entry = |(kind, name): &(u8, &[u8])| [vec![*kind], vector_u16(name)].concat();
    let list: Vec<u8> = names.iter().flat_map(entry).collect();
    (SERVER_NAME, vector_u16(&list))
}

/// The extension ALPN.
pub fn alpn(protocols: &[&[u8]]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = protocols.iter().flat_map(|name| vector_u8(name)).collect();
    (ALPN, vector_u16(&list))
}

/// Handshake records with `message` in them: `sizes` bytes in one after the other, what remains in records as large as
/// may be. A size may be 0 or too large; such records are refused by who reads them.
pub fn records(message: &[u8], sizes: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let mut sizes = sizes.into_iter();
    let mut rest = message;
    let mut stream = Vec::with_capacity(message.len() + 5);
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1 << 14).min(rest.len());
        let (fragment, behind) = rest.split_at(size);
        stream.extend([22, 3, 1]);
        stream.extend(vector_u16(fragment));
        rest = behind;
    }
    stream
}

fn vector_u8(content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("a vector of at most 255 bytes");
    [&[length], content].concat()
}

fn vector_u16(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a vector of at most 65,535 bytes");
    [&length.to_be_bytes(), content].concat()
}
