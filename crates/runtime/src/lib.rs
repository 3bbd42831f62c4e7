//! The per-core completion runtime: a single-threaded executor on one io_uring, or on a simulated network.
//!
//! Owns every descriptor and buffer until the kernel's last completion for it. It knows operations, tasks and timers,
//! and nothing of what the product does with them. Used by the data plane; `control` uses [`Capabilities`],
//! [`Remote`], [`routes`] and the free functions of [`socket`].
//!
//! This is the only crate with `unsafe` code, in these modules: `capabilities` (one trial entry), `driver::uring` (the
//! ring), `datagram_socket` (options that socket2 lacks), `memory` (mappings), `buffer_ring` (buffers as slices), `remote` (eventfd), `socket` (options that socket2 lacks),
//! `sys` (system calls without a wrapper), `thread` (affinity) and `waker` (RawWaker).

mod accept;
mod address;
mod buffer_ring;
mod capabilities;
mod datagram;
mod datagram_socket;
mod datagrams;
mod driver;
mod errno;
pub mod faults;
mod memory;
mod ops;
mod reactor;
mod remote;
pub mod routes;
mod slab;
pub mod socket;
mod sys;
mod tasks;
pub mod thread;
mod time;
mod timer;
mod waker;
mod wheel;

#[cfg(feature = "sim")]
pub use crate::driver::sim;

pub use crate::accept::{Accept, Listener};
pub use crate::address::{Address, Source};
pub use crate::buffer_ring::{BUFFER_BYTES_MAX, BUFFERS_MAX, BUFFERS_MIN, BufferOptions, Leases};
pub use crate::capabilities::{Capabilities, Unavailable};
pub use crate::datagram::{Arrived, DatagramOptions, Departure, Event, PREFIX_MAX, Prefix};
pub use crate::datagram_socket::{bind_datagrams, is_own_address, probe_datagram_address_free, receive_buffer};
pub use crate::datagrams::{DatagramSocket, Datagrams, TRAIN_MAX};
pub use crate::errno::Errno;
pub use crate::ops::{Connect, Once, Pipe, Receive, Send, SendOutcome, Stream, Unsent};
pub use crate::remote::Remote;
pub use crate::socket::{Keepalive, ListenOptions, SendRoom, SocketOptions, TcpInfo};
pub use crate::tasks::TaskId;
pub use crate::time::Time;
pub use crate::timer::Sleep;

use crate::buffer_ring::BufferRing;
use crate::driver::{Driver, Fd, Wait};
use crate::reactor::Reactor;
use crate::remote::EventFd;
use crate::tasks::Tasks;
use crate::waker::ReadyQueue;
use crate::wheel::Wheel;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long a runtime that ends waits for the kernel's last completions.
const RETIRE_MAX: Duration = Duration::from_secs(5);
/// When so many tasks fewer exist than before, freed memory is given back to the system.
const TRIM_AFTER_TASKS: usize = 128;
/// How often that is looked at, at most.
const TRIM_INTERVAL: Duration = Duration::from_secs(2);

/// A runtime, on the thread that created it. Dropping it ends its tasks, cancels what is in flight and waits for it.
pub struct Runtime {
    handle: Handle,
}

/// The face of a runtime towards its tasks; cheap to clone, not to be sent to other threads.
#[derive(Clone)]
pub struct Handle(Rc<Inner>);

struct Inner {
    id: u16,
    reactor: RefCell<Reactor>,
    buffer_ring: Rc<BufferRing>,
    datagram_ring: Option<Rc<BufferRing>>,
    tasks: Tasks,
    wheel: RefCell<Wheel>,
    now: Cell<Time>,
    remote: Remote,
    turns: Cell<u64>,
    trim: Cell<Trim>,
}

/// When to give memory back.
#[derive(Clone, Copy, Default)]
struct Trim {
    /// Most tasks since memory was given back.
    peak: usize,
    /// Tasks when it was looked at last.
    seen: usize,
    looked: Time,
}

/// What a runtime counted so far, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Loop turns.
    pub turns: u64,
    /// Calls of io_uring_enter(2): one per turn, and one for each time a burst overfilled the submission queue.
    pub enters: u64,
    /// Other system calls on sockets.
    pub direct_calls: u64,
    /// Completions.
    pub completions: u64,
    /// Times that the completion queue overflowed (nothing is lost, but it is slow).
    pub overflows: u64,
    /// Receives that found no buffer and had to wait their turn.
    pub buffers_dry: u64,
    /// Tasks that panicked and were contained.
    pub tasks_panicked: u64,
    /// Receives that wait for buffers now.
    pub readers_starved: u64,
    /// Buffers lent out now.
    pub buffers_out: u64,
    /// Tasks that exist now.
    pub tasks: u64,
    /// Sockets that are open now.
    pub sockets: u64,
    /// Operations in the in-flight table now.
    pub operations: u64,
    /// Pipes in use now.
    pub pipes: u64,
}

impl Runtime {
    /// A runtime on io_uring, for the calling thread.
    ///
    /// # Errors
    /// One sentence that names cause and cure.
    pub fn new(capabilities: &Capabilities, buffers: BufferOptions) -> Result<Self, Unavailable> {
        Self::on_ring(capabilities, buffers, None)
    }

    /// The same with so many buffers for datagrams, a power of two; each takes 64 KiB once it is used.
    ///
    /// # Errors
    /// One sentence that names cause and cure.
    pub fn with_datagrams(
        capabilities: &Capabilities,
        buffers: BufferOptions,
        datagram_buffers: u16,
    ) -> Result<Self, Unavailable> {
        Self::on_ring(capabilities, buffers, Some(datagram_buffers))
    }

    fn on_ring(
        capabilities: &Capabilities,
        buffers: BufferOptions,
        datagram_buffers: Option<u16>,
    ) -> Result<Self, Unavailable> {
        let event = EventFd::new().map_err(|errno| Unavailable::new("eventfd", errno))?;
        let event = Arc::new(event);
        let driver = driver::uring::Uring::new(capabilities, buffers, datagram_buffers, event.clone())?;
        let runtime = Self::with_driver(Driver::Uring(Box::new(driver)), Some(event));
        runtime.handle.0.reactor.borrow_mut().watch_notifications();
        Ok(runtime)
    }

    /// A runtime in a simulated network.
    #[cfg(feature = "sim")]
    pub fn simulated(driver: sim::Sim) -> Self {
        Self::with_driver(Driver::Sim(driver), None)
    }

    fn with_driver(driver: Driver, event: Option<Arc<EventFd>>) -> Self {
        let ready = Rc::new(ReadyQueue::default());
        let remote = Remote::new(event);
        let id = remote.register();
        waker::register(id, &ready);
        let now = driver.now();
        let mut wheel = Wheel::new();
        wheel.expire(now);
        let buffer_ring = driver.buffer_ring().clone();
        let datagram_ring = driver.datagram_ring().cloned();
        Self {
            handle: Handle(Rc::new(Inner {
                id,
                reactor: RefCell::new(Reactor::new(driver)),
                buffer_ring,
                datagram_ring,
                tasks: Tasks::new(id, ready),
                wheel: RefCell::new(wheel),
                now: Cell::new(now),
                remote,
                turns: Cell::new(0),
                trim: Cell::new(Trim::default()),
            })),
        }
    }

    /// What tasks use.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs until `main` has ended; other tasks go on until then and are dropped with the runtime. `before_wait` is
    /// called once per turn, for bookkeeping: when tasks have done what they could, and nothing may happen for long.
    pub fn run(&self, main: impl Future<Output = ()> + 'static, mut before_wait: impl FnMut(&Handle)) {
        let main = self.handle.spawn(main);
        while self.handle.0.tasks.exists(main) {
            self.turn_for(Some(main), true, &mut before_wait);
        }
    }

    /// One turn: polls the tasks that are ready, submits what they want, waits for completions (if `may_wait` and
    /// nothing is ready), handles them, fires timers.
    pub fn turn(&self, may_wait: bool) {
        self.turn_for(None, may_wait, &mut |_| {});
    }

    /// A turn that does not wait if `main` ends in it: there may be nothing left to wait for.
    fn turn_for(&self, main: Option<TaskId>, may_wait: bool, before_wait: &mut dyn FnMut(&Handle)) {
        let inner = &*self.handle.0;
        inner.tasks.run_ready();
        before_wait(&self.handle);
        let may_wait = may_wait && main.is_none_or(|main| inner.tasks.exists(main));
        let wait = if may_wait { inner.wait() } else { Wait::No };
        let notified = {
            let mut reactor = inner.reactor.borrow_mut();
            reactor.turn(wait);
            inner.now.set(reactor.driver.now());
            std::mem::take(&mut reactor.notified)
        };
        inner.turns.set(inner.turns.get() + 1);
        if notified || inner.is_simulated() {
            self.handle_calls();
        }
        inner.wheel.borrow_mut().expire(inner.now.get());
        inner.trim_if_quiet();
    }

    /// `true` if a turn would find something to do at once.
    pub fn is_ready(&self) -> bool {
        self.handle.0.tasks.ready.len() > 0 || self.handle.0.remote.has_any()
    }

    /// When the next timer is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.handle.0.wheel.borrow().next_deadline()
    }

    fn handle_calls(&self) {
        let inner = &*self.handle.0;
        let (calls, wakes) = inner.remote.take();
        for bits in wakes {
            inner.tasks.ready.push_bits(bits);
        }
        for call in calls {
            inner.tasks.contain(|| call(&self.handle));
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let inner = &*self.handle.0;
        inner.tasks.end_all();
        inner.remote.unregister(inner.id);
        waker::unregister(inner.id);
        let mut reactor = inner.reactor.borrow_mut();
        reactor.end();
        let deadline = reactor.driver.now() + RETIRE_MAX;
        while reactor.in_flight() > 0 && reactor.driver.now() < deadline {
            reactor.turn(Wait::For(Duration::from_millis(10)));
        }
        let in_flight = reactor.in_flight();
        reactor.driver.retire(in_flight);
    }
}

impl Inner {
    fn wait(&self) -> Wait {
        if self.tasks.ready.len() > 0 {
            return Wait::No;
        }
        let timer = self.wheel.borrow().next_deadline();
        let trim = self.trim.get();
        // An idle worker comes back once more to give memory back.
        let spare = trim.is_due(self.tasks.len()) || self.has_spare();
        let trim = (spare && !self.is_simulated()).then_some(trim.looked + TRIM_INTERVAL);
        match timer.into_iter().chain(trim).min() {
            // The clock, not the turn's time: what tasks took since must not make timers late.
            Some(deadline) => Wait::For(deadline.since(self.reactor.borrow().driver.now())),
            None => Wait::Forever,
        }
    }

    /// Buffers beyond what is usually needed, none in use.
    fn has_spare_buffers(&self) -> bool {
        self.rings().any(|ring| ring.has_spare_memory())
    }

    fn rings(&self) -> impl Iterator<Item = &Rc<BufferRing>> {
        std::iter::once(&self.buffer_ring).chain(&self.datagram_ring)
    }

    /// Memory or pipes that nobody uses.
    fn has_spare(&self) -> bool {
        self.has_spare_buffers() || self.reactor.borrow().has_spare_pipes()
    }

    fn is_simulated(&self) -> bool {
        !matches!(self.reactor.borrow().driver, Driver::Uring(_))
    }

    /// Gives memory back when many tasks fewer exist than at the peak since the last time.
    fn trim_if_quiet(&self) {
        let mut trim = self.trim.get();
        let tasks = self.tasks.len();
        trim.peak = trim.peak.max(tasks);
        let now = self.now.get();
        let wasteful = trim.is_due(tasks) || self.has_spare_buffers();
        if (wasteful || self.has_spare()) && now.since(trim.looked) >= TRIM_INTERVAL {
            // Looked at twice before it is done: tasks that end in a burst are all gone by then.
            if wasteful && tasks <= trim.seen {
                sys::trim_heap();
                self.rings().for_each(|ring| ring.give_back());
                trim.peak = tasks;
            }
            trim.seen = tasks;
            trim.looked = now;
            // Whoever wants one makes it again: once in an interval at most.
            self.reactor.borrow_mut().close_spare_pipes();
        }
        self.trim.set(trim);
    }
}

impl Trim {
    const fn is_due(self, tasks: usize) -> bool {
        tasks + TRIM_AFTER_TASKS <= self.peak
    }
}

impl Handle {
    /// The time of this turn.
    pub fn now(&self) -> Time {
        self.0.now.get()
    }

    /// What this thread has cost so far: CPU time in the kernel and outside.
    pub fn cpu_time(&self) -> Duration {
        self.0.reactor.borrow_mut().driver.cpu_time()
    }

    /// Starts a task.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> TaskId {
        self.0.tasks.spawn(future)
    }

    /// Polls a task in this turn or the next, whatever it waits for.
    pub fn wake(&self, task: TaskId) {
        self.0.tasks.wake(task);
    }

    /// Whether a task has not ended yet.
    pub fn is_alive(&self, task: TaskId) -> bool {
        self.0.tasks.exists(task)
    }

    /// Polls every task in the next turn. For rare events that concern everybody.
    pub fn wake_all(&self) {
        self.0.tasks.wake_all();
    }

    /// Resolves at `deadline`.
    pub fn sleep_until(&self, deadline: Time) -> Sleep {
        Sleep::new(self.0.clone(), deadline)
    }

    /// Resolves after `duration`.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Starts to connect, from `source` if given.
    ///
    /// # Errors
    /// What kept the socket from being made: descriptors, an address that is not ours, a foreign one without the
    /// capability (EPERM).
    pub fn connect(
        &self,
        address: &Address,
        source: Option<Source>,
        options: &SocketOptions,
    ) -> Result<Connect, Errno> {
        Connect::start(self, address, source, options)
    }

    /// Takes over a listening socket that was opened by [`socket::listen`].
    pub fn adopt_listener(&self, socket: OwnedFd) -> Listener {
        Listener::new(self.0.clone(), Fd(socket.into_raw_fd()))
    }

    /// Opens a listening socket in the simulated network.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    #[cfg(feature = "sim")]
    pub fn listen(&self, address: &Address, options: &ListenOptions) -> Result<(Listener, Address), Errno> {
        let (fd, bound) = self.0.reactor.borrow_mut().driver.listen(address, options)?;
        Ok((Listener::new(self.0.clone(), fd), bound))
    }

    /// A queue for datagrams. Panics in a runtime without buffers for them.
    pub fn datagrams(&self) -> Datagrams {
        assert!(
            self.0.datagram_ring.is_some(),
            "a runtime without buffers for datagrams"
        );
        Datagrams::new(self)
    }

    /// An empty datagram, to be sent.
    pub fn empty_datagram(&self) -> Leases {
        let ring = self.0.datagram_ring.as_ref().expect("buffers for datagrams");
        Leases::new(ring, buffer_ring::Links::EMPTY)
    }

    /// For other threads.
    pub fn remote(&self) -> Remote {
        self.0.remote.clone()
    }

    /// An empty pipe, unless `max` are in use or the system has none to give.
    pub fn pipe(&self, max: u32) -> Option<Pipe> {
        Pipe::lease(self, max)
    }

    /// An empty sequence of leases.
    pub fn no_leases(&self) -> Leases {
        Leases::new(&self.0.buffer_ring, buffer_ring::Links::EMPTY)
    }

    /// Buffers that are not lent out, and all there are.
    pub fn buffers(&self) -> (u16, u16) {
        (self.0.buffer_ring.available(), self.0.buffer_ring.count())
    }

    /// The most bytes of one completion of a receive that goes on; one that is as long belongs to a stream.
    pub fn bundle_max(&self) -> u32 {
        self.0.buffer_ring.bundle_max()
    }

    /// Bytes of one buffer.
    pub fn buffer_size(&self) -> u32 {
        self.0.buffer_ring.buffer_size()
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        let inner = &*self.0;
        let reactor = inner.reactor.borrow();
        let driver = reactor.driver.stats();
        Stats {
            turns: inner.turns.get(),
            enters: driver.enters,
            direct_calls: driver.direct_calls,
            completions: reactor.reaped,
            overflows: driver.overflows,
            buffers_dry: reactor.dry,
            tasks_panicked: inner.tasks.panicked(),
            readers_starved: reactor.starved() as u64,
            buffers_out: inner.rings().map(|ring| u64::from(ring.lent())).sum(),
            tasks: inner.tasks.len() as u64,
            sockets: reactor.sockets() as u64,
            operations: reactor.operations() as u64,
            pipes: u64::from(reactor.pipes()),
        }
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("id", &self.handle.0.id)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("id", &self.0.id).finish_non_exhaustive()
    }
}
