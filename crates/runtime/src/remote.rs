//! Calls into a runtime from other threads: run a closure on it, or wake one of its tasks.
//!
//! Unsafe module: eventfd(2) and its write(2). What other threads want is queued under a mutex; the eventfd only says
//! that there is something. A runtime that is gone ignores what comes.

use crate::Handle;
use crate::errno::Errno;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Call = Box<dyn FnOnce(&Handle) + Send>;

/// Every runtime of the process that other threads may wake, by id.
static RUNTIMES: Mutex<Option<HashMap<u16, Remote>>> = Mutex::new(None);

/// The sending end towards a runtime. Cheap to clone; may outlive the runtime.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    /// `None` under simulation, where no other thread exists.
    event: Option<Arc<EventFd>>,
}

#[derive(Default)]
struct Inbox {
    calls: Vec<Call>,
    wakes: Vec<u64>,
    closed: bool,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Remote {
    pub(crate) fn new(event: Option<Arc<EventFd>>) -> Self {
        Self {
            shared: Arc::new(Shared {
                inbox: Mutex::default(),
                event,
            }),
        }
    }

    /// Runs `call` on the runtime's thread in one of its next turns. `false` if the runtime has ended.
    pub fn run(&self, call: impl FnOnce(&Handle) + Send + 'static) -> bool {
        self.post(|inbox| inbox.calls.push(Box::new(call)))
    }

    fn post(&self, add: impl FnOnce(&mut Inbox)) -> bool {
        let mut inbox = self.inbox();
        if inbox.closed {
            return false;
        }
        let first = inbox.calls.is_empty() && inbox.wakes.is_empty();
        add(&mut inbox);
        drop(inbox);
        if let (true, Some(event)) = (first, &self.shared.event) {
            event.notify();
        }
        true
    }

    /// What came since the last time.
    pub(crate) fn take(&self) -> (Vec<Call>, Vec<u64>) {
        let mut inbox = self.inbox();
        (std::mem::take(&mut inbox.calls), std::mem::take(&mut inbox.wakes))
    }

    pub(crate) fn has_any(&self) -> bool {
        let inbox = self.inbox();
        !inbox.calls.is_empty() || !inbox.wakes.is_empty()
    }

    /// Makes the runtime known to wakers, under an id that no other has until [`Self::unregister`]. Ids of runtimes that
    /// are gone come around after 65,536 (simulations make many); late wakers of theirs are harmless.
    pub(crate) fn register(&self) -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let mut runtimes = runtimes();
        let runtimes = runtimes.get_or_insert_default();
        assert!(runtimes.len() <= usize::from(u16::MAX), "65,536 runtimes at once");
        loop {
            let id = NEXT.fetch_add(1, Ordering::Relaxed);
            if let Entry::Vacant(free) = runtimes.entry(id) {
                free.insert(self.clone());
                return id;
            }
        }
    }

    pub(crate) fn unregister(&self, id: u16) {
        if let Some(runtimes) = &mut *runtimes() {
            runtimes.remove(&id);
        }
        let mut inbox = self.inbox();
        inbox.closed = true;
        // Dropped after the lock is released: a closure may own something that calls back here.
        let calls = std::mem::take(&mut inbox.calls);
        drop(inbox);
        drop(calls);
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes a task of a runtime on another thread; without effect if that runtime is gone.
pub(crate) fn wake(runtime: u16, task: u64) {
    let remote = runtimes().as_ref().and_then(|runtimes| runtimes.get(&runtime).cloned());
    if let Some(remote) = remote {
        remote.post(|inbox| inbox.wakes.push(task));
    }
}

fn runtimes() -> MutexGuard<'static, Option<HashMap<u16, Remote>>> {
    RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An eventfd(2).
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> Result<Self, Errno> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(Errno::last());
        }
        // SAFETY: the descriptor was just created and belongs to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn notify(&self) {
        let one = 1_u64.to_ne_bytes();
        // A full counter (EAGAIN cannot happen on a blocking eventfd before 2^64 calls) would mean that the reader
        // has been notified already.
        // SAFETY: eight bytes that outlive the call.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_runtimes_that_live_have_the_same_id() {
        let long_lived = Remote::new(None);
        let id = long_lived.register();
        for _ in 0..70_000 {
            let other = Remote::new(None);
            let others = other.register();
            assert_ne!(others, id);
            other.unregister(others);
        }
        wake(id, 7);
        assert_eq!(long_lived.take().1, [7], "it is still known");
        long_lived.unregister(id);
    }
}
