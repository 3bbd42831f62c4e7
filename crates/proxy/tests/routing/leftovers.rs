//! What holds of a world as a whole: who had to make room, what was counted, and that everything was given back.

use crate::oracle::{Life, SLACK, TURNS, describe, identity, is_unrouted};
use crate::world::{CONNECTIONS_MAX, World};
use ringway_core::reason::{EndReason, RefuseReason};
use ringway_runtime::Time;
use std::time::Duration;

/// Connections that were refused, for whatever reason.
pub(crate) fn refused(world: &World) -> u64 {
    let counts = world
        .workers
        .iter()
        .flat_map(|worker| &worker.stats.listeners[0].refused);
    counts.map(|count| count.value()).sum()
}

/// Over `max_unrouted` the oldest goes, only it, and at once.
pub(crate) fn check_displaced(world: &World, lives: &[Life<'_>]) -> Result<(), String> {
    let max = world.plan.unrouted_max as usize;
    let displaced = |life: &&Life<'_>| life.record.reason == EndReason::Displaced;
    for life in lives.iter().filter(displaced) {
        let wrong = |what: &str| Err(format!("client {} {what}: {}", life.client, describe(life.record)));
        let older = lives.iter().find(|other| {
            let waits = is_unrouted(other.record.reason) && !displaced(other);
            waits && other.start + TURNS < life.start && other.end > life.end + TURNS
        });
        if let Some(older) = older {
            return wrong(&format!("had to go although client {} was older", older.client));
        }
        // Somebody has come just before, and all of them were too many.
        let is_cause = |newer: &&Life<'_>| {
            let open = |other: &&Life<'_>| other.start <= newer.start + TURNS && other.end + TURNS >= newer.start;
            let just = newer.start + SLACK >= life.end && newer.start <= life.end + TURNS;
            just && newer.start + TURNS >= life.start && lives.iter().filter(open).count() > max
        };
        // Of those that were gone before they were asked nothing is known.
        if world.records.len() == lives.len() && !lives.iter().any(|newer| is_cause(&newer)) {
            return wrong("had to go although there was room, or late");
        }
    }
    if world.plan.crowded {
        let mut order: Vec<&Life<'_>> = lives.iter().collect();
        order.sort_by_key(|life| life.start);
        let too_many = order.len().saturating_sub(max);
        for (place, life) in order.iter().enumerate() {
            let reason = if place < too_many {
                EndReason::Displaced
            } else {
                EndReason::RoutingTimeout
            };
            if life.record.reason != reason {
                return Err(format!("of {} the {place}th did not end as it must", order.len()));
            }
        }
    }
    Ok(())
}

/// No client has more connections than it may.
pub(crate) fn check_clients(world: &World, lives: &[Life<'_>]) -> Result<(), String> {
    let Some(max) = world.plan.client_max else {
        return Ok(());
    };
    // From when on it certainly counts.
    let counts = |life: &Life<'_>| -> Option<(Time, Time)> {
        let plan = &world.plan.clients[life.client];
        if world.plan.proxied && plan.story.header == 0 {
            return None;
        }
        let since = if world.plan.proxied {
            let arrived = world.clients[life.client].as_ref()?.arrived(plan.story.header)?;
            arrived.max(life.start) + SLACK
        } else {
            life.start + TURNS
        };
        let until = Time::from_nanos(life.end.as_nanos().saturating_sub(TURNS.as_nanos() as u64));
        (life.record.reason != EndReason::Refused && since < until).then_some((since, until))
    };
    for life in lives {
        let Some((since, _)) = counts(life) else { continue };
        let who = identity(&world.plan.clients[life.client]);
        let same = lives
            .iter()
            .filter(|other| identity(&world.plan.clients[other.client]) == who);
        let open = same
            .filter_map(counts)
            .filter(|(from, to)| *from <= since && since < *to);
        let open = open.count();
        if open > max as usize {
            return Err(format!("{who} had {open} connections of at most {max}"));
        }
    }
    Ok(())
}

/// Counters agree with records, and with what the actors saw.
pub(crate) fn check_books(world: &World) -> Result<(), String> {
    let sum = |count: &dyn Fn(&crate::world::Worker) -> u64| -> u64 { world.workers.iter().map(count).sum() };
    for reason in EndReason::ALL {
        let counted = sum(&|worker| worker.stats.listeners[0].ended[reason.index()].value());
        let told = world
            .records
            .iter()
            .filter(|(_, record)| record.reason == *reason)
            .count() as u64;
        if world.plan.logs && counted != told {
            return Err(format!("{counted} ended as {}, {told} were logged", reason.label()));
        }
        if counted > 0 && matches!(reason, EndReason::Panicked | EndReason::LocalError) {
            return Err(format!("{counted} ended as {}", reason.label()));
        }
    }
    let total = sum(&|worker| worker.stats.listeners[0].connections_total.value());
    let ended = sum(&|worker| worker.stats.listeners[0].ended.iter().map(|count| count.value()).sum());
    let open = sum(&|worker| worker.stats.listeners[0].connections.value());
    if total != ended || open != 0 {
        return Err(format!("{total} connections, {ended} ended, {open} are open"));
    }
    let rate = sum(&|worker| worker.stats.listeners[0].refused[RefuseReason::ClientRate.index()].value());
    if rate > 0 {
        return Err("somebody was refused for coming too fast".into());
    }
    let up = sum(&|worker| worker.stats.listeners[0].bytes_from_clients.value());
    let down = sum(&|worker| worker.stats.listeners[0].bytes_from_backends.value());
    let backends = || {
        world
            .snapshot
            .pools
            .iter()
            .flat_map(|pool| pool.view().backends.to_vec())
    };
    let by_backends: u64 = backends()
        .flat_map(|backend| {
            backend
                .workers
                .iter()
                .map(|stats| stats.bytes_from_clients.value())
                .collect::<Vec<_>>()
        })
        .sum();
    if by_backends != up {
        return Err(format!("{up} bytes from clients, {by_backends} by backend"));
    }
    if world.plan.logs {
        let told = world.records.iter().fold((0, 0), |(up, down), (_, record)| {
            (up + record.bytes_from_client, down + record.bytes_from_backend)
        });
        if told != (up, down) {
            return Err(format!("{up} and {down} bytes counted, {told:?} logged"));
        }
    }
    let said: usize = world
        .clients
        .iter()
        .zip(&world.plan.clients)
        .filter_map(|(actor, plan)| Some(actor.as_ref()?.sent.saturating_sub(plan.story.skip)))
        .sum();
    if up > said as u64 {
        return Err(format!("{up} bytes from clients, who said {said}"));
    }
    Ok(())
}

/// Places, permits, guards, reservations, keys. Descriptors, operations and buffers are looked at when all has ended.
pub(crate) fn check_given_back(world: &World) -> Result<(), String> {
    for n in 0..world.workers.len() {
        let (left, bytes) = (world.unrouted.len(n), world.unrouted.bytes(n));
        if left > 0 || bytes > 0 {
            return Err(format!(
                "worker {n} has {left} connections that wait with {bytes} bytes"
            ));
        }
        let stats = world.workers[n].runtime.handle().stats();
        if stats.buffers_out > 0 || stats.sockets > 0 || stats.tasks > 0 {
            return Err(format!("worker {n} has something left: {stats:?}"));
        }
    }
    let free = world.gates.free(0);
    if free != CONNECTIONS_MAX {
        return Err(format!("{} permits are gone", CONNECTIONS_MAX - free));
    }
    for pool in &world.snapshot.pools {
        for backend in pool.view().backends.iter() {
            if backend.connections() > 0 {
                return Err(format!("{} has {} connections", backend.address, backend.connections()));
            }
        }
    }
    let keys = world.keys[0].as_ref().map_or(0, |keys| keys.len());
    if keys > 0 {
        return Err(format!("{keys} keys are not forgotten"));
    }
    if let (Some(bounds), Some(max)) = (&world.bounds[0], world.plan.client_max) {
        for client in &world.plan.clients {
            let now = Duration::from_secs(1_000);
            let admit = || bounds.admit(identity(client), now);
            let places: Vec<_> = (0..max).map_while(|_| admit().ok()).collect();
            if places.len() < max as usize {
                return Err(format!("{} has a place that was not given back", identity(client)));
            }
        }
    }
    Ok(())
}
