//! What comes with a datagram and goes with it: addresses, train, traffic class; and how the kernel writes them down.
//!
//! Safe on purpose: the kernel's structures are read and written as bytes. Their layout is that of recvmsg(2),
//! cmsg(3), ip(7), ipv6(7), udp(7) and io_uring_prep_recvmsg_multishot(3), which is the same on all 64-bit Linux.

use crate::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the largest socket address of IPv4 and IPv6 (`struct sockaddr_in6`).
pub(crate) const NAME_MAX: usize = 28;
/// Room for everything that is asked for with a datagram: destination (40), train (24), class (24), drops (24).
pub(crate) const CONTROL_MAX: usize = 128;
/// `struct io_uring_recvmsg_out`: lengths of name, control data and payload, and flags.
const LENGTHS: usize = 16;
/// Before the payload in the buffer of a received datagram.
pub(crate) const HEADER: usize = LENGTHS + NAME_MAX + CONTROL_MAX;
/// The longest payload (RFC 768: 65,535 with the header of 8), and the header before it, in whole cache lines.
pub(crate) const BUFFER_SIZE: u32 = (HEADER as u32 + 65_527).next_multiple_of(64);
/// Control data of one departure: source (40), train (24), class (24).
pub(crate) const DEPARTURE_MAX: usize = 88;

/// `struct cmsghdr`: length, level, type.
const CMSG_HEADER: usize = 16;
const CMSG_ALIGN: usize = 8;
/// `UDP_SEGMENT` and `UDP_GRO` of the kernel's udp.h.
pub(crate) const UDP_SEGMENT: i32 = 103;
pub(crate) const UDP_GRO: i32 = 104;

/// How a datagram came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Who sent it.
    pub from: Option<SocketAddr>,
    /// Our address that it was sent to. Of a broadcast or multicast: the one that an answer would leave from.
    pub to: Option<IpAddr>,
    /// A train: several datagrams of this many bytes each, the last one perhaps shorter. `None`: it is one.
    pub segment: Option<u16>,
    /// The traffic class: DSCP and ECN (RFC 2474, RFC 3168).
    pub class: u8,
    /// Datagrams that the kernel has dropped at this socket so far because its buffer was full; wraps around.
    pub dropped: Option<u32>,
    /// It was longer than its buffer, and its end is lost.
    pub truncated: bool,
}

/// How a datagram is to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// Whom to; `None` where the socket is connected.
    pub to: Option<SocketAddr>,
    /// Which of our addresses it leaves from; `None`: the kernel's choice.
    pub from: Option<IpAddr>,
    /// A train: datagrams of this many bytes each, the last one perhaps shorter.
    pub segment: Option<u16>,
    /// Its datagrams leave one by one: on this way the kernel takes no such trains.
    pub apart: bool,
    /// Of those that leave one by one, bytes of the first, where that is another one's length. Without `apart` it means
    /// nothing.
    pub first: Option<u16>,
    /// The traffic class; `None`: the socket's.
    pub class: Option<u8>,
}

/// The longest [`Prefix`], bytes.
pub const PREFIX_MAX: usize = 1024;

/// Bytes of the sender's own in front of what is passed on; part of the datagram for whoever receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix<'a> {
    /// At most [`PREFIX_MAX`].
    pub bytes: &'a [u8],
    /// In front of each datagram of a train, not of the first alone.
    pub each: bool,
}

/// Options of a datagram socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramOptions {
    /// What the kernel keeps for us, bytes of its own accounting (SO_RCVBUF, socket(7)); 0: as the system has it. Less is
    /// granted if net.core.rmem_max is less and the process may not exceed it.
    pub receive_buffer: u32,
    /// The same towards the network.
    pub send_buffer: u32,
    /// Each datagram comes by itself: no trains (UDP_GRO, udp(7)).
    pub apart: bool,
}

/// What came in through a socket of [`crate::Datagrams`], or became of a send.
#[derive(Debug)]
pub enum Event {
    /// A datagram, or a train of them. Its bytes may be none.
    Datagram(Arrived, crate::Leases),
    /// The socket reports an error, such as ECONNREFUSED when the other host says that nobody listens there (ICMP). It
    /// goes on receiving.
    Failed(Errno),
    /// The socket reports an error after which it receives no more.
    Ended(Errno),
    /// A datagram that was to be sent was not: EAGAIN and ENOBUFS for lack of room, EMSGSIZE, or an error that was reported
    /// for an earlier one.
    SendFailed(Errno),
    /// A train was refused: its datagrams are longer than the way allows in one piece, or the device cannot cut trains
    /// (udp(7)). Here it is back; it may be sent [`Departure::apart`].
    TrainRefused(Departure, crate::Leases),
}

/// Reads what the kernel wrote before the payload. `None`: it is shorter than that, which a kernel never writes.
pub(crate) fn parse(buffer: &[u8]) -> Option<Arrived> {
    let (lengths, rest) = buffer.split_first_chunk::<LENGTHS>()?;
    let (name, rest) = rest.split_first_chunk::<NAME_MAX>()?;
    let (control, _) = rest.split_first_chunk::<CONTROL_MAX>()?;
    let number = |at: usize| u32::from_ne_bytes([lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]]);
    let [name_len, control_len, _, flags] = [number(0), number(4), number(8), number(12)];
    let mut arrived = Arrived {
        from: parse_name(&name[..(name_len as usize).min(NAME_MAX)]),
        truncated: flags & libc::MSG_TRUNC as u32 != 0,
        ..Arrived::default()
    };
    let mut rest = &control[..(control_len as usize).min(CONTROL_MAX)];
    while let Some((level, kind, data, behind)) = next_control(rest) {
        note_control(&mut arrived, level, kind, data);
        rest = behind;
    }
    Some(arrived)
}

fn note_control(arrived: &mut Arrived, level: i32, kind: i32, data: &[u8]) {
    let int = || Some(i32::from_ne_bytes(*data.first_chunk()?));
    match (level, kind) {
        // `struct in_pktinfo`: interface, our address for answers, destination.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let ours = data.get(4..8).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            arrived.to = ours.map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
        }
        // `struct in6_pktinfo`: destination, interface.
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            arrived.to = data.first_chunk::<16>().map(|&bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
        }
        (libc::IPPROTO_UDP, UDP_GRO) => arrived.segment = int().and_then(|size| u16::try_from(size).ok()),
        // One byte for IPv4, an int for IPv6.
        (libc::IPPROTO_IP, libc::IP_TOS) => arrived.class = data.first().copied().unwrap_or(0),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => arrived.class = int().unwrap_or(0) as u8,
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => arrived.dropped = int().map(|count| count as u32),
        _ => {}
    }
}

/// Level, type and data of the first piece of control data, and what is behind it.
fn next_control(bytes: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let (header, _) = bytes.split_first_chunk::<CMSG_HEADER>()?;
    let len = usize::from_ne_bytes(*header.first_chunk()?);
    let level = i32::from_ne_bytes(header[8..12].try_into().ok()?);
    let kind = i32::from_ne_bytes(header[12..16].try_into().ok()?);
    let data = bytes.get(CMSG_HEADER..len)?;
    let behind = bytes.get(len.next_multiple_of(CMSG_ALIGN)..).unwrap_or(&[]);
    Some((level, kind, data, behind))
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn parse_name(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::V4(SocketAddrV4::new(ip.into(), port)))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip.into(), port, 0, scope)))
        }
        _ => None,
    }
}

/// An address as the kernel reads it, and how many of its bytes count.
pub(crate) fn name(address: SocketAddr) -> ([u8; NAME_MAX], usize) {
    let mut bytes = [0; NAME_MAX];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    let (family, len) = match address {
        SocketAddr::V4(v4) => {
            bytes[4..8].copy_from_slice(&v4.ip().octets());
            (libc::AF_INET, 16)
        }
        SocketAddr::V6(v6) => {
            bytes[8..24].copy_from_slice(&v6.ip().octets());
            bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (libc::AF_INET6, NAME_MAX)
        }
    };
    bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    (bytes, len)
}

impl Departure {
    /// Whether it needs control data.
    pub(crate) const fn has_control(&self) -> bool {
        self.from.is_some() || self.class.is_some() || (self.segment.is_some() && !self.apart)
    }

    /// Bytes of each datagram, of those that leave one by one.
    pub(crate) fn apart(&self) -> Option<usize> {
        let segment = self.segment.filter(|&segment| self.apart && segment > 0)?;
        Some(segment.into())
    }

    /// The datagrams of what leaves one by one, `each` of so many bytes. In which buffers a train is, as it came or as it
    /// was joined, each begins with a datagram.
    pub(crate) fn pieces<'a>(
        &self,
        each: usize,
        slices: impl Iterator<Item = &'a [u8]>,
    ) -> impl Iterator<Item = &'a [u8]> {
        let mut first = self.first;
        slices.flat_map(move |slice| {
            let odd = first.take().and_then(|len| slice.split_at_checked(len.into()));
            let (odd, rest) = odd.map_or((None, slice), |(odd, rest)| (Some(odd), rest));
            odd.into_iter().chain(rest.chunks(each))
        })
    }

    /// Its control data, and how many of its bytes count. `is_ipv6`: the socket's family, which decides how the traffic
    /// class is called.
    pub(crate) fn control(&self, is_ipv6: bool) -> ([u8; DEPARTURE_MAX], usize) {
        let mut control = Control {
            bytes: [0; DEPARTURE_MAX],
            len: 0,
        };
        match self.from {
            Some(IpAddr::V4(ip)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(ip)) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if let Some(segment) = self.segment.filter(|_| !self.apart) {
            control.push(libc::IPPROTO_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
        }
        if let Some(class) = self.class {
            let value = i32::from(class).to_ne_bytes();
            if is_ipv6 {
                control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value);
            } else {
                control.push(libc::IPPROTO_IP, libc::IP_TOS, &value);
            }
        }
        (control.bytes, control.len)
    }
}

struct Control {
    bytes: [u8; DEPARTURE_MAX],
    len: usize,
}

impl Control {
    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let len = CMSG_HEADER + data.len();
        let place = &mut self.bytes[self.len..][..len];
        place[..8].copy_from_slice(&len.to_ne_bytes());
        place[8..12].copy_from_slice(&level.to_ne_bytes());
        place[12..16].copy_from_slice(&kind.to_ne_bytes());
        place[CMSG_HEADER..].copy_from_slice(data);
        self.len += len.next_multiple_of(CMSG_ALIGN);
    }
}

/// What the simulated kernel writes before a payload: the same as the real one.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn header(arrived: &Arrived, payload: u32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    let mut control: Vec<u8> = Vec::new();
    let mut push = |level: i32, kind: i32, data: &[u8]| {
        control.extend((CMSG_HEADER + data.len()).to_ne_bytes());
        control.extend(level.to_ne_bytes());
        control.extend(kind.to_ne_bytes());
        control.extend(data);
        control.resize(control.len().next_multiple_of(CMSG_ALIGN), 0);
    };
    match arrived.to {
        Some(IpAddr::V4(ip)) => {
            let info = [[0; 4], ip.octets(), ip.octets()].concat();
            push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            let info = [&ip.octets()[..], &[0; 4]].concat();
            push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if let Some(segment) = arrived.segment {
        push(libc::IPPROTO_UDP, UDP_GRO, &i32::from(segment).to_ne_bytes());
    }
    match arrived.from {
        Some(SocketAddr::V6(_)) => {
            let class = i32::from(arrived.class).to_ne_bytes();
            push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class);
        }
        Some(SocketAddr::V4(_)) | None => push(libc::IPPROTO_IP, libc::IP_TOS, &[arrived.class]),
    }
    if let Some(dropped) = arrived.dropped {
        push(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &dropped.to_ne_bytes());
    }
    let flags = if arrived.truncated { libc::MSG_TRUNC as u32 } else { 0 };
    let (name, name_len) = arrived.from.map_or(([0; NAME_MAX], 0), name);
    for (at, number) in [name_len as u32, control.len() as u32, payload, flags]
        .into_iter()
        .enumerate()
    {
        bytes[at * 4..][..4].copy_from_slice(&number.to_ne_bytes());
    }
    bytes[LENGTHS..][..NAME_MAX].copy_from_slice(&name);
    bytes[LENGTHS + NAME_MAX..][..control.len()].copy_from_slice(&control);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(from: &str, to: &str) -> Arrived {
        Arrived {
            from: Some(from.parse().expect("an address")),
            to: Some(to.parse().expect("an address")),
            segment: Some(1_200),
            class: 0xb8,
            dropped: Some(7),
            truncated: false,
        }
    }

    #[test]
    fn what_comes_with_a_datagram_is_read() {
        for arrived in [
            arrived("192.0.2.7:53", "198.51.100.1"),
            arrived("[fe80::7%3]:53", "2001:db8::1"),
            Arrived {
                truncated: true,
                ..Arrived::default()
            },
        ] {
            assert_eq!(parse(&header(&arrived, 0)), Some(arrived));
        }
        assert_eq!(parse(&[0; HEADER - 1]), None);
    }

    /// Control data that lies about its length is left alone.
    #[test]
    fn control_data_that_is_cut_is_not_read() {
        let whole = arrived("192.0.2.7:53", "198.51.100.1");
        let mut bytes = header(&whole, 0);
        for len in 0..=CONTROL_MAX as u32 {
            bytes[4..8].copy_from_slice(&len.to_ne_bytes());
            let read = parse(&bytes).expect("long enough");
            assert_eq!(read.from, whole.from);
            assert!(read.to.is_none() || read.to == whole.to, "{len}");
        }
        bytes[LENGTHS + NAME_MAX..][..8].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(parse(&bytes).and_then(|read| read.to), None);
    }

    /// Sizes of cmsg(3): CMSG_SPACE of 12, 20, 2 and 4 bytes.
    #[test]
    fn control_data_is_as_long_as_the_kernel_expects() {
        let departure = |from: &str| Departure {
            from: Some(from.parse().expect("an address")),
            segment: Some(1_200),
            class: Some(8),
            ..Departure::default()
        };
        assert_eq!(departure("192.0.2.1").control(false).1, 32 + 24 + 24);
        assert_eq!(departure("2001:db8::1").control(true).1, 40 + 24 + 24);
        assert_eq!(Departure::default().control(false).1, 0);
        assert!(!Departure::default().has_control());
    }

    #[test]
    fn the_first_of_a_train_may_have_another_length() {
        let lengths = |first, slices: &[&[u8]]| -> Vec<usize> {
            let departure = Departure {
                first,
                ..Departure::default()
            };
            departure.pieces(3, slices.iter().copied()).map(<[u8]>::len).collect()
        };
        assert_eq!(lengths(None, &[&[0; 8]]), [3, 3, 2]);
        assert_eq!(lengths(Some(1), &[&[0; 8]]), [1, 3, 3, 1]);
        assert_eq!(lengths(Some(0), &[&[0; 4]]), [0, 3, 1], "an empty one is one as well");
        assert_eq!(
            lengths(Some(1), &[&[0; 3], &[0; 3]]),
            [1, 2, 3],
            "of the first buffer alone"
        );
        assert_eq!(lengths(Some(9), &[&[0; 4]]), [3, 1], "longer than all of it");
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in ["192.0.2.7:53", "[2001:db8::7]:5353", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().expect("an address");
            let (bytes, len) = name(address);
            assert_eq!(parse_name(&bytes[..len]), Some(address));
        }
        assert_eq!(parse_name(&[]), None);
        assert_eq!(parse_name(&[0; NAME_MAX]), None, "of no family");
    }
}
