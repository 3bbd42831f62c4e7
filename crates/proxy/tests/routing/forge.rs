//! Bytes as the specifications have them, built by hand: nothing here asks the product how they look.

use std::net::{IpAddr, SocketAddr};

/// PostgreSQL documentation, 54.7: SSLRequest.
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// The same: GSSENCRequest.
pub(crate) const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
/// The same: the code of a CancelRequest.
const CANCEL_CODE: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];
/// haproxy.org, doc/proxy-protocol.txt, section 2.2.
pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
/// Digits of a connection's name, as the documentation of the configuration says.
pub(crate) const ID_BYTES: usize = 32;

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("short");
    [&len.to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length(body)].concat()
}

/// What a TLS client says first (RFC 8446, section 4.1.2), in records of at most `record_max` bytes. `mark` tells it from
/// all others.
pub(crate) fn hello(name: Option<&str>, alpn: Option<&str>, padding: usize, mark: u8, record_max: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        // RFC 6066, section 3: a list of names, each of type 0.
        let entry = [&[0][..], &with_length(name.as_bytes())].concat();
        extensions.extend(extension(0, &with_length(&entry)));
    }
    if let Some(alpn) = alpn {
        let entry = [&[alpn.len() as u8], alpn.as_bytes()].concat();
        extensions.extend(extension(16, &with_length(&entry)));
    }
    // RFC 7685.
    extensions.extend(extension(21, &vec![0; padding]));
    let mut body = vec![3, 3];
    body.extend([mark; 32]);
    body.push(0);
    body.extend(with_length(&[0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(with_length(&extensions));
    let mut message = vec![1];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    let record = |piece: &[u8]| [&[22, 3, 1][..], &with_length(piece)].concat();
    message.chunks(record_max).flat_map(record).collect()
}

/// PostgreSQL documentation, 54.7: StartupMessage of protocol 3.0.
pub(crate) fn startup(user: &str) -> Vec<u8> {
    let fields = [&[0, 3, 0, 0][..], b"user\0", user.as_bytes(), b"\0\0"].concat();
    [&(fields.len() as u32 + 4).to_be_bytes()[..], &fields].concat()
}

/// The same: CancelRequest.
pub(crate) fn cancel_request(pid: u32, key: &[u8]) -> Vec<u8> {
    let len = 12 + key.len() as u32;
    [&len.to_be_bytes()[..], &CANCEL_CODE, &pid.to_be_bytes(), key].concat()
}

pub(crate) fn is_cancel_request(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(&CANCEL_CODE)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

/// BackendKeyData.
pub(crate) fn key_data(pid: u32, key: &[u8]) -> Vec<u8> {
    message(b'K', &[&pid.to_be_bytes()[..], key].concat())
}

/// What a server says at the start of a session: AuthenticationOk, two ParameterStatus, BackendKeyData, ReadyForQuery.
pub(crate) fn server_start(pid: u32, key: &[u8]) -> Vec<u8> {
    [
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0018.0\0"),
        // Looks like a key, and is none.
        message(b'S', b"application_name\0K\0\0\0\x0c\0"),
        key_data(pid, key),
        message(b'Z', b"I"),
    ]
    .concat()
}

/// A PROXY header.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) version: u8,
    /// Version 2 without addresses: of a connection of the balancer's own, and not of somebody unknown.
    pub(crate) local: bool,
    /// Who the client is and whom it spoke to, of one family.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    pub(crate) alpn: Option<String>,
    pub(crate) authority: Option<String>,
    pub(crate) id: Option<Vec<u8>>,
    pub(crate) checksum: bool,
}

impl Header {
    pub(crate) const fn plain(version: u8, addresses: Option<(SocketAddr, SocketAddr)>) -> Self {
        Self {
            version,
            local: false,
            addresses,
            alpn: None,
            authority: None,
            id: None,
            checksum: false,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        if self.version == 1 { self.line() } else { self.binary() }
    }

    fn line(&self) -> Vec<u8> {
        let Some((source, destination)) = self.addresses else {
            return b"PROXY UNKNOWN\r\n".to_vec();
        };
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (ip, to) = (source.ip(), destination.ip());
        format!("PROXY {family} {ip} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
    }

    fn binary(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        if let Some((source, destination)) = self.addresses {
            rest.extend(octets(source));
            rest.extend(octets(destination));
            rest.extend(source.port().to_be_bytes());
            rest.extend(destination.port().to_be_bytes());
        }
        let values = [
            (ALPN, self.alpn.as_ref().map(String::as_bytes)),
            (AUTHORITY, self.authority.as_ref().map(String::as_bytes)),
            (UNIQUE_ID, self.id.as_deref()),
            (CRC32C, self.checksum.then_some(&[0; 4][..])),
        ];
        for (kind, value) in values {
            if let Some(value) = value {
                rest.push(kind);
                rest.extend(with_length(value));
            }
        }
        let (command, family) = match self.addresses {
            None if self.local => (0x20, 0x00),
            None => (0x21, 0x00),
            Some((source, _)) if source.is_ipv4() => (0x21, 0x11),
            Some(_) => (0x21, 0x21),
        };
        let mut bytes = [&SIGNATURE[..], &[command, family], &with_length(&rest)].concat();
        if self.checksum {
            let sum = crc32c(&bytes).to_be_bytes();
            let at = bytes.len() - 4;
            bytes[at..].copy_from_slice(&sum);
        }
        bytes
    }

    /// Where the connection's name is in the bytes.
    pub(crate) fn id_at(&self) -> Option<usize> {
        self.id.as_ref()?;
        let behind = if self.checksum { 7 } else { 0 };
        Some(self.bytes().len() - behind - ID_BYTES)
    }
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for &byte in bytes {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    !sum
}

/// Bytes of the header that these begin with, once that is known.
pub(crate) fn header_len(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'P') {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        return Some(end + 2);
    }
    let len = bytes.get(14..16)?;
    let len = 16 + usize::from(u16::from_be_bytes([len[0], len[1]]));
    (bytes.len() >= len).then_some(len)
}

/// The check value of the catalogue of CRCs (reveng.sourceforge.io), and the example of RFC 3720, B.4.
#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
}
