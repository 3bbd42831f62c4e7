//! The receive buffers of one worker: who has which one, and leases on those that hold received bytes.
//!
//! A buffer is in exactly one of three places: with the kernel (published in the provided-buffer ring, which the
//! simulated kernel uses as well), lent out as part of a [`Leases`], or idle. Leases return their buffers when dropped;
//! returned ones are published again before the next system call, last returned first, so that a lightly loaded worker
//! touches few pages. Unsafe module: turns buffer numbers into slices and writes the ring shared with the kernel.

use crate::memory::{Mapping, PAGE};
use io_uring::types::BufRingEntry;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Bounds of `BufferOptions::count`.
pub const BUFFERS_MIN: u16 = 16;
/// The kernel's limit for one ring (io_uring_register_buf_ring(3)).
pub const BUFFERS_MAX: u16 = 32_768;
/// Bytes of all buffers together: lengths and counts of what is received fit 32 bits with room to spare.
pub const BUFFER_BYTES_MAX: u64 = 1 << 30;
/// Buffers published at first; doubled each time the ring runs dry although idle buffers exist. Few, as those in use are
/// used in turn: what was received into any of them shall still be in the cache when its turn comes again.
const PUBLISHED_FIRST: u16 = 64;
/// Bytes between one buffer and the next, for buffers of whole pages: three lines of the cache. Without them all
/// buffers would begin in the same few sets of it, and throw each other out.
const SKEW: usize = 192;
/// See `BufferRing::bundle_max`.
const BUNDLE_MAX: u32 = 64 * 1024;
/// Of the buffers of datagrams, see [`BufferRing::for_datagrams`].
pub(crate) const DATAGRAM_FIRST: u16 = BUFFERS_MAX;
const NONE: u16 = u16::MAX;

/// Number and size of a worker's receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferOptions {
    /// A power of two, [`BUFFERS_MIN`] to [`BUFFERS_MAX`].
    pub count: u16,
    /// Bytes of each, a power of two. All together at most [`BUFFER_BYTES_MAX`].
    pub size: u32,
}

/// A piece of a buffer that holds received bytes, and the piece that follows it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    next: u16,
    offset: u32,
    len: u32,
    lent: bool,
}

/// Buffers in order of arrival, without the buffer ring they belong to. Lives in tables of this crate only; whoever holds one
/// must turn it into [`Leases`] or release it.
#[derive(Debug)]
pub(crate) struct Links {
    head: u16,
    tail: u16,
    count: u16,
    bytes: u32,
}

impl Links {
    pub(crate) const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
        count: 0,
        bytes: 0,
    };

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) const fn bytes(&self) -> u32 {
        self.bytes
    }

    pub(crate) const fn pieces(&self) -> u16 {
        self.count
    }
}

pub(crate) struct BufferRing {
    memory: Mapping,
    /// What the kernel calls the first buffer; the others follow.
    first: u16,
    size: u32,
    /// From the start of one buffer to that of the next.
    stride: usize,
    count: u16,
    pieces: Box<[Cell<Piece>]>,
    /// Neither published nor lent.
    idle: RefCell<Vec<u16>>,
    published: RefCell<SharedRing>,
    /// How many to keep published.
    target: Cell<u16>,
    lent: Cell<u16>,
}

/// What the kernel may write into (io_uring_register_buf_ring(3)).
struct SharedRing {
    entries: Mapping,
    /// Which buffer was published in which entry; the kernel consumes entries in order.
    slots: Box<[u16]>,
    /// The entry of each published buffer.
    positions: Box<[u16]>,
    tail: u16,
    /// Consumed entries as far as completions told.
    head: u16,
    /// Entries that the simulated kernel has used.
    #[cfg(feature = "sim")]
    used: u16,
}

impl fmt::Debug for BufferRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferRing")
            .field("count", &self.count)
            .field("lent", &self.lent.get())
            .finish_non_exhaustive()
    }
}

impl BufferRing {
    /// A buffer ring whose published buffers are in memory shared with the kernel; nothing is published yet.
    pub(crate) fn shared(options: BufferOptions) -> io::Result<Self> {
        assert!(options.size.is_power_of_two(), "buffers: size {}", options.size);
        Self::numbered_from(0, options)
    }

    /// The same for datagrams: one with all that comes with it fits each buffer. The kernel's numbers say which of the two
    /// rings a buffer belongs to: those of datagrams begin at [`DATAGRAM_FIRST`].
    pub(crate) fn for_datagrams(count: u16) -> io::Result<Self> {
        let size = crate::datagram::BUFFER_SIZE;
        Self::numbered_from(DATAGRAM_FIRST, BufferOptions { count, size })
    }

    fn numbered_from(first: u16, options: BufferOptions) -> io::Result<Self> {
        let count = usize::from(options.count);
        let ring = SharedRing {
            entries: Mapping::new(count * size_of::<BufRingEntry>())?,
            slots: vec![NONE; count].into(),
            positions: vec![NONE; count].into(),
            tail: 0,
            head: 0,
            #[cfg(feature = "sim")]
            used: 0,
        };
        let BufferOptions { count, size } = options;
        assert!(
            count.is_power_of_two() && (BUFFERS_MIN..=BUFFERS_MAX).contains(&count),
            "buffers: count {count}"
        );
        let bytes = u64::from(count) * u64::from(size);
        assert!(bytes <= BUFFER_BYTES_MAX, "buffers: {bytes} bytes together");
        let stride = stride(size);
        let unused = Piece {
            next: NONE,
            offset: 0,
            len: 0,
            lent: false,
        };
        Ok(Self {
            memory: Mapping::new(usize::from(count) * stride)?,
            first,
            size,
            stride,
            count,
            pieces: vec![Cell::new(unused); usize::from(count)].into(),
            idle: RefCell::new((0..count).rev().collect()),
            published: RefCell::new(ring),
            target: Cell::new(PUBLISHED_FIRST.min(count)),
            lent: Cell::new(0),
        })
    }

    pub(crate) const fn buffer_size(&self) -> u32 {
        self.size
    }

    pub(crate) const fn count(&self) -> u16 {
        self.count
    }

    /// Buffers lent out now.
    pub(crate) fn lent(&self) -> u16 {
        self.lent.get()
    }

    /// Buffers that could be received into now or after the next publishing.
    pub(crate) fn available(&self) -> u16 {
        self.count - self.lent.get()
    }

    /// Address and number of entries of the shared ring, for its registration.
    pub(crate) fn shared_ring(&self) -> (u64, u16) {
        (self.published.borrow().entries.start().as_ptr() as u64, self.count)
    }

    /// Bytes of all buffers.
    pub(crate) fn bytes(&self) -> u32 {
        u32::from(self.count) * self.size
    }

    /// Whether the kernel has left the published lengths as they were written.
    pub(crate) fn lengths_are_intact(&self) -> bool {
        let ring = self.published.borrow();
        (ring.head..ring.tail).all(|position| {
            let entry = ring.entry(position & (self.count - 1));
            // SAFETY: the entry is inside the mapping and aligned; any bytes are a valid entry. The kernel writes during
            // system calls only, none of which is under way; hence volatile, and no reference is made.
            unsafe { entry.read_volatile() }.len() == self.size
        })
    }

    /// Bytes of one completion of a receive that goes on: long enough for streams to be recognised by it, short, because
    /// the kernel prepares as many buffers for each receive, however few bytes come.
    pub(crate) fn bundle_max(&self) -> u32 {
        let quarter = u32::from(self.count) / 4 * self.size;
        BUNDLE_MAX.min(quarter).max(self.size)
    }

    /// Whether more buffers were published than are usually needed, and none is in use.
    pub(crate) fn has_spare_memory(&self) -> bool {
        self.lent.get() == 0 && self.target.get() > PUBLISHED_FIRST.min(self.count)
    }

    /// Gives the memory of all buffers that are not lent back to the system. Published ones too: nothing of worth is in
    /// them, and the kernel gets fresh pages when it writes.
    pub(crate) fn give_back(&self) {
        self.target.set(PUBLISHED_FIRST.min(self.count));
        let mut buffer = 0;
        while buffer < usize::from(self.count) {
            let run = self.pieces[buffer..]
                .iter()
                .take_while(|piece| !piece.get().lent)
                .count();
            if run > 0 {
                self.memory.forget(buffer * self.stride, run * self.stride);
            }
            buffer += run + 1;
        }
    }

    /// The kernel found nothing published: publish more from now on.
    pub(crate) fn ran_dry(&self) {
        self.target.set(self.target.get().saturating_mul(2).min(self.count));
    }

    /// Hands idle buffers to the kernel up to the target. `true` if any was handed over.
    pub(crate) fn publish(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let target = self.target.get();
        let ring = &mut *self.published.borrow_mut();
        let mut any = false;
        while ring.tail.wrapping_sub(ring.head) < target {
            let Some(buffer) = idle.pop() else { break };
            let address = self.range(buffer, 0, self.size);
            ring.write(buffer, self.first + buffer, address, self.size);
            any = true;
        }
        if any {
            ring.store_tail();
        }
        any
    }

    /// A completion said that `len` bytes were received into the buffer `first` and, in a bundle, those published
    /// behind it. Must be called when the completion is reaped, before anything is published again: a bundle names
    /// only its first buffer.
    pub(crate) fn received(&self, first: u16, len: u32) -> Links {
        let ring = &mut *self.published.borrow_mut();
        let mut links = Links::EMPTY;
        let first = first - self.first;
        let mut position = ring.positions[usize::from(first)];
        assert!(
            position != NONE,
            "the kernel used buffer {first}, which was not published"
        );
        let mut rest = len;
        loop {
            let buffer = ring.slots[usize::from(position)];
            assert!(
                ring.positions[usize::from(buffer)] == position,
                "a bundle reached a buffer not published"
            );
            ring.positions[usize::from(buffer)] = NONE;
            ring.head = ring.head.wrapping_add(1);
            self.lend(&mut links, buffer, rest.min(self.size));
            rest = rest.saturating_sub(self.size);
            if rest == 0 {
                return links;
            }
            let skip = u16::from(crate::faults::active(crate::faults::Fault::BundleMisread));
            position = (position + 1 + skip) & (self.count - 1);
        }
    }

    /// Whether the simulated kernel would find a buffer.
    #[cfg(feature = "sim")]
    pub(crate) fn has_published(&self) -> bool {
        let ring = self.published.borrow();
        ring.used != ring.tail
    }

    /// The simulated kernel receives: takes the next published buffer, fills it through `fill` and returns its number.
    /// Who has the buffer is settled by [`Self::received`], as with the real one. `None` if nothing is published.
    #[cfg(feature = "sim")]
    pub(crate) fn kernel_receive(&self, fill: impl FnOnce(&mut [u8])) -> Option<u16> {
        let ring = &mut *self.published.borrow_mut();
        if ring.used == ring.tail {
            return None;
        }
        let buffer = ring.slots[usize::from(ring.used & (self.count - 1))];
        assert!(
            !self.is_lent(buffer),
            "the kernel was given buffer {buffer}, which is lent out"
        );
        ring.used = ring.used.wrapping_add(1);
        let start = self.range(buffer, 0, self.size);
        // SAFETY: the buffer was published and not used yet, and is not lent (asserted above), so no slice of it
        // exists: it is in nobody's hands but ours. The range is inside the mapping.
        fill(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.size as usize) });
        Some(self.first + buffer)
    }

    /// Whether a buffer is part of somebody's lease.
    #[cfg(feature = "sim")]
    pub(crate) fn is_lent(&self, buffer: u16) -> bool {
        self.pieces[usize::from(buffer)].get().lent
    }

    /// The buffers of `links`, in order.
    #[cfg(feature = "sim")]
    pub(crate) fn buffers(&self, links: &Links) -> impl Iterator<Item = u16> {
        let mut next = links.head;
        std::iter::from_fn(move || {
            let buffer = (next != NONE).then_some(next)?;
            next = self.pieces[usize::from(buffer)].get().next;
            Some(buffer)
        })
    }

    fn lend(&self, links: &mut Links, buffer: u16, len: u32) {
        self.pieces[usize::from(buffer)].set(Piece {
            next: NONE,
            offset: 0,
            len,
            lent: true,
        });
        self.lent.set(self.lent.get() + 1);
        if links.tail == NONE {
            links.head = buffer;
        } else {
            let tail = &self.pieces[usize::from(links.tail)];
            tail.set(Piece {
                next: buffer,
                ..tail.get()
            });
        }
        links.tail = buffer;
        links.count += 1;
        links.bytes += len;
    }

    /// Joins `more` behind `links`.
    pub(crate) fn append(&self, links: &mut Links, more: Links) {
        if more.is_empty() {
            return;
        }
        if links.is_empty() {
            *links = more;
            return;
        }
        let tail = &self.pieces[usize::from(links.tail)];
        tail.set(Piece {
            next: more.head,
            ..tail.get()
        });
        links.tail = more.tail;
        links.count += more.count;
        links.bytes += more.bytes;
    }

    /// Gives back the buffers of the first `n` bytes; a buffer of which bytes are left stays.
    pub(crate) fn advance(&self, links: &mut Links, n: u32) {
        assert!(n <= links.bytes, "more bytes were sent than there were");
        let mut rest = n;
        while links.head != NONE {
            let cell = &self.pieces[usize::from(links.head)];
            let piece = cell.get();
            if piece.len > rest {
                cell.set(Piece {
                    offset: piece.offset + rest,
                    len: piece.len - rest,
                    ..piece
                });
                break;
            }
            rest -= piece.len;
            self.pop(links);
        }
        links.bytes -= n;
    }

    pub(crate) fn release(&self, mut links: Links) {
        while links.head != NONE {
            self.pop(&mut links);
        }
    }

    fn pop(&self, links: &mut Links) {
        let buffer = links.head;
        let piece = self.pieces[usize::from(buffer)].get();
        assert!(piece.lent, "a buffer was given back twice");
        self.pieces[usize::from(buffer)].set(Piece {
            next: NONE,
            offset: 0,
            len: 0,
            lent: false,
        });
        links.head = piece.next;
        links.count -= 1;
        if links.head == NONE {
            links.tail = NONE;
        }
        self.lent.set(self.lent.get() - 1);
        self.idle.borrow_mut().push(buffer);
    }

    /// The bytes of `links` in order, piece by piece.
    pub(crate) fn slices<'a>(&'a self, links: &'a Links) -> impl Iterator<Item = &'a [u8]> {
        let mut next = links.head;
        std::iter::from_fn(move || {
            if next == NONE {
                return None;
            }
            let piece = self.pieces[usize::from(next)].get();
            let start = self.range(next, piece.offset, piece.len);
            next = piece.next;
            // SAFETY: the buffer is lent (it is in `links`, which borrows it for 'a), so neither the kernel nor
            // anybody else writes to it until it is given back, which takes `&mut` or ownership of `links`.
            Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), piece.len as usize) })
        })
    }

    /// `len` bytes of a buffer, `offset` bytes behind its start; both together at most its size.
    fn range(&self, buffer: u16, offset: u32, len: u32) -> NonNull<u8> {
        self.memory
            .range(usize::from(buffer) * self.stride + offset as usize, len as usize)
    }

    /// Keeps the memory for ever, because the kernel may still write into it.
    pub(crate) fn leak(&mut self) {
        self.memory.leak();
        self.published.borrow_mut().entries.leak();
    }
}

/// From the start of a buffer to that of the next, in bytes. Small buffers stand in different sets as it is.
fn stride(size: u32) -> usize {
    let size = size as usize;
    if size.is_multiple_of(PAGE) { size + SKEW } else { size }
}

impl SharedRing {
    fn entry(&self, slot: u16) -> NonNull<BufRingEntry> {
        let offset = usize::from(slot) * size_of::<BufRingEntry>();
        self.entries.range(offset, size_of::<BufRingEntry>()).cast()
    }

    fn write(&mut self, buffer: u16, number: u16, address: NonNull<u8>, size: u32) {
        let mask = self.slots.len() as u16 - 1;
        let slot = self.tail & mask;
        let entry = self.entry(slot);
        // SAFETY: the entry is inside the mapping and aligned (16-byte entries from a page boundary). The kernel reads
        // entries below the tail only, and this one is published by `store_tail` later. The tail itself overlaps the
        // `resv` field of entry 0, which none of the three setters touches.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address.as_ptr() as u64);
        entry.set_len(size);
        entry.set_bid(number);
        self.slots[usize::from(slot)] = buffer;
        self.positions[usize::from(buffer)] = slot;
        self.tail = self.tail.wrapping_add(1);
    }

    fn store_tail(&self) {
        // SAFETY: the mapping starts with the ring's first entry, as `tail` asks.
        let tail = unsafe { BufRingEntry::tail(self.entries.start().as_ptr().cast()) };
        // SAFETY: `tail` is a properly aligned u16 inside the mapping, and is only ever accessed atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the kernel must see the entries before the tail that publishes them.
        tail.store(self.tail, Ordering::Release);
    }
}

/// Received bytes in order of arrival, in buffers lent out by a worker's ring. Dropping it gives the buffers back.
pub struct Leases {
    buffer_ring: Rc<BufferRing>,
    links: Links,
}

impl Leases {
    pub(crate) fn new(buffer_ring: &Rc<BufferRing>, links: Links) -> Self {
        Self {
            buffer_ring: buffer_ring.clone(),
            links,
        }
    }

    /// Bytes held.
    pub const fn bytes(&self) -> u32 {
        self.links.bytes
    }

    /// Buffers held.
    pub const fn buffers(&self) -> u16 {
        self.links.count
    }

    /// No byte is held.
    pub const fn is_empty(&self) -> bool {
        self.links.bytes == 0
    }

    /// Joins `more` behind the bytes held. Both must come from the same worker.
    pub fn append(&mut self, mut more: Self) {
        assert!(
            Rc::ptr_eq(&self.buffer_ring, &more.buffer_ring),
            "leases of two workers were joined"
        );
        let links = std::mem::replace(&mut more.links, Links::EMPTY);
        self.buffer_ring.append(&mut self.links, links);
    }

    /// Gives back the first `n` bytes, at most [`Self::bytes`].
    pub fn advance(&mut self, n: u32) {
        self.buffer_ring.advance(&mut self.links, n);
    }

    /// The bytes in order, piece by piece.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.buffer_ring.slices(&self.links)
    }

    /// Panics if `buffer_ring` is not theirs: the numbers of the buffers would mean other bytes there.
    pub(crate) fn into_links(mut self, buffer_ring: &Rc<BufferRing>) -> Links {
        assert!(Rc::ptr_eq(&self.buffer_ring, buffer_ring), "leases of another runtime");
        std::mem::replace(&mut self.links, Links::EMPTY)
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let links = std::mem::replace(&mut self.links, Links::EMPTY);
        self.buffer_ring.release(links);
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases")
            .field("bytes", &self.bytes())
            .field("buffers", &self.buffers())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A first-level cache finds its set by the address within a page: buffers that all begin at the same one share a
    /// dozen lines.
    #[test]
    fn buffers_in_use_begin_in_different_sets_of_the_cache() {
        for size in [1024, 4096, 16 * 1024] {
            let ring = BufferRing::shared(BufferOptions { count: 256, size }).expect("memory");
            let set = |buffer| ring.range(buffer, 0, size).as_ptr().addr() % PAGE / 64;
            let sets: BTreeSet<usize> = (0..PUBLISHED_FIRST).map(set).collect();
            let expected = if size == 1024 { 4 } else { 64 };
            assert_eq!(sets.len(), expected, "{size} bytes");
            let ends = (0..255).all(|n| {
                let end = ring.range(n, 0, size).as_ptr().addr() + size as usize;
                end <= ring.range(n + 1, 0, size).as_ptr().addr()
            });
            assert!(ends, "buffers of {size} bytes overlap");
        }
    }
}
