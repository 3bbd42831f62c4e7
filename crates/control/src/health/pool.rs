//! One pool in keeping: its judges, its probes, its names; publishes its view when who can be chosen changes.

use super::board::{BackendBoard, Board, LastProbe, PoolBoard};
use super::keeper::{Event, Means};
use super::schedule::{Planned, Schedule};
use crate::probe::ProbeError;
use crate::resolve::Outcome;
use ringway_core::backend::BackendState;
use ringway_core::balance::{Selector, Window};
use ringway_core::health::{Change, Condition, Membership, PoolHealth, Report};
use ringway_core::model::{self, BackendIndex, Balance, Failback, OnBackendDown, PoolIndex, Target};
use ringway_core::reason::EndReason;
use ringway_core::snapshot::PoolView;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;

/// One pool in keeping.
#[derive(Debug)]
pub(super) struct KeptPool {
    index: PoolIndex,
    health: PoolHealth,
    schedule: Option<Schedule>,
    /// By `BackendIndex`.
    planned: HashMap<usize, Planned>,
    /// By `BackendIndex`: the name whose address it is.
    names: HashMap<usize, Arc<str>>,
    /// Addresses that each name has now, by position in the configuration.
    found: BTreeMap<usize, HashSet<BackendIndex>>,
    windows: HashMap<usize, Window>,
    /// Connections made to the whole pool.
    connections: Window,
    on_backups: bool,
    /// Who can be chosen may be another than is published.
    dirty: bool,
    /// Went down since the last view; their sessions are closed once nothing new goes there.
    closing: Vec<Arc<BackendState>>,
}

impl KeptPool {
    /// Every backend that has an address, as it is in the snapshot; probes begin.
    pub(super) fn new(
        index: PoolIndex,
        means: &Means,
        events: &Sender<Event>,
        permits: &Arc<Semaphore>,
    ) -> Result<Self, String> {
        let model = &means.snapshot.model.pools[index.0];
        let health = PoolHealth::new(model);
        let check = model.health.check.as_ref();
        let schedule = check
            .map(|check| Schedule::new((check, model.send_proxy), index, events.clone(), permits.clone()))
            .transpose();
        let schedule = schedule.map_err(|error| format!("pool \"{}\": health_check: {error}", model.name))?;
        let mut pool = Self {
            index,
            health,
            schedule,
            planned: HashMap::new(),
            names: HashMap::new(),
            found: BTreeMap::new(),
            windows: HashMap::new(),
            connections: Window::default(),
            on_backups: false,
            dirty: true,
            closing: Vec::new(),
        };
        let view = means.snapshot.pools[index.0].view();
        let now = means.now();
        for state in &view.backends {
            let same = |backend: &&model::Backend| backend.target == Target::Address(state.address.clone());
            if let Some(backend) = model.backends.iter().find(same) {
                let membership = Membership {
                    weight: backend.weight,
                    backup: backend.backup,
                };
                pool.health.add(state.clone(), membership, false, now);
            }
        }
        for state in &view.backends {
            pool.probe_first(state, view.backends.len());
        }
        Ok(pool)
    }

    fn probe_first(&mut self, state: &Arc<BackendState>, count: usize) {
        if let Some(schedule) = &mut self.schedule {
            let name = self.names.get(&state.index.0);
            self.planned.insert(state.index.0, schedule.first(state, name, count));
        }
    }

    /// A probe ended.
    pub(super) fn probed(
        &mut self,
        backend: BackendIndex,
        outcome: Result<String, ProbeError>,
        took: Duration,
        means: &Means,
    ) {
        let Some(member) = self.health.member(backend) else {
            return;
        };
        let state = member.state.clone();
        let (passed, words): (Option<bool>, Arc<str>) = match outcome {
            Ok(words) => (Some(true), words.into()),
            Err(ProbeError::Failed(words)) => (Some(false), words.into()),
            Err(ProbeError::Local(words)) => (None, words.into()),
        };
        let change = passed.and_then(|passed| self.health.probed(backend, passed, &words, means.now()));
        self.with_board(&means.board, backend, |board| {
            match passed {
                Some(true) => board.probes.passed += 1,
                Some(false) => board.probes.failed += 1,
                None => board.probes.local += 1,
            }
            board.last_probe = Some(LastProbe {
                at: SystemTime::now(),
                passed: passed.unwrap_or(false),
                words: words.clone(),
            });
        });
        self.probe_next(backend, took);
        self.changed(change, &state, means);
    }

    /// Whoever leaves is not probed any more, also when a probe was under way as it began to.
    fn probe_next(&mut self, backend: BackendIndex, took: Duration) {
        let Some(member) = self.health.member(backend) else {
            return;
        };
        let Some(schedule) = &mut self.schedule else { return };
        if member.draining_since.is_none() {
            let name = self.names.get(&backend.0);
            let planned = schedule.next(&member.state, name, took, member.judge.is_changing());
            self.planned.insert(backend.0, planned);
        }
    }

    /// A worker met something.
    pub(super) fn met(&mut self, backend: BackendIndex, report: Report, means: &Means) {
        let was_usable = self.is_usable(backend);
        let change = self.health.met(backend, report, means.now());
        let Some(member) = self.health.member(backend) else {
            return;
        };
        let state = member.state.clone();
        if member.judge.awaits_success() {
            state.orders.watch();
        }
        if report.is_no_connection() && member.judge.is_on_trial() {
            // Too many others are out: it stays as it is.
            state.reopen_trial();
        }
        // One client was told, and all of them have it to know.
        let model = &means.snapshot.model.pools[self.index.0];
        let moves = model.sessions.on_backend_down == OnBackendDown::Move;
        // There is room for one order, and that to go home concerns TCP connections as well.
        let goes_home = |(_, reason)| reason == EndReason::Failback.index();
        let moves = moves && !state.orders.closes(0).is_some_and(goes_home);
        if report == Report::Unreachable && moves && was_usable && !self.is_usable(backend) {
            self.closing.push(state.clone());
        }
        if change.is_none() && was_usable != self.is_usable(backend) {
            // A trial that failed: the condition is the same, the choice is not.
            self.dirty = true;
        }
        self.changed(change, &state, means);
    }

    fn is_usable(&self, backend: BackendIndex) -> bool {
        self.health
            .member(backend)
            .is_some_and(|member| member.judge.is_usable())
    }

    fn changed(&mut self, change: Option<Change>, state: &Arc<BackendState>, means: &Means) {
        let Some(change) = change else { return };
        let model = &means.snapshot.model.pools[self.index.0];
        let (pool, backend) = (&*model.name, &*state.label);
        match change.to {
            Condition::Up => tracing::info!(pool, backend, "backend is up again: {}", change.why),
            Condition::Down => tracing::warn!(pool, backend, "backend is down: {}", change.why),
            Condition::Ejected => tracing::warn!(pool, backend, "backend is ejected: {}", change.why),
            Condition::Draining => tracing::info!(pool, backend, "backend is draining: {}", change.why),
        }
        self.dirty = true;
        let leaves = model.sessions.on_backend_down != OnBackendDown::Keep;
        if matches!(change.to, Condition::Down) && leaves {
            self.closing.push(state.clone());
        }
    }

    /// DNS said something of one of the names.
    pub(super) fn resolved(&mut self, position: usize, outcome: &Outcome, means: &Means) {
        let model = &means.snapshot.model.pools[self.index.0];
        let backend = &model.backends[position];
        let (pool, name) = (&*model.name, &*backend.label);
        let words = match outcome {
            Outcome::Found(found) => format!("{} address{}", found.len(), if found.len() == 1 { "" } else { "es" }),
            Outcome::Empty(words) => {
                tracing::warn!(pool, name, "the name has no address: {words}");
                words.clone()
            }
            Outcome::Failed(words) => {
                tracing::warn!(
                    pool,
                    name,
                    "the name cannot be resolved, what was known of it stays: {words}"
                );
                words.clone()
            }
        };
        let now = means.now();
        let first = !self.found.contains_key(&position);
        let before = self.addresses(position);
        match outcome {
            Outcome::Failed(_) => {
                self.found.entry(position).or_default();
            }
            Outcome::Empty(_) => self.replace(position, HashSet::new(), means),
            Outcome::Found(found) => {
                let mut indexes = HashSet::new();
                for one in found {
                    let address = model::Address::Inet(one.address);
                    let label: Arc<str> = format!("{}/{}", backend.label, one.address).into();
                    let state =
                        means
                            .registry
                            .backend(&model.name, &address, &label, backend.max_connections, means.workers);
                    if let Some(line) = &means.snapshot.pools[self.index.0].line {
                        state.wait_in(line);
                    }
                    let membership = Membership {
                        weight: one.weight.unwrap_or(backend.weight),
                        backup: backend.backup,
                    };
                    self.health.add(state.clone(), membership, !first, now);
                    self.names.insert(state.index.0, backend.label.clone());
                    indexes.insert(state.index);
                    // One that comes back before it has left is not probed any more either.
                    if !self.planned.contains_key(&state.index.0) {
                        self.probe_first(&state, found.len());
                    }
                }
                self.replace(position, indexes, means);
            }
        }
        let moved = moved(&before, &self.addresses(position));
        match moved {
            // At the start there may be thousands of names.
            Some(words) if first => tracing::debug!(pool, name, "the name was resolved: {words}"),
            Some(words) => tracing::info!(pool, name, "the name's addresses have changed: {words}"),
            None => {}
        }
        let is_resolved = self.found.get(&position).is_some_and(|found| !found.is_empty());
        if let Some(board) = means.board.pools()[self.index.0].names.get_mut(&position) {
            board.outcome = words;
            board.is_resolved = is_resolved;
        }
        self.dirty = true;
    }

    /// What a name stands for, in text, in order.
    fn addresses(&self, position: usize) -> BTreeSet<String> {
        let found = self.found.get(&position).into_iter().flatten();
        found
            .filter_map(|&backend| Some(self.health.member(backend)?.state.address.to_string()))
            .collect()
    }

    /// Addresses that no name and no line of the configuration has any more are drained.
    fn replace(&mut self, position: usize, indexes: HashSet<BackendIndex>, means: &Means) {
        let before = self.found.insert(position, indexes).unwrap_or_default();
        let model = &means.snapshot.model.pools[self.index.0];
        for gone in before {
            let named = self.found.values().any(|found| found.contains(&gone));
            let written = self.health.member(gone).is_some_and(|member| {
                let target = Target::Address(member.state.address.clone());
                model.backends.iter().any(|backend| backend.target == target)
            });
            if !named && !written {
                self.health.drain(gone, means.now());
                self.planned.remove(&gone.0);
            }
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, means: &Means) {
        let now = means.now();
        let mut changed = self.health.tick(now);
        // Of UDP sessions, which would never end as long as their clients send. Connections end by themselves.
        for gone in self.health.take_overdue(now, means.snapshot.model.drain_timeout) {
            gone.orders.close_before(nanos(now), EndReason::BackendRemoved.index());
        }
        // Not before workers were told: until then one may be chosen, and should be known.
        let drained = if self.dirty {
            Vec::new()
        } else {
            self.health.take_drained()
        };
        for gone in drained {
            let model = &means.snapshot.model.pools[self.index.0];
            means.registry.forget(&model.name, &gone.address);
            self.windows.remove(&gone.index.0);
            self.planned.remove(&gone.index.0);
            self.names.remove(&gone.index.0);
            changed = true;
        }
        self.dirty |= changed;
    }

    /// Publishes what backends carry; called at every [`Window::STEP`].
    pub(super) fn measure(&mut self, means: &Means) {
        let now = means.now();
        let mut rates = Vec::new();
        let mut connections = 0;
        for member in self.health.members() {
            let (mut bytes, mut made) = (0, 0);
            for stats in &member.state.workers {
                bytes += stats.bytes_from_clients.value() + stats.bytes_from_backends.value();
                made += stats.connections_total.value();
            }
            connections += made;
            let window = self.windows.entry(member.state.index.0).or_default();
            rates.push((member.state.clone(), window.step(bytes, now)));
        }
        let made = self.connections.step(connections, now);
        let total: u64 = rates.iter().map(|(_, rate)| rate).sum();
        // The window is a second long, so bytes per connection and second are bytes per connection.
        let per_choice = total.checked_div(made).unwrap_or(0);
        for (state, rate) in rates {
            state.orders.set_bytes_per_second(rate, per_choice);
        }
    }

    /// Whether [`Self::measure`] is of use.
    pub(super) fn is_measured(&self, means: &Means) -> bool {
        means.snapshot.model.pools[self.index.0].balance == Balance::LeastBandwidth
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn deadline(&self, means: &Means) -> Option<Duration> {
        let overdue = self.health.overdue_deadline(means.snapshot.model.drain_timeout);
        [self.health.deadline(means.now()), overdue].into_iter().flatten().min()
    }

    /// Lets workers see who can be chosen now, if that may have changed.
    pub(super) fn publish(&mut self, means: &Means) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let now = means.now();
        let model = &means.snapshot.model.pools[self.index.0];
        let candidates = self.health.candidates(now);
        for member in self.health.members() {
            member.state.orders.set_trial(member.judge.is_on_trial());
            if member.judge.awaits_success() {
                member.state.orders.watch();
            }
        }
        let selector = Selector::new(model, means.registry.tickets(&model.name), candidates);
        self.show(&selector, means);
        means.snapshot.pools[self.index.0].publish(PoolView {
            backends: self.health.members().map(|member| member.state.clone()).collect(),
            selector,
        });
        // After the view: whoever chooses now does not choose a backend whose sessions are closed.
        let closes = self.close_sessions(means);
        let fails_back = self.fail_back(means);
        if closes || fails_back {
            (means.wake_workers)();
        }
    }

    /// Sessions whose backend went down are closed. `true`: there may be some.
    fn close_sessions(&mut self, means: &Means) -> bool {
        let moment = nanos(means.now());
        let closing = std::mem::take(&mut self.closing);
        for state in &closing {
            state.orders.close_before(moment, EndReason::BackendDown.index());
        }
        !closing.is_empty()
    }

    /// Backends that are no backups are back: sessions on backups go home, unless their lifetime takes them there.
    /// `true`: there may be some.
    fn fail_back(&mut self, means: &Means) -> bool {
        let model = &means.snapshot.model.pools[self.index.0];
        let on_backups = self.health.is_on_backups();
        // With no backend left at all, backups do not serve either; nobody is back then.
        let is_back = || {
            self.health
                .members()
                .any(|member| !member.membership.backup && member.is_usable())
        };
        if on_backups == self.on_backups || !(on_backups || is_back()) {
            return false;
        }
        self.on_backups = on_backups;
        let pool = &*model.name;
        if self.on_backups {
            tracing::warn!(pool, "no backend is usable but backups: they serve now");
        } else {
            tracing::info!(pool, "backends that are no backups are usable again");
        }
        if model.sessions.failback == Failback::Manual || model.sessions.max_lifetime.is_some() {
            return false;
        }
        let (moment, reason) = (nanos(means.now()), EndReason::Failback.index());
        for member in self.health.members().filter(|member| member.membership.backup) {
            if self.on_backups {
                member.state.orders.withdraw_close(reason);
            } else if member.condition() != Condition::Down || model.sessions.on_backend_down == OnBackendDown::Keep {
                // Of others that are down sessions were ordered away at once, which this would put off.
                member.state.orders.close_before(moment, reason);
            }
        }
        !self.on_backups
    }

    fn with_board(&self, board: &Board, backend: BackendIndex, change: impl FnOnce(&mut BackendBoard)) {
        let mut pools = board.pools();
        let backends = &mut pools[self.index.0].backends;
        if let Some(board) = backends.iter_mut().find(|board| board.state.index == backend) {
            change(board);
        }
    }

    /// Writes what is known now on the board.
    fn show(&self, selector: &Selector, means: &Means) {
        let model = &means.snapshot.model.pools[self.index.0];
        let by_weight = matches!(model.balance, Balance::RoundRobin | Balance::IpHash);
        let weights: HashMap<usize, u32> = selector
            .candidates()
            .map(|(state, weight)| (state.index.0, weight))
            .collect();
        let sum: f64 = weights.values().map(|&weight| f64::from(weight)).sum();
        let mut pools = means.board.pools();
        let PoolBoard {
            usable,
            on_backups,
            backends,
            ..
        } = &mut pools[self.index.0];
        *usable = selector.eligible_len();
        *on_backups = self.health.is_on_backups();
        let mut before: HashMap<usize, BackendBoard> =
            backends.drain(..).map(|board| (board.state.index.0, board)).collect();
        for member in self.health.members() {
            let index = member.state.index.0;
            let (since, _, why) = member.judge.standing();
            let weight = u32::from(member.membership.weight);
            let backup = member.membership.backup;
            let name = self.names.get(&index).cloned();
            let mut board = before
                .remove(&index)
                .unwrap_or_else(|| BackendBoard::new(member.state.clone(), name, weight, backup, since));
            board.condition = member.condition();
            board.since = member.draining_since.unwrap_or(since);
            board.why = match member.draining_since {
                Some(_) => "its name has this address no more".into(),
                None => why.clone(),
            };
            board.weight = weight;
            let share = weights.get(&index).map_or(0.0, |&weight| f64::from(weight) / sum);
            board.share = by_weight.then_some(share);
            backends.push(board);
        }
    }
}

/// Addresses in one line of the log.
const LISTED_MAX: usize = 8;

/// In words what came and what went; `None`: nothing did.
fn moved(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Option<String> {
    let list = |from: &BTreeSet<String>, without: &BTreeSet<String>| {
        let listed: Vec<&str> = from.difference(without).map(String::as_str).collect();
        let left_out = listed.len().saturating_sub(LISTED_MAX);
        let words = listed[..listed.len() - left_out].join(", ");
        if left_out > 0 {
            format!("{words} and {left_out} more")
        } else {
            words
        }
    };
    let (came, gone) = (list(after, before), list(before, after));
    let words: Vec<String> = [("new: ", came), ("gone: ", gone)]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(what, list)| what.to_owned() + &list)
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// Of the shared clock; enough for 584 years.
fn nanos(moment: Duration) -> u64 {
    u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
