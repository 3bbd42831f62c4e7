//! A hierarchical timer wheel: insert, cancel and expire in O(1), the next deadline from bitmaps.
//!
//! Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987). Seven levels of 64 slots of a millisecond reach
//! 139 years. A timer is kept at the level of the highest digit in which its deadline differs from the wheel's time
//! and moves down as time goes on. A deadline is rounded up to the next millisecond, so that no timer fires early.

use crate::slab::{Slab, Token};
use crate::time::Time;
use std::task::Waker;
use std::time::Duration;

const LEVELS: usize = 7;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const TICK: Duration = Duration::from_millis(1);
/// Deadlines further away fire here and are found early by their owner, who checks the time and arms again.
const TICKS_MAX: u64 = 1 << (SLOT_BITS * LEVELS as u32);
const NONE: u32 = u32::MAX;

struct Timer {
    deadline: u64,
    waker: Waker,
    previous: u32,
    next: u32,
    /// Level and slot packed; which list holds the timer.
    list: u16,
}

/// Names a timer that is armed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TimerKey(Token);

pub(crate) struct Wheel {
    /// Ticks that have been expired; every timer's deadline is later.
    elapsed: u64,
    timers: Slab<Timer>,
    /// First timer of each list.
    heads: [[u32; SLOTS]; LEVELS],
    /// Bit s of level l: list is not empty.
    occupied: [u64; LEVELS],
}

impl Wheel {
    pub(crate) const fn new() -> Self {
        Self {
            elapsed: 0,
            timers: Slab::new(),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
        }
    }

    /// Timers that are armed.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.timers.len()
    }

    pub(crate) fn insert(&mut self, deadline: Time, waker: Waker) -> TimerKey {
        let tick = deadline.as_nanos().div_ceil(TICK.as_nanos() as u64);
        let deadline = tick.clamp(self.elapsed + 1, self.elapsed + TICKS_MAX - 1);
        let token = self.timers.insert(Timer {
            deadline,
            waker,
            previous: NONE,
            next: NONE,
            list: 0,
        });
        self.link(token.slot);
        TimerKey(token)
    }

    /// `true` while the timer has not fired; then `waker` is the one it will wake.
    pub(crate) fn keep(&mut self, key: &TimerKey, waker: &Waker) -> bool {
        let Some(timer) = self.timers.get_mut(key.0) else {
            return false;
        };
        timer.waker.clone_from(waker);
        true
    }

    /// The waker of the timer, unless it has fired.
    pub(crate) fn cancel(&mut self, key: &TimerKey) -> Option<Waker> {
        self.timers.get_mut(key.0)?;
        self.unlink(key.0.slot);
        self.timers.remove(key.0).map(|timer| timer.waker)
    }

    /// Wakes everything due at `now`. Wakers only mark tasks, so calling them here is bounded work.
    pub(crate) fn expire(&mut self, now: Time) {
        let now = now.as_nanos() / TICK.as_nanos() as u64;
        while let Some((level, slot, at)) = self.next_list() {
            if at > now {
                break;
            }
            self.elapsed = at.max(self.elapsed);
            let mut head = std::mem::replace(&mut self.heads[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            while head != NONE {
                let timer = self.timers.slot_mut(head).expect("a linked timer exists");
                let (current, next) = (head, timer.next);
                if timer.deadline <= now {
                    let timer = self.timers.remove_slot(current).expect("it was just read");
                    timer.waker.wake();
                } else {
                    self.link(current);
                }
                head = next;
            }
        }
        self.elapsed = self.elapsed.max(now);
    }

    /// When the loop must come back at the latest; may be earlier than the next deadline, never later.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let (_, _, at) = self.next_list()?;
        Some(Time::from_nanos(at.saturating_mul(TICK.as_nanos() as u64)))
    }

    /// The earliest non-empty list: level, slot, and the tick at which it is due.
    fn next_list(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let position = (self.elapsed >> shift) as u32 & (SLOTS as u32 - 1);
            let distance = self.occupied[level].rotate_right(position).trailing_zeros();
            let slot = (position + distance) as usize % SLOTS;
            let level_start = self.elapsed >> shift << shift;
            let at = level_start + (u64::from(distance) << shift);
            return Some((level, slot, at));
        }
        None
    }

    fn link(&mut self, slot: u32) {
        let elapsed = self.elapsed;
        let timer = self.timers.slot_mut(slot).expect("only existing timers are linked");
        let differing = (timer.deadline ^ elapsed) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / SLOT_BITS) as usize;
        // A carry into a digit above the highest level wraps around that level, which `next_list` handles by rotation.
        let level = level.min(LEVELS - 1);
        let list = (timer.deadline >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let head = self.heads[level][list];
        timer.previous = NONE;
        timer.next = head;
        timer.list = (level * SLOTS + list) as u16;
        if head != NONE {
            self.timers.slot_mut(head).expect("a linked timer exists").previous = slot;
        }
        self.heads[level][list] = slot;
        self.occupied[level] |= 1 << list;
    }

    fn unlink(&mut self, slot: u32) {
        let timer = self.timers.slot_mut(slot).expect("only existing timers are unlinked");
        let (previous, next, list) = (timer.previous, timer.next, usize::from(timer.list));
        if next != NONE {
            self.timers.slot_mut(next).expect("a linked timer exists").previous = previous;
        }
        if previous != NONE {
            self.timers.slot_mut(previous).expect("a linked timer exists").next = next;
        } else {
            self.heads[list / SLOTS][list % SLOTS] = next;
            if next == NONE {
                self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Fired(AtomicUsize);

    impl Wake for Fired {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    /// Random inserts, cancels and steps of time against a sorted list.
    #[test]
    fn agrees_with_a_sorted_list() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        println!("seed {seed:#x}");
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut wheel = Wheel::new();
        let mut model: Vec<(u64, Arc<Fired>, TimerKey)> = Vec::new();
        let mut now = 0;
        for _ in 0..50_000 {
            match random() % 4 {
                0 | 1 => {
                    let deadline = now + 1 + random() % (1 << (random() % 30));
                    let fired = Arc::new(Fired::default());
                    let key = wheel.insert(at(deadline), fired.clone().into());
                    model.push((deadline, fired, key));
                }
                2 if !model.is_empty() => {
                    let index = random() as usize % model.len();
                    let (_, fired, key) = model.swap_remove(index);
                    wheel.cancel(&key);
                    assert_eq!(fired.0.load(Ordering::Relaxed), 0);
                }
                _ => {
                    let soonest = model.iter().map(|(deadline, ..)| *deadline).min();
                    if let (Some(next), Some(soonest)) = (wheel.next_deadline(), soonest) {
                        assert!(next <= at(soonest), "the loop would come back too late");
                        assert!(next > at(now), "a loop that comes back at once would spin");
                    }
                    now += random() % (1 << (random() % 22));
                    wheel.expire(at(now));
                    model.retain(|(deadline, fired, _)| {
                        let count = fired.0.load(Ordering::Relaxed);
                        assert_eq!(count, usize::from(*deadline <= now), "deadline {deadline} at {now}");
                        *deadline > now
                    });
                    assert_eq!(wheel.len(), model.len());
                }
            }
        }
    }

    #[test]
    fn a_fraction_of_a_millisecond_is_rounded_up() {
        let mut wheel = Wheel::new();
        let fired = Arc::new(Fired::default());
        wheel.insert(Time::from_nanos(1_500_000), fired.clone().into());
        wheel.expire(Time::from_nanos(1_999_999));
        assert_eq!(fired.0.load(Ordering::Relaxed), 0);
        wheel.expire(Time::from_nanos(2_000_000));
        assert_eq!(fired.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_tick() {
        let mut wheel = Wheel::new();
        wheel.expire(at(1000));
        let fired = Arc::new(Fired::default());
        wheel.insert(at(5), fired.clone().into());
        wheel.expire(at(1001));
        assert_eq!(fired.0.load(Ordering::Relaxed), 1);
    }
}
