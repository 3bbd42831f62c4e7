//! Who may see which bytes: each connection of a backend saw what one client said, behind what it is told of that client,
//! and each client saw what its backend said.

use crate::backend::Served;
use crate::client::Actor;
use crate::forge::{Header, ID_BYTES, SSL_REQUEST};
use crate::oracle::Life;
use crate::plan::{ID_SEED, OTHERS, Plan, Speech, front};
use crate::story::Verdict;
use crate::world::World;
use ringway_core::model::ProxyVersion;
use ringway_core::reason::EndReason;
use std::collections::BTreeMap;

/// What a backend of this pool is told of a client.
fn told(plan: &Plan, n: usize, pool: usize) -> Option<Header> {
    let send = plan.pools[pool].send?;
    let client = &plan.clients[n];
    let (name, alpn) = match client.story.verdict {
        Verdict::Pool { name, alpn, .. } => (name, alpn),
        Verdict::Reject(_) | Verdict::CancelAll | Verdict::Cancel(_) => (None, None),
    };
    Some(Header {
        version: match send.version {
            ProxyVersion::V1 => 1,
            ProxyVersion::V2 => 2,
        },
        local: false,
        addresses: Some(client.story.named.unwrap_or((client.source, front()))),
        alpn: alpn.filter(|_| send.alpn).map(String::from),
        authority: name.filter(|_| send.authority).map(String::from),
        id: send.unique_id.then(|| vec![b'0'; ID_BYTES]),
        checksum: send.checksum,
    })
}

/// The pools that a client's bytes may go to.
fn goes_to(plan: &Plan, n: usize, pool: usize) -> bool {
    match plan.clients[n].story.verdict {
        Verdict::Pool { pool: its, .. } => its == pool,
        Verdict::Cancel(_) => pool == OTHERS,
        Verdict::CancelAll => pool != OTHERS || plan.fallback,
        Verdict::Reject(_) => false,
    }
}

/// What one connection sees of a client.
pub(crate) struct View {
    /// All of it.
    pub(crate) bytes: Vec<u8>,
    /// Bytes in front that are not the client's.
    pub(crate) own: usize,
    id: Option<Vec<u8>>,
}

/// What the connection sees if it is this client's and everything that it has said so far is passed on; `None`: it is
/// somebody else's.
fn view(world: &World, n: usize, served: &Served) -> Option<View> {
    let plan = &world.plan;
    let client = world.clients[n].as_ref().filter(|_| goes_to(plan, n, served.pool))?;
    let mut header = told(plan, n, served.pool);
    // Who had gone before it was asked who it was may still want a query to end.
    let cancels = matches!(plan.clients[n].story.verdict, Verdict::CancelAll | Verdict::Cancel(_));
    let is_unknown = cancels && client.reset_at.is_some();
    if let Some(header) = &mut header
        && is_unknown
        && !served.received.starts_with(&header.bytes()[..20])
    {
        header.addresses = None;
    }
    let mut id = None;
    if let Some(header) = &mut header
        && let Some(at) = header.id_at()
    {
        match served.received.get(at..at + ID_BYTES) {
            Some(found) if !is_id(found) => return None,
            Some(found) => {
                id = Some(found.to_vec());
                header.id = id.clone();
            }
            // The rest is not known.
            None => {
                let bytes = header.bytes();
                let seen = &served.received[..served.received.len().min(at)];
                return bytes.starts_with(seen).then_some(View {
                    own: bytes.len(),
                    bytes,
                    id: None,
                });
            }
        }
    }
    let mut bytes = header.map(|header| header.bytes()).unwrap_or_default();
    let story = &plan.clients[n].story;
    if matches!(story.verdict, Verdict::Pool { greets: true, .. }) {
        bytes.extend(SSL_REQUEST);
    }
    let own = bytes.len();
    let skip = story.skip.min(client.sent);
    bytes.extend(&client.stream[skip..client.sent]);
    bytes.starts_with(&served.received).then_some(View { bytes, own, id })
}

/// Lower hexadecimal digits, first those that no other process has.
fn is_id(bytes: &[u8]) -> bool {
    let digits = bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digits && bytes.starts_with(format!("{ID_SEED:016x}").as_bytes())
}

/// Which client's each connection of a backend is; `None`: of one that said too little to be known by. An error: it saw
/// what it must not see.
pub(crate) fn owners(world: &World) -> Result<Vec<Option<usize>>, String> {
    let mut owners = Vec::new();
    let mut ids: BTreeMap<Vec<u8>, Option<usize>> = BTreeMap::new();
    for served in &world.served {
        let count = world.clients.len();
        let views = (0..count).filter_map(|n| Some((n, view(world, n, served)?)));
        let views: Vec<_> = views.collect();
        if views.is_empty() && !served.received.is_empty() {
            let (number, pool) = (served.number, served.pool);
            return Err(format!(
                "connection {number} of pool {pool} saw bytes that are nobody's"
            ));
        }
        let owner = match &views[..] {
            [(n, view)] if !served.received.is_empty() => {
                if let Some(id) = &view.id
                    && let Some(before) = ids.insert(id.clone(), Some(*n))
                    && before != Some(*n)
                {
                    return Err(format!("clients {n} and {before:?} have the same name"));
                }
                Some(*n)
            }
            _ => None,
        };
        owners.push(owner);
    }
    Ok(owners)
}

/// What a client received behind what is said by Ringway itself.
fn answers<'a>(world: &'a World, n: usize, client: &'a Actor) -> Result<&'a [u8], String> {
    let ours = &world.plan.clients[n].story.ours;
    let (first, rest) = client.received.split_at(client.received.len().min(ours.len()));
    if ours.starts_with(first) {
        Ok(rest)
    } else {
        Err(format!("client {n} was answered {first:?} instead of {ours:?}"))
    }
}

/// A client that was not routed sees nothing of a backend; others see what their own one said, in order.
pub(crate) fn check_answers(world: &World, owners: &[Option<usize>], n: usize) -> Result<(), String> {
    let Some(client) = &world.clients[n] else {
        return Ok(());
    };
    let rest = answers(world, n, client)?;
    if rest.is_empty() {
        return Ok(());
    }
    let heard = |served: &&Served| {
        let may = owners[served.number].is_none_or(|owner| owner == n) && goes_to(&world.plan, n, served.pool);
        may && served
            .says
            .get(served.kept..served.sent)
            .is_some_and(|said| said.starts_with(rest))
    };
    match world.served.iter().find(heard) {
        Some(_) if world.plan.clients[n].story.verdict != Verdict::CancelAll => Ok(()),
        _ => Err(format!(
            "client {n} received {} bytes that nobody said to it",
            rest.len()
        )),
    }
}

/// Bytes of a session as its record has them, against what both ends saw.
pub(crate) fn check_record(world: &World, owners: &[Option<usize>], life: &Life<'_>) -> Result<(), String> {
    let (n, record) = (life.client, life.record);
    let Some(client) = &world.clients[n] else {
        return Ok(());
    };
    let rest = answers(world, n, client)?.len() as u64;
    let said = (client.sent - world.plan.clients[n].story.skip.min(client.sent)) as u64;
    let finished = record.reason == EndReason::Finished;
    if record.backend.is_none() {
        let nothing = record.bytes_from_client == 0 && record.bytes_from_backend == 0 && record.tries == 0;
        let verdict = &world.plan.clients[n].story.verdict;
        // Of a key that was not known (yet, or any more) every server was told.
        let is_right = nothing && (!finished || matches!(verdict, Verdict::CancelAll | Verdict::Cancel(_)));
        return is_right
            .then_some(())
            .ok_or_else(|| format!("client {n} was relayed to nobody: {}", crate::oracle::describe(record)));
    }
    let address = record.backend.as_ref().map(|backend| backend.address.clone());
    let mine = |served: &&Served| {
        let its = ringway_core::model::Address::Inet(crate::plan::backend_address(served.pool, served.backend));
        owners[served.number].is_none_or(|owner| owner == n) && Some(&its) == address.as_ref()
    };
    let views = world.served.iter().filter(mine);
    let views = views.filter_map(|served| Some((served, view(world, n, served)?)));
    if !finished {
        let seen = views.filter(|(served, _)| owners[served.number] == Some(n));
        let seen = seen.map(|(served, view)| served.received.len().saturating_sub(view.own) as u64);
        let seen = seen.max().unwrap_or(0);
        let is_right = (seen..=said).contains(&record.bytes_from_client) && record.bytes_from_backend >= rest;
        return is_right.then_some(()).ok_or_else(|| {
            let record = crate::oracle::describe(record);
            format!("client {n} said {said}, its backend saw {seen}, it saw {rest}: {record}")
        });
    }
    let mut whole = views.filter(|(served, view)| served.received == view.bytes);
    let heard = |served: &Served| (served.says.len() - served.kept) as u64 == rest && served.sent == served.says.len();
    let Some(_) = whole.find(|(served, _)| heard(served)) else {
        return Err(format!(
            "client {n} finished, and its bytes have not come whole to either side"
        ));
    };
    if (record.bytes_from_client, record.bytes_from_backend) != (said, rest) {
        let record = crate::oracle::describe(record);
        return Err(format!("client {n} said {said} and received {rest}: {record}"));
    }
    Ok(())
}

/// A CancelRequest without a known key comes to every backend that is there, once.
pub(crate) fn check_cancel_all(world: &World, owners: &[Option<usize>], n: usize) -> Result<(), String> {
    debug_assert_eq!(world.plan.speech, Speech::StartTls);
    for (pool, plan) in world.plan.pools.iter().enumerate() {
        for (backend, temper) in plan.backends.iter().enumerate() {
            let wanted = usize::from(goes_to(&world.plan, n, pool) && temper.is_there() && temper.resets.is_none());
            let saw = |served: &&Served| {
                let here = (served.pool, served.backend) == (pool, backend) && owners[served.number] == Some(n);
                here && view(world, n, served).is_some_and(|view| view.bytes == served.received)
            };
            let count = world.served.iter().filter(saw).count();
            if count != wanted && temper.resets.is_none() {
                return Err(format!(
                    "backend {backend} of pool {pool} was told {count} times to cancel for client {n}, not {wanted}"
                ));
            }
        }
    }
    Ok(())
}
