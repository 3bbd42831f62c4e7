//! What workers told of backends and of ended sessions, compared with what the actors did and with the counters.
//!
//! Each accepted connection leaves one record, and each failed connect one report; both agree with what happened, as far
//! as the actors can know it.

use crate::actor::{Actor, Name};
use crate::oracle::Pair;
use crate::plan::CONNECT_TIMEOUT;
use crate::world::World;
use ringway_core::backend::BackendState;
use ringway_core::health::Report;
use ringway_core::model::PoolIndex;
use ringway_core::reason::{Blame, ConnectError, EndReason};
use ringway_proxy::observer::{Observer, SessionRecord};
use ringway_runtime::sim::Welcome;
use ringway_runtime::{Address, Time};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the network, late operations and workers that miss their turns may take at most before something is seen.
const SEEN_WITHIN: Duration = Duration::from_millis(100);
/// The same for what a relay does by its timer.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes that came before a reset may take this long to be delivered.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Over this time sessions on backups are closed.
const FAILBACK_SPREAD: Duration = Duration::from_secs(60);

/// Keeps all that is told.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    reports: Vec<(usize, Report)>,
    records: Vec<SessionRecord>,
}

impl Heard {
    fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn take_records(&self) -> Vec<SessionRecord> {
        self.with(|kept| std::mem::take(&mut kept.records))
    }

    pub(crate) fn reports(&self, backend: usize, report: Report) -> u64 {
        self.with(|kept| kept.reports.iter().filter(|told| **told == (backend, report)).count() as u64)
    }
}

impl Observer for Heard {
    fn met(&self, pool: PoolIndex, backend: &Arc<BackendState>, report: Report) {
        if report == Report::ConnectFailed {
            // As the keeper does when the failure changes nothing.
            backend.reopen_trial();
        }
        assert_eq!(pool, PoolIndex(0), "there is one pool");
        self.with(|kept| kept.reports.push((backend.index.0, report)));
    }

    fn logs_sessions(&self) -> bool {
        true
    }

    fn ended(&self, records: &mut Vec<SessionRecord>) {
        self.with(|kept| kept.records.append(records));
    }
}

/// How the connections to one backend were met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Refused, not answered, not reached.
    failed: Cell<u64>,
    /// Late, or reset at once: the connect may have failed.
    unclear: Cell<u64>,
}

impl Met {
    pub(crate) fn note(&self, welcome: Welcome) -> Welcome {
        let count = match welcome {
            Welcome::Accept => return welcome,
            Welcome::Refuse | Welcome::Silence | Welcome::Unreachable => &self.failed,
            Welcome::Late(_) | Welcome::Reset => &self.unclear,
        };
        count.set(count.get() + 1);
        welcome
    }
}

/// A session's record and when it ended.
pub(crate) type Entry = (Time, SessionRecord);

/// A record in short, for a report.
pub(crate) fn describe((end, record): &Entry) -> String {
    let backend = record.backend.as_ref().map(|backend| backend.index.0);
    format!(
        "record: ended as {} at {end:?} after {:?}, backend {backend:?} in try {}, connect {:?}, bytes {} and {}, {:?}",
        record.reason.label(),
        record.duration,
        record.tries,
        record.connect_time,
        record.bytes_from_client,
        record.bytes_from_backend,
        record.client,
    )
}

/// The record of each client; none for those that were not served, or were gone before they were asked who they are.
pub(crate) fn by_client(world: &World) -> Result<BTreeMap<Name, &Entry>, String> {
    let mut clients: BTreeMap<SocketAddr, Vec<Name>> = BTreeMap::new();
    for client in &world.clients {
        let Name::Client(n) = client.name else { continue };
        let source = world.plan.clients[usize::from(n)].source;
        clients.entry(source).or_default().push(client.name);
    }
    let mut entries = BTreeMap::new();
    for entry in &world.records {
        let Some(Address::Inet(source)) = &entry.1.client else {
            continue;
        };
        match clients.get(source).map(|names| &names[..]) {
            None => return Err(format!("nobody connected from {source}\n{}", describe(entry))),
            Some(&[name]) => {
                if entries.insert(name, entry).is_some() {
                    return Err(format!("{name:?} left two records"));
                }
            }
            // Two from one address: not told apart.
            Some(_) => {}
        }
    }
    Ok(entries)
}

pub(crate) fn check(world: &World, pairs: &[Pair<'_>]) -> Result<(), String> {
    everybody(world, pairs)?;
    for entry in &world.records {
        plausible(world, entry)?;
    }
    for pair in pairs {
        if let Some(entry) = pair.entry {
            agrees(world, pair, entry).map_err(|text| format!("{text}\n{}", describe(entry)))?;
            in_time(world, pair, entry).map_err(|text| format!("{text}\n{}", describe(entry)))?;
            by_order(world, pair, entry).map_err(|text| format!("{text}\n{}", describe(entry)))?;
        }
    }
    for backend in 0..world.states.len() {
        counters(world, backend)?;
        connects(world, backend)?;
        early_ends(world, pairs, backend)?;
        watches(world, backend)?;
    }
    sums(world)
}

/// One record for each session.
fn everybody(world: &World, pairs: &[Pair<'_>]) -> Result<(), String> {
    for &reason in EndReason::ALL {
        let stats = world.workers.iter().map(|worker| &worker.stats.listeners[0]);
        let booked: u64 = stats.map(|stats| stats.ended[reason.index()].value()).sum();
        let records = world.records.iter().filter(|(_, record)| record.reason == reason);
        let recorded = records.count() as u64;
        if booked != recorded {
            return Err(format!(
                "{booked} connections ended as {} and left {recorded} records",
                reason.label()
            ));
        }
    }
    let nameless = world.records.len() - pairs.iter().filter(|pair| pair.entry.is_some()).count();
    let missing = pairs.iter().filter(|pair| pair.entry.is_none()).count();
    if missing > nameless && !world.reset_relays {
        return Err(format!(
            "{missing} clients left no record, and {nameless} records are of nobody known"
        ));
    }
    Ok(())
}

/// Whether a relay ended so, and not something before it.
fn is_of_relay(reason: EndReason) -> Option<bool> {
    match reason {
        EndReason::Finished
        | EndReason::IdleTimeout
        | EndReason::HalfClosedTimeout
        | EndReason::BackendReset
        | EndReason::ClientGone
        | EndReason::BackendGone
        | EndReason::MaxLifetime
        | EndReason::BackendDown
        | EndReason::BackendRemoved
        | EndReason::Failback
        | EndReason::SessionTimeout => Some(true),
        EndReason::ConnectFailed
        | EndReason::NoBackend
        | EndReason::BackendsFull
        | EndReason::QueueFull
        | EndReason::QueueTimeout
        | EndReason::LocalError
        | EndReason::RoutingTimeout
        | EndReason::ClientLeft
        | EndReason::BadHello
        | EndReason::HelloTooLarge
        | EndReason::NoRoute
        | EndReason::BadProxyHeader
        | EndReason::BadStartup
        | EndReason::StarttlsRefused
        | EndReason::Displaced
        | EndReason::Refused => Some(false),
        EndReason::ClientReset | EndReason::DrainDeadline | EndReason::Panicked => None,
    }
}

/// A record does not contradict itself or the plan.
fn plausible(world: &World, entry: &Entry) -> Result<(), String> {
    let record = &entry.1;
    let connected = record.connect_time.is_some();
    let quiet = record.bytes_from_client == 0 && record.bytes_from_backend == 0;
    let right = record.listener == 0
        && record.pool == Some(PoolIndex(0))
        && record.tries <= world.plan.tries
        && record.backend.is_some() == (record.tries > 0)
        && (record.backend.is_some() || !connected)
        && (connected || quiet)
        && is_of_relay(record.reason).is_none_or(|relay| relay == connected)
        && record
            .connect_time
            .is_none_or(|time| time <= record.duration && time <= CONNECT_TIMEOUT + SEEN_WITHIN)
        && (record.client.is_some() || (!connected && record.reason == EndReason::ClientReset))
        && (record.reason != EndReason::NoBackend || record.tries == 0)
        && (record.reason != EndReason::ConnectFailed || record.tries > 0);
    // All tasks look at an order at once, those that are still connecting once they have connected.
    let by_order = |&(backend, at, reason): &(usize, Time, EndReason)| {
        let soon = at + record.connect_time.unwrap_or_default() + SEEN_WITHIN;
        let is_of_this = record.backend.as_ref().is_some_and(|it| it.index.0 == backend);
        reason == EndReason::BackendDown && is_of_this && at <= entry.0 && entry.0 <= soon
    };
    if record.reason == EndReason::BackendDown && !world.done.orders.iter().any(by_order) {
        return Err(format!(
            "no order ended it: {:?}\n{}",
            world.done.orders,
            describe(entry)
        ));
    }
    if right {
        Ok(())
    } else {
        Err(format!("it contradicts itself\n{}", describe(entry)))
    }
}

/// A record agrees with what its actors did and saw.
fn agrees(world: &World, pair: &Pair<'_>, (_, record): &Entry) -> Result<(), String> {
    let client = pair.client;
    if record.bytes_from_client > client.sent || record.bytes_from_backend < client.received {
        return Err(format!(
            "{:?} sent {} bytes and received {}",
            client.name, client.sent, client.received
        ));
    }
    let Some(n) = pair.backend_at else { return Ok(()) };
    let backend = &world.served[n];
    if record.backend.as_ref().map(|backend| backend.index.0) != Some(world.served_by[n]) {
        return Err(format!("{:?} is of backend {}", backend.name, world.served_by[n]));
    }
    let done = record.reason == EndReason::Finished;
    let all = record.bytes_from_client == client.sent && record.bytes_from_backend == backend.sent;
    if record.bytes_from_backend > backend.sent || record.bytes_from_client < backend.received || (done && !all) {
        return Err(format!(
            "{:?} sent {} bytes and received {}, {:?} sent {} and received {}",
            client.name, client.sent, client.received, backend.name, backend.sent, backend.received
        ));
    }
    let chosen = chosen_at(backend, record);
    let from = Time::from_nanos(chosen.as_nanos().saturating_sub(SEEN_WITHIN.as_nanos() as u64));
    if !world.done.was_shown(world.served_by[n], from, backend.started_at) {
        return Err(format!("{:?} could not be chosen at {chosen:?}", backend.name));
    }
    Ok(())
}

/// When its backend was chosen, or a little earlier or later.
fn chosen_at(backend: &Actor, record: &SessionRecord) -> Time {
    let connect_time = record.connect_time.unwrap_or_default().as_nanos() as u64;
    Time::from_nanos(backend.started_at.as_nanos().saturating_sub(connect_time))
}

/// What closing may take.
fn flush(reason: EndReason) -> Duration {
    match reason {
        EndReason::ClientReset | EndReason::ClientGone | EndReason::BackendReset | EndReason::BackendGone => FLUSH_MAX,
        _ => Duration::ZERO,
    }
}

/// A session ends by its lifetime when that is over, and no session lives on beyond it.
fn in_time(world: &World, pair: &Pair<'_>, (end, record): &Entry) -> Result<(), String> {
    let Some(lifetime) = world.plan.control.max_lifetime else {
        return Ok(());
    };
    if record.reason == EndReason::MaxLifetime && record.duration < lifetime.mul_f64(0.9) {
        return Err(format!("ended by a lifetime of {lifetime:?}"));
    }
    let Some(backend) = pair.backend else { return Ok(()) };
    let accepted = Time::from_nanos(end.as_nanos().saturating_sub(record.duration.as_nanos() as u64));
    // A relay looks for the first time after a second, and every second while it is blocked.
    let first_look = backend.started_at + CHECK_INTERVAL;
    let latest = (accepted + lifetime.mul_f64(1.1)).max(first_look) + CHECK_INTERVAL + SEEN_WITHIN;
    if *end > latest + flush(record.reason) {
        return Err(format!(
            "lived on for {:?} after a lifetime of {lifetime:?}",
            end.since(latest)
        ));
    }
    Ok(())
}

/// A session ends by an order if there was one, after the backend was chosen for it; and then soon.
fn by_order(world: &World, pair: &Pair<'_>, (end, record): &Entry) -> Result<(), String> {
    let Some(n) = pair.backend_at else { return Ok(()) };
    let backend = &world.served[n];
    let orders = world.done.orders.iter().filter(|order| order.0 == world.served_by[n]);
    let orders: Vec<(Time, EndReason)> = orders.map(|&(_, at, reason)| (at, reason)).collect();
    let chosen = chosen_at(backend, record);
    if matches!(record.reason, EndReason::BackendDown | EndReason::Failback) {
        let explains = |(at, reason): &(Time, EndReason)| {
            *reason == record.reason && chosen <= *at + SEEN_WITHIN / 5 && *at <= *end
        };
        if !orders.iter().any(explains) {
            return Err(format!(
                "chosen at {chosen:?} and ended at {end:?} by none of {orders:?}"
            ));
        }
    }
    for (n, &(at, reason)) in orders.iter().enumerate() {
        let within = if reason == EndReason::Failback {
            FAILBACK_SPREAD
        } else {
            Duration::ZERO
        };
        let late = at + within + SEEN_WITHIN;
        let replaced = orders.get(n + 1).is_some_and(|(next, _)| *next <= late);
        if backend.started_at + SEEN_WITHIN < at && *end > late + flush(record.reason) && !replaced {
            return Err(format!(
                "chosen at {chosen:?}, ordered to end at {at:?} and ended at {end:?}"
            ));
        }
    }
    Ok(())
}

/// The counters of a backend are the sums over its records.
fn counters(world: &World, backend: usize) -> Result<(), String> {
    let workers = || world.states[backend].workers.iter();
    let of_this = |record: &&Entry| record.1.backend.as_ref().is_some_and(|it| it.index.0 == backend);
    let records = || world.records.iter().filter(of_this).map(|(_, record)| record);
    let counted = [
        workers().map(|stats| stats.connections_total.value()).sum::<u64>(),
        workers().map(|stats| stats.bytes_from_clients.value()).sum(),
        workers().map(|stats| stats.bytes_from_backends.value()).sum(),
    ];
    let recorded = [
        records().filter(|record| record.connect_time.is_some()).count() as u64,
        records().map(|record| record.bytes_from_client).sum(),
        records().map(|record| record.bytes_from_backend).sum(),
    ];
    if counted != recorded {
        return Err(format!(
            "backend {backend}: connections and bytes were counted as {counted:?} and recorded as {recorded:?}"
        ));
    }
    Ok(())
}

/// Each failed connect that was not our fault was told once.
fn connects(world: &World, backend: usize) -> Result<(), String> {
    let (mut errors, mut local) = (0, 0);
    for &error in ConnectError::ALL {
        let workers = world.states[backend].workers.iter();
        let counted: u64 = workers.map(|stats| stats.connect_errors[error.index()].value()).sum();
        match error.blame() {
            Blame::Local => local += counted,
            Blame::Nobody | Blame::Client | Blame::Backend | Blame::Operator => errors += counted,
        }
    }
    let told = world.reports(backend, Report::ConnectFailed);
    let met = &world.met[backend];
    // A connect that fails on this side may have been about to fail on the other.
    let certain = met.failed.get().saturating_sub(local);
    let possible = met.failed.get() + met.unclear.get();
    // A connect that everything is reset during is nobody's failure.
    let explained = told <= possible && told <= errors && (world.reset_relays || (told >= certain && told == errors));
    if !explained {
        return Err(format!(
            "backend {backend}: {told} failed connects were told and {errors} counted of {certain} to {possible}"
        ));
    }
    Ok(())
}

/// A connection that its backend ended before its first byte was told once, unless its client had ended before.
fn early_ends(world: &World, pairs: &[Pair<'_>], backend: usize) -> Result<(), String> {
    let workers = world.states[backend].workers.iter();
    let counted: u64 = workers.map(|stats| stats.ended_early.value()).sum();
    let told = world.reports(backend, Report::EndedEarly);
    let (mut certain, mut possible) = (0, 0);
    for entry in &world.records {
        if entry.1.connect_time.is_none() || entry.1.backend.as_ref().is_none_or(|it| it.index.0 != backend) {
            continue;
        }
        let pair = pairs
            .iter()
            .find(|pair| pair.entry.is_some_and(|it| std::ptr::eq(it, entry)));
        let early = pair.and_then(|pair| is_early(pair, entry));
        certain += u64::from(early == Some(true));
        possible += u64::from(early != Some(false) && entry.1.bytes_from_backend == 0);
    }
    if counted != told || told < certain || told > possible {
        return Err(format!(
            "backend {backend}: {told} early ends were told and {counted} counted of {certain} to {possible}"
        ));
    }
    Ok(())
}

/// Whether the backend of this session ended it before its first byte and before the client; `None`: not known.
fn is_early(pair: &Pair<'_>, (end, record): &Entry) -> Option<bool> {
    let (client, backend) = (pair.client, pair.backend?);
    let ended = |actor: &Actor| actor.ended_at.filter(|at| at <= end);
    let Some(backend_ended) = ended(backend) else {
        return Some(false);
    };
    let clearly_before = |one: Time, other: Option<Time>| other.is_none_or(|other| one + SEEN_WITHIN < other);
    // A cut is noticed much later than it happens.
    if backend.cut && ended(client).is_some() {
        return None;
    }
    if client.sent == 0 && !client.cut && ended(client).is_some_and(|ended| clearly_before(ended, Some(backend_ended)))
    {
        return Some(false);
    }
    let was_seen = matches!(
        record.reason,
        EndReason::Finished | EndReason::HalfClosedTimeout | EndReason::BackendReset | EndReason::BackendGone
    );
    (was_seen && backend.sent == 0 && clearly_before(backend_ended, ended(client))).then_some(true)
}

/// Of each order to watch one connect and one answer at most were told, and one of them certainly if there was one.
fn watches(world: &World, backend: usize) -> Result<(), String> {
    let orders = &world.states[backend].orders;
    let kept = &world.done.backends[backend];
    let told = [Report::Connected, Report::Answered].map(|report| world.reports(backend, report));
    if told.iter().any(|&told| told > kept.watches) {
        return Err(format!(
            "backend {backend}: {told:?} connects and answers were told, {} were wanted",
            kept.watches
        ));
    }
    let is_left = orders.take_connect_watch();
    if is_left && kept.connected_before != Some(world.connected(backend)) {
        return Err(format!(
            "backend {backend}: it was connected to while it was watched, and nobody was told"
        ));
    }
    if kept.watches > 0 && !is_left && told == [0, 0] {
        return Err(format!("backend {backend}: a success was noticed and not told"));
    }
    Ok(())
}

/// What backends count is what the listener counts.
fn sums(world: &World) -> Result<(), String> {
    let listener = || world.workers.iter().map(|worker| &worker.stats.listeners[0]);
    let backends = || world.states.iter().flat_map(|state| &state.workers);
    let counted = [
        listener().map(|stats| stats.bytes_from_clients.value()).sum::<u64>(),
        listener().map(|stats| stats.bytes_from_backends.value()).sum(),
    ];
    let summed = [
        backends().map(|stats| stats.bytes_from_clients.value()).sum::<u64>(),
        backends().map(|stats| stats.bytes_from_backends.value()).sum(),
    ];
    if counted != summed {
        return Err(format!(
            "the listener counted {counted:?} bytes and the backends {summed:?}"
        ));
    }
    Ok(())
}
