//! Raw configuration -> model: what of a pool fits together, and its part of the model.

use super::{health, keepalive, preface, source};
use crate::binds::{Binds, Owner};
use crate::diagnostic::quote;
use crate::limits::{
    CONNECT_TIMEOUT, DEAD_PEER_TIMEOUT, HASH_SEED_DEFAULT, QUEUE_TIMEOUT, RESOLVE_MAX, RESOLVE_MIN, TRIES_DEFAULT,
    WEIGHT_DEFAULT,
};
use crate::problem::Problems;
use crate::raw::{self, Config, Field};
use crate::source::{At, Span};
use crate::values::duration;
use ringway_core::model::{
    Address, Backend, Balance, Failback, HashAlgorithm, HashRule, OnBackendDown, Pool, Queue, Records, Resolve,
    Sessions, Target,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Everything that can be said about a pool alone.
pub(super) fn check(pool: &raw::Pool, problems: &mut Problems) {
    backends(pool, problems);
    source::check(pool, problems);
    without_effect(pool, problems);
    resolve(&pool.resolve, problems);
    health::check(pool, problems);
}

fn backends(pool: &raw::Pool, problems: &mut Problems) {
    let name = quote(&pool.name.value);
    let example = "add backends: [10.0.0.11:5432]";
    if pool.backends.is_absent() {
        problems.error(pool.name.span, format!("pool {name} has no backends"), example);
    }
    let Some(At { value: written, .. }) = &pool.backends.value else {
        return;
    };
    let at = pool.backends.key.unwrap_or(pool.name.span);
    if written.list.is_empty() {
        problems.error(at, format!("pool {name} has no backends"), "add at least one");
        return;
    }
    let mut first: HashMap<&Target, Span> = HashMap::new();
    for backend in &written.list {
        let At { value: target, span } = &backend.target;
        if let Some(&before) = first.get(target) {
            let message = format!("backend {} is in pool {name} twice", words(target));
            let help = "remove one; to give it a larger share, set its weight";
            problems.error_with_note(*span, message, help, (before, "it is here first"));
            continue;
        }
        first.insert(target, *span);
    }
    if !written.partial && written.list.iter().all(|backend| backend.backup.or(false)) {
        let message = format!("pool {name} has backups only");
        problems.error(at, message, "remove backup: true from those that are to serve first");
    }
}

/// A target as sentences call it.
pub(super) fn words(target: &Target) -> String {
    match target {
        Target::Address(address) => address.to_string(),
        Target::Name(name) => match name.records {
            Records::Addresses(port) => format!("{}:{port}", name.host),
            Records::Services => format!("srv:{}", name.host),
        },
    }
}

/// What is written and would change nothing.
fn without_effect(pool: &raw::Pool, problems: &mut Problems) {
    let mut warn = |key: Option<Span>, name: &str, help: &str| {
        let at = key.unwrap_or(pool.name.span);
        problems.warning(at, format!("{name} has no effect here"), help);
    };
    let by_hash = pool.balance.or(Balance::RoundRobin) == Balance::IpHash;
    if !pool.hash.is_absent() && !by_hash && !pool.balance.is_unusable() {
        warn(pool.hash.key, "hash", "it applies to balance: ip_hash only");
    }
    if pool.slow_start.or(None).is_some() && by_hash {
        let help = "with balance: ip_hash clients would move twice; remove it";
        warn(pool.slow_start.key, "slow_start", help);
    }
    // What follows needs all backends to be known.
    if pool.backends.value.as_ref().is_none_or(|at| at.value.partial) {
        return;
    }
    let queues = matches!(&pool.queue.value, Some(at) if at.value.is_some());
    if queues && pool.backends().all(|backend| backend.max_connections.is_absent()) {
        let help = "no backend has max_connections, so none is ever full";
        warn(pool.queue.key, "queue", help);
    }
    let named = |backend: &raw::Backend| matches!(backend.target.value, Target::Name(_));
    if !pool.resolve.is_absent() && !pool.backends().any(named) {
        warn(pool.resolve.key, "resolve", "no backend of this pool is a name");
    }
    let has_backup = pool.backends().any(|backend| !backend.backup.is_absent());
    if pool.failback.or(Failback::Auto) == Failback::Manual && !has_backup {
        warn(
            pool.failback.key,
            "failback",
            "no backend of this pool has backup: true",
        );
    }
}

fn resolve(field: &Field<raw::Resolve>, problems: &mut Problems) {
    let Some(At { value: resolve, .. }) = &field.value else {
        return;
    };
    let (least, most) = (&resolve.min_interval, &resolve.max_interval);
    if least.is_unusable() || most.is_unusable() || least.or(RESOLVE_MIN.default) <= most.or(RESOLVE_MAX.default) {
        return;
    }
    let shown = |field: &Field<_>, default| {
        let by_default = if field.is_absent() { " by default" } else { "" };
        format!("{}{by_default}", duration::show(field.or(default)))
    };
    let message = format!(
        "resolve.min_interval is {}, resolve.max_interval {}",
        shown(least, RESOLVE_MIN.default),
        shown(most, RESOLVE_MAX.default)
    );
    if let Some(at) = least.key.or(most.key) {
        problems.error(at, message, "set them so that the first is not longer");
    }
}

/// A listener whose pool leads back to it would connect to itself until descriptors run out.
pub(super) fn own_listeners(
    index: usize,
    pool: &raw::Pool,
    config: &Config,
    goes_to: &dyn Fn(usize, usize) -> bool,
    binds: &[Binds; 2],
    problems: &mut Problems,
) {
    for backend in pool.backends() {
        let found = addresses(&backend.target.value)
            .into_iter()
            .flat_map(|address| binds.iter().filter_map(move |binds| binds.answering(&address)));
        for owner in found.filter_map(|owner| match owner {
            Owner::Listener(index) => Some(index),
            Owner::Admin => None,
        }) {
            let listener = &config.listeners.entries[owner];
            if goes_to(owner, index) {
                let name = quote(&listener.name.value);
                let message = format!("backend {} is listener {name} itself", words(&backend.target.value));
                let note = (listener.name.span, "this listener sends its connections here");
                problems.error_with_note(backend.target.span, message, "write the backend's own address", note);
            }
        }
    }
}

/// Where a target is, as far as the file can tell: of all names only `localhost` is known everywhere (RFC 6761).
fn addresses(target: &Target) -> Vec<Address> {
    match target {
        Target::Address(address) => vec![address.clone()],
        Target::Name(name) => match name.records {
            Records::Addresses(port) if &*name.host == "localhost" => {
                [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                    .map(|ip| Address::Inet(SocketAddr::new(ip, port)))
                    .to_vec()
            }
            Records::Addresses(_) | Records::Services => Vec::new(),
        },
    }
}

/// A pool as it is, with defaults for what is absent. `serves_udp`: a UDP listener feeds it.
pub(super) fn model((raw, serves_udp): (raw::Pool, bool)) -> Pool {
    let when_down = if serves_udp {
        OnBackendDown::Move
    } else {
        OnBackendDown::Keep
    };
    let health = health::model(&raw);
    let hash = raw.hash.value.map(|at| at.value).unwrap_or_default();
    Pool {
        name: raw.name.value.into(),
        balance: raw.balance.or(Balance::RoundRobin),
        hash: HashRule {
            algorithm: hash.algorithm.or(HashAlgorithm::Rendezvous),
            seed: hash.seed.or(HASH_SEED_DEFAULT),
            max_load: hash.max_load.or(None),
        },
        connect_timeout: raw.connect_timeout.or(CONNECT_TIMEOUT.default),
        tries: raw.tries.or(TRIES_DEFAULT),
        source: source::model(&raw.source),
        send_proxy: preface::send_proxy_model(&raw.send_proxy),
        keepalive: keepalive(&raw.keepalive),
        dead_peer_timeout: raw.dead_peer_timeout.or(DEAD_PEER_TIMEOUT.default),
        queue: raw.queue.value.and_then(|at| model_queue(&at.value?)),
        health,
        sessions: Sessions {
            on_backend_down: raw.on_backend_down.or(when_down),
            failback: raw.failback.or(Failback::Auto),
            max_lifetime: raw.max_lifetime.or(None),
        },
        resolve: model_resolve(raw.resolve.value.map(|at| at.value).unwrap_or_default()),
        backends: raw
            .backends
            .value
            .into_iter()
            .flat_map(|at| at.value.list)
            .map(model_backend)
            .collect(),
    }
}

/// `None` without a usable `max`, which was reported.
fn model_queue(raw: &raw::Queue) -> Option<Queue> {
    Some(Queue {
        max: raw.max.value.as_ref()?.value,
        timeout: raw.timeout.or(QUEUE_TIMEOUT.default),
    })
}

fn model_resolve(raw: raw::Resolve) -> Resolve {
    let servers = raw.servers.value.into_iter().flat_map(|at| at.value);
    Resolve {
        servers: servers.map(|at| at.value).collect(),
        interval_min: raw.min_interval.or(RESOLVE_MIN.default),
        interval_max: raw.max_interval.or(RESOLVE_MAX.default),
    }
}

fn model_backend(raw: raw::Backend) -> Backend {
    Backend {
        target: raw.target.value,
        label: raw.label.into(),
        weight: raw.weight.or(WEIGHT_DEFAULT),
        max_connections: raw.max_connections.value.map(|at| at.value),
        backup: raw.backup.or(false),
    }
}
