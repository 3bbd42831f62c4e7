//! Accepting on one address of a listener: as fast as the kernel can while there is room, one by one near a limit, not
//! at all at it.
//!
//! Whoever is not accepted waits in the kernel's queue. Whoever may not use the listener (see `access`) is reset at once,
//! before it costs a task or a session. Running out of descriptors is a normal, counted state: accepting backs off and
//! resumes by itself. Called by `worker`.

use super::serve::serve;
use crate::state::{Session, WorkerState};
use crate::unrouted::displace_camper;
use ringway_core::gate::Permit;
use ringway_core::reason::ShedReason;
use ringway_core::session::ClientGuard;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Errno, Handle, Listener, Sleep, Stream, TaskId};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A burst may bring as many connections as the kernel queues before accepting can be stopped. With less room than
/// this, connections are accepted one by one.
const BURST_MAX: u32 = 4_096;
/// How soon is looked again after a limit was reached. Short enough that nobody notices, long enough to cost nothing.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the worker is told to stop, then takes what the kernel has queued, and closes the listener.
pub async fn accept(worker: Rc<WorkerState>, index: usize, listener: Listener) {
    let mut acceptor = Acceptor {
        worker,
        index,
        listener,
    };
    while !acceptor.worker.orders.is_stopping() {
        let free = acceptor.worker.gates.free(index);
        if free == 0 {
            displace_camper(&acceptor.worker, index);
            acceptor.pause(ShedReason::MaxConnections).await;
        } else if let Err(errno) = acceptor.accept_while_room(free > BURST_MAX).await {
            if errno == Errno::CANCELED || errno == Errno::AGAIN {
                if active(Fault::AcceptNotResumed) {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            tracing::warn!(
                listener = &*acceptor.worker.snapshot.model.listeners[index].name,
                "accepting pauses: {errno}; clients wait in the kernel's queue, open connections go on"
            );
            acceptor.pause(ShedReason::Descriptors).await;
        }
    }
    acceptor.take_queued().await;
}

impl Drop for Acceptor {
    /// Also when it panics. Its task is still in the table now: the main task looks in the turn after this one.
    fn drop(&mut self) {
        self.worker.wake_main();
    }
}

struct Acceptor {
    worker: Rc<WorkerState>,
    index: usize,
    listener: Listener,
}

impl Acceptor {
    /// Accepts until an error, a limit or an order to stop. `AGAIN`: look at the room again.
    async fn accept_while_room(&mut self, many: bool) -> Result<(), Errno> {
        let mut accept = if many {
            self.listener.accept()
        } else {
            self.listener.accept_one()
        };
        let mut stopping = false;
        loop {
            let crowded = many && self.worker.gates.free(self.index) <= BURST_MAX;
            if !stopping && (crowded || self.worker.orders.is_stopping()) {
                accept.stop();
                stopping = true;
            }
            let next = poll_fn(|context| {
                if !stopping && self.worker.orders.is_stopping() {
                    return Poll::Ready(None);
                }
                accept.poll_next(context).map(Some)
            });
            match next.await {
                None => {}
                Some(Ok(stream)) => self.admit(stream).await,
                Some(Err(errno)) => return Err(errno),
            }
        }
    }

    /// Starts to serve a connection, unless its client may not have it; waits for room if other workers took what was left
    /// meanwhile.
    async fn admit(&self, client: Stream) {
        let Ok(guard) = self.worker.admit_peer(self.index, &client) else {
            return client.abort();
        };
        let permit = loop {
            match self.worker.gates.admit(self.index) {
                Some(permit) => break permit,
                None if self.worker.orders.is_resetting() => return client.abort(),
                None => self.pause(ShedReason::MaxConnections).await,
            }
        };
        self.spawn(client, permit, guard);
    }

    fn spawn(&self, client: Stream, permit: Permit, guard: Option<ClientGuard>) {
        // Booked before its task is polled for the first time: the worker must not be taken for idle meanwhile.
        let session = Session::begin(&self.worker, self.index);
        session.keep(guard);
        self.worker.handle.spawn(serve(session, client, permit));
    }

    async fn pause(&self, reason: ShedReason) {
        self.worker.stats.listeners[self.index].shed[reason.index()].add(1);
        Pause {
            sleep: self.worker.handle.sleep(PAUSE),
            worker: &self.worker,
            resetting: self.worker.orders.is_resetting(),
        }
        .await;
    }

    /// The listener is about to close; what the kernel has queued would be reset.
    async fn take_queued(&mut self) {
        loop {
            match self.listener.accept_queued() {
                Ok(client) => self.admit(client).await,
                Err(Errno::AGAIN) => return,
                Err(errno) if errno.is_local() && !self.worker.orders.is_resetting() => {
                    self.pause(ShedReason::Descriptors).await;
                }
                Err(_) => return,
            }
        }
    }
}

/// A pause that ends early when what is left is to be reset.
struct Pause<'a> {
    sleep: Sleep,
    worker: &'a WorkerState,
    resetting: bool,
}

impl Future for Pause<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.resetting && self.worker.orders.is_resetting() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.sleep).poll(context)
    }
}

/// Serves every address of every listener until told to stop and the last connection has ended. The main task of a
/// worker; `listeners` is parallel to the model's listeners and their addresses.
pub async fn accept_all(worker: Rc<WorkerState>, handle: Handle, listeners: Vec<Vec<Listener>>) {
    let mut acceptors = Vec::new();
    for (index, addresses) in listeners.into_iter().enumerate() {
        for listener in addresses {
            acceptors.push(handle.spawn(accept(worker.clone(), index, listener)));
        }
    }
    until_ended(worker, handle, acceptors).await;
}

/// Ends when the worker was told to stop, each of `acceptors` (the tasks of its listeners) has ended and so has the last
/// connection.
pub(crate) async fn until_ended(worker: Rc<WorkerState>, handle: Handle, acceptors: Vec<TaskId>) {
    poll_fn(|context| {
        worker.set_main(context.waker());
        let accepting = acceptors.iter().filter(|&&acceptor| handle.is_alive(acceptor)).count();
        if !worker.orders.is_stopping() {
            // A listener without its task would be deaf; with the worker's end the process is known to need a restart.
            assert!(
                accepting == acceptors.len(),
                "a task that accepts has ended: the worker ends too"
            );
            return Poll::Pending;
        }
        if accepting == 0 && worker.connections() == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
