//! Clients, a listener and backends, and what each of them knows of the others' datagrams.

use ringway_core::access::{Network as Cidr, NetworkSet};
use ringway_core::backend::Registry;
use ringway_core::gate::{Cap, Gates};
use ringway_core::model::{
    self, Backend, Listener, Model, OnBackendDown, Pool, PoolIndex, Protocol, ProxyProtocol, ProxyVersion, SendProxy,
    Udp,
};
use ringway_core::reason::{DropReason, EndReason};
use ringway_core::session::Rules;
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::WorkerStats;
use ringway_proxy::access::client_bounds;
use ringway_proxy::observer::Nobody;
use ringway_proxy::state::{Orders, Parts, WorkerState, cancel_keys};
use ringway_proxy::udp::{Fronts, Own, front_key, serve};
use ringway_proxy::unrouted::unrouted;
use ringway_runtime::sim::{Chances, DatagramPeer, Letter, Network, Random};
use ringway_runtime::{BufferOptions, DatagramOptions, Runtime, TaskId};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const BACKENDS: usize = 3;
pub(crate) const CLIENTS: usize = 6;
pub(crate) const TIGHT: BufferOptions = BufferOptions { count: 16, size: 1024 };

pub(crate) fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], port))
}

pub(crate) fn front() -> SocketAddr {
    address(1, 53)
}

pub(crate) fn backend_address(n: usize) -> SocketAddr {
    address(100 + n as u8, 53)
}

pub(crate) fn rules(random: &mut Random) -> Rules {
    let often = random.chance(700);
    Rules {
        timeout: Duration::from_millis(random.between(5, 60)),
        unanswered_timeout: Duration::from_millis(random.between(2, 30)),
        requests: (!often).then(|| random.between(1, 5) as u32),
        responses: random.chance(300).then_some(1),
    }
}

/// Where PROXY headers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Per {
    #[default]
    Nothing,
    Session,
    Datagram,
}

/// What is particular to a world.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    /// The network does what networks do, and more of it.
    pub(crate) unkind: bool,
    /// Clients put them in front of what they send; the last one is not trusted.
    pub(crate) accepted: Per,
    /// Backends get them.
    pub(crate) sent: Per,
    /// As many sessions as there may be; 0: by the seed.
    pub(crate) sessions: u32,
}

impl Shape {
    pub(crate) const CALM: Self = Self {
        unkind: false,
        accepted: Per::Nothing,
        sent: Per::Nothing,
        sessions: 0,
    };
}

/// Clients of one that is a balancer; 0 is itself.
const NAMED: u64 = 4;

pub(crate) fn named(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, n], 7_000))
}

/// What a client of a balancer sent to.
pub(crate) fn told() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 5_353))
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header by the specification (proxy-protocol.txt, section 2.2): PROXY, UDP over IPv4, 12 bytes of addresses.
pub(crate) fn header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else {
        unreachable!("this network is IPv4");
    };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let addresses = [source.ip().octets(), destination.ip().octets()].concat();
    [SIGNATURE, b"\x21\x12\x00\x0c", &addresses, &ports].concat()
}

/// Of the balancer itself.
pub(crate) fn local_header() -> Vec<u8> {
    [SIGNATURE, b"\x20\x00\x00\x00"].concat()
}

pub(crate) struct World {
    pub(crate) shape: Shape,
    books: Books,
    pub(crate) seed: u64,
    pub(crate) network: Network,
    pub(crate) runtime: Runtime,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) main: TaskId,
    pub(crate) random: Random,
    pub(crate) clients: Vec<DatagramPeer>,
    pub(crate) backends: Vec<Option<DatagramPeer>>,
    /// What each client has sent and not yet got back, by number.
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) clock_offset: Duration,
    pub(crate) sent: Vec<u32>,
    pub(crate) answers: u64,
    pub(crate) requests_seen: u64,
    /// The number of the last answer, by client and backend.
    pub(crate) last: HashMap<(usize, u8), u32>,
}

impl World {
    pub(crate) fn new(seed: u64, shape: Shape) -> Self {
        Self::with(seed, shape, |_, _| {})
    }

    /// The same with changes to listener and pool.
    pub(crate) fn with(seed: u64, shape: Shape, change: impl FnOnce(&mut Listener, &mut Pool)) -> Self {
        let unkind = shape.unkind;
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
        let mut model = model(rules(&mut random), on_backend_down, shape, change);
        if unkind && random.chance(300) {
            // The last one may not.
            let denied = Cidr::of_one(address(10 + CLIENTS as u8 - 1, 0).ip());
            model.listeners[0].access.deny = [denied].into_iter().collect();
        }
        let snapshot = Arc::new(Snapshot::new(model, &Registry::default(), 1));
        let cap = Cap {
            max: u32::MAX,
            descriptors: 1,
            shares_ports: false,
        };
        let sessions = random.between(2, 12) as u32;
        let sessions = if shape.sessions > 0 { shape.sessions } else { sessions };
        let gates = Arc::new(Gates::new(sessions, 0, [cap]));
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
            clients: client_bounds(&snapshot.model),
            orders: orders.clone(),
            observer: Arc::new(Nobody),
            clock_offset,
            unrouted: unrouted(1_000, 1),
            cancel_keys: cancel_keys(&snapshot.model),
            id_seed: 0,
        };
        let state = WorkerState::new(handle.clone(), parts);
        let datagrams = handle.datagrams();
        let options = DatagramOptions {
            apart: shape.accepted == Per::Datagram,
            ..DatagramOptions::default()
        };
        let (socket, bound) = datagrams.bind(front(), &options, front_key(0)).expect("it is free");
        let fronts = Fronts::new(datagrams, vec![(socket, bound)]);
        let main = handle.spawn(serve(Rc::clone(&state), 0, fronts, own));
        Self {
            seed,
            shape,
            books: Books {
                seed,
                shape,
                owners: HashMap::new(),
                told: HashSet::new(),
            },
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

    pub(crate) fn step(&mut self, sends: bool) {
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

    pub(crate) fn client_sends(&mut self) {
        let client = self.random.below(CLIENTS as u64) as usize;
        let len = 50 + self.random.below(1_500) as usize;
        // Now and then a train.
        let count = if self.random.chance(200) {
            self.random.between(2, 5)
        } else {
            1
        };
        let mut train = Vec::new();
        for _ in 0..count {
            let (named, mut bytes) = self.header_in_front(client);
            bytes.push(client as u8);
            bytes.extend(self.sent[client].to_be_bytes());
            bytes.push(named);
            bytes.resize(len, 9);
            train.extend(bytes);
            self.sent[client] += 1;
        }
        let segment = (count > 1).then_some(len as u16);
        self.network
            .send_letter(self.clients[client], front(), &train, segment, 0);
    }

    /// Whom a client names, and how; now and then it says nothing, where it must or where it need not.
    fn header_in_front(&mut self, client: usize) -> (u8, Vec<u8>) {
        let silent = match self.shape.accepted {
            Per::Nothing => 1_000,
            Per::Session => 600,
            Per::Datagram => 30,
        };
        if self.random.chance(silent) || client + 1 == CLIENTS && self.random.chance(500) {
            return (0, Vec::new());
        }
        match self.random.below(NAMED) as u8 {
            0 => (0, local_header()),
            n => (n, header(named(n), told())),
        }
    }

    pub(crate) fn backend_comes_or_goes(&mut self) {
        let n = self.random.below(BACKENDS as u64) as usize;
        match self.backends[n].take() {
            Some(peer) => self.network.close_datagram_peer(peer),
            None => self.backends[n] = Some(self.network.datagram_peer(backend_address(n))),
        }
    }

    /// The control plane says that sessions of a backend are not to stay there.
    pub(crate) fn sessions_are_to_leave(&mut self) {
        let reasons = [EndReason::BackendDown, EndReason::BackendRemoved, EndReason::Failback];
        let reason = reasons[self.random.below(3) as usize];
        let n = self.random.below(BACKENDS as u64) as usize;
        let now = self.clock_offset + Duration::from_nanos(self.runtime.handle().now().as_nanos());
        let backend = &self.snapshot.pools[0].view().backends[n];
        backend.orders.close_before(now.as_nanos() as u64, reason.index());
    }

    /// Each with its own number in front; now and then one keeps silent.
    pub(crate) fn backends_answer(&mut self) {
        for (n, peer) in self.backends.iter().enumerate() {
            let Some(peer) = *peer else { continue };
            while let Some(Letter {
                from, bytes, segment, ..
            }) = self.network.receive_letter(peer)
            {
                let each = segment.map_or(bytes.len(), usize::from);
                for bytes in bytes.chunks(each) {
                    self.requests_seen += 1;
                    let bytes = self.books.take_off(bytes, from);
                    if self.random.chance(100) {
                        continue;
                    }
                    let answer = [&[n as u8][..], bytes].concat();
                    self.network.send_letter(peer, from, &answer, None, 0);
                }
            }
        }
    }

    pub(crate) fn clients_look(&mut self) {
        let seed = self.seed;
        for (client, &peer) in self.clients.iter().enumerate() {
            while let Some(letter) = self.network.receive_letter(peer) {
                assert_eq!(letter.from, front(), "seed {seed}: an answer from elsewhere");
                // A train is handed over in one piece.
                let each = letter.segment.map_or(letter.bytes.len(), usize::from);
                for bytes in letter.bytes.chunks(each) {
                    let (backend, owner) = (bytes[0], bytes[1]);
                    assert_eq!(usize::from(owner), client, "seed {seed}: somebody else's answer");
                    assert!(!self.is_denied(client), "seed {seed}: who is denied is answered");
                    let number = u32::from_be_bytes(bytes[2..6].try_into().expect("four bytes"));
                    let named = bytes[6];
                    assert!(u64::from(named) < NAMED, "seed {seed}: other bytes");
                    assert!(
                        number < self.sent[client],
                        "seed {seed}: an answer to what was not asked"
                    );
                    assert!(bytes[7..].iter().all(|&byte| byte == 9), "seed {seed}: other bytes");
                    self.answers += 1;
                    self.last.insert((client, backend), number);
                }
            }
        }
    }

    fn is_denied(&self, client: usize) -> bool {
        let access = &self.snapshot.model.listeners[0].access;
        !access.is_open() && client == CLIENTS - 1
    }

    /// Opened less closed is what lives; what came in was passed on, or dropped for a reason.
    pub(crate) fn check_books(&self) {
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

    pub(crate) fn finish(mut self) -> (u64, u64, Network) {
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
            DropReason::UntrustedProxy,
            DropReason::BadProxyHeader,
            DropReason::Denied,
            DropReason::TooLong,
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

/// What backends know of those who ask them.
struct Books {
    seed: u64,
    shape: Shape,
    /// Whose datagrams each address has brought: client, and whom it named.
    owners: HashMap<SocketAddr, (u8, u8)>,
    /// Addresses that have brought a header.
    told: HashSet<SocketAddr>,
}

impl Books {
    /// Takes the header off, if there must be one, and checks what it and the payload say.
    fn take_off<'a>(&mut self, bytes: &'a [u8], from: SocketAddr) -> &'a [u8] {
        let seed = self.seed;
        let (front_part, payload) = match bytes.starts_with(SIGNATURE) {
            true => bytes.split_at(28),
            false => bytes.split_at(0),
        };
        let (client, named_one) = (payload[0], payload[5]);
        // Where only the first of a session has a header, those behind it are the same client's, whatever they say.
        let owner = (
            client,
            if self.shape.accepted == Per::Datagram {
                named_one
            } else {
                0
            },
        );
        let known = *self.owners.entry(from).or_insert(owner);
        assert_eq!(known, owner, "seed {seed}: two clients in one session");
        let is_told = !front_part.is_empty();
        match self.shape.sent {
            Per::Nothing => assert!(!is_told, "seed {seed}: a header that nobody asked for"),
            Per::Datagram => assert!(is_told, "seed {seed}: no header"),
            Per::Session => assert!(!is_told || self.told.insert(from), "seed {seed}: a second header"),
        }
        if is_told {
            let sender = address(10 + client, 4_000);
            let itself = header(sender, front());
            let its = |n| header(named(n), told());
            let is_right = match (self.shape.accepted, named_one) {
                (Per::Nothing, _) | (Per::Datagram, 0) => front_part == itself,
                (Per::Datagram, n) => front_part == its(n),
                (Per::Session, _) => front_part == itself || (1..NAMED as u8).any(|n| front_part == its(n)),
            };
            assert!(is_right, "seed {seed}: {from} brought {front_part:?} for {owner:?}");
        }
        payload
    }
}

/// Who is believed: all clients but the last.
fn trusted() -> NetworkSet {
    let networks = [(10, 31), (12, 31), (14, 32)];
    let network = |(last, prefix)| Cidr::containing(address(last, 0).ip(), prefix).expect("a prefix of IPv4");
    networks.map(network).into_iter().collect()
}

fn model(
    rules: Rules,
    on_backend_down: OnBackendDown,
    shape: Shape,
    change: impl FnOnce(&mut Listener, &mut Pool),
) -> Model {
    let mut listener = Listener {
        protocol: Protocol::Udp,
        udp: Udp {
            rules,
            ..Udp::default()
        },
        ..Listener::new("udp", model::Address::Inet(front()), PoolIndex(0))
    };
    listener.preface.proxy = (shape.accepted != Per::Nothing).then(|| ProxyProtocol {
        v1: false,
        v2: true,
        from: trusted(),
        each_datagram: shape.accepted == Per::Datagram,
    });
    let backend = |n| Backend::at(model::Address::Inet(backend_address(n)));
    let mut pool = Pool::new("pool", (0..BACKENDS).map(backend).collect());
    pool.sessions.on_backend_down = on_backend_down;
    pool.send_proxy = (shape.sent != Per::Nothing).then_some(SendProxy {
        version: ProxyVersion::V2,
        authority: false,
        alpn: false,
        unique_id: false,
        checksum: false,
        each_datagram: shape.sent == Per::Datagram,
    });
    change(&mut listener, &mut pool);
    Model::new(vec![listener], vec![pool])
}
