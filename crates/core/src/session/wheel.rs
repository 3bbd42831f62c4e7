//! When sessions are looked at again: a ring of lists, one for each tick.
//!
//! A session stands in the list of the tick at which its time may be over. Traffic does not move it: what is found alive
//! at its tick is put into a later list. So a session costs one move in each of its timeouts, however busy it is, and
//! finding the next tick costs a look at one bit for each list.

use std::time::Duration;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;
/// Lists of one wheel, a power of two.
const LISTS: usize = 1024;
const WORDS: usize = LISTS / 64;

/// A slot's neighbours in its list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) previous: u32,
    pub(super) next: u32,
    /// Which list it stands in; [`NO_LIST`]: none.
    pub(super) list: u16,
}

/// In no list.
const NO_LIST: u16 = u16::MAX;

impl Links {
    pub(super) const UNLINKED: Self = Self {
        previous: NONE,
        next: NONE,
        list: NO_LIST,
    };
}

/// Where a slot's links are.
pub(super) trait Slots {
    fn links(&mut self, slot: u32) -> &mut Links;
}

#[derive(Debug)]
pub(super) struct Wheel {
    heads: Box<[u32; LISTS]>,
    /// Bit i: list i is not empty.
    used: [u64; WORDS],
    /// Everything before this tick was looked at.
    now: u64,
    tick: Duration,
}

impl Wheel {
    /// `tick`: how late a session may be looked at; at least a nanosecond.
    pub(super) fn new(tick: Duration, now: Duration) -> Self {
        let mut wheel = Self {
            heads: Box::new([NONE; LISTS]),
            used: [0; WORDS],
            now: 0,
            tick: tick.max(Duration::from_nanos(1)),
        };
        wheel.now = wheel.tick_of(now);
        wheel
    }

    /// The first tick that begins at `at` or later.
    fn tick_of(&self, at: Duration) -> u64 {
        u64::try_from(at.as_nanos().div_ceil(self.tick.as_nanos())).unwrap_or(u64::MAX)
    }

    /// Has a slot that is in no list looked at when `at` has passed: not before, unless that is farther away than the
    /// wheel is long, and at most a tick later.
    pub(super) fn insert(&mut self, slots: &mut impl Slots, slot: u32, at: Duration) {
        let farthest = self.now.saturating_add(LISTS as u64 - 1);
        let tick = self.tick_of(at).clamp(self.now, farthest);
        let list = tick as usize % LISTS;
        let head = std::mem::replace(&mut self.heads[list], slot);
        if head != NONE {
            slots.links(head).previous = slot;
        }
        *slots.links(slot) = Links {
            previous: NONE,
            next: head,
            list: list as u16,
        };
        self.used[list / 64] |= 1 << (list % 64);
    }

    /// Takes a slot out of its list, if it is in one.
    pub(super) fn remove(&mut self, slots: &mut impl Slots, slot: u32) {
        let Links { previous, next, list } = std::mem::replace(slots.links(slot), Links::UNLINKED);
        if list == NO_LIST {
            return;
        }
        if next != NONE {
            slots.links(next).previous = previous;
        }
        if previous != NONE {
            slots.links(previous).next = next;
            return;
        }
        let list = usize::from(list);
        self.heads[list] = next;
        if next == NONE {
            self.used[list / 64] &= !(1 << (list % 64));
        }
    }

    /// A slot whose tick has come by `now`, out of its list; `None`: no more. Whoever inserts it again while asking must
    /// do so for a time after `now`.
    pub(super) fn pop(&mut self, slots: &mut impl Slots, now: Duration) -> Option<u32> {
        // The last tick that has begun.
        let last = u64::try_from(now.as_nanos() / self.tick.as_nanos()).unwrap_or(u64::MAX);
        if let Some(tick) = self.next_tick()
            && tick <= last
        {
            self.now = self.now.max(tick);
            let slot = self.heads[tick as usize % LISTS];
            self.remove(slots, slot);
            return Some(slot);
        }
        self.now = self.now.max(last);
        None
    }

    /// When there is something to look at next; `None`: the wheel is empty.
    pub(super) fn next(&self) -> Option<Duration> {
        let nanos = u128::from(self.next_tick()?) * self.tick.as_nanos();
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// The first tick from `now` on whose list is not empty.
    fn next_tick(&self) -> Option<u64> {
        let start = self.now as usize % LISTS;
        // The word of the start is looked at twice: its upper bits first, its lower ones last.
        (0..=WORDS).find_map(|step| {
            let word = (start / 64 + step) % WORDS;
            let bits = match step {
                0 => self.used[word] & (u64::MAX << (start % 64)),
                WORDS => self.used[word] & !(u64::MAX << (start % 64)),
                _ => self.used[word],
            };
            (bits != 0).then(|| {
                let list = word * 64 + bits.trailing_zeros() as usize;
                self.now + ((list + LISTS - start) % LISTS) as u64
            })
        })
    }
}
