//! A network in memory, with virtual time and seeded faults, that stands in for the kernel.
//!
//! Several runtimes on one thread share one [`Network`]; the code above the driver seam does not know the difference.
//! Equal seeds and equal calls give equal histories, so that every failure can be replayed. Semantics follow what was
//! measured of io_uring and TCP, in particular: sends that never wait, receives that end without error, a ring that
//! answers ENOBUFS at once when it is dry, cancels that take effect later, an error that only the first who asks
//! learns, resets that overtake bytes under way. Nothing here decides what a runtime does; nothing is used by the
//! shipped binary.

mod datagrams;
mod kernel;
mod operations;
mod peers;
mod pipes;
mod random;
mod settings;
mod sockets;
#[cfg(test)]
mod tests;
mod wire;

pub use datagrams::{DatagramPeer, Letter};
pub use peers::{PeerListener, Read, Welcome};
pub use random::Random;
pub use settings::{Chances, Seen};

use self::kernel::Kernel;
use self::operations::{Posted, Ring, Submission};
use crate::buffer_ring::{BufferOptions, BufferRing, DATAGRAM_FIRST, Links};
use crate::datagram::{Departure, Prefix};
use crate::driver::{Completion, DriverStats, Fd, Operation, SEND_PIECES_MAX, Wait};
use crate::slab::Token;
use crate::time::Time;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// Names a scripted client or backend; valid for the life of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(usize);

/// A simulated network: what runtimes and actors share. Cheap to clone.
#[derive(Clone)]
pub struct Network(Rc<RefCell<Kernel>>);

/// The simulated kernel as one runtime sees it; give it to `Runtime::simulated`.
pub struct Sim {
    network: Network,
    ring: usize,
    buffer_ring: Rc<BufferRing>,
    datagram_ring: Option<Rc<BufferRing>>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("ring", &self.ring).finish_non_exhaustive()
    }
}

impl Network {
    /// An empty network; everything that happens by chance follows from `seed`.
    pub fn new(seed: u64, chances: Chances) -> Self {
        Self(Rc::new(RefCell::new(Kernel::new(seed, chances))))
    }

    /// A driver for one more runtime, with buffers of its own. Panics if memory for them cannot be mapped.
    pub fn driver(&self, buffers: BufferOptions) -> Sim {
        self.driver_with(buffers, None)
    }

    /// The same for a runtime that receives datagrams, with so many buffers for them.
    pub fn driver_for_datagrams(&self, buffers: BufferOptions, datagrams: u16) -> Sim {
        self.driver_with(buffers, Some(datagrams))
    }

    fn driver_with(&self, buffers: BufferOptions, datagrams: Option<u16>) -> Sim {
        let buffer_ring = Rc::new(BufferRing::shared(buffers).expect("memory for a simulation"));
        let datagram_ring =
            datagrams.map(|count| Rc::new(BufferRing::for_datagrams(count).expect("memory for a simulation")));
        let mut kernel = self.0.borrow_mut();
        kernel.rings.push(Ring::new(buffer_ring.clone(), datagram_ring.clone()));
        Sim {
            network: self.clone(),
            ring: kernel.rings.len() - 1,
            buffer_ring,
            datagram_ring,
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Time {
        self.0.borrow().now
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        self.advance_to(self.now() + duration);
    }

    /// Lets time pass until `time`, unless it has.
    pub fn advance_to(&self, time: Time) {
        let mut kernel = self.0.borrow_mut();
        while let Some(next) = kernel.next_event().filter(|next| *next <= time) {
            kernel.now = next.max(kernel.now);
            kernel.pump();
        }
        kernel.now = time.max(kernel.now);
    }

    /// When something happens next by itself; may be now.
    pub fn next_event(&self) -> Option<Time> {
        let kernel = self.0.borrow();
        let operations = kernel.rings.iter().filter_map(Ring::next_due);
        operations.chain(kernel.next_event()).min()
    }

    /// With `true` no turn of any runtime waits: whoever interleaves several runtimes moves the clock himself. With
    /// `false` (as at first) a turn that may wait moves it to whatever its runtime waits for.
    pub fn hold_clock(&self, hold: bool) {
        self.0.borrow_mut().hold_clock = hold;
    }

    /// Every runtime's last turn would have waited.
    pub fn is_idle(&self) -> bool {
        self.0.borrow().rings.iter().all(|ring| ring.idle)
    }

    /// Descriptors that may be open at the same time, over all runtimes, as RLIMIT_NOFILE.
    pub fn limit_descriptors(&self, max: usize) {
        self.0.borrow_mut().descriptors_max = max;
    }

    /// Changes the temper from now on; buffers of existing connections keep their size.
    pub fn set_chances(&self, chances: Chances) {
        self.0.borrow_mut().chances = chances;
    }

    /// What has happened so far.
    pub fn seen(&self) -> Seen {
        self.0.borrow().seen
    }

    /// The first rule of the kernel that was broken, if any: each is reported by a panic as well, but a panic may have
    /// been contained by a runtime.
    pub fn violation(&self) -> Option<String> {
        self.0.borrow().violation.clone()
    }

    /// Checks that the runtimes gave everything back: descriptors, operations, buffers.
    ///
    /// # Errors
    /// What is left.
    pub fn check_empty(&self) -> Result<(), String> {
        let kernel = self.0.borrow();
        if let Some(fd) = kernel.descriptors.iter().position(Option::is_some) {
            let object = kernel.descriptors[fd].as_ref().map(|descriptor| descriptor.object);
            return Err(format!(
                "{} descriptors are open, the first is {fd}: {object:?}",
                kernel.descriptors_open
            ));
        }
        for (n, ring) in kernel.rings.iter().enumerate() {
            let datagrams = ring.datagram_ring.as_ref().map_or(0, |ring| ring.lent());
            let (operations, buffers) = (ring.in_flight(), ring.buffer_ring.lent() + datagrams);
            if operations > 0 || buffers > 0 {
                return Err(format!(
                    "runtime {n} left {operations} operations and {buffers} buffers"
                ));
            }
        }
        Ok(())
    }
}

impl Sim {
    pub(crate) const fn buffer_ring(&self) -> &Rc<BufferRing> {
        &self.buffer_ring
    }

    pub(crate) const fn datagram_ring(&self) -> Option<&Rc<BufferRing>> {
        self.datagram_ring.as_ref()
    }

    pub(crate) fn stats(&self) -> DriverStats {
        let kernel = self.network.0.borrow();
        let ring = &kernel.rings[self.ring];
        DriverStats {
            enters: ring.turns,
            direct_calls: ring.direct_calls,
            overflows: 0,
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.network.now()
    }

    pub(crate) fn start(&mut self, operation: Operation<'_>, token: Token) {
        let (fd, submission) = match operation {
            Operation::Accept { fd, once } => (fd.0, Submission::Accept { fd: fd.0, once }),
            Operation::Receive { fd, once } => (fd.0, Submission::Receive { fd: fd.0, once }),
            Operation::Connect { fd, address } => (
                fd.0,
                Submission::Connect {
                    fd: fd.0,
                    address: address.clone(),
                },
            ),
            Operation::Send { fd, links, report } => {
                let bytes = self
                    .buffer_ring
                    .slices(links)
                    .take(SEND_PIECES_MAX)
                    .flatten()
                    .copied()
                    .collect();
                let buffers = self.buffer_ring.buffers(links).collect();
                (
                    fd.0,
                    Submission::Send {
                        fd: fd.0,
                        bytes,
                        buffers,
                        report,
                    },
                )
            }
            Operation::SendBytes { fd, bytes, report } => (
                fd.0,
                Submission::Send {
                    fd: fd.0,
                    bytes: bytes.to_vec(),
                    buffers: Vec::new(),
                    report,
                },
            ),
            Operation::ReceiveDatagrams { fd } => (fd.0, Submission::ReceiveDatagrams { fd: fd.0 }),
            Operation::SendDatagram {
                fd,
                is_ipv6: _,
                prefix,
                links,
                departure,
            } => return self.send_datagrams(fd, prefix, links, *departure, token),
            Operation::Writable { fd } => (fd.0, Submission::Writable { fd: fd.0 }),
            Operation::Readable { fd } => (fd.0, Submission::Readable { fd: fd.0 }),
            // No other threads exist.
            Operation::Notified => return,
            Operation::Cancel { target } => (-1, Submission::Cancel { target: target.pack() }),
        };
        self.submit(fd, token, submission);
    }

    /// A datagram, a train, or the datagrams of a train one by one.
    fn send_datagrams(
        &self,
        fd: Fd,
        prefix: Option<Prefix<'_>>,
        links: &Links,
        mut departure: Departure,
        token: Token,
    ) {
        let ring = self.datagram_ring.as_ref().expect("buffers for datagrams");
        let bytes: Vec<u8> = ring.slices(links).flatten().copied().collect();
        let buffer = ring.buffers(links).next();
        let each = departure.apart();
        departure.segment = departure.segment.filter(|_| !departure.apart);
        let mut front = prefix.map_or(&[][..], |prefix| prefix.bytes);
        let datagram = |front: &[u8], bytes: &[u8]| Submission::SendDatagram {
            fd: fd.0,
            bytes: [front, bytes].concat(),
            buffer,
            departure,
        };
        let Some(each) = each else {
            return self.submit(fd.0, token, datagram(front, &bytes));
        };
        for piece in departure.pieces(each, std::iter::once(&bytes[..])) {
            self.submit(fd.0, token, datagram(front, piece));
            if prefix.is_some_and(|prefix| !prefix.each) {
                front = &[];
            }
        }
    }

    fn submit(&self, fd: i32, token: Token, submission: Submission) {
        let mut kernel = self.network.0.borrow_mut();
        if fd >= 0 {
            let Some(descriptor) = kernel.descriptor(self.ring, fd, "an operation was started") else {
                return;
            };
            descriptor.in_flight += 1;
        }
        kernel.rings[self.ring].submitted.push((token.pack(), submission));
    }

    pub(crate) fn turn(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        self.buffer_ring.publish();
        self.datagram_ring.iter().for_each(|ring| {
            ring.publish();
        });
        let mut kernel = self.network.0.borrow_mut();
        kernel.turn(self.ring, wait);
        let posted = std::mem::take(&mut kernel.rings[self.ring].posted);
        let first = completions.len();
        // In the order of posting and before anything is published again: a bundle names its first buffer only.
        completions.extend(posted.into_iter().map(
            |Posted {
                 op,
                 result,
                 more,
                 buffer,
             }| {
                let is_datagram = buffer.is_some_and(|buffer| buffer >= DATAGRAM_FIRST);
                let ring = match &self.datagram_ring {
                    Some(ring) if is_datagram => ring,
                    _ => &self.buffer_ring,
                };
                Completion {
                    token: Token::unpack(op),
                    result,
                    more,
                    links: buffer.map_or(Links::EMPTY, |buffer| ring.received(buffer, result.unsigned_abs())),
                    is_datagram,
                }
            },
        ));
        let shuffled = kernel.chances.shuffled;
        if kernel.random.chance(shuffled) {
            shuffle(&mut kernel.random, &mut completions[first..]);
        }
    }
}

/// Any order of operations, but each operation's own completions stay in order.
fn shuffle(random: &mut Random, completions: &mut [Completion]) {
    let mut order: Vec<Token> = completions.iter().map(|completion| completion.token).collect();
    random.shuffle(&mut order);
    for place in 0..completions.len() {
        let next = completions[place..]
            .iter()
            .position(|completion| completion.token == order[place]);
        if let Some(next) = next {
            completions[place..=place + next].rotate_right(1);
        }
    }
}
