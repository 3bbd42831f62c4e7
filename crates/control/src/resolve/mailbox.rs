//! The newest outcome of every name, until somebody reads it.
//!
//! Bounded by the number of names and never loses the newest state: a second outcome replaces one that nobody has read.
//! Never waits on the writing side. One reader.

use super::Outcome;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// One slot per name.
pub(super) struct Mailbox {
    unread: Mutex<Unread>,
    /// Holds one wake-up for a reader that was not yet waiting, so that none is missed.
    news: Notify,
}

struct Unread {
    /// By slot; `None`: read.
    newest: Vec<Option<Outcome>>,
    /// Slots that hold something, each once, oldest first.
    order: VecDeque<usize>,
}

impl Mailbox {
    pub(super) fn new(slots: usize) -> Self {
        let unread = Unread {
            newest: vec![None; slots],
            order: VecDeque::with_capacity(slots),
        };
        Self {
            unread: Mutex::new(unread),
            news: Notify::new(),
        }
    }

    /// Leaves the newest outcome of a name.
    pub(super) fn put(&self, slot: usize, outcome: Outcome) {
        let mut unread = self.lock();
        if unread.newest[slot].replace(outcome).is_none() {
            unread.order.push_back(slot);
        }
        self.news.notify_one();
    }

    /// The next unread one; nothing is lost when the future is dropped.
    pub(super) async fn take(&self) -> (usize, Outcome) {
        loop {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            self.news.notified().await;
        }
    }

    fn try_take(&self) -> Option<(usize, Outcome)> {
        let mut unread = self.lock();
        let slot = unread.order.pop_front()?;
        let outcome = unread.newest[slot].take()?;
        Some((slot, outcome))
    }

    /// Nothing is done under the lock that could leave it half done.
    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_replaces_what_nobody_read_and_keeps_its_turn() {
        let mailbox = Mailbox::new(2);
        mailbox.put(1, Outcome::Empty("first".to_owned()));
        mailbox.put(0, Outcome::Empty("other".to_owned()));
        mailbox.put(1, Outcome::Failed("second".to_owned()));
        assert_eq!(mailbox.take().await, (1, Outcome::Failed("second".to_owned())));
        assert_eq!(mailbox.take().await, (0, Outcome::Empty("other".to_owned())));
        assert_eq!(mailbox.try_take(), None);
    }

    #[tokio::test]
    async fn a_dropped_take_loses_nothing() {
        let mailbox = Mailbox::new(1);
        {
            let mut waiting = std::pin::pin!(mailbox.take());
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("there is nothing to read"),
                () = std::future::ready(()) => {}
            }
            mailbox.put(0, Outcome::Empty("late".to_owned()));
        }
        assert_eq!(mailbox.take().await, (0, Outcome::Empty("late".to_owned())));
    }
}
