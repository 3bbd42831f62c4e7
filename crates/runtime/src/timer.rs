//! Waiting for a point in time.

use crate::Inner;
use crate::time::Time;
use crate::wheel::TimerKey;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Resolves at its deadline, up to a millisecond late. Takes a place in the timer wheel only from its first poll on.
pub struct Sleep {
    runtime: Rc<Inner>,
    deadline: Time,
    key: Option<TimerKey>,
}

impl Sleep {
    pub(crate) const fn new(runtime: Rc<Inner>, deadline: Time) -> Self {
        Self {
            runtime,
            deadline,
            key: None,
        }
    }

    /// When it resolves.
    pub const fn deadline(&self) -> Time {
        self.deadline
    }

    /// Moves the deadline. A later one costs nothing now: the timer fires at the old one and is armed again.
    pub fn reset(&mut self, deadline: Time) {
        let earlier = deadline < self.deadline;
        self.deadline = deadline;
        if earlier && let Some(waker) = self.cancel() {
            self.key = Some(self.runtime.wheel.borrow_mut().insert(deadline, waker));
        }
    }

    /// The waker of whoever waits.
    fn cancel(&mut self) -> Option<Waker> {
        let key = self.key.take()?;
        self.runtime.wheel.borrow_mut().cancel(&key)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.runtime.now.get() >= self.deadline {
            self.cancel();
            return Poll::Ready(());
        }
        let runtime = self.runtime.clone();
        let mut wheel = runtime.wheel.borrow_mut();
        if !self.key.as_ref().is_some_and(|key| wheel.keep(key, context.waker())) {
            self.key = Some(wheel.insert(self.deadline, context.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish()
    }
}
