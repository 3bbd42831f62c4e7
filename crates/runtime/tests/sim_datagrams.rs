//! A relay of datagrams written directly on the runtime, over the simulated network: order, loss that is counted, and
//! nothing left behind. Each world follows from its seed, which every failure names.

use ringway_runtime::sim::{Chances, DatagramPeer, Network, Random};
use ringway_runtime::{BufferOptions, DatagramOptions, DatagramSocket, Datagrams, Departure, Event, Handle, Runtime};
use std::cell::Cell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

const SEEDS: u64 = 300;
const TIGHT: BufferOptions = BufferOptions { count: 16, size: 1024 };
const OPTIONS: DatagramOptions = DatagramOptions {
    receive_buffer: 1 << 20,
    send_buffer: 0,
    apart: false,
};
const FRONT_KEY: u64 = u64::MAX;

fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], port))
}

fn front() -> SocketAddr {
    address(1, 53)
}

fn server() -> SocketAddr {
    address(200, 53)
}

/// One socket for each client; what comes from either side goes to the other.
struct Relay {
    datagrams: Datagrams,
    front: DatagramSocket,
    sessions: HashMap<SocketAddr, u64>,
    sockets: Vec<(SocketAddr, DatagramSocket)>,
    failed: Rc<Cell<u64>>,
    stop: Rc<Cell<bool>>,
}

impl Relay {
    fn new(handle: &Handle, failed: Rc<Cell<u64>>, stop: Rc<Cell<bool>>) -> Self {
        let datagrams = handle.datagrams();
        let (front, _) = datagrams.bind(front(), &OPTIONS, FRONT_KEY).expect("it is free");
        Self {
            datagrams,
            front,
            sessions: HashMap::new(),
            sockets: Vec::new(),
            failed,
            stop,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready((key, event)) = self.datagrams.poll_next(context) {
            match event {
                Event::Datagram(arrived, leases) if key == FRONT_KEY => {
                    let from = arrived.from.expect("everybody has an address");
                    let key = *self.sessions.entry(from).or_insert_with(|| {
                        let key = self.sockets.len() as u64;
                        let socket = self.datagrams.connect(server(), None, &OPTIONS, key);
                        self.sockets.push((from, socket.expect("a socket")));
                        key
                    });
                    let departure = Departure {
                        segment: arrived.segment,
                        ..Departure::default()
                    };
                    self.sockets[key as usize].1.send(leases, &departure);
                }
                Event::Datagram(arrived, leases) => {
                    let departure = Departure {
                        to: Some(self.sockets[key as usize].0),
                        segment: arrived.segment,
                        ..Departure::default()
                    };
                    self.front.send(leases, &departure);
                }
                Event::TrainRefused(..) => panic!("nobody sends trains"),
                Event::Failed(_) | Event::SendFailed(_) => self.failed.set(self.failed.get() + 1),
                Event::Ended(errno) => panic!("a socket ended: {errno}"),
            }
        }
        if self.stop.get() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Numbers that were echoed, per client, in order.
fn world(seed: u64, unkind: bool) -> (Vec<Vec<u32>>, u64, Network) {
    let mut random = Random::new(seed);
    let chances = if unkind {
        Chances::drawn(&mut random)
    } else {
        Chances::CALM
    };
    let chances = Chances {
        open_exhausted: 0,
        ..chances
    };
    let network = Network::new(random.bits(), chances);
    let runtime = Runtime::simulated(network.driver_for_datagrams(TIGHT, 16));
    network.hold_clock(true);
    let clients: Vec<DatagramPeer> = (0..4).map(|n| network.datagram_peer(address(10 + n, 4_000))).collect();
    let echo = network.datagram_peer(server());
    let (failed, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let mut relay = Relay::new(runtime.handle(), failed.clone(), stop.clone());
    let task = runtime.handle().spawn(poll_fn(move |context| relay.poll(context)));
    let mut got = vec![Vec::new(); clients.len()];
    let mut next = vec![0_u32; clients.len()];
    for step in 0..400 {
        if step < 200 {
            let client = random.below(clients.len() as u64) as usize;
            let mut bytes = next[client].to_be_bytes().to_vec();
            bytes.resize(4 + random.below(3_000) as usize, 7);
            network.send_letter(clients[client], front(), &bytes, None, 0);
            next[client] += 1;
        }
        for _ in 0..random.between(1, 4) {
            runtime.turn(false);
        }
        network.advance(Duration::from_micros(random.below(500)));
        while let Some(letter) = network.receive_letter(echo) {
            network.send_letter(echo, letter.from, &letter.bytes, letter.segment, letter.class);
        }
        for (client, got) in clients.iter().zip(&mut got) {
            while let Some(letter) = network.receive_letter(*client) {
                assert_eq!(letter.from, front(), "seed {seed}: an answer from elsewhere");
                let number = letter.bytes.first_chunk().expect("four bytes");
                assert!(
                    letter.bytes[4..].iter().all(|&byte| byte == 7),
                    "seed {seed}: other bytes"
                );
                got.push(u32::from_be_bytes(*number));
            }
        }
        if step > 200 {
            network.settle_datagrams();
        }
    }
    stop.set(true);
    runtime.handle().wake(task);
    for _ in 0..20 {
        runtime.turn(false);
        network.advance(Duration::from_millis(10));
    }
    let failed = failed.get();
    drop(runtime);
    if let Some(violation) = network.violation() {
        panic!("seed {seed}: {violation}");
    }
    if let Err(left) = network.check_empty() {
        panic!("seed {seed}: {left}");
    }
    (got, failed, network)
}

#[test]
fn without_loss_everything_comes_back_in_order() {
    let (got, failed, _) = world(1, false);
    assert_eq!(failed, 0);
    assert_eq!(got.iter().map(Vec::len).sum::<usize>(), 200);
    for numbers in got {
        assert!(numbers.iter().copied().eq(0..numbers.len() as u32), "{numbers:?}");
    }
}

#[test]
fn whatever_happens_order_stays_and_loss_is_counted() {
    let mut dry = 0;
    for seed in 0..SEEDS {
        let (got, failed, network) = world(seed, true);
        let seen = network.seen();
        for numbers in &got {
            assert!(numbers.is_sorted_by(|a, b| a < b), "seed {seed}: {numbers:?}");
        }
        let back: usize = got.iter().map(Vec::len).sum();
        let lost = seen.datagrams_lost + seen.datagrams_dropped + failed;
        assert_eq!(back as u64 + lost, 200, "seed {seed}: {seen:?}, {failed} failed");
        dry += seen.buffers_dry;
    }
    assert!(dry > 0, "no ring ever ran dry");
}
