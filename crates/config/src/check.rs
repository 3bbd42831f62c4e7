//! Raw configuration -> model: fills in defaults, relates things to each other, reports everything that does not fit.
//!
//! Looks at the configuration alone and gives the same answer on every machine; nothing below re-validates its result.
//! What concerns one pool alone is in `pool`, its health check in `health`.

mod access;
mod health;
mod pool;
mod preface;
mod source;
mod udp;

use crate::binds::{Binds, Owner};
use crate::diagnostic::quote;
use crate::limits::{
    BUFFER_COUNT_DEFAULT, BUFFER_SIZE_DEFAULT, BUFFERS_BYTES_MAX, DEAD_PEER_TIMEOUT, DRAIN_DELAY, DRAIN_TIMEOUT,
    HALF_CLOSED_TIMEOUT, IDLE_TIMEOUT, KEEPALIVE_COUNT_DEFAULT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, ROUTING_TIMEOUT,
};
use crate::problem::Problems;
use crate::raw::{self, Config, Field};
use crate::source::{At, Span};
use crate::values::size;
use preface::Pools;
use ringway_core::model::{
    Address, Buffers, Keepalive, Listener, LogFormat, LogTarget, Model, PoolIndex, Protocol, SessionLog, Workers,
};
use ringway_core::route::Routes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where the admin port listens when nothing is written.
pub(crate) const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_900);

/// The model, meaningful only if `problems` has no errors afterwards.
pub(crate) fn model(config: Config, problems: &mut Problems) -> Model {
    let beginning = Span {
        source: 0,
        start: 0,
        end: 0,
    };
    let names = config.pools.entries.iter().map(|pool| pool.name.value.as_str());
    let pools = Pools {
        indexes: names.enumerate().map(|(index, name)| (name, index)).collect(),
        partial: config.partial,
    };
    let admin = admin(&config.admin);
    let workers = config.workers.or(Workers::Auto);
    let binds = binds(&config, admin.as_ref().map(|at| at.value), problems);
    if !config.partial {
        presence(&config, beginning, problems);
    }
    let mut fed_by = vec![udp::FedBy::default(); config.pools.entries.len()];
    let mut all_resolved = !config.partial && !config.listeners.entries.is_empty();
    let mut listeners = Vec::new();
    let mut goes_to = Vec::new();
    for listener in &config.listeners.entries {
        let destinations = preface::destinations(listener, &pools, problems);
        // Whatever it meant may be the pool that seems unused.
        all_resolved &= !destinations.partial;
        for &pool in &destinations.all {
            fed_by[pool].add(listener);
        }
        required(listener, problems);
        preface::check(listener, problems);
        let pool_entry = destinations.pool.map(|index| &config.pools.entries[index]);
        udp::check(listener, pool_entry, workers, problems);
        access::check(listener, problems);
        listeners.extend(model_listener(listener, destinations.pool, destinations.routes));
        goes_to.push(destinations.all);
    }
    for (index, pool) in config.pools.entries.iter().enumerate() {
        pool::check(pool, problems);
        let feeds_udp = fed_by[index].udp().filter(|_| all_resolved);
        preface::check_send_proxy(pool, feeds_udp, problems);
        if all_resolved {
            fed_by[index].check(pool, problems);
        }
        let leads = |listener: usize, pool: usize| goes_to[listener].contains(&pool);
        pool::own_listeners(index, pool, &config, &leads, &binds, problems);
        if all_resolved && !goes_to.iter().any(|pools| pools.contains(&index)) {
            let message = format!("pool {} is used by no listener", quote(&pool.name.value));
            problems.warning(pool.name.span, message, "");
        }
    }
    let serve_udp = udp::pools(&listeners, config.pools.entries.len());
    Model {
        workers,
        pin: config.pin.or(true),
        admin: admin.map(|at| at.value),
        buffers: buffers(&config.buffers, problems),
        drain_timeout: config.drain_timeout.or(DRAIN_TIMEOUT.default),
        drain_delay: config.drain_delay.or(DRAIN_DELAY.default),
        max_unrouted: config.max_unrouted.value.map(|at| at.value),
        session_log: config.session_log.value.and_then(|at| session_log(at.value?)),
        listeners,
        pools: config
            .pools
            .entries
            .into_iter()
            .zip(serve_udp)
            .map(pool::model)
            .collect(),
    }
}

/// The admin port with the place that decides it; `None`: off, or unusable.
fn admin(field: &Field<raw::Admin>) -> Option<At<SocketAddr>> {
    let anywhere = Span {
        source: 0,
        start: 0,
        end: 0,
    };
    match &field.value {
        None if field.is_absent() => Some(At {
            value: ADMIN_DEFAULT,
            span: anywhere,
        }),
        None
        | Some(At {
            value: raw::Admin::Off, ..
        }) => None,
        Some(At {
            value: raw::Admin::On(bind),
            span,
        }) => match &bind.value {
            Some(at) => Some(at.clone()),
            None if bind.is_absent() => Some(At {
                value: ADMIN_DEFAULT,
                span: *span,
            }),
            None => None,
        },
    }
}

/// All addresses of TCP and of UDP, listeners first: when the default admin address collides, the listener's line is the one to show.
fn binds(config: &Config, admin: Option<SocketAddr>, problems: &mut Problems) -> [Binds; 2] {
    let (mut binds, mut datagrams) = (Binds::default(), Binds::default());
    let words = |owner| match owner {
        Owner::Admin => "the admin port".to_owned(),
        Owner::Listener(index) => format!("listener {}", quote(&config.listeners.entries[index].name.value)),
    };
    let written = match &config.admin.value {
        Some(At {
            value: raw::Admin::On(bind),
            ..
        }) => bind.value.as_ref(),
        _ => None,
    };
    if let Some(bind) = written {
        let bind = At {
            value: Address::Inet(bind.value),
            span: bind.span,
        };
        binds.add(&bind, Owner::Admin, &words, problems);
    }
    for (index, listener) in config.listeners.entries.iter().enumerate() {
        for bind in listener.bind.value.iter().flat_map(|at| &at.value) {
            let is_tcp = listener.protocol.or(Protocol::Tcp).has_connections();
            if is_tcp && written.is_none() && admin.is_some_and(|admin| collides(&bind.value, admin)) {
                let message = format!(
                    "{} collides with the admin port, which is {ADMIN_DEFAULT} by default",
                    bind.value
                );
                let help = "use another port, or set admin: { bind: ... } or admin: off";
                problems.error(bind.span, message, help);
            }
            // A port of TCP and the same one of UDP have nothing to do with each other.
            let same = match listener.protocol.or(Protocol::Tcp) {
                Protocol::Tcp | Protocol::Tls => &mut binds,
                Protocol::Udp => &mut datagrams,
            };
            same.add(bind, Owner::Listener(index), &words, problems);
        }
    }
    [binds, datagrams]
}

fn collides(bind: &Address, admin: SocketAddr) -> bool {
    match bind {
        Address::Inet(inet) => {
            inet.port() == admin.port()
                && inet.is_ipv4() == admin.is_ipv4()
                && (inet.ip() == admin.ip() || inet.ip().is_unspecified())
        }
        Address::Unix(_) => false,
    }
}

/// Something to listen on and somewhere to go.
fn presence(config: &Config, beginning: Span, problems: &mut Problems) {
    let example = "add one under `listeners`: its name, and below it bind, protocol and pool";
    if config.listeners.entries.is_empty() {
        problems.error(
            config.listeners.key.unwrap_or(beginning),
            "there are no listeners",
            example,
        );
    }
    if config.pools.entries.is_empty() {
        let help = "add one under `pools`: its name, and below it backends";
        problems.error(config.pools.key.unwrap_or(beginning), "there are no pools", help);
    }
}

fn required(listener: &raw::Listener, problems: &mut Problems) {
    let mut need = |absent: bool, key: &str, help: &str| {
        if absent {
            let message = format!("listener {} has no {key}", quote(&listener.name.value));
            problems.error(listener.name.span, message, help);
        }
    };
    need(
        listener.bind.is_absent(),
        "bind",
        "say where it listens, such as bind: 0.0.0.0:5432",
    );
    need(
        listener.protocol.is_absent(),
        "protocol",
        "add protocol: tcp, udp or tls",
    );
    need(
        listener.pool.is_absent() && listener.protocol.or(Protocol::Tcp) != Protocol::Tls,
        "pool",
        "say where its connections go: pool: NAME",
    );
}

fn buffers(field: &Field<raw::Buffers>, problems: &mut Problems) -> Buffers {
    let written = field.value.as_ref();
    let count = written.map_or(BUFFER_COUNT_DEFAULT, |at| at.value.count.or(BUFFER_COUNT_DEFAULT));
    let size = written.map_or(BUFFER_SIZE_DEFAULT, |at| at.value.size.or(BUFFER_SIZE_DEFAULT));
    let bytes = u64::from(count) * u64::from(size);
    if bytes > BUFFERS_BYTES_MAX
        && let Some(key) = field.key
    {
        let message = format!(
            "buffers of {count} × {} are {} for each worker",
            size::show(u64::from(size)),
            size::show(bytes)
        );
        problems.error(key, message, format!("at most {}", size::show(BUFFERS_BYTES_MAX)));
    }
    Buffers { count, size }
}

/// `None` without a usable target, which was reported.
fn session_log(raw: raw::SessionLog) -> Option<SessionLog> {
    let to: LogTarget = raw.to.value?.value;
    Some(SessionLog {
        to,
        format: raw.format.or(LogFormat::Json),
    })
}

/// Of a listener or a pool.
fn keepalive(field: &Field<raw::Keepalive>) -> Keepalive {
    let none = raw::Keepalive::default();
    let written = field.value.as_ref().map_or(&none, |at| &at.value);
    Keepalive {
        idle: written.idle.or(KEEPALIVE_IDLE.default),
        interval: written.interval.or(KEEPALIVE_INTERVAL.default),
        count: written.count.or(KEEPALIVE_COUNT_DEFAULT),
    }
}

/// `None` if it has no usable address, which was reported.
fn model_listener(raw: &raw::Listener, pool: Option<usize>, routes: Routes) -> Option<Listener> {
    let preface = preface::model(raw, routes);
    Some(Listener {
        name: raw.name.value.as_str().into(),
        bind: raw
            .bind
            .value
            .as_ref()?
            .value
            .iter()
            .map(|at| at.value.clone())
            .collect(),
        protocol: raw.protocol.or(Protocol::Tcp),
        pool: pool.map(PoolIndex),
        preface,
        backlog: raw.backlog.value.as_ref().map(|at| at.value),
        routing_timeout: raw.routing_timeout.or(ROUTING_TIMEOUT.default),
        idle_timeout: raw.idle_timeout.or(IDLE_TIMEOUT.default),
        half_closed_timeout: raw.half_closed_timeout.or(HALF_CLOSED_TIMEOUT.default),
        keepalive: keepalive(&raw.keepalive),
        dead_peer_timeout: raw.dead_peer_timeout.or(DEAD_PEER_TIMEOUT.default),
        max_connections: [&raw.max_connections, &raw.udp.max_sessions]
            .iter()
            .find_map(|field| field.value.as_ref().map(|at| at.value)),
        access: access::model(&raw.access),
        clients: access::clients(raw),
        affinity_group: raw.affinity_group.value.as_ref().map(|at| at.value.as_str().into()),
        udp: udp::model(&raw.udp),
    })
}
