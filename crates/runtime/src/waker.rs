//! Wakers without reference counts: 64 bits that name a task of a runtime.
//!
//! Cloning and dropping a waker does nothing; waking one whose task has ended is harmless (the generation does not
//! match, or in the rare case that it does, the new task is polled once for nothing). On the runtime's own thread a
//! wake is an entry in its ready queue; from any other thread it goes through `remote`. Unsafe module: RawWaker.

use crate::remote;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{RawWaker, RawWakerVTable, Waker};

const _: () = assert!(size_of::<*const ()>() == 8, "a waker packs 64 bits into a pointer");

thread_local! {
    /// Ready queues of the runtimes of this thread: one, or several under simulation.
    static LOCAL: RefCell<Vec<(u16, Rc<ReadyQueue>)>> = const { RefCell::new(Vec::new()) };
}

/// Tasks to be polled, each at most once.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    slots: RefCell<VecDeque<u32>>,
    marks: RefCell<Vec<Mark>>,
}

#[derive(Clone, Copy, Default)]
struct Mark {
    generation: u16,
    queued: bool,
}

impl ReadyQueue {
    /// A task was put into this slot.
    pub(crate) fn open(&self, slot: u32, generation: u32) {
        let mut marks = self.marks.borrow_mut();
        if marks.len() <= slot as usize {
            marks.resize(slot as usize + 1, Mark::default());
        }
        marks[slot as usize] = Mark {
            generation: generation as u16,
            queued: false,
        };
    }

    pub(crate) fn push(&self, slot: u32, generation: u16) {
        let mut marks = self.marks.borrow_mut();
        let Some(mark) = marks.get_mut(slot as usize) else {
            return;
        };
        if mark.generation == generation && !mark.queued {
            mark.queued = true;
            self.slots.borrow_mut().push_back(slot);
        }
    }

    /// The next task to poll; from here on it may be queued again.
    pub(crate) fn pop(&self) -> Option<u32> {
        let slot = self.slots.borrow_mut().pop_front()?;
        self.marks.borrow_mut()[slot as usize].queued = false;
        Some(slot)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Wakes by the 48 bits that `remote` carried here.
    pub(crate) fn push_bits(&self, bits: u64) {
        let (_, generation, slot) = unpack(bits);
        self.push(slot, generation);
    }
}

pub(crate) fn register(runtime: u16, queue: &Rc<ReadyQueue>) {
    LOCAL.with(|local| local.borrow_mut().push((runtime, queue.clone())));
}

pub(crate) fn unregister(runtime: u16) {
    // The thread may be ending, in which case nobody can look there any more.
    let _ = LOCAL.try_with(|local| local.borrow_mut().retain(|(id, _)| *id != runtime));
}

pub(crate) fn waker(runtime: u16, slot: u32, generation: u32) -> Waker {
    let bits = u64::from(runtime) << 48 | u64::from(generation as u16) << 32 | u64::from(slot);
    // SAFETY: the functions of the table treat the pointer as an integer, need nothing to stay alive, and are safe to
    // call from any thread: `wake` finds the runtime's queue through a thread-local or a mutex.
    unsafe { Waker::from_raw(raw(bits as *const ())) }
}

const fn unpack(bits: u64) -> (u16, u16, u32) {
    ((bits >> 48) as u16, (bits >> 32) as u16, bits as u32)
}

const fn raw(data: *const ()) -> RawWaker {
    static TABLE: RawWakerVTable = RawWakerVTable::new(raw, wake, wake, |_| {});
    RawWaker::new(data, &TABLE)
}

fn wake(data: *const ()) {
    let bits = data as u64;
    let (runtime, generation, slot) = unpack(bits);
    let local = LOCAL.try_with(|local| {
        let local = local.borrow();
        let Some((_, queue)) = local.iter().find(|(id, _)| *id == runtime) else {
            return false;
        };
        queue.push(slot, generation);
        true
    });
    if local != Ok(true) {
        remote::wake(runtime, bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_queued_once_however_often_it_is_woken() {
        let queue = Rc::new(ReadyQueue::default());
        register(60_001, &queue);
        queue.open(3, 0x1_0007);
        let waker = waker(60_001, 3, 0x1_0007);
        waker.wake_by_ref();
        waker.clone().wake_by_ref();
        assert_eq!((queue.pop(), queue.pop()), (Some(3), None));
        waker.wake();
        assert_eq!(queue.pop(), Some(3));
        unregister(60_001);
    }

    #[test]
    fn a_waker_of_an_ended_task_wakes_nobody() {
        let queue = Rc::new(ReadyQueue::default());
        register(60_002, &queue);
        queue.open(0, 1);
        let old = waker(60_002, 0, 1);
        queue.open(0, 2);
        old.wake();
        assert_eq!(queue.len(), 0);
        unregister(60_002);
    }
}
