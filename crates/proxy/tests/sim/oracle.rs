//! What must be true when a world is over, from what its actors did and saw.
//!
//! For each connection: whoever saw an orderly end received every byte that the other side sent before its own end;
//! whoever saw a reset had a reason to; nobody is left without an end. For the books: every accepted connection ended
//! once, for a reason that its two actors explain. For the runtimes: everything was given back.

use crate::actor::{Actor, Name, Saw};
use crate::ledger::{self, Entry};
use crate::plan::{Finale, Step};
use crate::world::World;
use ringway_core::reason::EndReason;
use std::time::Duration;

/// What a connection may take for no reason that is known.
const SLACK: Duration = Duration::from_millis(900);

/// A client and, as far as known, the backend connection that it was joined with.
pub(crate) struct Pair<'a> {
    pub(crate) client: &'a Actor,
    pub(crate) backend: Option<&'a Actor>,
    /// Its position among the connections that backends accepted.
    pub(crate) backend_at: Option<usize>,
    /// The session's record, if it is known which it is.
    pub(crate) entry: Option<&'a Entry>,
    /// It is not known which backend connection was its own, or whether it had one.
    unclear: bool,
}

pub(crate) fn check(world: &World) -> Result<(), String> {
    judge(world).map_err(|text| format!("{text}\n{}", world.describe()))
}

fn judge(world: &World) -> Result<(), String> {
    let pairs = pair_up(world)?;
    let mut explained = Vec::new();
    for pair in &pairs {
        let reasons = explain(world, pair);
        if let Some(entry) = pair.entry
            && !reasons.contains(&entry.1.reason)
        {
            return Err(format!(
                "{:?} ended for a reason that is not among {reasons:?}\n{}",
                pair.client.name,
                ledger::describe(entry)
            ));
        }
        if is_well(world, pair, &reasons) {
            complete(pair).and_then(|()| swift(world, pair))?;
        }
        if let Some(backend) = pair.backend {
            let unasked = is_ended_by_us(pair) || reasons.contains(&EndReason::IdleTimeout);
            ends(world, pair.client, backend, unasked)?;
            ends(world, backend, pair.client, unasked)?;
            if !is_ended_by_us(pair) {
                delivered(world, pair.client, backend)?;
                delivered(world, backend, pair.client)?;
            }
        }
        explained.push(reasons);
    }
    books(world, &explained)?;
    ledger::check(world, &pairs)?;
    bytes(world, &pairs, &explained)?;
    given_back(world)
}

/// Who was joined with whom, from the names that streams begin with.
fn pair_up(world: &World) -> Result<Vec<Pair<'_>>, String> {
    let entries = ledger::by_client(world)?;
    let mut pairs = Vec::new();
    let mut taken = vec![false; world.served.len()];
    for client in &world.clients {
        let told = match client.sender {
            Some(Name::Backend(n)) => Some(usize::from(n)),
            Some(Name::Client(n)) => return Err(format!("{:?} received bytes of client {n}", client.name)),
            None => None,
        };
        let backends = world.served.iter().enumerate();
        let heard: Vec<usize> = backends
            .filter(|(_, it)| it.sender == Some(client.name))
            .map(|(n, _)| n)
            .collect();
        let mut joined: Vec<usize> = told.into_iter().chain(heard).collect();
        joined.dedup();
        match joined[..] {
            [] => pairs.push(Pair {
                client,
                backend: None,
                backend_at: None,
                entry: entries.get(&client.name).copied(),
                unclear: true,
            }),
            [n] if taken[n] => return Err(format!("backend connection {n} got bytes of two clients")),
            [n] => {
                taken[n] = true;
                pairs.push(Pair {
                    client,
                    backend: Some(&world.served[n]),
                    backend_at: Some(n),
                    entry: entries.get(&client.name).copied(),
                    unclear: false,
                });
            }
            _ => {
                return Err(format!(
                    "{:?} exchanged bytes with several backends: {joined:?}",
                    client.name
                ));
            }
        }
    }
    if let Some(backend) = world
        .served
        .iter()
        .find(|it| matches!(it.sender, Some(Name::Backend(_))))
    {
        return Err(format!("{:?} received bytes of {:?}", backend.name, backend.sender));
    }
    // The rest exchanged nothing; if there is only one of each, they belong together, unless the connection was made
    // for nothing.
    let left: Vec<usize> = (0..taken.len()).filter(|&n| !taken[n]).collect();
    if left.is_empty() {
        pairs.iter_mut().for_each(|pair| pair.unclear = false);
    }
    Ok(pairs)
}

/// Every reason that what the actors, the network and the control plane did explains.
fn explain(world: &World, pair: &Pair<'_>) -> Vec<EndReason> {
    let mut reasons = reasons(world, pair);
    let control = &world.plan.control;
    if pair.backend.is_none() {
        if control.may_be_full() {
            match control.queue {
                None => {
                    reasons.push(EndReason::BackendsFull);
                    if control.may_be_on_trial() {
                        reasons.push(EndReason::NoBackend);
                    }
                }
                Some(_) => reasons.extend([EndReason::QueueFull, EndReason::QueueTimeout]),
            }
        }
        if world
            .done
            .views
            .iter()
            .any(|(_, view)| view << (8 - world.states.len()) == 0)
        {
            reasons.push(EndReason::NoBackend);
        }
    }
    if pair.backend.is_some() || pair.unclear {
        if control.max_lifetime.is_some() {
            reasons.push(EndReason::MaxLifetime);
        }
        for &(backend, _, reason) in &world.done.orders {
            if pair.backend_at.is_none_or(|n| world.served_by[n] == backend) && !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
    }
    reasons
}

/// Whether nobody, and nothing but the wish of both, ended this session.
fn is_well(world: &World, pair: &Pair<'_>, explained: &[EndReason]) -> bool {
    let finished = pair
        .entry
        .is_some_and(|(_, record)| record.reason == EndReason::Finished);
    explained == [EndReason::Finished] || (finished && reasons(world, pair) == [EndReason::Finished])
}

/// Whether the session was ended by us while both sides may have been well.
fn is_ended_by_us(pair: &Pair<'_>) -> bool {
    let by_us = |reason| {
        matches!(
            reason,
            EndReason::MaxLifetime | EndReason::BackendDown | EndReason::Failback
        )
    };
    pair.entry.is_some_and(|(_, record)| by_us(record.reason))
}

/// Every reason that what the actors did explains.
fn reasons(world: &World, pair: &Pair<'_>) -> Vec<EndReason> {
    let mut reasons = Vec::new();
    let client = pair.client;
    let plan = &world.plan;
    if client.may_reset() {
        reasons.push(EndReason::ClientReset);
    }
    if client.cut {
        // One that was given up while it waited to be accepted cannot be told from one that was reset.
        reasons.extend([EndReason::ClientGone, EndReason::ClientReset]);
    }
    if world.reset_relays {
        reasons.push(EndReason::DrainDeadline);
    }
    match pair.backend {
        Some(backend) => {
            if client.shut && backend.shut {
                reasons.push(EndReason::Finished);
            }
            if backend.may_reset() {
                reasons.push(EndReason::BackendReset);
            }
            if backend.cut {
                reasons.push(EndReason::BackendGone);
            }
            if may_time_out(client, backend) {
                reasons.extend([EndReason::IdleTimeout, EndReason::HalfClosedTimeout]);
            }
        }
        None => {
            if plan.tempers.iter().any(crate::plan::Temper::may_fail) {
                reasons.push(EndReason::ConnectFailed);
            }
            if plan.tempers.iter().any(|temper| temper.reset > 0) {
                reasons.push(EndReason::BackendReset);
            }
            if plan.may_lack() {
                reasons.push(EndReason::LocalError);
            }
            if pair.unclear {
                reasons.extend([
                    EndReason::Finished,
                    EndReason::BackendReset,
                    EndReason::BackendGone,
                    EndReason::IdleTimeout,
                    EndReason::HalfClosedTimeout,
                ]);
            }
        }
    }
    reasons
}

/// Neither would ever end, or nobody would learn that it did.
fn may_time_out(client: &Actor, backend: &Actor) -> bool {
    let stuck = |actor: &Actor| matches!(actor.script.finale, Finale::Silent | Finale::Deaf | Finale::Cut);
    let waits = |actor: &Actor| actor.script.finale == Finale::AfterOther;
    stuck(client) || stuck(backend) || (waits(client) && waits(backend))
}

/// Both sides were well: everything arrived, and both saw it end.
fn complete(pair: &Pair<'_>) -> Result<(), String> {
    let Some(backend) = pair.backend else { return Ok(()) };
    for (from, to) in [(pair.client, backend), (backend, pair.client)] {
        if to.received != from.sent {
            return Err(format!("{:?} received {} bytes of {}", to.name, to.received, from.sent));
        }
        if to.saw != Saw::End {
            return Err(format!("{:?} saw {:?} instead of the end", to.name, to.saw));
        }
    }
    Ok(())
}

/// Both sides were well: it took no longer than their pauses and the network's latency explain. A lost wake would be
/// made good by some timer in the end, and nobody would notice but whoever waits.
fn swift(world: &World, pair: &Pair<'_>) -> Result<(), String> {
    let Some(backend) = pair.backend else { return Ok(()) };
    let chances = &world.plan.chances;
    let window = chances.send_buffer.0.min(chances.receive_buffer.0) as u64;
    let bytes = pair.client.sent + backend.sent;
    // A window's way through two connections, there and back, each piece late in every way.
    let trip = (chances.latency_max + chances.late_max) * 8;
    let trips = u32::try_from(bytes / window + 10).unwrap_or(u32::MAX);
    let allowed = pair.client.patience(backend.sent) + backend.patience(pair.client.sent) + trip * trips + SLACK;
    let took = pair.client.active_at.max(backend.active_at).since(backend.started_at);
    if took > allowed {
        return Err(format!(
            "{:?} and {:?} took {took:?} instead of {allowed:?}",
            pair.client.name, backend.name
        ));
    }
    Ok(())
}

/// One side was reset and the other was well: what had arrived by then was delivered first.
fn delivered(world: &World, from: &Actor, to: &Actor) -> Result<(), String> {
    let reads = to.script.read_pause.is_zero();
    let stops = to.script.steps.iter().any(|step| matches!(step, Step::StopReading(_)));
    if !from.reset || to.may_reset() || to.cut || to.is_deaf || !reads || stops || world.reset_relays {
        return Ok(());
    }
    let arrived = world.network.arrived(from.peer);
    if to.received != arrived {
        return Err(format!(
            "{:?} received {} bytes of {arrived} that had come before a reset",
            to.name, to.received
        ));
    }
    Ok(())
}

/// How `to` saw its connection end follows from what `from` (and `to` itself) did.
/// With `unasked` we may have ended it.
fn ends(world: &World, from: &Actor, to: &Actor, unasked: bool) -> Result<(), String> {
    if to.received > from.sent {
        return Err(format!("{:?} received {} bytes of {}", to.name, to.received, from.sent));
    }
    match to.saw {
        Saw::End if unasked => {}
        Saw::End if !from.shut => return Err(format!("{:?} saw an end that {:?} did not make", to.name, from.name)),
        Saw::End if to.received != from.sent => {
            return Err(format!(
                "{:?} saw the end after {} bytes of {}",
                to.name, to.received, from.sent
            ));
        }
        Saw::End => {}
        Saw::Broken => {
            let caused = from.may_reset() || to.may_reset() || from.cut || to.cut || unasked || world.reset_relays;
            if !caused {
                return Err(format!("{:?} saw a reset for which there is no cause", to.name));
            }
        }
        Saw::Nothing if to.done && (to.reset || to.closed_early || to.cut || to.is_deaf) => {}
        Saw::Nothing => return Err(format!("{:?} never saw an end", to.name)),
    }
    Ok(())
}

/// Every accepted connection ended once, for a reason that is explained.
fn books(world: &World, explained: &[Vec<EndReason>]) -> Result<(), String> {
    let sum = |count: &dyn Fn(&ringway_core::stats::ListenerStats) -> u64| -> u64 {
        world
            .workers
            .iter()
            .map(|worker| count(&worker.stats.listeners[0]))
            .sum()
    };
    let accepted = sum(&|stats| stats.connections_total.value());
    let clients = world.clients.len() as u64;
    // Whoever waited in the queue when everything was reset was not served.
    if accepted > clients || (accepted < clients && !world.reset_relays) {
        return Err(format!("{accepted} connections were accepted of {clients}"));
    }
    let open = sum(&|stats| stats.connections.value());
    if open != 0 {
        return Err(format!("{open} connections are booked as open"));
    }
    let ended = sum(&|stats| stats.ended.iter().map(|counter| counter.value()).sum());
    if ended != accepted {
        return Err(format!(
            "{accepted} connections were accepted and {ended} booked as ended"
        ));
    }
    for &reason in EndReason::ALL {
        let booked = sum(&|stats| stats.ended[reason.index()].value());
        let possible = explained.iter().filter(|reasons| reasons.contains(&reason)).count() as u64;
        let certain = explained.iter().filter(|reasons| reasons[..] == [reason]).count() as u64;
        if booked > possible || (booked < certain && !world.reset_relays) {
            return Err(format!(
                "{booked} connections ended as {}; the actors explain {certain} to {possible}\n{explained:?}",
                reason.label()
            ));
        }
    }
    Ok(())
}

/// Where everybody was well, the counters agree with what was sent.
fn bytes(world: &World, pairs: &[Pair<'_>], explained: &[Vec<EndReason>]) -> Result<(), String> {
    if explained.iter().any(|reasons| reasons[..] != [EndReason::Finished]) {
        return Ok(());
    }
    let from_clients: u64 = pairs.iter().map(|pair| pair.client.sent).sum();
    let from_backends: u64 = pairs
        .iter()
        .filter_map(|pair| pair.backend)
        .map(|backend| backend.sent)
        .sum();
    let stats = || world.workers.iter().map(|worker| &worker.stats.listeners[0]);
    let counted = (
        stats().map(|stats| stats.bytes_from_clients.value()).sum::<u64>(),
        stats().map(|stats| stats.bytes_from_backends.value()).sum::<u64>(),
    );
    if counted != (from_clients, from_backends) {
        return Err(format!(
            "{counted:?} bytes were counted of {:?}",
            (from_clients, from_backends)
        ));
    }
    Ok(())
}

/// Leases, tasks, sockets, operations, pipes, reservations, permits.
fn given_back(world: &World) -> Result<(), String> {
    for (n, worker) in world.workers.iter().enumerate() {
        let stats = worker.runtime.handle().stats();
        let left = [
            ("buffers", stats.buffers_out),
            ("tasks", stats.tasks),
            ("sockets", stats.sockets),
            ("operations", stats.operations),
            ("pipes", stats.pipes),
            ("starved readers", stats.readers_starved),
            ("panicked tasks", stats.tasks_panicked),
            ("connections", worker.state.connections()),
        ];
        if let Some((what, count)) = left.into_iter().find(|(_, count)| *count > 0) {
            return Err(format!("worker {n} is left with {count} {what}: {stats:?}"));
        }
    }
    let waiting = world.snapshot.pools[0].line.as_ref().map_or(0, |line| line.len());
    if waiting > 0 {
        return Err(format!("{waiting} places in the line were not left"));
    }
    for backend in &world.states {
        // Nobody is connected, and nobody tries it.
        if backend.connections() == 0 && !backend.has_room() {
            return Err(format!("{} is left with a trial", backend.label));
        }
        if backend.connections() != 0 {
            return Err(format!(
                "{} is left with {} reservations",
                backend.label,
                backend.connections()
            ));
        }
    }
    let max = world
        .plan
        .listener_max
        .unwrap_or(u32::MAX)
        .min(world.plan.connections_max);
    let free = world.gates.free(0);
    if free != max {
        return Err(format!("{} of {max} permits were not given back", max - free));
    }
    Ok(())
}
