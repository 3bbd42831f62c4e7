//! Entries that send datagrams, and what they point to.

use super::{Fd, HEADERS_MAX, SEND_PIECES_MAX, SUBMISSIONS, Uring, VECTORS_MAX};
use crate::buffer_ring::Links;
use crate::datagram::{DEPARTURE_MAX, Departure, NAME_MAX, PREFIX_MAX, Prefix, name};
use crate::slab::Token;
use crate::sys;
use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd as RingFd;

/// One entry has at most one of each.
const DEPARTURES_MAX: usize = SUBMISSIONS as usize;

/// Bytes of all prefixes that wait for one submission: of headers of usual length, one for each entry.
const PREFIXES_MAX: usize = 64 * 1024;
const _: () = assert!(PREFIX_MAX <= PREFIXES_MAX);

/// Names, control data and prefixes of datagrams that wait for submission. Nothing moves: capacities are reserved once,
/// and only where there are datagrams.
pub(super) struct Departures {
    names: Vec<[u8; NAME_MAX]>,
    controls: Vec<[u8; DEPARTURE_MAX]>,
    prefixes: Vec<u8>,
}

impl Departures {
    pub(super) fn new(are_any: bool) -> Self {
        let capacity = if are_any { DEPARTURES_MAX } else { 0 };
        Self {
            names: Vec::with_capacity(capacity),
            controls: Vec::with_capacity(capacity),
            prefixes: Vec::with_capacity(if are_any { PREFIXES_MAX } else { 0 }),
        }
    }

    const fn is_full(&self, prefix: usize) -> bool {
        let prefixes_full = self.prefixes.len() + prefix > PREFIXES_MAX;
        self.names.len() == DEPARTURES_MAX || self.controls.len() == DEPARTURES_MAX || prefixes_full
    }

    /// Keeps bytes that go in front of a datagram; there must be room. The kernel takes them at submission.
    fn keep(&mut self, prefix: &[u8]) -> libc::iovec {
        let start = self.prefixes.len();
        self.prefixes.extend_from_slice(prefix);
        libc::iovec {
            iov_base: self.prefixes[start..].as_ptr().cast_mut().cast(),
            iov_len: prefix.len(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.controls.clear();
        self.prefixes.clear();
    }
}

impl Uring {
    /// Queues a datagram, a train, or the datagrams of a train one by one; `is_ipv6`: the socket's family.
    pub(super) fn send_datagrams(
        &mut self,
        to: (Fd, bool),
        prefix: Option<Prefix<'_>>,
        links: &Links,
        departure: &Departure,
        token: Token,
    ) {
        let mut bytes = prefix.map_or(&[][..], |prefix| prefix.bytes);
        let ring = self
            .datagram_ring
            .clone()
            .expect("datagrams are sent where they are received");
        // One datagram is in one buffer, of an empty one there is none; several are a train.
        let slices = ring.slices(links).take(SEND_PIECES_MAX);
        let Some(each) = departure.apart() else {
            return self.depart(to, (bytes, slices), departure, token);
        };
        for piece in departure.pieces(each, slices) {
            self.depart(to, (bytes, std::iter::once(piece)), departure, token);
            if prefix.is_some_and(|prefix| !prefix.each) {
                bytes = &[];
            }
        }
    }

    fn depart<'a>(
        &mut self,
        to: (Fd, bool),
        payload: (&[u8], impl Iterator<Item = &'a [u8]>),
        departure: &Departure,
        token: Token,
    ) {
        // Before the entry is built: emptying the queue forgets what its entries point to.
        if self.ring.submission().is_full() {
            self.flush();
        }
        let entry = self.departure_entry(to, payload, departure);
        self.push(&entry.flags(Flags::SKIP_SUCCESS).user_data(token.pack()));
    }

    /// What needs no control data, and has nothing in front, is sent without a header, which costs the kernel less.
    fn departure_entry<'a>(
        &mut self,
        (fd, is_ipv6): (Fd, bool),
        (prefix, mut slices): (&[u8], impl Iterator<Item = &'a [u8]>),
        departure: &Departure,
    ) -> Entry {
        const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let bytes = slices.next().unwrap_or_default();
        let vectors_full = self.vectors.len() + 1 + SEND_PIECES_MAX > VECTORS_MAX;
        if self.departures.is_full(prefix.len()) || vectors_full || self.headers.len() == HEADERS_MAX {
            self.flush();
        }
        let names = &mut self.departures.names;
        let (address, address_len) = match departure.to {
            Some(to) => {
                let (bytes, len) = name(to);
                names.push(bytes);
                (names[names.len() - 1].as_ptr(), len as libc::socklen_t)
            }
            None => (std::ptr::null(), 0),
        };
        if prefix.is_empty() && !departure.has_control() {
            return opcode::Send::new(RingFd(fd.0), bytes.as_ptr(), bytes.len() as u32)
                .dest_addr(address.cast())
                .dest_addr_len(address_len)
                .flags(FLAGS)
                .build();
        }
        let (control, control_len) = departure.control(is_ipv6);
        let controls = &mut self.departures.controls;
        controls.push(control);
        let last = controls.len() - 1;
        let control = controls[last].as_mut_ptr();
        let start = self.vectors.len();
        if !prefix.is_empty() {
            let kept = self.departures.keep(prefix);
            self.vectors.push(kept);
        }
        for slice in std::iter::once(bytes).chain(slices) {
            self.vectors.push(libc::iovec {
                iov_base: slice.as_ptr().cast_mut().cast(),
                iov_len: slice.len(),
            });
        }
        let mut header = sys::message_header(&mut self.vectors[start..]);
        header.msg_name = address.cast_mut().cast();
        header.msg_namelen = address_len;
        header.msg_control = control.cast();
        header.msg_controllen = control_len as _;
        self.headers.push(header);
        let header = &self.headers[self.headers.len() - 1];
        opcode::SendMsg::new(RingFd(fd.0), header).flags(FLAGS as u32).build()
    }
}
