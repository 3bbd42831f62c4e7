//! Where connections go by what their clients say first: pools that exist, routes that do not get in each other's way, keys
//! that belong to the listener's protocol.

use super::udp::written;
use crate::diagnostic::quote;
use crate::limits::HELLO_MAX_DEFAULT;
use crate::problem::Problems;
use crate::raw::{self, Fallback, Field, Hint, Per, Tlv};
use crate::source::{At, Span};
use crate::suggest;
use ringway_core::model::{
    Affinity, PoolIndex, Preface, Protocol, ProxyProtocol, ProxyVersion, SendProxy, Speech, Tls,
};
use ringway_core::route::{Names, Routes};
use std::collections::HashMap;

/// The pools of the configuration, by name.
pub(super) struct Pools<'a> {
    pub(super) indexes: HashMap<&'a str, usize>,
    /// Some may be missing because they could not be read.
    pub(super) partial: bool,
}

impl Pools<'_> {
    /// The pool of this name, or a problem.
    pub(super) fn find(&self, At { value: name, span }: &At<String>, problems: &mut Problems) -> Option<usize> {
        let found = self.indexes.get(name.as_str()).copied();
        // Without any pool that is the problem to report, once.
        if found.is_none() && !self.partial && !self.indexes.is_empty() {
            // Nobody sees the help of a problem that is only counted, and finding it is the slowest part of a check.
            let help = if problems.is_full() {
                String::new()
            } else {
                let mut names: Vec<&str> = self.indexes.keys().copied().collect();
                names.sort_by_key(|name| self.indexes[name]);
                suggest::help(name, "defined pools", names.into_iter())
            };
            problems.error(*span, format!("pool {} is not defined", quote(name)), help);
        }
        found
    }
}

/// Where a listener's connections go.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    /// Of what no route names.
    pub(super) pool: Option<usize>,
    pub(super) routes: Routes,
    /// Every pool, some of them more than once.
    pub(super) all: Vec<usize>,
    /// Something could not be found out, which was reported.
    pub(super) partial: bool,
}

/// Finds the pools of a listener, and reports what does not fit.
pub(super) fn destinations(listener: &raw::Listener, pools: &Pools<'_>, problems: &mut Problems) -> Destinations {
    let mut found = Destinations::default();
    let own = match listener.protocol.or(Protocol::Tcp) {
        Protocol::Tls => {
            routes(listener, pools, &mut found, problems);
            match listener.preface.fallback.value.as_ref() {
                Some(At {
                    value: Fallback::Pool(name),
                    span,
                }) => Some(At {
                    value: name.clone(),
                    span: *span,
                }),
                Some(At {
                    value: Fallback::Close, ..
                })
                | None => None,
            }
        }
        Protocol::Tcp | Protocol::Udp => listener.pool.value.as_ref().map(|at| At {
            value: at.value.clone(),
            span: at.span,
        }),
    };
    if let Some(own) = own {
        found.pool = pools.find(&own, problems);
        found.partial |= found.pool.is_none();
        found.all.extend(found.pool);
    } else if listener.protocol.or(Protocol::Tcp) != Protocol::Tls {
        found.partial = true;
    }
    found.partial |= listener.preface.fallback.is_unusable() || listener.protocol.value.is_none();
    found
}

fn routes(listener: &raw::Listener, pools: &Pools<'_>, found: &mut Destinations, problems: &mut Problems) {
    let name = quote(&listener.name.value);
    let field = &listener.preface.routes;
    let Some(At { value: written, .. }) = &field.value else {
        found.partial |= field.is_unusable();
        let goes_on = matches!(
            &listener.preface.fallback.value,
            Some(At {
                value: Fallback::Pool(_),
                ..
            })
        );
        if field.is_absent() && !goes_on && !listener.preface.fallback.is_unusable() {
            let help = "add routes: [{ sni: api.example.com, pool: api }], or fallback: POOL";
            problems.error(listener.name.span, format!("listener {name} has no routes"), help);
        }
        return;
    };
    found.partial |= written.partial;
    if written.list.is_empty() && !written.partial {
        let at = field.key.unwrap_or(listener.name.span);
        problems.error(at, format!("listener {name} has no routes"), "add at least one");
    }
    let mut first: HashMap<Match, Span> = HashMap::new();
    for route in &written.list {
        let pool = route.pool.value.as_ref().and_then(|at| pools.find(at, problems));
        found.partial |= pool.is_none();
        found.all.extend(pool);
        if route.sni.is_unusable() || route.alpn.is_unusable() {
            found.partial = true;
            continue;
        }
        if route.sni.is_absent() && route.alpn.is_absent() {
            let help = "write sni or alpn; for what no route names there is fallback";
            problems.error(route.span, "this route is for everything", help);
            continue;
        }
        for (names, at) in names_of(route) {
            for protocol in protocols_of(route) {
                if let Some(&before) = first.get(&(names.clone(), protocol.clone())) {
                    let message = format!("{} is routed already", words(&names, protocol.as_deref()));
                    problems.error_with_note(at, message, "remove one", (before, "it is routed here first"));
                    continue;
                }
                first.insert((names.clone(), protocol.clone()), at);
                if let Some(pool) = pool {
                    found.routes.add(&names, protocol.as_deref(), PoolIndex(pool));
                }
            }
        }
    }
}

/// What a route is for: names, and a protocol.
type Match = (Names, Option<Box<[u8]>>);

fn names_of(route: &raw::Route) -> Vec<(Names, Span)> {
    match &route.sni.value {
        Some(At { value: names, .. }) => names.iter().map(|at| (at.value.clone(), at.span)).collect(),
        None => vec![(Names::All, route.span)],
    }
}

fn protocols_of(route: &raw::Route) -> Vec<Option<Box<[u8]>>> {
    match &route.alpn.value {
        Some(At { value: protocols, .. }) => protocols.iter().map(|at| Some(at.value.clone())).collect(),
        None => vec![None],
    }
}

fn words(names: &Names, protocol: Option<&[u8]>) -> String {
    let names = match names {
        Names::Exact(name) => quote(name),
        Names::Below(suffix) => quote(&format!("*.{suffix}")),
        Names::Any => quote("*"),
        Names::All => "any hello".to_owned(),
    };
    match protocol {
        Some(protocol) => format!("{names} with {}", quote(&String::from_utf8_lossy(protocol))),
        None => names,
    }
}

/// Keys that belong to another protocol than the listener's.
pub(super) fn check(listener: &raw::Listener, problems: &mut Problems) {
    let Some(protocol) = listener.protocol.value.as_ref().map(|at| at.value) else {
        return;
    };
    let preface = &listener.preface;
    let of_tls = [
        ("routes", written(&preface.routes), "it needs protocol: tls"),
        ("fallback", written(&preface.fallback), "it needs protocol: tls"),
        ("hello_max", written(&preface.hello_max), "it needs protocol: tls"),
        ("starttls", written(&preface.starttls), "it needs protocol: tls"),
    ];
    let of_others = [
        (
            "pool",
            written(&listener.pool),
            "write routes, and fallback for what they do not name",
        ),
        (
            "protocol_hint",
            written(&preface.protocol_hint),
            "it is for protocol: tcp; for PostgreSQL over TLS write starttls: postgres",
        ),
    ];
    let of_tcp = [(
        "protocol_hint",
        written(&preface.protocol_hint),
        "it is for protocol: tcp",
    )];
    let strange = match protocol {
        Protocol::Tls => &of_others[..],
        Protocol::Tcp => &of_tls[..],
        Protocol::Udp => {
            report(&of_tcp, protocol, problems);
            &of_tls[..]
        }
    };
    report(strange, protocol, problems);
    if let Some(At { value: Some(proxy), .. }) = &preface.proxy_protocol.value {
        versions(proxy, protocol, problems);
        per(proxy, listener, protocol, problems);
    }
}

/// How often a balancer in front says who the client is.
fn per(proxy: &raw::ProxyProtocol, listener: &raw::Listener, protocol: Protocol, problems: &mut Problems) {
    match (written(&proxy.per), protocol) {
        (Some(at), Protocol::Tcp | Protocol::Tls) => {
            let message = format!("per has no effect with protocol: {}", protocol.word());
            problems.error(at, message, "remove it: a connection has one header");
        }
        (_, Protocol::Udp) => {
            let is_by_itself = listener.udp.affinity.or(Affinity::Session) == Affinity::None;
            if let Some(at) =
                written(&listener.udp.affinity).filter(|_| is_by_itself && proxy.per.or(Per::Session) == Per::Session)
            {
                let message =
                    "affinity: none does not go with a proxy_protocol that names the client once in a session";
                problems.error(at, message, "write per: datagram there, or use affinity: session");
            }
        }
        (None, Protocol::Tcp | Protocol::Tls) => {}
    }
}

fn report(strange: &[(&str, Option<Span>, &str)], protocol: Protocol, problems: &mut Problems) {
    for &(key, at, help) in strange {
        if let Some(at) = at {
            let message = format!("{key} has no effect with protocol: {}", protocol.word());
            problems.error(at, message, help);
        }
    }
}

fn versions(proxy: &raw::ProxyProtocol, protocol: Protocol, problems: &mut Problems) {
    for at in proxy.accept.value.iter().flat_map(|at| &at.value) {
        if protocol == Protocol::Udp && at.value == ProxyVersion::V1 {
            problems.error(at.span, "version 1 knows no datagrams", "write accept: v2");
        }
    }
}

/// What a pool's `send_proxy` says that its version or its listeners cannot do.
pub(super) fn check_send_proxy(pool: &raw::Pool, feeds_udp: Option<bool>, problems: &mut Problems) {
    let Some(At {
        value: Some(send),
        span,
    }) = &pool.send_proxy.value
    else {
        return;
    };
    if send.version.or(ProxyVersion::V2) == ProxyVersion::V1 {
        for (key, at) in [("tlvs", written(&send.tlvs)), ("checksum", written(&send.checksum))] {
            if let Some(at) = at {
                problems.error(at, format!("{key} has no effect with version: v1"), "write version: v2");
            }
        }
        if feeds_udp == Some(true) {
            let at = send.version.value.as_ref().map_or(*span, |at| at.span);
            problems.error(
                at,
                "version 1 knows no datagrams",
                "write v2: a UDP listener uses this pool",
            );
        }
    }
    if let (Some(at), Some(false)) = (written(&send.per), feeds_udp) {
        problems.warning(at, "per has no effect here", "only TCP listeners use this pool");
    }
}

/// With defaults filled in.
pub(super) fn model(listener: &raw::Listener, routes: Routes) -> Preface {
    let raw = &listener.preface;
    let speech = match (listener.protocol.or(Protocol::Tcp), raw.protocol_hint.value.as_ref()) {
        (Protocol::Tls, _) => Speech::Tls(Tls {
            routes,
            hello_max: raw.hello_max.or(HELLO_MAX_DEFAULT),
            starttls: raw.starttls.value.as_ref().map(|at| at.value),
        }),
        (
            Protocol::Tcp,
            Some(At {
                value: Hint::Postgres, ..
            }),
        ) => Speech::Postgres,
        (Protocol::Tcp | Protocol::Udp, _) => Speech::Any,
    };
    let proxy = match &raw.proxy_protocol.value {
        Some(At { value: Some(proxy), .. }) => Some(proxy_model(proxy, listener.protocol.or(Protocol::Tcp))),
        _ => None,
    };
    Preface { proxy, speech }
}

fn proxy_model(raw: &raw::ProxyProtocol, protocol: Protocol) -> ProxyProtocol {
    let accepts = |version| match &raw.accept.value {
        Some(at) => at.value.iter().any(|at| at.value == version),
        None => true,
    };
    ProxyProtocol {
        v1: accepts(ProxyVersion::V1) && protocol != Protocol::Udp,
        v2: accepts(ProxyVersion::V2),
        from: raw
            .from
            .value
            .iter()
            .flat_map(|at| &at.value)
            .map(|at| at.value)
            .collect(),
        each_datagram: protocol == Protocol::Udp && raw.per.or(Per::Session) == Per::Datagram,
    }
}

/// What backends of a pool are told.
pub(super) fn send_proxy_model(field: &Field<Option<raw::SendProxy>>) -> Option<SendProxy> {
    let raw = field.value.as_ref()?.value.as_ref()?;
    let tells = |tlv| {
        let written = raw.tlvs.value.iter().flat_map(|at| &at.value);
        written.into_iter().any(|at| at.value == tlv)
    };
    Some(SendProxy {
        version: raw.version.value.as_ref()?.value,
        authority: tells(Tlv::Sni),
        alpn: tells(Tlv::Alpn),
        unique_id: tells(Tlv::UniqueId),
        checksum: raw.checksum.or(false),
        each_datagram: raw.per.or(Per::Session) == Per::Datagram,
    })
}
