//! What the control plane does in a world: which backends can be chosen and how, limits, trials, orders. Drawn beside the
//! rest of the plan from a generator of its own, so that what older seeds draw stays as it is.

use crate::plan::Temper;
use ringway_core::balance::{Candidate, Selector};
use ringway_core::model::{Balance, HashAlgorithm, HashRule, Queue};
use ringway_core::reason::EndReason;
use ringway_core::snapshot::PoolView;
use ringway_runtime::Time;
use ringway_runtime::sim::Random;
use std::time::Duration;

use crate::world::World;

/// Sets this generator apart from the others of a seed. Chosen so that the seeds of `REGRESSIONS` that are older than
/// this file draw nothing here.
const SALT: u64 = 0x636f_6e74_726f_6c31;

/// One thing that the control plane does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// From now on these backends can be chosen, a bit each.
    View(u8),
    /// Switches a backend's trial on or off.
    Trial(usize, bool),
    /// Wants to hear of the next success.
    Watch(usize),
    /// Ends the sessions that have begun at a backend, for this reason.
    Close(usize, EndReason),
    /// Publishes a rate for least bandwidth.
    Measure(usize, u64),
}

/// What of the pool goes beyond the oldest worlds.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) balance: Balance,
    pub(crate) hash: HashRule,
    /// Parallel to the backends.
    pub(crate) weights: Vec<u16>,
    /// Parallel to the backends.
    pub(crate) connections_max: Vec<Option<u32>>,
    pub(crate) queue: Option<Queue>,
    pub(crate) max_lifetime: Option<Duration>,
    /// In the order of their times.
    pub(crate) acts: Vec<(Duration, Act)>,
    /// What the clock of the control plane shows when that of the workers shows 0.
    pub(crate) clock_offset: Duration,
}

impl Control {
    /// Does nothing.
    pub(crate) fn absent(balance: Balance, backends: usize) -> Self {
        Self {
            balance,
            hash: HashRule {
                algorithm: HashAlgorithm::Rendezvous,
                seed: 0,
                max_load: None,
            },
            weights: vec![1; backends],
            connections_max: vec![None; backends],
            queue: None,
            max_lifetime: None,
            acts: Vec::new(),
            clock_offset: Duration::ZERO,
        }
    }

    /// May add backends.
    pub(crate) fn drawn(seed: u64, balance: Balance, tempers: &mut Vec<Temper>) -> Self {
        let random = &mut Random::new(seed ^ SALT);
        if random.chance(400) {
            return Self::absent(balance, tempers.len());
        }
        for _ in 0..random.below(3) {
            tempers.push(Temper::drawn(random));
        }
        let count = tempers.len();
        let mut control = Self::absent(balances(random), count);
        control.clock_offset = Duration::from_millis(random.below(1_000_000));
        if random.chance(500) {
            control.hash.algorithm = HashAlgorithm::Maglev;
        }
        control.hash.max_load = random.chance(300).then(|| random.between(101, 200) as u16);
        if random.chance(500) {
            control.weights = (0..count).map(|_| random.between(1, 5) as u16).collect();
        }
        if random.chance(600) {
            let limited = [500, 1000][random.below(2) as usize];
            control.connections_max = (0..count)
                .map(|_| random.chance(limited).then(|| random.between(1, 3) as u32))
                .collect();
        }
        control.queue = random.chance(600).then(|| Queue {
            max: random.between(1, 6) as u32,
            timeout: Duration::from_millis(20 << random.below(8)),
        });
        control.max_lifetime = random
            .chance(200)
            .then(|| Duration::from_millis(random.between(300, 3_000)));
        if random.chance(600) {
            for _ in 0..random.between(1, 8) {
                control.add_act(random, count);
            }
            control.acts.sort_by_key(|(at, _)| *at);
        }
        control
    }

    fn add_act(&mut self, random: &mut Random, backends: usize) {
        let at = Duration::from_micros(random.below(1_500_000));
        let backend = random.below(backends as u64) as usize;
        let act = match random.below(10) {
            0..=2 => Act::View(if random.chance(150) {
                0
            } else {
                random.between(1, (1 << backends) - 1) as u8
            }),
            3 | 4 => {
                if random.chance(700) {
                    let later = at + Duration::from_micros(random.below(1_500_000));
                    self.acts.push((later, Act::Trial(backend, false)));
                }
                Act::Trial(backend, true)
            }
            5 | 6 => Act::Watch(backend),
            7 => Act::Close(backend, EndReason::BackendDown),
            8 => Act::Close(backend, EndReason::Failback),
            _ => Act::Measure(backend, random.below(1_000_000)),
        };
        self.acts.push((at, act));
    }

    /// All backends may be full, or kept for a trial.
    pub(crate) fn may_be_full(&self) -> bool {
        self.connections_max.iter().any(Option::is_some) || self.may_be_on_trial()
    }

    /// Backends may be kept for a trial.
    pub(crate) fn may_be_on_trial(&self) -> bool {
        let trial = |(_, act): &(Duration, Act)| matches!(act, Act::Trial(_, true));
        self.acts.iter().any(trial)
    }
}

fn balances(random: &mut Random) -> Balance {
    [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::LeastResponseTime,
        Balance::LeastBandwidth,
        Balance::IpHash,
        Balance::Random,
    ][random.below(6) as usize]
}

/// What the control plane has done so far, and what was seen of it.
#[derive(Debug)]
pub(crate) struct Done {
    /// Acts that are over.
    next: usize,
    /// Views and since when they are shown; the last one is shown now.
    pub(crate) views: Vec<(Time, u8)>,
    /// Which backend's sessions were to end, as of when, and why.
    pub(crate) orders: Vec<(usize, Time, EndReason)>,
    /// Parallel to the backends.
    pub(crate) backends: Vec<Backend>,
    waiting: usize,
    /// Connections that were seen to wait.
    pub(crate) waits: u64,
    /// Trials that were seen to be taken.
    pub(crate) trials: u64,
}

/// What the control plane keeps of one backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backend {
    /// How often it was watched.
    pub(crate) watches: u64,
    /// Connections that it had had when it was watched last.
    pub(crate) connected_before: Option<u64>,
    /// While there is a trial: the fewest connections since it began.
    fewest: Option<u32>,
}

impl Done {
    pub(crate) fn new(now: Time, backends: usize) -> Self {
        Self {
            next: 0,
            views: vec![(now, u8::MAX)],
            orders: Vec::new(),
            backends: vec![Backend::default(); backends],
            waiting: 0,
            waits: 0,
            trials: 0,
        }
    }

    /// Whether a backend could be chosen at some time between these two.
    pub(crate) fn was_shown(&self, backend: usize, from: Time, to: Time) -> bool {
        let ends = self.views.iter().skip(1).map(|(since, _)| Some(*since)).chain([None]);
        self.views
            .iter()
            .zip(ends)
            .any(|(&(since, view), end)| view >> backend & 1 == 1 && since <= to && end.is_none_or(|end| end >= from))
    }

    fn shown(&self) -> u8 {
        self.views.last().map_or(0, |(_, view)| *view)
    }
}

impl World {
    /// When the control plane acts next.
    pub(crate) fn next_act(&self) -> Option<Time> {
        let act = self.plan.control.acts.get(self.done.next)?;
        Some(self.start + act.0)
    }

    /// Does what is due.
    pub(crate) fn act(&mut self) {
        let now = self.network.now();
        while self.next_act().is_some_and(|at| at <= now) {
            let (_, act) = self.plan.control.acts[self.done.next];
            self.done.next += 1;
            if self.trace {
                println!("{act:?}");
            }
            match act {
                Act::View(view) => self.publish(view),
                Act::Trial(backend, on) => {
                    self.states[backend].orders.set_trial(on);
                    let kept = &mut self.done.backends[backend];
                    kept.fewest = on.then(|| kept.fewest.unwrap_or(self.states[backend].connections()));
                    // As the control plane does: whoever waits learns of it with the view.
                    self.publish(self.done.shown());
                }
                Act::Watch(backend) => {
                    self.states[backend].orders.watch();
                    let connected = self.connected(backend);
                    let kept = &mut self.done.backends[backend];
                    kept.watches += 1;
                    kept.connected_before = Some(connected);
                }
                Act::Close(backend, reason) => {
                    let moment = self.plan.control.clock_offset.as_nanos() as u64 + now.as_nanos();
                    self.states[backend].orders.close_before(moment, reason.index());
                    self.done.orders.push((backend, now, reason));
                    self.wake_all();
                }
                Act::Measure(backend, rate) => self.states[backend].orders.set_bytes_per_second(rate, rate / 8),
            }
        }
    }

    fn publish(&mut self, view: u8) {
        let pool = &self.snapshot.model.pools[0];
        let eligible = self.states.iter().enumerate().filter(|(n, _)| view >> n & 1 == 1);
        let candidates = eligible.map(|(n, state)| Candidate {
            state: state.clone(),
            weight: u32::from(self.plan.control.weights[n]),
        });
        let selector = Selector::new(pool, self.registry.tickets(&pool.name), candidates);
        self.snapshot.pools[0].publish(PoolView {
            backends: self.states.clone().into(),
            selector,
        });
        self.done.views.push((self.network.now(), view));
    }

    /// Connections that a backend has had.
    pub(crate) fn connected(&self, backend: usize) -> u64 {
        let workers = self.states[backend].workers.iter();
        workers.map(|stats| stats.connections_total.value()).sum()
    }

    /// What holds at any time.
    pub(crate) fn check_limits(&mut self) -> Result<(), String> {
        for (n, state) in self.states.iter().enumerate() {
            let open = state.connections();
            let max = self.plan.control.connections_max[n].unwrap_or(u32::MAX);
            if open > max {
                return Err(format!("backend {n} has {open} connections of at most {max}"));
            }
            let kept = &mut self.done.backends[n];
            if let Some(fewest) = &mut kept.fewest {
                *fewest = open.min(*fewest);
                if open > *fewest + 1 {
                    return Err(format!("backend {n} is tried by several connections at once"));
                }
                self.done.trials += u64::from(open < max && !state.has_room());
            }
        }
        let waiting = self.snapshot.pools[0].line.as_ref().map_or(0, |line| line.len());
        self.done.waits += waiting.saturating_sub(self.done.waiting) as u64;
        self.done.waiting = waiting;
        Ok(())
    }

    /// Nobody has anything to do: then nobody waits for room that is there.
    pub(crate) fn check_line(&self) -> Result<(), String> {
        // Whoever has failed at a backend waits for another one.
        let may_have_tried = self.plan.tries > 1 && self.plan.may_fail_to_connect();
        if self.done.waiting == 0 || may_have_tried {
            return Ok(());
        }
        let shown = self.done.shown();
        let mut eligible = self.states.iter().enumerate().filter(|(n, _)| shown >> n & 1 == 1);
        match eligible.find(|(_, state)| state.has_room()) {
            Some((n, _)) => Err(format!(
                "{} connections wait although backend {n} has room",
                self.done.waiting
            )),
            None => Ok(()),
        }
    }
}
