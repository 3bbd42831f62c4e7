//! Tasks written directly on streams, over the simulated network: what a relay needs of the runtime, without a product.
//!
//! Each world follows from its seed, which every failure names.

use ringway_runtime::sim::{Chances, Network, PeerId, Random, Read, Welcome};
use ringway_runtime::{
    Address, BufferOptions, Errno, Handle, Leases, ListenOptions, Receive, Runtime, SendOutcome, SocketOptions, Source,
    Stream, Unsent,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const SEEDS: u64 = 300;
const TIGHT: BufferOptions = BufferOptions { count: 16, size: 1024 };
const OPTIONS: ListenOptions = ListenOptions {
    backlog: 64,
    connection: SocketOptions {
        no_delay: true,
        keepalive: None,
    },
};

fn front() -> Address {
    Address::Inet(([192, 0, 2, 1], 7).into())
}

fn back() -> Address {
    Address::Inet(([198, 51, 100, 1], 7).into())
}

/// Sends all of it, in as many sends as that takes.
async fn send_all(stream: &Stream, leases: Leases) -> Result<(), Errno> {
    let mut outcome = stream.send(leases, true).await;
    loop {
        let unsent = match outcome {
            SendOutcome::All => return Ok(()),
            SendOutcome::Full(unsent) => unsent,
            SendOutcome::Failed(_, errno) => return Err(errno),
        };
        stream.writable().await?;
        outcome = match unsent {
            Unsent::Leases(leases) => stream.send(leases, true).await,
            Unsent::Bytes { bytes, sent } => stream.send_bytes(bytes, sent, true).await,
        };
    }
}

/// Passes everything on until the end, and the end as well.
async fn pass_on(mut receive: Receive, sink: Rc<Stream>) -> Result<(), Errno> {
    while let Some(leases) = receive.next().await? {
        receive.pause();
        send_all(&sink, leases).await?;
        receive.resume();
    }
    sink.shutdown_write()
}

async fn echo(client: Stream) {
    let receive = client.receive();
    // Fails when the client went away, which ends this as well.
    let _ = pass_on(receive, Rc::new(client)).await;
}

async fn relay(handle: Handle, client: Stream) {
    let connect = handle.connect(&back(), None, &SocketOptions::default());
    let Ok(connect) = connect else { return client.abort() };
    let Ok(backend) = connect.await else {
        return client.abort();
    };
    let (up, down) = (client.receive(), backend.receive());
    let (client, backend) = (Rc::new(client), Rc::new(backend));
    let other = (client.clone(), backend.clone());
    handle.spawn(async move {
        let _ = pass_on(up, backend).await;
        drop(client);
    });
    let _ = pass_on(down, other.0).await;
}

/// Accepts for ever; starts again whatever ended it.
async fn serve(handle: Handle, listener: ringway_runtime::Listener, relays: bool) {
    loop {
        let mut accept = listener.accept();
        while let Ok(client) = std::future::poll_fn(|context| accept.poll_next(context)).await {
            if relays {
                handle.spawn(relay(handle.clone(), client));
            } else {
                handle.spawn(echo(client));
            }
        }
        handle.sleep(Duration::from_millis(1)).await;
    }
}

/// Sends a text, then its end; reads until the end of what comes back.
struct Client {
    peer: PeerId,
    text: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    read: Read,
}

impl Client {
    fn connect(network: &Network, random: &mut Random) -> Self {
        let text = (0..random.below(40_000)).map(|_| random.bits() as u8).collect();
        Self {
            peer: network.connect(&front()).expect("somebody listens"),
            text,
            sent: 0,
            received: Vec::new(),
            read: Read::Nothing,
        }
    }

    /// `true` once everything is over.
    fn poll(&mut self, network: &Network) -> bool {
        while self.sent < self.text.len() {
            match network.send(self.peer, &self.text[self.sent..]) {
                Ok(0) | Err(_) => break,
                Ok(n) => self.sent += n,
            }
        }
        if self.sent == self.text.len() {
            // Once is enough; again changes nothing.
            let _ = network.shutdown_write(self.peer);
        }
        while !matches!(self.read, Read::End | Read::Broken) {
            self.read = network.receive(self.peer, usize::MAX, &mut self.received);
            if self.read == Read::Nothing {
                return false;
            }
        }
        true
    }
}

/// A backend that sends back what it receives.
struct Echo {
    peer: PeerId,
    held: Vec<u8>,
}

impl Echo {
    fn poll(&mut self, network: &Network) {
        loop {
            let read = network.receive(self.peer, 1_000, &mut self.held);
            let sent = network.send(self.peer, &self.held).unwrap_or(0);
            self.held.drain(..sent);
            if read == Read::End && self.held.is_empty() {
                let _ = network.shutdown_write(self.peer);
            }
            if !matches!(read, Read::Bytes(_)) {
                return;
            }
        }
    }
}

/// Runs one world to its end; what each client got must be what it sent.
fn world(seed: u64, runtimes: usize, relays: bool) {
    let mut random = Random::new(seed);
    let mut chances = Chances::drawn(&mut random);
    // These are seen by the code above as failed connections, which are no matter here.
    (chances.open_exhausted, chances.connect_local) = (0, 0);
    let network = Network::new(seed, chances);
    network.hold_clock(true);
    let backends = network.listen_peer(&back(), |_| Welcome::Accept);
    let runtimes: Vec<Runtime> = (0..runtimes)
        .map(|_| Runtime::simulated(network.driver(TIGHT)))
        .collect();
    for runtime in &runtimes {
        let handle = runtime.handle();
        let (listener, _) = handle.listen(&front(), &OPTIONS).expect("a free address");
        handle.spawn(serve(handle.clone(), listener, relays));
    }
    let mut clients: Vec<Client> = (0..random.between(1, 5))
        .map(|_| Client::connect(&network, &mut random))
        .collect();
    let echoes = RefCell::new(Vec::new());
    for turn in 0.. {
        assert!(turn < 200_000, "seed {seed}: not over after {turn} turns");
        while let Some(peer) = network.accept_peer(backends) {
            echoes.borrow_mut().push(Echo { peer, held: Vec::new() });
        }
        echoes.borrow_mut().iter_mut().for_each(|echo| echo.poll(&network));
        let open = clients
            .iter_mut()
            .filter_map(|client| (!client.poll(&network)).then_some(()))
            .count();
        if open == 0 {
            break;
        }
        let mut busy = false;
        for runtime in &runtimes {
            runtime.turn(true);
            busy |= runtime.is_ready();
        }
        if !busy && network.is_idle() {
            let timers = runtimes.iter().filter_map(Runtime::next_deadline);
            let next = timers.chain(network.next_event()).min();
            network.advance_to(next.unwrap_or_else(|| panic!("seed {seed}: nothing will ever happen any more")));
        }
    }
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(client.read, Read::End, "seed {seed}: client {n}");
        assert!(
            client.received == client.text,
            "seed {seed}: client {n} got other bytes than it sent"
        );
        network.close(client.peer);
    }
    echoes.borrow().iter().for_each(|echo| network.close(echo.peer));
    network.hold_clock(false);
    drop(runtimes);
    assert_eq!(network.violation(), None, "seed {seed}");
    assert_eq!(network.check_empty(), Ok(()), "seed {seed}");
}

#[test]
fn an_echo_returns_what_was_sent() {
    for seed in 0..SEEDS {
        world(seed, 1, false);
    }
}

#[test]
fn a_relay_on_several_runtimes_passes_on_what_was_sent() {
    for seed in 0..SEEDS {
        world(seed, 1 + seed as usize % 3, true);
    }
}

/// The same calls and the same seed: the same history to the last event.
#[test]
fn a_seed_says_everything() {
    let history = |seed: u64| {
        let network = Network::new(seed, Chances::drawn(&mut Random::new(seed)));
        let runtime = Runtime::simulated(network.driver(TIGHT));
        let handle = runtime.handle().clone();
        let (listener, _) = handle.listen(&front(), &OPTIONS).expect("a free address");
        handle.spawn(serve(handle.clone(), listener, false));
        let mut client = Client::connect(&network, &mut Random::new(seed));
        for _ in 0..500 {
            client.poll(&network);
            runtime.turn(false);
            network.advance(Duration::from_micros(100));
        }
        (network.seen(), runtime.handle().stats(), client.received)
    };
    for seed in 0..20 {
        assert_eq!(history(seed), history(seed), "seed {seed}");
    }
    assert_ne!(history(1), history(2));
}

#[test]
fn a_turn_that_may_wait_goes_to_where_something_happens() {
    let network = Network::new(1, Chances::CALM);
    let runtime = Runtime::simulated(network.driver(TIGHT));
    let start = network.now();
    let handle = runtime.handle().clone();
    let sleep = handle.sleep(Duration::from_secs(3_600));
    runtime.run(sleep, |_| {});
    assert_eq!(network.now().since(start), Duration::from_secs(3_600));
    assert!(runtime.handle().stats().turns < 100, "an hour is one wait, or a few");
}

/// A simulated backend sees what its connection comes from, a foreign address too.
#[test]
fn backends_see_the_source_asked_for() {
    let network = Network::new(1, Chances::CALM);
    let backends = network.listen_peer(&back(), |_| Welcome::Accept);
    let runtime = Runtime::simulated(network.driver(TIGHT));
    let source = Source::Foreign("203.0.113.7".parse().expect("an address"));
    let handle = runtime.handle().clone();
    let seen = Rc::new(RefCell::new(None));
    let see = seen.clone();
    let looking = network.clone();
    runtime.handle().spawn(async move {
        let connecting = handle.connect(&back(), Some(source), &SocketOptions::default());
        let stream = connecting.expect("socket").await.expect("connect");
        let peer = looking.accept_peer(backends).expect("it was connected");
        *see.borrow_mut() = looking.address_of_other_end(peer);
        stream.abort();
    });
    network.hold_clock(true);
    for _ in 0..10 {
        runtime.turn(true);
        network
            .next_event()
            .into_iter()
            .for_each(|next| network.advance_to(next));
    }
    network.hold_clock(false);
    let seen = seen.borrow();
    let Some(Address::Inet(from)) = &*seen else {
        panic!("{seen:?} is no address")
    };
    assert_eq!(from.ip(), source.ip());
    assert_ne!(from.port(), 0, "the kernel chooses one");
}
