//! How unkind a simulated network is, and what it has done so far.

use super::random::Random;
use std::time::Duration;

/// How often what happens; chances are per thousand. Sizes and latencies are drawn between their bounds, per
/// connection and per delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chances {
    /// A receive takes fewer bytes than there are.
    pub partial_receive: u16,
    /// A receive fills one buffer although more bytes and buffers are there.
    pub single_buffer: u16,
    /// The kernel ends a multishot receive after good bytes.
    pub receive_ended: u16,
    /// A send takes fewer bytes than there is room for.
    pub partial_send: u16,
    /// A send finds no room although there is some.
    pub full_send: u16,
    /// An operation that could go on is left for later.
    pub late: u16,
    /// Completions of different operations come in any order.
    pub shuffled: u16,
    /// A cancel takes effect later.
    pub late_cancel: u16,
    /// Bytes that wait are delivered between a cancel and its last completion.
    pub data_after_cancel: u16,
    /// Accepting fails with EMFILE.
    pub accept_exhausted: u16,
    /// The kernel ends a multishot accept after a good connection.
    pub accept_ended: u16,
    /// A socket cannot be made (EMFILE).
    pub open_exhausted: u16,
    /// Connecting fails for want of a port (EADDRNOTAVAIL).
    pub connect_local: u16,
    /// A pipe cannot be made.
    pub pipe_refused: u16,
    /// A splice finds nothing to move although there is something.
    pub splice_dry: u16,
    /// Of the three halves of a second that make a turn, in how many a worker's thread is busy.
    pub busy: u16,
    /// Only a part of what is under way arrives at once.
    pub partial_delivery: u16,
    /// A datagram is lost on its way.
    pub datagram_lost: u16,
    /// A train is refused: its datagrams would have to leave one by one.
    pub train_refused: u16,
    /// Between a send and its arrival at most.
    pub latency_max: Duration,
    /// How long what is late is late at most.
    pub late_max: Duration,
    /// Bytes that a socket's send buffer holds.
    pub send_buffer: (usize, usize),
    /// Bytes that a socket's receive buffer holds.
    pub receive_buffer: (usize, usize),
    /// Connections that wait for being accepted.
    pub backlog: usize,
}

impl Chances {
    /// Nothing unusual ever happens.
    pub const CALM: Self = Self {
        partial_receive: 0,
        single_buffer: 0,
        receive_ended: 0,
        partial_send: 0,
        full_send: 0,
        late: 0,
        shuffled: 0,
        late_cancel: 0,
        data_after_cancel: 0,
        accept_exhausted: 0,
        accept_ended: 0,
        open_exhausted: 0,
        connect_local: 0,
        pipe_refused: 0,
        splice_dry: 0,
        busy: 3,
        partial_delivery: 0,
        datagram_lost: 0,
        train_refused: 0,
        latency_max: Duration::ZERO,
        late_max: Duration::ZERO,
        send_buffer: (65_536, 65_536),
        receive_buffer: (65_536, 65_536),
        backlog: 128,
    };

    /// A temper of its own for each seed: some things never happen, others often.
    pub fn drawn(random: &mut Random) -> Self {
        let mut often = |max: u64| {
            if random.chance(400) {
                0
            } else {
                random.between(1, max) as u16
            }
        };
        let mut chances = Self {
            partial_receive: often(500),
            single_buffer: often(1000),
            receive_ended: often(200),
            partial_send: often(500),
            full_send: often(300),
            late: often(500),
            shuffled: often(1000),
            late_cancel: often(500),
            data_after_cancel: often(1000),
            accept_exhausted: often(100),
            accept_ended: often(200),
            open_exhausted: 0,
            connect_local: 0,
            partial_delivery: often(500),
            ..Self::CALM
        };
        // Refused sockets make relays fail for a reason of our own; rare, or few relays would live.
        if random.chance(100) {
            chances.open_exhausted = random.between(1, 100) as u16;
            chances.connect_local = random.between(1, 100) as u16;
        }
        chances.latency_max = Duration::from_micros(random.below(3_000));
        chances.late_max = Duration::from_micros(random.below(2_000));
        chances.send_buffer = bounds(random);
        chances.receive_buffer = bounds(random);
        // Drawn aside, so that the rest of a seed stayed as it was when pipes came.
        let mut aside = Random::new(random.clone().bits() ^ 0x7069_7065);
        chances.pipe_refused = [0, 0, 300, 1000][aside.below(4) as usize];
        chances.busy = [0, 1, 3, 3][aside.clone().below(4) as usize];
        chances.datagram_lost = [0, 0, 10, 200][aside.clone().below(4) as usize];
        chances.train_refused = [0, 300, 1000, 0][aside.clone().below(4) as usize];
        chances.splice_dry = [0, 50, 400][aside.below(3) as usize];
        chances
    }
}

/// From buffers of a few hundred bytes to those that are never full.
fn bounds(random: &mut Random) -> (usize, usize) {
    let high = 1 << random.between(9, 18);
    (random.size(256, high), high)
}

/// How often something happened; for tests that want to know whether they tested anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Seen {
    pub bundles: u64,
    pub partial_receives: u64,
    pub receives_ended: u64,
    pub buffers_dry: u64,
    pub partial_sends: u64,
    pub full_sends: u64,
    pub late: u64,
    pub late_cancels: u64,
    pub cancels_that_found_nothing: u64,
    pub data_after_cancel: u64,
    pub accepts_exhausted: u64,
    pub accepts_ended: u64,
    pub opens_exhausted: u64,
    pub connects_refused: u64,
    pub connects_local: u64,
    pub fills: u64,
    pub partial_fills: u64,
    pub partial_drains: u64,
    pub pipes_refused: u64,
    pub pipes_closed_with_bytes: u64,
    pub datagrams_lost: u64,
    pub trains_refused: u64,
    pub datagrams_dropped: u64,
    pub datagrams_unreachable: u64,
    pub resets_received: u64,
    pub resets_with_bytes_lost: u64,
    pub turns: u64,
    pub events: u64,
}

impl Seen {
    /// Adds what another network saw.
    pub const fn add(&mut self, other: &Self) {
        self.bundles += other.bundles;
        self.partial_receives += other.partial_receives;
        self.receives_ended += other.receives_ended;
        self.buffers_dry += other.buffers_dry;
        self.partial_sends += other.partial_sends;
        self.full_sends += other.full_sends;
        self.late += other.late;
        self.late_cancels += other.late_cancels;
        self.cancels_that_found_nothing += other.cancels_that_found_nothing;
        self.data_after_cancel += other.data_after_cancel;
        self.accepts_exhausted += other.accepts_exhausted;
        self.accepts_ended += other.accepts_ended;
        self.opens_exhausted += other.opens_exhausted;
        self.connects_refused += other.connects_refused;
        self.connects_local += other.connects_local;
        self.fills += other.fills;
        self.partial_fills += other.partial_fills;
        self.partial_drains += other.partial_drains;
        self.pipes_refused += other.pipes_refused;
        self.pipes_closed_with_bytes += other.pipes_closed_with_bytes;
        self.datagrams_lost += other.datagrams_lost;
        self.trains_refused += other.trains_refused;
        self.datagrams_dropped += other.datagrams_dropped;
        self.datagrams_unreachable += other.datagrams_unreachable;
        self.resets_received += other.resets_received;
        self.resets_with_bytes_lost += other.resets_with_bytes_lost;
        self.turns += other.turns;
        self.events += other.events;
    }
}
