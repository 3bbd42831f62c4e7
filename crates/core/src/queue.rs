//! The line in which connections wait for a backend with room; over all workers, in order of arrival.
//!
//! Owns only the order and the wakers; whoever is woken chooses again by itself. Never waits.
//!
//! No wake-up is lost if who waits chooses once more after [`Line::enter`]. It writes its place and then reads the
//! backends' counts; who gives room back writes a count and then reads whether anybody waits ([`Line::wake_first`]).
//! A fence stands between write and read on both sides, so of two that meet at least one sees what the other wrote:
//! the first finds the room, or the second finds the place. `tests/loom.rs` tries every order of the two.
//!
//! Whoever has tried some backends already wants only the others. At the head of the line it could hold up everybody
//! although there is room for them; so it stands aside ([`Place::stand_aside`]): it is still told of room, but those
//! behind it do not wait for it.

use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, fence};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

/// The waiting connections of one pool.
#[derive(Debug)]
pub struct Line {
    max: AtomicUsize,
    waiting: Mutex<Waiting>,
    /// All of `waiting`, for a look without the lock.
    len: AtomicUsize,
    /// Those of them that do not stand aside.
    in_order: AtomicUsize,
}

#[derive(Debug)]
struct Waiting {
    next: u64,
    /// Numbers ascend.
    places: VecDeque<(u64, Waker)>,
    /// Those that stand aside. They stepped out from the head one after the other, so numbers ascend here too.
    aside: VecDeque<(u64, Waker)>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.places.len() + self.aside.len()
    }

    /// Whoever is first, and the first of those that stand aside.
    fn firsts(&self) -> [Option<Waker>; 2] {
        [&self.aside, &self.places].map(|places| places.front().map(|(_, waker)| waker.clone()))
    }
}

fn wake(wakers: [Option<Waker>; 2]) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

fn find(places: &VecDeque<(u64, Waker)>, number: u64) -> Result<usize, usize> {
    places.binary_search_by_key(&number, |&(number, _)| number)
}

impl Line {
    /// Room for this many.
    pub fn new(max: u32) -> Self {
        Self {
            max: AtomicUsize::new(max as usize),
            waiting: Mutex::new(Waiting {
                next: 0,
                places: VecDeque::new(),
                aside: VecDeque::new(),
            }),
            len: AtomicUsize::new(0),
            in_order: AtomicUsize::new(0),
        }
    }

    /// Room for this many from now on; whoever waits already stays.
    pub fn set_max(&self, max: u32) {
        self.max.store(max as usize, Ordering::Relaxed);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether newcomers would pass somebody who does not stand aside.
    pub fn is_crowded(&self) -> bool {
        self.in_order.load(Ordering::Acquire) != 0
    }

    /// Takes the last place; `None` when the line is full. Whoever entered must choose once more before it waits:
    /// room that was given back before it stood here has woken nobody.
    pub fn enter(self: &Arc<Self>, waker: &Waker) -> Option<Place> {
        let mut waiting = self.lock();
        if waiting.len() >= self.max.load(Ordering::Relaxed) {
            return None;
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.places.push_back((number, waker.clone()));
        self.note(&waiting);
        drop(waiting);
        // Before the caller looks for room again; see the head of this file.
        fence(Ordering::SeqCst);
        Some(Place {
            line: self.clone(),
            number,
        })
    }

    /// Somebody may find room now: wakes the first, and the first of those that stand aside. They keep their places until
    /// they drop them.
    pub fn wake_first(&self) {
        // After the room was given back; see the head of this file.
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        let firsts = self.lock().firsts();
        // Not under the lock: wakers are other people's code.
        wake(firsts);
    }

    /// What can be looked at without the lock.
    fn note(&self, waiting: &Waiting) {
        self.len.store(waiting.len(), Ordering::Release);
        self.in_order.store(waiting.places.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line, left when dropped. When the first leaves, the next one is woken: there may be room for two, and
/// the first may have been woken for room that it does not take.
#[derive(Debug)]
pub struct Place {
    line: Arc<Line>,
    number: u64,
}

impl Place {
    /// Whether everybody before has left or stands aside.
    pub fn is_first(&self) -> bool {
        let waiting = self.line.lock();
        let front = |&(number, _): &(u64, Waker)| number == self.number;
        waiting.places.front().is_some_and(front) || find(&waiting.aside, self.number).is_ok()
    }

    /// Whoever is first and finds room only where it does not want to go lets the next one look. Standing aside already
    /// changes nothing.
    pub fn stand_aside(&self) {
        let mut waiting = self.line.lock();
        let Waiting { places, aside, .. } = &mut *waiting;
        if places.front().is_none_or(|&(number, _)| number != self.number) {
            return;
        }
        aside.extend(places.pop_front());
        self.line.note(&waiting);
        let next = waiting.places.front().map(|(_, waker)| waker.clone());
        drop(waiting);
        wake([None, next]);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.line.lock();
        let Waiting { places, aside, .. } = &mut *waiting;
        let (at, left) = match (find(places, self.number), find(aside, self.number)) {
            (Ok(at), _) => (at, places.remove(at)),
            (Err(_), Ok(at)) => (at, aside.remove(at)),
            (Err(_), Err(_)) => panic!("a place in the line was left twice"),
        };
        self.line.note(&waiting);
        let next = if at == 0 { waiting.firsts() } else { [None, None] };
        drop(waiting);
        // After the lock: it is the last owner of a task, perhaps.
        drop(left);
        wake(next);
    }
}
