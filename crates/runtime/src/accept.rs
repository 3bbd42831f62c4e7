//! Listening sockets of a worker, and accepting from them.

use crate::Inner;
use crate::driver::Fd;
use crate::errno::Errno;
use crate::ops::Stream;
use crate::reactor::SocketSlot;
use crate::slab::Token;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A listening socket of this worker.
pub struct Listener {
    runtime: Rc<Inner>,
    socket: SocketSlot,
}

impl Listener {
    pub(crate) fn new(runtime: Rc<Inner>, fd: Fd) -> Self {
        let socket = runtime.reactor.borrow_mut().adopt(fd);
        Self { runtime, socket }
    }

    /// Starts to accept, again and again until it fails or is dropped.
    pub fn accept(&self) -> Accept {
        self.start_accept(false)
    }

    /// Starts to accept one connection; then [`Accept::poll_next`] says EAGAIN. For listeners near a limit: nothing is
    /// accepted that there is no room for.
    pub fn accept_one(&self) -> Accept {
        self.start_accept(true)
    }

    fn start_accept(&self, once: bool) -> Accept {
        let token = self.runtime.reactor.borrow_mut().accept(&self.socket, once);
        Accept {
            runtime: self.runtime.clone(),
            token,
        }
    }

    /// Takes one connection that the kernel has queued, without waiting. For the end of a listener: closing it would
    /// reset what is queued. EAGAIN: nothing is queued.
    ///
    /// # Errors
    /// The error of accept4(2).
    pub fn accept_queued(&self) -> Result<Stream, Errno> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        let accepted = reactor.driver.accept_queued(fd)?;
        drop(reactor);
        Ok(Stream::new(self.runtime.clone(), accepted))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.runtime.reactor.borrow_mut().close(&self.socket, false);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.socket).finish()
    }
}

/// Accepting under way. Connections that it gathered and nobody took are reset when it is dropped: use
/// [`Accept::stop`] to keep them.
pub struct Accept {
    runtime: Rc<Inner>,
    token: Token,
}

impl Accept {
    /// The next connection, or the error that ended accepting; start a new [`Accept`] after an error.
    ///
    /// # Errors
    /// EMFILE and ENFILE when descriptors ran out; ECANCELED after `stop`; EAGAIN behind the one of `accept_one`.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Stream, Errno>> {
        let accepted = self
            .runtime
            .reactor
            .borrow_mut()
            .poll_accept(self.token, context.waker());
        match accepted {
            Some(Ok(fd)) => Poll::Ready(Ok(Stream::new(self.runtime.clone(), fd))),
            Some(Err(errno)) => Poll::Ready(Err(errno)),
            None => Poll::Pending,
        }
    }

    /// Cancels; connections accepted meanwhile still come, then ECANCELED.
    pub fn stop(&mut self) {
        self.runtime.reactor.borrow_mut().cancel(self.token);
    }
}

impl Drop for Accept {
    fn drop(&mut self) {
        self.runtime.reactor.borrow_mut().abandon(self.token);
    }
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Accept").field(&self.token).finish()
    }
}
