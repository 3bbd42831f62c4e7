//! Against the `ppp` crate, whose reader shares nothing with ours: the same headers, valid, mutated and cut, and every
//! difference belongs to a class that is explained.

use crate::forge::{BOTH, any_valid, tlv, v2};
use crate::seeded::{Rng, figure};
use ppp::{HeaderResult, PartialResult, v1, v2 as binary};
use ringway_wire::proxy::{Addresses, HEADER_MAX, Header, ProxyError, read};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

type Ours<'a> = Result<Option<Header<'a>>, ProxyError>;

/// What the other reader says, in the same terms.
#[derive(Debug, PartialEq, Eq)]
enum Theirs {
    /// Length, source and destination; `None` without addresses of IP.
    Header(usize, Option<[SocketAddr; 2]>),
    More,
    Wrong,
}

fn theirs(bytes: &[u8]) -> Theirs {
    let result = HeaderResult::parse(bytes);
    if result.is_incomplete() {
        return Theirs::More;
    }
    match result {
        HeaderResult::V1(Ok(header)) => {
            let ends = match header.addresses {
                v1::Addresses::Unknown => None,
                v1::Addresses::Tcp4(of) => Some([
                    end(of.source_address.into(), of.source_port),
                    end(of.destination_address.into(), of.destination_port),
                ]),
                v1::Addresses::Tcp6(of) => Some([
                    end(of.source_address.into(), of.source_port),
                    end(of.destination_address.into(), of.destination_port),
                ]),
            };
            Theirs::Header(header.header.len(), ends)
        }
        HeaderResult::V2(Ok(header)) => {
            let ends = match header.addresses {
                binary::Addresses::Unspecified | binary::Addresses::Unix(_) => None,
                binary::Addresses::IPv4(of) => Some([
                    end(of.source_address.into(), of.source_port),
                    end(of.destination_address.into(), of.destination_port),
                ]),
                binary::Addresses::IPv6(of) => Some([
                    end(of.source_address.into(), of.source_port),
                    end(of.destination_address.into(), of.destination_port),
                ]),
            };
            Theirs::Header(header.len(), ends)
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Theirs::Wrong,
    }
}

/// Ours are canonical, theirs as sent.
fn end(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

fn same(ours: &Ours<'_>, theirs: &Theirs) -> bool {
    match (ours, theirs) {
        (Ok(None), Theirs::More) | (Err(_), Theirs::Wrong) => true,
        (Ok(Some(header)), Theirs::Header(len, ends)) => {
            let addresses = &header.addresses;
            let found = addresses
                .source()
                .and_then(|source| Some([source, addresses.destination()?]));
            header.len == *len && found == *ends
        }
        _ => false,
    }
}

/// Why the two differ, if that is how it should be.
fn class(bytes: &[u8], ours: &Ours<'_>, theirs: &Theirs) -> Option<&'static str> {
    let family = bytes.get(13).copied().unwrap_or_default();
    let local = bytes.get(12).is_some_and(|byte| byte & 0x0F == 0);
    let is_line = bytes.starts_with(b"PROXY ");
    let is_unknown = bytes.starts_with(b"PROXY UNKNOWN");
    Some(match (ours, theirs) {
        (Err(ProxyError::BadTlv | ProxyError::BadChecksum), Theirs::Header(..)) => {
            "ppp checks TLVs only when they are walked, and no checksum"
        }
        (Err(ProxyError::BadPort), Theirs::Header(..)) if bytes.contains(&b'+') => "ppp takes a port with a plus sign",
        (Err(ProxyError::BadLine), Theirs::Header(..)) if is_unknown => "ppp takes a lone LF in what UNKNOWN ignores",
        (Err(ProxyError::BadLine), Theirs::Header(len, _)) if bytes[..*len].ends_with(b" \n") => {
            "ppp takes a space and LF for the end of a line"
        }
        (Ok(Some(header)), Theirs::Header(len, Some(_)))
            if header.len == *len && header.addresses == Addresses::Unknown && local =>
        {
            "ppp tells the addresses of a LOCAL header, for the caller to ignore"
        }
        (Ok(Some(header)), Theirs::Header(len, Some(_)))
            if header.len == *len && header.addresses == Addresses::Unknown && family & 0x0F == 0 =>
        {
            "ppp tells addresses without a transport, whose ports may be none"
        }
        (Ok(Some(_) | None), Theirs::Wrong) if !is_line && local => {
            "ppp wants a LOCAL header to have room for addresses"
        }
        (Ok(Some(_) | None), Theirs::Wrong) if !is_line && (family > 0x3F || family & 0x0F > 2) => {
            "ppp refuses families and transports that it does not know"
        }
        (Ok(Some(_) | None), Theirs::Wrong) if !is_line && family & 0x0F == 0 => {
            "ppp wants room for addresses without a transport"
        }
        (Ok(Some(_)), Theirs::Wrong | Theirs::More) if is_unknown => {
            "ppp refuses many words, or other than UTF-8, after UNKNOWN"
        }
        (Ok(None), Theirs::Wrong) if is_line => "ppp refuses what it sees of a line before its end has come",
        (Err(_), Theirs::More) => "ppp waits where what has come can become no header",
        _ => return None,
    })
}

struct Comparison {
    equal: usize,
    classes: BTreeMap<&'static str, usize>,
}

impl Comparison {
    fn add(&mut self, bytes: &[u8]) {
        let (ours, theirs) = (read(bytes, BOTH, HEADER_MAX), theirs(bytes));
        if same(&ours, &theirs) {
            self.equal += 1;
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        let class = class(bytes, &ours, &theirs)
            .unwrap_or_else(|| panic!("{ours:?}, but ppp {theirs:?}: {bytes:02X?} {text:?}"));
        *self.classes.entry(class).or_default() += 1;
    }
}

#[test]
fn ppp_sees_the_same() {
    let mut rng = Rng::new("ppp_sees_the_same");
    let mut comparison = Comparison {
        equal: 0,
        classes: BTreeMap::new(),
    };
    for _ in 0..figure(50_000, 1_000_000) {
        let mut bytes = any_valid(&mut rng);
        if rng.below(4) > 0 {
            rng.mutate(&mut bytes);
        }
        let cut = rng.below(bytes.len() + 1);
        comparison.add(&bytes);
        comparison.add(&bytes[..cut]);
    }
    for bytes in oddities() {
        (0..=bytes.len()).for_each(|cut| comparison.add(&bytes[..cut]));
    }
    println!("equal: {}", comparison.equal);
    for (class, count) in &comparison.classes {
        println!("{count}: {class}");
    }
    let different: usize = comparison.classes.values().sum();
    assert!(comparison.equal > different, "mostly the same");
    assert_eq!(
        comparison.classes.len(),
        12,
        "every class has been seen: {:#?}",
        comparison.classes
    );
}

/// What chance finds seldom.
fn oddities() -> Vec<Vec<u8>> {
    let lines = [
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY UNKNOWN a\nb\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \n",
        "PROXY UNKNOWN a b c d e f g h\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
    ];
    let headers = [
        v2(0x20, 0x11, &[]),
        v2(0x20, 0x11, &[1; 12]),
        v2(0x21, 0x10, &[]),
        v2(0x21, 0x10, &[1; 12]),
        v2(0x21, 0x20, &[1; 36]),
        v2(0x21, 0x41, &[1; 36]),
        v2(0x21, 0x13, &[1; 36]),
        v2(0x21, 0x11, &[&[1; 12][..], &tlv(5, &[0; 129])].concat()),
    ];
    lines
        .into_iter()
        .map(|line| line.as_bytes().to_vec())
        .chain(headers)
        .collect()
}

/// Its writer's headers are read as what they were made of.
#[test]
fn what_ppp_writes_is_read() {
    let source: SocketAddr = "192.0.2.1:56324".parse().unwrap();
    let destination: SocketAddr = "198.51.100.2:443".parse().unwrap();
    let bytes = binary::Builder::with_addresses(
        binary::Version::Two | binary::Command::Proxy,
        binary::Protocol::Datagram,
        (source, destination),
    )
    .write_tlv(binary::Type::Authority, b"a.example")
    .and_then(|builder| builder.write_tlv(binary::Type::UniqueId, b"7"))
    .and_then(binary::Builder::build)
    .unwrap();
    let header = read(&bytes, BOTH, HEADER_MAX).unwrap().unwrap();
    assert_eq!(header.addresses, Addresses::Udp { source, destination });
    assert_eq!(header.authority(), Some(&b"a.example"[..]));
    assert_eq!(header.unique_id(), Some(&b"7"[..]));
    let ends = (source, destination);
    let line = v1::Addresses::from(ends).to_string();
    let header = read(line.as_bytes(), BOTH, HEADER_MAX).unwrap().unwrap();
    assert_eq!(header.addresses, Addresses::Tcp { source, destination });
}
