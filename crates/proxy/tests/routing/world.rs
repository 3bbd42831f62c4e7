//! One simulated world: workers that run the data plane's own code, interleaved by chance, between scripted clients and
//! backends.

use crate::backend::Served;
use crate::client::Actor;
use crate::forge;
use crate::oracle;
use crate::plan::{ID_SEED, Plan, backend_address, front};
use crate::story::Verdict;
use ringway_core::backend::{BackendState, Registry};
use ringway_core::gate::{Cap, Gates};
use ringway_core::health::Report;
use ringway_core::model::PoolIndex;
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::WorkerStats;
use ringway_proxy::access::{ClientBounds, client_bounds};
use ringway_proxy::convert;
use ringway_proxy::observer::{Observer, SessionRecord};
use ringway_proxy::state::{ListenerKeys, Orders, Parts, WorkerState, cancel_keys};
use ringway_proxy::tcp::accept::accept_all;
use ringway_proxy::unrouted::{UnroutedConnections, unrouted};
use ringway_runtime::sim::{Network, PeerId, PeerListener, Random};
use ringway_runtime::{Address, BufferOptions, ListenOptions, Runtime, TaskId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const STEPS_MAX: u64 = 200_000;
/// Every limit and every script is far shorter.
const TIME_MAX: Duration = Duration::from_secs(40);
/// Room for connections; more than any world has.
pub(crate) const CONNECTIONS_MAX: u32 = 100_000;

/// Keeps the records.
#[derive(Debug)]
struct Heard {
    logs: bool,
    records: Mutex<Vec<SessionRecord>>,
}

impl Observer for Heard {
    fn met(&self, _: PoolIndex, backend: &Arc<BackendState>, report: Report) {
        if report.is_no_connection() {
            backend.reopen_trial();
        }
    }

    fn logs_sessions(&self) -> bool {
        self.logs
    }

    fn ended(&self, records: &mut Vec<SessionRecord>) {
        let mut kept = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        kept.append(records);
    }
}

pub(crate) struct Worker {
    pub(crate) runtime: Runtime,
    pub(crate) state: Rc<WorkerState>,
    pub(crate) stats: Arc<WorkerStats>,
    orders: Arc<Orders>,
    main: TaskId,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) snapshot: Arc<Snapshot>,
    heard: Arc<Heard>,
    /// Sessions that ended, and when.
    pub(crate) records: Vec<(Time, SessionRecord)>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) bounds: ClientBounds,
    pub(crate) unrouted: UnroutedConnections,
    pub(crate) keys: ListenerKeys,
    pub(crate) workers: Vec<Worker>,
    backends: Vec<(usize, usize, PeerListener)>,
    /// Parallel to the plan's clients; `None`: not begun, or nobody listened any more.
    pub(crate) clients: Vec<Option<Actor>>,
    begun: Vec<bool>,
    pub(crate) served: Vec<Served>,
    /// Parallel to the clients: the connection whose key a CancelRequest carries.
    pub(crate) cancels: Vec<Option<usize>>,
    by_peer: BTreeMap<PeerId, (bool, usize)>,
    chance: Random,
    pub(crate) start: Time,
    stopped: bool,
    pub(crate) reset_at: Option<Time>,
    pub(crate) step: u64,
    pub(crate) trace: bool,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let network = Network::new(plan.seed, plan.chances);
        network.hold_clock(true);
        let model = plan.model();
        let cap = Cap {
            max: u32::MAX,
            descriptors: 1,
            shares_ports: false,
        };
        let gates = Arc::new(Gates::new(CONNECTIONS_MAX, 0, [cap]));
        let snapshot = Arc::new(Snapshot::new(model, &Registry::default(), plan.workers));
        let mut world = Self {
            heard: Arc::new(Heard {
                logs: plan.logs,
                records: Mutex::default(),
            }),
            records: Vec::new(),
            gates,
            bounds: client_bounds(&snapshot.model),
            unrouted: unrouted(plan.unrouted_max, plan.workers),
            keys: cancel_keys(&snapshot.model),
            snapshot,
            workers: Vec::new(),
            backends: Vec::new(),
            clients: plan.clients.iter().map(|_| None).collect(),
            begun: vec![false; plan.clients.len()],
            served: Vec::new(),
            cancels: vec![None; plan.clients.len()],
            by_peer: BTreeMap::new(),
            chance: Random::new(plan.seed ^ 0x6368_616e_6365),
            start: network.now(),
            stopped: false,
            reset_at: None,
            step: 0,
            trace: false,
            plan,
            network,
        };
        world.workers = (0..world.plan.workers).map(|n| world.worker(n)).collect();
        for (pool, plan) in world.plan.pools.iter().enumerate() {
            for (n, temper) in plan.backends.iter().enumerate() {
                let (address, welcome) = (Address::Inet(backend_address(pool, n)), temper.welcome);
                let listener = world.network.listen_peer(&address, move |_| welcome);
                world.backends.push((pool, n, listener));
            }
        }
        world
    }

    fn worker(&self, index: usize) -> Worker {
        let buffers = self.plan.buffers;
        let options = BufferOptions {
            count: buffers.count,
            size: buffers.size,
        };
        let runtime = Runtime::simulated(self.network.driver(options));
        let handle = runtime.handle().clone();
        let listen = ListenOptions {
            backlog: 128,
            connection: convert::connection(&self.snapshot.model.listeners[0].keepalive),
        };
        let listened = handle.listen(&Address::Inet(front()), &listen);
        let (listener, _) = listened.expect("nobody else listens there");
        let (stats, orders) = (Arc::new(WorkerStats::new(1)), Arc::new(Orders::default()));
        let parts = Parts {
            index,
            snapshot: self.snapshot.clone(),
            stats: stats.clone(),
            gates: self.gates.clone(),
            clients: self.bounds.clone(),
            orders: orders.clone(),
            observer: self.heard.clone(),
            clock_offset: Duration::from_secs(7),
            unrouted: self.unrouted.clone(),
            cancel_keys: self.keys.clone(),
            id_seed: ID_SEED,
        };
        let state = WorkerState::new(handle.clone(), parts);
        let main = handle.spawn(accept_all(state.clone(), handle.clone(), vec![vec![listener]]));
        Worker {
            runtime,
            state,
            stats,
            orders,
            main,
        }
    }

    /// Runs until everything is over, then asks the oracle.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.live()?;
        self.quiet_down()?;
        oracle::check(self)
    }

    fn live(&mut self) -> Result<(), String> {
        loop {
            let busy = self.round()?;
            if busy {
                let pause = self.chance.below(20_000);
                self.network.advance(Duration::from_nanos(pause));
                continue;
            }
            if self.stopped && self.workers.iter().all(|worker| !worker.is_running()) && self.all_are_done() {
                return Ok(());
            }
            self.check_buffers()?;
            let Some(next) = self.next_time() else {
                return Err(format!("nothing will ever happen any more\n{}", self.describe()));
            };
            self.network.advance_to(next);
            // Whoever has waited looks at the clock before anything else, be it woken by another worker.
            self.workers.iter().for_each(|worker| worker.runtime.turn(false));
            if next.since(self.start) > TIME_MAX {
                return Err(format!("not over after {TIME_MAX:?}\n{}", self.describe()));
            }
        }
    }

    /// One round: actors, orders, and every worker that does not miss its turn. `true` if there is more to do now.
    fn round(&mut self) -> Result<bool, String> {
        self.step += 1;
        if self.step > STEPS_MAX {
            return Err(format!("not over after {STEPS_MAX} steps\n{}", self.describe()));
        }
        let mut busy = self.poll_actors();
        self.give_orders();
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        self.chance.shuffle(&mut order);
        for n in order {
            if self.chance.chance(self.plan.lazy) {
                busy = true;
                continue;
            }
            busy |= self.workers[n].turn();
        }
        busy |= self.workers.iter().any(|worker| worker.runtime.is_ready());
        if let Some(violation) = self.network.violation() {
            return Err(violation);
        }
        let now = self.network.now();
        let mut heard = self.heard.records.lock().unwrap_or_else(PoisonError::into_inner);
        if self.trace {
            heard.iter().for_each(|record| println!("{now:?}: {record:?}"));
        }
        self.records.extend(heard.drain(..).map(|record| (now, record)));
        drop(heard);
        let waiting: usize = (0..self.workers.len()).map(|n| self.unrouted.len(n)).sum();
        if waiting > self.plan.unrouted_max as usize {
            let max = self.plan.unrouted_max;
            return Err(format!("{waiting} connections of at most {max} wait to be routed"));
        }
        Ok(busy || self.network.has_woken() || !self.network.is_idle())
    }

    /// Nobody has anything to do: then those that wait to be routed hold no buffers.
    fn check_buffers(&self) -> Result<(), String> {
        for (n, worker) in self.workers.iter().enumerate() {
            let held = worker.runtime.handle().stats().buffers_out;
            if held > 0 && worker.state.connections() == self.unrouted.len(n) as u64 {
                return Err(format!(
                    "{held} buffers are held by those that wait\n{}",
                    self.describe()
                ));
            }
        }
        Ok(())
    }

    fn poll_actors(&mut self) -> bool {
        let now = self.network.now();
        self.begin_clients(now);
        self.accept_backends(now);
        let mut ready: BTreeSet<(bool, usize)> = BTreeSet::new();
        let woken = self.network.take_woken();
        ready.extend(woken.iter().filter_map(|peer| self.by_peer.get(peer)));
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let clients = self.clients.iter().enumerate();
        ready.extend(
            clients
                .filter(|(_, client)| client.as_ref().is_some_and(|client| is_due(client.wake_at)))
                .map(|(n, _)| (true, n)),
        );
        let served = self.served.iter().enumerate();
        ready.extend(
            served
                .filter(|(_, served)| is_due(served.wake_at))
                .map(|(n, _)| (false, n)),
        );
        for &(is_client, n) in &ready {
            if !is_client {
                self.served[n].poll(&self.network, &mut self.chance);
            } else if let Some(client) = &mut self.clients[n] {
                client.poll(&self.plan.clients[n], &self.network);
            }
        }
        !ready.is_empty()
    }

    fn begin_clients(&mut self, now: Time) {
        for n in 0..self.plan.clients.len() {
            if self.begun[n] || now < self.start + self.plan.clients[n].at {
                continue;
            }
            self.begun[n] = true;
            let mut stream = self.plan.clients[n].stream.clone();
            if let Verdict::Cancel(target) = self.plan.clients[n].story.verdict {
                let (issuer, request) = self.request(target);
                self.cancels[n] = issuer;
                stream.extend(&request);
                let story = &mut self.plan.clients[n].story;
                story.needs = stream.len();
            }
            let source = self.plan.clients[n].source;
            if let Ok(peer) = self.network.connect_from(source, &Address::Inet(front())) {
                self.by_peer.insert(peer, (true, n));
                self.clients[n] = Some(Actor::new(peer, stream, now));
            }
        }
    }

    /// The CancelRequest with the key that a client has received, and whose it is; with another key if it has none.
    fn request(&self, target: usize) -> (Option<usize>, Vec<u8>) {
        let heard = self.clients[target].as_ref().map_or(&[][..], |client| &client.received);
        let issuer = self.served.iter().find(|served| {
            let (pid, key) = served.key();
            let issued = forge::key_data(pid, &key);
            heard.windows(issued.len()).any(|window| window == issued)
        });
        match issuer {
            Some(served) => {
                let (pid, key) = served.key();
                (Some(served.number), forge::cancel_request(pid, &key))
            }
            None => (None, forge::cancel_request(9, b"none")),
        }
    }

    fn accept_backends(&mut self, now: Time) {
        for &(pool, backend, listener) in &self.backends {
            while let Some(peer) = self.network.accept_peer(listener) {
                let plan = &self.plan.pools[pool];
                let number = self.served.len();
                self.by_peer.insert(peer, (false, number));
                let manner = (plan.backends[backend], self.plan.speech, plan.send.is_some());
                self.served
                    .push(Served::new((peer, number), (pool, backend), manner, now));
            }
        }
    }

    fn all_are_done(&self) -> bool {
        let mut clients = self.clients.iter().flatten();
        clients.all(|client| client.done) && self.served.iter().all(|served| served.done)
    }

    fn give_orders(&mut self) {
        let now = self.network.now();
        if !self.stopped && self.begun.iter().all(|&begun| begun) && self.all_are_done() {
            self.stopped = true;
            self.order(Orders::stop_accepting);
        }
        let due = self.plan.reset_at.is_some_and(|at| now >= self.start + at);
        if due && self.reset_at.is_none() {
            self.reset_at = Some(now);
            self.stopped = true;
            self.order(Orders::stop_accepting);
            self.order(Orders::reset_relays);
        }
    }

    fn order(&self, give: impl Fn(&Orders)) {
        for worker in &self.workers {
            // Who is woken from outside looks at the clock first.
            worker.turn();
            give(&worker.orders);
            worker.runtime.handle().wake_all();
        }
    }

    /// When something happens next, if nobody does anything now.
    fn next_time(&self) -> Option<Time> {
        let waiting = self.begun.iter().zip(&self.plan.clients).filter(|(begun, _)| !**begun);
        let begins = waiting.map(|(_, client)| self.start + client.at);
        let reset = self.plan.reset_at.filter(|_| self.reset_at.is_none());
        let timers = self.workers.iter().filter_map(|worker| worker.runtime.next_deadline());
        let clients = self.clients.iter().flatten().filter_map(|client| client.wake_at);
        let served = self.served.iter().filter_map(|served| served.wake_at);
        let next = begins
            .chain(reset.map(|at| self.start + at))
            .chain(timers)
            .chain(clients)
            .chain(served)
            .chain(self.network.next_event())
            .min();
        next.map(|next| next.max(self.network.now()))
    }

    /// Lets cancels that are late take effect.
    fn quiet_down(&mut self) -> Result<(), String> {
        for client in self.clients.iter_mut().flatten() {
            client.close(&self.network);
        }
        self.served.iter_mut().for_each(|served| served.close(&self.network));
        for _ in 0..1_000 {
            let busy = self.round()?;
            let operations = |worker: &Worker| worker.runtime.handle().stats().operations;
            if !busy && self.workers.iter().all(|worker| operations(worker) == 0) {
                return Ok(());
            }
            self.network.advance(Duration::from_micros(100));
        }
        Ok(())
    }

    /// After the oracle: ends the runtimes and looks whether anything is left.
    pub(crate) fn end(self) -> Result<(), String> {
        let network = self.network.clone();
        network.hold_clock(false);
        drop(self);
        network.violation().map_or_else(|| network.check_empty(), Err)
    }

    pub(crate) fn describe(&self) -> String {
        let mut lines = Vec::new();
        for (n, client) in self.clients.iter().enumerate() {
            let Some(client) = client else { continue };
            lines.push(format!(
                "  client {n}: sent {} of {}, received {:?}, saw {:?} at {:?}, shut {:?}, reset {:?}, done {}",
                client.sent,
                client.stream.len(),
                head(&client.received),
                client.saw,
                client.saw_at,
                client.shut_at,
                client.reset_at,
                client.done
            ));
        }
        for served in &self.served {
            lines.push(format!(
                "  served {} of {}/{}: received {:?}, sent {} of {}, saw {:?}, done {}",
                served.number,
                served.pool,
                served.backend,
                head(&served.received),
                served.sent,
                served.says.len(),
                served.saw,
                served.done
            ));
        }
        for (at, record) in &self.records {
            lines.push(format!("  at {at:?}: {}", oracle::describe(record)));
        }
        lines.join("\n")
    }
}

/// Its length and its beginning.
fn head(bytes: &[u8]) -> (usize, String) {
    let text = bytes.iter().take(60).flat_map(|byte| std::ascii::escape_default(*byte));
    (bytes.len(), text.map(char::from).collect())
}

impl Worker {
    fn is_running(&self) -> bool {
        self.runtime.handle().is_alive(self.main)
    }

    fn turn(&self) -> bool {
        self.runtime.turn(true);
        self.state.relieve_buffers();
        self.state.publish_stats();
        self.runtime.is_ready()
    }
}
