//! One simulated world: workers that run the data plane's own code, interleaved by chance, between scripted clients and
//! backends.

use crate::actor::{Actor, Name};
use crate::control::Done;
use crate::ledger::{Heard, Met};
use crate::oracle;
use crate::plan::{Plan, backend_address, listener_address};
use ringway_core::backend::{BackendState, Registry};
use ringway_core::gate::{Cap, Gates};
use ringway_core::health::Report;
use ringway_core::snapshot::Snapshot;
use ringway_core::stats::WorkerStats;
use ringway_proxy::access::client_bounds;
use ringway_proxy::convert;
use ringway_proxy::observer::SessionRecord;
use ringway_proxy::state::{Orders, Parts, WorkerState, cancel_keys};
use ringway_proxy::tcp::accept::accept_all;
use ringway_proxy::unrouted::{UnroutedConnections, unrouted};
use ringway_runtime::sim::{Network, PeerId, PeerListener, Random};
use ringway_runtime::{BufferOptions, ListenOptions, Runtime, TaskId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Rounds of a world; the longest that is well needs a tenth.
const STEPS_MAX: u64 = 400_000;
/// Virtual time of a world; every limit of the configuration and every script is far shorter.
const TIME_MAX: Duration = Duration::from_secs(90);

/// Why a world is wrong, and in which of its steps that was seen.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: u64,
    pub(crate) text: String,
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
    pub(crate) registry: Registry,
    /// Parallel to the plan's tempers.
    pub(crate) states: Vec<Arc<BackendState>>,
    pub(crate) done: Done,
    heard: Arc<Heard>,
    /// Sessions that ended, and when.
    pub(crate) records: Vec<(Time, SessionRecord)>,
    /// How the connections to each backend were met. Parallel to `states`.
    pub(crate) met: Vec<Rc<Met>>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) workers: Vec<Worker>,
    backends: Vec<PeerListener>,
    pub(crate) clients: Vec<Actor>,
    pub(crate) served: Vec<Actor>,
    /// Parallel to `served`: which backend it is a connection of.
    pub(crate) served_by: Vec<usize>,
    by_peer: BTreeMap<PeerId, (bool, usize)>,
    /// Clients whose connection was refused because nobody listened any more.
    pub(crate) refused: usize,
    scripts: Random,
    chance: Random,
    pub(crate) start: Time,
    started: Vec<bool>,
    stopped: bool,
    resetting: bool,
    /// When the last relays were reset on the plan's order.
    pub(crate) reset_relays: bool,
    pub(crate) step: u64,
    /// Prints a line for each step.
    pub(crate) trace: bool,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let network = Network::new(plan.seed, plan.chances);
        network.hold_clock(true);
        let model = plan.model();
        let cap = Cap {
            max: plan.listener_max.unwrap_or(u32::MAX),
            descriptors: 1,
            shares_ports: false,
        };
        let gates = Arc::new(Gates::new(plan.connections_max, 0, [cap]));
        let registry = Registry::default();
        let snapshot = Arc::new(Snapshot::new(model, &registry, plan.workers));
        let heard = Arc::new(Heard::default());
        let shared = Shared {
            snapshot: &snapshot,
            gates: &gates,
            heard: &heard,
            unrouted: unrouted(1_000, plan.workers),
            clock_offset: plan.control.clock_offset,
        };
        let workers = (0..plan.workers).map(|n| worker(&network, &shared, n)).collect();
        if let Some(max) = plan.descriptors_max {
            network.limit_descriptors(max);
        }
        let met: Vec<Rc<Met>> = plan.tempers.iter().map(|_| Rc::default()).collect();
        let backends = plan.tempers.iter().zip(&met).enumerate().map(|(n, (&temper, met))| {
            let address = convert::address(&backend_address(n));
            let met = met.clone();
            network.listen_peer(&address, move |random| met.note(temper.welcome(random)))
        });
        let backends = backends.collect();
        let mut scripts = Random::new(plan.seed ^ 0x7363_7269_7074);
        let chance = scripts.fork();
        Self {
            start: network.now(),
            states: snapshot.pools[0].view().backends.to_vec(),
            done: Done::new(network.now(), plan.tempers.len()),
            registry,
            heard,
            records: Vec::new(),
            met,
            started: vec![false; plan.clients.len()],
            plan,
            network,
            snapshot,
            gates,
            workers,
            backends,
            clients: Vec::new(),
            served: Vec::new(),
            served_by: Vec::new(),
            by_peer: BTreeMap::new(),
            refused: 0,
            scripts,
            chance,
            stopped: false,
            resetting: false,
            reset_relays: false,
            step: 0,
            trace: false,
        }
    }

    fn print_step(&self) {
        let now = self.network.now().since(self.start);
        let actors = |actors: &[Actor]| -> Vec<String> {
            let open = actors.iter().filter(|actor| !actor.done);
            open.map(|actor| format!("{:?} {}>{}", actor.name, actor.sent, actor.received))
                .collect()
        };
        println!(
            "step {} at {now:?}: {:?} {:?}",
            self.step,
            actors(&self.clients),
            actors(&self.served)
        );
    }

    /// Runs until everything is over, then asks the oracle.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        let outcome = self
            .live()
            .and_then(|()| self.quiet_down())
            .and_then(|()| oracle::check(self));
        outcome.map_err(|text| Failure { step: self.step, text })
    }

    fn live(&mut self) -> Result<(), String> {
        loop {
            let busy = self.round()?;
            if self.trace {
                self.print_step();
            }
            if busy {
                let pause = self.chance.below(20_000);
                self.network.advance(Duration::from_nanos(pause));
                continue;
            }
            self.check_line()?;
            if self.is_over() {
                return Ok(());
            }
            let Some(next) = self.next_time() else {
                return Err(format!("nothing will ever happen any more\n{}", self.describe()));
            };
            self.network.advance_to(next);
            if next.since(self.start) > TIME_MAX {
                return Err(format!("not over after {TIME_MAX:?}\n{}", self.describe()));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stopped && self.workers.iter().all(|worker| !worker.is_running()) && self.actors().all(Actor::is_settled)
    }

    /// One round: actors, orders, and every worker that does not miss its turn. `true` if there is more to do now.
    fn round(&mut self) -> Result<bool, String> {
        self.step += 1;
        if self.step > STEPS_MAX {
            return Err(format!("not over after {STEPS_MAX} steps\n{}", self.describe()));
        }
        let mut busy = self.poll_actors()?;
        self.give_orders();
        self.act();
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        self.chance.shuffle(&mut order);
        for n in order {
            if self.chance.chance(self.plan.lazy) {
                busy = true;
                continue;
            }
            busy |= self.workers[n].turn();
        }
        // Whoever gives room back may wake a task of a worker that has had its turn.
        busy |= self.workers.iter().any(|worker| worker.runtime.is_ready());
        if let Some(violation) = self.network.violation() {
            return Err(violation);
        }
        let now = self.network.now();
        self.records
            .extend(self.heard.take_records().into_iter().map(|record| (now, record)));
        self.check_limits()?;
        Ok(busy || self.network.has_woken() || !self.network.is_idle())
    }

    fn poll_actors(&mut self) -> Result<bool, String> {
        let now = self.network.now();
        self.start_clients(now);
        self.accept_backends(now);
        let mut ready: BTreeSet<(bool, usize)> = BTreeSet::new();
        ready.extend(
            self.network
                .take_woken()
                .iter()
                .filter_map(|peer| self.by_peer.get(peer)),
        );
        for (is_client, actors) in [(true, &self.clients), (false, &self.served)] {
            let due = actors
                .iter()
                .enumerate()
                .filter(|(_, actor)| actor.wake_at.is_some_and(|at| at <= now));
            ready.extend(due.map(|(n, _)| (is_client, n)));
        }
        let busy = !ready.is_empty();
        for (is_client, n) in ready {
            let actors = if is_client { &mut self.clients } else { &mut self.served };
            actors[n].poll(&self.network)?;
        }
        Ok(busy)
    }

    fn start_clients(&mut self, now: Time) {
        let address = convert::address(&listener_address());
        for n in 0..self.plan.clients.len() {
            let client = &self.plan.clients[n];
            if self.started[n] || now < self.start + client.at {
                continue;
            }
            self.started[n] = true;
            match self.network.connect_from(client.source, &address) {
                Ok(peer) => {
                    self.by_peer.insert(peer, (true, self.clients.len()));
                    self.clients
                        .push(Actor::new(Name::Client(n as u16), peer, client.script.clone(), now));
                }
                Err(_) => self.refused += 1,
            }
        }
    }

    fn accept_backends(&mut self, now: Time) {
        for (backend, listener) in self.backends.iter().enumerate() {
            while let Some(peer) = self.network.accept_peer(*listener) {
                let n = self.served.len();
                let script = self.plan.backend_script(&mut self.scripts);
                self.by_peer.insert(peer, (false, n));
                let mut actor = Actor::new(Name::Backend(n as u16), peer, script, now);
                actor.wake_at = Some(now);
                self.served.push(actor);
                self.served_by.push(backend);
            }
        }
    }

    fn give_orders(&mut self) {
        let age = self.network.now().since(self.start);
        let everybody_served = self.started.iter().all(|&started| started) && self.actors().all(Actor::is_settled);
        if !self.stopped && (everybody_served || self.plan.stop_at.is_some_and(|at| age >= at)) {
            self.stopped = true;
            for worker in &self.workers {
                worker.orders.stop_accepting();
            }
            self.wake_all();
        }
        if !self.resetting && self.plan.reset_at.is_some_and(|at| age >= at) {
            self.resetting = true;
            self.reset_relays = true;
            for worker in &self.workers {
                worker.orders.reset_relays();
            }
            self.wake_all();
        }
    }

    /// Has every task look at what it was ordered.
    pub(crate) fn wake_all(&self) {
        for worker in &self.workers {
            worker.runtime.handle().wake_all();
        }
    }

    /// How often this was told of a backend.
    pub(crate) fn reports(&self, backend: usize, report: Report) -> u64 {
        self.heard.reports(backend, report)
    }

    /// When something happens next, if nobody does anything now.
    fn next_time(&self) -> Option<Time> {
        let now = self.network.now();
        let waiting = self
            .started
            .iter()
            .zip(&self.plan.clients)
            .filter(|(started, _)| !**started);
        let clients = waiting.map(|(_, client)| self.start + client.at);
        let orders = [(self.stopped, self.plan.stop_at), (self.resetting, self.plan.reset_at)];
        let orders = orders
            .into_iter()
            .filter(|(given, _)| !given)
            .filter_map(|(_, at)| at)
            .map(|at| self.start + at);
        let timers = self.workers.iter().filter_map(|worker| worker.runtime.next_deadline());
        let actors = self.actors().filter_map(|actor| actor.wake_at);
        let next = clients
            .chain(orders)
            .chain(timers)
            .chain(actors)
            .chain(self.network.next_event())
            .chain(self.next_act())
            .min();
        next.map(|next| next.max(now))
    }

    fn actors(&self) -> impl Iterator<Item = &Actor> {
        self.clients.iter().chain(&self.served)
    }

    /// Lets cancels that are late take effect.
    fn quiet_down(&mut self) -> Result<(), String> {
        for actor in self.clients.iter_mut().chain(&mut self.served) {
            actor.close(&self.network);
        }
        for _ in 0..1_000 {
            let busy = self.round()?;
            let left = self
                .workers
                .iter()
                .any(|worker| worker.runtime.handle().stats().operations > 0);
            if !busy && !left {
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
        let now = self.network.now();
        let mut lines: Vec<String> = self
            .actors()
            .map(|actor| format!("  {}", actor.describe(now)))
            .collect();
        for worker in &self.workers {
            let stats = worker.runtime.handle().stats();
            lines.push(format!("  connections {}: {stats:?}", worker.state.connections()));
        }
        lines.join("\n")
    }
}

impl Worker {
    fn is_running(&self) -> bool {
        self.runtime.handle().is_alive(self.main)
    }

    /// `true` if another turn would find something to do at once.
    fn turn(&self) -> bool {
        self.runtime.turn(true);
        self.state.relieve_buffers();
        self.state.publish_stats();
        self.runtime.is_ready()
    }
}

/// What the workers of a world have in common.
struct Shared<'a> {
    snapshot: &'a Arc<Snapshot>,
    gates: &'a Arc<Gates>,
    heard: &'a Arc<Heard>,
    unrouted: UnroutedConnections,
    clock_offset: Duration,
}

fn worker(network: &Network, shared: &Shared<'_>, index: usize) -> Worker {
    let snapshot = shared.snapshot;
    let buffers = snapshot.model.buffers;
    let options = BufferOptions {
        count: buffers.count,
        size: buffers.size,
    };
    let runtime = Runtime::simulated(network.driver(options));
    let handle = runtime.handle().clone();
    let listen = ListenOptions {
        backlog: 128,
        connection: convert::connection(&snapshot.model.listeners[0].keepalive),
    };
    let address = convert::address(&listener_address());
    let (listener, _) = handle.listen(&address, &listen).expect("nobody else listens there");
    let stats = Arc::new(WorkerStats::new(1));
    let orders = Arc::new(Orders::default());
    let parts = Parts {
        index,
        snapshot: snapshot.clone(),
        stats: stats.clone(),
        gates: shared.gates.clone(),
        clients: client_bounds(&snapshot.model),
        orders: orders.clone(),
        observer: shared.heard.clone(),
        clock_offset: shared.clock_offset,
        unrouted: shared.unrouted.clone(),
        cancel_keys: cancel_keys(&shared.snapshot.model),
        id_seed: 0,
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
