//! Tasks of one runtime: futures, polled when woken, each contained when it panics.

use crate::slab::{Slab, Token};
use crate::waker::{ReadyQueue, waker};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Names a task; outlives it harmlessly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskId(Token);

pub(crate) struct Tasks {
    runtime: u16,
    /// `None` while the task is being polled.
    table: RefCell<Slab<Option<Task>>>,
    pub(crate) ready: Rc<ReadyQueue>,
    panicked: Cell<u64>,
    /// The runtime has ended: nothing would poll a task.
    ended: Cell<bool>,
}

impl Tasks {
    pub(crate) fn new(runtime: u16, ready: Rc<ReadyQueue>) -> Self {
        Self {
            runtime,
            table: RefCell::new(Slab::new()),
            ready,
            panicked: Cell::new(0),
            ended: Cell::new(false),
        }
    }

    /// Once the runtime has ended a task is dropped at once.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> TaskId {
        if self.ended.get() {
            return TaskId(Token {
                slot: u32::MAX,
                generation: 0,
            });
        }
        let token = self.table.borrow_mut().insert(Some(Box::pin(future)));
        self.ready.open(token.slot, token.generation);
        self.ready.push(token.slot, token.generation as u16);
        TaskId(token)
    }

    pub(crate) fn wake(&self, task: TaskId) {
        self.ready.push(task.0.slot, task.0.generation as u16);
    }

    pub(crate) fn wake_all(&self) {
        for (token, _) in self.table.borrow_mut().iter_mut() {
            self.ready.push(token.slot, token.generation as u16);
        }
    }

    pub(crate) fn exists(&self, task: TaskId) -> bool {
        self.table.borrow_mut().get_mut(task.0).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.borrow().len()
    }

    /// Tasks that panicked and were contained.
    pub(crate) fn panicked(&self) -> u64 {
        self.panicked.get()
    }

    /// Polls every task that is ready now; those that become ready meanwhile wait for the next turn.
    pub(crate) fn run_ready(&self) {
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop() else { break };
            self.poll(slot);
        }
    }

    fn poll(&self, slot: u32) {
        let (mut task, generation) = {
            let mut table = self.table.borrow_mut();
            let Some(entry) = table.slot_with_generation(slot) else {
                return;
            };
            let (generation, Some(task)) = (entry.0, entry.1.take()) else {
                return;
            };
            (task, generation)
        };
        let waker = waker(self.runtime, slot, generation);
        let mut context = Context::from_waker(&waker);
        let outcome = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut context)));
        match outcome {
            Ok(Poll::Pending) => {
                if let Some(entry) = self.table.borrow_mut().slot_mut(slot) {
                    *entry = Some(task);
                }
            }
            Ok(Poll::Ready(())) => self.end(slot, task),
            Err(panic) => {
                self.note_panic(panic);
                self.end(slot, task);
            }
        }
    }

    /// The slot is free before the future's destructors run: they may spawn or wake.
    fn end(&self, slot: u32, task: Task) {
        self.table.borrow_mut().remove_slot(slot);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(task))) {
            self.note_panic(panic);
        }
    }

    fn note_panic(&self, panic: Box<dyn Any + Send>) {
        self.panicked.set(self.panicked.get() + 1);
        // The panic hook has reported it. A payload whose destructor panics must not end the worker.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    }

    /// Runs a call that came from another thread, contained like a task.
    pub(crate) fn contain(&self, call: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
            self.note_panic(panic);
        }
    }

    /// Drops every task. Their destructors may still use the runtime, but start no new ones.
    pub(crate) fn end_all(&self) {
        self.ended.set(true);
        let tokens: Vec<u32> = self
            .table
            .borrow_mut()
            .iter_mut()
            .map(|(token, _)| token.slot)
            .collect();
        for slot in tokens {
            let task = self.table.borrow_mut().remove_slot(slot);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(task))) {
                self.note_panic(panic);
            }
        }
    }
}
