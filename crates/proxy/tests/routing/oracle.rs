//! Whether a world ended as its plan says: which reasons each connection may have ended for, and when.

use crate::bytes;
use crate::client::{Actor, Saw};
use crate::leftovers;
use crate::plan::{Answer, DENIED, OTHERS, Plan, Speech, Temper, backend_address};
use crate::story::{Client, Finale, Verdict};
use crate::world::World;
use ringway_core::model;
use ringway_core::reason::EndReason;
use ringway_proxy::observer::SessionRecord;
use ringway_runtime::{Address, Time};
use std::net::IpAddr;
use std::time::Duration;

/// What the network, late operations and workers that miss their turns may take at most before something is seen.
pub(crate) const SLACK: Duration = Duration::from_millis(60);
/// Turns that a worker misses, and the time between its clock and that of the network.
pub(crate) const TURNS: Duration = Duration::from_millis(2);

/// One session: whose, from when to when.
pub(crate) struct Life<'a> {
    pub(crate) client: usize,
    pub(crate) start: Time,
    pub(crate) end: Time,
    pub(crate) record: &'a SessionRecord,
}

pub(crate) fn describe(record: &SessionRecord) -> String {
    let SessionRecord {
        client,
        pool,
        tries,
        bytes_from_client,
        bytes_from_backend,
        duration,
        reason,
        ..
    } = record;
    let (proxy, server_name) = (record.proxy(), record.server_name());
    format!(
        "{} of {client:?} by {proxy:?} for {server_name:?} in {pool:?} after {duration:?}, {tries} tries, \
         {bytes_from_client} and {bytes_from_backend} bytes",
        reason.label()
    )
}

pub(crate) fn check(world: &World) -> Result<(), String> {
    check_all(world).map_err(|text| format!("{text}\n{}", world.describe()))
}

fn check_all(world: &World) -> Result<(), String> {
    let owners = bytes::owners(world)?;
    for n in 0..world.clients.len() {
        bytes::check_answers(world, &owners, n)?;
    }
    if world.plan.logs {
        let (lives, unknown) = lives(world)?;
        check_absent(world, &lives, unknown)?;
        for life in &lives {
            check_life(world, &lives, life)?;
            bytes::check_record(world, &owners, life)?;
            let is_over = life.record.reason == EndReason::Finished;
            if is_over && world.plan.clients[life.client].story.verdict == Verdict::CancelAll {
                bytes::check_cancel_all(world, &owners, life.client)?;
            }
        }
        leftovers::check_displaced(world, &lives)?;
        leftovers::check_clients(world, &lives)?;
    }
    leftovers::check_books(world)?;
    leftovers::check_given_back(world)
}

/// The sessions, each with its client, and how many of nobody who could be asked.
fn lives(world: &World) -> Result<(Vec<Life<'_>>, usize), String> {
    let mut lives: Vec<Life<'_>> = Vec::new();
    let mut unknown = 0;
    for (seen, record) in &world.records {
        let peer = match record.proxy().or(record.client.as_ref()) {
            Some(Address::Inet(peer)) => *peer,
            Some(Address::Unix(_)) => return Err("a client without an address".into()),
            None if record.reason == EndReason::ClientReset => {
                unknown += 1;
                continue;
            }
            None => return Err(format!("nobody asked who it was: {}", describe(record))),
        };
        let client = world.plan.clients.iter().position(|client| client.source == peer);
        let client = client.ok_or_else(|| format!("nobody's session: {}", describe(record)))?;
        if lives.iter().any(|life| life.client == client) {
            return Err(format!("client {client} has two records"));
        }
        let started = seen.as_nanos().saturating_sub(record.duration.as_nanos() as u64);
        lives.push(Life {
            client,
            start: Time::from_nanos(started),
            end: *seen,
            record,
        });
    }
    Ok((lives, unknown))
}

/// Whoever has no record was refused at once, or had gone before it was asked who it was.
fn check_absent(world: &World, lives: &[Life<'_>], unknown: usize) -> Result<(), String> {
    let plan = &world.plan;
    let mut missing = 0;
    for (n, client) in world.clients.iter().enumerate() {
        let Some(client) = client else { continue };
        let is_there = lives.iter().any(|life| life.client == n);
        let never = is_refused_at_once(plan, &plan.clients[n]);
        if is_there && never {
            return Err(format!("client {n} was served, and must not be"));
        }
        if is_there || client.reset_at.is_some() || world.reset_at.is_some() {
            missing += usize::from(!is_there);
            continue;
        }
        missing += 1;
        if !never && (plan.proxied || !may_be_too_many(plan, n)) {
            return Err(format!("client {n} has no record"));
        }
        if client.saw != Saw::Broken || !client.received.is_empty() {
            return Err(format!("client {n} was refused, and was not reset"));
        }
    }
    let refused = leftovers::refused(world);
    let later = lives
        .iter()
        .filter(|life| life.record.reason == EndReason::Refused)
        .count();
    let absent = missing.saturating_sub(unknown) + later;
    if world.reset_at.is_none() && refused != absent as u64 {
        return Err(format!("{refused} counted as refused, {absent} were"));
    }
    Ok(())
}

fn is_refused_at_once(plan: &Plan, client: &Client) -> bool {
    let is_trusted = matches!(client.source.ip(), IpAddr::V4(ip) if ip.octets()[0] == 10);
    if plan.proxied {
        !is_trusted
    } else {
        plan.denies && client.source.ip() == DENIED
    }
}

/// Who a client is as far as limits go.
pub(crate) fn identity(client: &Client) -> IpAddr {
    client.story.named.map_or(client.source, |(source, _)| source).ip()
}

fn may_be_too_many(plan: &Plan, n: usize) -> bool {
    let same = |client: &&Client| identity(client) == identity(&plan.clients[n]);
    let count = plan.clients.iter().filter(same).count();
    plan.client_max.is_some_and(|max| count > max as usize)
}

/// What a connection to one of these backends may end as, before it is relayed; `None`: it cannot fail.
fn failures(plan: &Plan, pool: usize, greets: bool) -> Option<Vec<EndReason>> {
    let pool = &plan.pools[pool];
    let is_sure =
        |temper: &&Temper| temper.is_there() && (!greets || (temper.answer == Answer::Yes && temper.resets.is_none()));
    let unsure = pool.backends.len() - pool.backends.iter().filter(is_sure).count();
    let mut failures = Vec::new();
    if pool.connections_max.is_some() {
        failures.push(EndReason::BackendsFull);
    }
    if unsure >= usize::from(pool.tries).min(pool.backends.len()) || (unsure > 0 && pool.connections_max.is_some()) {
        failures.extend([EndReason::ConnectFailed]);
        if greets {
            failures.push(EndReason::StarttlsRefused);
        }
    }
    (!failures.is_empty()).then_some(failures)
}

/// What may become of a connection once its first bytes have come.
fn outcomes(plan: &Plan, client: &Client) -> Vec<EndReason> {
    let (pool, greets) = match client.story.verdict {
        Verdict::Reject(reason) => return vec![reason],
        Verdict::CancelAll => return vec![EndReason::Finished],
        Verdict::Pool { pool, greets, .. } => (pool, greets),
        Verdict::Cancel(_) => (OTHERS, false),
    };
    let mut outcomes = failures(plan, pool, greets).unwrap_or_default();
    if let Verdict::Cancel(_) = client.story.verdict {
        // Told to every server, if the key is not known any more.
        outcomes.push(EndReason::Finished);
    }
    let backends = &plan.pools[pool].backends;
    let may_serve =
        |temper: &Temper| temper.is_there() && (!greets || matches!(temper.answer, Answer::Yes | Answer::More));
    if backends.iter().any(may_serve) {
        if client.finale != Finale::Reset {
            outcomes.push(EndReason::Finished);
        }
        if backends.iter().any(|temper| temper.resets.is_some()) {
            outcomes.push(EndReason::BackendReset);
        }
    }
    outcomes
}

/// The reasons for which a connection may have ended.
fn allowed(world: &World, life: &Life<'_>, actor: &Actor) -> Vec<EndReason> {
    let plan = &world.plan;
    let client = &plan.clients[life.client];
    let story = &client.story;
    let deadline = life.start + plan.timeout;
    let in_time = |at: Time| at < deadline + SLACK;
    let whole = actor.arrived(story.needs).filter(|&at| in_time(at));
    let may = actor.arrived(story.from).is_some_and(in_time);
    let must = !plan.reads() || whole.is_some_and(|at| at + SLACK <= deadline);
    let mut allowed = Vec::new();
    let is_reject = matches!(story.verdict, Verdict::Reject(_));
    let mut is_eager = false;
    if let Some(place) = story.eager
        && actor.arrived(place + 1).is_some_and(in_time)
        && !matches!(story.verdict, Verdict::Reject(EndReason::Refused))
    {
        allowed.push(EndReason::BadStartup);
        is_eager = plan.chances.partial_receive == 0 && actor.arrived_together(place, place + 1);
    }
    if (whole.is_some() || (may && is_reject)) && !is_eager {
        allowed.extend(outcomes(plan, client));
    }
    if may_be_too_many(plan, life.client) {
        allowed.push(EndReason::Refused);
    }
    let left = actor.shut_at.or(actor.reset_at);
    if !must && left.is_none_or(|at| at + SLACK > deadline) {
        allowed.push(EndReason::RoutingTimeout);
    }
    if !must && actor.arrived(story.needs).is_none() && actor.shut_at.is_some_and(in_time) {
        allowed.push(EndReason::ClientLeft);
    }
    if actor.reset_at.is_some() {
        allowed.push(EndReason::ClientReset);
    }
    if world.reset_at.is_some_and(|at| life.end + TURNS >= at) {
        allowed.push(EndReason::DrainDeadline);
    }
    if plan.unrouted_max < 1_000 && plan.reads() {
        allowed.push(EndReason::Displaced);
    }
    allowed
}

/// Ends of connections of which it was not known where they go.
pub(crate) const fn is_unrouted(reason: EndReason) -> bool {
    matches!(
        reason,
        EndReason::RoutingTimeout
            | EndReason::ClientLeft
            | EndReason::BadHello
            | EndReason::HelloTooLarge
            | EndReason::NoRoute
            | EndReason::BadProxyHeader
            | EndReason::BadStartup
            | EndReason::Displaced
            | EndReason::Refused
    )
}

fn check_life(world: &World, lives: &[Life<'_>], life: &Life<'_>) -> Result<(), String> {
    let (n, record) = (life.client, life.record);
    let Some(actor) = &world.clients[n] else {
        return Err(format!("client {n} has a record, and never came"));
    };
    let wrong = |what: &str| Err(format!("client {n} {what}: {}", describe(record)));
    let allowed = allowed(world, life, actor);
    if !allowed.contains(&record.reason) {
        let words: Vec<_> = allowed.iter().map(|reason| reason.label()).collect();
        return wrong(&format!("may have ended as {words:?}"));
    }
    let timeout = world.plan.timeout;
    if record.reason == EndReason::RoutingTimeout && record.duration < timeout {
        return wrong("ended before its time was over");
    }
    if is_unrouted(record.reason) {
        if record.duration > timeout + SLACK {
            return wrong("lived longer than it may");
        }
        if actor.reset_at.is_none() && actor.saw != Saw::Broken {
            return wrong("was not reset");
        }
    }
    let story = &world.plan.clients[n].story;
    if let (Verdict::Reject(reason), Some(at)) = (&story.verdict, actor.arrived(story.needs))
        && *reason == record.reason
        && life.end > at.max(life.start) + SLACK
    {
        return wrong("was not refused at once");
    }
    if record.reason == EndReason::RoutingTimeout {
        let late = |place: usize| {
            actor
                .arrived(place)
                .is_some_and(|at| at + SLACK <= life.start + timeout)
        };
        let due = story
            .gates
            .iter()
            .filter(|(place, count)| *count <= story.ours.len() && late(*place));
        if due.map(|(_, count)| *count).max().unwrap_or(0) > actor.received.len() {
            return wrong("was not answered");
        }
    }
    if world.reset_at.is_some_and(|at| life.end > at + SLACK) {
        return wrong("outlived the order to reset all");
    }
    check_route(world, lives, life, actor)
}

/// Where it went, and what the record says of it.
fn check_route(world: &World, lives: &[Life<'_>], life: &Life<'_>, actor: &Actor) -> Result<(), String> {
    let (n, record) = (life.client, life.record);
    let plan = &world.plan;
    let client = &plan.clients[n];
    let wrong = |what: &str| Err(format!("client {n} {what}: {}", describe(record)));
    let named = client.story.named.map(|(source, _)| Address::Inet(source));
    let peer = Address::Inet(client.source);
    let by_proxy = record.proxy().is_some();
    let who = if by_proxy {
        (&named, Some(&peer))
    } else {
        (&Some(peer), None)
    };
    if (record.client.as_ref(), record.proxy()) != (who.0.as_ref(), who.1) {
        return wrong("is somebody else in its record");
    }
    let by_name = matches!(plan.speech, Speech::Tls | Speech::StartTls);
    let is_known = |target: usize| {
        let target = lives.iter().find(|life| life.client == target);
        let asked = actor.arrived(client.story.needs);
        target.is_some_and(|target| asked.is_some_and(|at| at.max(life.start) + SLACK < target.end))
    };
    let Some(backend) = &record.backend else {
        if let (&Verdict::Cancel(target), Some(_)) = (&client.story.verdict, world.cancels[life.client])
            && record.reason == EndReason::Finished
            && is_known(target)
        {
            return wrong("was told to every server although one had issued its key");
        }
        return match record.pool {
            Some(_) if is_unrouted(record.reason) && by_name => wrong("has a pool and was not routed"),
            _ => Ok(()),
        };
    };
    let (pool, name) = match client.story.verdict {
        Verdict::Pool { pool, name, .. } => (pool, name),
        Verdict::Cancel(_) => (OTHERS, None),
        Verdict::Reject(_) | Verdict::CancelAll => return wrong("has a backend"),
    };
    let its: Vec<_> = (0..plan.pools[pool].backends.len())
        .map(|k| model::Address::Inet(backend_address(pool, k)))
        .collect();
    if record.pool.map(|pool| pool.0) != Some(pool) || !its.contains(&backend.address) {
        return wrong("went to another pool");
    }
    if record.tries == 0 || record.tries > plan.pools[pool].tries || record.server_name() != name {
        return wrong("has another name, or more tries than there are");
    }
    if named.is_some() && !by_proxy {
        return wrong("was not named");
    }
    if record.id().is_some() != plan.pools[pool].send.is_some_and(|send| send.unique_id) {
        return wrong("has no name of its own, or one too many");
    }
    if let Some(issuer) = world.cancels[n].map(|number| &world.served[number])
        && let Verdict::Cancel(target) = client.story.verdict
    {
        let right = model::Address::Inet(backend_address(issuer.pool, issuer.backend));
        if is_known(target) && backend.address != right {
            return wrong("did not come to the server that issued its key");
        }
    }
    Ok(())
}
