//! The UDP relay over the simulated network: books that balance, answers to whom they belong, and nothing left behind.
//! Each world follows from its seed, which every failure names.

use ringway_core::backend::Registry;
use ringway_core::gate::{Cap, Gates};
use ringway_core::model::{self, Backend, Listener, Model, OnBackendDown, Pool, PoolIndex, Protocol, Udp};
use ringway_core::reason::{DropReason, EndReason};
use ringway_core::session::Rules;
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::WorkerStats;
use ringway_proxy::observer::Nobody;
use ringway_proxy::state::{Orders, Parts, WorkerState};
use ringway_proxy::udp::{Fronts, Own, front_key, serve};
use ringway_runtime::sim::{Chances, DatagramPeer, Letter, Network, Random};
use ringway_runtime::{BufferOptions, DatagramOptions, Runtime, TaskId};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const SEEDS: u64 = 1_000;
const BACKENDS: usize = 3;
const CLIENTS: usize = 6;
const TIGHT: BufferOptions = BufferOptions { count: 16, size: 1024 };

fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], port))
}

fn front() -> SocketAddr {
    address(1, 53)
}

fn backend_address(n: usize) -> SocketAddr {
    address(100 + n as u8, 53)
}

fn rules(random: &mut Random) -> Rules {
    let often = random.chance(700);
    Rules {
        timeout: Duration::from_millis(random.between(5, 60)),
        unanswered_timeout: Duration::from_millis(random.between(2, 30)),
        requests: (!often).then(|| random.between(1, 5) as u32),
        responses: random.chance(300).then_some(1),
    }
}

struct World {
    seed: u64,
    network: Network,
    runtime: Runtime,
    stats: Arc<WorkerStats>,
    orders: Arc<Orders>,
    main: TaskId,
    random: Random,
    clients: Vec<DatagramPeer>,
    backends: Vec<Option<DatagramPeer>>,
    /// What each client has sent and not yet got back, by number.
    snapshot: Arc<Snapshot>,
    clock_offset: Duration,
    sent: Vec<u32>,
    answers: u64,
    requests_seen: u64,
    /// The number of the last answer, by client and backend.
    last: HashMap<(usize, u8), u32>,
}

impl World {
    fn new(seed: u64, unkind: bool) -> Self {
        let mut random = Random::new(seed);
        let chances = if unkind {
            Chances::drawn(&mut random)
        } else {
            Chances::CALM
        };
        let network = Network::new(random.bits(), chances);
        network.hold_clock(true);
        let on_backend_down = *[OnBackendDown::Move, OnBackendDown::Keep, OnBackendDown::Close]
            .get(random.below(3) as usize)
            .expect("one of three");
        let model = model(rules(&mut random), on_backend_down);
        let snapshot = Arc::new(Snapshot::new(model, &Registry::default(), 1));
        let cap = Cap {
            max: u32::MAX,
            descriptors: 1,
            shares_ports: false,
        };
        let gates = Arc::new(Gates::new(random.between(2, 12) as u32, 0, [cap]));
        let runtime = Runtime::simulated(network.driver_for_datagrams(TIGHT, 16));
        let handle = runtime.handle().clone();
        let (stats, orders) = (Arc::new(WorkerStats::new(1)), Arc::new(Orders::default()));
        let own = Rc::new(Own::new([front()], &snapshot.model));
        let clock_offset = Duration::from_secs(random.below(100));
        let parts = Parts {
            index: 0,
            snapshot: snapshot.clone(),
            stats: stats.clone(),
            gates,
            orders: orders.clone(),
            observer: Arc::new(Nobody),
            clock_offset,
        };
        let state = WorkerState::new(handle.clone(), parts);
        let datagrams = handle.datagrams();
        let options = DatagramOptions::default();
        let (socket, bound) = datagrams.bind(front(), &options, front_key(0)).expect("it is free");
        let fronts = Fronts::new(datagrams, vec![(socket, bound)]);
        let main = handle.spawn(serve(Rc::clone(&state), 0, fronts, own, None));
        Self {
            seed,
            clients: (0..CLIENTS)
                .map(|n| network.datagram_peer(address(10 + n as u8, 4_000)))
                .collect(),
            backends: (0..BACKENDS)
                .map(|n| Some(network.datagram_peer(backend_address(n))))
                .collect(),
            sent: vec![0; CLIENTS],
            answers: 0,
            requests_seen: 0,
            last: HashMap::new(),
            network,
            runtime,
            stats,
            orders,
            snapshot,
            clock_offset,
            main,
            random,
        }
    }

    fn step(&mut self, sends: bool) {
        if sends {
            self.client_sends();
        }
        if self.random.chance(20) {
            self.backend_comes_or_goes();
        }
        if self.random.chance(10) {
            self.sessions_are_to_leave();
        }
        for _ in 0..self.random.between(1, 3) {
            self.runtime.turn(false);
        }
        self.network.advance(Duration::from_micros(self.random.below(2_000)));
        self.backends_answer();
        self.clients_look();
        self.check_books();
    }

    fn client_sends(&mut self) {
        let client = self.random.below(CLIENTS as u64) as usize;
        let len = 5 + self.random.below(1_500) as usize;
        // Now and then a train.
        let count = if self.random.chance(200) {
            self.random.between(2, 5)
        } else {
            1
        };
        let mut train = Vec::new();
        for _ in 0..count {
            let mut bytes = vec![client as u8];
            bytes.extend(self.sent[client].to_be_bytes());
            bytes.resize(len, 9);
            train.extend(bytes);
            self.sent[client] += 1;
        }
        let segment = (count > 1).then_some(len as u16);
        self.network
            .send_letter(self.clients[client], front(), &train, segment, 0);
    }

    fn backend_comes_or_goes(&mut self) {
        let n = self.random.below(BACKENDS as u64) as usize;
        match self.backends[n].take() {
            Some(peer) => self.network.close_datagram_peer(peer),
            None => self.backends[n] = Some(self.network.datagram_peer(backend_address(n))),
        }
    }

    /// The control plane says that sessions of a backend are not to stay there.
    fn sessions_are_to_leave(&mut self) {
        let reasons = [EndReason::BackendDown, EndReason::BackendRemoved, EndReason::Failback];
        let reason = reasons[self.random.below(3) as usize];
        let n = self.random.below(BACKENDS as u64) as usize;
        let now = self.clock_offset + Duration::from_nanos(self.runtime.handle().now().as_nanos());
        let backend = &self.snapshot.pools[0].view().backends[n];
        backend.orders.close_before(now.as_nanos() as u64, reason.index());
    }

    /// Each with its own number in front; now and then one keeps silent.
    fn backends_answer(&mut self) {
        for (n, peer) in self.backends.iter().enumerate() {
            let Some(peer) = *peer else { continue };
            while let Some(Letter {
                from, bytes, segment, ..
            }) = self.network.receive_letter(peer)
            {
                let each = segment.map_or(bytes.len(), usize::from);
                for bytes in bytes.chunks(each) {
                    self.requests_seen += 1;
                    if self.random.chance(100) {
                        continue;
                    }
                    let answer = [&[n as u8][..], bytes].concat();
                    self.network.send_letter(peer, from, &answer, None, 0);
                }
            }
        }
    }

    fn clients_look(&mut self) {
        let seed = self.seed;
        for (client, &peer) in self.clients.iter().enumerate() {
            while let Some(letter) = self.network.receive_letter(peer) {
                assert_eq!(letter.from, front(), "seed {seed}: an answer from elsewhere");
                // A train is handed over in one piece.
                let each = letter.segment.map_or(letter.bytes.len(), usize::from);
                for bytes in letter.bytes.chunks(each) {
                    let (backend, owner) = (bytes[0], bytes[1]);
                    assert_eq!(usize::from(owner), client, "seed {seed}: somebody else's answer");
                    let number = u32::from_be_bytes(bytes[2..6].try_into().expect("four bytes"));
                    assert!(
                        number < self.sent[client],
                        "seed {seed}: an answer to what was not asked"
                    );
                    assert!(bytes[6..].iter().all(|&byte| byte == 9), "seed {seed}: other bytes");
                    self.answers += 1;
                    self.last.insert((client, backend), number);
                }
            }
        }
    }

    /// Opened less closed is what lives; what came in was passed on, or dropped for a reason.
    fn check_books(&self) {
        let seed = self.seed;
        let stats = &self.stats.listeners[0];
        let ended: u64 = stats.ended.iter().map(|count| count.value()).sum();
        let live = stats.connections.value();
        assert_eq!(stats.connections_total.value() - ended, live, "seed {seed}: sessions");
        assert!(
            stats.datagrams_from_clients.value() >= self.requests_seen,
            "seed {seed}: requests"
        );
        assert!(
            stats.datagrams_from_backends.value() >= self.answers,
            "seed {seed}: answers"
        );
    }

    fn finish(mut self) -> (u64, u64, Network) {
        self.orders.stop_accepting();
        self.runtime.handle().wake_all();
        for _ in 0..200 {
            self.step(false);
            self.network.advance(Duration::from_millis(1));
        }
        let seed = self.seed;
        assert!(
            !self.runtime.handle().is_alive(self.main),
            "seed {seed}: it has not ended"
        );
        let stats = &self.stats.listeners[0];
        assert_eq!(stats.connections.value(), 0, "seed {seed}: sessions are left");
        let seen = self.network.seen();
        let sent: u64 = self.sent.iter().map(|&count| u64::from(count)).sum();
        let dropped = |reason: DropReason| stats.dropped[reason.index()].value();
        let before: u64 = [
            DropReason::Loop,
            DropReason::Rate,
            DropReason::MaxSessions,
            DropReason::ClientSessions,
            DropReason::Burst,
            DropReason::NoBackend,
            DropReason::BackendsFull,
            DropReason::Draining,
            DropReason::LocalError,
            DropReason::Truncated,
        ]
        .into_iter()
        .map(dropped)
        .sum();
        let arrived = stats.datagrams_from_clients.value() + before;
        // What the network lost on its way to us, or the socket had no room for, never came.
        let never = seen.datagrams_lost + seen.datagrams_dropped + seen.datagrams_unreachable;
        assert!(arrived <= sent, "seed {seed}: {arrived} of {sent}");
        assert!(sent - arrived <= never, "seed {seed}: {arrived} of {sent}, {seen:?}");
        if let Some(violation) = self.network.violation() {
            panic!("seed {seed}: {violation}");
        }
        let (answers, network) = (self.answers, self.network.clone());
        drop(self.runtime);
        if let Err(left) = network.check_empty() {
            panic!("seed {seed}: {left}");
        }
        (sent, answers, network)
    }
}

fn model(rules: Rules, on_backend_down: OnBackendDown) -> Model {
    let listener = Listener {
        protocol: Protocol::Udp,
        udp: Udp {
            rules,
            ..Udp::default()
        },
        ..Listener::new("udp", model::Address::Inet(front()), PoolIndex(0))
    };
    let backend = |n| Backend::at(model::Address::Inet(backend_address(n)));
    let mut pool = Pool::new("pool", (0..BACKENDS).map(backend).collect());
    pool.sessions.on_backend_down = on_backend_down;
    Model::new(vec![listener], vec![pool])
}

#[test]
fn a_calm_world_answers_everything() {
    let mut world = World::new(7, false);
    // Nobody goes, nobody is silent for long enough to matter.
    for _ in 0..100 {
        world.client_sends();
        for _ in 0..3 {
            world.runtime.turn(false);
            world.network.advance(Duration::from_micros(10));
        }
        for peer in world.backends.iter().flatten() {
            while let Some(letter) = world.network.receive_letter(*peer) {
                let each = letter.segment.map_or(letter.bytes.len(), usize::from);
                for bytes in letter.bytes.chunks(each) {
                    let answer = [&[0][..], bytes].concat();
                    world.network.send_letter(*peer, letter.from, &answer, None, 0);
                }
            }
        }
        world.runtime.turn(false);
        world.runtime.turn(false);
        world.clients_look();
        world.check_books();
    }
    let sent: u64 = world.sent.iter().map(|&count| u64::from(count)).sum();
    let stats = world.stats.listeners[0].dropped[DropReason::MaxSessions.index()].value();
    assert_eq!(world.answers + stats, sent, "lost without a reason");
    world.finish();
}

#[test]
fn books_balance_whatever_happens() {
    let (mut sent, mut answers, mut timeouts, mut refused) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed, true);
        for _ in 0..300 {
            world.step(true);
        }
        timeouts += world.stats.listeners[0].ended[EndReason::SessionTimeout.index()].value();
        let (asked, answered, network) = world.finish();
        refused += network.seen().trains_refused;
        sent += asked;
        answers += answered;
    }
    assert!(
        answers > sent / 4,
        "{answers} answers to {sent} questions: too little was tested"
    );
    assert!(refused > SEEDS, "{refused} trains refused: too little was tested");
    assert!(
        timeouts > SEEDS,
        "{timeouts} sessions ended by timeout: too little was tested"
    );
}

/// Of one client's answers, those of the same length leave together, a shorter one behind them; order stays.
#[test]
fn answers_that_follow_each_other_leave_as_a_train() {
    let mut world = World::new(3, false);
    world.client_sends();
    let settle = |world: &World| {
        for _ in 0..4 {
            world.runtime.turn(false);
            world.network.advance(Duration::from_micros(10));
        }
    };
    settle(&world);
    let asked = world.backends.iter().flatten().find_map(|&peer| {
        let letter = world.network.receive_letter(peer)?;
        Some((peer, letter.from))
    });
    let (backend, session) = asked.expect("one of the backends was asked");
    let lengths = [100, 100, 100, 40, 100, 0, 0, 1_500, 1_500, 60];
    for (n, &len) in lengths.iter().enumerate() {
        world
            .network
            .send_letter(backend, session, &vec![n as u8; len], None, 0);
    }
    settle(&world);
    let mut got: Vec<(usize, Option<u16>)> = Vec::new();
    let mut bytes = Vec::new();
    for &client in &world.clients {
        while let Some(letter) = world.network.receive_letter(client) {
            got.push((letter.bytes.len(), letter.segment));
            bytes.extend(letter.bytes);
        }
    }
    let expected = [
        (340, Some(100)),
        (100, None),
        (0, None),
        (0, None),
        (1_500, None),
        (1_500, None),
        (60, None),
    ];
    assert_eq!(got, expected);
    let whole: Vec<u8> = lengths
        .iter()
        .enumerate()
        .flat_map(|(n, &len)| vec![n as u8; len])
        .collect();
    assert_eq!(bytes, whole, "order or bytes changed");
}
