//! Who may use a TCP listener, over the simulated network: what is refused is reset, costs no session and reaches no
//! backend, and what it took is given back. Each world follows from its seed, which every failure names.

use ringway_core::access::{Access, Network as Block};
use ringway_core::backend::Registry;
use ringway_core::gate::{Cap, Gates};
use ringway_core::model::{self, Backend, Listener, Model, Pool, PoolIndex};
use ringway_core::reason::RefuseReason;
use ringway_core::session::ClientLimits;
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::{Counter, ListenerStats, WorkerStats};
use ringway_proxy::access::client_bounds;
use ringway_proxy::convert;
use ringway_proxy::observer::Nobody;
use ringway_proxy::state::{Orders, Parts, WorkerState, cancel_keys};
use ringway_proxy::tcp::accept::accept_all;
use ringway_proxy::unrouted::unrouted;
use ringway_runtime::sim::{Chances, Network, PeerId, PeerListener, Random, Read, Welcome};
use ringway_runtime::{BufferOptions, Handle, ListenOptions, Runtime, TaskId};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const BUFFERS: BufferOptions = BufferOptions { count: 16, size: 1024 };
const WORKERS: usize = 2;
/// Connections of one client at the same time.
const EACH_MAX: u32 = 3;
/// 10 a second, 4 at once.
const INTERVAL: Duration = Duration::from_millis(100);
const BURST: u32 = 4;

/// Addresses to connect from, and the client that each one is; `None`: denied.
const ADDRESSES: [(&str, Option<usize>); 8] = [
    ("10.0.0.1", Some(0)),
    ("10.0.0.2", Some(1)),
    ("::ffff:10.0.0.2", Some(1)),
    ("10.6.6.1", None),
    ("192.0.2.1", None),
    ("2001:db8::1", Some(2)),
    ("2001:db8::ffff:1", Some(2)),
    ("2001:db8:1::1", None),
];

fn front() -> model::Address {
    model::Address::Inet(SocketAddr::from(([192, 0, 2, 100], 5432)))
}

fn back() -> model::Address {
    model::Address::Inet(SocketAddr::from(([198, 51, 100, 1], 5432)))
}

fn block(address: &str, prefix: u8) -> Block {
    Block::containing(address.parse().expect("an address"), prefix).expect("a network")
}

fn listener(clients: ClientLimits) -> Listener {
    Listener {
        access: Access {
            allow: Some([block("10.0.0.0", 8), block("2001:db8::", 32)].into_iter().collect()),
            deny: [block("10.6.6.0", 24), block("2001:db8:1::", 48)].into_iter().collect(),
        },
        clients,
        ..Listener::new("listener", front(), PoolIndex(0))
    }
}

struct Worker {
    runtime: Runtime,
    state: Rc<WorkerState>,
    stats: Arc<WorkerStats>,
    orders: Arc<Orders>,
    main: TaskId,
}

struct World {
    seed: u64,
    random: Random,
    network: Network,
    gates: Arc<Gates>,
    workers: Vec<Worker>,
    backend: PeerListener,
    /// Connections that backends have accepted.
    served: Vec<PeerId>,
    connected: u64,
}

impl World {
    fn new(seed: u64, chances: Chances, clients: ClientLimits) -> Self {
        let mut random = Random::new(seed);
        let network = Network::new(random.bits(), chances);
        network.hold_clock(true);
        let pool = Pool::new("pool", vec![Backend::at(back())]);
        let model = Model::new(vec![listener(clients)], vec![pool]);
        let snapshot = Arc::new(Snapshot::new(model, &Registry::default(), WORKERS));
        let cap = Cap {
            max: u32::MAX,
            descriptors: 1,
            shares_ports: false,
        };
        let gates = Arc::new(Gates::new(10_000, 0, [cap]));
        let bounds = client_bounds(&snapshot.model);
        let clock_offset = Duration::from_secs(random.below(100));
        let worker = |index| {
            let runtime = Runtime::simulated(network.driver(BUFFERS));
            let handle = runtime.handle().clone();
            let (stats, orders) = (Arc::new(WorkerStats::new(1)), Arc::new(Orders::default()));
            let parts = Parts {
                index,
                snapshot: snapshot.clone(),
                stats: stats.clone(),
                gates: gates.clone(),
                clients: bounds.clone(),
                orders: orders.clone(),
                observer: Arc::new(Nobody),
                clock_offset,
                unrouted: unrouted(1, WORKERS),
                cancel_keys: cancel_keys(&snapshot.model),
                id_seed: 0,
            };
            let state = WorkerState::new(handle.clone(), parts);
            let main = handle.spawn(accept_all(state.clone(), handle.clone(), vec![vec![listen(&handle)]]));
            Worker {
                runtime,
                state,
                stats,
                orders,
                main,
            }
        };
        let workers = (0..WORKERS).map(worker).collect();
        let backend = network.listen_peer(&convert::address(&back()), |_| Welcome::Accept);
        Self {
            seed,
            random,
            network,
            gates,
            workers,
            backend,
            served: Vec::new(),
            connected: 0,
        }
    }

    /// Connects from an address; `None` if the kernel's queue is full.
    fn connect(&mut self, address: &str) -> Option<PeerId> {
        let ip: IpAddr = address.parse().expect("an address");
        let port = self.random.between(1_024, 65_000) as u16;
        let connected = self
            .network
            .connect_from(SocketAddr::new(ip, port), &convert::address(&front()));
        self.connected += u64::from(connected.is_ok());
        connected.ok()
    }

    fn turn(&mut self) -> bool {
        let mut busy = false;
        for worker in &self.workers {
            worker.runtime.turn(true);
            worker.state.publish_stats();
            busy |= worker.runtime.is_ready();
        }
        self.served
            .extend(std::iter::from_fn(|| self.network.accept_peer(self.backend)));
        busy | !self.network.is_idle()
    }

    /// Until nothing happens any more without time passing.
    fn settle(&mut self) {
        for _ in 0..200 {
            if !self.turn() {
                return;
            }
        }
        panic!("seed {}: it does not settle", self.seed);
    }

    fn sum(&self, counter: impl Fn(&ListenerStats) -> &Counter) -> u64 {
        let workers = self.workers.iter();
        workers
            .map(|worker| counter(&worker.stats.listeners[0]).value())
            .fold(0, u64::wrapping_add)
    }

    fn refused(&self) -> [u64; RefuseReason::COUNT] {
        std::array::from_fn(|reason| self.sum(|stats| &stats.refused[reason]))
    }

    fn is_reset(&self, peer: PeerId) -> bool {
        self.network.receive(peer, 1, &mut Vec::new()) == Read::Broken
    }

    /// What was begun has ended or is open; what is open has a permit.
    fn check_books(&self) {
        let seed = self.seed;
        let (begun, open) = (
            self.sum(|stats| &stats.connections_total),
            self.sum(|stats| &stats.connections),
        );
        let ended: u64 = (0..ringway_core::reason::EndReason::COUNT)
            .map(|reason| self.sum(|stats| &stats.ended[reason]))
            .sum();
        assert_eq!(begun - ended, open, "seed {seed}: sessions");
        assert!(
            u64::from(self.gates.open(0)) >= open,
            "seed {seed}: a session without a permit"
        );
    }

    /// Stops, resets what is left, and looks that nothing is.
    fn end(mut self) {
        let seed = self.seed;
        self.network.set_chances(Chances::CALM);
        for worker in &self.workers {
            worker.orders.stop_accepting();
            worker.orders.reset_relays();
            worker.runtime.handle().wake_all();
        }
        for _ in 0..1_000 {
            self.turn();
            self.network.advance(Duration::from_millis(1));
        }
        self.check_books();
        for worker in &self.workers {
            assert!(
                !worker.runtime.handle().is_alive(worker.main),
                "seed {seed}: a worker has not ended"
            );
        }
        assert_eq!(
            self.sum(|stats| &stats.connections),
            0,
            "seed {seed}: sessions are left"
        );
        assert_eq!(self.gates.open(0), 0, "seed {seed}: permits are left");
        let refused: u64 = self.refused().iter().sum();
        assert_eq!(
            self.sum(|stats| &stats.connections_total) + refused,
            self.connected,
            "seed {seed}: what came was served or refused"
        );
        if let Some(violation) = self.network.violation() {
            panic!("seed {seed}: {violation}");
        }
        let network = self.network.clone();
        drop(self);
        if let Err(left) = network.check_empty() {
            panic!("seed {seed}: {left}");
        }
    }
}

impl Drop for World {
    /// Runtimes that end wait for the clock, also when a test has failed.
    fn drop(&mut self) {
        self.network.hold_clock(false);
    }
}

fn listen(handle: &Handle) -> ringway_runtime::Listener {
    let listener = Listener::new("listener", front(), PoolIndex(0));
    let options = ListenOptions {
        backlog: 128,
        connection: convert::connection(&listener.keepalive),
    };
    let listening = handle.listen(&convert::address(&front()), &options);
    listening.expect("nobody else listens there").0
}

/// One client by the book: a bucket of tokens, in nanoseconds of credit, and the connections that it has.
struct Known {
    credit: Duration,
    filled: Duration,
    open: Vec<PeerId>,
}

impl Known {
    /// What it is told when it connects.
    fn connects(&mut self, now: Duration) -> Option<RefuseReason> {
        self.credit = (self.credit + (now - self.filled)).min(INTERVAL * BURST);
        self.filled = now;
        if self.open.len() as u32 == EACH_MAX {
            return Some(RefuseReason::ClientConnections);
        }
        match self.credit.checked_sub(INTERVAL) {
            Some(rest) => {
                self.credit = rest;
                None
            }
            None => Some(RefuseReason::ClientRate),
        }
    }
}

const BOTH: ClientLimits = ClientLimits {
    sessions: Some(EACH_MAX),
    interval: Some(INTERVAL),
    burst: BURST,
};

#[test]
fn each_connection_is_met_as_the_rules_say() {
    let mut told = [0; RefuseReason::COUNT];
    for seed in 0..200 {
        let mut world = World::new(seed, Chances::CALM, BOTH);
        let mut clients: Vec<Known> = (0..3)
            .map(|_| Known {
                credit: INTERVAL * BURST,
                filled: Duration::ZERO,
                open: Vec::new(),
            })
            .collect();
        let (start, mut expected) = (world.network.now(), [0; RefuseReason::COUNT]);
        for _ in 0..150 {
            match world.random.below(10) {
                0..=5 => {
                    let (address, client) = ADDRESSES[world.random.below(8) as usize];
                    let now = world.network.now().since(start);
                    let reason = match client {
                        Some(client) => clients[client].connects(now),
                        None => Some(RefuseReason::Denied),
                    };
                    let peer = world.connect(address).expect("room in the queue");
                    // Whoever may not be here may be quick.
                    let _ = world.network.send(peer, b"hello");
                    let served = world.served.len();
                    world.settle();
                    assert_eq!(
                        world.is_reset(peer),
                        reason.is_some(),
                        "seed {seed}: {address} at {now:?}"
                    );
                    assert_eq!(
                        world.served.len() - served,
                        usize::from(reason.is_none()),
                        "seed {seed}: connections to the backend"
                    );
                    match (reason, client) {
                        (None, Some(client)) => clients[client].open.push(peer),
                        (Some(reason), _) => expected[reason.index()] += 1,
                        (None, None) => unreachable!("who is denied has a reason"),
                    }
                    assert_eq!(world.refused(), expected, "seed {seed}: {address} at {now:?}");
                }
                6 | 7 => {
                    let client = &mut clients[world.random.below(3) as usize];
                    if let Some(peer) = client.open.pop() {
                        world.network.reset(peer);
                        world.settle();
                    }
                }
                _ => world
                    .network
                    .advance(Duration::from_micros(world.random.below(120_000))),
            }
            world.check_books();
            let open: usize = clients.iter().map(|client| client.open.len()).sum();
            assert_eq!(world.gates.open(0) as usize, open, "seed {seed}: permits");
        }
        for (sum, count) in told.iter_mut().zip(expected) {
            *sum += count;
        }
        world.end();
    }
    let [denied, connections, rate, proxy] = told;
    assert!(
        denied > 5_000 && connections > 3_000 && rate > 300 && proxy == 0,
        "{told:?}: too little was tested"
    );
}

/// Whatever the kernel does, nobody has more than is allowed, and not a byte of who is denied reaches a backend.
#[test]
fn bounds_hold_when_much_goes_wrong() {
    let (mut refused, mut served) = (0, 0);
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let chances = Chances::drawn(&mut random);
        let limits = ClientLimits {
            sessions: Some(EACH_MAX),
            ..ClientLimits::default()
        };
        let mut world = World::new(seed, chances, limits);
        let mut open: Vec<(PeerId, Option<usize>)> = Vec::new();
        // By the byte that each client sends first: 200 is of whoever is denied.
        let mut first_bytes: Vec<(PeerId, Option<u8>)> = Vec::new();
        for _ in 0..150 {
            if world.random.chance(600) {
                let (address, client) = ADDRESSES[world.random.below(8) as usize];
                if let Some(peer) = world.connect(address) {
                    let byte = client.map_or(200, |client| client as u8);
                    let _ = world.network.send(peer, &[byte]);
                    open.push((peer, client));
                }
            } else if !open.is_empty() {
                let (peer, _) = open.swap_remove(world.random.below(open.len() as u64) as usize);
                world.network.reset(peer);
            }
            for _ in 0..world.random.between(1, 4) {
                world.turn();
            }
            world.network.advance(Duration::from_micros(world.random.below(3_000)));
            open.retain(|(peer, _)| !world.network.is_broken(*peer));
            first_bytes.extend(world.served[first_bytes.len()..].iter().map(|&peer| (peer, None)));
            for (peer, byte) in first_bytes.iter_mut().filter(|(_, byte)| byte.is_none()) {
                let mut bytes = Vec::new();
                if let Read::Bytes(_) = world.network.receive(*peer, 1, &mut bytes) {
                    *byte = bytes.first().copied();
                }
            }
            for client in 0..3 {
                let alive = first_bytes
                    .iter()
                    .filter(|(peer, byte)| *byte == Some(client) && !world.network.is_broken(*peer));
                // Of those that were given up, the ends at the backend may still be on their way.
                let mine = open.iter().filter(|(_, owner)| *owner == Some(client.into())).count();
                assert!(
                    alive.count().min(mine) <= EACH_MAX as usize,
                    "seed {seed}: client {client}"
                );
            }
            assert!(
                first_bytes.iter().all(|(_, byte)| *byte != Some(200)),
                "seed {seed}: bytes of who is denied"
            );
            world.check_books();
        }
        refused += world.refused().iter().sum::<u64>();
        served += first_bytes.len();
        world.end();
    }
    assert!(
        refused > 3_000 && served > 3_000,
        "{refused} refused, {served} served: too little was tested"
    );
}
